//! Which namespaces a container gets, and how a process comes into them.
//!
//! New namespaces are made by clone itself, so the child is born in them. Three
//! kinds need more:
//!
//! - **cgroup**: made by the child once it is in its cgroup, as the root of the
//!   namespace is where the process is at that moment;
//! - **time**: made by the child, which then writes the offsets and enters;
//! - **joined by path**: entered by the child with setns. A pid namespace can
//!   only be entered by a process's children, and privileges over other
//!   namespaces are gone once inside a user namespace, so in those cases a
//!   short-lived process in between joins and clones a second time, giving the
//!   new process to our parent as a sibling.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{Mode, OFlags};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use crate::error::{Doing as _, StepError};
use crate::spec::{Namespace, Spec};

/// Name in config.json, name in /proc/PID/ns, clone flag; in the order of joining.
const KINDS: &[(&str, &str, u32)] = &[
    ("user", "user", libc::CLONE_NEWUSER as u32),
    ("ipc", "ipc", libc::CLONE_NEWIPC as u32),
    ("uts", "uts", libc::CLONE_NEWUTS as u32),
    ("network", "net", libc::CLONE_NEWNET as u32),
    ("pid", "pid", libc::CLONE_NEWPID as u32),
    ("mount", "mnt", libc::CLONE_NEWNS as u32),
    ("cgroup", "cgroup", libc::CLONE_NEWCGROUP as u32),
    ("time", "time", CLONE_NEWTIME),
];

/// Missing in the libc crate for some targets.
const CLONE_NEWTIME: u32 = 0x80;

/// A refused list of namespaces.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NamespaceError {
    /// A kind that does not exist.
    #[error("namespace \"{0}\" does not exist")]
    Unknown(String),
    /// The same kind twice.
    #[error("malformed spec file: duplicated ns {{\"{0}\" \"\"}}")]
    Twice(String),
    /// A path that cannot be opened.
    #[error(transparent)]
    Open(#[from] StepError),
}

/// What to make and what to join.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Flags for the clone that makes the container's process.
    pub(crate) clone_flags: u32,
    /// Kinds the child makes itself (cgroup, time).
    pub(crate) late: u32,
    /// Kinds to join and the namespace files, opened.
    pub(crate) join: Vec<(u32, OwnedFd)>,
}

impl Plan {
    /// Reads the list of the configuration and opens the paths in it.
    pub(crate) fn from_spec(spec: &Spec) -> Result<Self, NamespaceError> {
        let mut plan = Self::default();
        let mut seen = 0;
        for Namespace { kind, path } in &spec.linux.namespaces {
            let &(_, _, flag) = KINDS
                .iter()
                .find(|(name, _, _)| name == kind)
                .ok_or_else(|| NamespaceError::Unknown(kind.clone()))?;
            if seen & flag != 0 {
                return Err(NamespaceError::Twice(kind.clone()));
            }
            seen |= flag;
            if !path.is_empty() {
                // What is no namespace will be refused, but must not be waited for.
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                let fd = rustix::fs::open(path, flags, Mode::empty())
                    .doing(|| format!("open {kind} namespace {path}"))?;
                plan.join.push((flag, fd));
            } else if flag == CLONE_NEWTIME || flag == libc::CLONE_NEWCGROUP as u32 {
                plan.late |= flag;
            } else {
                plan.clone_flags |= flag;
            }
        }
        let order = |flag: u32| KINDS.iter().position(|k| k.2 == flag);
        plan.join.sort_by_key(|(flag, _)| order(*flag));
        Ok(plan)
    }

    /// Whether a kind is made new.
    pub(crate) fn makes(&self, flag: i32) -> bool {
        (self.clone_flags | self.late) & flag as u32 != 0
    }

    /// Whether a kind is joined.
    pub(crate) fn joins(&self, flag: i32) -> bool {
        self.join.iter().any(|(f, _)| *f == flag as u32)
    }

    /// The namespace of a kind that is joined.
    pub(crate) fn joined(&self, flag: i32) -> Option<&OwnedFd> {
        let found = self.join.iter().find(|(f, _)| *f == flag as u32);
        found.map(|(_, fd)| fd)
    }

    /// Whether a process in between has to join first.
    pub(crate) fn needs_intermediate(&self) -> bool {
        self.joins(libc::CLONE_NEWUSER)
            || self.joins(libc::CLONE_NEWPID)
            || (self.makes(libc::CLONE_NEWUSER) && !self.join.is_empty())
    }

    /// All kinds in which the container differs from us, for `exec` to enter.
    pub(crate) fn differing(&self) -> u32 {
        let joined = self.join.iter().filter(|(flag, fd)| !is_own(*flag, fd));
        joined.fold(self.clone_flags | self.late, |all, (flag, _)| all | flag)
    }

    /// Enters what is to be joined. User namespaces come first where we lack
    /// privileges outside, and last where the others need those privileges.
    pub(crate) fn join_all(&self) -> Result<(), StepError> {
        let user = libc::CLONE_NEWUSER as u32;
        let privileged = rustix::process::geteuid().is_root();
        let first = self.join.iter().filter(|(f, _)| *f == user && !privileged);
        let rest = self.join.iter().filter(|(f, _)| *f != user);
        let last = self.join.iter().filter(|(f, _)| *f == user && privileged);
        for (flag, fd) in first.chain(rest).chain(last) {
            if *flag == user && is_own(*flag, fd) {
                // The kernel refuses to re-enter the own user namespace.
                continue;
            }
            enter(fd, *flag).doing(|| format!("join {} namespace", kind_name(*flag)))?;
        }
        Ok(())
    }
}

/// setns with the kinds in `flags`, from a namespace file or a pidfd.
pub(crate) fn enter(fd: impl AsFd, flags: u32) -> rustix::io::Result<()> {
    move_into_thread_name_spaces(fd.as_fd(), ThreadNameSpaceType::from_bits_retain(flags))
}

/// Makes a time namespace, sets its clocks and enters it.
pub(crate) fn new_time_namespace(
    offsets: &std::collections::BTreeMap<String, crate::spec::TimeOffset>,
) -> Result<(), StepError> {
    crate::sys::process::unshare_namespace(CLONE_NEWTIME).doing(|| "make time namespace")?;
    for (clock, offset) in offsets {
        let line = format!("{clock} {} {}\n", offset.secs, offset.nanosecs);
        std::fs::write("/proc/self/timens_offsets", line)
            .doing(|| format!("set time offset of clock {clock}"))?;
    }
    // The namespace is the children's so far. Entering it is allowed as we
    // have one thread, and fixes the offsets.
    let fd = rustix::fs::open(
        "/proc/self/ns/time_for_children",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .doing(|| "open time namespace")?;
    enter(fd, CLONE_NEWTIME).doing(|| "enter time namespace")
}

/// Makes a cgroup namespace rooted where we are.
pub(crate) fn new_cgroup_namespace() -> Result<(), StepError> {
    crate::sys::process::unshare_namespace(libc::CLONE_NEWCGROUP as u32)
        .doing(|| "make cgroup namespace")
}

/// Whether the plan's late kinds contain the time namespace.
pub(crate) fn has_time(flags: u32) -> bool {
    flags & CLONE_NEWTIME != 0
}

fn kind_name(flag: u32) -> &'static str {
    KINDS
        .iter()
        .find(|k| k.2 == flag)
        .map_or("unknown", |k| k.0)
}

/// Whether a namespace file is the one we are in.
fn is_own(flag: u32, fd: &OwnedFd) -> bool {
    let Some((_, proc_name, _)) = KINDS.iter().find(|k| k.2 == flag) else {
        return false;
    };
    let own = std::fs::metadata(format!("/proc/self/ns/{proc_name}"));
    match (own, rustix::fs::fstat(fd)) {
        (Ok(own), Ok(that)) => own.dev() == that.st_dev && own.ino() == that.st_ino,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(list: &[(&str, &str)]) -> Result<Plan, NamespaceError> {
        let mut spec = Spec::default();
        for (kind, path) in list {
            spec.linux.namespaces.push(Namespace {
                kind: (*kind).into(),
                path: (*path).into(),
            });
        }
        Plan::from_spec(&spec)
    }

    #[test]
    fn cgroup_and_time_come_late() {
        let plan = plan(&[("pid", ""), ("mount", ""), ("cgroup", ""), ("time", "")]).unwrap();
        assert_eq!(
            plan.clone_flags,
            (libc::CLONE_NEWPID | libc::CLONE_NEWNS) as u32
        );
        assert_eq!(plan.late, libc::CLONE_NEWCGROUP as u32 | CLONE_NEWTIME);
        assert!(!plan.needs_intermediate());
    }

    #[test]
    fn joining_a_pid_namespace_needs_a_process_between() {
        let plan = plan(&[("mount", ""), ("pid", "/proc/self/ns/pid")]).unwrap();
        assert!(plan.needs_intermediate());
        assert_eq!(plan.differing(), libc::CLONE_NEWNS as u32);
    }

    #[test]
    fn mistakes_are_named() {
        assert!(matches!(
            plan(&[("pid", ""), ("pid", "")]),
            Err(NamespaceError::Twice(_))
        ));
        assert!(matches!(
            plan(&[("moon", "")]),
            Err(NamespaceError::Unknown(_))
        ));
        let text = crate::error::chain(&plan(&[("ipc", "/nope")]).unwrap_err());
        assert_eq!(text, "open ipc namespace /nope: no such file or directory");
    }
}
