//! Kernel parameters of the container's namespaces.
//!
//! Written through the container's procfs, by the descriptor it was made on: what
//! the container's image or a racing process puts at /proc/sys cannot be in the way.
//! Where the container has none, or not one that shows and takes them, a procfs is
//! made for them that is attached nowhere.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::path::{open_on_mount, open_without_links};
use crate::error::{Doing as _, StepError};

/// Writes all of them. `made` is the container's procfs.
pub(crate) fn apply(
    sysctls: &BTreeMap<String, String>,
    made: Option<OwnedFd>,
) -> Result<(), StepError> {
    let mut private = None;
    for (name, value) in sysctls {
        // With slashes in it, dots belong to names (of interfaces).
        let path = match name.contains('/') {
            true => format!("sys/{name}"),
            false => format!("sys/{}", name.replace('.', "/")),
        };
        let file = made.as_ref();
        let file = file.and_then(|m| open_on_mount(m.as_fd(), &path, OFlags::WRONLY).ok());
        let file = match file {
            Some(file) => file,
            None => {
                let proc = match &mut private {
                    Some(proc) => &*proc,
                    none => none.insert(private_procfs()?),
                };
                open_without_links(proc.as_fd(), &path, OFlags::WRONLY)
                    .doing(|| format!("open sysctl {name}"))?
            }
        };
        rustix::io::write(&file, value.as_bytes())
            .doing(|| format!("set sysctl {name} to \"{value}\""))?;
    }
    Ok(())
}

fn procfs_of_caller() -> Result<OwnedFd, StepError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let what = || "open /proc";
    let proc = rustix::fs::open("/proc", flags, rustix::fs::Mode::empty()).doing(what)?;
    match rustix::fs::fstatfs(&proc).doing(what)?.f_type == rustix::fs::PROC_SUPER_MAGIC {
        true => Ok(proc),
        false => Err(StepError::refused(what(), "it is no procfs")),
    }
}

fn private_procfs() -> Result<OwnedFd, StepError> {
    let fs = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).doing(|| "open a private procfs")?;
    match fsconfig_create(&fs) {
        // Of processes of another user namespace than ours nobody makes one anew. The
        // root is still the caller's, and its procfs shows our own sysctls as well.
        Err(Errno::PERM) if crate::cgroup::in_user_namespace() => return procfs_of_caller(),
        other => other.doing(|| "make a private procfs")?,
    }
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .doing(|| "make a private procfs")
}
