//! One cgroup directory: its files, its processes, the groups below it.
//!
//! A file here takes one value per write and gives its whole content in a few
//! reads, so each access is open, read or write, close.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal};

use super::{CgroupError, tree};

/// A directory in a cgroup file system.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Dir(PathBuf);

impl Dir {
    pub(super) fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn below(&self, sub: &Path) -> Self {
        Self(self.0.join(sub))
    }

    pub(super) fn exists(&self) -> bool {
        rustix::fs::access(&self.0, rustix::fs::Access::EXISTS).is_ok()
    }

    /// Writes one value.
    pub(super) fn write(&self, file: &str, value: &str) -> Result<(), CgroupError> {
        let path = self.0.join(file);
        write_value(&path, value).map_err(|source| CgroupError::Write {
            value: value.to_owned(),
            path,
            source,
        })
    }

    /// Writes one value into a file that some kernels lack; says whether it was there.
    pub(super) fn write_if_there(&self, file: &str, value: &str) -> Result<bool, CgroupError> {
        match self.write(file, value) {
            Ok(()) => Ok(true),
            Err(e) if e.errno() == Some(libc::ENOENT) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Writes one value asked for by `field`; a missing file is what it is.
    pub(super) fn set(
        &self,
        field: &'static str,
        file: &str,
        value: &str,
    ) -> Result<(), CgroupError> {
        if self.write_if_there(file, value)? {
            Ok(())
        } else {
            Err(CgroupError::unavailable(field, file))
        }
    }

    /// Opens a file that takes several values one after another.
    pub(super) fn open_for_values(&self, file: &str) -> Result<ValueFile, CgroupError> {
        let path = self.0.join(file);
        match rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => Ok(ValueFile { fd, path }),
            Err(e) => Err(CgroupError::Io {
                op: "open",
                path,
                source: e.into(),
            }),
        }
    }

    /// The whole content of a file.
    pub(super) fn read(&self, file: &str) -> Result<String, CgroupError> {
        let path = self.0.join(file);
        read_all(&path).map_err(|source| CgroupError::Io {
            op: "read",
            path,
            source,
        })
    }

    /// The whole content, or `None` if the file or the group is not there.
    pub(super) fn read_if_there(&self, file: &str) -> Result<Option<String>, CgroupError> {
        match self.read(file) {
            Ok(text) => Ok(Some(text)),
            // A group removed while its file is open answers ENODEV.
            Err(e) if matches!(e.errno(), Some(libc::ENOENT | libc::ENODEV)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// A file that holds one number; `max` and absence are `None`.
    pub(super) fn number(&self, file: &str) -> Result<Option<u64>, CgroupError> {
        Ok(self
            .read_if_there(file)?
            .and_then(|t| t.trim().parse().ok()))
    }

    /// Makes the directory; false if it was there.
    pub(super) fn make(&self) -> io::Result<bool> {
        match rustix::fs::mkdir(&self.0, Mode::from_raw_mode(0o755)) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::EXIST) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Makes the directory and whatever is missing above it; returns what was
    /// made, topmost first.
    pub(super) fn make_all(&self) -> Result<Vec<Dir>, CgroupError> {
        let failed = |dir: &Dir, source| CgroupError::Io {
            op: "create cgroup",
            path: dir.0.clone(),
            source,
        };
        match self.make() {
            Ok(true) => Ok(vec![self.clone()]),
            Ok(false) => Ok(Vec::new()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let Some(parent) = self.0.parent() else {
                    return Err(failed(self, e));
                };
                let mut made = Dir::new(parent).make_all()?;
                match self.make() {
                    Ok(true) => made.push(self.clone()),
                    Ok(false) => {}
                    Err(e) => {
                        remove_made(&made);
                        return Err(failed(self, e));
                    }
                }
                Ok(made)
            }
            Err(e) => Err(failed(self, e)),
        }
    }

    /// Moves a process here.
    pub(super) fn add(&self, pid: Pid) -> Result<(), CgroupError> {
        let path = self.0.join("cgroup.procs");
        write_value(&path, &pid.as_raw_nonzero().to_string()).map_err(|source| CgroupError::Io {
            op: "move the process to",
            path: self.0.clone(),
            source,
        })
    }

    /// The processes here, and below if `recursive`. Those that belong to a pid
    /// namespace out of sight read as 0 and are left out.
    pub(super) fn pids(&self, recursive: bool) -> Result<Vec<Pid>, CgroupError> {
        let mut pids = Vec::new();
        self.collect(recursive, &mut pids)?;
        Ok(pids)
    }

    fn collect(&self, recursive: bool, pids: &mut Vec<Pid>) -> Result<(), CgroupError> {
        let text = match self.read_if_there("cgroup.procs") {
            // A threaded group keeps its processes to its domain above.
            Err(e) if e.errno() == Some(libc::EOPNOTSUPP) => String::new(),
            other => other?.unwrap_or_default(),
        };
        pids.extend(
            text.lines()
                .filter_map(|l| l.parse().ok().filter(|n| *n > 0).and_then(Pid::from_raw)),
        );
        if recursive {
            tree::pids_below(&self.0, pids).map_err(|e| self.below_failed("list", e))?;
        }
        Ok(())
    }

    /// Writes a value into a file of each group below that has it.
    pub(super) fn write_below(&self, file: &str, value: &str) -> Result<(), CgroupError> {
        tree::write_below(&self.0, file, value).map_err(|e| self.below_failed("write below", e))
    }

    fn below_failed(&self, op: &'static str, e: rustix::io::Errno) -> CgroupError {
        CgroupError::Io {
            op,
            path: self.0.clone(),
            source: e.into(),
        }
    }

    /// Removes the directory alone, if nobody is in it and nothing below it.
    pub(super) fn remove_empty(&self) -> Result<(), CgroupError> {
        match rustix::fs::rmdir(&self.0) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(e) => Err(CgroupError::Io {
                op: "remove cgroup",
                path: self.0.clone(),
                source: e.into(),
            }),
        }
    }

    /// Removes the directory and, if it is busy, what is below it, deepest first,
    /// killing whoever is left and waiting for those on their way out.
    pub(super) fn remove(&self) -> Result<(), CgroupError> {
        // 1, 2, 4 ... 256 ms: half a second in all, spent only on a busy group.
        for attempt in 0..9 {
            match self.remove_empty() {
                Err(e) if matches!(e.errno(), Some(libc::EBUSY | libc::ENOTEMPTY)) => {}
                other => return other,
            }
            tree::remove_below(&self.0).map_err(|e| self.below_failed("empty", e))?;
            for pid in self.pids(false)? {
                // Gone already is what is wanted.
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
            // Often the groups below were all that kept it.
            if self.remove_empty().is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1 << attempt));
        }
        self.remove_empty()
    }
}

/// Takes back directories made just now, deepest first. What somebody else has
/// moved into meanwhile stays.
pub(super) fn remove_made(made: &[Dir]) {
    for dir in made.iter().rev() {
        let _ = rustix::fs::rmdir(&dir.0);
    }
}

/// A file that takes several values one after another.
#[derive(Debug)]
pub(super) struct ValueFile {
    fd: rustix::fd::OwnedFd,
    path: PathBuf,
}

impl ValueFile {
    pub(super) fn write(&self, value: &str) -> Result<(), CgroupError> {
        match rustix::io::write(&self.fd, value.as_bytes()) {
            Ok(_) => Ok(()),
            Err(e) => Err(CgroupError::Write {
                value: value.to_owned(),
                path: self.path.clone(),
                source: e.into(),
            }),
        }
    }
}

fn write_value(path: &Path, value: &str) -> io::Result<()> {
    let fd = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    // The kernel takes a value whole or not at all.
    retry(|| rustix::io::write(&fd, value.as_bytes()))?;
    Ok(())
}

pub(super) fn read_all(path: &Path) -> io::Result<String> {
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::new();
    let mut chunk = [0u8; 4096];
    loop {
        let n = retry(|| rustix::io::read(&fd, &mut chunk))?;
        if n == 0 {
            break;
        }
        bytes.extend_from_slice(&chunk[..n]);
    }
    String::from_utf8(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}
