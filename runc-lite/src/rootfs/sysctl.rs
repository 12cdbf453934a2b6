//! Kernel parameters of the container's namespaces.
//!
//! Written through a procfs of our own that is attached nowhere: what the
//! container's image or a racing process puts at /proc/sys cannot be in the way.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;

use rustix::fs::OFlags;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::path::open_without_links;
use crate::error::{Doing as _, StepError};

/// Writes all of them.
pub(crate) fn apply(sysctls: &BTreeMap<String, String>) -> Result<(), StepError> {
    if sysctls.is_empty() {
        return Ok(());
    }
    let fs = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).doing(|| "open a private procfs")?;
    fsconfig_create(&fs).doing(|| "make a private procfs")?;
    let proc = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .doing(|| "make a private procfs")?;
    for (name, value) in sysctls {
        // With slashes in it, dots belong to names (of interfaces).
        let path = match name.contains('/') {
            true => format!("sys/{name}"),
            false => format!("sys/{}", name.replace('.', "/")),
        };
        let file = open_without_links(proc.as_fd(), &path, OFlags::WRONLY)
            .doing(|| format!("open sysctl {name}"))?;
        rustix::io::write(&file, value.as_bytes())
            .doing(|| format!("set sysctl {name} to \"{value}\""))?;
    }
    Ok(())
}
