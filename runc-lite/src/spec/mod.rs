//! The container's configuration: config.json as Rust values.
//!
//! Own structs instead of a schema crate: only what the runtime acts on is
//! decoded, so that parsing stays a small part of a start that takes a few
//! milliseconds. Unknown fields are ignored, as the runtime specification
//! asks. `null` counts as absent everywhere, because the Go programs that
//! write these files print empty slices and maps that way.
//!
//! `resources` and `seccomp` describe the two subtrees that their own
//! modules (`cgroup`, `security::seccomp`) turn into kernel state.

pub mod resources;
pub mod seccomp;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

pub use resources::LinuxResources;
pub use seccomp::LinuxSeccomp;

/// The version of the specification this runtime follows.
pub const VERSION: &str = "1.2.0";

/// Reads `null` as the type's default value.
pub(crate) fn nil<'de, D, T>(d: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

/// The whole of config.json.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// Version of the runtime specification the file was written for.
    #[serde(rename = "ociVersion", deserialize_with = "nil")]
    pub version: String,
    /// The program to run; absent for a container that only holds namespaces.
    pub process: Option<Process>,
    /// The root file system.
    pub root: Option<Root>,
    /// Host name in the UTS namespace.
    #[serde(deserialize_with = "nil")]
    pub hostname: String,
    /// NIS domain name in the UTS namespace.
    #[serde(deserialize_with = "nil")]
    pub domainname: String,
    /// Mounts in order.
    #[serde(deserialize_with = "nil")]
    pub mounts: Vec<Mount>,
    /// Programs run at points of the container's life.
    #[serde(deserialize_with = "nil")]
    pub hooks: Hooks,
    /// Free key-value data, repeated in `state`.
    #[serde(deserialize_with = "nil")]
    pub annotations: BTreeMap<String, String>,
    /// What is particular to Linux.
    #[serde(deserialize_with = "nil")]
    pub linux: Linux,
}

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

/// The root file system.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Root {
    /// Directory, absolute or relative to the bundle.
    #[serde(deserialize_with = "nil")]
    pub path: String,
    /// Whether the container sees it read-only.
    #[serde(deserialize_with = "nil")]
    pub readonly: bool,
}

/// One mount.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mount {
    /// Path in the container.
    #[serde(deserialize_with = "nil")]
    pub destination: String,
    /// File system type; empty or `bind` for binds.
    #[serde(rename = "type", deserialize_with = "nil")]
    pub kind: String,
    /// Device, path or name.
    #[serde(deserialize_with = "nil")]
    pub source: String,
    /// fstab-style options.
    #[serde(deserialize_with = "nil")]
    pub options: Vec<String>,
    /// Mapping of user ids on this mount.
    #[serde(deserialize_with = "nil")]
    pub uid_mappings: Vec<IdMapping>,
    /// Mapping of group ids on this mount.
    #[serde(deserialize_with = "nil")]
    pub gid_mappings: Vec<IdMapping>,
}

/// A range of ids in the container and where it lies outside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IdMapping {
    /// First id inside.
    #[serde(rename = "containerID")]
    pub container_id: u32,
    /// First id outside.
    #[serde(rename = "hostID")]
    pub host_id: u32,
    /// How many.
    pub size: u32,
}

/// The six kinds of hooks.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    /// Deprecated name of the step before pivot_root, in the runtime's namespace.
    #[serde(deserialize_with = "nil")]
    pub prestart: Vec<Hook>,
    /// Before pivot_root, in the runtime's namespace.
    #[serde(deserialize_with = "nil")]
    pub create_runtime: Vec<Hook>,
    /// Before pivot_root, in the container's namespaces.
    #[serde(deserialize_with = "nil")]
    pub create_container: Vec<Hook>,
    /// In the container, straight before the program.
    #[serde(deserialize_with = "nil")]
    pub start_container: Vec<Hook>,
    /// After the program was started, in the runtime's namespace.
    #[serde(deserialize_with = "nil")]
    pub poststart: Vec<Hook>,
    /// After the container was deleted, in the runtime's namespace.
    #[serde(deserialize_with = "nil")]
    pub poststop: Vec<Hook>,
}

/// One program run by the runtime.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// Absolute path of the program.
    #[serde(deserialize_with = "nil")]
    pub path: String,
    /// Arguments, the first being argv[0].
    #[serde(deserialize_with = "nil")]
    pub args: Vec<String>,
    /// The whole environment.
    #[serde(deserialize_with = "nil")]
    pub env: Vec<String>,
    /// Seconds until it is killed.
    pub timeout: Option<u64>,
}

/// What is particular to Linux.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Linux {
    /// User id ranges of the user namespace.
    #[serde(deserialize_with = "nil")]
    pub uid_mappings: Vec<IdMapping>,
    /// Group id ranges of the user namespace.
    #[serde(deserialize_with = "nil")]
    pub gid_mappings: Vec<IdMapping>,
    /// Kernel parameters set inside.
    #[serde(deserialize_with = "nil")]
    pub sysctl: BTreeMap<String, String>,
    /// Limits, see [`LinuxResources`].
    pub resources: Option<LinuxResources>,
    /// Where in the cgroup hierarchy the container goes.
    #[serde(deserialize_with = "nil")]
    pub cgroups_path: String,
    /// Namespaces, new or joined.
    #[serde(deserialize_with = "nil")]
    pub namespaces: Vec<Namespace>,
    /// Device nodes beside the default ones.
    #[serde(deserialize_with = "nil")]
    pub devices: Vec<Device>,
    /// System call filter, see [`LinuxSeccomp`].
    pub seccomp: Option<LinuxSeccomp>,
    /// Propagation of the root mount: `private`, `rslave`, ...
    #[serde(deserialize_with = "nil")]
    pub rootfs_propagation: String,
    /// Paths hidden from the container.
    #[serde(deserialize_with = "nil")]
    pub masked_paths: Vec<String>,
    /// Paths the container may only read.
    #[serde(deserialize_with = "nil")]
    pub readonly_paths: Vec<String>,
    /// SELinux label for mounts.
    #[serde(deserialize_with = "nil")]
    pub mount_label: String,
    /// Execution domain.
    pub personality: Option<Personality>,
    /// Offsets of the time namespace by clock.
    #[serde(deserialize_with = "nil")]
    pub time_offsets: BTreeMap<String, TimeOffset>,
    /// Cache and memory bandwidth groups: refused where asked for.
    pub intel_rdt: Option<serde_json::Value>,
    /// Network devices to move in, by host name.
    #[serde(deserialize_with = "nil")]
    pub net_devices: BTreeMap<String, NetDevice>,
    /// NUMA memory policy.
    pub memory_policy: Option<serde_json::Value>,
}

/// A namespace to make or to join.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Namespace {
    /// `pid`, `network`, `ipc`, `uts`, `mount`, `user`, `cgroup`, `time`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Namespace file to join; a new one is made where this is empty.
    #[serde(deserialize_with = "nil")]
    pub path: String,
}

/// A device node.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Device {
    /// Path in the container.
    pub path: String,
    /// `c`, `u`, `b` or `p`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// Permission bits.
    pub file_mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// Execution domain.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Personality {
    /// `LINUX` or `LINUX32`.
    pub domain: String,
    /// Flags: none is supported by any runtime so far.
    #[serde(deserialize_with = "nil")]
    pub flags: Vec<String>,
}

/// Offset of one clock.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub struct TimeOffset {
    /// Whole seconds.
    pub secs: i64,
    /// Nanoseconds.
    pub nanosecs: u32,
}

/// A network device to move into the container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NetDevice {
    /// Its name inside.
    #[serde(deserialize_with = "nil")]
    pub name: String,
}
