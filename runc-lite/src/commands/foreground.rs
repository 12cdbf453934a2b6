//! Staying with a process: its signals, its terminal, its exit code.
//!
//! One loop over three descriptors: pending signals, our standard input, the
//! master side of the terminal. All signals are blocked from before the process
//! exists, so that an early end is not missed.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use super::CommandError;
use crate::error::{Doing as _, StepError};
use crate::sys::process::{next_signal, pidfd_kill, signal_fd};

/// Blocked signals, to be read.
#[derive(Debug)]
pub(super) struct Signals(OwnedFd);

impl Signals {
    /// Blocks them; before the process is made.
    pub(super) fn block() -> Result<Self, StepError> {
        signal_fd().map(Self).doing(|| "block signals")
    }

    /// What they are read from.
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.0
    }
}

/// Puts the terminal of the caller back as it was.
#[derive(Debug)]
struct RawModeGuard(Option<Termios>);

impl RawModeGuard {
    fn enter() -> Self {
        let stdin = rustix::stdio::stdin();
        let Ok(before) = tcgetattr(stdin) else {
            return Self(None);
        };
        let mut raw = before.clone();
        raw.make_raw();
        match tcsetattr(stdin, OptionalActions::Now, &raw) {
            Ok(()) => Self(Some(before)),
            Err(_) => Self(None),
        }
    }
}

impl Drop for RawModeGuard {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // The terminal may be gone; there is nothing left to restore then.
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Serves a process until it ends; gives its exit code.
pub(super) fn serve(
    signals: &Signals,
    pid: i32,
    pidfd: &OwnedFd,
    terminal: Option<OwnedFd>,
) -> Result<u8, CommandError> {
    let master = match terminal {
        None => None,
        Some(socket) => {
            Some(crate::console::receive_fd(socket.as_fd()).doing(|| "receive the terminal")?)
        }
    };
    let _raw = master.as_ref().map(|_| RawModeGuard::enter());
    if let Some(master) = &master {
        copy_size(master);
    }
    let mut relay = Relay {
        open_input: master.is_some(),
        master,
    };
    // The end may have come before the first look.
    if let Some(code) = reap(pid)? {
        relay.drain();
        return Ok(code);
    }
    loop {
        relay.wait(&signals.0)?;
        while let Some(signal) = next_signal(&signals.0).doing(|| "read signals")? {
            match signal {
                libc::SIGCHLD => {
                    if let Some(code) = reap(pid)? {
                        relay.drain();
                        return Ok(code);
                    }
                }
                libc::SIGWINCH if relay.master.is_some() => {
                    relay.master.as_ref().map(copy_size);
                }
                // Go programs get these by the thousand; they mean nothing here.
                libc::SIGURG => {}
                other => {
                    // It may be gone by now, which the loop is about to learn.
                    let _ = pidfd_kill(pidfd, other);
                }
            }
        }
    }
}

/// Waits for all children that have ended (we may be their subreaper); gives the
/// code of the one that counts.
pub(super) fn reap(pid: i32) -> Result<Option<u8>, StepError> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((found, status))) if found.as_raw_nonzero().get() == pid => {
                let code = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => code,
                    (None, Some(signal)) => 128 + signal,
                    (None, None) => continue,
                };
                return Ok(Some(code as u8));
            }
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(Errno::CHILD) => return Ok(None),
            Err(e) => return Err(e).doing(|| "wait for the container's process"),
        }
    }
}

/// The bytes between the caller's streams and the terminal.
#[derive(Debug)]
struct Relay {
    master: Option<OwnedFd>,
    open_input: bool,
}

impl Relay {
    /// Waits until there is something to do, and moves what bytes there are.
    fn wait(&mut self, signals: &OwnedFd) -> Result<(), StepError> {
        let stdin = rustix::stdio::stdin();
        let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
        if let Some(master) = &self.master {
            fds.push(PollFd::new(master, PollFlags::IN));
            if self.open_input {
                fds.push(PollFd::new(&stdin, PollFlags::IN));
            }
        }
        match poll(&mut fds, None) {
            Err(Errno::INTR) => return Ok(()),
            other => other.doing(|| "wait for the container's process")?,
        };
        let ready = |i: usize| fds.get(i).is_some_and(|f| !f.revents().is_empty());
        let (output, input) = (ready(1), ready(2));
        if input && !self.copy_in() {
            self.open_input = false;
        }
        if output && !self.copy_out() {
            self.master = None;
        }
        Ok(())
    }

    /// From our input to the terminal; false at its end.
    fn copy_in(&self) -> bool {
        let mut buffer = [0; 8192];
        let Some(master) = &self.master else {
            return false;
        };
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Ok(0) => {
                // What the terminal's line discipline takes as end of file.
                let _ = rustix::io::write(master, &[4]);
                false
            }
            Ok(n) => write_all(master.as_fd(), &buffer[..n]),
            Err(Errno::INTR | Errno::AGAIN) => true,
            Err(_) => false,
        }
    }

    /// From the terminal to our output; false when nobody has it open any more.
    fn copy_out(&self) -> bool {
        let mut buffer = [0; 8192];
        let Some(master) = &self.master else {
            return false;
        };
        match rustix::io::read(master, &mut buffer) {
            Ok(0) => false,
            Ok(n) => write_all(rustix::stdio::stdout(), &buffer[..n]),
            Err(Errno::INTR | Errno::AGAIN) => true,
            // EIO is how a terminal says that its other side is closed.
            Err(_) => false,
        }
    }

    /// What the process wrote before it ended.
    fn drain(&self) {
        let Some(master) = &self.master else { return };
        let now = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        loop {
            let mut fds = [PollFd::new(master, PollFlags::IN)];
            match poll(&mut fds, Some(&now)) {
                Ok(n) if n > 0 && fds[0].revents().contains(PollFlags::IN) => {}
                _ => return,
            }
            if !self.copy_out() {
                return;
            }
        }
    }
}

fn write_all(fd: std::os::fd::BorrowedFd<'_>, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::new(&fd, PollFlags::OUT)];
                let _ = poll(&mut fds, None);
            }
            Err(_) => return false,
        }
    }
    true
}

/// The container's terminal has the size of ours.
fn copy_size(master: &OwnedFd) {
    if let Ok(size) = tcgetwinsize(rustix::stdio::stdin()) {
        let _ = tcsetwinsize(master, size);
    }
}
