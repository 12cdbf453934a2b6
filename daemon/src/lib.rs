//! dockerd-lite: the Docker Engine API over containerd.
//!
//! ```text
//!  connection ─▶ api/ (decode, call, encode) ─▶ nouns: container/ images/ volumes/ network/ logs/
//!                                                  │            │
//!                                              db.rs (records)  backend.rs (gRPC) ─▶ containerd
//!                                                  ▲                                  │ events
//!                                                  └───────── recover.rs ◀────────────┘
//! ```
//!
//! Parts are built by hand in [`build()`], in the order in which they need each other. The daemon may be killed at any
//! instruction: the records say what shall be, containerd says what is, and `recover` makes them agree, at start and after
//! every reconnect alike. Containers never depend on the daemon being there.
//!
//! Async on two worker threads; blocking work (database, tar, mounts) runs on threads of its own.

#![forbid(unsafe_code)]

mod api;
mod archive;
mod backend;
mod build;
mod certs;
mod clock;
mod config;
mod container;
mod db;
mod disk;
mod dockerfile;
mod error;
mod events;
mod frames;
mod images;
mod logs;
mod metrics;
mod net;
mod network;
mod notify;
mod random;
mod recover;
mod registry;
mod reload;
mod rootless;
mod server;
mod spec;
mod stop_all;
mod supervise;
mod tls;
mod volumes;

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::backend::Backend;
use crate::config::{Config, Flags};
use crate::db::Db;
use crate::error::{During, Error, Result};

pub use launcher::{detached, net};

mod launcher {
    use std::ffi::OsString;
    use std::process::ExitCode;

    /// Runs the launcher of a detached program, if these are its arguments.
    pub fn detached(arguments: &[OsString]) -> Option<ExitCode> {
        crate::supervise::detached(arguments)
    }

    /// Runs the helper of the networks, if these are its arguments.
    pub fn net(arguments: &[OsString]) -> Option<ExitCode> {
        crate::net::main(arguments)
    }
}

/// How often the lock of data-root is tried, 10 ms apart.
const LOCK_TRIES: u32 = 50;

/// The daemon's parts, shared by every request.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) db: Db,
    pub(crate) backend: Backend,
    pub(crate) events: events::Events,
    pub(crate) containers: container::Containers,
    pub(crate) images: images::Images,
    pub(crate) builds: build::Running,
    pub(crate) forwarders: logs::forward::Forwarders,
    pub(crate) volumes: volumes::Volumes,
    pub(crate) network: network::Network,
    pub(crate) reconciled: recover::Reconciled,
    pub(crate) counters: metrics::Counters,
    /// The configuration with what has been reloaded since.
    live: RwLock<Arc<Config>>,
    /// This installation's identity, as `info` tells it.
    pub(crate) instance: String,
    /// Set when the whole installation is being stopped.
    stopping: std::sync::atomic::AtomicBool,
}

impl App {
    /// Whether records and reality have been made to agree since the last connect.
    pub(crate) fn ready(&self) -> bool {
        self.reconciled.is()
    }

    /// The configuration as it is now: for what a reload may change. [`config`](Self::config) is that of the start.
    pub(crate) fn live(&self) -> Arc<Config> {
        self.live
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn replace_live(&self, next: Arc<Config>) {
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = next;
    }

    /// Whether the whole installation is being stopped: then an exit starts nothing again, and is nobody's wish either.
    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// The program: parses, then runs until it is told to stop.
pub fn main(arguments: Vec<OsString>) -> anyhow::Result<ExitCode> {
    if let Some(code) = certs::run(&arguments).or_else(|| rootless::main(&arguments)) {
        return Ok(code);
    }
    let flags = match Flags::try_parse_from(arguments) {
        Ok(flags) => flags,
        Err(e) => {
            e.print().context("print to the terminal")?;
            return Ok(ExitCode::from(if e.use_stderr() { 125 } else { 0 }));
        }
    };
    if flags.version() {
        println!(
            "dockerd-lite version {}, commit {}",
            env!("CARGO_PKG_VERSION"),
            env!("GIT_COMMIT")
        );
        return Ok(ExitCode::SUCCESS);
    }
    let config = Config::load(&flags)?;
    if flags.validate() {
        println!("configuration OK");
        return Ok(ExitCode::SUCCESS);
    }
    let level = log_to_stderr(&config);
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    if let Some(netns) = config.rootless.as_ref().and_then(|r| r.netns.as_deref()) {
        rootless::outside::go_over(netns)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(512 * 1024)
        .thread_keep_alive(std::time::Duration::from_secs(2))
        .enable_all()
        .build()
        .context("start the runtime")?;
    let outcome = match flags.stop_all() {
        true => runtime.block_on(stop_all::run(config)),
        false => runtime.block_on(run(config, &flags, &level)),
    };
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    outcome?;
    Ok(ExitCode::SUCCESS)
}

fn log_to_stderr(config: &Config) -> reload::LogLevel {
    let (wanted, handle) =
        tracing_subscriber::reload::Layer::new(reload::targets(&config.log_level));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .log_internal_errors(false);
    let lines = match config.log_json {
        true => lines.json().boxed(),
        false => lines.boxed(),
    };
    tracing_subscriber::registry()
        .with(wanted)
        .with(lines)
        .init();
    handle
}

/// Runs the daemon: locks, parts, listeners, reconciliation.
async fn run(config: Config, flags: &Flags, level: &reload::LogLevel) -> Result<()> {
    for dir in [&config.data_root, &config.exec_root] {
        make_private(dir)?;
    }
    let _lock = lock(&config.data_root)?;
    build::sweep_former(&config.data_root);
    write_pidfile(&config.pidfile)?;
    let opened = async {
        let tls = config.tls.as_ref().map(tls::acceptor).transpose()?;
        let metrics = match &config.metrics {
            Some(address) => Some(server::metrics(address).await?),
            None => None,
        };
        let listeners = server::listen(&config.hosts, config.group.as_deref(), tls).await?;
        Ok((listeners, metrics))
    };
    let (listeners, metrics) = match opened.await {
        Ok(opened) => opened,
        Err(e) => {
            let _ = std::fs::remove_file(&config.pidfile);
            return Err(e);
        }
    };
    let stop = CancellationToken::new();
    let pidfile = config.pidfile.clone();
    let place = config
        .containerd
        .is_none()
        .then(|| supervise::Place::of(&config));
    let app = build(config, place.as_ref()).await?;
    app.containers.adopt(&app);
    container::exec_kept::load(&app, &app.containers);
    logs::forward::begin_all(&app);
    let mut tasks = tokio::task::JoinSet::new();
    if let Some(place) = place {
        tasks.spawn(supervise::run(place, stop.clone()));
    }
    tasks.spawn(recover::run(app.clone(), stop.clone()));
    let control = api::control::service(app.clone(), server::addresses(&listeners));
    tasks.spawn(server::serve(
        listeners,
        api::router(app.clone()),
        control,
        stop.clone(),
    ));
    if let Some(listener) = metrics {
        let (router, stop) = (metrics::router(app.clone()), stop.clone());
        tasks.spawn(server::serve_plain(listener, router, stop));
    }
    tracing::info!("API listens");
    notify::tell(app.config.notify.as_deref(), "READY=1");
    until_signalled(&app, flags, level).await?;
    notify::tell(app.config.notify.as_deref(), "STOPPING=1");
    // Containers are left as they are: whoever comes next finds them.
    stop.cancel();
    let all = async {
        while tasks.join_next().await.is_some() {}
        app.network.settle().await;
    };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), all).await;
    // Whoever finds a pidfile of a dead process ignores it.
    let _ = std::fs::remove_file(pidfile);
    Ok(())
}

/// Builds the parts.
async fn build(config: Config, own: Option<&supervise::Place>) -> Result<Arc<App>> {
    let (address, patience) = match (&config.containerd, own) {
        (Some(given), _) => (given.clone(), std::time::Duration::ZERO),
        // Its own one is started again whenever it is not there.
        (None, Some(place)) => (place.address(), backend::QUICK),
        (None, None) => return Err(Error::internal("no containerd is named")),
    };
    let db = Db::open(&config.records())?;
    let backend = Backend::new(&address, patience, &config.namespace, &config.snapshotter)?;
    let instance = instance(&db).await?;
    Ok(Arc::new(App {
        events: events::Events::new(),
        containers: container::Containers::load(&db).await?,
        images: images::Images::open(&config, &db, &backend).await?,
        builds: build::Running::default(),
        forwarders: logs::forward::Forwarders::default(),
        volumes: volumes::Volumes::open(&config, &db).await?,
        network: network::Network::open(&config, &db).await?,
        reconciled: recover::Reconciled::new(),
        counters: metrics::Counters::default(),
        live: RwLock::new(Arc::new(config.clone())),
        stopping: false.into(),
        instance,
        config,
        db,
        backend,
    }))
}

/// The identity of this installation, made once.
async fn instance(db: &Db) -> Result<String> {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Instance {
        version: u32,
        id: String,
    }
    let known: Vec<(String, Instance)> = db.all("instance").await?;
    if let Some((_, instance)) = known.into_iter().next() {
        return Ok(instance.id);
    }
    let id = crate::random::hex(16);
    let record = Instance {
        version: 1,
        id: id.clone(),
    };
    db.put("instance", "self", &record).await?;
    Ok(id)
}

pub(crate) fn make_private(dir: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .during(|| format!("make {}", dir.display()))
}

/// Writes a file whole or not at all. Nothing is synced: what is written so need not survive power loss.
pub(crate) fn replace(path: &Path, content: impl AsRef<[u8]>) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, content)?;
    std::fs::rename(&temporary, path)
}

/// Takes the data-root for this process; it is free again when the process ends, however it ends.
fn lock(data_root: &Path) -> Result<File> {
    let path = data_root.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .during(|| format!("open {}", path.display()))?;
    // A killed daemon holds it for as long as the kernel takes to end it.
    for _ in 0..LOCK_TRIES {
        let how = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        if rustix::fs::flock(&file, how).is_ok() {
            return Ok(file);
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Err(Error::conflict(format!(
        "data root {} is used by another daemon",
        data_root.display()
    )))
}

/// Whether the process is a dockerd of whatever make that has not ended.
fn is_living_daemon(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let name = stat.split_once('(').map_or("", |(_, rest)| rest);
    let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    name.starts_with("dockerd") && !state.starts_with(['Z', 'X'])
}

/// Writes our pid; a pidfile of a living dockerd is an error.
fn write_pidfile(path: &Path) -> Result<()> {
    let what = || format!("write pidfile {}", path.display());
    if let Ok(text) = std::fs::read_to_string(path)
        && let Ok(pid) = text.trim().parse::<u32>()
        && pid != std::process::id()
        && is_living_daemon(pid)
    {
        return Err(
            Error::conflict(format!("process {pid} is alive; end it first")).during(what()),
        );
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).during(what)?;
    }
    replace(path, std::process::id().to_string()).during(what)
}

async fn until_signalled(app: &App, flags: &Flags, level: &reload::LogLevel) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => match reload::reload(app, flags, level) {
                Ok(()) => tracing::info!("configuration reloaded"),
                Err(e) => tracing::error!("configuration not reloaded: {e}"),
            },
        }
    }
}
