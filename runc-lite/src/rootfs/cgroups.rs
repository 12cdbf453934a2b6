//! Mounts of type `cgroup`: the container's view of its own cgroups.
//!
//! In a cgroup namespace the file systems are mounted afresh, and their root is
//! where the container is. Without one, the container's own directories are
//! bound from the host's hierarchies. On v1 each hierarchy gets a directory in a
//! small tmpfs; on the unified hierarchy the mount is the file system itself.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat, symlinkat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

use super::mounts::{describe, set_option};
use super::options::{Options, RDONLY};
use super::{Rootfs, attach, clone_mount, path};
use crate::cgroup::HierarchyMount;
use crate::error::{Doing as _, StepError};
use crate::spec::Mount;
use crate::sys::mount::{MountAttr, set_attr};

impl Rootfs {
    /// Makes a mount of type `cgroup` from the container's hierarchies.
    pub(crate) fn mount_cgroups(
        &self,
        mount: &Mount,
        hierarchies: &[HierarchyMount],
        fresh: bool,
    ) -> Result<(), StepError> {
        let what = || describe(mount);
        let options = Options::parse(&mount.options);
        let target = path::make_dirs(self.fd(), &mount.destination, 0o755).doing(what)?;
        let attrs = MountAttr {
            set: options.attr.set,
            ..MountAttr::default()
        };
        if let [unified] = hierarchies
            && unified.name.is_empty()
        {
            let made = if fresh {
                new_hierarchy("cgroup2", "")
            } else {
                bound(unified)
            }
            .doing(what)?;
            set_attr(&made, false, &attrs).doing(what)?;
            return attach(&made, &target).doing(what);
        }
        let top = new_tmpfs().doing(what)?;
        for hierarchy in hierarchies {
            let what = || format!("{}: {}", describe(mount), hierarchy.name);
            mkdirat(&top, hierarchy.name.as_str(), Mode::from_raw_mode(0o755)).doing(what)?;
            for link in hierarchy.links.iter().filter(|l| **l != hierarchy.name) {
                symlinkat(hierarchy.name.as_str(), &top, link.as_str()).doing(what)?;
            }
        }
        // The hierarchies can be mounted in the tmpfs only once it is attached.
        attach(&top, &target).doing(what)?;
        for hierarchy in hierarchies {
            let what = || format!("{}: {}", describe(mount), hierarchy.name);
            let made = if fresh {
                new_hierarchy("cgroup", &hierarchy.data)
            } else {
                bound(hierarchy)
            }
            .doing(what)?;
            set_attr(&made, false, &attrs).doing(what)?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let dir = openat(&top, hierarchy.name.as_str(), flags, Mode::empty()).doing(what)?;
            attach(&made, dir.as_fd()).doing(what)?;
        }
        if attrs.set & RDONLY != 0 {
            let attr = MountAttr {
                set: RDONLY,
                ..MountAttr::default()
            };
            set_attr(&top, false, &attr).doing(what)?;
        }
        Ok(())
    }
}

fn new_tmpfs() -> rustix::io::Result<OwnedFd> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, "source", "tmpfs")?;
    fsconfig_set_string(&fs, "mode", "755")?;
    fsconfig_create(&fs)?;
    let attrs = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attrs)
}

fn new_hierarchy(kind: &str, data: &str) -> rustix::io::Result<OwnedFd> {
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, "source", kind)?;
    for word in data.split(',').filter(|w| !w.is_empty()) {
        set_option(fs.as_fd(), word)?;
    }
    fsconfig_create(&fs)?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

fn bound(hierarchy: &HierarchyMount) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let source = openat(CWD, &hierarchy.source, flags, Mode::empty())?;
    clone_mount(&source, false)
}
