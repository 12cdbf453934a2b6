//! How a container meets its host: limits, mounts, namespaces, ports, policies.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Mount;
use super::wire::wire;

/// Container port (`80/tcp`) to the host addresses it is published on; `null` when only exposed.
pub type PortMap = BTreeMap<String, Option<Vec<PortBinding>>>;

wire! {
    /// The part of a container's configuration that depends on the host.
    pub struct HostConfig {
        "Binds" binds: Option<Vec<String>>,
        "ContainerIDFile" container_id_file: String,
        "LogConfig" log_config: LogConfig,
        "NetworkMode" network_mode: String,
        "PortBindings" port_bindings: PortMap,
        "RestartPolicy" restart_policy: RestartPolicy,
        "AutoRemove" auto_remove: bool,
        "VolumeDriver" volume_driver: String,
        "VolumesFrom" volumes_from: Option<Vec<String>>,
        "ConsoleSize" console_size: [u32; 2],
        "Annotations" [omitempty] annotations: BTreeMap<String, String>,
        "CapAdd" cap_add: Option<Vec<String>>,
        "CapDrop" cap_drop: Option<Vec<String>>,
        "CgroupnsMode" cgroupns_mode: String,
        "Dns" dns: Option<Vec<String>>,
        "DnsOptions" dns_options: Option<Vec<String>>,
        "DnsSearch" dns_search: Option<Vec<String>>,
        "ExtraHosts" extra_hosts: Option<Vec<String>>,
        "GroupAdd" group_add: Option<Vec<String>>,
        "IpcMode" ipc_mode: String,
        "Cgroup" cgroup: String,
        "Links" links: Option<Vec<String>>,
        "OomScoreAdj" oom_score_adj: i64,
        "PidMode" pid_mode: String,
        "Privileged" privileged: bool,
        "PublishAllPorts" publish_all_ports: bool,
        "ReadonlyRootfs" readonly_rootfs: bool,
        "SecurityOpt" security_opt: Option<Vec<String>>,
        "StorageOpt" [omitempty] storage_opt: BTreeMap<String, String>,
        "Tmpfs" [omitempty] tmpfs: BTreeMap<String, String>,
        "UTSMode" uts_mode: String,
        "UsernsMode" userns_mode: String,
        "ShmSize" shm_size: i64,
        "Sysctls" [omitempty] sysctls: BTreeMap<String, String>,
        "Runtime" [omitempty] runtime: String,
        "Isolation" isolation: String,
        "The resource limits" [flatten] resources: Resources,
        "Mounts" [omitempty] mounts: Option<Vec<Mount>>,
        "MaskedPaths" masked_paths: Option<Vec<String>>,
        "ReadonlyPaths" readonly_paths: Option<Vec<String>>,
        "Init" [omitempty] init: Option<bool>,
        "What we do not know, kept as sent" [flatten] other: BTreeMap<String, Value>,
    }

    /// The limits of a container; also what `POST /containers/ID/update` changes.
    pub struct Resources {
        "CpuShares" cpu_shares: i64,
        "Memory" memory: i64,
        "NanoCpus" nano_cpus: i64,
        "CgroupParent" cgroup_parent: String,
        "BlkioWeight" blkio_weight: u16,
        "BlkioWeightDevice" blkio_weight_device: Option<Vec<WeightDevice>>,
        "BlkioDeviceReadBps" blkio_device_read_bps: Option<Vec<ThrottleDevice>>,
        "BlkioDeviceWriteBps" blkio_device_write_bps: Option<Vec<ThrottleDevice>>,
        "BlkioDeviceReadIOps" blkio_device_read_iops: Option<Vec<ThrottleDevice>>,
        "BlkioDeviceWriteIOps" blkio_device_write_iops: Option<Vec<ThrottleDevice>>,
        "CpuPeriod" cpu_period: i64,
        "CpuQuota" cpu_quota: i64,
        "CpuRealtimePeriod" cpu_realtime_period: i64,
        "CpuRealtimeRuntime" cpu_realtime_runtime: i64,
        "CpusetCpus" cpuset_cpus: String,
        "CpusetMems" cpuset_mems: String,
        "Devices" devices: Option<Vec<DeviceMapping>>,
        "DeviceCgroupRules" device_cgroup_rules: Option<Vec<String>>,
        "DeviceRequests" device_requests: Option<Vec<DeviceRequest>>,
        "MemoryReservation" memory_reservation: i64,
        "MemorySwap" memory_swap: i64,
        "MemorySwappiness" memory_swappiness: Option<i64>,
        "OomKillDisable" oom_kill_disable: Option<bool>,
        "PidsLimit" pids_limit: Option<i64>,
        "Ulimits" ulimits: Option<Vec<Ulimit>>,
        "CpuCount" cpu_count: i64,
        "CpuPercent" cpu_percent: i64,
        "IOMaximumIOps" io_maximum_iops: u64,
        "IOMaximumBandwidth" io_maximum_bandwidth: u64,
    }

    /// The body of `POST /containers/ID/update`. The last two are ours alone: ports to be published from now on, and those
    /// to be published no more; a port without bindings stands for all that it has.
    pub struct UpdateBody {
        "The resource limits" [flatten] resources: Resources,
        "RestartPolicy" restart_policy: RestartPolicy,
        "PublishAdd" [omitempty] publish_add: PortMap,
        "PublishRemove" [omitempty] publish_remove: PortMap,
    }

    /// The answer to `POST /containers/ID/update`.
    pub struct UpdateResponse {
        "Warnings" warnings: Option<Vec<String>>,
    }

    /// What happens after a container has ended: "", no, always, on-failure, unless-stopped.
    pub struct RestartPolicy {
        "Name" name: String,
        "MaximumRetryCount" maximum_retry_count: i64,
    }

    /// Where the output of a container goes.
    pub struct LogConfig {
        "Type" kind: String,
        "Config" config: BTreeMap<String, String>,
    }

    /// One host address that a container port is published on.
    pub struct PortBinding {
        "HostIp" host_ip: String,
        "HostPort" host_port: String,
    }

    /// A resource limit of the process kind; `Name` without `RLIMIT_`, lower case.
    pub struct Ulimit {
        "Name" name: String,
        "Hard" hard: i64,
        "Soft" soft: i64,
    }

    /// A host device given to a container.
    pub struct DeviceMapping {
        "PathOnHost" path_on_host: String,
        "PathInContainer" path_in_container: String,
        "CgroupPermissions" cgroup_permissions: String,
    }

    /// A request for devices that a driver chooses, such as GPUs.
    pub struct DeviceRequest {
        "Driver" driver: String,
        "Count" count: i64,
        "DeviceIDs" device_ids: Option<Vec<String>>,
        "Capabilities" capabilities: Option<Vec<Vec<String>>>,
        "Options" options: Option<BTreeMap<String, String>>,
    }

    /// A block device's share of the disk.
    pub struct WeightDevice {
        "Path" path: String,
        "Weight" weight: u16,
    }

    /// A block device's limit in bytes or operations a second.
    pub struct ThrottleDevice {
        "Path" path: String,
        "Rate" rate: u64,
    }
}
