//! What was asked for, by flags and by daemon.json, made into one checked [`Config`]. Nothing else reads the environment.
//!
//! Flags carry dockerd's names and meanings; so do the keys of the file, and an unknown key is an error. An option given in
//! both places is an error too, as dockerd has it: neither place silently wins.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{During, Error, Result};
use crate::rootless::Rootless;

mod given;
mod network;
mod others;

pub(crate) use given::Flags;
use given::{File, FileRuntime, FileUlimit};

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
    pub(crate) network: network::NetworkOptions,
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
    /// Containers get an init unless they say otherwise.
    pub(crate) init: bool,
    /// The init's program; none means the one that is found.
    pub(crate) init_path: Option<PathBuf>,
    /// What `--stop-all` gives containers before it kills them.
    pub(crate) shutdown_timeout: std::time::Duration,
    /// How cgroup namespaces are when a container says nothing; none leaves it to the kernel's hierarchy.
    pub(crate) cgroupns_mode: Option<String>,
    /// Containers cannot gain privileges unless they say otherwise.
    pub(crate) no_new_privileges: bool,
    /// The seccomp profile of containers that name none, as JSON; none means the built-in one.
    pub(crate) seccomp_profile: Option<String>,
    /// Where devices are described that have a name.
    pub(crate) cdi_dirs: Vec<PathBuf>,
    /// Messages of the daemon are JSON.
    pub(crate) log_json: bool,
    /// Where metrics are served.
    pub(crate) metrics: Option<String>,
    /// How `tcp://` sockets are encrypted; none means not at all.
    pub(crate) tls: Option<Tls>,
    /// The service manager's socket.
    pub(crate) notify: Option<std::ffi::OsString>,
    /// What a rootless parent does for this daemon; none if there is none.
    pub(crate) rootless: Option<Rootless>,
}

/// Encryption of the daemon's TCP sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tls {
    /// Clients must show a certificate of this CA.
    pub(crate) verify: Option<PathBuf>,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// Name of the runtime that is always there: our shim with the runtime it finds.
pub(crate) const RUNTIME: &str = "runc-lite";

impl Config {
    /// Whether containers have cgroups: all but those of a rootless daemon that has been handed none.
    pub(crate) fn has_cgroups(&self) -> bool {
        self.rootless.as_ref().is_none_or(|r| r.cgroups)
    }

    /// Reads the file that the flags name, if there is one, and joins both.
    pub(crate) fn load(flags: &Flags) -> Result<Self> {
        let rootless = Rootless::of_environment()?;
        let defaults = Defaults::of(rootless.as_ref());
        let default = defaults.config_file.clone();
        let path = flags.config_file.as_deref().unwrap_or(&default);
        let file = match std::fs::read_to_string(path) {
            Ok(text) => parse(path, &text)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && flags.config_file.is_none() => {
                File::default()
            }
            Err(e) => return Err(Error::invalid(format!("read {}: {e}", path.display()))),
        };
        let mut config = join(flags.clone(), file, defaults)?;
        if rootless.is_some() {
            // Groups of the host are others in there.
            config.group.get_or_insert_default();
        }
        config.rootless = rootless;
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
    let what = |e: serde_json::Error| {
        Error::invalid(format!(
            "unable to configure the daemon with file {}: {e}",
            path.display()
        ))
    };
    let mut keys = serde_json::from_str(text).map_err(what)?;
    others::take_out(&mut keys).during(|| format!("file {}", path.display()))?;
    serde_json::from_value(serde_json::Value::Object(keys)).map_err(what)
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

/// What depends on who runs the daemon.
#[derive(Debug)]
struct Defaults {
    config_file: PathBuf,
    data_root: PathBuf,
    exec_root: PathBuf,
    host: String,
}

impl Defaults {
    fn of(rootless: Option<&Rootless>) -> Self {
        match rootless {
            None => Self {
                config_file: "/etc/docker/daemon.json".into(),
                data_root: "/var/lib/docker-lite".into(),
                exec_root: "/run/docker-lite".into(),
                host: "unix:///var/run/docker.sock".into(),
            },
            Some(user) => Self {
                config_file: user.config_home.join("docker/daemon.json"),
                // Not Docker's own: what a rootless dockerd has left there is not ours to read.
                data_root: user.data_home.join("docker-lite"),
                exec_root: user.runtime_dir.join("docker-lite"),
                host: format!("unix://{}", user.runtime_dir.join("docker.sock").display()),
            },
        }
    }
}

fn join(flags: Flags, file: File, defaults: Defaults) -> Result<Config> {
    let network = network::options(&flags, &file)?;
    let tls = tls(&flags, &file)?;
    let (data_root, exec_root) = roots(&flags, &file, &defaults)?;
    let mut hosts = hosts(one_list("hosts", flags.hosts, file.hosts)?, tls.is_some());
    if hosts.is_empty() {
        hosts.push(defaults.host);
    }
    let debug = either("debug", flags.debug, file.debug)?.unwrap_or(false);
    let log_level = word(
        "log level",
        either("log-level", flags.log_level, file.log_level)?,
        &["info", "trace", "debug", "warn", "error", "fatal"],
    )?;
    let log_opts = one_list(
        "log-opts",
        key_values("log-opt", &flags.log_opt)?,
        file.log_opts.into_iter().collect(),
    )?;
    let log_driver =
        either("log-driver", flags.log_driver, file.log_driver)?.unwrap_or("json-file".into());
    crate::logs::check(
        &log_driver,
        log_opts.iter().map(|(k, v)| (k.as_str(), v.as_str())),
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
    let shm = either(
        "default-shm-size",
        flags.default_shm_size,
        file.default_shm_size,
    )?;
    let ipc_mode = either(
        "default-ipc-mode",
        flags.default_ipc_mode,
        file.default_ipc_mode,
    )?;
    let cgroupns = either(
        "default-cgroupns-mode",
        flags.default_cgroupns_mode,
        file.default_cgroupns_mode,
    )?;
    let log_format = either("log-format", flags.log_format, file.log_format)?;
    exec_opts(one_list("exec-opts", flags.exec_opt, file.exec_opts)?)?;
    // Live restore is always in effect; a configuration that asks for it or against it changes nothing.
    either("live-restore", flags.live_restore, file.live_restore)?;
    let shutdown_timeout = either(
        "shutdown-timeout",
        flags.shutdown_timeout,
        file.shutdown_timeout,
    )?;
    Ok(Config {
        shutdown_timeout: std::time::Duration::from_secs(shutdown_timeout.unwrap_or(15)),
        pidfile: either("pidfile", flags.pidfile, file.pidfile)?
            .unwrap_or_else(|| exec_root.join("docker.pid")),
        data_root,
        exec_root,
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
        network,
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
        ipc_mode: word("default ipc mode", ipc_mode, &["private", "shareable"])?,
        init: either("init", flags.init, file.init)?.unwrap_or(false),
        init_path: either("init-path", flags.init_path, file.init_path)?,
        cgroupns_mode: match cgroupns {
            None => None,
            given => Some(word("default cgroupns mode", given, &["private", "host"])?),
        },
        no_new_privileges: either(
            "no-new-privileges",
            flags.no_new_privileges,
            file.no_new_privileges,
        )?
        .unwrap_or(false),
        seccomp_profile: profile(either(
            "seccomp-profile",
            flags.seccomp_profile,
            file.seccomp_profile,
        )?)?,
        cdi_dirs: match one_list("cdi-spec-dirs", flags.cdi_spec_dir, file.cdi_spec_dirs)? {
            none if none.is_empty() => crate::spec::cdi::DIRS.map(PathBuf::from).to_vec(),
            given => given,
        },
        log_json: word("log format", log_format, &["text", "json"])? == "json",
        metrics: either("metrics-addr", flags.metrics_addr, file.metrics_addr)?
            .filter(|address| !address.is_empty()),
        tls,
        notify: None,
        rootless: None,
    })
}

/// One word of a few; the first is the default.
fn word(what: &str, given: Option<String>, known: &[&str]) -> Result<String> {
    match given {
        None => Ok(known[0].to_owned()),
        Some(text) if known.contains(&text.as_str()) => Ok(text),
        Some(text) => Err(Error::invalid(format!(
            "{what} {text:?} is none of {}",
            known.join(", ")
        ))),
    }
}

fn roots(flags: &Flags, file: &File, defaults: &Defaults) -> Result<(PathBuf, PathBuf)> {
    let exec_root = either("exec-root", flags.exec_root.clone(), file.exec_root.clone())?;
    let exec_root = exec_root.unwrap_or_else(|| defaults.exec_root.clone());
    let data_root = either("data-root", flags.data_root.clone(), file.data_root.clone())?;
    let data_root = data_root.unwrap_or_else(|| defaults.data_root.clone());
    for (name, path) in [("data-root", &data_root), ("exec-root", &exec_root)] {
        if !path.is_absolute() {
            return Err(Error::invalid(format!(
                "{name} {} is not an absolute path",
                path.display()
            )));
        }
    }
    Ok((data_root, exec_root))
}

/// The addresses to listen on. A TCP address may leave out host and port: Docker's are 2375, or 2376 with TLS.
fn hosts(given: Vec<String>, tls: bool) -> Vec<String> {
    let port = if tls { 2376 } else { 2375 };
    let full = |host: String| {
        let Some(rest) = host.strip_prefix("tcp://") else {
            return host;
        };
        let rest = rest.trim_end_matches('/');
        match (rest, rest.rsplit_once(':')) {
            ("", _) => format!("tcp://127.0.0.1:{port}"),
            (_, Some(("", number))) => format!("tcp://127.0.0.1:{number}"),
            (_, Some((_, number))) if number.parse::<u16>().is_ok() => format!("tcp://{rest}"),
            _ => format!("tcp://{rest}:{port}"),
        }
    };
    given.into_iter().map(full).collect()
}

/// TLS as dockerd has it: `--tlsverify`, given at all, switches it on.
fn tls(flags: &Flags, file: &File) -> Result<Option<Tls>> {
    let on = either("tls", flags.tls, file.tls)?;
    let verify = either("tlsverify", flags.tlsverify, file.tlsverify)?;
    let dir = std::env::var_os("DOCKER_CERT_PATH").map(PathBuf::from);
    let dir = dir.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")));
    let path = |name: &str, flag: &Option<PathBuf>, file: &Option<PathBuf>, default: &str| {
        let given = either(name, flag.clone(), file.clone())?;
        given
            .or_else(|| Some(dir.as_ref()?.join(default)))
            .ok_or_else(|| Error::invalid(format!("{name} is not given, and there is no HOME")))
    };
    if !(on.unwrap_or(false) || verify.is_some()) {
        return Ok(None);
    }
    Ok(Some(Tls {
        verify: match verify.unwrap_or(false) {
            true => Some(path(
                "tlscacert",
                &flags.tlscacert,
                &file.tlscacert,
                "ca.pem",
            )?),
            false => None,
        },
        cert: path("tlscert", &flags.tlscert, &file.tlscert, "cert.pem")?,
        key: path("tlskey", &flags.tlskey, &file.tlskey, "key.pem")?,
    }))
}

/// Reads the seccomp profile that is named.
fn profile(given: Option<String>) -> Result<Option<String>> {
    match given.as_deref() {
        None | Some("" | "builtin") => Ok(None),
        Some("unconfined") => Ok(Some("unconfined".into())),
        Some(path) => std::fs::read_to_string(path)
            .map(Some)
            .map_err(|e| Error::invalid(format!("opening seccomp profile ({path}) failed: {e}"))),
    }
}

/// Options of the runtime's execution: only the cgroup driver is known, and only one of its two values is built.
fn exec_opts(given: Vec<String>) -> Result<()> {
    for (key, value) in key_values("exec-opt", &given)? {
        match (key.as_str(), value.as_str()) {
            ("native.cgroupdriver", "cgroupfs") => {}
            ("native.cgroupdriver", "systemd") => {
                return Err(Error::unimplemented(
                    "exec-opt native.cgroupdriver=systemd is not supported yet",
                ));
            }
            _ => {
                return Err(Error::invalid(format!(
                    "unknown option {key}={value} for exec-opt"
                )));
            }
        }
    }
    Ok(())
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

/// A boolean as Docker reads it from an option: Go's words for one.
pub(crate) fn parse_flag(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
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
mod tests;
