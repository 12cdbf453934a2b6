//! Health checks: a command run in the container now and then, whose exit code says how it is.
//!
//! ```text
//!  owner ──publish──▶ follow: one monitor for each running task that has a probe
//!                        │ pause, probe (an exec), result
//!                        ▼
//!                     Cell (read by inspect, list) ──▶ EXEC-ROOT/health/ID
//! ```
//!
//! The monitor is a task of its own, so that a slow probe delays nobody. It ends with the container's task, and rests while that is
//! paused. What it knows lies below exec-root and is taken up by the next daemon; a probe whose daemon died is ended by then.
//! A containerd that does not answer says nothing about the container: such a probe does not count.

mod probe;
mod state;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;

pub(crate) use state::{Health, OnFailure, Settings, Status, check, merge};

use super::actor::Actor;
use super::state::{Running, State};
use super::why::Asked;
use super::{Handle, Record, stop};
use crate::App;
use crate::clock;
use crate::error::{During, Error, Result};
use crate::metrics::count;

/// What is known, and the monitor that may change it.
#[derive(Debug, Default)]
pub(crate) struct Cell(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    health: Option<Arc<Health>>,
    /// Counts monitors: what a former one still says is not heard.
    monitor: u64,
}

impl Cell {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known now.
    pub(crate) fn get(&self) -> Option<Arc<Health>> {
        self.lock().health.clone()
    }

    /// Begins the time of a new monitor.
    fn next(&self) -> u64 {
        let mut inner = self.lock();
        inner.monitor += 1;
        inner.monitor
    }

    /// Takes over what the monitor of that number knows, and keeps it; false if its time is over.
    fn put(&self, app: &App, id: &str, monitor: u64, health: Health) -> bool {
        let mut inner = self.lock();
        if inner.monitor != monitor {
            return false;
        }
        // A file that cannot be written makes a later daemon begin anew, nothing more.
        if let Err(e) = keep(app, id, &health) {
            tracing::warn!("{e}");
        }
        inner.health = Some(Arc::new(health));
        true
    }
}

/// The running monitor of a container; dropping it ends it.
#[derive(Debug)]
pub(super) struct Monitor {
    pid: u32,
    started_at: String,
    task: tokio::task::AbortHandle,
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Monitor {
    fn is_of(&self, running: &Running) -> bool {
        self.pid == running.pid && self.started_at == running.started_at
    }
}

/// Reads what a former daemon knew of the container.
pub(super) fn load(app: &App, record: &Record, cell: &Cell) {
    if Settings::of(&record.config).is_none() || matches!(record.state, State::Created { .. }) {
        return;
    }
    let read = std::fs::read(file(app, &record.id)).ok();
    let known: Option<Health> = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    cell.lock().health = known.map(Arc::new);
}

/// Starts the monitor of a task that has come, ends that of one that has gone.
pub(super) fn follow(actor: &mut Actor) {
    let running = match &actor.record.state {
        State::Running(running) if !running.paused => Some(running.clone()),
        _ => None,
    };
    let Some(running) = running else {
        if actor.monitor.take().is_some() {
            rest(actor);
        }
        return;
    };
    if actor.monitor.as_ref().is_some_and(|m| m.is_of(&running)) {
        return;
    }
    actor.monitor = None;
    let Some(settings) = Settings::of(&actor.record.config) else {
        return;
    };
    let handle = Handle(actor.shared.clone());
    let known = handle.health().get();
    let health = match known {
        // The same task, seen by a former daemon or before a pause.
        Some(known) if known.pid == running.pid && known.started_at == running.started_at => {
            Health::clone(&known)
        }
        known => Health::starting(running.pid, &running.started_at, known.as_deref()),
    };
    let number = handle.health().next();
    handle
        .health()
        .put(&actor.app, handle.id(), number, health.clone());
    let (pid, started_at) = (running.pid, running.started_at);
    let watcher = Watcher {
        app: actor.app.clone(),
        handle,
        settings,
        number,
        started: clock::parse(&started_at).unwrap_or_else(OffsetDateTime::now_utc),
    };
    actor.monitor = Some(Monitor {
        pid,
        started_at,
        task: tokio::spawn(watcher.run(health)).abort_handle(),
    });
}

/// The monitor has ended. A container that is down is unhealthy, as Docker has it; a paused one is what it was.
fn rest(actor: &mut Actor) {
    let handle = Handle(actor.shared.clone());
    let number = handle.health().next();
    let down = !matches!(actor.record.state, State::Running(_));
    if let (true, Some(known)) = (down, handle.health().get()) {
        let health = Health {
            status: Status::Unhealthy,
            ..Health::clone(&known)
        };
        handle.health().put(&actor.app, handle.id(), number, health);
    }
}

/// Forgets what is known of a removed container.
pub(super) fn forget(app: &App, id: &str) {
    // Absent is what is wanted.
    let _ = std::fs::remove_file(file(app, id));
}

fn file(app: &App, id: &str) -> PathBuf {
    app.config.exec_root.join("health").join(id)
}

fn keep(app: &App, id: &str, health: &Health) -> Result<()> {
    let path = file(app, id);
    let what = || format!("write {}", path.display());
    let body =
        serde_json::to_vec(health).map_err(|e| Error::internal(e.to_string()).during(what()))?;
    if let Some(dir) = path.parent() {
        crate::make_private(dir)?;
    }
    crate::replace(&path, body).during(what)
}

/// What a monitor works with.
struct Watcher {
    app: Arc<App>,
    handle: Handle,
    settings: Settings,
    number: u64,
    started: OffsetDateTime,
}

impl Watcher {
    async fn run(self, mut health: Health) {
        probe::end_left_over(&self.app, &self.handle).await;
        let mut last = self.last(&health);
        loop {
            let pause = self.settings.pause(&health, self.ran());
            let waited = elapsed(last, OffsetDateTime::now_utc());
            tokio::time::sleep(pause.saturating_sub(waited)).await;
            let ran = self.ran();
            let result = probe::run(&self.app, &self.handle, &self.settings).await;
            last = OffsetDateTime::now_utc();
            let Some(result) = result else {
                continue;
            };
            let counters = &self.app.counters;
            count(&counters.health_checks);
            if result.exit_code != 0 {
                count(&counters.health_checks_failed);
            }
            let turned = health.take(result, &self.settings, ran);
            let heard =
                self.handle
                    .health()
                    .put(&self.app, self.handle.id(), self.number, health.clone());
            if !heard {
                return;
            }
            if turned {
                self.tell(health.status);
            }
        }
    }

    /// When the last probe of this task ended, or it started.
    fn last(&self, health: &Health) -> OffsetDateTime {
        let end = health.log.last().and_then(|last| clock::parse(&last.end));
        end.filter(|end| *end > self.started)
            .unwrap_or(self.started)
    }

    fn ran(&self) -> Duration {
        elapsed(self.started, OffsetDateTime::now_utc())
    }

    /// The state has changed: an event says so, and the action that the user wants is taken.
    fn tell(&self, status: Status) {
        let record = self.handle.record();
        let action = format!("health_status: {}", status.word());
        self.app
            .events
            .emit("container", &action, &record.id, record.attributes());
        if status != Status::Unhealthy || self.settings.on_failure == OnFailure::Nothing {
            return;
        }
        tracing::info!(
            "container {} is unhealthy: {:?}",
            record.id,
            self.settings.on_failure
        );
        // In a task of its own, since the monitor ends with the container.
        let (app, handle) = (self.app.clone(), self.handle.clone());
        tokio::spawn(act(app, handle, self.settings.on_failure));
    }
}

async fn act(app: Arc<App>, handle: Handle, action: OnFailure) {
    let outcome = match action {
        OnFailure::Nothing => Ok(()),
        OnFailure::Kill => stop::kill(&handle, 9, false, Asked::Unhealthy).await,
        OnFailure::Restart => stop::restart(&app, &handle, None, None, Asked::Unhealthy).await,
        OnFailure::Stop => stop::stop(&app, &handle, None, None, Asked::Unhealthy).await,
    };
    match outcome {
        Err(e) if e.kind() != proto::error::ErrorKind::NotModified => {
            tracing::error!("unhealthy container {}: {action:?}: {e}", handle.id());
        }
        _ => {}
    }
}

fn elapsed(from: OffsetDateTime, to: OffsetDateTime) -> Duration {
    // A clock that was set back makes no time pass.
    (to - from).try_into().unwrap_or_default()
}
