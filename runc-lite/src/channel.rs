//! The handshake between the parent (`create`, `run`, `exec`) and the child.
//!
//! One SOCK_SEQPACKET pair; one packet is one message.
//!
//! ```text
//!  parent                                child
//!  clone3  --------------------------->  starts inside its namespaces
//!  id maps         -- Mapped --------->  (only with a new user namespace)
//!  cgroup attach   -- Attached ------->  waited for before it matters: cgroup
//!                                        mounts, cgroup namespace, hooks
//!                  <- Mounted ---------  (only if the runtime has hooks to run)
//!  hooks           -- HooksDone ------>  pivot_root and the rest
//!                  <- Listener -------  (only if system calls are to be told to
//!  pidfd_getfd     -- Fetched ------->  somebody) the filter is in place
//!                  <- Ready -----------  nothing is left but the program
//!  state.json      -- Go ------------->  created: waits on the fifo, or executes
//!                  <- Failed ----------  at any time, and the child is gone
//! ```
//!
//! The child dies when the parent does before `Go`: it reads an end of file.
//! After a system call filter is in place only `read` and `write` are used.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::error::{StepError, errno_text};

/// The part of the child's work that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    /// Namespaces and identity in them.
    Namespaces = 1,
    /// Mounts, devices, pivot_root.
    Rootfs = 2,
    /// A hook run by the child.
    Hook = 3,
    /// The terminal.
    Console = 4,
    /// User, limits, privileges, working directory.
    Process = 5,
    /// The system call filter.
    Seccomp = 6,
    /// execve itself.
    Exec = 7,
    /// The handshake.
    Channel = 8,
}

impl Stage {
    fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Namespaces,
            2 => Self::Rootfs,
            3 => Self::Hook,
            4 => Self::Console,
            5 => Self::Process,
            6 => Self::Seccomp,
            7 => Self::Exec,
            _ => Self::Channel,
        }
    }
}

/// Why the child could not become the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InitFailure {
    /// Where.
    pub(crate) stage: Stage,
    /// What was attempted, on what.
    pub(crate) detail: String,
    /// The kernel's answer, 0 where the refusal is our own.
    pub(crate) errno: i32,
}

impl InitFailure {
    /// A failure at a stage, from any error.
    pub(crate) fn new(stage: Stage, error: &(dyn std::error::Error + 'static)) -> Self {
        match error.downcast_ref::<StepError>() {
            Some(step) if step.errno().is_some() => Self {
                stage,
                detail: step.doing().to_owned(),
                errno: step.errno().unwrap_or(0),
            },
            _ => Self {
                stage,
                detail: crate::error::chain(error),
                errno: 0,
            },
        }
    }

    /// Bytes for the wire.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.stage as u8];
        bytes.extend_from_slice(&self.errno.to_le_bytes());
        // A packet must fit the socket buffer and, in the fifo, one atomic write.
        bytes.extend_from_slice(
            self.detail
                .as_bytes()
                .get(..4000)
                .unwrap_or(self.detail.as_bytes()),
        );
        bytes
    }

    /// Back from the wire.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (stage, rest) = bytes.split_first()?;
        let (errno, detail) = rest.split_first_chunk::<4>()?;
        Some(Self {
            stage: Stage::from_byte(*stage),
            detail: String::from_utf8_lossy(detail).into_owned(),
            errno: i32::from_le_bytes(*errno),
        })
    }
}

impl std::fmt::Display for InitFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.detail)?;
        if self.errno != 0 {
            write!(f, ": {}", errno_text(self.errno))?;
        }
        Ok(())
    }
}

impl std::error::Error for InitFailure {}

/// Why the handshake ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    /// The child said what failed.
    #[error(transparent)]
    Init(#[from] InitFailure),
    /// The other side is gone without a word.
    #[error("the other process of the runtime ended unexpectedly")]
    Gone,
    /// It said something out of turn.
    #[error("unexpected message {0:#x} from the other process of the runtime")]
    OutOfTurn(u8),
    /// The socket failed.
    #[error("talk to the other process of the runtime")]
    Io(#[source] io::Error),
}

const MAPPED: u8 = b'M';
const ATTACHED: u8 = b'A';
const HOOKS_DONE: u8 = b'H';
const GO: u8 = b'G';
const SIBLING: u8 = b'S';
const MOUNTED: u8 = b'm';
const LISTENER: u8 = b'L';
const FETCHED: u8 = b'f';
const READY: u8 = b'R';
const FAILED: u8 = b'F';

/// The parent's end.
#[derive(Debug)]
pub(crate) struct ParentEnd(OwnedFd);

/// The child's end.
#[derive(Debug)]
pub(crate) struct ChildEnd(OwnedFd);

/// Makes both ends.
pub(crate) fn pair() -> io::Result<(ParentEnd, ChildEnd)> {
    let (a, b) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    Ok((ParentEnd(a), ChildEnd(b)))
}

/// What the child has to say next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Mounts are done, hooks of the runtime may run.
    Mounted,
    /// The system call filter is in place; its listener has this number there.
    Listener(i32),
    /// Nothing is left but the program.
    Ready,
}

impl ParentEnd {
    /// The descriptor's number. A forked child must close its copy: with it, it
    /// would never see the end of file when the parent is gone.
    pub(crate) fn number(&self) -> i32 {
        use std::os::fd::AsRawFd as _;
        self.0.as_raw_fd()
    }

    /// The id maps are written.
    pub(crate) fn mapped(&self) -> Result<(), ChannelError> {
        send(self.0.as_fd(), &[MAPPED])
    }

    /// The child is in its cgroup; it is told its pid as the host sees it.
    pub(crate) fn attached(&self, pid: i32) -> Result<(), ChannelError> {
        send(self.0.as_fd(), &with_number(ATTACHED, pid))
    }

    /// The hooks of the runtime have run.
    pub(crate) fn hooks_done(&self) -> Result<(), ChannelError> {
        send(self.0.as_fd(), &[HOOKS_DONE])
    }

    /// The listener was fetched.
    pub(crate) fn fetched(&self) -> Result<(), ChannelError> {
        send(self.0.as_fd(), &[FETCHED])
    }

    /// What had to be recorded is recorded.
    pub(crate) fn go(&self) -> Result<(), ChannelError> {
        send(self.0.as_fd(), &[GO])
    }

    fn sibling(&self) -> Result<i32, ChannelError> {
        let bytes = self.receive()?;
        number(&bytes, SIBLING)
    }

    /// Waits for the process that the one in between has made beside itself, and
    /// for the end of the one in between.
    pub(crate) fn sibling_made_by(&self, between: &OwnedFd) -> Result<Pid, ChannelError> {
        let answer = self.sibling();
        // It ends at once in either case.
        let _ = waitid(WaitId::PidFd(between.as_fd()), WaitIdOptions::EXITED);
        Pid::from_raw(answer?).ok_or(ChannelError::Gone)
    }

    /// Waits for the next word of the child.
    pub(crate) fn next(&self) -> Result<Said, ChannelError> {
        let bytes = self.receive()?;
        match bytes[0] {
            MOUNTED => Ok(Said::Mounted),
            READY => Ok(Said::Ready),
            LISTENER => Ok(Said::Listener(number(&bytes, LISTENER)?)),
            other => Err(ChannelError::OutOfTurn(other)),
        }
    }

    /// What the child said of its own end, where the parent noticed that end by
    /// other means first.
    pub(crate) fn last_words(&self) -> Option<InitFailure> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        loop {
            let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
            let now = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            if poll(&mut fds, Some(&now)).ok()? == 0 {
                return None;
            }
            match self.receive() {
                Err(ChannelError::Init(failure)) => return Some(failure),
                Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Waits until the child has become the program: end of file.
    pub(crate) fn executed(&self) -> Result<(), ChannelError> {
        match self.receive() {
            Err(ChannelError::Gone) => Ok(()),
            Err(other) => Err(other),
            Ok(bytes) => Err(ChannelError::OutOfTurn(bytes[0])),
        }
    }

    /// One packet, never empty, never a failure.
    fn receive(&self) -> Result<Vec<u8>, ChannelError> {
        let bytes = receive(self.0.as_fd())?;
        if bytes[0] == FAILED {
            let failure =
                InitFailure::decode(&bytes[1..]).ok_or(ChannelError::OutOfTurn(FAILED))?;
            return Err(failure.into());
        }
        Ok(bytes)
    }
}

impl ChildEnd {
    /// Waits for the id maps.
    pub(crate) fn wait_mapped(&self) -> Result<(), ChannelError> {
        self.expect(MAPPED)
    }

    /// Waits to be in the cgroup; gives our pid as the host sees it.
    pub(crate) fn wait_attached(&self) -> Result<i32, ChannelError> {
        let bytes = receive(self.0.as_fd())?;
        number(&bytes, ATTACHED)
    }

    /// Tells the number of the system call listener's descriptor, and waits
    /// until it was fetched.
    pub(crate) fn listener(&self, fd: i32) -> Result<(), ChannelError> {
        send(self.0.as_fd(), &with_number(LISTENER, fd))?;
        self.expect(FETCHED)
    }

    /// Says that mounts are done and waits for the runtime's hooks.
    pub(crate) fn mounted(&self) -> Result<(), ChannelError> {
        send(self.0.as_fd(), &[MOUNTED])?;
        self.expect(HOOKS_DONE)
    }

    /// Says that nothing is left and waits for the parent's record.
    pub(crate) fn ready(&self) -> Result<(), ChannelError> {
        send(self.0.as_fd(), &[READY])?;
        self.expect(GO)
    }

    /// Tells the pid of the process that takes over.
    pub(crate) fn sibling(&self, pid: i32) -> Result<(), ChannelError> {
        send(self.0.as_fd(), &with_number(SIBLING, pid))
    }

    /// Tells what failed; if nobody hears it, nobody is left to care.
    pub(crate) fn failed(&self, failure: &InitFailure) {
        let mut bytes = vec![FAILED];
        bytes.extend_from_slice(&failure.encode());
        let _ = send(self.0.as_fd(), &bytes);
    }

    fn expect(&self, wanted: u8) -> Result<(), ChannelError> {
        match receive(self.0.as_fd())?[0] {
            got if got == wanted => Ok(()),
            other => Err(ChannelError::OutOfTurn(other)),
        }
    }
}

fn with_number(kind: u8, number: i32) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes
}

fn number(bytes: &[u8], kind: u8) -> Result<i32, ChannelError> {
    match (bytes[0] == kind, bytes[1..].first_chunk::<4>()) {
        (true, Some(number)) => Ok(i32::from_le_bytes(*number)),
        _ => Err(ChannelError::OutOfTurn(bytes[0])),
    }
}

fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), ChannelError> {
    loop {
        match rustix::io::write(fd, bytes) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::PIPE | Errno::CONNRESET) => return Err(ChannelError::Gone),
            Err(e) => return Err(ChannelError::Io(e.into())),
        }
    }
}

fn receive(fd: BorrowedFd<'_>) -> Result<Vec<u8>, ChannelError> {
    let mut buffer = vec![0; 4096];
    loop {
        match rustix::io::read(fd, &mut buffer) {
            Ok(0) => return Err(ChannelError::Gone),
            Ok(n) => {
                buffer.truncate(n);
                return Ok(buffer);
            }
            // A reset is told once, before what the other side said last.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            Err(e) => return Err(ChannelError::Io(e.into())),
        }
    }
}

#[cfg(test)]
mod tests;
