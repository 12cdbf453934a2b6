//! The only waiter. Every child of the shim (runtime calls, loggers, and the container's processes, which the subreaper
//! flag brings here when the runtime exits) is reaped in one place and its exit handed to whoever claimed the pid.
//!
//! A container's process may end before its pid is known here: the runtime is still writing the pid file. So exits of
//! unknown pids are kept while somebody is *expecting*, that is from before the runtime is called until its pid is claimed.
//! Other unknown exits are orphans of a container and nobody's business.
//!
//! Async: needs the runtime for SIGCHLD.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use rustix::process::{WaitOptions, WaitStatus};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::diag;

/// How and when a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    /// The exit code, or 128 plus the number of the signal that killed it.
    pub(crate) status: u32,
    /// The signal that killed it.
    pub(crate) signal: Option<u32>,
    /// When it was reaped.
    pub(crate) at: SystemTime,
}

/// Handle on the reaper; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reaper(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    claims: HashMap<u32, oneshot::Sender<Exit>>,
    early: HashMap<u32, Exit>,
    expecting: usize,
}

impl Reaper {
    /// Makes the process a subreaper and starts to reap on SIGCHLD. Children that end before this are reaped as well.
    pub(crate) fn start() -> std::io::Result<Self> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let reaper = Self::default();
        let mut children = signal(SignalKind::child())?;
        let own = reaper.clone();
        tokio::spawn(async move {
            while children.recv().await.is_some() {
                own.reap();
            }
        });
        Ok(reaper)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().expect("no holder of the table panics")
    }

    /// Keeps exits of unknown pids until the guard goes.
    pub(crate) fn expect(&self) -> ExpectGuard {
        self.table().expecting += 1;
        ExpectGuard(self.clone())
    }

    /// As [`Self::claim`], of a process that a runtime left to us; none if it is not our child, whose exit nobody here sees.
    pub(crate) fn adopt(&self, pid: u32) -> Option<oneshot::Receiver<Exit>> {
        let kept = self.table().early.contains_key(&pid);
        (kept || is_child(pid)).then(|| self.claim(pid))
    }

    /// The coming or kept exit of `pid`, a child of ours.
    pub(crate) fn claim(&self, pid: u32) -> oneshot::Receiver<Exit> {
        let (send, receive) = oneshot::channel();
        let mut table = self.table();
        match table.early.remove(&pid) {
            // A kept exit counts only if the number was not given to a new child meanwhile.
            Some(exit) if !is_child(pid) => drop(send.send(exit)),
            _ => drop(table.claims.insert(pid, send)),
        }
        receive
    }

    /// Reaps all children that have ended.
    fn reap(&self) {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    let pid = pid.as_raw_nonzero().get().unsigned_abs();
                    if let Some(exit) = exit_of(status) {
                        self.deliver(pid, exit);
                    }
                }
                Ok(None) | Err(rustix::io::Errno::CHILD) => return,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    diag::warn(format_args!("wait for children: {error}"));
                    return;
                }
            }
        }
    }

    fn deliver(&self, pid: u32, exit: Exit) {
        let mut table = self.table();
        match table.claims.remove(&pid) {
            // A claimer that went away does not want to know.
            Some(claim) => drop(claim.send(exit)),
            None if table.expecting > 0 => drop(table.early.insert(pid, exit)),
            None => diag::debug(format_args!("reaped orphan {pid}: status {}", exit.status)),
        }
    }
}

/// While it lives, exits of unknown pids are kept.
#[derive(Debug)]
pub(crate) struct ExpectGuard(Reaper);

impl Drop for ExpectGuard {
    fn drop(&mut self) {
        let mut table = self.0.table();
        table.expecting -= 1;
        if table.expecting == 0 {
            table.early = HashMap::new();
        }
    }
}

fn exit_of(status: WaitStatus) -> Option<Exit> {
    let at = SystemTime::now();
    if let Some(code) = status.exit_status() {
        let status = code.unsigned_abs() & 0xff;
        return Some(Exit {
            status,
            signal: None,
            at,
        });
    }
    let signal = status.terminating_signal()?.unsigned_abs();
    Some(Exit {
        status: 128 + signal,
        signal: Some(signal),
        at,
    })
}

/// Whether a process of that number exists as a child of this one.
fn is_child(pid: u32) -> bool {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    crate::process::stat(pid).is_some_and(|stat| stat.parent == own.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(status: u32) -> Exit {
        Exit {
            status,
            signal: None,
            at: SystemTime::UNIX_EPOCH,
        }
    }

    /// No process has this number: it is above the kernel's limit.
    const NOBODY: u32 = 0x7fff_fff0;

    #[test]
    fn an_early_exit_waits_for_its_claim() {
        let reaper = Reaper::default();
        let guard = reaper.expect();
        reaper.deliver(NOBODY, exit(7));
        assert_eq!(reaper.claim(NOBODY).try_recv(), Ok(exit(7)));
        drop(guard);
    }

    #[test]
    fn a_claim_waits_for_its_exit() {
        let reaper = Reaper::default();
        let mut claim = reaper.claim(NOBODY);
        assert!(claim.try_recv().is_err());
        reaper.deliver(NOBODY, exit(3));
        assert_eq!(claim.try_recv(), Ok(exit(3)));
    }

    #[test]
    fn orphans_are_forgotten() {
        let reaper = Reaper::default();
        reaper.deliver(NOBODY, exit(1));
        let (one, two) = (reaper.expect(), reaper.expect());
        reaper.deliver(NOBODY + 1, exit(1));
        drop(one);
        assert_eq!(reaper.table().early.len(), 1);
        drop(two);
        assert!(reaper.table().early.is_empty());
    }
}
