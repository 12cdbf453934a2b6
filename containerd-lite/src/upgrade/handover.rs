//! What one program leaves to the next in the same process: descriptors by number, named in one variable of the environment.
//!
//! The variable holds JSON and the process id, so that a child that inherits it does not mind it. The descriptor of the old
//! program comes along: until the new one is ready, whatever stops it (an error, a panic, a hang) executes the old one again,
//! with the reason. Sync.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::mpsc;
use std::time::Duration;

use nix::fcntl::{AtFlags, FcntlArg, FdFlag};
use nix::sys::signal::{SigSet, Signal};
use serde::{Deserialize, Serialize};

/// Format of the note.
pub(crate) const VERSION: u32 = 1;
/// The variable that holds it.
pub(crate) const VARIABLE: &str = "CONTAINERD_LITE_HANDOVER";
/// A manager's sockets, which the first program of the process has taken.
const MANAGERS: [&str; 3] = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];
/// How long the new program may take to get ready.
const READY: Duration = Duration::from_secs(15);
/// How long the thread that goes back may take to have its turn.
const TURN: Duration = Duration::from_secs(5);

/// Why what was left cannot be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandoverError {
    /// It is of a format that this program does not know.
    #[error("handover of version {0}, this program knows {VERSION}")]
    Version(u32),
    /// It is no note.
    #[error("read {VARIABLE}")]
    Parse(#[source] serde_json::Error),
    /// A descriptor is not there.
    #[error("take over descriptor {fd}")]
    Descriptor {
        /// Which one.
        fd: i32,
        /// Why.
        source: io::Error,
    },
}

/// The note. Fields that a newer program adds are not for us.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    version: u32,
    pid: u32,
    grpc: i32,
    ttrpc: i32,
    root_lock: i32,
    state_lock: i32,
    /// The program that was here before; none once it has been gone back to.
    old: Option<i32>,
    /// Why it was gone back to.
    refused: Option<String>,
}

/// What is handed over.
#[derive(Debug)]
pub(crate) struct Handover {
    pub(crate) grpc: OwnedFd,
    pub(crate) ttrpc: OwnedFd,
    pub(crate) root_lock: OwnedFd,
    pub(crate) state_lock: OwnedFd,
    /// The program that can be gone back to.
    pub(crate) old: Option<OwnedFd>,
    /// Why this program was gone back to.
    pub(crate) refused: Option<String>,
}

impl Handover {
    /// What an earlier program of this process left, if there was one.
    pub(crate) fn taken() -> Result<Option<Self>, HandoverError> {
        let Some(text) = std::env::var_os(VARIABLE) else {
            return Ok(None);
        };
        let note: Note = serde_json::from_slice(text.as_bytes()).map_err(HandoverError::Parse)?;
        if note.pid != std::process::id() {
            return Ok(None);
        }
        if note.version != VERSION {
            return Err(HandoverError::Version(note.version));
        }
        let take =
            |fd| crate::listen::take(fd).map_err(|source| HandoverError::Descriptor { fd, source });
        Ok(Some(Self {
            grpc: take(note.grpc)?,
            ttrpc: take(note.ttrpc)?,
            root_lock: take(note.root_lock)?,
            state_lock: take(note.state_lock)?,
            old: note.old.map(take).transpose()?,
            refused: note.refused,
        }))
    }

    /// A second set of the same descriptors.
    pub(crate) fn copy(&self) -> io::Result<Self> {
        Ok(Self {
            grpc: self.grpc.try_clone()?,
            ttrpc: self.ttrpc.try_clone()?,
            root_lock: self.root_lock.try_clone()?,
            state_lock: self.state_lock.try_clone()?,
            old: self.old.as_ref().map(OwnedFd::try_clone).transpose()?,
            refused: self.refused.clone(),
        })
    }

    /// Runs `program` in this process with what is handed over; returns only if that fails.
    pub(crate) fn execute(&self, program: impl AsFd) -> io::Error {
        match self.try_execute(program) {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    fn try_execute(&self, program: impl AsFd) -> io::Result<Infallible> {
        let kept = [&self.grpc, &self.ttrpc, &self.root_lock, &self.state_lock];
        for fd in kept.into_iter().chain(&self.old) {
            nix::fcntl::fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        let note = Note {
            version: VERSION,
            pid: std::process::id(),
            grpc: self.grpc.as_raw_fd(),
            ttrpc: self.ttrpc.as_raw_fd(),
            root_lock: self.root_lock.as_raw_fd(),
            state_lock: self.state_lock.as_raw_fd(),
            old: self.old.as_ref().map(|fd| fd.as_raw_fd()),
            refused: self.refused.clone(),
        };
        let note = serde_json::to_string(&note).map_err(io::Error::other)?;
        let text = |bytes: Vec<u8>| CString::new(bytes).map_err(io::Error::other);
        let args = std::env::args_os()
            .map(|arg| text(arg.as_bytes().to_vec()))
            .collect::<io::Result<Vec<_>>>()?;
        let mut env = vec![text(format!("{VARIABLE}={note}").into_bytes())?];
        for (name, value) in std::env::vars_os() {
            let dropped = name == VARIABLE || MANAGERS.iter().any(|manager| name == *manager);
            if !dropped {
                env.push(text([name.as_bytes(), b"=", value.as_bytes()].concat())?);
            }
        }
        // What is asked of the process in between waits until the next program can hear it.
        signals().thread_block()?;
        let executed = nix::unistd::execveat(program, c"", &args, &env, AtFlags::AT_EMPTY_PATH);
        signals().thread_unblock()?;
        Ok(executed?)
    }

    /// Runs the program again that was here before, telling it why; returns only if there is none or that fails.
    fn go_back(&mut self, reason: &str) -> io::Error {
        let Some(old) = self.old.take() else {
            return io::Error::other("there is no program to go back to");
        };
        eprintln!("containerd-lite: going back to the program before this one: {reason}");
        self.refused = Some(reason.to_owned());
        self.execute(old)
    }
}

/// Signals that must not end a program before it has its handlers.
fn signals() -> SigSet {
    [
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
    ]
    .into_iter()
    .collect()
}

/// Lets in the signals that were kept waiting over the execve, once this program has handlers for them.
pub(crate) fn hear_signals() {
    if let Err(error) = signals().thread_unblock() {
        tracing::warn!(%error, "let signals in");
    }
}

/// The way back, open until the program is ready.
#[derive(Debug)]
pub(crate) struct WayBack(mpsc::Sender<Word>);

#[derive(Debug)]
enum Word {
    Ready,
    Failed(String),
}

impl WayBack {
    /// Opens the way back over `handover`, if there is a program to go back to.
    pub(crate) fn open(handover: &Handover) -> io::Result<Option<Self>> {
        if handover.old.is_none() {
            return Ok(None);
        }
        let mut copy = handover.copy()?;
        let (sender, words) = mpsc::channel();
        let panicked = sender.clone();
        // A release build ends with the first panic: this holds it up until the other program runs.
        std::panic::set_hook(Box::new(move |panic| {
            let reason = format!("it panicked: {panic}");
            eprintln!("containerd-lite: {reason}");
            if panicked.send(Word::Failed(reason)).is_ok() {
                std::thread::sleep(TURN);
            }
        }));
        std::thread::Builder::new()
            .name("way-back".into())
            .stack_size(128 << 10)
            .spawn(move || {
                let reason = match words.recv_timeout(READY) {
                    Ok(Word::Ready) => return,
                    Ok(Word::Failed(reason)) => reason,
                    Err(mpsc::RecvTimeoutError::Timeout) => format!("not ready within {READY:?}"),
                    Err(mpsc::RecvTimeoutError::Disconnected) => "it panicked".to_owned(),
                };
                let error = copy.go_back(&reason);
                eprintln!("containerd-lite: go back: {error}");
            })?;
        Ok(Some(Self(sender)))
    }

    /// Closes it: this program serves.
    pub(crate) fn close(self) {
        drop(std::panic::take_hook());
        // The thread may have gone back already, and then nothing of this is left.
        let _ = self.0.send(Word::Ready);
    }

    /// Takes it. Does not return unless the old program cannot be run either.
    pub(crate) fn take(self, reason: &str) {
        if self.0.send(Word::Failed(reason.to_owned())).is_ok() {
            std::thread::sleep(TURN);
        }
    }
}

/// The program that runs now, by descriptor, whatever has become of its file.
pub(crate) fn own_program() -> io::Result<File> {
    File::open("/proc/self/exe")
}
