//! Mounts of type `cgroup`: the container's view of its own cgroups.
//!
//! In a cgroup namespace the file systems are mounted afresh, and their root is
//! where the container is. Without one, the container's own directories are
//! bound from the host's hierarchies. On v1 each hierarchy gets a directory in a
//! small tmpfs; on the unified hierarchy the mount is the file system itself.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, mkdirat, symlinkat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::mounts::{describe, set_option};
use super::options::Options;
use super::{Rootfs, attach, path, places};
use crate::cgroup::HierarchyMount;
use crate::error::{Doing as _, StepError};
use crate::spec::Mount;
use crate::sys::mount::{MountAttr, set_attr};

impl Rootfs {
    /// Makes a mount of type `cgroup` from the container's hierarchies. `ready` are
    /// their mounts where they were made before, see [`super::apart`].
    pub(crate) fn mount_cgroups(
        &self,
        mount: &Mount,
        hierarchies: &[HierarchyMount],
        fresh: bool,
        ready: &[OwnedFd],
    ) -> Result<(), StepError> {
        let what = || describe(mount);
        let options = Options::parse(&mount.options);
        places::check_text(mount, None)?;
        let target = path::make_dirs(self.fd(), &mount.destination, 0o755).doing(what)?;
        places::check_place(self.fd(), mount, &target, None)?;
        let attrs = MountAttr {
            set: options.attr.set,
            ..MountAttr::default()
        };
        if let [unified] = hierarchies
            && unified.name.is_empty()
        {
            let made;
            let tree = match ready.first() {
                Some(tree) if !fresh => tree,
                _ => {
                    made = one(unified, "cgroup2", fresh).doing(what)?;
                    &made
                }
            };
            set_attr(tree, false, &attrs).doing(what)?;
            return attach(tree, &target).doing(what);
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
        for (index, hierarchy) in hierarchies.iter().enumerate() {
            let what = || format!("{}: {}", describe(mount), hierarchy.name);
            let made;
            let tree = match ready.get(index) {
                Some(tree) if !fresh => tree,
                _ => {
                    made = one(hierarchy, "cgroup", fresh).doing(what)?;
                    &made
                }
            };
            // The names are our own of just now, in a mount that is ours alone;
            // without T_SYMLINKS a link would not be followed either.
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            move_mount(tree, "", &top, hierarchy.name.as_str(), flags).doing(what)?;
        }
        // All of them in one call. The container does not run yet.
        set_attr(&top, true, &attrs).doing(what)
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

/// One hierarchy, detached.
fn one(of: &HierarchyMount, kind: &str, fresh: bool) -> rustix::io::Result<OwnedFd> {
    if fresh {
        new_hierarchy(kind, &of.data)
    } else {
        bound(of)
    }
}

fn bound(hierarchy: &HierarchyMount) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, &hierarchy.source, flags)
}
