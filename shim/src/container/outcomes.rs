//! What the owner does when work is done: new states, events, replies. It is begun in `requests`.

use proto::containerd::events;
use proto::containerd::task::v2;

use super::{Message, Owner, ProcessRef, Reply, TaskError, answer, work};
use crate::clock;
use crate::process::{Pause, ProcessState};

impl Owner {
    pub(super) fn created(&mut self, result: Result<work::Made, TaskError>) {
        let reply = self.create_reply.take();
        let pid = match result {
            Ok(work::Made::Created(created)) => {
                let live = created.live;
                self.init.state = ProcessState::Created(live);
                self.take_init(created);
                live.pid
            }
            Ok(work::Made::Checkpointed(hub)) => {
                self.init.state = ProcessState::Registered;
                self.init.hub = hub;
                0
            }
            Err(error) => {
                self.finish();
                if let Some(reply) = reply {
                    answer(reply, Err(error));
                }
                return;
            }
        };
        let stdio = &self.init.stdio;
        let checkpoint = self.checkpoint.as_ref();
        self.context.publisher.publish(
            "/tasks/create",
            &events::TaskCreate {
                container_id: self.context.id.clone(),
                bundle: self.context.bundle.to_string_lossy().into_owned(),
                rootfs: std::mem::take(&mut self.rootfs),
                io: Some(events::TaskIo {
                    stdin: stdio.stdin.clone(),
                    stdout: stdio.stdout.clone(),
                    stderr: stdio.stderr.clone(),
                    terminal: stdio.terminal,
                }),
                checkpoint: checkpoint
                    .map(|path| path.to_string_lossy().into_owned())
                    .unwrap_or_default(),
                pid,
            },
        );
        if let Some(reply) = reply {
            answer(reply, Ok(pid));
        }
    }

    /// Takes over the process of init and what came with it.
    fn take_init(&mut self, created: work::Created) {
        self.init.hub = created.hub;
        self.init.set_io(created.io);
        self.cgroup = created.cgroup;
        self.watch_exit(ProcessRef::Init, created.live, created.exit);
        self.watch_oom();
    }

    fn tell_started(&self, pid: u32) {
        self.context.publisher.publish(
            "/tasks/start",
            &events::TaskStart {
                container_id: self.context.id.clone(),
                pid,
            },
        );
    }

    pub(super) fn started(
        &mut self,
        process: ProcessRef,
        result: Result<work::Started, TaskError>,
        reply: Reply<u32>,
    ) {
        let Ok(held) = self.process(&process) else {
            return answer(reply, Err(TaskError::Gone));
        };
        let ProcessState::Starting { live, held: early } = held.state else {
            return answer(reply, Err(TaskError::Gone));
        };
        match (result, live) {
            (Ok(work::Started::Init), Some(live)) => {
                held.state = ProcessState::Running(live);
                self.tell_started(live.pid);
                answer(reply, Ok(live.pid));
            }
            (Ok(work::Started::Restored(created)), _) => {
                let pid = created.live.pid;
                held.state = ProcessState::Running(created.live);
                self.tell_started(pid);
                self.take_init(created);
                answer(reply, Ok(pid));
            }
            (Ok(work::Started::Exec { live, exit, io }), _) => {
                held.state = ProcessState::Running(live);
                held.set_io(io);
                let exec_id = process.exec_id().unwrap_or_default().to_owned();
                self.context.publisher.publish(
                    "/tasks/exec-started",
                    &events::TaskExecStarted {
                        container_id: self.context.id.clone(),
                        exec_id,
                        pid: live.pid,
                    },
                );
                self.watch_exit(process.clone(), live, exit);
                answer(reply, Ok(live.pid));
            }
            (Ok(work::Started::Init), None) => answer(reply, Err(TaskError::Gone)),
            (Err(error), live) => {
                held.state = live.map_or(ProcessState::Registered, ProcessState::Created);
                answer(reply, Err(error));
            }
        }
        if let (Some(exit), Some(live)) = (early, live) {
            self.exited(process, live, exit);
        }
        self.end_if_last();
    }

    pub(super) fn paused(&mut self, want: Pause, result: Result<(), TaskError>, reply: Reply<()>) {
        let container_id = self.context.id.clone();
        match (&result, want) {
            (Ok(()), Pause::No) => {
                self.pause = Pause::No;
                self.context
                    .publisher
                    .publish("/tasks/resumed", &events::TaskResumed { container_id });
            }
            (Ok(()), _) => {
                self.pause = Pause::Paused;
                self.context
                    .publisher
                    .publish("/tasks/paused", &events::TaskPaused { container_id });
            }
            (Err(_), Pause::No) => {}
            (Err(_), _) => self.pause = Pause::No,
        }
        answer(reply, result);
    }

    /// The process has ended and somebody wants it gone.
    pub(super) fn begin_delete(&mut self, process: ProcessRef) {
        let context = self.context.clone();
        let Ok(held) = self.process(&process) else {
            return;
        };
        let io = held.io.take();
        held.hub = None;
        self.spawn(async move {
            let result = match &process {
                ProcessRef::Init => work::delete_init(&context, io).await,
                ProcessRef::Exec(id) => {
                    work::delete_exec(&context, id, io).await;
                    Ok(())
                }
            };
            Message::Deleted(process, result)
        });
    }

    pub(super) fn deleted(&mut self, process: ProcessRef, result: Result<(), TaskError>) {
        let Ok(held) = self.process(&process) else {
            return;
        };
        let replies = held.deletes.take().unwrap_or_default();
        let (pid, exit) = (held.state.pid(), held.state.exit().map(|(_, exit)| exit));
        let response = v2::DeleteResponse {
            pid,
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exit.map(|exit| clock::timestamp(exit.at)),
        };
        if let Err(error) = result {
            let status = proto::ttrpc::Status::from(error);
            for reply in replies {
                // A client that left does not want it.
                let _ = reply.send(Err(status.clone()));
            }
            return;
        }
        match &process {
            ProcessRef::Exec(_) => self.drop_exec(&process),
            ProcessRef::Init => {
                self.context.publisher.publish(
                    "/tasks/delete",
                    &events::TaskDelete {
                        container_id: self.context.id.clone(),
                        pid: response.pid,
                        exit_status: response.exit_status,
                        exited_at: response.exited_at,
                        id: String::new(),
                    },
                );
                self.finish();
            }
        }
        for reply in replies {
            answer(reply, Ok(response));
        }
    }
}
