//! The `process` part of config.json, which is also what `exec --process` reads.

use serde::{Deserialize, Serialize};

use super::nil;

/// The program and the identity, limits and privileges it gets.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    /// Whether the program gets a pseudo terminal.
    #[serde(deserialize_with = "nil")]
    pub terminal: bool,
    /// Initial size of that terminal.
    pub console_size: Option<ConsoleSize>,
    /// User and groups.
    #[serde(deserialize_with = "nil")]
    pub user: User,
    /// Program and its arguments.
    #[serde(deserialize_with = "nil")]
    pub args: Vec<String>,
    /// Environment as NAME=VALUE.
    #[serde(deserialize_with = "nil")]
    pub env: Vec<String>,
    /// Working directory, absolute.
    #[serde(deserialize_with = "nil")]
    pub cwd: String,
    /// The five capability sets.
    pub capabilities: Option<Capabilities>,
    /// Resource limits.
    #[serde(deserialize_with = "nil")]
    pub rlimits: Vec<Rlimit>,
    /// PR_SET_NO_NEW_PRIVS.
    #[serde(deserialize_with = "nil")]
    pub no_new_privileges: bool,
    /// AppArmor profile.
    #[serde(deserialize_with = "nil")]
    pub apparmor_profile: String,
    /// Adjustment of the out-of-memory score.
    pub oom_score_adj: Option<i32>,
    /// SELinux label.
    #[serde(deserialize_with = "nil")]
    pub selinux_label: String,
    /// I/O scheduling class and priority.
    #[serde(rename = "ioPriority")]
    pub io_priority: Option<IoPriority>,
    /// CPU scheduling policy.
    pub scheduler: Option<Scheduler>,
    /// CPU affinity of processes added by `exec`.
    #[serde(rename = "execCPUAffinity")]
    pub exec_cpu_affinity: Option<ExecCpuAffinity>,
}

/// Rows and columns of a terminal.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ConsoleSize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// Who the process runs as.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    /// User id in the container.
    #[serde(deserialize_with = "nil")]
    pub uid: u32,
    /// Group id in the container.
    #[serde(deserialize_with = "nil")]
    pub gid: u32,
    /// File mode creation mask.
    pub umask: Option<u32>,
    /// Further groups.
    #[serde(deserialize_with = "nil")]
    pub additional_gids: Vec<u32>,
}

/// Capability sets by name (`CAP_CHOWN`).
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Capabilities {
    /// What can be gained by execve.
    #[serde(deserialize_with = "nil")]
    pub bounding: Vec<String>,
    /// What is in force.
    #[serde(deserialize_with = "nil")]
    pub effective: Vec<String>,
    /// What is kept over execve together with file capabilities.
    #[serde(deserialize_with = "nil")]
    pub inheritable: Vec<String>,
    /// What may be put in force.
    #[serde(deserialize_with = "nil")]
    pub permitted: Vec<String>,
    /// What a program without file capabilities keeps.
    #[serde(deserialize_with = "nil")]
    pub ambient: Vec<String>,
}

/// One resource limit.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE` and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// Hard limit.
    pub hard: u64,
    /// Soft limit.
    pub soft: u64,
}

/// I/O priority of the process.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct IoPriority {
    /// `IOPRIO_CLASS_RT`, `IOPRIO_CLASS_BE` or `IOPRIO_CLASS_IDLE`.
    pub class: String,
    /// 0 (highest) to 7.
    #[serde(default)]
    pub priority: i32,
}

/// CPU scheduling of the process.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Scheduler {
    /// `SCHED_OTHER` and so on.
    pub policy: String,
    /// Nice value.
    pub nice: i32,
    /// Static priority of the real-time classes.
    pub priority: i32,
    /// `SCHED_FLAG_*` names.
    #[serde(deserialize_with = "nil")]
    pub flags: Vec<String>,
    /// SCHED_DEADLINE runtime in ns.
    pub runtime: u64,
    /// SCHED_DEADLINE deadline in ns.
    pub deadline: u64,
    /// SCHED_DEADLINE period in ns.
    pub period: u64,
}

/// CPU lists for `exec` before and after joining the container's cgroup.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ExecCpuAffinity {
    /// Before.
    pub initial: String,
    /// After.
    #[serde(rename = "final")]
    pub last: String,
}
