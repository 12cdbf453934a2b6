//! The way a new process goes into its cgroup: by itself.
//!
//! Writing a pid to `cgroup.procs` makes the kernel hold up every fork of the
//! machine, and before it does so after a rest it sleeps for a grace period of 6
//! to 20 ms, which would be most of the time that starting a container takes. A
//! process of one thread that writes `0` to `tasks` moves itself and needs no
//! such thing: ten hierarchies take a tenth of a millisecond. The unified
//! hierarchy has no such file, but clone3 can make a process in it.
//!
//! The files are opened by the parent, so that the child needs no path and is
//! judged by the parent's rights; they are gone with execve.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};

use super::CgroupError;
use super::dir::Dir;

/// Open doors into a cgroup.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    tasks: Vec<(PathBuf, OwnedFd)>,
    unified: Option<OwnedFd>,
}

impl Entry {
    /// Opens the door to a group of a v1 hierarchy.
    pub(super) fn open(&mut self, dir: &Dir) -> Result<(), CgroupError> {
        let path = dir.path().join("tasks");
        match rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => self.tasks.push((dir.path().to_owned(), fd)),
            Err(e) => {
                return Err(CgroupError::Io {
                    op: "open",
                    path,
                    source: e.into(),
                });
            }
        }
        Ok(())
    }

    /// Opens the group of the unified hierarchy.
    pub(super) fn open_unified(&mut self, dir: &Dir) -> Result<(), CgroupError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(dir.path(), flags, Mode::empty()) {
            Ok(fd) => self.unified = Some(fd),
            Err(e) => {
                return Err(CgroupError::Io {
                    op: "open",
                    path: dir.path().to_owned(),
                    source: e.into(),
                });
            }
        }
        Ok(())
    }

    /// The doors that a process opens by itself.
    pub(super) fn without_unified(self) -> Self {
        Self {
            unified: None,
            ..self
        }
    }

    /// The group to clone into.
    pub(crate) fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(|fd| fd.as_fd())
    }

    /// Moves the calling process, which has one thread, into the other groups.
    pub(crate) fn enter(&self) -> Result<(), CgroupError> {
        for (path, fd) in &self.tasks {
            if let Err(e) = rustix::io::write(fd, b"0") {
                return Err(CgroupError::Io {
                    op: "move the process to",
                    path: path.clone(),
                    source: e.into(),
                });
            }
        }
        Ok(())
    }
}
