//! containerd's API in one small daemon.
//!
//! ```text
//!            gRPC on ADDRESS                                   ttrpc on ADDRESS.ttrpc
//!  services/*  wire in, call a noun, wire out                        │ events of shims
//!     │   │                                                          ▼
//!     │   └── content  snapshots  diff  images  leases  gc  ──▶ events::Exchange ──▶ subscribers
//!     │            └───────┬──────────────────────┘                  ▲
//!     │              metadata::Store  (one database in root)         │
//!     └── runtime    bundles in state, one shim per container ───────┘
//! ```
//!
//! Everything may be killed at any instruction: what was acknowledged is in the database or in the bundle, and what a
//! killed call left behind (a directory without a row, a blob without a row) is removed by the next start.
//! [`serve`] builds the parts by hand, in order; there is no registry of plugins.

#![forbid(unsafe_code)]

mod allocator;
pub mod cli;
mod config;
mod content;
mod debug;
mod diff;
mod disk;
mod error;
mod events;
pub mod fault;
mod filters;
mod gc;
mod listen;
mod metadata;
mod metrics;
mod mount;
mod notify;
mod publish;
mod registry;
mod runtime;
mod services;
mod snapshots;
mod streams;
mod time;
mod transfer;
mod upgrade;
mod version;
mod web;

use config::Config;
use upgrade::handover::Handover;

use std::collections::HashMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

/// Why the daemon could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// A directory could not be made or entered.
    #[error("make directory {path}")]
    Directory {
        /// Which one.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another daemon holds the directory or the socket, or it cannot be had.
    #[error(transparent)]
    Listen(#[from] listen::ListenError),
    /// The database cannot be opened.
    #[error(transparent)]
    Metadata(#[from] metadata::MetadataError),
    /// The content store cannot be opened.
    #[error(transparent)]
    Content(#[from] content::ContentError),
    /// A snapshotter cannot be opened.
    #[error(transparent)]
    Snapshots(#[from] snapshots::SnapshotError),
    /// The configuration names a differ that is not there.
    #[error("configuration: {0}")]
    Differ(String),
    /// The address for metrics cannot be had.
    #[error("listen on {address} for metrics")]
    Metrics {
        /// Which one.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The gRPC server ended by itself.
    #[error("serve grpc")]
    Serve(#[source] tonic::transport::Error),
    /// What an earlier life left cannot be read.
    #[error("find the tasks of an earlier life")]
    Recover(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Signals cannot be received.
    #[error("watch for signals")]
    Signals(#[source] std::io::Error),
    /// What an earlier program of this process left cannot be taken.
    #[error("take over from the program before this one")]
    Handover(#[from] upgrade::handover::HandoverError),
    /// What the next program of this process needs cannot be kept.
    #[error("keep what another program could take over")]
    Keep(#[source] std::io::Error),
}

/// Why [`serve`] has ended well.
#[derive(Debug)]
pub(crate) enum Ending {
    /// It was told to stop.
    Stopped,
    /// Another program takes over in this process.
    Replaced(Box<(upgrade::Candidate, Handover)>),
}

/// Runs the daemon until SIGTERM or SIGINT, or until another program takes over. Shims and containers are left alone.
pub(crate) async fn serve(
    config: Config,
    taken: Option<Handover>,
    ready: impl FnOnce(),
) -> Result<Ending, ServeError> {
    let stop = CancellationToken::new();
    stop_on_signal(stop.clone())?;
    let leaving = stop.child_token();
    let (upgrades, mut chosen) = upgrade::Upgrades::new(identity(&config).program, leaving.clone());
    upgrades.on_signal()?;
    if taken.is_some() {
        tokio::spawn(upgrade::reap(upgrade::left_children()));
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    for path in [&config.root, &config.state] {
        listen::directory(path).map_err(|source| ServeError::Directory {
            path: path.clone(),
            source,
        })?;
    }
    // Held until the process ends; a killed daemon's lock is gone with it.
    let (root_lock, state_lock, listeners) = match taken {
        Some(taken) => (
            listen::keep_lock(&config.root, taken.root_lock)?,
            listen::keep_lock(&config.state, taken.state_lock)?,
            listen::Listeners::keep(taken.grpc, taken.ttrpc),
        ),
        None => (
            listen::lock(&config.root)?,
            listen::lock(&config.state)?,
            listen::Listeners::open(&config)?,
        ),
    };
    let handover = listeners
        .handover(&root_lock, &state_lock)
        .map_err(ServeError::Keep)?;

    services::checkpoint::clean(&config.state);
    let database = config.root.join(DATABASE);
    let store = metadata::Store::open(&database)?;
    store
        .adopt_after_damage(&database, || {
            let ours =
                ["overlayfs", "native"].map(|name| (name, config.root.join(snapshotter(name))));
            metadata::Found::look(&config.root.join(CONTENT), &ours)
        })
        .await?;
    let config = Arc::new(config);
    let events = events::Exchange::new();
    let runtime = runtime::Runtime::new(
        &config.state,
        &config.root,
        identity(&config),
        store.clone(),
        events.clone(),
    );
    // Enters what an earlier life left; reaching the shims goes on beside serving.
    runtime
        .recover()
        .await
        .map_err(|e| ServeError::Recover(e.into()))?;
    let blobs = content::Blobs::open(config.root.join(CONTENT), store.clone())?;
    let snapshotters = Arc::new(snapshotters(&config, &store)?);
    let (gc, collector) = gc::Collector::spawn(
        gc::Parts {
            store: store.clone(),
            blobs: blobs.clone(),
            snapshotters: snapshotters.clone(),
        },
        stop.clone(),
    );
    let for_debug = blobs.clone();
    let differs = services::Differs::new(&config).map_err(ServeError::Differ)?;
    let routes = services::routes(services::Parts {
        differs: Arc::new(differs),
        config: config.clone(),
        store,
        blobs,
        snapshotters,
        gc,
        events,
        runtime: runtime.clone(),
        streams: Arc::default(),
        upgrades,
        started_at: time::now(),
    });
    let (incoming, ttrpc) = listeners.grpc_stream()?;
    let calls = metrics::Calls::new(config.metrics.histogram);
    serve_metrics(&config, &calls, &runtime, &stop).await?;
    serve_debug(
        &config,
        debug::Debug {
            runtime: runtime.clone(),
            blobs: for_debug,
            calls: calls.clone(),
            started_at: time::now(),
        },
        &stop,
    )?;
    tokio::spawn(runtime::serve_shim_events(ttrpc, runtime, stop.clone()));

    // By now there is a handler for each.
    upgrade::handover::hear_signals();
    ready();
    notify::ready();
    tracing::info!(address = %config.address.display(), pid = std::process::id(), "serving");
    let serving = tonic::transport::Server::builder()
        // Blobs come in messages of a MiB; the default windows would cut each into sixteen turns.
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .trace_fn(span)
        .layer(metrics::Count(calls.clone()))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, leaving.cancelled());
    let mut next = None;
    let outcome = tokio::select! {
        outcome = serving => outcome.map_err(ServeError::Serve),
        // Streams that never end by themselves must not hold the exit up.
        () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => Ok(()),
        () = async {
            next = chosen.recv().await;
            upgrade::quiet(&calls).await;
            leaving.cancel();
            upgrade::drained().await;
        } => Ok(()),
    };
    if let Some(candidate) = next
        && !stop.is_cancelled()
    {
        // Unlocking them would unlock the copies of the next program as well.
        std::mem::forget((root_lock, state_lock));
        return Ok(Ending::Replaced(Box::new((candidate, handover))));
    }
    stop.cancel();
    // It ends with the token; a collection under way is cut like by a kill.
    let _ = collector.await;
    outcome.map(|()| Ending::Stopped)
}

/// Serves metrics beside the rest, if the configuration says where.
async fn serve_metrics(
    config: &Config,
    calls: &Arc<metrics::Calls>,
    runtime: &Arc<runtime::Runtime>,
    stop: &CancellationToken,
) -> Result<(), ServeError> {
    let Some(address) = &config.metrics.address else {
        return Ok(());
    };
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Metrics {
            address: address.clone(),
            source,
        })?;
    if let Ok(address) = listener.local_addr() {
        tracing::info!("serving metrics on {address}");
    }
    let metrics = metrics::Metrics::new(calls.clone(), runtime.clone());
    tokio::spawn(web::serve(listener, metrics, stop.clone()));
    Ok(())
}

/// Tells of our state on a socket, if the configuration says where, and on SIGUSR1.
fn serve_debug(
    config: &Config,
    debug: debug::Debug,
    stop: &CancellationToken,
) -> Result<(), ServeError> {
    let debug = Arc::new(debug);
    debug
        .clone()
        .log_on_signal(stop.clone())
        .map_err(ServeError::Signals)?;
    let Some(path) = &config.debug_address else {
        return Ok(());
    };
    let listener = listen::bind(path, config.debug_owner)?;
    let failed = |source| listen::ListenError::Bind {
        path: path.clone(),
        source,
    };
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = tokio::net::UnixListener::from_std(listener).map_err(failed)?;
    tokio::spawn(web::serve(listener, debug, stop.clone()));
    Ok(())
}

/// The span of a call in our log, with the trace that the caller is in.
fn span(request: &http::Request<()>) -> tracing::Span {
    let trace = request.headers().get(proto::trace::TRACEPARENT);
    let trace = trace
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    tracing::debug_span!("call", method = request.uri().path(), trace)
}

/// How long calls under way may go on after the signal to stop.
const GRACE: std::time::Duration = std::time::Duration::from_millis(500);

/// The database below root.
pub(crate) const DATABASE: &str = "metadata.db";

/// Directory of blobs below root, under the real daemon's name.
pub(crate) const CONTENT: &str = "io.containerd.content.v1.content";

/// Directory of a snapshotter below root, under the real daemon's name.
pub(crate) fn snapshotter(name: &str) -> String {
    format!("io.containerd.snapshotter.v1.{name}")
}

fn snapshotters(
    config: &Config,
    store: &metadata::Store,
) -> Result<HashMap<&'static str, Arc<snapshots::Snapshotter>>, snapshots::SnapshotError> {
    let root = |name| config.root.join(snapshotter(name));
    let overlay = Box::new(snapshots::Overlay::new(&root("overlayfs")));
    let native = Box::new(snapshots::Copy::new(&root("native")));
    let all = [
        snapshots::Snapshotter::open(overlay, store.clone())?,
        snapshots::Snapshotter::open(native, store.clone())?,
    ];
    let mut all = Vec::from(all);
    for proxy in &config.proxies {
        if proxy.kind == config::ProxyKind::Snapshot {
            // Named once for the life of the program.
            let name: &'static str = proxy.name.clone().leak();
            all.push(snapshots::Snapshotter::proxy(
                name,
                &proxy.address,
                store.clone(),
            )?);
        }
    }
    Ok(all.into_iter().map(|s| (s.name(), s)).collect())
}

/// What shims are told about us.
fn identity(config: &Config) -> runtime::Identity {
    runtime::Identity {
        address: config.address.clone(),
        ttrpc_address: config.ttrpc_address.clone(),
        // By path: a shim that outlives this binary calls whatever has taken its place.
        program: own_path(),
        debug: config.level.is_debug(),
    }
}

/// Where this program lies, or what has taken its place there.
fn own_path() -> std::path::PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    let path =
        std::env::current_exe().unwrap_or_else(|_| proto::layout::program::CONTAINERD.into());
    let kept = path.as_os_str().as_bytes().strip_suffix(b" (deleted)");
    kept.map_or_else(
        || path.clone(),
        |kept| std::ffi::OsStr::from_bytes(kept).into(),
    )
}

fn stop_on_signal(stop: CancellationToken) -> Result<(), ServeError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping; containers go on");
        notify::stopping();
        stop.cancel();
    });
    Ok(())
}
