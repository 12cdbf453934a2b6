//! The daemon about itself: ping, version, info.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use proto::containerd::services::images::v1::ListImagesRequest;
use proto::engine::{
    API_VERSION, Commit, ComponentVersion, ContainerdInfo, ContainerdNamespaces, FirewallInfo,
    IndexInfo, MIN_API_VERSION, PlatformInfo, PluginsInfo, RegistryConfig, RuntimeInfo, SwarmInfo,
    SystemInfo, SystemVersion,
};

use super::Params;
use crate::App;
use crate::backend::within;
use crate::container::state::State as Life;
use crate::container::{start, stats};
use crate::error::Result;

/// The routes of this noun.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/_ping", get(ping))
        .route("/version", get(version))
        .route("/info", get(info))
        .route("/plugins", get(plugins))
}

async fn ping() -> Response {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("builder-version", "1"),
        ("swarm", "inactive"),
        ("cache-control", "no-cache, no-store, must-revalidate"),
        ("pragma", "no-cache"),
        ("content-type", "text/plain; charset=utf-8"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    (headers, "OK").into_response()
}

async fn version(State(app): State<Arc<App>>) -> Response {
    let kernel = rustix::system::uname();
    let text = |s: &std::ffi::CStr| s.to_string_lossy().into_owned();
    let commit = env!("GIT_COMMIT");
    let details = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().filter(|(_, value)| !value.is_empty());
        Some(BTreeMap::from_iter(
            pairs.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
        ))
    };
    let mut components = vec![ComponentVersion {
        name: "Engine".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        details: details(&[
            ("ApiVersion", API_VERSION),
            ("MinAPIVersion", MIN_API_VERSION),
            ("Arch", arch()),
            ("Os", "linux"),
            ("KernelVersion", &text(kernel.release())),
            ("GitCommit", commit),
            ("Experimental", "false"),
        ]),
    }];
    // Whoever asks for the version wants it now; a containerd that does not answer at once is left out.
    let limit = std::time::Duration::from_millis(300);
    if let Ok(below) = within(limit, app.backend.version().version(())).await {
        components.push(ComponentVersion {
            name: "containerd".into(),
            version: below.version,
            details: details(&[("GitCommit", &below.revision)]),
        });
    }
    if let Some(rootless) = &app.config.rootless {
        components.extend(parent(rootless).await);
    }
    super::ok(&SystemVersion {
        platform: Some(PlatformInfo {
            name: "docker-lite".into(),
        }),
        version: env!("CARGO_PKG_VERSION").into(),
        api_version: API_VERSION.into(),
        min_api_version: MIN_API_VERSION.into(),
        os: "linux".into(),
        arch: arch().into(),
        components,
        git_commit: commit.into(),
        kernel_version: text(kernel.release()),
        ..SystemVersion::default()
    })
}

/// The rootless parent and its network helper, as they tell of themselves.
async fn parent(rootless: &crate::rootless::Rootless) -> Vec<ComponentVersion> {
    let told = tokio::time::timeout(PATIENCE, rootless.ask("/v1/info"));
    let Ok(Ok(told)) = told.await else {
        return Vec::new();
    };
    let text = |path: &str| {
        let value = told.pointer(path).and_then(serde_json::Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    let details = |pairs: &[(&str, String)]| {
        let pairs = pairs.iter().filter(|(_, value)| !value.is_empty());
        Some(pairs.map(|(k, v)| ((*k).to_owned(), v.clone())).collect())
    };
    let driver = text("/networkDriver/driver");
    let ours = text("/portDriver/driver") == crate::rootless::PORT_DRIVER;
    let mut list = vec![ComponentVersion {
        name: if ours {
            "dockerd-lite rootless"
        } else {
            "rootlesskit"
        }
        .into(),
        version: text("/version"),
        details: details(&[
            ("ApiVersion", text("/apiVersion")),
            ("NetworkDriver", driver.clone()),
            ("PortDriver", text("/portDriver/driver")),
            ("StateDir", text("/stateDir")),
        ]),
    }];
    if matches!(driver.as_str(), "slirp4netns" | "pasta") {
        let version = tokio::process::Command::new(&driver)
            .arg("--version")
            .output();
        let said = tokio::time::timeout(PATIENCE, version).await;
        let said = said.ok().and_then(std::result::Result::ok);
        let said = said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        // "slirp4netns version 1.2.0", "pasta 0.0~git20250503".
        let at = if driver == "pasta" { 1 } else { 2 };
        let version = said
            .as_deref()
            .and_then(|said| said.split_whitespace().nth(at));
        list.push(ComponentVersion {
            name: driver,
            version: version.unwrap_or_default().to_owned(),
            details: None,
        });
    }
    list
}

/// The machine as Go names it.
pub(crate) fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// How long an answer about ourselves waits for the program below.
const PATIENCE: std::time::Duration = std::time::Duration::from_millis(300);

async fn plugins(params: Params) -> Result<Response> {
    params.filters(&["capability", "enabled"])?;
    Ok(super::ok(&Vec::<()>::new()))
}

async fn info(State(app): State<Arc<App>>) -> Response {
    let config = &*app.live();
    let uname = rustix::system::uname();
    let mut info = SystemInfo {
        id: app.instance.clone(),
        driver: app.backend.snapshotter().into(),
        driver_status: Some(vec![[
            "driver-type".into(),
            "io.containerd.snapshotter.v1".into(),
        ]]),
        plugins: PluginsInfo {
            volume: words(&["local"]),
            network: words(&["bridge", "host", "null"]),
            authorization: None,
            log: words(&["journald", "json-file", "local", "none", "syslog"]),
        },
        ipv4_forwarding: read("/proc/sys/net/ipv4/ip_forward").trim() == "1",
        debug: config.debug,
        n_fd: count("/proc/self/fd"),
        n_goroutines: count("/proc/self/task"),
        system_time: crate::clock::now(),
        logging_driver: config.log_driver.clone(),
        default_log_opts: log_options(config),
        cdi_spec_dirs: config
            .cdi_dirs
            .iter()
            .map(|dir| dir.to_string_lossy().into_owned())
            .collect(),
        cgroup_driver: match config.has_cgroups() {
            true => "cgroupfs".into(),
            false => "none".into(),
        },
        cgroup_version: if start::cgroup_v2() { "2" } else { "1" }.into(),
        n_events_listener: app.events.listeners() as i64,
        kernel_version: uname.release().to_string_lossy().into_owned(),
        operating_system: os_release("PRETTY_NAME"),
        os_version: os_release("VERSION_ID"),
        os_type: "linux".into(),
        architecture: uname.machine().to_string_lossy().into_owned(),
        index_server_address: "https://index.docker.io/v1/".into(),
        registry_config: Some(registries(config)),
        ncpu: std::thread::available_parallelism().map_or(1, |n| n.get() as i64),
        mem_total: i64::try_from(stats::memory_total()).unwrap_or(i64::MAX),
        docker_root_dir: config.data_root.to_string_lossy().into_owned(),
        name: uname.nodename().to_string_lossy().into_owned(),
        labels: Some(config.labels.clone()),
        server_version: env!("CARGO_PKG_VERSION").into(),
        runtimes: runtimes(config),
        default_runtime: config.default_runtime.clone(),
        swarm: SwarmInfo {
            local_node_state: "inactive".into(),
            ..SwarmInfo::default()
        },
        live_restore_enabled: true,
        init_binary: config
            .init_path
            .as_ref()
            .map_or("docker-init".into(), |path| {
                path.to_string_lossy().into_owned()
            }),
        runc_commit: Commit::default(),
        security_options: security(config),
        firewall_backend: config.iptables.then(|| FirewallInfo {
            driver: "nftables".into(),
            ..FirewallInfo::default()
        }),
        containerd: Some(ContainerdInfo {
            address: app.backend.address().to_string_lossy().into_owned(),
            namespaces: ContainerdNamespaces {
                containers: app.backend.namespace().into(),
                plugins: String::new(),
            },
        }),
        ..SystemInfo::default()
    };
    count_containers(&app, &mut info);
    if config.has_cgroups() {
        controllers(&mut info);
    }
    let mut warnings = below(&app, &mut info).await;
    if !config.has_cgroups() {
        warnings.push(
            "WARNING: Running in rootless-mode without cgroups: limits have no effect. They need cgroup v2, delegated to the user by systemd".into(),
        );
    }
    info.warnings = (!warnings.is_empty()).then_some(warnings);
    super::ok(&info)
}

fn count_containers(app: &App, info: &mut SystemInfo) {
    for handle in app.containers.all() {
        info.containers += 1;
        match &handle.record().state {
            Life::Running(running) if running.paused => info.containers_paused += 1,
            Life::Running(_) | Life::Restarting(_) => info.containers_running += 1,
            _ => info.containers_stopped += 1,
        }
    }
}

/// What the program below says of itself; a warning where it does not answer.
async fn below(app: &App, info: &mut SystemInfo) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut client = app.backend.images();
    match within(PATIENCE, client.list(ListImagesRequest::default())).await {
        Ok(reply) => info.images = reply.images.len() as i64,
        Err(e) => warnings.push(format!("WARNING: containerd does not answer: {e}")),
    }
    if let Ok(reply) = within(PATIENCE, app.backend.version().version(())).await {
        info.containerd_commit.id = match reply.revision.is_empty() {
            true => reply.version,
            false => reply.revision,
        };
    }
    for (there, what) in [
        (info.memory_limit, "memory limit"),
        (info.swap_limit, "swap limit"),
        (info.pids_limit, "pids limit"),
        (info.cpu_shares, "cpu shares"),
        (info.cpu_cfs_quota, "cpu cfs quota"),
        (info.cpu_set, "cpuset"),
    ] {
        if !there {
            warnings.push(format!("WARNING: No {what} support"));
        }
    }
    warnings
}

/// What keeps containers apart from the host.
fn security(config: &crate::config::Config) -> Vec<String> {
    let mut options = vec!["name=seccomp,profile=builtin".to_owned()];
    if config.rootless.is_some() {
        options.push("name=rootless".into());
    }
    options
}

/// Which limits the kernel offers.
fn controllers(info: &mut SystemInfo) {
    let has = |path: &str| std::path::Path::new(path).exists();
    if start::cgroup_v2() {
        let list = read("/sys/fs/cgroup/cgroup.controllers");
        let on = |name: &str| list.split_whitespace().any(|word| word == name);
        (info.memory_limit, info.pids_limit, info.cpu_set) =
            (on("memory"), on("pids"), on("cpuset"));
        info.swap_limit = info.memory_limit && has("/proc/swaps");
        info.cpu_shares = on("cpu");
    } else {
        let root = "/sys/fs/cgroup";
        info.memory_limit = has(&format!("{root}/memory/memory.limit_in_bytes"));
        info.swap_limit = has(&format!("{root}/memory/memory.memsw.limit_in_bytes"));
        info.oom_kill_disable = has(&format!("{root}/memory/memory.oom_control"));
        info.pids_limit = has(&format!("{root}/pids"));
        info.cpu_set = has(&format!("{root}/cpuset/cpuset.cpus"));
        info.cpu_shares = has(&format!("{root}/cpu/cpu.shares"));
    }
    info.cpu_cfs_period = info.cpu_shares;
    info.cpu_cfs_quota = info.cpu_shares;
}

fn runtimes(config: &crate::config::Config) -> BTreeMap<String, RuntimeInfo> {
    let shown = config.runtimes.iter().map(|(name, runtime)| {
        let info = RuntimeInfo {
            path: runtime.path.clone().unwrap_or_default(),
            runtime_type: runtime.kind.clone(),
            ..RuntimeInfo::default()
        };
        (name.clone(), info)
    });
    shown.collect()
}

/// The options of logs of containers that name none, the bound included.
fn log_options(config: &crate::config::Config) -> BTreeMap<String, String> {
    let mut options = config.log_opts.clone();
    if crate::logs::is_file(&config.log_driver) {
        for (key, value) in crate::logs::bound(&config.log_driver) {
            options.entry(key.to_owned()).or_insert(value.to_owned());
        }
    }
    options
}

fn registries(config: &crate::config::Config) -> RegistryConfig {
    let networks = config
        .insecure_registries
        .iter()
        .filter(|r| r.contains('/'));
    let hosts = config
        .insecure_registries
        .iter()
        .filter(|r| !r.contains('/'));
    let hub = IndexInfo {
        name: "docker.io".into(),
        mirrors: config.registry_mirrors.clone(),
        secure: true,
        official: true,
    };
    let others = hosts.map(|host| {
        let index = IndexInfo {
            name: host.clone(),
            ..IndexInfo::default()
        };
        (host.clone(), index)
    });
    RegistryConfig {
        insecure_registry_cidrs: Some(
            networks
                .cloned()
                .chain(["::1/128".to_owned(), "127.0.0.0/8".to_owned()])
                .collect(),
        ),
        index_configs: others.chain([("docker.io".to_owned(), hub)]).collect(),
        mirrors: Some(config.registry_mirrors.clone()),
    }
}

fn words(list: &[&str]) -> Option<Vec<String>> {
    Some(list.iter().map(|word| (*word).to_owned()).collect())
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn count(dir: &str) -> i64 {
    std::fs::read_dir(dir).map_or(0, |entries| entries.count() as i64)
}

/// A value of /etc/os-release.
fn os_release(key: &str) -> String {
    let text = read("/etc/os-release");
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or("").trim_matches('"').to_owned()
}
