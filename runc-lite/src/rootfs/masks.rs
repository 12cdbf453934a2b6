//! Paths the container must not see, or only read.
//!
//! Done after pivot_root, when nothing of the host is reachable by a path, and
//! on descriptors. What covers a file is `/dev/null` of the container only if it
//! really is the null device: its number is checked on the descriptor that is
//! mounted.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, OFlags, fstat, makedev};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

use super::{attach, clone_mount, path};
use crate::error::{Doing as _, StepError};
use crate::sys::mount::{MountAttr, set_attr};

/// Makes each path read-only that exists.
pub(crate) fn make_readonly(root: BorrowedFd<'_>, paths: &[String]) -> Result<(), StepError> {
    let attr = MountAttr {
        set: super::options::RDONLY,
        ..MountAttr::default()
    };
    for name in paths {
        let what = || format!("make {name} read-only");
        let Some(target) = existing(root, name).doing(what)? else {
            continue;
        };
        let copy = clone_mount(&target, true).doing(what)?;
        set_attr(&copy, false, &attr).doing(what)?;
        attach(&copy, &target).doing(what)?;
    }
    Ok(())
}

/// Covers each path that exists: a file by the null device, a directory by an
/// empty read-only tmpfs (one for all of them).
pub(crate) fn mask(root: BorrowedFd<'_>, paths: &[String]) -> Result<(), StepError> {
    let mut empty: Option<OwnedFd> = None;
    let mut null: Option<OwnedFd> = None;
    for name in paths {
        let what = || format!("mask {name}");
        let Some(target) = existing(root, name).doing(what)? else {
            continue;
        };
        let mode = fstat(&target).doing(what)?.st_mode;
        let cover = if FileType::from_raw_mode(mode) == FileType::Directory {
            match &empty {
                // The first is attached by now: later ones are copies of it.
                Some(first) => clone_mount(first, false),
                None => empty_tmpfs(),
            }
            .doing(what)?
        } else {
            let null = match &mut null {
                Some(fd) => &*fd,
                none => none.insert(null_device(root)?),
            };
            clone_mount(null, false).doing(what)?
        };
        attach(&cover, &target).doing(what)?;
        if FileType::from_raw_mode(mode) == FileType::Directory && empty.is_none() {
            empty = Some(cover);
        }
    }
    Ok(())
}

fn existing(root: BorrowedFd<'_>, name: &str) -> Result<Option<OwnedFd>, Errno> {
    match path::open(root, name, OFlags::PATH) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(e) => Err(e),
    }
}

fn null_device(root: BorrowedFd<'_>) -> Result<OwnedFd, StepError> {
    let fd = path::open(root, "/dev/null", OFlags::PATH | OFlags::NOFOLLOW)
        .doing(|| "open /dev/null of the container")?;
    let stat = fstat(fd.as_fd()).doing(|| "look at /dev/null of the container")?;
    let character = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if !character || stat.st_rdev != makedev(1, 3) {
        return Err(StepError::refused(
            "use /dev/null of the container",
            "it is not the null device",
        ));
    }
    Ok(fd)
}

fn empty_tmpfs() -> Result<OwnedFd, Errno> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, "source", "tmpfs")?;
    fsconfig_set_string(&fs, "nr_blocks", "1")?;
    fsconfig_set_string(&fs, "nr_inodes", "1")?;
    fsconfig_create(&fs)?;
    fsmount(
        &fs,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_RDONLY,
    )
}
