//! What can go wrong with a cgroup.

use std::io;
use std::path::PathBuf;

/// A failed step on a container's cgroup.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A call on a directory or file failed.
    #[error("{op} {}", path.display())]
    Io {
        /// What was attempted.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel refused a value.
    #[error("failed to write {value:?}: write {}", path.display())]
    Write {
        /// What was written.
        value: String,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A limit was asked for that this machine has no controller or file for.
    #[error("cannot set {field}: {missing} is not available on this machine")]
    Unavailable {
        /// The field of the specification.
        field: &'static str,
        /// The controller or file.
        missing: String,
    },
    /// A value that no kernel takes.
    #[error("invalid {field}: {why}")]
    Invalid {
        /// The field of the specification.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The memory limit is below what is in use.
    #[error("unable to set memory limit to {limit} (current usage: {usage}, peak usage: {peak})")]
    BelowUsage {
        /// The limit asked for.
        limit: i64,
        /// Bytes in use.
        usage: u64,
        /// The most that was in use.
        peak: u64,
    },
    /// Somebody lives in the cgroup already.
    #[error("container's cgroup is not empty: {count} process(es) found in {}", path.display())]
    NotEmpty {
        /// How many.
        count: usize,
        /// Where.
        path: PathBuf,
    },
    /// The cgroup exists and is frozen: a process put into it would never start.
    #[error("container's cgroup unexpectedly frozen: {}", path.display())]
    Frozen {
        /// Where.
        path: PathBuf,
    },
    /// The kernel did not come to the wanted state.
    #[error("{} did not become {wanted} within {ms} ms", path.display())]
    Timeout {
        /// Where.
        path: PathBuf,
        /// What was waited for.
        wanted: &'static str,
        /// How long.
        ms: u64,
    },
    /// `--systemd-cgroup` without one.
    #[error(
        "systemd is not running on this host (no /run/systemd/system): cannot use the systemd cgroup driver"
    )]
    NoSystemd,
    /// systemd did not do as asked.
    #[error("{doing} systemd unit {unit}")]
    Systemd {
        /// What was attempted.
        doing: &'static str,
        /// The unit.
        unit: String,
        /// Why not.
        source: super::DbusError,
    },
    /// A group that only takes threads of processes at home elsewhere.
    #[error("cannot enter cgroup {} with limits of {controller}: it is {kind}", path.display())]
    NoDomain {
        /// Where.
        path: PathBuf,
        /// The controller that needs a group of its own kind.
        controller: &'static str,
        /// What the kernel says of the group.
        kind: String,
    },
}

impl CgroupError {
    /// The error number of the cause, where the kernel gave one.
    pub(super) fn errno(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } | Self::Write { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    pub(super) fn invalid(field: &'static str, why: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            why: why.into(),
        }
    }

    pub(super) fn unavailable(field: &'static str, missing: impl Into<String>) -> Self {
        Self::Unavailable {
            field,
            missing: missing.into(),
        }
    }
}
