//! The packet filter: one table of our own, `inet dockerd-lite-ID`, changed by difference and in one transaction.
//!
//! ```text
//!  networks, ports ──rules──▶ Table ──difference──▶ Batch ──one datagram──▶ kernel
//!                                        ▲
//!                        Standing: remembered, or read back after a start or a refusal
//! ```
//!
//! The kernel is spoken to directly; no program is run. Nothing of anybody else's is touched, nor the rules that an operator
//! puts into the chain `DOCKER-USER`; and where what stands is right, nothing is sent at all. So a daemon that starts again
//! leaves not a byte of the rules different, and not a packet is lost.

mod expression;
mod model;
mod resolver;
pub(super) mod rules;
pub(super) mod tracked;
pub(super) mod wire;

use std::sync::{Mutex, PoisonError};

use model::{Standing, Table};
pub(super) use resolver::ADDRESS as RESOLVER;
pub(crate) use resolver::redirect as redirect_resolver;
use rules::{Bridge, Mapping};
use wire::Socket;

use crate::error::{During, Result};

/// The table of this installation.
#[derive(Debug)]
pub(super) struct Filter {
    table: String,
    /// What stands as far as we know; none if it must be read.
    standing: Mutex<Option<Standing>>,
}

impl Filter {
    /// A table that is not looked at yet.
    pub(super) fn new(table: String) -> Self {
        Self {
            table,
            standing: Mutex::default(),
        }
    }

    /// Makes the table what networks and ports need, which are asked for when it is this caller's turn, so that the last
    /// one to come has the last word. Blocks for as long as the kernel takes: well below a millisecond unless there are
    /// thousands of changes.
    pub(super) fn apply(&self, needs: impl FnOnce() -> (Vec<Bridge>, Vec<Mapping>)) -> Result<()> {
        let what = || format!("bring the packet filter table {} up to date", self.table);
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let (bridges, mappings) = needs();
        let wanted = rules::table(&bridges, &mappings);
        if let Some(known) = standing.take() {
            match self.change(&wanted, &known) {
                Ok(now) => {
                    *standing = Some(now);
                    return Ok(());
                }
                // Somebody has changed our table: it is read and made right.
                Err(e) => tracing::info!("{}: {e}; it is read again", what()),
            }
        }
        let socket = Socket::open().during(what)?;
        let known = model::read(&socket, &self.table).during(what)?;
        *standing = Some(self.change(&wanted, &known).during(what)?);
        Ok(())
    }

    fn change(&self, wanted: &Table, known: &Standing) -> Result<Standing> {
        let batch = wanted.change(&self.table, known);
        if !batch.is_empty() {
            batch.commit(&Socket::open()?)?;
        }
        Ok(wanted.standing())
    }

    /// Removes the table, and the one of the former format; one that is not there is no error.
    pub(super) fn remove(&self) -> Result<()> {
        let socket = Socket::open()?;
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.remove_former()?;
        model::remove(&socket, wire::INET, &self.table)
    }

    /// Removes the table that earlier versions made under the same name in the family of IPv4.
    pub(super) fn remove_former(&self) -> Result<()> {
        let socket = Socket::open()?;
        let tables = socket.list(wire::kind::GET_TABLE, wire::IPV4, |_| {})?;
        let ours = |table: &Vec<u8>| wire::text(table, 1).as_deref() == Some(&self.table);
        match tables.iter().any(ours) {
            true => model::remove(&socket, wire::IPV4, &self.table),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
