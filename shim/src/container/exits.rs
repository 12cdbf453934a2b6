//! The owner's part when processes end: record, then event, then replies.

use std::time::Duration;

use proto::containerd::events;
use proto::containerd::task::v2;
use tokio::sync::oneshot;

use super::{Ending, Message, Owner, ProcessRef, TaskError, answer, work};
use crate::exit::{Cause, ExitRecord};
use crate::process::{Live, Pause, ProcessState};
use crate::reaper::Exit;
use crate::{clock, diag, oom};

/// How long the exit of init waits for those of execs.
const LAST: Duration = Duration::from_secs(10);

/// The reply to Wait.
pub(super) fn wait_response(exit: &Exit) -> v2::WaitResponse {
    v2::WaitResponse {
        exit_status: exit.status,
        exited_at: Some(clock::timestamp(exit.at)),
    }
}

impl Owner {
    /// Brings the exit into the inbox when it comes.
    pub(super) fn watch_exit(
        &self,
        process: ProcessRef,
        live: Live,
        exit: oneshot::Receiver<Exit>,
    ) {
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            if let Ok(exit) = exit.await {
                // An owner that is over has nothing left to be told about.
                let _ = inbox.send(Message::Exited(process, live, exit)).await;
            }
        });
    }

    pub(super) fn watch_oom(&mut self) {
        let inbox = self.inbox.clone();
        let cgroup = self.cgroup.clone();
        self.oom_watch = Some(tokio::spawn(async move {
            let mut watch = match oom::Watch::new(&cgroup) {
                Ok(Some(watch)) => watch,
                Ok(None) => return,
                Err(error) => return diag::warn(format_args!("watch for out of memory: {error}")),
            };
            while watch.next().await {
                if inbox.send(Message::Oom).await.is_err() {
                    return;
                }
            }
        }));
    }

    pub(super) fn out_of_memory(&mut self) {
        if self.init.state.exit().is_some() {
            return;
        }
        let container_id = self.context.id.clone();
        self.context
            .publisher
            .publish("/tasks/oom", &events::TaskOom { container_id });
    }

    /// A process was reaped.
    pub(super) fn exited(&mut self, process: ProcessRef, live: Live, exit: Exit) {
        let Ok(held) = self.process(&process) else {
            return;
        };
        if let ProcessState::Starting { held: early, .. } = &mut held.state {
            *early = Some(exit);
            return;
        }
        if let Some(io) = &held.io {
            io.process_left();
        }
        self.record(&process, live, &exit);
        match process {
            ProcessRef::Exec(id) => {
                self.end_exec(&id, live, exit);
                self.end_if_last();
            }
            ProcessRef::Init => {
                self.ending = Some(Ending {
                    live,
                    exit,
                    rest_killed: self.context.private_pids,
                });
                if !self.context.private_pids {
                    let context = self.context.clone();
                    self.spawn(async move {
                        work::kill_rest(&context).await;
                        Message::RestKilled
                    });
                }
                self.end_if_last();
                if self.ending.is_some() {
                    self.spawn(async {
                        tokio::time::sleep(LAST).await;
                        Message::EndOverdue
                    });
                }
            }
        }
    }

    /// Writes the exit record, before anybody is told.
    fn record(&mut self, process: &ProcessRef, live: Live, exit: &Exit) {
        let killed = exit.signal == Some(9);
        let out_of_memory = killed && self.cgroup.memory_kills() > 0;
        let init_ended = self.ending.is_some();
        let requested = self.process(process).ok().and_then(|held| held.requested);
        let cause = Cause {
            requested,
            out_of_memory,
            init_ended,
        };
        let record = ExitRecord::new(live, exit, cause.reason(exit));
        if let Err(error) = record.store(&self.context.bundle, process.exec_id()) {
            diag::warn(format_args!("record exit: {}", crate::chain(&error)));
        }
    }

    fn end_exec(&mut self, id: &str, live: Live, exit: Exit) {
        let container_id = self.context.id.clone();
        let Some(held) = self.execs.get_mut(id) else {
            return;
        };
        held.state = ProcessState::Stopped { live, exit };
        self.context.publisher.publish(
            "/tasks/exit",
            &events::TaskExit {
                container_id,
                id: id.to_owned(),
                pid: live.pid,
                exit_status: exit.status,
                exited_at: Some(clock::timestamp(exit.at)),
            },
        );
        for waiter in held.waiters.drain(..) {
            answer(waiter, Ok(wait_response(&exit)));
        }
    }

    /// Tells the exit of init once nothing else of the container is alive.
    pub(super) fn end_if_last(&mut self) {
        let ready = self
            .ending
            .as_ref()
            .is_some_and(|ending| ending.rest_killed);
        if ready && !self.execs.values().any(|exec| exec.state.is_alive()) {
            self.end_init();
        }
    }

    pub(super) fn end_init(&mut self) {
        let Some(Ending { live, exit, .. }) = self.ending.take() else {
            return;
        };
        self.init.state = ProcessState::Stopped { live, exit };
        self.pause = Pause::No;
        if let Some(watch) = self.oom_watch.take() {
            watch.abort();
        }
        let id = self.context.id.clone();
        self.context.publisher.publish(
            "/tasks/exit",
            &events::TaskExit {
                container_id: id.clone(),
                id,
                pid: live.pid,
                exit_status: exit.status,
                exited_at: Some(clock::timestamp(exit.at)),
            },
        );
        for waiter in self.init.waiters.drain(..) {
            answer(waiter, Ok(wait_response(&exit)));
        }
        // Execs that were never started will never be.
        for exec in self.execs.values_mut() {
            if exec.state == ProcessState::Registered {
                for waiter in exec.waiters.drain(..) {
                    answer(waiter, Err(TaskError::Finished));
                }
            }
        }
        if self.init.deletes.is_some() {
            self.begin_delete(ProcessRef::Init);
        }
    }
}
