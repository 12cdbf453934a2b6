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

pub mod linux;
pub mod process;
pub mod resources;
pub mod seccomp;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

pub use linux::{
    Device, IntelRdt, Linux, MemoryPolicy, Namespace, NetDevice, Personality, TimeOffset,
};
pub use process::{
    Capabilities, ConsoleSize, ExecCpuAffinity, IoPriority, Process, Rlimit, Scheduler, User,
};
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
