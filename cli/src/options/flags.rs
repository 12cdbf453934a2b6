//! The flags that `run` and `create` share.

use clap::ArgAction::Append;
use proto::engine::{DeviceRequest, ThrottleDevice, Ulimit, WeightDevice};

use super::resources;
use super::values::{byte_size, cpus, float_duration, swap_size};
use crate::args::int;

/// What a container shall be, as typed.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ContainerFlags {
    /// Add a line to the container's hosts file (host:ip)
    #[arg(long, action = Append, value_parser = super::network::extra_host)]
    pub(crate) add_host: Vec<String>,
    /// Add an annotation for the OCI runtime
    #[arg(long, action = Append, value_name = "map")]
    pub(crate) annotation: Vec<String>,
    /// Attach to STDIN, STDOUT or STDERR
    #[arg(long, short = 'a', action = Append, value_parser = super::values::stream_name)]
    pub(crate) attach: Vec<String>,
    /// Relative weight for block I/O, 10 to 1000, or 0 for none
    #[arg(long, value_name = "uint16", default_value_t = 0)]
    pub(crate) blkio_weight: u16,
    /// Relative weight for block I/O on a device (path:weight)
    #[arg(long, action = Append, value_parser = resources::weight_device)]
    pub(crate) blkio_weight_device: Vec<WeightDevice>,
    /// Add Linux capabilities
    #[arg(long, action = Append)]
    pub(crate) cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long, action = Append)]
    pub(crate) cap_drop: Vec<String>,
    /// Parent cgroup of the container
    #[arg(long, default_value = "")]
    pub(crate) cgroup_parent: String,
    /// Cgroup namespace: host, private, or the daemon's default
    #[arg(long, default_value = "")]
    pub(crate) cgroupns: String,
    /// Write the container's ID to a file
    #[arg(long, default_value = "")]
    pub(crate) cidfile: String,
    /// CPU count (Windows only)
    #[arg(long, value_name = "int", value_parser = int, default_value = "0")]
    pub(crate) cpu_count: i64,
    /// CPU percent (Windows only)
    #[arg(long, value_name = "int", value_parser = int, default_value = "0")]
    pub(crate) cpu_percent: i64,
    /// Period of the CPU limit in microseconds
    #[arg(long, value_name = "int", value_parser = int, default_value = "0")]
    pub(crate) cpu_period: i64,
    /// CPU time in each period in microseconds
    #[arg(long, value_name = "int", value_parser = int, default_value = "0")]
    pub(crate) cpu_quota: i64,
    /// Period of the real-time limit in microseconds
    #[arg(long, value_name = "int", value_parser = int, default_value = "0")]
    pub(crate) cpu_rt_period: i64,
    /// Real-time CPU time in each period in microseconds
    #[arg(long, value_name = "int", value_parser = int, default_value = "0")]
    pub(crate) cpu_rt_runtime: i64,
    /// Relative weight for CPU time
    #[arg(long, short = 'c', value_name = "int", value_parser = int, default_value = "0")]
    pub(crate) cpu_shares: i64,
    /// Number of CPUs
    #[arg(long, value_name = "decimal", value_parser = cpus, default_value = "0")]
    pub(crate) cpus: i64,
    /// CPUs on which it may run (0-3, 0,1)
    #[arg(long, default_value = "")]
    pub(crate) cpuset_cpus: String,
    /// Memory nodes that it may use (0-3, 0,1)
    #[arg(long, default_value = "")]
    pub(crate) cpuset_mems: String,
    /// Give a device of the host to the container
    #[arg(long, action = Append)]
    pub(crate) device: Vec<String>,
    /// Add a rule to the cgroup's list of devices
    #[arg(long, action = Append)]
    pub(crate) device_cgroup_rule: Vec<String>,
    /// Limit the read rate of a device (path:bytes a second)
    #[arg(long, action = Append, value_parser = resources::bps_device)]
    pub(crate) device_read_bps: Vec<ThrottleDevice>,
    /// Limit the read rate of a device (path:operations a second)
    #[arg(long, action = Append, value_parser = resources::iops_device)]
    pub(crate) device_read_iops: Vec<ThrottleDevice>,
    /// Limit the write rate of a device (path:bytes a second)
    #[arg(long, action = Append, value_parser = resources::bps_device)]
    pub(crate) device_write_bps: Vec<ThrottleDevice>,
    /// Limit the write rate of a device (path:operations a second)
    #[arg(long, action = Append, value_parser = resources::iops_device)]
    pub(crate) device_write_iops: Vec<ThrottleDevice>,
    #[arg(long, hide = true)]
    pub(crate) disable_content_trust: bool,
    /// DNS servers of the container
    #[arg(long, action = Append, value_parser = super::values::ip_address)]
    pub(crate) dns: Vec<String>,
    /// DNS options of the container
    #[arg(long, alias = "dns-opt", action = Append)]
    pub(crate) dns_option: Vec<String>,
    /// DNS search domains of the container
    #[arg(long, action = Append)]
    pub(crate) dns_search: Vec<String>,
    /// NIS domain name of the container
    #[arg(long, default_value = "")]
    pub(crate) domainname: String,
    /// Use this instead of the image's ENTRYPOINT
    #[arg(long)]
    pub(crate) entrypoint: Option<String>,
    /// Set an environment variable
    #[arg(long, short = 'e', action = Append)]
    pub(crate) env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, action = Append)]
    pub(crate) env_file: Vec<String>,
    /// Expose a port or a range of ports
    #[arg(long, action = Append)]
    pub(crate) expose: Vec<String>,
    /// GPUs to give to the container ('all' for all)
    #[arg(long, value_name = "gpu-request", action = Append, value_parser = resources::gpus)]
    pub(crate) gpus: Vec<DeviceRequest>,
    /// Further groups of the user
    #[arg(long, action = Append)]
    pub(crate) group_add: Vec<String>,
    /// Command that checks the health
    #[arg(long, default_value = "")]
    pub(crate) health_cmd: String,
    /// Time between two checks (ms|s|m|h)
    #[arg(long, value_name = "duration", value_parser = float_duration, default_value = "0s")]
    pub(crate) health_interval: i64,
    /// What dockerd-lite does to an unhealthy container ("none", "kill", "restart", "stop")
    #[arg(long, default_value = "")]
    pub(crate) health_on_failure: String,
    /// Failures in a row that mean unhealthy
    #[arg(long, value_name = "int", value_parser = int, default_value = "0")]
    pub(crate) health_retries: i64,
    /// Time between two checks while it starts (ms|s|m|h)
    #[arg(long, value_name = "duration", value_parser = float_duration, default_value = "0s")]
    pub(crate) health_start_interval: i64,
    /// Time to start before failures count (ms|s|m|h)
    #[arg(long, value_name = "duration", value_parser = float_duration, default_value = "0s")]
    pub(crate) health_start_period: i64,
    /// Longest time that a check may take (ms|s|m|h)
    #[arg(long, value_name = "duration", value_parser = float_duration, default_value = "0s")]
    pub(crate) health_timeout: i64,
    /// Host name of the container
    #[arg(long, short = 'h', default_value = "")]
    pub(crate) hostname: String,
    /// Run a small init that forwards signals and reaps processes
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) init: Option<bool>,
    /// Keep STDIN open even if not attached
    #[arg(long, short = 'i')]
    pub(crate) interactive: bool,
    /// I/O bandwidth limit (Windows only)
    #[arg(long, value_name = "bytes", value_parser = byte_size, default_value = "0")]
    pub(crate) io_maxbandwidth: i64,
    /// I/O operations limit (Windows only)
    #[arg(long, value_name = "uint", default_value_t = 0)]
    pub(crate) io_maxiops: u64,
    /// IPv4 address
    #[arg(long, default_value = "")]
    pub(crate) ip: String,
    /// IPv6 address
    #[arg(long, default_value = "")]
    pub(crate) ip6: String,
    /// IPC namespace to use
    #[arg(long, default_value = "")]
    pub(crate) ipc: String,
    /// Isolation technology (Windows only)
    #[arg(long, default_value = "")]
    pub(crate) isolation: String,
    /// Kernel memory limit (no longer supported by kernels)
    #[arg(long, value_name = "bytes", value_parser = byte_size, default_value = "0")]
    pub(crate) kernel_memory: i64,
    /// Set a label
    #[arg(long, short = 'l', action = Append, value_parser = super::env::label)]
    pub(crate) label: Vec<String>,
    /// Read labels from a file
    #[arg(long, action = Append)]
    pub(crate) label_file: Vec<String>,
    /// Link to another container
    #[arg(long, action = Append)]
    pub(crate) link: Vec<String>,
    /// Link-local addresses
    #[arg(long, action = Append)]
    pub(crate) link_local_ip: Vec<String>,
    /// Logging driver
    #[arg(long, default_value = "")]
    pub(crate) log_driver: String,
    /// Options of the logging driver
    #[arg(long, action = Append)]
    pub(crate) log_opt: Vec<String>,
    /// MAC address
    #[arg(long, default_value = "")]
    pub(crate) mac_address: String,
    /// Memory limit
    #[arg(long, short = 'm', value_name = "bytes", value_parser = byte_size, default_value = "0")]
    pub(crate) memory: i64,
    /// Memory to leave it when memory is scarce
    #[arg(long, value_name = "bytes", value_parser = byte_size, default_value = "0")]
    pub(crate) memory_reservation: i64,
    /// Limit of memory and swap together: '-1' for unlimited swap
    #[arg(long, value_name = "bytes", value_parser = swap_size, default_value = "0")]
    pub(crate) memory_swap: i64,
    /// Readiness to swap (0 to 100)
    #[arg(long, value_name = "int", value_parser = int, default_value = "-1")]
    pub(crate) memory_swappiness: i64,
    /// Mount a file system into the container
    #[arg(long, value_name = "mount", action = Append, value_parser = super::mounts::parse_mount)]
    pub(crate) mount: Vec<proto::engine::Mount>,
    /// Connect the container to a network
    #[arg(long, alias = "net", value_name = "network", action = Append, value_parser = super::network::parse)]
    pub(crate) network: Vec<super::network::Attachment>,
    /// Further name of the container on its network
    #[arg(long, alias = "net-alias", action = Append)]
    pub(crate) network_alias: Vec<String>,
    /// No health check, whatever the image says
    #[arg(long)]
    pub(crate) no_healthcheck: bool,
    /// Do not kill on lack of memory
    #[arg(long)]
    pub(crate) oom_kill_disable: bool,
    /// How readily it is killed on lack of memory (-1000 to 1000)
    #[arg(long, value_name = "int", value_parser = int, default_value = "0")]
    pub(crate) oom_score_adj: i64,
    /// PID namespace to use
    #[arg(long, default_value = "")]
    pub(crate) pid: String,
    /// Limit of processes (-1 for none)
    #[arg(long, value_name = "int", value_parser = int, default_value = "0")]
    pub(crate) pids_limit: i64,
    /// Platform of the image
    #[arg(long, default_value = "")]
    pub(crate) platform: String,
    /// Give the container all privileges
    #[arg(long)]
    pub(crate) privileged: bool,
    /// Publish ports of the container on the host
    #[arg(long, short = 'p', action = Append)]
    pub(crate) publish: Vec<String>,
    /// Publish all exposed ports on ports that are free
    #[arg(long, short = 'P')]
    pub(crate) publish_all: bool,
    /// Pull the image before running ("always", "missing", "never")
    #[arg(long, default_value = "missing")]
    pub(crate) pull: String,
    /// Do not show the progress of the pull
    #[arg(long, short = 'q')]
    pub(crate) quiet: bool,
    /// Mount the root file system read only
    #[arg(long)]
    pub(crate) read_only: bool,
    /// When to restart the container after it has ended
    #[arg(long, default_value = "no")]
    pub(crate) restart: String,
    /// Remove the container and its anonymous volumes when it ends
    #[arg(long)]
    pub(crate) rm: bool,
    /// Runtime to use
    #[arg(long, default_value = "")]
    pub(crate) runtime: String,
    /// Security options
    #[arg(long, action = Append)]
    pub(crate) security_opt: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "bytes", value_parser = byte_size, default_value = "0")]
    pub(crate) shm_size: i64,
    /// Signal that stops the container
    #[arg(long, default_value = "")]
    pub(crate) stop_signal: String,
    /// Seconds between that signal and the kill
    #[arg(long, value_name = "int", value_parser = int)]
    pub(crate) stop_timeout: Option<i64>,
    /// Options of the storage driver
    #[arg(long, action = Append)]
    pub(crate) storage_opt: Vec<String>,
    /// Kernel settings of the container's namespaces
    #[arg(long, value_name = "map", action = Append, value_parser = super::values::sysctl)]
    pub(crate) sysctl: Vec<String>,
    /// Mount a tmpfs
    #[arg(long, action = Append)]
    pub(crate) tmpfs: Vec<String>,
    /// Give the process a terminal
    #[arg(long, short = 't')]
    pub(crate) tty: bool,
    /// Resource limits of the process (name=soft[:hard])
    #[arg(long, value_name = "ulimit", action = Append, value_parser = resources::ulimit)]
    pub(crate) ulimit: Vec<Ulimit>,
    /// User and group (format: <name|uid>[:<group|gid>])
    #[arg(long, short = 'u', default_value = "")]
    pub(crate) user: String,
    /// User namespace to use
    #[arg(long, default_value = "")]
    pub(crate) userns: String,
    /// UTS namespace to use
    #[arg(long, default_value = "")]
    pub(crate) uts: String,
    /// Mount a volume or a folder of the host
    #[arg(long, short = 'v', action = Append)]
    pub(crate) volume: Vec<String>,
    /// Driver of the volumes that are made
    #[arg(long, default_value = "")]
    pub(crate) volume_driver: String,
    /// Mount the volumes of another container
    #[arg(long, action = Append)]
    pub(crate) volumes_from: Vec<String>,
    /// Working directory of the process
    #[arg(long, short = 'w', default_value = "")]
    pub(crate) workdir: String,
}
