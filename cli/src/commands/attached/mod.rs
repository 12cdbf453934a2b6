//! A container whose streams are connected to ours until it ends: what `run`, `start -a` and `attach` share.
//!
//! ```text
//!  attach (101) -> wait (headers) -> start -> [ streams, exit ] -> exit code
//!                                                | the daemon is lost
//!                                                v
//!                        waited for -> the log from where the streams broke -> exit code
//!                                      our input, by another attach
//! ```
//!
//! The output that came is counted; the log has the same bytes. So after a loss the log is read from where this run began and
//! what was printed is left out: nothing is lost, nothing comes twice. A terminal is attached to again after that, since its
//! log has whole lines only.

mod log;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::task::JoinHandle;

use super::Session;
use super::ending::{self, Condition, WaitError};
use crate::client::{ClientError, Hijacked, Patience};
use crate::error::{Failure, Outcome};
use crate::stream::{self, End, Ours, Plan, Resize};
use crate::terminal;

pub(crate) use log::log_end;

/// How long one stream may go on when the other told that the daemon is lost.
const AFTER_LOSS: Duration = Duration::from_secs(2);
/// When a container that has never run was started, in the daemon's words.
pub(crate) const NEVER: &str = "0001-01-01T00:00:00Z";

/// A container and what of it is connected to us.
pub(crate) struct Attached<'a> {
    pub(crate) session: &'a Session,
    pub(crate) id: String,
    pub(crate) plan: Plan,
    pub(crate) condition: Condition,
    /// When it was started before we did, if we do; none when it runs already.
    pub(crate) started_before: Option<String>,
    /// The log of this run begins after then; none: at its beginning.
    pub(crate) log_since: Option<OffsetDateTime>,
    /// Signals to us are the container's.
    pub(crate) sig_proxy: bool,
}

/// How one connection with the daemon ended.
enum Leg {
    Ended(i64),
    Detached,
    Failed(Failure),
    /// The start was refused.
    Refused(ClientError),
    Lost(ClientError),
}

/// How it all ended.
#[derive(Debug)]
pub(crate) enum Finish {
    /// With this code.
    Ended(i64),
    Detached,
    /// The daemon refused the start.
    Refused(ClientError),
}

type Exit<'a> = Pin<Box<dyn Future<Output = Result<i64, WaitError>> + 'a>>;
type Copying = JoinHandle<std::io::Result<End>>;

impl Attached<'_> {
    /// Connects, starts the container if that is to be done, and stays until it ends or the user goes.
    pub(crate) async fn follow(&self) -> Result<Finish, Failure> {
        let client = &self.session.client;
        let proxy = async {
            if self.sig_proxy {
                return stream::forward(client, &self.id).await;
            }
            stream::terminated().await
        };
        tokio::select! {
            finish = self.legs() => finish,
            code = proxy => Err(Failure::silent(code)),
        }
    }

    async fn legs(&self) -> Result<Finish, Failure> {
        let run = Run {
            attached: self,
            ours: Ours::new(),
            began: OffsetDateTime::now_utc(),
            started: std::cell::Cell::new(self.started_before.is_none()),
        };
        let mut patience = Patience::new(&self.session.client);
        let mut leg = run.first(&mut patience).await;
        loop {
            match leg {
                Leg::Ended(code) => return Ok(Finish::Ended(code)),
                Leg::Detached => return Ok(Finish::Detached),
                Leg::Failed(failure) => return Err(failure),
                Leg::Refused(error) => return Ok(Finish::Refused(error)),
                Leg::Lost(lost) => patience.wait(lost).await?,
            }
            leg = match run.again(&mut patience).await {
                Ok(leg) => leg,
                Err(error) if error.is_loss() => Leg::Lost(error),
                Err(error) => return Err(error.into()),
            };
        }
    }
}

/// What lasts over all connections.
struct Run<'a> {
    attached: &'a Attached<'a>,
    ours: Arc<Ours>,
    began: OffsetDateTime,
    /// The container was started, by us or before.
    started: std::cell::Cell<bool>,
}

impl Run<'_> {
    /// Attaches and waits, then starts, so that no output and no exit of a short container is missed.
    async fn first(&self, patience: &mut Patience<'_>) -> Leg {
        let (attached, session) = (self.attached, self.attached.session);
        let (plan, id) = (&attached.plan, attached.id.as_str());
        // A container that runs may end before the attach, and its end is what is waited for.
        let waits_first = attached.started_before.is_none();
        let mut exit = None;
        if waits_first {
            match ending::begin(session, id, attached.condition).await {
                Ok(begun) => exit = Some(begun),
                Err(error) => return of_error(error),
            }
        }
        let connection = match attach(session, id, plan).await {
            Ok(connection) => connection,
            Err(error) => return of_error(error),
        };
        let copying = tokio::spawn(stream::copy(connection, plan.clone(), self.ours.clone()));
        let exit = match exit {
            Some(exit) => exit,
            None => match ending::begin(session, id, attached.condition).await {
                Ok(exit) => exit,
                Err(error) => {
                    stop(copying).await;
                    return of_error(error);
                }
            },
        };
        if !self.started.get() {
            let path = format!("/containers/{id}/start");
            if let Err(error) = session.client.post(&path).done().await {
                // Waited for, so that the terminal is as it was before anything is printed.
                stop(copying).await;
                if error.is_loss() {
                    return Leg::Lost(error);
                }
                if attached.condition == Condition::Removed {
                    let _ = exit.await;
                }
                return Leg::Refused(error);
            }
            self.started.set(true);
        }
        patience.fine();
        self.stay(copying, Box::pin(ending::of(exit)), waits_first)
            .await
    }

    /// Keeps the container's terminal as large as ours while the streams flow.
    async fn stay(&self, copying: Copying, exit: Exit<'_>, drawn_before: bool) -> Leg {
        let (plan, id) = (&self.attached.plan, &self.attached.id);
        let client = &self.attached.session.client;
        let size = async {
            if plan.tty && terminal::stdout_is_terminal() {
                if drawn_before {
                    stream::redraw(client, id).await;
                }
                stream::follow_size(client, Resize::Container(id.clone())).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            leg = streams(copying, exit, plan.stdout || plan.stderr) => leg,
            () = size => Leg::Detached,
        }
    }

    /// Goes on with a daemon that is back.
    async fn again(&self, patience: &mut Patience<'_>) -> Result<Leg, ClientError> {
        let (attached, session) = (self.attached, self.attached.session);
        let now = match ending::inspect(session, &attached.id).await {
            Ok(now) => Some(now),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        if let Some(now) = &now
            && !self.started.get()
        {
            let never_ran = attached.started_before.as_ref() == Some(&now.state.started_at);
            match (never_ran, self.ours.place().is_at_start()) {
                (true, true) => return Ok(self.first(patience).await),
                // The daemon did not live to see its start; a second run is not what was asked for.
                (true, false) => return Ok(of_exit(Err(ending::unknown(&attached.id)))),
                (false, _) => self.started.set(true),
            }
        }
        patience.fine();
        let mut waiting = Patience::new(&session.client);
        let exit: Exit<'_> = Box::pin(async move {
            ending::resume(
                session,
                &attached.id,
                attached.condition,
                self.began,
                &mut waiting,
            )
            .await
        });
        match &now {
            Some(now) if attached.plan.tty && ending::runs(&now.state) => {
                self.terminal_again(exit).await
            }
            Some(now) => Ok(self.log_to_the_end(now, exit).await),
            None => {
                if attached.plan.stdout || attached.plan.stderr {
                    crate::format::tell(&format!(
                        "docker-lite: container {} was removed while the daemon was away, and its last output with it\n",
                        attached.id
                    ));
                }
                Ok(of_exit(exit.await))
            }
        }
    }
}

/// Waits for the streams and the exit, whichever order they come in.
async fn streams(mut copying: Copying, mut exit: Exit<'_>, wants_output: bool) -> Leg {
    let copied = tokio::select! {
        copied = &mut copying => copied,
        code = &mut exit => {
            // The container has ended, its output perhaps not yet; or the daemon was lost, and the other stream will tell too.
            let patience = match (&code, wants_output) {
                (Ok(_), true) => Duration::MAX,
                (Err(_), _) => AFTER_LOSS,
                (Ok(_), false) => Duration::ZERO,
            };
            match tokio::time::timeout(patience, &mut copying).await {
                Ok(Ok(Ok(End::Detached))) => return Leg::Detached,
                Ok(Ok(Err(error))) => return Leg::Failed(error.into()),
                Ok(_) => {}
                Err(_) => stop(copying).await,
            }
            return of_exit(code);
        }
    };
    match copied {
        Ok(Ok(End::Detached)) => Leg::Detached,
        Ok(Ok(End::Closed)) => of_exit(exit.await),
        Ok(Ok(End::Cut)) => match exit.await {
            Ok(_) => Leg::Failed(Failure::new("the stream ended in the middle of a frame")),
            other => of_exit(other),
        },
        Ok(Err(error)) => Leg::Failed(error.into()),
        Err(error) => Leg::Failed(Failure::new(format!("copy the streams: {error}"))),
    }
}

fn of_exit(exit: Result<i64, WaitError>) -> Leg {
    match exit {
        Ok(code) => Leg::Ended(code),
        Err(WaitError::Lost(error)) => of_error(error),
        Err(WaitError::Failed(why)) => Leg::Failed(Failure::with_code(
            super::create::NOT_RUN,
            format!("error waiting for container: {why}"),
        )),
    }
}

fn of_error(error: ClientError) -> Leg {
    match error.is_loss() {
        true => Leg::Lost(error),
        false => Leg::Failed(error.into()),
    }
}

async fn stop(copying: Copying) {
    copying.abort();
    let _ = copying.await;
}

/// Opens the streams of a container.
async fn attach(session: &Session, id: &str, plan: &Plan) -> Result<Hijacked, ClientError> {
    session
        .client
        .post(&format!("/containers/{id}/attach"))
        .query_some("detachKeys", &plan.detach_keys)
        .query_if("stderr", plan.stderr)
        .query_if("stdin", plan.stdin)
        .query_if("stdout", plan.stdout)
        .query("stream", 1)
        .hijack()
        .await
}

/// The exit code of the program for the exit code of a container.
pub(crate) fn code(code: i64) -> Outcome {
    Ok(code.clamp(0, 255) as u8)
}
