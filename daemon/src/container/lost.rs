//! Calls of a start whose answer was lost, because containerd went away in the middle: what came of them is found out and taken
//! for the answer, so that a start that somebody tries again never runs a container twice.
//!
//! ```text
//!  create ── no answer ──▶ look ─┬─ nothing ───────▶ create again
//!                                └─ created ───────▶ as if answered
//!         ── exists already ─────┬─ created, ended ▶ left by an earlier try: delete, create again
//!                                └─ runs ──────────▶ an earlier try got through: it is started
//!  start  ── no answer ──▶ look ─┬─ created ───────▶ start again
//!                                ├─ runs, ended ───▶ as if answered; its end comes as an event or with the reconciliation
//!                                │                   (of one whose shim has died: killed)
//!                                └─ nothing ───────▶ failed
//! ```

use std::time::Duration;

use proto::containerd::services::tasks::v1 as tasks;
use proto::containerd::v1::types::{Process, Status};
use proto::error::ErrorKind;
use tokio::time::Instant;

use crate::App;
use crate::backend::{QUICK, SLOW, within};
use crate::error::Error;

/// How long a containerd that has gone may take to come back and to know its tasks.
const BACK: Duration = Duration::from_secs(30);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// How containerd-lite says it.
const SHIM_DIED: &str = "its shim has died";

/// Why a task was not made or not started.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// It was refused: nothing runs.
    Refused(Error),
    /// containerd did not come back in time, so nobody knows.
    Unknown(Error),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(error) | Self::Unknown(error) => error.fmt(f),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl Failure {
    /// The same failure, its text led by what was attempted.
    pub(super) fn during(self, what: &str) -> Self {
        match self {
            Self::Refused(error) => Self::Refused(error.during(what)),
            Self::Unknown(error) => Self::Unknown(error.during(what)),
        }
    }
}

/// Result of this module.
type Result<T> = std::result::Result<T, Failure>;

/// What came of a create.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// The task waits for its start.
    Created,
    /// An earlier start got through without its answer.
    Runs { pid: u32 },
}

/// Makes the task, whatever happens to containerd meanwhile.
pub(super) async fn create(app: &App, request: tasks::CreateTaskRequest) -> Result<Made> {
    let deadline = Instant::now() + BACK;
    let mut asked = false;
    loop {
        let error = match within(SLOW, app.backend.tasks().create(request.clone())).await {
            Ok(_) => return Ok(Made::Created),
            Err(error) if is_lost(&error) || error.is_exists() => error,
            Err(error) => return Err(error.into()),
        };
        // What is there now may be what a create of ours made whose answer did not come.
        asked |= is_lost(&error);
        let Some(task) = look(app, &request.container_id, deadline, &error).await? else {
            if Instant::now() > deadline {
                return Err(error.into());
            }
            continue;
        };
        match task.status() {
            Status::Created if asked => return Ok(Made::Created),
            Status::Running | Status::Paused | Status::Pausing => {
                return Ok(Made::Runs { pid: task.pid });
            }
            _ if Instant::now() > deadline => return Err(error.into()),
            _ => super::stop::delete_task(app, &request.container_id).await?,
        }
    }
}

/// Starts the created task, whatever happens to containerd meanwhile; its pid. `before` is the loss of an earlier call that
/// may have begun the start.
pub(super) async fn start(app: &App, id: &str, before: Option<Error>) -> Result<u32> {
    let deadline = Instant::now() + BACK;
    let mut lost = before;
    loop {
        let request = tasks::StartRequest {
            container_id: id.to_owned(),
            exec_id: String::new(),
        };
        let error = match within(SLOW, app.backend.tasks().start(request)).await {
            Ok(reply) => return Ok(reply.pid),
            Err(error) if is_lost(&error) => lost.insert(error).clone(),
            // The start of before is under way below or done, or the shim has died, with or without having started it.
            Err(error)
                if error.kind() == ErrorKind::FailedPrecondition
                    && (lost.is_some() || error.message().contains(SHIM_DIED)) =>
            {
                error
            }
            Err(error) => return Err(error.into()),
        };
        let task = look(app, id, deadline, &error).await?;
        match task.as_ref().map(Process::status) {
            Some(Status::Running | Status::Paused | Status::Pausing | Status::Stopped) => {
                return Ok(task.map_or(0, |task| task.pid));
            }
            Some(_) if lost.is_some() && Instant::now() < deadline => {
                tokio::time::sleep(LOOK).await;
            }
            found => {
                return Err(match (lost, found) {
                    (Some(lost), Some(_)) => Failure::Unknown(lost),
                    _ => error.into(),
                });
            }
        }
    }
}

/// Whether nobody knows what came of the call.
fn is_lost(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unavailable | ErrorKind::DeadlineExceeded | ErrorKind::Cancelled
    )
}

/// The task as it stands, once containerd answers; `error` if it does not until the deadline.
async fn look(app: &App, id: &str, deadline: Instant, error: &Error) -> Result<Option<Process>> {
    let request = tasks::GetRequest {
        container_id: id.to_owned(),
        exec_id: String::new(),
    };
    loop {
        match within(QUICK, app.backend.tasks().get(request.clone())).await {
            Ok(reply) => return Ok(reply.process),
            Err(e) if e.is_not_found() => return Ok(None),
            Err(e) if !is_lost(&e) => return Err(e.into()),
            Err(_) if Instant::now() > deadline => return Err(Failure::Unknown(error.clone())),
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}
