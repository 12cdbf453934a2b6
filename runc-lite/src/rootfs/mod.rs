//! The root file system: from a directory on the host to the container's `/`.
//!
//! Everything here is done by the child, inside its mount namespace, before the
//! program exists. The order matters:
//!
//! ```text
//!  cut propagation to the host          nothing done here shows outside, but for
//!                                       volumes that the configuration shares
//!  bind the rootfs onto itself          it becomes a mount that can be pivoted to
//!  mounts of config.json, in order      -> mounts
//!  device nodes and links in /dev       -> devices
//!  --- hooks before pivot_root run ---
//!  pivot_root, detach the old root      -> pivot (here)
//!  read-only and masked paths           -> masks
//!  the root's own propagation and read-only flag
//! ```
//!
//! Mounts are made with the file-descriptor calls (fsopen, fsmount, open_tree,
//! mount_setattr, move_mount): a mount is complete, with all its flags, before
//! it appears, and it appears on a descriptor that was resolved inside the root
//! ([`path`]). Linux 5.12 is the oldest kernel with all of them.

pub(crate) mod apart;
pub(crate) mod cgroups;
pub(crate) mod copy_up;
pub(crate) mod devices;
pub(crate) mod masks;
pub(crate) mod mounts;
pub(crate) mod options;
pub(crate) mod path;
mod places;
pub(crate) mod sysctl;

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};

use crate::error::{Doing as _, StepError};
use crate::spec::Spec;
use crate::sys::mount::{MountAttr, set_attr};
use places::OwnDev;

/// A container's root while it is being built.
#[derive(Debug)]
pub(crate) struct Rootfs {
    fd: OwnedFd,
    /// Where relative mount sources start.
    bundle: PathBuf,
    /// Whether device nodes have to be bound instead of made.
    in_userns: bool,
    /// Whether the host's mounts are still peers of ours.
    shared: bool,
    /// Whether it is our root directory already, and nothing else is there.
    alone: bool,
    /// Where /dev may lie.
    dev: OwnDev,
    /// The container's procfs, once it is made.
    proc: RefCell<Option<OwnedFd>>,
}

impl Rootfs {
    /// Cuts propagation and makes the root a mount of its own.
    pub(crate) fn open(
        spec: &Spec,
        rootfs: &Path,
        bundle: &Path,
        in_userns: bool,
        apart: Option<&apart::Apart>,
    ) -> Result<Self, StepError> {
        if let Some((fd, alone)) = apart.map(|a| a.enter(spec)).transpose()?.flatten() {
            return Ok(Self {
                dev: OwnDev::look(fd.as_fd()),
                fd,
                bundle: bundle.to_owned(),
                in_userns,
                shared: false,
                alone,
                proc: RefCell::new(None),
            });
        }
        let at = open_root(rootfs)?;
        let shared = shares_with_host(spec);
        if shared {
            // The root, and what comes onto it, must not show on the host.
            set_around(&at, libc::MS_PRIVATE)
                .doing(|| format!("make the mount around {} private", rootfs.display()))?;
        } else {
            let host_root = open_dir(Path::new("/"))?;
            cut_propagation(&host_root, spec).doing(|| "cut mount propagation to the host")?;
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::AT_RECURSIVE
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(&at, "", flags)
            .doing(|| format!("clone mounts of rootfs {}", rootfs.display()))?;
        if shared {
            set_attr(&tree, true, &becoming(libc::MS_SLAVE))
                .doing(|| "cut the root off from the host")?;
        }
        attach(&tree, &at).doing(|| format!("bind rootfs {}", rootfs.display()))?;
        // pivot_root refuses a shared parent and a shared new root.
        set_attr(&tree, false, &becoming(libc::MS_PRIVATE))
            .doing(|| "make rootfs mount private")?;
        Ok(Self {
            dev: OwnDev::look(tree.as_fd()),
            fd: tree,
            bundle: bundle.to_owned(),
            in_userns,
            shared,
            alone: false,
            proc: RefCell::new(None),
        })
    }

    /// A root that is a mount already, prepared for somebody else to complete.
    pub(crate) fn over(fd: OwnedFd, bundle: &Path) -> Self {
        Self {
            dev: OwnDev::look(fd.as_fd()),
            fd,
            bundle: bundle.to_owned(),
            in_userns: false,
            shared: false,
            alone: false,
            proc: RefCell::new(None),
        }
    }

    /// The root directory.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The container's procfs, by the descriptor it was made on; once.
    pub(crate) fn take_proc(&self) -> Option<OwnedFd> {
        self.proc.take()
    }

    /// Makes the root ours and lets the old one go.
    pub(crate) fn pivot(&self) -> Result<(), StepError> {
        if self.alone {
            return rustix::process::chdir("/").doing(|| "change to /");
        }
        let old = open_dir(Path::new("/"))?;
        rustix::process::fchdir(&self.fd).doing(|| "change to the new root")?;
        // With both arguments the current directory, the old root ends up
        // mounted over the new one, so that no directory is needed for it.
        rustix::process::pivot_root(".", ".").doing(|| "pivot_root")?;
        // Unmounting must not reach the host: what is not slave or private since
        // the start becomes so now. Volumes that are shared are copies, and stay.
        if self.shared {
            set_attr(&old, true, &becoming(libc::MS_SLAVE))
                .doing(|| "cut the old root off from the host")?;
        }
        rustix::process::fchdir(&old).doing(|| "change to the old root")?;
        unmount(".", UnmountFlags::DETACH).doing(|| "detach the old root")?;
        rustix::process::chdir("/").doing(|| "change to /")
    }

    /// The way without pivot_root, for a root on the initial ramdisk: moves
    /// the root mount over `/`.
    pub(crate) fn move_root(&self) -> Result<(), StepError> {
        let slash = open_dir(Path::new("/"))?;
        if self.shared {
            set_attr(&slash, true, &becoming(libc::MS_SLAVE))
                .doing(|| "cut the old root off from the host")?;
            set_attr(&self.fd, false, &becoming(libc::MS_PRIVATE))
                .doing(|| "make rootfs mount private")?;
        }
        attach(&self.fd, &slash).doing(|| "move the root mount to /")?;
        rustix::process::fchdir(&self.fd).doing(|| "change to the new root")?;
        rustix::process::chroot(".").doing(|| "chroot to the new root")?;
        rustix::process::chdir("/").doing(|| "change to /")
    }

    /// Last: the root's own propagation and read-only flag.
    pub(crate) fn seal(&self, spec: &Spec) -> Result<(), StepError> {
        if let Some((flag, below)) = options::propagation_flag(&spec.linux.rootfs_propagation) {
            set_attr(&self.fd, below, &becoming(flag))
                .doing(|| format!("make the root {}", spec.linux.rootfs_propagation))?;
        }
        if spec.root.as_ref().is_some_and(|r| r.readonly) {
            let attr = MountAttr {
                set: options::RDONLY,
                ..MountAttr::default()
            };
            set_attr(&self.fd, false, &attr).doing(|| "make the root read-only")?;
        }
        Ok(())
    }
}

/// Whether volumes of the container are to be shared with the host both ways: a
/// mount can only become a peer of the host's where nothing was cut before.
fn shares_with_host(spec: &Spec) -> bool {
    let root = options::propagation_flag(&spec.linux.rootfs_propagation);
    root.is_some_and(|(flag, _)| flag == libc::MS_SHARED)
}

/// Keeps what happens to a tree of mounts from the host. Slave lets mounts of the
/// host come in, unless the configuration wants the root private.
pub(crate) fn cut_propagation(tree: &OwnedFd, spec: &Spec) -> std::io::Result<()> {
    let (flag, _) =
        options::propagation_flag(&spec.linux.rootfs_propagation).unwrap_or((libc::MS_SLAVE, true));
    let cut = match flag {
        libc::MS_SLAVE | libc::MS_SHARED => libc::MS_SLAVE,
        _ => libc::MS_PRIVATE,
    };
    set_attr(tree, true, &becoming(cut))
}

/// Sets the propagation of the mount that a directory lies on.
fn set_around(dir: &OwnedFd, propagation: u64) -> std::io::Result<()> {
    let mut at = dir.try_clone()?;
    loop {
        match set_attr(&at, false, &becoming(propagation)) {
            // Not where a mount begins: so it begins above.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let above = rustix::fs::openat(&at, "..", flags, Mode::empty())?;
                let same = |a: &rustix::fs::Stat, b: &rustix::fs::Stat| {
                    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
                };
                if same(&rustix::fs::fstat(&above)?, &rustix::fs::fstat(&at)?) {
                    // Our root directory is no mount: we are in a chroot.
                    return Err(e);
                }
                at = above;
            }
            other => return other,
        }
    }
}

/// A change of propagation alone.
fn becoming(propagation: u64) -> MountAttr {
    MountAttr {
        propagation,
        ..MountAttr::default()
    }
}

/// Attaches a mount (detached or not) on an open directory or file.
pub(crate) fn attach(mount: impl AsFd, target: impl AsFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

/// A detached copy of the mount at an open file or directory.
pub(crate) fn clone_mount(of: impl AsFd, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(of, "", flags)
}

/// Opens the root. Links in its path were refused when it was looked up.
fn open_root(path: &Path) -> Result<OwnedFd, StepError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
        .doing(|| format!("open directory {}", path.display()))
}

pub(crate) fn open_dir(path: &Path) -> Result<OwnedFd, StepError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
        .doing(|| format!("open directory {}", path.display()))
}

/// Binds the slave side of the container's terminal onto its /dev/console.
pub(crate) fn mount_console(root: BorrowedFd<'_>, slave: BorrowedFd<'_>) -> Result<(), StepError> {
    let what = || "bind the terminal to /dev/console";
    let dev = path::make_dirs(root, "/dev", 0o755).doing(what)?;
    // What a link there leads to is the image's choice.
    let target = path::file_in(&dev, "console").doing(what)?;
    let tree = clone_mount(slave, false).doing(what)?;
    attach(&tree, &target).doing(what)
}
