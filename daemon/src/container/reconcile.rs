//! How the owner makes its record agree with what containerd says, after every connect.

use proto::containerd::services::tasks::v1 as tasks;
use proto::containerd::v1::types::{Process, Status};
use tokio::time::Instant;

use super::actor::{Actor, Exit};
use super::attach::Files;
use super::lost::Failure;
use super::restart;
use super::state::{Exited, Running, State};
use super::why;
use crate::backend::{QUICK, within};
use crate::clock;
use crate::error::{Error, Result};

impl Actor {
    /// Makes the record agree with what containerd says. The list may be older than what happened since: whatever does not
    /// agree is asked for once more.
    pub(super) async fn reconcile(
        &mut self,
        listed: Option<Box<Process>>,
        first: bool,
    ) -> Result<()> {
        if matches!(self.record.state, State::Removing { .. }) {
            self.answer(Ok(()));
            return self.remove(true, self.record.auto_remove()).await;
        }
        if !self.make_sure().await? && !self.agrees(listed.as_deref()) {
            let task = self.task().await?;
            self.agree(task).await?;
        }
        self.answer(Ok(()));
        if first {
            self.first_seen().await;
        }
        Ok(())
    }

    /// Finds out what came of a start that was not answered, if there is one; whether it got through.
    pub(super) async fn make_sure(&mut self) -> Result<bool> {
        if !self.unsure {
            return Ok(false);
        }
        let (task, exits) = (self.task().await?, self.exits);
        self.unsure = false;
        self.agree(task).await?;
        let through = self.exits > exits || matches!(self.record.state, State::Running(_));
        if !through {
            super::stop::clear_host(self).await;
        }
        Ok(through)
    }

    fn agrees(&self, task: Option<&Process>) -> bool {
        match (&self.record.state, task) {
            (State::Running(running), Some(task)) => {
                let paused = matches!(task.status(), Status::Paused | Status::Pausing);
                let alive = paused || task.status() == Status::Running;
                alive && running.pid == task.pid && running.paused == paused
            }
            (State::Running(_), None) => false,
            (_, task) => task.is_none(),
        }
    }

    /// What containerd says now.
    async fn task(&self) -> Result<Option<Process>> {
        let request = tasks::GetRequest {
            container_id: self.record.id.clone(),
            exec_id: String::new(),
        };
        match within(QUICK, self.app.backend.tasks().get(request)).await {
            Ok(reply) => Ok(reply.process),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e.during(format!("look up the task of container {}", self.record.id))),
        }
    }

    async fn agree(&mut self, task: Option<Process>) -> Result<()> {
        if self.agrees(task.as_ref()) {
            return Ok(());
        }
        match (self.record.state.clone(), task) {
            (State::Running(running), None) => {
                let boot = super::start::boot_id();
                let error = if running.boot_id == boot {
                    why::LOST
                } else {
                    why::REBOOT
                };
                self.settle(Exited {
                    started_at: running.started_at,
                    finished_at: clock::now(),
                    code: 255,
                    oom: running.oom,
                    error: error.into(),
                    reason: error.into(),
                })
                .await;
            }
            (State::Running(mut running), Some(task)) => match task.status() {
                Status::Stopped => {
                    running.pid = task.pid;
                    self.record.state = State::Running(running);
                    self.exited(Exit {
                        pid: task.pid,
                        code: task.exit_status,
                        at: clock::from_wire(task.exited_at.as_ref()),
                    })
                    .await;
                }
                status => {
                    running.pid = task.pid;
                    running.paused = matches!(status, Status::Paused | Status::Pausing);
                    self.record.state = State::Running(running);
                    self.publish();
                    self.persist_or_log().await;
                }
            },
            // A start that we did not live to finish.
            (_, Some(task)) => match task.status() {
                Status::Running | Status::Paused | Status::Pausing => {
                    let paused = task.status() != Status::Running;
                    self.take_over(task.pid, paused).await;
                }
                // Its shim does not tell; the next look may.
                Status::Unknown => self.unsure = true,
                // The start was asked for: it goes through, or is under way.
                Status::Created if self.files().is_asked() => self.go_on().await,
                Status::Stopped if self.is_news(&task) => {
                    let at = clock::from_wire(task.exited_at.as_ref());
                    self.timer = None;
                    self.record.state = State::Running(Running {
                        pid: task.pid,
                        started_at: at.clone(),
                        paused: false,
                        oom: false,
                        boot_id: super::start::boot_id(),
                    });
                    self.emit("start", &[]);
                    self.exited(Exit {
                        pid: task.pid,
                        code: task.exit_status,
                        at,
                    })
                    .await;
                }
                _ => super::stop::clear(self).await,
            },
            (_, None) => {}
        }
        Ok(())
    }

    /// Whether an ended task is one whose start and end nobody has recorded: not one that was never started, nor what is left
    /// of a recorded end.
    fn is_news(&self, task: &Process) -> bool {
        self.files().is_asked()
            && match &self.record.state {
                State::Created { .. } => true,
                State::Exited(exited) | State::Restarting(exited) => {
                    exited.finished_at != clock::from_wire(task.exited_at.as_ref())
                }
                State::Running(_) | State::Removing { .. } => false,
            }
    }

    fn files(&self) -> Files {
        Files::of(&self.app.config, &self.record.id)
    }

    /// Brings a start to its end that was asked for by somebody who did not live to see it.
    async fn go_on(&mut self) {
        let before = Error::unavailable("the daemon that asked for the start has gone");
        match super::lost::start(&self.app, &self.record.id, Some(before)).await {
            Ok(pid) => self.take_over(pid, false).await,
            Err(error @ Failure::Unknown(_)) => {
                tracing::warn!(
                    "go on with the start of container {}: {error}",
                    self.record.id
                );
                self.unsure = true;
            }
            Err(error) => {
                self.files().forget_asked();
                tracing::warn!(
                    "go on with the start of container {}: {error}",
                    self.record.id
                );
                super::stop::clear(self).await;
            }
        }
    }

    /// A task runs that the record does not know of.
    async fn take_over(&mut self, pid: u32, paused: bool) {
        self.timer = None;
        self.record.state = State::Running(Running {
            pid,
            started_at: clock::now(),
            paused,
            oom: false,
            boot_id: super::start::boot_id(),
        });
        self.publish();
        self.persist_or_log().await;
        self.emit("start", &[]);
    }

    /// What a fresh daemon owes a container that is down.
    async fn first_seen(&mut self) {
        match self.record.state.clone() {
            State::Running(_) => self.reclaim().await,
            // A pause before a restart that we did not live to end.
            State::Restarting(_) => self.timer = Some(Instant::now()),
            State::Exited(_) if self.record.auto_remove() => {
                if let Err(e) = self.remove(false, true).await {
                    tracing::error!("remove container {}: {e}", self.record.id);
                }
            }
            State::Exited(exited) => {
                super::stop::clear_host(self).await;
                let policy = &self.record.host.restart_policy;
                let again = self.timer.is_none()
                    && !self.app.stopping()
                    && restart::at_boot(
                        policy,
                        self.record.stopped_by_user,
                        exited.code,
                        self.record.restarts,
                    );
                if again {
                    self.timer = Some(Instant::now());
                    self.record.state = State::Restarting(exited);
                    self.publish();
                }
            }
            State::Created { .. } | State::Removing { .. } => super::stop::clear_host(self).await,
        }
    }

    /// Tells the other parts that a running container of before is still there.
    async fn reclaim(&mut self) {
        if let Err(e) = super::start::restore(self).await {
            tracing::error!("restore container {}: {e}", self.record.id);
        }
    }
}
