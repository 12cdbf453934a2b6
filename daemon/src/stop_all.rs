//! The whole installation is stopped: at the host's shutdown, or to take it away.
//!
//! ```text
//!  end dockerd-lite ─▶ take its place, without an API ─▶ stop every container (own signal, own time)
//!                                                        ─▶ bridge and rules away ─▶ end containerd-lite
//! ```
//!
//! A container that needs longer than the shutdown timeout is killed.
//! Containers stopped here were not stopped by a user: their restart policies hold at the next start.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::container::why::Asked;
use crate::container::{self, stop};
use crate::error::{During, Error, Result};
use crate::{App, build, is_living_daemon, lock, make_private, recover, supervise};

/// How long containerd may take to answer.
const CONTAINERD: Duration = Duration::from_secs(10);

/// How long taking back what a container had may take.
const SETTLING: Duration = Duration::from_secs(10);

/// Stops everything that belongs to this installation.
pub(crate) async fn run(config: Config) -> Result<()> {
    for dir in [&config.data_root, &config.exec_root] {
        make_private(dir)?;
    }
    end_daemon(&config)?;
    let _lock = lock(&config.data_root)?;
    let pidfile = config.pidfile.clone();
    let place = config
        .containerd
        .is_none()
        .then(|| supervise::Place::of(&config));
    let app = build(config, place.as_ref()).await?;
    app.stopping.store(true, Ordering::Relaxed);
    app.containers.adopt(&app);
    let stop = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    if let Some(place) = place.clone() {
        tasks.spawn(supervise::run(place, stop.clone()));
    }
    tasks.spawn(recover::run(app.clone(), stop.clone()));
    app.reconciled.wait(CONTAINERD).await;
    if !app.ready() {
        return Err(Error::unavailable(
            "containerd does not answer: containers run on",
        ));
    }
    stop_containers(&app).await?;
    app.network.teardown().await?;
    stop.cancel();
    while tasks.join_next().await.is_some() {}
    if let Some(place) = place {
        supervise::end(&place).await?;
    }
    // Whoever finds a pidfile of a dead process ignores it.
    let _ = std::fs::remove_file(pidfile);
    Ok(())
}

/// Tells a running daemon to end; the lock on its data root is then waited for.
fn end_daemon(config: &Config) -> Result<()> {
    let text = std::fs::read_to_string(&config.pidfile).unwrap_or_default();
    let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) else {
        return Ok(());
    };
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
        return Ok(());
    };
    if !is_living_daemon(pid.as_raw_nonzero().get().unsigned_abs()) {
        return Ok(());
    }
    pidfd_send_signal(&process, Signal::TERM).during(|| format!("end dockerd-lite {pid:?}"))?;
    for _ in 0..500 {
        if !is_living_daemon(pid.as_raw_nonzero().get().unsigned_abs()) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(Error::conflict(format!(
        "dockerd-lite {pid:?} does not end"
    )))
}

/// Stops all at once; all are tried, the first failure is told.
async fn stop_containers(app: &Arc<App>) -> Result<()> {
    let mut stops = tokio::task::JoinSet::new();
    for handle in app.containers.all() {
        let app = app.clone();
        stops.spawn(async move {
            let asked = stop::stop(&app, &handle, None, None, Asked::Shutdown);
            let outcome = match tokio::time::timeout(app.live().shutdown_timeout, asked).await {
                Ok(outcome) => outcome,
                Err(_) => stop::stop(&app, &handle, Some(9), None, Asked::Shutdown).await,
            };
            settled(&handle).await;
            match outcome {
                Err(e) if e.kind() == proto::error::ErrorKind::NotModified => Ok(()),
                other => {
                    other.during(|| format!("stop container {}", container::Handle::id(&handle)))
                }
            }
        });
    }
    let mut outcome = Ok(());
    while let Some(stopped) = stops.join_next().await {
        let stopped = stopped.unwrap_or_else(|e| Err(Error::internal(e.to_string())));
        outcome = outcome.and(stopped);
    }
    outcome
}

/// Waits until what an ended container had has been taken back; its end is told before that.
async fn settled(handle: &container::Handle) {
    let mut views = handle.watch();
    let done = views.wait_for(|view| view.settled);
    // Whatever then is left is named by whoever finds it.
    let _ = tokio::time::timeout(SETTLING, done).await;
}
