//! The daemon about itself: `GET /version` and `GET /info`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::wire::wire;

wire! {
    /// The answer to `GET /version`.
    pub struct SystemVersion {
        "Platform" [omitempty] platform: Option<PlatformInfo>,
        "Version" version: String,
        "ApiVersion" api_version: String,
        "MinAPIVersion" [omitempty] min_api_version: String,
        "Os" os: String,
        "Arch" arch: String,
        "Components" [omitempty] components: Vec<ComponentVersion>,
        "GitCommit" [omitempty] git_commit: String,
        "GoVersion" [omitempty] go_version: String,
        "KernelVersion" [omitempty] kernel_version: String,
        "Experimental" [omitempty] experimental: bool,
        "BuildTime" [omitempty] build_time: String,
    }

    /// The name of the product.
    pub struct PlatformInfo {
        "Name" name: String,
    }

    /// One program of the chain.
    pub struct ComponentVersion {
        "Name" name: String,
        "Version" version: String,
        "Details" [omitempty] details: Option<BTreeMap<String, String>>,
    }

    /// The answer to `GET /info`.
    pub struct SystemInfo {
        "ID" id: String,
        "Containers" containers: i64,
        "ContainersRunning" containers_running: i64,
        "ContainersPaused" containers_paused: i64,
        "ContainersStopped" containers_stopped: i64,
        "Images" images: i64,
        "Driver" driver: String,
        "DriverStatus" driver_status: Option<Vec<[String; 2]>>,
        "SystemStatus" [omitempty] system_status: Option<Value>,
        "Plugins" plugins: PluginsInfo,
        "MemoryLimit" memory_limit: bool,
        "SwapLimit" swap_limit: bool,
        "KernelMemoryTCP" [omitempty] kernel_memory_tcp: bool,
        "CpuCfsPeriod" cpu_cfs_period: bool,
        "CpuCfsQuota" cpu_cfs_quota: bool,
        "CPUShares" cpu_shares: bool,
        "CPUSet" cpu_set: bool,
        "PidsLimit" pids_limit: bool,
        "IPv4Forwarding" ipv4_forwarding: bool,
        "BridgeNfIptables" [omitempty] bridge_nf_iptables: Option<bool>,
        "BridgeNfIp6tables" [omitempty] bridge_nf_ip6tables: Option<bool>,
        "Debug" debug: bool,
        "NFd" n_fd: i64,
        "OomKillDisable" oom_kill_disable: bool,
        "NGoroutines" n_goroutines: i64,
        "SystemTime" system_time: String,
        "LoggingDriver" logging_driver: String,
        "DefaultLogOpts" [omitempty] default_log_opts: BTreeMap<String, String>,
        "CgroupDriver" cgroup_driver: String,
        "CgroupVersion" [omitempty] cgroup_version: String,
        "NEventsListener" n_events_listener: i64,
        "KernelVersion" kernel_version: String,
        "OperatingSystem" operating_system: String,
        "OSVersion" os_version: String,
        "OSType" os_type: String,
        "Architecture" architecture: String,
        "IndexServerAddress" index_server_address: String,
        "RegistryConfig" registry_config: Option<RegistryConfig>,
        "NCPU" ncpu: i64,
        "MemTotal" mem_total: i64,
        "GenericResources" generic_resources: Option<Value>,
        "DockerRootDir" docker_root_dir: String,
        "HttpProxy" http_proxy: String,
        "HttpsProxy" https_proxy: String,
        "NoProxy" no_proxy: String,
        "Name" name: String,
        "Labels" labels: Option<Vec<String>>,
        "ExperimentalBuild" experimental_build: bool,
        "ServerVersion" server_version: String,
        "Runtimes" runtimes: BTreeMap<String, RuntimeInfo>,
        "DefaultRuntime" default_runtime: String,
        "Swarm" swarm: SwarmInfo,
        "LiveRestoreEnabled" live_restore_enabled: bool,
        "Isolation" isolation: String,
        "InitBinary" init_binary: String,
        "ContainerdCommit" containerd_commit: Commit,
        "RuncCommit" runc_commit: Commit,
        "InitCommit" init_commit: Commit,
        "SecurityOptions" security_options: Vec<String>,
        "ProductLicense" [omitempty] product_license: String,
        "DefaultAddressPools" [omitempty] default_address_pools: Vec<AddressPool>,
        "FirewallBackend" [omitempty] firewall_backend: Option<FirewallInfo>,
        "CDISpecDirs" cdi_spec_dirs: Vec<String>,
        "DiscoveredDevices" [omitempty] discovered_devices: Option<Value>,
        "NRI" [omitempty] nri: Option<Value>,
        "Containerd" [omitempty] containerd: Option<ContainerdInfo>,
        "Warnings" warnings: Option<Vec<String>>,
    }

    /// The drivers that the daemon knows, by kind.
    pub struct PluginsInfo {
        "Volume" volume: Option<Vec<String>>,
        "Network" network: Option<Vec<String>>,
        "Authorization" authorization: Option<Vec<String>>,
        "Log" log: Option<Vec<String>>,
    }

    /// A configured OCI runtime.
    pub struct RuntimeInfo {
        "path" [omitempty] path: String,
        "runtimeArgs" [omitempty] runtime_args: Vec<String>,
        "runtimeType" [omitempty] runtime_type: String,
        "options" [omitempty] options: Option<Value>,
        "status" [omitempty] status: BTreeMap<String, String>,
    }

    /// Swarm: `inactive`, always.
    pub struct SwarmInfo {
        "NodeID" node_id: String,
        "NodeAddr" node_addr: String,
        "LocalNodeState" local_node_state: String,
        "ControlAvailable" control_available: bool,
        "Error" error: String,
        "RemoteManagers" remote_managers: Option<Value>,
    }

    /// The commit a program was built from; `Expected` before API 1.49.
    pub struct Commit {
        "ID" id: String,
        "Expected" [omitempty] expected: Option<String>,
    }

    /// A pool that subnets of new networks are taken from.
    pub struct AddressPool {
        "Base" base: String,
        "Size" size: i64,
    }

    /// What packet filter the daemon drives.
    pub struct FirewallInfo {
        "Driver" driver: String,
        "Info" [omitempty] info: Vec<[String; 2]>,
    }

    /// The containerd below the daemon.
    pub struct ContainerdInfo {
        "Address" [omitempty] address: String,
        "Namespaces" namespaces: ContainerdNamespaces,
    }

    /// The containerd namespaces that the daemon uses.
    pub struct ContainerdNamespaces {
        "Containers" containers: String,
        "Plugins" plugins: String,
    }

    /// The registry settings of the daemon.
    pub struct RegistryConfig {
        "InsecureRegistryCIDRs" insecure_registry_cidrs: Option<Vec<String>>,
        "IndexConfigs" index_configs: BTreeMap<String, IndexInfo>,
        "Mirrors" mirrors: Option<Vec<String>>,
    }

    /// One registry with settings of its own.
    pub struct IndexInfo {
        "Name" name: String,
        "Mirrors" mirrors: Vec<String>,
        "Secure" secure: bool,
        "Official" official: bool,
    }
}
