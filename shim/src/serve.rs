//! The serving shim: one thread that lives as long as its containers. Async.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, OFlags};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use ttrpc::r#async::Server;
use ttrpc::r#async::transport::Listener;

use crate::args::Args;
use crate::container::Containers;
use crate::publish::Publisher;
use crate::reaper::Reaper;
use crate::service::{self, Shim};
use crate::transport::{Accepted, Ledger};
use crate::{BoxError, diag, sys};

/// How long events may still be told at the end.
const FLUSH: Duration = Duration::from_secs(2);

/// Serves until everything is over or a signal says so.
pub(crate) fn run(args: &Args) -> Result<(), BoxError> {
    open_log();
    let listener = listener(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let result = runtime.block_on(serve(args, listener));
    // Work that hangs must not keep the process.
    runtime.shutdown_background();
    result
}

/// Points descriptor 2 at the bundle's log fifo. Without one (the daemon is another) the shim is silent.
fn open_log() {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    if let Ok(log) = rustix::fs::open(proto::layout::LOG, flags, Mode::empty())
        && let Err(error) = rustix::stdio::dup2_stderr(&log)
    {
        diag::debug(format_args!("use the log fifo: {error}"));
    }
}

/// The socket: named by a flag, or inherited as descriptor 3 (alone or in the manner of LISTEN_FDS).
fn listener(args: &Args) -> Result<StdListener, BoxError> {
    let listener = match &args.socket {
        Some(path) => {
            let path = path.strip_prefix("unix://").unwrap_or(path);
            crate::start::bind(path)?
        }
        None => {
            let fd: OwnedFd = sys::inherited(3)
                .map_err(|e| format!("take over the listening socket from descriptor 3: {e} (is this run by a daemon?)"))?;
            StdListener::from(fd)
        }
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn serve(args: &Args, listener: StdListener) -> Result<(), BoxError> {
    let path: Option<PathBuf> = listener.local_addr()?.as_pathname().map(Path::to_owned);
    let reaper = Reaper::start().map_err(|e| format!("become the subreaper: {e}"))?;
    // Nothing here needs the bundle as working directory, and it may go before the shim does.
    std::env::set_current_dir("/")?;
    let publisher = Publisher::start(&args.namespace, events_address(args));
    let shim = Arc::new(Shim {
        namespace: args.namespace.clone(),
        address: args.address.clone(),
        listen: path
            .as_deref()
            .map_or_else(String::new, |p| format!("unix://{}", p.display())),
        containers: Containers::default(),
        reaper,
        publisher: publisher.clone(),
        started: SystemTime::now(),
        settling: Arc::default(),
        shutdown: Notify::new(),
    });
    let ledger = Ledger::default();
    let accepted = Accepted::new(UnixListener::from_std(listener)?, ledger.clone());
    let mut server = Server::new()
        .add_listener(Listener::new(accepted))
        .register_service(service::services(&shim));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut dump = signal(SignalKind::user_defined1())?;
    server.start().await?;
    diag::debug(format_args!("serving at {}", shim.listen));
    loop {
        tokio::select! {
            () = shim.shutdown.notified() => {
                publisher.flush(FLUSH).await;
                answered(&ledger).await;
                break;
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = dump.recv() => diag::warn(format_args!("asked for state: {} containers", shim.containers.len())),
        }
    }
    if let Some(path) = path {
        crate::file::remove(&path);
    }
    Ok(())
}

/// Waits until the reply to Shutdown is on the wire.
async fn answered(ledger: &Ledger) {
    for _ in 0..100 {
        if !ledger.holds("Shutdown") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Where events go: as told by the environment, else beside the gRPC socket.
fn events_address(args: &Args) -> Option<String> {
    let told = std::env::var("TTRPC_ADDRESS")
        .ok()
        .filter(|a| !a.is_empty());
    told.or_else(|| (!args.address.is_empty()).then(|| format!("{}.ttrpc", args.address)))
}
