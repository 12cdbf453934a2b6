//! Stop, restart, wait: what takes as long as the container takes.

use std::time::Duration;

use proto::containerd::services::tasks::v1 as tasks;
use proto::error::ErrorKind;

use super::actor::Actor;
use super::state::State;
use super::why::Asked;
use super::{Command, Handle, View, attach::Files};
use crate::App;
use crate::backend::{QUICK, SLOW, within};
use crate::error::{Error, Result};

/// How long a stop waits when nothing is said.
const DEFAULT: i64 = 10;

/// How long a killed container may take to be gone.
const AFTER_KILL: Duration = Duration::from_secs(10);

/// Stops a container: its signal, time, then SIGKILL. A negative time waits for ever.
pub(crate) async fn stop(
    app: &App,
    handle: &Handle,
    signal: Option<u32>,
    seconds: Option<i64>,
    asked: Asked,
) -> Result<()> {
    let before = handle.view();
    match before.record.state {
        State::Running(_) | State::Restarting(_) => {}
        _ => return Err(Error::not_modified()),
    }
    let signal = signal.unwrap_or_else(|| before.record.stop_signal());
    let seconds = seconds
        .or(before.record.config.stop_timeout)
        .unwrap_or(DEFAULT);
    if let Err(e) = kill(handle, signal, true, asked).await {
        // It may have ended between the look and the signal.
        return if handle.view().exits > before.exits {
            Ok(())
        } else {
            Err(e)
        };
    }
    let patience = match u64::try_from(seconds) {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => Duration::MAX,
    };
    if !ended(handle, before.exits, patience).await {
        tracing::info!(
            "container {} did not end within {seconds} s of signal {signal}: killing it",
            handle.id()
        );
        let late = match asked {
            Asked::User => Asked::StopTimeout { seconds, signal },
            other => other,
        };
        kill(handle, 9, true, late).await?;
        if !ended(handle, before.exits, AFTER_KILL).await {
            return Err(Error::internal(format!(
                "container {} did not end within {} s of SIGKILL",
                handle.id(),
                AFTER_KILL.as_secs()
            )));
        }
    }
    let record = handle.record();
    app.events
        .emit("container", "stop", handle.id(), record.attributes());
    Ok(())
}

/// Stops it if it runs, and starts it.
pub(crate) async fn restart(
    app: &App,
    handle: &Handle,
    signal: Option<u32>,
    seconds: Option<i64>,
    asked: Asked,
) -> Result<()> {
    match stop(app, handle, signal, seconds, asked).await {
        Err(e) if e.kind() != ErrorKind::NotModified => return Err(e),
        _ => {}
    }
    match handle.ask(Command::Start).await {
        Err(e) if e.kind() != ErrorKind::NotModified => return Err(e),
        _ => {}
    }
    let record = handle.record();
    app.events
        .emit("container", "restart", handle.id(), record.attributes());
    Ok(())
}

/// Sends a signal; `stops` says that the user wants it down.
pub(crate) async fn kill(handle: &Handle, signal: u32, stops: bool, asked: Asked) -> Result<()> {
    handle
        .ask(|reply| Command::Kill {
            signal,
            stops,
            asked,
            reply,
        })
        .await
}

/// Whether the task has ended since `exits`, within the time.
async fn ended(handle: &Handle, exits: u64, patience: Duration) -> bool {
    let mut watch = handle.watch();
    let news = watch.wait_for(|view| view.exits > exits || view.gone);
    match tokio::time::timeout(patience, news).await {
        Ok(Ok(_)) => true,
        // The owner ended: it has removed its container.
        Ok(Err(_)) => true,
        Err(_) => false,
    }
}

/// What a wait waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    NotRunning,
    NextExit,
    Removed,
}

impl Condition {
    /// Reads the query's word.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        match text {
            "" | "not-running" => Ok(Self::NotRunning),
            "next-exit" => Ok(Self::NextExit),
            "removed" => Ok(Self::Removed),
            other => Err(Error::invalid(format!("invalid condition: \"{other}\""))),
        }
    }

    fn met(self, since: u64, view: &View) -> bool {
        let running = matches!(view.record.state, State::Running(_) | State::Restarting(_));
        match self {
            Self::NotRunning => view.gone || !running,
            Self::NextExit => view.gone || view.exits > since,
            Self::Removed => view.gone,
        }
    }
}

/// Waits and gives the exit code. What has happened before the call counts from the view taken then.
pub(crate) async fn wait(
    mut watch: tokio::sync::watch::Receiver<View>,
    since: u64,
    condition: Condition,
) -> i64 {
    // Fails only when the owner has gone; its last word is still there then.
    let _ = watch.wait_for(|view| condition.met(since, view)).await;
    watch.borrow().code
}

/// Clears away what an ended task leaves: the task itself, its endpoint, its files. Goes on whatever fails, and says so.
pub(super) async fn clear(actor: &mut Actor) {
    let id = actor.record.id.clone();
    if let Err(e) = delete_task(&actor.app, &id).await {
        tracing::warn!("delete the task of container {id}: {e}");
    }
    clear_host(actor).await;
}

/// Deletes a task. One that still runs, as after a start that failed half-way, is killed first.
pub(super) async fn delete_task(app: &App, id: &str) -> Result<()> {
    let mut client = app.backend.tasks();
    let request = tasks::DeleteTaskRequest {
        container_id: id.to_owned(),
    };
    match within(SLOW, client.delete(request.clone())).await {
        Ok(_) => return Ok(()),
        Err(e) if e.is_not_found() => return Ok(()),
        Err(e) if e.kind() == ErrorKind::FailedPrecondition => {}
        Err(e) => return Err(e),
    }
    let kill = tasks::KillRequest {
        container_id: id.to_owned(),
        signal: 9,
        ..Default::default()
    };
    match within(QUICK, client.kill(kill)).await {
        Ok(()) => {}
        // It ended meanwhile.
        Err(e) if e.is_not_found() => {}
        Err(e) => return Err(e.during("kill it")),
    }
    let wait = tasks::WaitRequest {
        container_id: id.to_owned(),
        ..Default::default()
    };
    match within(AFTER_KILL, client.wait(wait)).await {
        Ok(_) => {}
        Err(e) if e.is_not_found() => return Ok(()),
        Err(e) => return Err(e.during("wait for its end")),
    }
    match within(SLOW, client.delete(request)).await {
        Ok(_) => Ok(()),
        Err(e) if e.is_not_found() => Ok(()),
        Err(e) => Err(e),
    }
}

/// The part of it that lies on the host.
pub(super) async fn clear_host(actor: &mut Actor) {
    let files = Files::of(&actor.app.config, &actor.record.id);
    super::foreign::end(&files).await;
    files.remove();
    super::start::unprepare(actor).await;
}
