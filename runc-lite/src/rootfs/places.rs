//! Where a mount must not go, and which /dev is ours to fill.
//!
//! What stands in /proc is the kernel's word about the container, and others
//! rely on it: labels and limits are set there. So only a procfs goes on /proc, and
//! below it only stand-ins for single files, of which runc has made a list.
//!
//! Both are asked of the descriptor as well as of the text: an image's link gives
//! /proc another name, or leads /dev into a directory of the host that is bound
//! elsewhere.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, OFlags, StatxFlags, fstat, fstatfs, statx};
use rustix::io::Errno;

use super::mounts::describe;
use super::path;
use crate::error::{Doing as _, StepError};
use crate::files::clean;
use crate::spec::Mount;

const PROC_MAGIC: i64 = 0x9fa0;
/// Number of the directory at the root of every procfs.
const PROC_ROOT: u64 = 1;

/// Files that lxcfs and others stand in for.
const STAND_INS: &[&str] = &[
    "cpuinfo",
    "diskstats",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "loadavg",
    "slabinfo",
    "sys/kernel/ns_last_pid",
    "sys/crypto/fips_enabled",
];

/// Refuses a destination by its text, before anything is made there. `bound` is what
/// a bind mount shows.
pub(super) fn check_text(mount: &Mount, bound: Option<BorrowedFd<'_>>) -> Result<(), StepError> {
    let destination = clean(&mount.destination);
    match destination.strip_prefix("proc") {
        Err(_) => Ok(()),
        Ok(below) if below == Path::new("") => over_proc(mount, bound),
        Ok(below) => below_proc(mount, below),
    }
}

/// Refuses the place that a destination turned out to be.
pub(super) fn check_place(
    root: BorrowedFd<'_>,
    mount: &Mount,
    target: impl AsFd,
    bound: Option<BorrowedFd<'_>>,
) -> Result<(), StepError> {
    let what = || describe(mount);
    if !is_procfs(&target).doing(what)? {
        return Ok(());
    }
    // Another procfs elsewhere, as one of the host bound for a monitor, is no
    // business of ours.
    let own = match path::open(root, "/proc", OFlags::PATH) {
        Ok(proc) => fstat(&proc).doing(what)?.st_dev,
        Err(_) => return Ok(()),
    };
    let found = fstat(&target).doing(what)?;
    match (found.st_dev == own, found.st_ino) {
        (false, _) => Ok(()),
        (true, PROC_ROOT) => over_proc(mount, bound),
        (true, _) => {
            let destination = clean(&mount.destination);
            below_proc(
                mount,
                destination.strip_prefix("proc").unwrap_or("".as_ref()),
            )
        }
    }
}

fn over_proc(mount: &Mount, bound: Option<BorrowedFd<'_>>) -> Result<(), StepError> {
    let whole = |fd| {
        let root = fstat(fd).is_ok_and(|s| s.st_ino == PROC_ROOT);
        root && is_procfs(fd).unwrap_or(false)
    };
    match bound {
        None if mount.kind == "proc" => Ok(()),
        Some(fd) if whole(fd) => Ok(()),
        _ => Err(StepError::refused(
            describe(mount),
            format!(
                "\"{}\" cannot be mounted because it is not of type proc",
                mount.destination
            ),
        )),
    }
}

fn below_proc(mount: &Mount, below: &Path) -> Result<(), StepError> {
    if STAND_INS.iter().any(|name| Path::new(name) == below) {
        return Ok(());
    }
    Err(StepError::refused(
        describe(mount),
        format!(
            "\"{}\" cannot be mounted because it is inside /proc",
            mount.destination
        ),
    ))
}

fn is_procfs(fd: impl AsFd) -> Result<bool, Errno> {
    #[allow(clippy::unnecessary_cast, reason = "i64 on some targets only")]
    fstatfs(fd).map(|s| s.f_type as i64 == PROC_MAGIC)
}

/// The mounts in which /dev may lie if nodes are to be made in it.
#[derive(Debug)]
pub(super) struct OwnDev {
    /// Where it was before the mounts of the configuration.
    before: Option<u64>,
    /// What the configuration mounted there afresh.
    fresh: Cell<Option<u64>>,
}

impl OwnDev {
    /// Looks before anything is mounted in the root.
    pub(super) fn look(root: BorrowedFd<'_>) -> Self {
        let dev = path::open(root, "/dev", OFlags::PATH);
        Self {
            // Where there is none, it will be made in the root's own mount.
            before: mount_id(root, dev.as_ref().ok()),
            fresh: Cell::new(None),
        }
    }

    /// Notes a file system that was made for the container alone.
    pub(super) fn note(&self, mount: &Mount, made: impl AsFd) {
        if clean(&mount.destination) == Path::new("dev") {
            self.fresh
                .set(mount_id(made.as_fd(), None::<BorrowedFd<'_>>));
        }
    }

    /// Refuses a directory that a bind mount shows.
    pub(super) fn check(&self, dev: impl AsFd) -> Result<(), StepError> {
        let id = mount_id(dev.as_fd(), None::<BorrowedFd<'_>>);
        // A kernel that does not tell ids (before Linux 5.8) gives none for all three.
        if id == self.before || id == self.fresh.get() {
            return Ok(());
        }
        Err(StepError::refused(
            "fill /dev of the container",
            "it leads into what is bound from the host",
        ))
    }
}

/// The id of the mount of `fd`, if there is one, or else of `root`.
fn mount_id(root: BorrowedFd<'_>, fd: Option<impl AsFd>) -> Option<u64> {
    let id = |fd: BorrowedFd<'_>| {
        let found = statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
        (found.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(found.stx_mnt_id)
    };
    id(fd.as_ref().map_or(root, |fd| fd.as_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(destination: &str, kind: &str, bound: Option<&str>) -> Result<(), String> {
        let mount = Mount {
            destination: destination.into(),
            kind: kind.into(),
            ..Mount::default()
        };
        let bound = bound.map(|path| std::fs::File::open(path).unwrap());
        let bound = bound.as_ref().map(|fd| fd.as_fd());
        check_text(&mount, bound).map_err(|e| crate::error::chain(&e))
    }

    #[test]
    fn only_procfs_goes_on_proc_and_only_stand_ins_below() {
        for (destination, kind, bound) in [
            ("/proc", "proc", None),
            ("//proc/", "proc", None),
            ("/proc", "bind", Some("/proc")),
            ("/proc/cpuinfo", "bind", Some("/etc/passwd")),
            ("/proc/sys/kernel/ns_last_pid", "bind", Some("/etc/passwd")),
            ("/process", "tmpfs", None),
            ("/proc/../x", "tmpfs", None),
        ] {
            told(destination, kind, bound).unwrap();
        }
        for (destination, kind, bound, why) in [
            ("/proc", "tmpfs", None, "not of type proc"),
            ("/proc", "bind", Some("/tmp"), "not of type proc"),
            ("/proc", "bind", Some("/proc/sys"), "not of type proc"),
            ("/x/../proc/sys", "tmpfs", None, "inside /proc"),
            ("/proc/self/attr", "bind", Some("/tmp"), "inside /proc"),
            ("/proc/cpuinfo/x", "bind", Some("/tmp"), "inside /proc"),
        ] {
            let said = told(destination, kind, bound).unwrap_err();
            assert!(said.contains(why), "{destination}: {said}");
        }
    }
}
