//! A container as it is listed and inspected, and the answers of its smaller verbs.

use std::collections::BTreeMap;

use serde_json::Value;

use super::wire::wire;
use super::{Config, EndpointSettings, HostConfig, MountPoint, PortMap};

wire! {
    /// The answer to `GET /containers/ID/json`.
    pub struct ContainerInspect {
        "Id" id: String,
        "Created" created: String,
        "Path" path: String,
        "Args" args: Vec<String>,
        "State" state: State,
        "Image" image: String,
        "ResolvConfPath" resolv_conf_path: String,
        "HostnamePath" hostname_path: String,
        "HostsPath" hosts_path: String,
        "LogPath" log_path: String,
        "Name" name: String,
        "RestartCount" restart_count: i64,
        "Driver" driver: String,
        "Platform" platform: String,
        "MountLabel" mount_label: String,
        "ProcessLabel" process_label: String,
        "AppArmorProfile" app_armor_profile: String,
        "ExecIDs" exec_ids: Option<Vec<String>>,
        "HostConfig" host_config: HostConfig,
        "GraphDriver" [omitempty] graph_driver: Option<GraphDriver>,
        "Storage" [omitempty] storage: Option<Value>,
        "SizeRw" [omitempty] size_rw: Option<i64>,
        "SizeRootFs" [omitempty] size_root_fs: Option<i64>,
        "Mounts" mounts: Vec<MountPoint>,
        "Config" config: Config,
        "NetworkSettings" network_settings: NetworkSettings,
        "ImageManifestDescriptor" [omitempty] image_manifest_descriptor: Option<Value>,
    }

    /// What a container does now. `Status` is created, running, paused, restarting, removing, exited or dead.
    pub struct State {
        "Status" status: String,
        "Running" running: bool,
        "Paused" paused: bool,
        "Restarting" restarting: bool,
        "OOMKilled" oom_killed: bool,
        "Dead" dead: bool,
        "Pid" pid: i64,
        "ExitCode" exit_code: i64,
        "Error" error: String,
        "StartedAt" started_at: String,
        "FinishedAt" finished_at: String,
        "ExitReason" [omitempty] exit_reason: String,
        "Health" [omitempty] health: Option<Health>,
    }

    /// The health of a container: none, starting, healthy or unhealthy.
    pub struct Health {
        "Status" status: String,
        "FailingStreak" failing_streak: i64,
        "Log" log: Option<Vec<HealthResult>>,
    }

    /// One probe of a container's health.
    pub struct HealthResult {
        "Start" start: String,
        "End" end: String,
        "ExitCode" exit_code: i64,
        "Output" output: String,
    }

    /// Where the layers of a container or image lie.
    pub struct GraphDriver {
        "Data" data: Option<BTreeMap<String, String>>,
        "Name" name: String,
    }

    /// The networks a container is on. The fields of the default bridge ended with API 1.51.
    pub struct NetworkSettings {
        "Bridge" [omitempty] bridge: Option<String>,
        "SandboxID" sandbox_id: String,
        "SandboxKey" sandbox_key: String,
        "Ports" ports: PortMap,
        "HairpinMode" [omitempty] hairpin_mode: Option<bool>,
        "LinkLocalIPv6Address" [omitempty] link_local_ipv6_address: Option<String>,
        "LinkLocalIPv6PrefixLen" [omitempty] link_local_ipv6_prefix_len: Option<i64>,
        "EndpointID" [omitempty] endpoint_id: Option<String>,
        "Gateway" [omitempty] gateway: Option<String>,
        "GlobalIPv6Address" [omitempty] global_ipv6_address: Option<String>,
        "GlobalIPv6PrefixLen" [omitempty] global_ipv6_prefix_len: Option<i64>,
        "IPAddress" [omitempty] ip_address: Option<String>,
        "IPPrefixLen" [omitempty] ip_prefix_len: Option<i64>,
        "IPv6Gateway" [omitempty] ipv6_gateway: Option<String>,
        "MacAddress" [omitempty] mac_address: Option<String>,
        "Networks" networks: BTreeMap<String, EndpointSettings>,
    }

    /// One element of `GET /containers/json`.
    pub struct ContainerSummary {
        "Id" id: String,
        "Names" names: Vec<String>,
        "Image" image: String,
        "ImageID" image_id: String,
        "ImageManifestDescriptor" [omitempty] image_manifest_descriptor: Option<Value>,
        "Command" command: String,
        "Created" created: i64,
        "Ports" ports: Vec<Port>,
        "SizeRw" [omitempty] size_rw: i64,
        "SizeRootFs" [omitempty] size_root_fs: i64,
        "Labels" labels: BTreeMap<String, String>,
        "State" state: String,
        "Status" status: String,
        "HostConfig" host_config: SummaryHostConfig,
        "Health" [omitempty] health: Option<HealthSummary>,
        "NetworkSettings" network_settings: SummaryNetworks,
        "Mounts" mounts: Vec<MountPoint>,
    }

    /// What a list tells of a container's host configuration.
    pub struct SummaryHostConfig {
        "NetworkMode" [omitempty] network_mode: String,
        "Annotations" [omitempty] annotations: BTreeMap<String, String>,
    }

    /// What a list tells of a container's networks.
    pub struct SummaryNetworks {
        "Networks" networks: BTreeMap<String, EndpointSettings>,
    }

    /// What a list tells of a container's health.
    pub struct HealthSummary {
        "Status" status: String,
        "FailingStreak" failing_streak: i64,
    }

    /// An exposed or published port in a list.
    pub struct Port {
        "IP" [omitempty] ip: String,
        "PrivatePort" private_port: u16,
        "PublicPort" [omitempty] public_port: u16,
        "Type" kind: String,
    }

    /// The answer to `POST /containers/ID/wait`.
    pub struct WaitResponse {
        "Error" [omitempty] error: Option<WaitError>,
        "StatusCode" status_code: i64,
    }

    /// Why a wait could not tell the exit code.
    pub struct WaitError {
        "Message" [omitempty] message: String,
    }

    /// The answer to `GET /containers/ID/top`.
    pub struct TopResponse {
        "Processes" processes: Vec<Vec<String>>,
        "Titles" titles: Vec<String>,
    }

    /// One element of `GET /containers/ID/changes`: kind 0 modified, 1 added, 2 deleted.
    pub struct ChangeItem {
        "Path" path: String,
        "Kind" kind: u8,
    }

    /// A file in a container: base64 JSON in the header `X-Docker-Container-Path-Stat`.
    /// The mode has Go's bits: directory 1<<31, symlink 1<<27, below them the permissions.
    pub struct ContainerPathStat {
        "name" name: String,
        "size" size: i64,
        "mode" mode: u32,
        "mtime" mtime: String,
        "linkTarget" link_target: String,
    }

    /// The answer to `POST /containers/prune`.
    pub struct ContainersPruned {
        "ContainersDeleted" containers_deleted: Option<Vec<String>>,
        "SpaceReclaimed" space_reclaimed: u64,
    }
}
