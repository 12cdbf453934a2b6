//! Create: everything is checked before anything is made.
//!
//! The record is the last thing that is made. What comes before it (volumes, the snapshot) carries the container's id, so
//! that the sweep at start finds what a killed create left; a create that fails takes it back itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::containerd::services::snapshots::v1::{PrepareSnapshotRequest, RemoveSnapshotRequest};
use proto::engine::{Config, ContainerCreateBody, ContainerCreated, HostConfig, ImageConfig, Set};

use super::record::{self, Record};
use super::state::State;
use super::{actor, health, name, plumbing, restart, signal};
use crate::App;
use crate::backend::{SLOW, within};
use crate::clock;
use crate::error::{During, Error, Result};
use crate::images::reference::{self, Reference};
use crate::metrics::Action;
use crate::spec::{self, Security, capabilities, resources};

/// Label of a snapshot that belongs to a container of ours.
pub(crate) const SNAPSHOT_LABEL: &str = "io.docker-lite.container";

/// How often an invented name may collide before we give up.
const TRIES: u32 = 16;

/// Creates a container.
pub(crate) async fn create(
    app: &Arc<App>,
    wanted_name: &str,
    body: ContainerCreateBody,
) -> Result<ContainerCreated> {
    let began = std::time::Instant::now();
    let mut config = body.config;
    let mut host = body.host_config.unwrap_or_default();
    if config == Config::default() {
        return Err(Error::invalid(
            "Config cannot be empty in order to create a container",
        ));
    }
    let mut warnings = Vec::new();
    check_host(app, &mut host, &mut warnings)?;
    let named = match app.images.resolve(&config.image).await {
        Err(e) if e.is_not_found() => {
            // A name that can never be one is the client's fault, and pulling it is no help.
            if !reference::is_hex(&config.image) {
                Reference::parse(&config.image).map_err(|e| Error::invalid(e.to_string()))?;
            }
            return Err(e);
        }
        other => other?,
    };
    let image = named.image.clone();
    let image_config = image.config();
    let image_volumes = image_config.volumes.clone();
    merge(&mut config, &image_config);
    check_config(&config)?;
    let (path, args) = command(&config)?;
    let id = crate::random::id();
    if config.hostname.is_empty() && host.uts_mode != "host" {
        config.hostname = match host.network_mode.as_str() {
            "host" => host_name(),
            _ => id[..12].to_owned(),
        };
    }
    let networks = plumbing::networks(app, &mut host, &config, body.networking_config)?;
    let name = reserve(app, wanted_name, &id)?;
    let record = Record {
        version: record::VERSION,
        created: clock::now(),
        image: image.id.clone(),
        chain: image.snapshot().to_owned(),
        path,
        args,
        networks,
        mounts: Vec::new(),
        runtime: host.runtime.clone(),
        snapshotter: app.backend.snapshotter().to_owned(),
        state: State::Created { failure: None },
        restarts: 0,
        stopped_by_user: false,
        other: BTreeMap::new(),
        config,
        host,
        name,
        id,
    };
    let (id, name) = (record.id.clone(), record.name.clone());
    match make(app, record, &image_volumes).await {
        Ok(()) => {
            app.counters.took(Action::Create, began.elapsed());
            Ok(ContainerCreated { id, warnings })
        }
        Err(e) => {
            app.containers.release(&name, &id);
            Err(e)
        }
    }
}

/// Makes what the container consists of, and its record.
async fn make(app: &Arc<App>, mut record: Record, image_volumes: &Set) -> Result<()> {
    let (mounts, pins) = plumbing::volumes(app, &record, image_volumes).await?;
    record.mounts = mounts;
    if let Err(e) = store(app, &record).await {
        undo(app, &record).await;
        app.volumes.abandon(pins).await;
        return Err(e);
    }
    let (id, attributes) = (record.id.clone(), record.attributes());
    app.containers
        .insert(actor::spawn(app.clone(), record, true));
    // From here on the record stands for them.
    drop(pins);
    app.events.emit("container", "create", &id, attributes);
    Ok(())
}

async fn store(app: &App, record: &Record) -> Result<()> {
    snapshot(app, record).await?;
    plumbing::populate(app, record).await?;
    app.db.add(record::KIND, &record.id, record).await
}

async fn snapshot(app: &App, record: &Record) -> Result<()> {
    let request = PrepareSnapshotRequest {
        snapshotter: record.snapshotter.clone(),
        key: record.id.clone(),
        parent: record.chain.clone(),
        labels: [
            // A root of its own: containerd's record of the container comes only with the first start.
            ("containerd.io/gc.root".to_owned(), clock::now()),
            (SNAPSHOT_LABEL.to_owned(), record.id.clone()),
        ]
        .into(),
    };
    within(SLOW, app.backend.snapshots().prepare(request))
        .await
        .during(|| format!("prepare the snapshot of container {}", record.id))?;
    Ok(())
}

async fn undo(app: &App, record: &Record) {
    let request = RemoveSnapshotRequest {
        snapshotter: record.snapshotter.clone(),
        key: record.id.clone(),
    };
    match within(SLOW, app.backend.snapshots().remove(request)).await {
        Ok(()) => {}
        Err(e) if e.is_not_found() => {}
        // The sweep at the next start finds it by its label.
        Err(e) => tracing::warn!("remove the snapshot of container {}: {e}", record.id),
    }
}

fn reserve(app: &App, wanted: &str, id: &str) -> Result<String> {
    if !wanted.is_empty() {
        let name = name::check(wanted)?;
        app.containers.reserve(name, id)?;
        return Ok(name.to_owned());
    }
    for tries in 0..TRIES {
        let name = name::invent(tries);
        if app.containers.reserve(&name, id).is_ok() {
            return Ok(name);
        }
    }
    app.containers.reserve(&id[..12], id)?;
    Ok(id[..12].to_owned())
}

fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Puts the image's configuration under the user's.
fn merge(config: &mut Config, image: &ImageConfig) {
    if config.user.is_empty() {
        config.user.clone_from(&image.user);
    }
    for port in image.exposed_ports.keys() {
        config.exposed_ports.entry(port.clone()).or_default();
    }
    if !image.env.is_empty() {
        let env = config.env.get_or_insert_default();
        let key = |text: &str| text.split('=').next().unwrap_or("").to_owned();
        for variable in &image.env {
            if !env.iter().any(|given| key(given) == key(variable)) {
                env.push(variable.clone());
            }
        }
    }
    for (key, value) in &image.labels {
        config
            .labels
            .entry(key.clone())
            .or_insert_with(|| value.clone());
    }
    if config.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            config.cmd = some(&image.cmd);
        }
        if config.entrypoint.is_none() {
            config.entrypoint = some(&image.entrypoint);
        }
    }
    if config.working_dir.is_empty() {
        config.working_dir.clone_from(&image.working_dir);
    }
    // None and an empty set are one, and shown as none.
    config.volumes = config.volumes.take().filter(|set| !set.is_empty());
    if !image.volumes.is_empty() {
        let volumes = config.volumes.get_or_insert_default();
        for path in image.volumes.keys() {
            volumes.entry(path.clone()).or_default();
        }
    }
    if config.stop_signal.is_empty() {
        config.stop_signal.clone_from(&image.stop_signal);
    }
    health::merge(&mut config.healthcheck, image.healthcheck.as_ref());
    if config.shell.is_none() {
        config.shell = some(&image.shell);
    }
}

fn some(list: &[String]) -> Option<Vec<String>> {
    (!list.is_empty()).then(|| list.to_vec())
}

/// The program and its arguments; an entrypoint of one empty word means none.
fn command(config: &Config) -> Result<(String, Vec<String>)> {
    let words = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let mut entrypoint = words(&config.entrypoint);
    if entrypoint == [""] {
        entrypoint.clear();
    }
    let mut all = entrypoint.into_iter().chain(words(&config.cmd));
    match all.next() {
        Some(path) if !path.is_empty() => Ok((path, all.collect())),
        _ => Err(Error::invalid("no command specified")),
    }
}

fn check_config(config: &Config) -> Result<()> {
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(Error::invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        )));
    }
    for variable in config.env.iter().flatten() {
        if variable.is_empty() || variable.starts_with('=') || variable.contains('\0') {
            return Err(Error::invalid(format!(
                "invalid environment variable: {variable}"
            )));
        }
    }
    if !config.stop_signal.is_empty() && signal::parse(&config.stop_signal).is_none() {
        return Err(Error::invalid(format!(
            "invalid signal: {}",
            config.stop_signal
        )));
    }
    if config.hostname.len() > 63 || config.hostname.contains('/') {
        return Err(Error::invalid(format!(
            "invalid hostname format: {}",
            config.hostname
        )));
    }
    health::check(config)
}

/// Checks the host's part and puts the defaults in that inspect shows.
fn check_host(app: &App, host: &mut HostConfig, warnings: &mut Vec<String>) -> Result<()> {
    restart::check(&host.restart_policy)?;
    if host.restart_policy.name.is_empty() {
        host.restart_policy.name = "no".into();
    }
    if host.auto_remove && host.restart_policy.name != "no" {
        return Err(Error::invalid(
            "can't create 'AutoRemove' container with restart policy",
        ));
    }
    resources::check(&host.resources)?;
    resources::check_sets(&host.resources)?;
    let requests = host.resources.device_requests.as_deref();
    spec::cdi::find(requests.unwrap_or_default(), &app.config.cdi_dirs)?;
    host.resources.memory_swap = resources::swap(&host.resources);
    // What asks for nothing is shown as nothing.
    let limits = &mut host.resources;
    limits.memory_swappiness = limits.memory_swappiness.filter(|value| *value != -1);
    limits.pids_limit = limits.pids_limit.filter(|value| *value != 0);
    capabilities::check(host.cap_add.as_deref().unwrap_or_default())?;
    capabilities::check(host.cap_drop.as_deref().unwrap_or_default())?;
    Security::parse(host.security_opt.as_deref().unwrap_or_default())?;
    check_modes(host)?;
    super::init::check(&app.config, host)?;
    if host.log_config.kind.is_empty() {
        host.log_config.kind.clone_from(&app.config.log_driver);
        if host.log_config.config.is_empty() {
            host.log_config.config.clone_from(&app.config.log_opts);
        }
    }
    let options = host.log_config.config.iter();
    crate::logs::check(
        &host.log_config.kind,
        options.map(|(key, value)| (key.as_str(), value.as_str())),
    )?;
    if host.runtime.is_empty() {
        host.runtime.clone_from(&app.live().default_runtime);
    }
    if !app.live().runtimes.contains_key(&host.runtime) {
        return Err(Error::invalid(format!(
            "unknown or invalid runtime name: {}",
            host.runtime
        )));
    }
    if host.shm_size < 0 {
        return Err(Error::invalid("SHM size can not be less than 0"));
    }
    if host.shm_size == 0 {
        host.shm_size = app.config.shm_size;
    }
    if host.ipc_mode.is_empty() {
        host.ipc_mode.clone_from(&app.config.ipc_mode);
    }
    if host.cgroupns_mode.is_empty() {
        host.cgroupns_mode = match (&app.config.cgroupns_mode, super::start::cgroup_v2()) {
            (Some(mode), _) => mode.clone(),
            (None, true) => "private".into(),
            (None, false) => "host".into(),
        };
    }
    if host.privileged {
        host.masked_paths = Some(Vec::new());
        host.readonly_paths = Some(Vec::new());
    } else {
        let list = |paths: &[&str]| Some(paths.iter().map(|p| (*p).to_owned()).collect());
        if host.masked_paths.is_none() {
            host.masked_paths = list(spec::MASKED);
        }
        if host.readonly_paths.is_none() {
            host.readonly_paths = list(spec::READONLY);
        }
    }
    if host.oom_score_adj < -1000 || host.oom_score_adj > 1000 {
        return Err(Error::invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    if !app.config.has_cgroups() {
        crate::rootless::limits::take_out(&mut host.resources, warnings);
    }
    if host.resources.oom_kill_disable == Some(true) && host.resources.memory == 0 {
        warnings.push("OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.".into());
    }
    Ok(())
}

/// Checks the words of the namespace modes, and refuses by name what is not there yet.
fn check_modes(host: &HostConfig) -> Result<()> {
    let refuse =
        |what: &str, mode: &str| Err(Error::invalid(format!("invalid {what} mode: {mode}")));
    let of_container = |mode: &str| {
        mode.strip_prefix("container:")
            .is_some_and(|name| !name.is_empty())
    };
    match host.ipc_mode.as_str() {
        "" | "private" | "shareable" | "none" | "host" => {}
        mode if of_container(mode) => {}
        mode => return refuse("IPC", mode),
    }
    match host.pid_mode.as_str() {
        "" | "host" => {}
        mode if of_container(mode) => {}
        mode => return refuse("PID", mode),
    }
    match host.uts_mode.as_str() {
        "" | "host" => {}
        mode => return refuse("UTS", mode),
    }
    match host.cgroupns_mode.as_str() {
        "" | "host" | "private" => {}
        mode => return refuse("CgroupNS", mode),
    }
    match host.userns_mode.as_str() {
        "" | "host" => {}
        mode => return refuse("USER", mode),
    }
    match host.isolation.as_str() {
        "" | "default" => {}
        mode => return refuse("isolation", mode),
    }
    if !host.storage_opt.is_empty() {
        return Err(Error::unimplemented(
            "storage options are not supported yet",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn entrypoint_and_command() {
        let image = ImageConfig {
            entrypoint: list(&["/entry"]),
            cmd: list(&["arg"]),
            ..ImageConfig::default()
        };
        let run = |entrypoint: Option<&[&str]>, cmd: &[&str]| {
            let mut config = Config {
                entrypoint: entrypoint.map(list),
                cmd: some(&list(cmd)),
                ..Config::default()
            };
            merge(&mut config, &image);
            command(&config).map(|(path, args)| (path, args.join(" ")))
        };
        assert_eq!(run(None, &[]).unwrap(), ("/entry".into(), "arg".into()));
        assert_eq!(run(None, &["x"]).unwrap(), ("/entry".into(), "x".into()));
        assert_eq!(
            run(Some(&["/mine"]), &[]).unwrap(),
            ("/mine".into(), String::new())
        );
        assert_eq!(
            run(Some(&[""]), &["x"]).unwrap(),
            ("x".into(), String::new())
        );
        assert!(run(Some(&[""]), &[]).is_err());
    }

    #[test]
    fn the_environment_of_the_image_gives_way() {
        let image = ImageConfig {
            env: list(&["PATH=/image", "A=1"]),
            ..ImageConfig::default()
        };
        let mut config = Config {
            env: Some(list(&["A=2"])),
            ..Config::default()
        };
        merge(&mut config, &image);
        assert_eq!(config.env.unwrap(), ["A=2", "PATH=/image"]);
    }
}
