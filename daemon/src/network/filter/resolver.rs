//! The rules in a container's own namespace that lead its look-ups of names to the sockets of `dockerd-lite net`.
//!
//! The sockets are bound to ports that the kernel chose, so that a container may serve port 53 itself.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::expression::Rule;
use super::model;
use super::wire::{APPEND, Batch, CREATE, IPV4, Socket, kind, text};
use crate::error::{During, Result};

/// Where containers find the resolver.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

const TABLE: &str = "docker-dns";
const CHAIN: &str = "output";

/// Makes the rules in this thread's namespace, in place of those there may be.
pub(crate) fn redirect(udp: u16, tcp: u16) -> Result<()> {
    let what = || format!("lead {ADDRESS}:53 to the resolver");
    let socket = Socket::open().during(what)?;
    let tables = socket.list(kind::GET_TABLE, IPV4, |_| {}).during(what)?;
    if tables.iter().any(|t| text(t, 1).as_deref() == Some(TABLE)) {
        model::remove(&socket, IPV4, TABLE).during(what)?;
    }
    let mut batch = Batch::new(IPV4);
    batch.change(kind::NEW_TABLE, CREATE, "make the table", |a| {
        a.text(1, TABLE);
    });
    batch.change(kind::NEW_CHAIN, CREATE, "make the chain", |a| {
        const OUTPUT: u32 = 3;
        const BEFORE_OTHERS: i32 = -100;
        a.text(1, TABLE);
        a.text(3, CHAIN);
        a.nest(4, |hook| {
            hook.number(1, OUTPUT);
            hook.number(2, BEFORE_OTHERS as u32);
        });
        a.number(5, 1);
        a.text(7, "nat");
    });
    let here = crate::network::ipam::Subnet::new(ADDRESS.into(), 32);
    for (protocol, port) in [(17, udp), (6, tcp)] {
        let rule = Rule::new()
            .within(false, here)
            .protocol(protocol)
            .port(53)
            .redirect_to(SocketAddrV4::new(ADDRESS, port));
        batch.change(kind::NEW_RULE, CREATE | APPEND, "add a rule", |a| {
            a.text(1, TABLE);
            a.text(2, CHAIN);
            a.put(4 | 0x8000, rule.bytes());
        });
    }
    batch.commit(&socket).during(what)
}
