//! A mount namespace that is not a copy of the host's.
//!
//! A new mount namespace begins as a copy of the caller's: every mount of the host
//! is copied, cut off, and let go again, 2.5 ms for a thousand of them. Hosts with many
//! containers have thousands. So the container's namespace begins otherwise, where the
//! kernel and the container allow it:
//!
//! ```text
//!  parent, on the host    detached copies of what is bound and of the cgroups, and
//!    Linux 7.0            a namespace of the rootfs alone, made with open_tree
//!    before, from         a detached copy of the rootfs
//!    256 mounts on
//!  child
//!    Linux 7.0            enters that namespace: nothing is left to pivot away from
//!    before               enters the namespace of kdevtmpfs, the kernel's thread that
//!                         keeps /dev, which has two mounts; makes its own from that,
//!                         attaches the rootfs on /, and goes on as always
//! ```
//!
//! The thread's namespace is only copied, never changed, and holds nothing but the
//! machine's device nodes, which pivot_root lets go of like any old root.
//!
//! A container whose making needs paths of the host after that (hooks, file systems on
//! devices, bind mounts out of its own root) is made in the usual way, as is every
//! container where anything of this is not possible: in a user namespace, without the
//! kernel's threads in sight, before Linux 6.8. The result is the same.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::mounts::{bind_of, bind_source};
use super::options::Options;
use super::{
    attach, becoming, clone_mount, cut_propagation, open_dir, open_root, shares_with_host,
};
use crate::cgroup::HierarchyMount;
use crate::error::{Doing as _, StepError};
use crate::namespaces::{Plan, enter};
use crate::process::ProcStat;
use crate::spec::{Mount, Spec};
use crate::sys;
use crate::sys::mount::set_attr;

/// With fewer mounts on the host the copy costs less than a small one.
const MANY: usize = 256;

/// kdevtmpfs is started early, right after the threads that each processor has, so its
/// pid is about eight for each of them: further on it is not looked for.
const LAST_PID: i32 = 4096;

/// The kernel's thread that makes all others, where pids are the machine's own.
const KTHREADD: i32 = 2;

/// File systems that are made from nothing that has a path.
const PATHLESS: &[&str] = &["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup"];

const NEWNS: i32 = libc::CLONE_NEWNS;
const NEWUSER: i32 = libc::CLONE_NEWUSER;
const NEWCGROUP: i32 = libc::CLONE_NEWCGROUP;

/// Makes of a tree of mounts a namespace of its own.
const OPEN_TREE_NAMESPACE: OpenTreeFlags = OpenTreeFlags::from_bits_retain(2);

/// What the container's namespace begins as.
#[derive(Debug)]
enum Begin {
    /// The rootfs alone.
    Own(OwnedFd),
    /// A copy of another one, with the rootfs attached.
    Copy { of: OwnedFd, root: OwnedFd },
}

/// What comes from the host, detached, and the namespace to start from.
#[derive(Debug)]
pub(crate) struct Apart {
    begin: Begin,
    binds: Vec<(usize, OwnedFd)>,
    groups: Vec<OwnedFd>,
}

/// Where a container's mounts come from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources<'a> {
    /// The configuration.
    pub(crate) spec: &'a Spec,
    /// Its namespaces.
    pub(crate) plan: &'a Plan,
    /// The root file system on the host, without links.
    pub(crate) rootfs: &'a Path,
    /// Where relative sources start.
    pub(crate) bundle: &'a Path,
    /// What cgroup mounts show.
    pub(crate) hierarchies: &'a [HierarchyMount],
}

impl Apart {
    /// Prepares it, where kernel and container allow it. `prepared` are mounts that
    /// exist already.
    pub(crate) fn prepare(from: Sources<'_>, prepared: &[(usize, OwnedFd)]) -> Option<Self> {
        let own = namespaces_of_trees();
        if !(own || sys::mount::at_least(MANY)) || !possible(from) {
            return None;
        }
        let small = if own { None } else { Some(small_namespace()?) };
        match Self::with(small, from, prepared) {
            Ok(apart) => {
                crate::log::debug(|| "the mount namespace begins as a small one".into());
                Some(apart)
            }
            Err(e) => {
                // The usual way will say it again if it is a true error.
                crate::log::debug(|| crate::error::chain(&e));
                None
            }
        }
    }

    fn with(
        small: Option<OwnedFd>,
        from: Sources<'_>,
        prepared: &[(usize, OwnedFd)],
    ) -> Result<Self, StepError> {
        let what = || format!("clone mounts of rootfs {}", from.rootfs.display());
        let root = open_root(from.rootfs)?;
        let begin = match small {
            None => Begin::Own(namespace_of(&root).doing(what)?),
            Some(of) => {
                let root = clone_mount(root, true).doing(what)?;
                cut_propagation(&root, from.spec).doing(what)?;
                Begin::Copy { of, root }
            }
        };
        let mut binds = Vec::new();
        let mut groups = Vec::new();
        // In a namespace of their own cgroups are mounted afresh.
        let fresh = from.plan.makes(NEWCGROUP) || from.plan.joins(NEWCGROUP);
        for (index, mount) in from.spec.mounts.iter().enumerate() {
            let options = Options::parse(&mount.options);
            if mount.kind == "cgroup" {
                for hierarchy in from.hierarchies.iter().filter(|_| !fresh) {
                    let what = || format!("clone mount {}", hierarchy.source.display());
                    let tree = clone_at(&hierarchy.source).doing(what)?;
                    cut_propagation(&tree, from.spec).doing(what)?;
                    groups.push(tree);
                }
                continue;
            }
            let made = prepared.iter().any(|(i, _)| *i == index);
            if let Some(recursive) = bind_of(mount, &options).filter(|_| !options.remount && !made)
            {
                let tree = bind_source(mount, from.bundle, recursive)?;
                cut_propagation(&tree, from.spec)
                    .doing(|| format!("cut propagation of {}", mount.source))?;
                binds.push((index, tree));
            }
        }
        Ok(Self {
            begin,
            binds,
            groups,
        })
    }

    /// The prepared tree of a mount, if it is one from the host.
    pub(crate) fn bind(&self, index: usize) -> Option<&OwnedFd> {
        let found = self.binds.iter().find(|(i, _)| *i == index);
        found.map(|(_, tree)| tree)
    }

    /// The cgroups, in the order of the hierarchies.
    pub(crate) fn groups(&self) -> &[OwnedFd] {
        &self.groups
    }

    /// The numbers of all descriptors, for the child to close once it has mounted.
    pub(crate) fn numbers(&self) -> Vec<i32> {
        let begin = match &self.begin {
            Begin::Own(namespace) => vec![namespace],
            Begin::Copy { of, root } => vec![of, root],
        };
        let binds = self.binds.iter().map(|(_, tree)| tree);
        let all = begin.into_iter().chain(binds).chain(&self.groups);
        all.map(AsRawFd::as_raw_fd).collect()
    }

    /// Enters a new namespace with the rootfs on /, and gives the rootfs and whether
    /// it is all there is. Where the namespace to start from may not be entered, ours
    /// is a copy of the host's on return, and there is no rootfs yet.
    pub(super) fn enter(&self, spec: &Spec) -> Result<Option<(OwnedFd, bool)>, StepError> {
        let (Begin::Own(namespace) | Begin::Copy { of: namespace, .. }) = &self.begin;
        let entered = enter(namespace, NEWNS as u32).doing(|| "enter the small mount namespace");
        if !matches!((&entered, &self.begin), (Ok(()), Begin::Own(_))) {
            sys::process::unshare_namespace(NEWNS as u32).doing(|| "make a mount namespace")?;
        }
        if let Err(e) = entered {
            crate::log::debug(|| crate::error::chain(&e));
            return Ok(None);
        }
        let slash = open_dir(Path::new("/"))?;
        let private = becoming(libc::MS_PRIVATE);
        match &self.begin {
            Begin::Own(_) => {
                cut_propagation(&slash, spec).doing(|| "cut mount propagation to the host")?;
                set_attr(&slash, false, &private).doing(|| "make rootfs mount private")?;
                Ok(Some((slash, true)))
            }
            Begin::Copy { root, .. } => {
                // Nobody shares it, but pivot_root is not to depend on that.
                set_attr(&slash, true, &private).doing(|| "cut the small mount namespace off")?;
                attach(root, &slash).doing(|| "attach the rootfs in a small mount namespace")?;
                set_attr(root, false, &private).doing(|| "make rootfs mount private")?;
                let root = rustix::io::fcntl_dupfd_cloexec(root, 3).doing(|| "keep the rootfs")?;
                Ok(Some((root, false)))
            }
        }
    }
}

/// Whether the kernel makes namespaces of trees. One that does not looks at the flags
/// first, one that does at the descriptor.
fn namespaces_of_trees() -> bool {
    let probe = open_tree(CWD, "", OPEN_TREE_NAMESPACE);
    probe.is_err_and(|e| e == Errno::NOENT)
}

/// A mount namespace of this directory and the mounts below alone.
fn namespace_of(root: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let flags = OPEN_TREE_NAMESPACE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(root, "", flags)
}

/// A detached copy of the mount at a path.
fn clone_at(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, path, flags)
}

/// Whether nothing needs the host's paths once the namespace is entered.
fn possible(from: Sources<'_>) -> bool {
    let hooks = &from.spec.hooks;
    let in_userns =
        from.plan.makes(NEWUSER) || from.plan.joins(NEWUSER) || crate::cgroup::in_user_namespace();
    let mounts = &from.spec.mounts;
    from.plan.makes(NEWNS)
        && !in_userns
        && !shares_with_host(from.spec)
        // Those of the runtime may enter the container's namespace, and look for the
        // rootfs where it is on the host.
        && hooks.prestart.is_empty()
        && hooks.create_runtime.is_empty()
        && hooks.create_container.is_empty()
        // Of each hierarchy there is one copy.
        && mounts.iter().filter(|m| m.kind == "cgroup").count() <= 1
        && mounts.iter().all(|m| portable(m, from))
}

/// Whether a mount is either made from nothing, or from what the host has now.
fn portable(mount: &Mount, from: Sources<'_>) -> bool {
    let options = Options::parse(&mount.options);
    if options.remount {
        return true;
    }
    if bind_of(mount, &options).is_none() {
        return PATHLESS.contains(&mount.kind.as_str());
    }
    // What lies in the root may be a mount made by then, and what the root lies in
    // shows them too.
    let source = from.bundle.join(&mount.source).canonicalize();
    source.is_ok_and(|s| !s.starts_with(from.rootfs) && !from.rootfs.starts_with(&s))
}

/// The mount namespace of kdevtmpfs.
fn small_namespace() -> Option<OwnedFd> {
    if !ProcStat::read(KTHREADD)?.is_kernel_thread() {
        return None;
    }
    let named = |pid: &i32| {
        let name = std::fs::read(format!("/proc/{pid}/comm"));
        name.is_ok_and(|n| n == b"kdevtmpfs\n")
    };
    let pid = (KTHREADD + 1..=LAST_PID).find(named)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = rustix::fs::open(format!("/proc/{pid}/ns/mnt"), flags, Mode::empty()).ok()?;
    // Looked at after the namespace is open: anybody may have that name, but only a
    // thread of the kernel is one, and it does not end.
    ProcStat::read(pid)?.is_kernel_thread().then_some(namespace)
}
