//! The life of a container's task, as its owner leads it: start, exit, and what the restart policy makes of that.

use std::time::Duration;

use proto::error::ErrorKind;
use tokio::time::Instant;

use super::actor::{Actor, Exit};
use super::restart;
use super::state::{Exited, Failure, Running, State};
use crate::clock;
use crate::error::{Error, Result};

/// How soon a restart is tried again that found no containerd.
const AWAY: Duration = Duration::from_secs(1);

impl Actor {
    pub(super) async fn start(&mut self) -> Result<()> {
        if self.make_sure().await? {
            return Ok(());
        }
        match &self.record.state {
            State::Running(running) if running.paused => {
                return Err(Error::conflict(
                    "cannot start a paused container, try unpause instead",
                ));
            }
            State::Running(_) => return Err(Error::not_modified()),
            State::Removing { .. } => {
                return Err(Error::conflict(
                    "container is marked for removal and cannot be started",
                ));
            }
            State::Created { .. } | State::Exited(_) | State::Restarting(_) => {}
        }
        self.timer = None;
        self.pause = Duration::ZERO;
        self.record.restarts = 0;
        self.record.stopped_by_user = false;
        self.launch().await
    }

    /// Starts it because the policy says so.
    pub(super) async fn start_again(&mut self) {
        match self.make_sure().await {
            Ok(false) => {}
            Ok(true) => return,
            Err(e) => {
                tracing::debug!("restart container {}: {e}", self.record.id);
                self.timer = Some(Instant::now() + AWAY);
                return;
            }
        }
        self.record.restarts += 1;
        match super::start::launch(self).await {
            // Not the container has failed, so its policy holds.
            Err(failure) if failure.unknown || failure.error.kind() == ErrorKind::Unavailable => {
                tracing::info!(
                    "restart container {}: {}; trying again",
                    self.record.id,
                    failure.error
                );
                self.record.restarts -= 1;
                self.unsure |= failure.unknown;
                self.timer = Some(Instant::now() + AWAY);
            }
            launched => {
                if let Err(e) = self.launched(launched).await {
                    tracing::warn!("restart container {}: {e}", self.record.id);
                }
            }
        }
    }

    async fn launch(&mut self) -> Result<()> {
        let launched = super::start::launch(self).await;
        self.launched(launched).await
    }

    async fn launched(
        &mut self,
        launched: std::result::Result<Running, super::start::Failed>,
    ) -> Result<()> {
        let before = self.record.state.clone();
        match launched {
            Ok(running) => {
                self.record.state = State::Running(running);
                self.publish();
                self.persist_or_log().await;
                self.emit("start", &[]);
                crate::logs::forward::begin(&self.app, &self.record.id);
                Ok(())
            }
            // No failure is recorded of what nobody knows to have failed.
            Err(failure) if failure.unknown && !self.record.auto_remove() => {
                self.waiting.clear();
                self.unsure = true;
                Err(failure.error)
            }
            Err(failure) => {
                // Whoever waits for output waits in vain.
                self.waiting.clear();
                self.failed(before, &failure).await;
                Err(failure.error)
            }
        }
    }

    async fn failed(&mut self, before: State, failure: &super::start::Failed) {
        let text = failure.error.message().to_owned();
        self.record.state = match before {
            State::Exited(exited) | State::Restarting(exited) => State::Exited(Exited {
                code: failure.code,
                error: text,
                ..exited
            }),
            _ => State::Created {
                failure: Some(Failure {
                    code: failure.code,
                    error: text,
                }),
            },
        };
        self.exits += 1;
        self.code = failure.code;
        self.publish();
        self.persist_or_log().await;
        if self.record.auto_remove()
            && let Err(e) = self.remove(false, true).await
        {
            tracing::error!("remove container {}: {e}", self.record.id);
        }
    }

    pub(super) async fn oom(&mut self) {
        if let State::Running(running) = &mut self.record.state {
            running.oom = true;
            self.publish();
            self.emit("oom", &[]);
        }
    }

    /// The task has ended: the record says so, then the rest is cleared away, then the policy decides.
    pub(super) async fn exited(&mut self, exit: Exit) {
        let State::Running(running) = self.record.state.clone() else {
            return;
        };
        if running.pid != exit.pid {
            // News of a former task.
            return;
        }
        let code = i64::from(exit.code);
        let reason = self.why(&running, code).await;
        let exited = Exited {
            started_at: running.started_at.clone(),
            finished_at: exit.at,
            code,
            oom: running.oom || reason == proto::exit::OUT_OF_MEMORY,
            error: String::new(),
            reason,
        };
        self.settle(exited).await;
    }

    /// Takes over how the task ended.
    pub(super) async fn settle(&mut self, exited: Exited) {
        let ran = ran(&exited);
        self.code = exited.code;
        self.exits += 1;
        let policy = restart::next(
            &self.record.host.restart_policy,
            restart::Exit {
                code: exited.code,
                by_user: self.record.stopped_by_user || self.app.stopping(),
                restarts: self.record.restarts,
                ran,
                pause: self.pause,
            },
        );
        let (code, reason) = (exited.code, exited.reason.clone());
        self.record.state = match policy {
            Some(_) => State::Restarting(exited),
            None if self.record.auto_remove() => State::Removing { code },
            None => State::Exited(exited),
        };
        self.settled = false;
        self.publish();
        self.answer(Ok(()));
        let mut told = vec![
            ("exitCode", code.to_string()),
            ("execDuration", ran.as_secs().to_string()),
        ];
        if !reason.is_empty() {
            told.push(("exitReason", reason));
        }
        self.emit("die", &told);
        // Durable before containerd may forget it. Of one that goes away now nobody will ask: a daemon that dies here finds it
        // without a task, and removes it all the same.
        if !matches!(self.record.state, State::Removing { .. }) {
            self.persist_or_log().await;
        }
        super::stop::clear(self).await;
        self.settled = true;
        self.publish();
        match policy {
            Some(pause) => {
                self.pause = pause;
                self.timer = Some(Instant::now() + pause);
            }
            None if self.record.auto_remove() => {
                // Boxed, since remove may come back here for a task that it had to kill.
                if let Err(e) = Box::pin(self.remove(false, true)).await {
                    tracing::error!("remove container {}: {e}", self.record.id);
                }
            }
            None => {}
        }
    }
}

fn ran(exited: &Exited) -> Duration {
    let moments = (
        clock::parse(&exited.started_at),
        clock::parse(&exited.finished_at),
    );
    match moments {
        (Some(from), Some(to)) => (to - from).try_into().unwrap_or_default(),
        _ => Duration::ZERO,
    }
}
