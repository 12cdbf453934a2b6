//! How a container ended, also when the daemon went away while it was waited for.
//!
//! The daemon that comes back knows the exit code as long as it has the container, or has just removed it: then the event of
//! its death is still there. Where nothing tells any more, that is said; no code is made up.

use proto::engine::{ContainerInspect, EventMessage, State, WaitResponse};
use time::OffsetDateTime;
use tokio::task::JoinHandle;

use super::{Session, container_path, filters, on_daemons_clock, stamp};
use crate::client::{ClientError, Patience};
use crate::error::Failure;

/// How long the daemon may take to tell what happened.
const LOOK_BACK: std::time::Duration = std::time::Duration::from_secs(5);

/// A wait that the daemon has taken; the code comes later.
pub(crate) type Exit = JoinHandle<Result<i64, WaitError>>;

/// Why there is no exit code.
#[derive(Debug)]
pub(crate) enum WaitError {
    /// The answer broke off.
    Lost(ClientError),
    /// The daemon could not tell.
    Failed(String),
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Condition {
    /// It does not run, or ends.
    NotRunning,
    /// It ends the next time.
    NextExit,
    /// It is gone.
    Removed,
}

impl Condition {
    fn query(self) -> &'static str {
        match self {
            Condition::NotRunning => "",
            Condition::NextExit => "next-exit",
            Condition::Removed => "removed",
        }
    }
}

/// Asks for the exit code. The daemon is listening for the exit when this returns.
pub(crate) async fn begin(
    session: &Session,
    name: &str,
    condition: Condition,
) -> Result<Exit, ClientError> {
    let answer = session
        .client
        .post(&container_path(name, "/wait"))
        .query_some("condition", condition.query())
        .send()
        .await?;
    Ok(tokio::spawn(async move {
        let cut = answer.broken("the answer ended before the container did");
        let bytes = answer.bytes().await.map_err(WaitError::Lost)?;
        match serde_json::from_slice::<WaitResponse>(&bytes) {
            Err(error) if error.is_eof() => Err(WaitError::Lost(cut)),
            Err(source) => Err(WaitError::Failed(
                ClientError::Decode {
                    attempt: "the wait for the container".to_string(),
                    source,
                }
                .to_string(),
            )),
            Ok(told) => match told.error {
                Some(error) if !error.message.is_empty() => Err(WaitError::Failed(error.message)),
                _ => Ok(told.status_code),
            },
        }
    }))
}

/// The result of a wait; a task that did not come to its end is a failure too.
pub(crate) async fn of(exit: Exit) -> Result<i64, WaitError> {
    exit.await
        .unwrap_or_else(|error| Err(WaitError::Failed(error.to_string())))
}

/// The exit code, after the daemon was away: waits again if the container has not ended since `began`.
pub(crate) async fn resume(
    session: &Session,
    id: &str,
    condition: Condition,
    began: OffsetDateTime,
    patience: &mut Patience<'_>,
) -> Result<i64, WaitError> {
    let lost = WaitError::Lost;
    let state = match inspect(session, id).await {
        Ok(container) => Some(container.state),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(lost(error)),
    };
    let deaths = deaths(session, id, began).await.map_err(lost)?;
    let code = match (condition, state, deaths.as_slice()) {
        // With a restart policy it may run again; what counts is that it ended.
        (Condition::NextExit, _, [first, ..]) => *first,
        (Condition::Removed, Some(_), [first, ..]) => {
            removed(session, id).await?;
            *first
        }
        (Condition::Removed, Some(state), []) if !runs(&state) => {
            removed(session, id).await?;
            state.exit_code
        }
        (_, Some(state), _) if !runs(&state) => state.exit_code,
        (_, None, [.., last]) => *last,
        (_, None, []) => {
            return Err(unknown(id));
        }
        (Condition::Removed, Some(_), _) => again(session, id, condition, patience).await?,
        // What ended between the question and this wait does not run, which is answered at once.
        (_, Some(_), _) => again(session, id, Condition::NotRunning, patience).await?,
    };
    Ok(code)
}

/// Nobody knows.
pub(crate) fn unknown(id: &str) -> WaitError {
    WaitError::Failed(format!(
        "container {id} ended while the daemon was away, and nothing tells its exit code any more"
    ))
}

async fn again(
    session: &Session,
    id: &str,
    condition: Condition,
    patience: &mut Patience<'_>,
) -> Result<i64, WaitError> {
    let exit = begin(session, id, condition)
        .await
        .map_err(WaitError::Lost)?;
    patience.fine();
    of(exit).await
}

/// Waits until it is gone, as the condition says.
async fn removed(session: &Session, id: &str) -> Result<(), WaitError> {
    match begin(session, id, Condition::Removed).await {
        Ok(exit) => of(exit).await.map(drop),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(WaitError::Lost(error)),
    }
}

pub(crate) fn runs(state: &State) -> bool {
    state.running || state.paused || state.restarting
}

/// Asks for a container.
pub(crate) async fn inspect(session: &Session, id: &str) -> Result<ContainerInspect, ClientError> {
    session
        .client
        .get(&container_path(id, "/json"))
        .json()
        .await
}

/// The exit codes of a container that the daemon's events still tell, oldest first.
async fn deaths(
    session: &Session,
    id: &str,
    began: OffsetDateTime,
) -> Result<Vec<i64>, ClientError> {
    let client = &session.client;
    let wanted = filters(&[format!("container={id}"), "event=die".to_string()]);
    let since = on_daemons_clock(client, began).await?;
    let until = on_daemons_clock(client, OffsetDateTime::now_utc()).await?;
    let ask = client
        .get("/events")
        .query("filters", wanted)
        .query("since", stamp(since))
        .query("until", stamp(until))
        .bytes();
    let Ok(told) = tokio::time::timeout(LOOK_BACK, ask).await else {
        return Ok(Vec::new());
    };
    let told = told?;
    let events = told
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<EventMessage>(line).ok());
    Ok(events
        .filter_map(|event| event.actor.attributes.get("exitCode")?.parse().ok())
        .collect())
}

/// Waits for a container by whatever name the user has for it, restarts of the daemon included.
pub(crate) async fn wait_for(session: &Session, name: &str) -> Result<i64, Failure> {
    let began = OffsetDateTime::now_utc();
    let mut exit = begin(session, name, Condition::NotRunning).await?;
    // A name may change its container while the daemon is away, an id does not.
    let (id, told) = tokio::select! {
        biased;
        told = &mut exit => (name.to_string(), Some(told)),
        found = inspect(session, name) => (found.map_or_else(|_| name.to_string(), |found| found.id), None),
    };
    let mut result = match told {
        Some(told) => told.unwrap_or_else(|error| Err(WaitError::Failed(error.to_string()))),
        None => of(exit).await,
    };
    let mut patience = Patience::new(&session.client);
    loop {
        match result {
            Ok(code) => return Ok(code),
            Err(WaitError::Failed(why)) => return Err(Failure::new(why)),
            Err(WaitError::Lost(lost)) => patience.wait(lost).await?,
        }
        result = resume(session, &id, Condition::NotRunning, began, &mut patience).await;
    }
}
