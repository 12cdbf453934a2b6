//! A criu that runs and serves us on its socket: how it is started, what is asked and
//! what it says.

use std::ffi::CString;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use rustix::io::FdFlags;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
    recvmsg, socketpair,
};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::wire::{Fields, Message};
use super::{Criu, CriuError, Kind};
use crate::cgroup::Entry;
use crate::error::{Doing as _, StepError};
use crate::sys::clone::{Forked, fork_into};
use crate::sys::exec::{ExecArrays, execve, exit_now};

/// Something criu tells us on its way.
#[derive(Debug)]
pub(crate) struct Notice {
    /// What has been reached: `post-restore`, `setup-namespaces`, ...
    pub(crate) script: String,
    /// The first process, in our pid namespace, where there is one.
    pub(crate) pid: i32,
    /// The master side of a terminal, with `orphan-pts-master`.
    pub(crate) fd: Option<OwnedFd>,
}

/// A criu that serves us. Killed when dropped, should it still be there.
#[derive(Debug)]
pub(crate) struct Session {
    socket: OwnedFd,
    pidfd: OwnedFd,
    /// Its process id.
    pub(crate) pid: i32,
    /// Whether it was cloned into the cgroup it should be in.
    pub(crate) in_cgroup: bool,
}

impl Drop for Session {
    fn drop(&mut self) {
        // What it restored is another process: a sibling of it.
        let _ = crate::sys::process::pidfd_kill(&self.pidfd, libc::SIGKILL);
        let _ = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
    }
}

impl Session {
    /// Runs criu. It inherits our standard streams and descriptors that are not
    /// close-on-exec.
    pub(crate) fn start(criu: &Criu) -> Result<Self, CriuError> {
        let (ours, its) = pair()?;
        let program = Program::of(criu)?;
        match fork_into(0, false, None).doing(|| "clone")? {
            Forked::Child => {
                drop(ours);
                say_failed(&its, &program.become_it(&its));
                exit_now(127)
            }
            Forked::Parent { pid, pidfd, .. } => Ok(Self {
                socket: ours,
                pidfd,
                pid,
                in_cgroup: false,
            }),
        }
    }

    /// Runs criu in a cgroup, after `prepare` in its process; it is there on return.
    ///
    /// criu takes directories by their numbers in the process that made the socket,
    /// and can mount only where they lie in its own mount namespace. So where it has
    /// one of its own, its process makes the socket and has the directories.
    pub(crate) fn start_in(
        criu: &Criu,
        entry: &Entry,
        prepare: &dyn Fn() -> Result<(), StepError>,
    ) -> Result<Self, CriuError> {
        let (ours, its) = pair()?;
        let program = Program::of(criu)?;
        match fork_into(0, false, entry.clone_into()).doing(|| "clone")? {
            Forked::Child => {
                drop(ours);
                let made = entry
                    .enter()
                    .map_err(|e| {
                        let why = crate::error::chain(&e);
                        StepError::refused("enter the container's cgroup", why)
                    })
                    .and_then(|()| prepare())
                    .and_then(|()| pair())
                    .and_then(|(far, near)| {
                        crate::console::send_fd(its.as_fd(), b"criu", far.as_fd())
                            .doing(|| "send criu's socket")?;
                        Ok(near)
                    });
                match made {
                    Err(e) => say_failed(&its, &e),
                    Ok(near) => say_failed(&near, &program.become_it(&near)),
                }
                exit_now(127)
            }
            Forked::Parent {
                pid,
                pidfd,
                in_cgroup,
            } => {
                drop(its);
                let mut session = Self {
                    socket: ours,
                    pidfd,
                    pid,
                    in_cgroup,
                };
                let (words, socket) = session.receive(Path::new(""))?;
                match socket {
                    Some(socket) => session.socket = socket,
                    None => return Err(refusal(Kind::Restore, &words, Path::new(""))),
                }
                Ok(session)
            }
        }
    }

    /// One request without notifications.
    pub(super) fn ask(&self, kind: Kind, opts: &Message, log: &Path) -> Result<Vec<u8>, CriuError> {
        self.request(kind, opts)?;
        self.answer(kind, log)
    }

    /// Sends a request.
    pub(crate) fn request(&self, kind: Kind, opts: &Message) -> Result<(), CriuError> {
        let mut request = Message::default();
        request.number(1, kind.number());
        if !opts.as_bytes().is_empty() {
            request.message(2, opts);
        }
        self.send(&request)
    }

    /// Waits for what comes next: a notice, or the answer, which ends it.
    pub(crate) fn next(&self, kind: Kind, log: &Path) -> Result<Next, CriuError> {
        let (bytes, fd) = self.receive(log)?;
        let fields = Fields(&bytes);
        let told = fields.number(1).unwrap_or(0);
        let success = fields.number(2) == Some(1);
        if told == Kind::Notify.number() && success {
            let notice = Fields(fields.bytes(5).unwrap_or_default());
            return Ok(Next::Notice(Notice {
                script: String::from_utf8_lossy(notice.bytes(1).unwrap_or_default()).into_owned(),
                pid: notice
                    .number(2)
                    .and_then(|n| n.try_into().ok())
                    .unwrap_or(0),
                fd,
            }));
        }
        if success && told == kind.number() {
            return Ok(Next::Answer(bytes));
        }
        Err(refusal(kind, &bytes, log))
    }

    /// Lets criu go on after a notice.
    pub(crate) fn go_on(&self) -> Result<(), CriuError> {
        let mut request = Message::default();
        request.number(1, Kind::Notify.number()).flag(3, true);
        self.send(&request)
    }

    /// Waits for criu to end by itself, after its answer.
    pub(crate) fn finish(self) {
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write);
        let _ = waitid(
            WaitId::PidFd(self.pidfd.as_fd()),
            WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
        );
    }

    pub(super) fn answer(&self, kind: Kind, log: &Path) -> Result<Vec<u8>, CriuError> {
        loop {
            match self.next(kind, log)? {
                Next::Answer(bytes) => return Ok(bytes),
                Next::Notice(_) => self.go_on()?,
            }
        }
    }

    pub(super) fn send(&self, message: &Message) -> Result<(), CriuError> {
        let sent = rustix::net::send(
            &self.socket,
            message.as_bytes(),
            rustix::net::SendFlags::NOSIGNAL,
        );
        match sent {
            // It is gone; what it said last is still to be read.
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Ok(()),
            other => Ok(other.map(drop).doing(|| "send a request to criu")?),
        }
    }

    fn receive(&self, log: &Path) -> Result<(Vec<u8>, Option<OwnedFd>), CriuError> {
        let mut bytes = vec![0; 64 * 1024];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = loop {
            let mut iov = [IoSliceMut::new(&mut bytes)];
            match recvmsg(
                &self.socket,
                &mut iov,
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            ) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CONNRESET) => return Err(CriuError::Gone(log.to_owned())),
                other => break other.doing(|| "wait for criu")?,
            }
        };
        if got.bytes == 0 {
            return Err(CriuError::Gone(log.to_owned()));
        }
        bytes.truncate(got.bytes);
        let mut fd = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                fd = fds.last().or(fd);
            }
        }
        Ok((bytes, fd))
    }
}

fn pair() -> Result<(OwnedFd, OwnedFd), StepError> {
    let flags = SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .doing(|| "make a socket pair for criu")
}

/// An answer that is none of those hoped for, as an error.
fn refusal(kind: Kind, answer: &[u8], log: &Path) -> CriuError {
    let fields = Fields(answer);
    let text = match fields.bytes(9) {
        Some(text) if !text.is_empty() => format!(": {}", String::from_utf8_lossy(text)),
        _ => String::new(),
    };
    let errno = fields.number(7).and_then(|n| n.try_into().ok());
    CriuError::Failed {
        what: kind.name(),
        errno: errno.unwrap_or(0),
        text,
        log: log.to_owned(),
    }
}

/// What the process that becomes criu needs, made before there is one.
struct Program {
    path: CString,
    env: ExecArrays,
}

impl Program {
    fn of(criu: &Criu) -> Result<Self, StepError> {
        let path = CString::new(criu.path.clone().into_os_string().into_vec())
            .doing(|| "name the criu program")?;
        let env: Vec<Vec<u8>> = std::env::vars_os()
            .map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b'='))
            .collect();
        let env = ExecArrays::new(&env).doing(|| "name criu's environment")?;
        Ok(Self { path, env })
    }

    /// Becomes criu, which serves this socket; returns only why it could not.
    fn become_it(&self, socket: &OwnedFd) -> StepError {
        let number = socket.as_raw_fd().to_string();
        let done = ExecArrays::new(&["criu".to_owned(), "swrk".to_owned(), number])
            .doing(|| "name criu's arguments")
            .and_then(|args| {
                crate::sys::process::reset_signals().doing(|| "reset signals")?;
                rustix::io::fcntl_setfd(socket, FdFlags::empty()).doing(|| "pass the socket on")?;
                Err(execve(&self.path, &args, &self.env)).doing(|| "execute criu")
            });
        match done {
            Err(e) => e,
            Ok(never) => never,
        }
    }
}

/// Tells the other end, in criu's words, why criu does not run.
fn say_failed(socket: &OwnedFd, error: &StepError) {
    let mut answer = Message::default();
    answer.number(1, 0).number(2, 0);
    answer.number(7, error.errno().unwrap_or(0).into());
    answer.text(9, &crate::error::chain(error));
    // If nobody hears it, nobody is left to care.
    let _ = rustix::net::send(socket, answer.as_bytes(), rustix::net::SendFlags::NOSIGNAL);
}

/// What criu says.
#[derive(Debug)]
pub(crate) enum Next {
    /// It waits for [`Session::go_on`].
    Notice(Notice),
    /// It is done.
    Answer(Vec<u8>),
}
