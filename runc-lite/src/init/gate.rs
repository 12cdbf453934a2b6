//! The gate between `create` and `start`: two fifos in the state directory.
//!
//! The child holds both open for reading and writing from before its first
//! step, so that neither end ever blocks in open, and reads one byte from
//! `exec.fifo`: that is all it waits for, and all a system call filter must allow
//! is `read`. `start` opens `result.fifo` for reading, then writes the byte. The
//! descriptors close on execve: end of file on the result means the program runs,
//! anything before it is the reason why not.

use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, mknodat, open};
use rustix::io::Errno;

use crate::channel::InitFailure;
use crate::error::{Doing as _, StepError};
use crate::state::StateDir;

const GATE: &str = "exec.fifo";
const RESULT: &str = "result.fifo";

/// The child's side.
#[derive(Debug)]
pub(crate) struct Gate {
    gate: OwnedFd,
    result: OwnedFd,
}

impl Gate {
    /// Makes and opens both; done by the parent, who may do so in any case.
    pub(crate) fn make(dir: &StateDir) -> Result<Self, StepError> {
        let make = |name: &str| {
            let path = dir.file(name);
            mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
                .doing(|| format!("make {}", path.display()))?;
            open_fifo(&path, OFlags::RDWR)
        };
        Ok(Self {
            gate: make(GATE)?,
            result: make(RESULT)?,
        })
    }

    /// Waits for `start`.
    pub(crate) fn wait(&self) -> Result<(), Errno> {
        let mut byte = [0];
        loop {
            match rustix::io::read(&self.gate, &mut byte) {
                Err(Errno::INTR) => {}
                other => return other.map(drop),
            }
        }
    }

    /// Says why the program does not run.
    pub(crate) fn failed(&self, failure: &InitFailure) {
        // If `start` is gone, nobody is left to be told.
        let _ = rustix::io::write(self.result.as_fd(), &failure.encode());
    }
}

/// Opens the gate and waits until the program runs, or for the reason why not.
/// The outer error is ours, the inner one the child's.
pub(crate) fn release(dir: &StateDir) -> Result<Result<(), InitFailure>, StepError> {
    let result = open_fifo(&dir.file(RESULT), OFlags::RDONLY | OFlags::NONBLOCK)?;
    let path = dir.file(GATE);
    // Without a reader (the child is gone) this fails at once with ENXIO.
    let gate = open_fifo(&path, OFlags::WRONLY | OFlags::NONBLOCK)?;
    rustix::io::write(&gate, b"s").doing(|| format!("write {}", path.display()))?;
    drop(gate);
    rustix::fs::fcntl_setfl(&result, OFlags::empty()).doing(|| "wait for the program")?;
    let mut bytes = Vec::new();
    io::Read::by_ref(&mut std::fs::File::from(result))
        .take(8192)
        .read_to_end(&mut bytes)
        .doing(|| "wait for the program")?;
    Ok(match InitFailure::decode(&bytes) {
        None => Ok(()),
        Some(failure) => Err(failure),
    })
}

/// Opens one of them, and nothing else that may have its name.
fn open_fifo(path: &Path, flags: OFlags) -> Result<OwnedFd, StepError> {
    let what = || format!("open {}", path.display());
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = open(path, flags, Mode::empty()).doing(what)?;
    let kind = FileType::from_raw_mode(fstat(&fd).doing(what)?.st_mode);
    match kind {
        FileType::Fifo => Ok(fd),
        _ => Err(StepError::refused(what(), "it is no fifo")),
    }
}

/// Removes the fifos; what is left of them does no harm.
pub(crate) fn remove(dir: &StateDir) {
    for name in [GATE, RESULT] {
        let _ = std::fs::remove_file(dir.file(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Stage;

    fn dir() -> (tempfile::TempDir, StateDir) {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::new(root.path(), "box").unwrap();
        dir.make().unwrap();
        (root, dir)
    }

    #[test]
    fn closing_means_running() {
        let (_root, dir) = dir();
        let gate = Gate::make(&dir).unwrap();
        let child = std::thread::spawn(move || gate.wait().unwrap());
        assert_eq!(release(&dir).unwrap(), Ok(()));
        child.join().unwrap();
    }

    #[test]
    fn a_reason_arrives() {
        let (_root, dir) = dir();
        let gate = Gate::make(&dir).unwrap();
        let failure = InitFailure {
            stage: Stage::Exec,
            detail: "exec /x".into(),
            errno: libc::ENOEXEC,
        };
        let said = failure.clone();
        let child = std::thread::spawn(move || {
            gate.wait().unwrap();
            gate.failed(&said);
        });
        assert_eq!(release(&dir).unwrap(), Err(failure));
        child.join().unwrap();
    }

    #[test]
    fn what_is_no_fifo_is_not_written_to() {
        let (root, dir) = dir();
        let host = root.path().join("host");
        std::fs::write(&host, "kept").unwrap();
        drop(Gate::make(&dir).unwrap());
        std::fs::remove_file(dir.file(GATE)).unwrap();
        std::os::unix::fs::symlink(&host, dir.file(GATE)).unwrap();
        assert!(release(&dir).is_err());
        std::fs::remove_file(dir.file(GATE)).unwrap();
        std::fs::hard_link(&host, dir.file(GATE)).unwrap();
        assert!(release(&dir).is_err());
        assert_eq!(std::fs::read_to_string(&host).unwrap(), "kept");
    }

    #[test]
    fn nobody_behind_the_gate_is_an_error() {
        let (_root, dir) = dir();
        drop(Gate::make(&dir).unwrap());
        assert_eq!(release(&dir).unwrap_err().errno(), Some(libc::ENXIO));
    }
}
