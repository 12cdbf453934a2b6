//! What was asked for, by flags and by daemon.json, made into one checked [`Config`]. Nothing else reads the environment.
//!
//! Flags carry dockerd's names and meanings; so do the keys of the file, and an unknown key is an error. An option given in
//! both places is an error too, as dockerd has it: neither place silently wins.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Parser;
use serde::Deserialize;

use crate::error::{Error, Result};

/// The Docker Engine API over containerd.
#[derive(Debug, Clone, Default, Parser)]
#[command(name = "dockerd-lite", disable_version_flag = true)]
pub(crate) struct Flags {
    /// Daemon configuration file [default: /etc/docker/daemon.json]
    #[arg(long, value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// Root directory of persistent state [default: /var/lib/docker-lite]
    #[arg(long, value_name = "DIR")]
    data_root: Option<PathBuf>,
    /// Root directory of state that is lost at reboot [default: /run/docker-lite]
    #[arg(long, value_name = "DIR")]
    exec_root: Option<PathBuf>,
    /// File that holds the process id [default: EXEC-ROOT/docker.pid]
    #[arg(short, long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// Socket to listen on, may be repeated [default: unix:///var/run/docker.sock]
    #[arg(short = 'H', long = "host", value_name = "ADDRESS")]
    hosts: Vec<String>,
    /// Group of the unix socket [default: docker]
    #[arg(short = 'G', long, value_name = "GROUP")]
    group: Option<String>,
    /// Socket of a running containerd; without it an own containerd-lite is started
    #[arg(long, value_name = "SOCKET")]
    containerd: Option<PathBuf>,
    /// Namespace in containerd [default: moby]
    #[arg(long, value_name = "NAME")]
    containerd_namespace: Option<String>,
    /// Register an OCI runtime: NAME=PATH, may be repeated
    #[arg(long, value_name = "NAME=PATH")]
    add_runtime: Vec<String>,
    /// Runtime of containers that name none [default: runc-lite]
    #[arg(long, value_name = "NAME")]
    default_runtime: Option<String>,
    /// Logging level: debug, info, warn, error, fatal [default: info]
    #[arg(short, long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Debug mode
    #[arg(short = 'D', long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    debug: Option<bool>,
    /// Bridge of the default network; `none` switches it off
    #[arg(short, long, value_name = "NAME")]
    bridge: Option<String>,
    /// Address of the default bridge, as CIDR
    #[arg(long, value_name = "CIDR")]
    bip: Option<String>,
    /// Make packet filter rules [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    iptables: Option<bool>,
    /// Switch IP forwarding on [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    ip_forward: Option<bool>,
    /// Masquerade what leaves the bridge [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    ip_masq: Option<bool>,
    /// Let containers of the default bridge talk to each other [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    icc: Option<bool>,
    /// Keep containers running while the daemon is away: always on here, accepted for compatibility
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    live_restore: Option<bool>,
    /// Userland proxy for loopback traffic: accepted, ports are not published yet
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    userland_proxy: Option<bool>,
    /// Mirror of Docker Hub, may be repeated
    #[arg(long, value_name = "URL")]
    registry_mirror: Vec<String>,
    /// Registry that may be spoken to without verified TLS, may be repeated
    #[arg(long, value_name = "HOST[:PORT]|CIDR")]
    insecure_registry: Vec<String>,
    /// Label of the daemon, may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// DNS server of containers, may be repeated
    #[arg(long, value_name = "IP")]
    dns: Vec<String>,
    /// DNS option of containers, may be repeated
    #[arg(long = "dns-opt", alias = "dns-option", value_name = "OPTION")]
    dns_opt: Vec<String>,
    /// DNS search domain of containers, may be repeated
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// MTU of container networks [default: 1500]
    #[arg(long, value_name = "N")]
    mtu: Option<u32>,
    /// Seconds given to containers when the host shuts down: accepted, of no effect yet
    #[arg(long, value_name = "SECONDS")]
    shutdown_timeout: Option<u64>,
    /// Default log driver: json-file or none [default: json-file]
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// Default log option, may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    log_opt: Vec<String>,
    /// Snapshotter of containerd [default: overlayfs]
    #[arg(short, long, value_name = "NAME")]
    storage_driver: Option<String>,
    /// Parent cgroup of containers [default: /docker]
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// Default size of /dev/shm [default: 64m]
    #[arg(long, value_name = "SIZE")]
    default_shm_size: Option<String>,
    /// Default ulimit, may be repeated
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    default_ulimit: Vec<String>,
    /// Default IPC mode: private or shareable [default: private]
    #[arg(long, value_name = "MODE")]
    default_ipc_mode: Option<String>,
    /// Check the configuration and end
    #[arg(long)]
    validate: bool,
    /// Print version information and end
    #[arg(short, long)]
    version: bool,
}

impl Flags {
    /// Whether only the version is wanted.
    pub(crate) fn version(&self) -> bool {
        self.version
    }
    /// Whether only a check of the configuration is wanted.
    pub(crate) fn validate(&self) -> bool {
        self.validate
    }
}

/// daemon.json.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct File {
    data_root: Option<PathBuf>,
    exec_root: Option<PathBuf>,
    pidfile: Option<PathBuf>,
    hosts: Vec<String>,
    group: Option<String>,
    containerd: Option<PathBuf>,
    containerd_namespace: Option<String>,
    runtimes: BTreeMap<String, FileRuntime>,
    default_runtime: Option<String>,
    log_level: Option<String>,
    debug: Option<bool>,
    bridge: Option<String>,
    bip: Option<String>,
    iptables: Option<bool>,
    ip_forward: Option<bool>,
    ip_masq: Option<bool>,
    icc: Option<bool>,
    live_restore: Option<bool>,
    userland_proxy: Option<bool>,
    registry_mirrors: Vec<String>,
    insecure_registries: Vec<String>,
    labels: Vec<String>,
    dns: Vec<String>,
    dns_opts: Vec<String>,
    dns_search: Vec<String>,
    mtu: Option<u32>,
    shutdown_timeout: Option<u64>,
    log_driver: Option<String>,
    log_opts: BTreeMap<String, String>,
    storage_driver: Option<String>,
    cgroup_parent: Option<String>,
    default_shm_size: Option<String>,
    default_ulimits: BTreeMap<String, FileUlimit>,
    default_ipc_mode: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct FileRuntime {
    path: Option<String>,
    runtime_type: Option<String>,
    runtime_args: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase", default)]
struct FileUlimit {
    name: String,
    soft: i64,
    hard: i64,
}

/// A runtime that containers may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Runtime {
    /// containerd's runtime type.
    pub(crate) kind: String,
    /// The OCI runtime that the shim shall run; none leaves it to the shim.
    pub(crate) path: Option<String>,
}

/// A resource limit of the process kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ulimit {
    pub(crate) name: String,
    pub(crate) soft: i64,
    pub(crate) hard: i64,
}

/// Everything that was decided before the daemon starts.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) data_root: PathBuf,
    pub(crate) exec_root: PathBuf,
    pub(crate) pidfile: PathBuf,
    pub(crate) hosts: Vec<String>,
    /// The group as given; none means `docker` if it exists.
    pub(crate) group: Option<String>,
    /// A containerd that somebody else runs.
    pub(crate) containerd: Option<PathBuf>,
    pub(crate) namespace: String,
    pub(crate) runtimes: BTreeMap<String, Runtime>,
    pub(crate) default_runtime: String,
    pub(crate) log_level: String,
    pub(crate) debug: bool,
    pub(crate) bridge: Option<String>,
    pub(crate) bip: Option<String>,
    pub(crate) iptables: bool,
    pub(crate) ip_forward: bool,
    pub(crate) ip_masq: bool,
    pub(crate) icc: bool,
    pub(crate) registry_mirrors: Vec<String>,
    pub(crate) insecure_registries: Vec<String>,
    pub(crate) labels: Vec<String>,
    pub(crate) dns: Vec<String>,
    pub(crate) dns_opts: Vec<String>,
    pub(crate) dns_search: Vec<String>,
    pub(crate) mtu: u32,
    pub(crate) log_driver: String,
    pub(crate) log_opts: BTreeMap<String, String>,
    pub(crate) snapshotter: String,
    pub(crate) cgroup_parent: String,
    pub(crate) shm_size: i64,
    pub(crate) default_ulimits: Vec<Ulimit>,
    pub(crate) ipc_mode: String,
    /// The service manager's socket.
    pub(crate) notify: Option<std::ffi::OsString>,
}

/// Name of the runtime that is always there: our shim with the runtime it finds.
pub(crate) const RUNTIME: &str = "runc-lite";

impl Config {
    /// Reads the file that the flags name, if there is one, and joins both.
    pub(crate) fn load(flags: &Flags) -> Result<Self> {
        let default = Path::new("/etc/docker/daemon.json");
        let path = flags.config_file.as_deref().unwrap_or(default);
        let file = match std::fs::read_to_string(path) {
            Ok(text) => parse(path, &text)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && flags.config_file.is_none() => {
                File::default()
            }
            Err(e) => return Err(Error::invalid(format!("read {}: {e}", path.display()))),
        };
        let mut config = join(flags.clone(), file)?;
        config.notify = std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty());
        Ok(config)
    }

    /// Where the records of this daemon lie.
    pub(crate) fn records(&self) -> PathBuf {
        self.data_root.join("records.db")
    }

    /// Where the files of a container lie.
    pub(crate) fn container_dir(&self, id: &str) -> PathBuf {
        self.data_root.join("containers").join(id)
    }
}

fn parse(path: &Path, text: &str) -> Result<File> {
    if text.trim().is_empty() {
        return Ok(File::default());
    }
    serde_json::from_str(text).map_err(|e| {
        Error::invalid(format!(
            "unable to configure the daemon with file {}: {e}",
            path.display()
        ))
    })
}

/// One option that may stand in either place, not in both.
fn either<T>(name: &str, flag: Option<T>, file: Option<T>) -> Result<Option<T>> {
    match (flag, file) {
        (Some(_), Some(_)) => Err(both(name)),
        (flag, file) => Ok(flag.or(file)),
    }
}

/// One list that may stand in either place, not in both.
fn one_list<T>(name: &str, flag: Vec<T>, file: Vec<T>) -> Result<Vec<T>> {
    match (flag.is_empty(), file.is_empty()) {
        (false, false) => Err(both(name)),
        (false, true) => Ok(flag),
        _ => Ok(file),
    }
}

fn both(name: &str) -> Error {
    Error::invalid(format!(
        "the following directives are specified both as a flag and in the configuration file: {name}"
    ))
}

fn join(flags: Flags, file: File) -> Result<Config> {
    let root = "/var/lib/docker-lite";
    let exec_root = either("exec-root", flags.exec_root, file.exec_root)?
        .unwrap_or_else(|| "/run/docker-lite".into());
    let data_root =
        either("data-root", flags.data_root, file.data_root)?.unwrap_or_else(|| root.into());
    for (name, path) in [("data-root", &data_root), ("exec-root", &exec_root)] {
        if !path.is_absolute() {
            return Err(Error::invalid(format!(
                "{name} {} is not an absolute path",
                path.display()
            )));
        }
    }
    let pidfile = either("pidfile", flags.pidfile, file.pidfile)?
        .unwrap_or_else(|| exec_root.join("docker.pid"));
    let mut hosts = one_list("hosts", flags.hosts, file.hosts)?;
    if hosts.is_empty() {
        hosts.push("unix:///var/run/docker.sock".into());
    }
    let debug = either("debug", flags.debug, file.debug)?.unwrap_or(false);
    let log_level = either("log-level", flags.log_level, file.log_level)?.unwrap_or("info".into());
    if !["trace", "debug", "info", "warn", "error", "fatal"].contains(&log_level.as_str()) {
        return Err(Error::invalid(format!(
            "log level {log_level:?} is unknown"
        )));
    }
    let log_opts = one_list(
        "log-opts",
        key_values("log-opt", &flags.log_opt)?,
        file.log_opts.into_iter().collect(),
    )?;
    let runtimes = runtimes(&flags.add_runtime, file.runtimes)?;
    let default_runtime = either(
        "default-runtime",
        flags.default_runtime,
        file.default_runtime,
    )?
    .unwrap_or(RUNTIME.into());
    if !runtimes.contains_key(&default_runtime) {
        return Err(Error::invalid(format!(
            "default runtime {default_runtime:?} is not registered"
        )));
    }
    let log_driver =
        either("log-driver", flags.log_driver, file.log_driver)?.unwrap_or("json-file".into());
    crate::logs::check(
        &log_driver,
        log_opts.iter().map(|(k, v)| (k.as_str(), v.as_str())),
    )?;
    let shm = either(
        "default-shm-size",
        flags.default_shm_size,
        file.default_shm_size,
    )?;
    let ipc_mode = either(
        "default-ipc-mode",
        flags.default_ipc_mode,
        file.default_ipc_mode,
    )?
    .unwrap_or("private".into());
    if !["private", "shareable"].contains(&ipc_mode.as_str()) {
        return Err(Error::invalid(format!(
            "default ipc mode {ipc_mode:?} is neither private nor shareable"
        )));
    }
    // Live restore is always in effect; a configuration that asks for it or against it changes nothing.
    either("live-restore", flags.live_restore, file.live_restore)?;
    // Of no effect yet: ports are not published, and no unit stops all containers.
    either("userland-proxy", flags.userland_proxy, file.userland_proxy)?;
    either(
        "shutdown-timeout",
        flags.shutdown_timeout,
        file.shutdown_timeout,
    )?;
    Ok(Config {
        data_root,
        exec_root,
        pidfile,
        hosts,
        group: either("group", flags.group, file.group)?,
        containerd: either("containerd", flags.containerd, file.containerd)?,
        namespace: either(
            "containerd-namespace",
            flags.containerd_namespace,
            file.containerd_namespace,
        )?
        .unwrap_or("moby".into()),
        runtimes,
        default_runtime,
        log_level: if debug { "debug".into() } else { log_level },
        debug,
        bridge: either("bridge", flags.bridge, file.bridge)?,
        bip: either("bip", flags.bip, file.bip)?,
        iptables: either("iptables", flags.iptables, file.iptables)?.unwrap_or(true),
        ip_forward: either("ip-forward", flags.ip_forward, file.ip_forward)?.unwrap_or(true),
        ip_masq: either("ip-masq", flags.ip_masq, file.ip_masq)?.unwrap_or(true),
        icc: either("icc", flags.icc, file.icc)?.unwrap_or(true),
        registry_mirrors: one_list(
            "registry-mirrors",
            flags.registry_mirror,
            file.registry_mirrors,
        )?,
        insecure_registries: one_list(
            "insecure-registries",
            flags.insecure_registry,
            file.insecure_registries,
        )?,
        labels: one_list("labels", flags.label, file.labels)?,
        dns: one_list("dns", flags.dns, file.dns)?,
        dns_opts: one_list("dns-opts", flags.dns_opt, file.dns_opts)?,
        dns_search: one_list("dns-search", flags.dns_search, file.dns_search)?,
        mtu: either("mtu", flags.mtu, file.mtu)?.unwrap_or(1500),
        log_driver,
        log_opts: log_opts.into_iter().collect(),
        snapshotter: snapshotter(either(
            "storage-driver",
            flags.storage_driver,
            file.storage_driver,
        )?),
        cgroup_parent: either("cgroup-parent", flags.cgroup_parent, file.cgroup_parent)?
            .unwrap_or("/docker".into()),
        shm_size: match shm {
            None => 64 << 20,
            Some(text) => parse_size(&text)
                .ok_or_else(|| Error::invalid(format!("default shm size {text:?} is no size")))?,
        },
        default_ulimits: ulimits(&flags.default_ulimit, file.default_ulimits)?,
        ipc_mode,
        notify: None,
    })
}

/// dockerd's graph driver names of old mean the snapshotter that took their place.
fn snapshotter(name: Option<String>) -> String {
    match name.as_deref() {
        None | Some("overlay2" | "overlay") => "overlayfs".into(),
        Some("vfs") => "native".into(),
        Some(other) => other.into(),
    }
}

fn key_values(what: &str, given: &[String]) -> Result<Vec<(String, String)>> {
    given
        .iter()
        .map(|text| match text.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(Error::invalid(format!("{what} {text:?} is not KEY=VALUE"))),
        })
        .collect()
}

fn runtimes(
    added: &[String],
    file: BTreeMap<String, FileRuntime>,
) -> Result<BTreeMap<String, Runtime>> {
    let own = |path: Option<String>| Runtime {
        kind: proto::layout::RUNTIME_TYPE_ALIAS.into(),
        path,
    };
    let mut all = BTreeMap::from([(RUNTIME.to_owned(), own(None))]);
    for (name, given) in file {
        if !given.runtime_args.is_empty() {
            return Err(Error::invalid(format!(
                "runtime {name}: runtimeArgs are not supported"
            )));
        }
        let runtime = match (given.path, given.runtime_type) {
            (Some(_), Some(_)) => {
                return Err(Error::invalid(format!(
                    "runtime {name}: path and runtimeType exclude each other"
                )));
            }
            (Some(path), None) => own(Some(path)),
            (None, Some(kind)) => Runtime { kind, path: None },
            (None, None) => {
                return Err(Error::invalid(format!(
                    "runtime {name}: either path or runtimeType is needed"
                )));
            }
        };
        all.insert(name, runtime);
    }
    for (name, path) in key_values("add-runtime", added)? {
        if all.insert(name.clone(), own(Some(path))).is_some() {
            return Err(Error::invalid(format!(
                "runtime {name} is already registered"
            )));
        }
    }
    Ok(all)
}

fn ulimits(flags: &[String], file: BTreeMap<String, FileUlimit>) -> Result<Vec<Ulimit>> {
    let given = flags
        .iter()
        .map(|text| {
            let bad = || Error::invalid(format!("ulimit {text:?} is not NAME=SOFT[:HARD]"));
            let (name, limits) = text.split_once('=').ok_or_else(bad)?;
            let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
            let number = |s: &str| s.parse::<i64>().map_err(|_| bad());
            Ok(Ulimit {
                name: name.to_owned(),
                soft: number(soft)?,
                hard: number(hard)?,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let file = file
        .into_iter()
        .map(|(key, u)| Ulimit {
            name: if u.name.is_empty() { key } else { u.name },
            soft: u.soft,
            hard: u.hard,
        })
        .collect();
    one_list("default-ulimits", given, file)
}

/// A size as Docker writes it: `64m`, `1GiB`, `512`; binary multiples.
pub(crate) fn parse_size(text: &str) -> Option<i64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = lower.split_at(digits.unwrap_or(lower.len()));
    let shift = match unit.trim_start() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(1i64 << shift);
    }
    let value = number.parse::<f64>().ok()? * (1i64 << shift) as f64;
    (value.is_finite() && value < i64::MAX as f64).then_some(value as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(args: &[&str]) -> Flags {
        Flags::parse_from(std::iter::once(&"dockerd-lite").chain(args))
    }

    fn load(args: &[&str], json: &str) -> Result<Config> {
        join(flags(args), parse(Path::new("daemon.json"), json)?)
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let config = load(&[], "").unwrap();
        assert_eq!(config.data_root, Path::new("/var/lib/docker-lite"));
        assert_eq!(config.hosts, ["unix:///var/run/docker.sock"]);
        assert_eq!(config.default_runtime, RUNTIME);
        assert_eq!(config.shm_size, 64 << 20);
        assert!(config.iptables && config.icc && !config.debug);
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let error = load(&[], r#"{"no-such-key": 1}"#).unwrap_err();
        assert!(error.message().contains("no-such-key"), "{error}");
    }

    #[test]
    fn an_option_in_both_places_is_an_error() {
        for (args, json) in [
            (vec!["--debug"], r#"{"debug": false}"#),
            (vec!["-H", "unix:///a"], r#"{"hosts": ["unix:///b"]}"#),
        ] {
            assert!(load(&args, json).is_err(), "{args:?}");
        }
        assert!(load(&["--debug"], r#"{"icc": false}"#).is_ok());
    }

    #[test]
    fn booleans_are_written_as_docker_has_them() {
        assert!(!load(&["--iptables=false"], "").unwrap().iptables);
        assert!(load(&["-D"], "").unwrap().debug);
    }

    #[test]
    fn sizes() {
        for (text, size) in [
            ("64m", 64 << 20),
            ("1GiB", 1 << 30),
            ("12", 12),
            ("1.5k", 1536),
            ("10 MB", 10 << 20),
        ] {
            assert_eq!(parse_size(text), Some(size), "{text}");
        }
        for bad in ["", "x", "1q", "-1", "99999999999999p"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }
}
