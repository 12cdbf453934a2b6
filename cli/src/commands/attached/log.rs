//! What a container wrote while the daemon was away, and from then on: out of its log.

use std::time::Duration;

use proto::engine::ContainerInspect;
use time::OffsetDateTime;
use tokio::io::AsyncReadExt as _;

use super::super::{Session, ending, stamp};
use super::{Exit, Leg, Run, attach, of_exit, stop};
use crate::client::{Answer, ClientError};
use crate::error::Failure;
use crate::stream::{self, Messages, Plan, Rest};

/// How long a log may be silent before what it has is taken for all that there is.
const SILENCE: Duration = Duration::from_millis(500);
/// How long what a stream has brought already takes to be read.
const ALREADY_THERE: Duration = Duration::from_millis(30);

impl Run<'_> {
    /// A terminal is attached to again. What it showed meanwhile comes from the log.
    pub(super) async fn terminal_again(&self, exit: Exit<'_>) -> Result<Leg, ClientError> {
        let (attached, session) = (self.attached, self.attached.session);
        let mut connection = attach(session, &attached.id, &attached.plan).await?;
        let mut rest = Rest::of(&self.ours.place(), attached.log_since.is_some());
        let mut log = self.log(false).await?;
        let mut missed = Vec::new();
        while let Some(piece) = log.piece().await? {
            missed.extend(rest.feed(1, &piece));
        }
        missed.extend(rest.give_up_searching()[0].1.as_slice());
        // What came on the stream while the log was read is in both.
        let mut come = vec![0; 64 * 1024];
        let read = tokio::time::timeout(ALREADY_THERE, connection.io.read(&mut come)).await;
        come.truncate(read.ok().and_then(Result::ok).unwrap_or(0));
        missed.extend(&come[stream::joint(&missed, &come)..]);
        if let Err(error) = self.ours.print(1, &missed).await {
            return Ok(Leg::Failed(error.into()));
        }
        let copying = tokio::spawn(stream::copy(
            connection,
            attached.plan.clone(),
            self.ours.clone(),
        ));
        Ok(self.stay(copying, exit, true).await)
    }

    /// The output comes from the log from now on; our input goes by an attach of its own.
    pub(super) async fn log_to_the_end(&self, now: &ContainerInspect, exit: Exit<'_>) -> Leg {
        let (attached, session) = (self.attached, self.attached.session);
        let mut input = None;
        if attached.plan.stdin && ending::runs(&now.state) {
            let plan = Plan {
                stdout: false,
                stderr: false,
                ..attached.plan.clone()
            };
            match attach(session, &attached.id, &plan).await {
                Ok(connection) => {
                    input = Some(tokio::spawn(stream::copy(
                        connection,
                        plan,
                        self.ours.clone(),
                    )));
                }
                Err(error) if error.is_loss() => return Leg::Lost(error),
                // It may just have ended.
                Err(_) => {}
            }
        }
        let output = async {
            if !attached.plan.stdout && !attached.plan.stderr {
                return Ok(None);
            }
            match self.print_log().await? {
                Some(refused) if !refused.is_loss() => {
                    crate::format::tell(&format!(
                        "docker-lite: what the container writes since the daemon was away cannot be shown: {refused}\n"
                    ));
                    Ok(None)
                }
                told => Ok(told),
            }
        };
        let both = tokio::try_join!(output, async { Ok(exit.await) });
        if let Some(input) = input {
            stop(input).await;
        }
        match both {
            Err(failure) => Leg::Failed(failure),
            Ok((Some(lost), _)) => Leg::Lost(lost),
            Ok((None, ended)) => of_exit(ended),
        }
    }

    async fn log(&self, follow: bool) -> Result<Answer, ClientError> {
        let (plan, id) = (&self.attached.plan, &self.attached.id);
        self.attached
            .session
            .client
            .get(&format!("/containers/{id}/logs"))
            .query_if("follow", follow)
            .query_some(
                "since",
                &self.attached.log_since.map(stamp).unwrap_or_default(),
            )
            .query_if("stderr", plan.stderr)
            .query_if("stdout", plan.stdout)
            .query("tail", "all")
            .send()
            .await
    }

    /// Prints what the log has and what follows; returns what broke it.
    async fn print_log(&self) -> Result<Option<ClientError>, Failure> {
        let mut rest = Rest::of(&self.ours.place(), self.attached.log_since.is_some());
        let mut answer = match self.log(true).await {
            Ok(answer) => answer,
            Err(error) => return Ok(Some(error)),
        };
        let mut messages = Messages::new(self.attached.plan.tty);
        loop {
            let piece = if rest.is_searching() {
                tokio::time::timeout(SILENCE, answer.piece()).await
            } else {
                Ok(answer.piece().await)
            };
            let fresh = match piece {
                Ok(Ok(Some(piece))) => messages
                    .feed(&piece)?
                    .into_iter()
                    .map(|message| {
                        let bytes = [message.stamp_text, message.text].concat();
                        (message.stream, rest.feed(message.stream, &bytes))
                    })
                    .collect(),
                Ok(Ok(None)) => {
                    for (stream, bytes) in rest.give_up_searching() {
                        self.ours.print(stream, &bytes).await?;
                    }
                    return Ok(None);
                }
                Ok(Err(error)) => return Ok(Some(error)),
                Err(_silence) => rest.give_up_searching().to_vec(),
            };
            for (stream, bytes) in fresh {
                if !bytes.is_empty() {
                    self.ours.print(stream, &bytes).await?;
                }
            }
        }
    }
}

/// When the last line of a container's log was written, or just after; none if there is none.
pub(crate) async fn log_end(
    session: &Session,
    container: &ContainerInspect,
) -> Option<OffsetDateTime> {
    let bytes = session
        .client
        .get(&format!("/containers/{}/logs", container.id))
        .query("stderr", 1)
        .query("stdout", 1)
        .query("tail", 1)
        .query("timestamps", 1)
        .bytes()
        .await
        .ok()?;
    let messages = Messages::new(container.config.tty).feed(&bytes).ok()?;
    let last = messages.iter().rev().find_map(|message| message.at)?;
    Some(last + time::Duration::NANOSECOND)
}
