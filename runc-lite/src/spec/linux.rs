//! The `linux` part of config.json.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{IdMapping, LinuxResources, LinuxSeccomp, nil};

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
    /// Cache and memory bandwidth groups.
    pub intel_rdt: Option<IntelRdt>,
    /// Network devices to move in, by host name.
    #[serde(deserialize_with = "nil")]
    pub net_devices: BTreeMap<String, NetDevice>,
    /// NUMA memory policy.
    pub memory_policy: Option<MemoryPolicy>,
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

/// Which NUMA nodes memory comes from.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct MemoryPolicy {
    /// `MPOL_BIND` and so on.
    #[serde(deserialize_with = "nil")]
    pub mode: String,
    /// Nodes as `0-3,7`.
    #[serde(deserialize_with = "nil")]
    pub nodes: String,
    /// `MPOL_F_*` names.
    #[serde(deserialize_with = "nil")]
    pub flags: Vec<String>,
}

/// A group of the kernel's resource control (resctrl).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IntelRdt {
    /// Name of the group; one of the container's own where this is empty.
    #[serde(rename = "closID", deserialize_with = "nil")]
    pub clos_id: String,
    /// Lines of the schemata file.
    #[serde(deserialize_with = "nil")]
    pub schemata: Vec<String>,
    /// Lines for the L3 cache.
    #[serde(deserialize_with = "nil")]
    pub l3_cache_schema: String,
    /// Lines for the memory bandwidth.
    #[serde(deserialize_with = "nil")]
    pub mem_bw_schema: String,
    /// Whether the container gets a monitoring group.
    #[serde(deserialize_with = "nil")]
    pub enable_monitoring: bool,
    /// Older name of monitoring, for the cache.
    #[serde(rename = "enableCMT", deserialize_with = "nil")]
    pub enable_cmt: bool,
    /// Older name of monitoring, for the memory bandwidth.
    #[serde(rename = "enableMBM", deserialize_with = "nil")]
    pub enable_mbm: bool,
}
