//! What was given: the flags, and the keys of daemon.json. Nothing is decided here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Parser;
use serde::Deserialize;

/// The Docker Engine API over containerd.
#[derive(Debug, Clone, Default, Parser)]
#[command(name = "dockerd-lite", disable_version_flag = true)]
pub(crate) struct Flags {
    /// Daemon configuration file [default: /etc/docker/daemon.json]
    #[arg(long, value_name = "FILE")]
    pub(super) config_file: Option<PathBuf>,
    /// Root directory of persistent state [default: /var/lib/docker-lite]
    #[arg(long, value_name = "DIR")]
    pub(super) data_root: Option<PathBuf>,
    /// Root directory of state that is lost at reboot [default: /run/docker-lite]
    #[arg(long, value_name = "DIR")]
    pub(super) exec_root: Option<PathBuf>,
    /// File that holds the process id [default: EXEC-ROOT/docker.pid]
    #[arg(short, long, value_name = "FILE")]
    pub(super) pidfile: Option<PathBuf>,
    /// Socket to listen on, may be repeated [default: unix:///var/run/docker.sock]
    #[arg(short = 'H', long = "host", value_name = "ADDRESS")]
    pub(super) hosts: Vec<String>,
    /// Group of the unix socket [default: docker]
    #[arg(short = 'G', long, value_name = "GROUP")]
    pub(super) group: Option<String>,
    /// Socket of a running containerd; without it an own containerd-lite is started
    #[arg(long, value_name = "SOCKET")]
    pub(super) containerd: Option<PathBuf>,
    /// Namespace in containerd [default: moby]
    #[arg(long, value_name = "NAME")]
    pub(super) containerd_namespace: Option<String>,
    /// Register an OCI runtime: NAME=PATH, may be repeated
    #[arg(long, value_name = "NAME=PATH")]
    pub(super) add_runtime: Vec<String>,
    /// Runtime of containers that name none [default: runc-lite]
    #[arg(long, value_name = "NAME")]
    pub(super) default_runtime: Option<String>,
    /// Logging level: debug, info, warn, error, fatal [default: info]
    #[arg(short, long, value_name = "LEVEL")]
    pub(super) log_level: Option<String>,
    /// Debug mode
    #[arg(short = 'D', long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) debug: Option<bool>,
    /// Bridge of the default network; `none` switches it off
    #[arg(short, long, value_name = "NAME")]
    pub(super) bridge: Option<String>,
    /// Address of the default bridge, as CIDR
    #[arg(long, value_name = "CIDR")]
    pub(super) bip: Option<String>,
    /// Make packet filter rules [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) iptables: Option<bool>,
    /// Addresses of containers on the default bridge, as CIDR within its subnet
    #[arg(long, value_name = "CIDR")]
    pub(super) fixed_cidr: Option<String>,
    /// Where networks get subnets: base=CIDR,size=BITS, may be repeated
    #[arg(long, value_name = "POOL")]
    pub(super) default_address_pool: Vec<String>,
    /// Host address of published ports that name none [default: all]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) ip: Option<String>,
    /// What host-gateway of --add-host stands for [default: the default bridge's address]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) host_gateway_ip: Vec<String>,
    /// Lead published ports through the host's own rules for incoming packets [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) host_firewall: Option<bool>,
    /// Switch IP forwarding on [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) ip_forward: Option<bool>,
    /// Masquerade what leaves the bridge [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) ip_masq: Option<bool>,
    /// Let containers of the default bridge talk to each other [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) icc: Option<bool>,
    /// Keep containers running while the daemon is away: always on here, accepted for compatibility
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) live_restore: Option<bool>,
    /// Userland proxy for loopback traffic: accepted, ports are not published yet
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) userland_proxy: Option<bool>,
    /// Mirror of Docker Hub, may be repeated
    #[arg(long, value_name = "URL")]
    pub(super) registry_mirror: Vec<String>,
    /// Registry that may be spoken to without verified TLS, may be repeated
    #[arg(long, value_name = "HOST[:PORT]|CIDR")]
    pub(super) insecure_registry: Vec<String>,
    /// Label of the daemon, may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) label: Vec<String>,
    /// DNS server of containers, may be repeated
    #[arg(long, value_name = "IP")]
    pub(super) dns: Vec<String>,
    /// DNS option of containers, may be repeated
    #[arg(long = "dns-opt", alias = "dns-option", value_name = "OPTION")]
    pub(super) dns_opt: Vec<String>,
    /// DNS search domain of containers, may be repeated
    #[arg(long, value_name = "DOMAIN")]
    pub(super) dns_search: Vec<String>,
    /// MTU of container networks [default: 1500]
    #[arg(long, value_name = "N")]
    pub(super) mtu: Option<u32>,
    /// Seconds given to containers when the host shuts down: accepted, of no effect yet
    #[arg(long, value_name = "SECONDS")]
    pub(super) shutdown_timeout: Option<u64>,
    /// Default log driver: json-file or none [default: json-file]
    #[arg(long, value_name = "DRIVER")]
    pub(super) log_driver: Option<String>,
    /// Default log option, may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) log_opt: Vec<String>,
    /// Snapshotter of containerd [default: overlayfs]
    #[arg(short, long, value_name = "NAME")]
    pub(super) storage_driver: Option<String>,
    /// Parent cgroup of containers [default: /docker]
    #[arg(long, value_name = "PATH")]
    pub(super) cgroup_parent: Option<String>,
    /// Default size of /dev/shm [default: 64m]
    #[arg(long, value_name = "SIZE")]
    pub(super) default_shm_size: Option<String>,
    /// Default ulimit, may be repeated
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub(super) default_ulimit: Vec<String>,
    /// Default IPC mode: private or shareable [default: private]
    #[arg(long, value_name = "MODE")]
    pub(super) default_ipc_mode: Option<String>,
    /// Run an init in containers that do not say otherwise [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) init: Option<bool>,
    /// Program of that init, linked statically [default: runc-lite]
    #[arg(long, value_name = "FILE")]
    pub(super) init_path: Option<PathBuf>,
    /// Default cgroup namespace: private or host [default: private on cgroup v2]
    #[arg(long, value_name = "MODE")]
    pub(super) default_cgroupns_mode: Option<String>,
    /// Let no container gain privileges unless it says otherwise [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) no_new_privileges: Option<bool>,
    /// Default seccomp profile: a file, builtin or unconfined [default: builtin]
    #[arg(long, value_name = "FILE")]
    pub(super) seccomp_profile: Option<String>,
    /// Directory that describes devices (CDI), may be repeated [default: /etc/cdi, /var/run/cdi]
    #[arg(long, value_name = "DIR")]
    pub(super) cdi_spec_dir: Vec<PathBuf>,
    /// Option of the runtime's execution, may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) exec_opt: Vec<String>,
    /// Form of the daemon's messages: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub(super) log_format: Option<String>,
    /// Address on which Prometheus finds metrics
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(super) metrics_addr: Option<String>,
    /// Encrypt TCP sockets [default: false; implied by --tlsverify]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) tls: Option<bool>,
    /// Encrypt TCP sockets, and let in only clients with a certificate of the CA
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) tlsverify: Option<bool>,
    /// Certificates of the CA that clients are checked against [default: ~/.docker/ca.pem]
    #[arg(long, value_name = "FILE")]
    pub(super) tlscacert: Option<PathBuf>,
    /// The daemon's certificate [default: ~/.docker/cert.pem]
    #[arg(long, value_name = "FILE")]
    pub(super) tlscert: Option<PathBuf>,
    /// Its key [default: ~/.docker/key.pem]
    #[arg(long, value_name = "FILE")]
    pub(super) tlskey: Option<PathBuf>,
    /// Stop all containers, this installation's daemons and its network, then end; for the host's shutdown
    #[arg(long)]
    pub(super) stop_all: bool,
    /// Check the configuration and end
    #[arg(long)]
    pub(super) validate: bool,
    /// Print version information and end
    #[arg(short, long)]
    pub(super) version: bool,
}

impl Flags {
    /// Whether only the version is wanted.
    pub(crate) fn version(&self) -> bool {
        self.version
    }
    /// Whether everything is to be stopped.
    pub(crate) fn stop_all(&self) -> bool {
        self.stop_all
    }
    /// Whether messages for finding faults are wanted.
    pub(crate) fn wants_debug(&self) -> bool {
        self.debug == Some(true)
    }
    /// The exec-root of the command line.
    pub(crate) fn exec_root_given(&self) -> Option<PathBuf> {
        self.exec_root.clone()
    }
    /// Whether only a check of the configuration is wanted.
    pub(crate) fn validate(&self) -> bool {
        self.validate
    }
}

/// daemon.json.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct File {
    pub(super) data_root: Option<PathBuf>,
    pub(super) exec_root: Option<PathBuf>,
    pub(super) pidfile: Option<PathBuf>,
    pub(super) hosts: Vec<String>,
    pub(super) group: Option<String>,
    pub(super) containerd: Option<PathBuf>,
    pub(super) containerd_namespace: Option<String>,
    pub(super) runtimes: BTreeMap<String, FileRuntime>,
    pub(super) default_runtime: Option<String>,
    pub(super) log_level: Option<String>,
    pub(super) debug: Option<bool>,
    pub(super) bridge: Option<String>,
    pub(super) bip: Option<String>,
    pub(super) iptables: Option<bool>,
    pub(super) fixed_cidr: Option<String>,
    pub(super) default_address_pools: Vec<FilePool>,
    pub(super) ip: Option<String>,
    pub(super) host_gateway_ip: Option<String>,
    pub(super) host_firewall: Option<bool>,
    pub(super) ip_forward: Option<bool>,
    pub(super) ip_masq: Option<bool>,
    pub(super) icc: Option<bool>,
    pub(super) live_restore: Option<bool>,
    pub(super) userland_proxy: Option<bool>,
    pub(super) registry_mirrors: Vec<String>,
    pub(super) insecure_registries: Vec<String>,
    pub(super) labels: Vec<String>,
    pub(super) dns: Vec<String>,
    pub(super) dns_opts: Vec<String>,
    pub(super) dns_search: Vec<String>,
    pub(super) mtu: Option<u32>,
    pub(super) shutdown_timeout: Option<u64>,
    pub(super) log_driver: Option<String>,
    pub(super) log_opts: BTreeMap<String, String>,
    pub(super) storage_driver: Option<String>,
    pub(super) cgroup_parent: Option<String>,
    pub(super) default_shm_size: Option<String>,
    pub(super) default_ulimits: BTreeMap<String, FileUlimit>,
    pub(super) default_ipc_mode: Option<String>,
    pub(super) init: Option<bool>,
    pub(super) init_path: Option<PathBuf>,
    pub(super) default_cgroupns_mode: Option<String>,
    pub(super) no_new_privileges: Option<bool>,
    pub(super) seccomp_profile: Option<String>,
    pub(super) exec_opts: Vec<String>,
    pub(super) cdi_spec_dirs: Vec<PathBuf>,
    pub(super) log_format: Option<String>,
    pub(super) metrics_addr: Option<String>,
    pub(super) tls: Option<bool>,
    pub(super) tlsverify: Option<bool>,
    pub(super) tlscacert: Option<PathBuf>,
    pub(super) tlscert: Option<PathBuf>,
    pub(super) tlskey: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FilePool {
    pub(super) base: String,
    pub(super) size: u8,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct FileRuntime {
    pub(super) path: Option<String>,
    pub(super) runtime_type: Option<String>,
    pub(super) runtime_args: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase", default)]
pub(super) struct FileUlimit {
    pub(super) name: String,
    pub(super) soft: i64,
    pub(super) hard: i64,
}
