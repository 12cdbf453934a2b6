//! The owner's answers to requests. What takes time is begun here and ends in `outcomes`.

use proto::containerd::events;
use proto::containerd::runc::v1::ProcessDetails;
use proto::containerd::task::v2;
use proto::containerd::v1::types::ProcessInfo;

use super::{Message, Owner, Process, ProcessRef, Reply, Request, TaskError, answer, work};
use crate::io::Stdio;
use crate::process::{Pause, ProcessState};
use crate::runc::{Call, SHORT};
use crate::{clock, diag, stats, sys};

impl Owner {
    pub(super) fn request(&mut self, request: Request) {
        match request {
            Request::State(process, reply) => answer(reply, self.state(&process)),
            Request::Pid(reply) => answer(reply, Ok(self.init.state.pid())),
            Request::Wait(process, reply) => self.wait(&process, reply),
            Request::Start(process, trace, reply) => self.start(process, trace, reply),
            Request::Kill {
                process,
                signal,
                all,
                reply,
            } => self.kill(&process, signal, all, reply),
            Request::Exec {
                id,
                spec,
                stdio,
                reply,
            } => answer(reply, self.add_exec(id, spec, stdio)),
            Request::Resize {
                process,
                width,
                height,
                reply,
            } => {
                answer(reply, self.resize(&process, width, height));
            }
            Request::CloseIo(process, reply) => answer(reply, self.close_io(&process)),
            Request::Pids(reply) => answer(reply, Ok(self.pids())),
            Request::Pause(reply) => self.set_pause(Pause::Paused, reply),
            Request::Resume(reply) => self.set_pause(Pause::No, reply),
            Request::Update(resources, reply) => self.update(resources, reply),
            Request::Stats(reply) => answer(reply, Ok(stats::collect(&self.cgroup))),
            Request::Checkpoint(checkpoint, reply) => self.checkpoint(checkpoint, reply),
            Request::Delete(process, reply) => self.delete(process, reply),
        }
    }

    fn state(&mut self, process: &ProcessRef) -> Result<v2::StateResponse, TaskError> {
        let pause = match process {
            ProcessRef::Init => self.pause,
            ProcessRef::Exec(_) => Pause::No,
        };
        let (id, bundle) = (self.context.id.clone(), self.context.bundle.clone());
        let held = self.process(process)?;
        let exit = held.state.exit().map(|(_, exit)| exit);
        let exec_id = process.exec_id().unwrap_or_default().to_owned();
        Ok(v2::StateResponse {
            id: if exec_id.is_empty() {
                id
            } else {
                exec_id.clone()
            },
            bundle: bundle.to_string_lossy().into_owned(),
            pid: held.state.pid(),
            status: held.state.wire(pause).into(),
            stdin: held.stdio.stdin.clone(),
            stdout: held.stdio.stdout.clone(),
            stderr: held.stdio.stderr.clone(),
            terminal: held.stdio.terminal,
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exit.map(|exit| clock::timestamp(exit.at)),
            exec_id,
        })
    }

    fn wait(&mut self, process: &ProcessRef, reply: Reply<v2::WaitResponse>) {
        match self.process(process) {
            Err(error) => answer(reply, Err(error)),
            Ok(held) => match held.state.exit() {
                Some((_, exit)) => answer(reply, Ok(super::exits::wait_response(&exit))),
                None => {
                    held.waiters.retain(|waiter| !waiter.is_closed());
                    held.waiters.push(reply);
                }
            },
        }
    }

    /// Runs init or an exec. Attachers that have connected by now miss nothing.
    fn start(&mut self, process: ProcessRef, trace: Option<String>, reply: Reply<u32>) {
        if let Err(error) = self.may_start(&process) {
            return answer(reply, Err(error));
        }
        let context = self.context.clone();
        let held = match self.process(&process) {
            Ok(held) => held,
            Err(error) => return answer(reply, Err(error)),
        };
        let live = match held.state {
            ProcessState::Created(live) => Some(live),
            _ => None,
        };
        held.state = ProcessState::Starting { live, held: None };
        if let Some(hub) = &held.hub {
            hub.accept_pending();
        }
        match process {
            ProcessRef::Init if live.is_none() => {
                let (stdio, hub) = (held.stdio.clone(), held.hub.clone());
                let new = work::NewTask {
                    rootfs: Vec::new(),
                    stdio,
                    trace,
                    checkpoint: self.checkpoint.clone(),
                };
                self.spawn(async move {
                    let result = work::restore(&context, new, hub).await;
                    Message::Started(ProcessRef::Init, Box::new(result), reply)
                });
            }
            ProcessRef::Init => self.spawn(async move {
                let result = work::start_init(&context, trace).await;
                Message::Started(ProcessRef::Init, Box::new(result), reply)
            }),
            ProcessRef::Exec(id) => {
                let exec = work::NewExec {
                    id: id.clone(),
                    spec: held.spec.clone(),
                    stdio: held.stdio.clone(),
                    hub: held.hub.clone(),
                    trace,
                };
                self.spawn(async move {
                    let result = work::start_exec(&context, exec).await;
                    Message::Started(ProcessRef::Exec(id), Box::new(result), reply)
                });
            }
        }
    }

    fn may_start(&mut self, process: &ProcessRef) -> Result<(), TaskError> {
        let refuse = |object, state| {
            Err(TaskError::State {
                attempt: "start",
                object,
                state,
            })
        };
        let ended = self.ending.is_some() || self.init.state.exit().is_some();
        let paused = self.pause != Pause::No;
        let is_exec = matches!(process, ProcessRef::Exec(_));
        let held = self.process(process)?;
        match held.state {
            ProcessState::Registered if ended => {
                refuse("process in a stopped", "stopped container's")
            }
            ProcessState::Registered if paused => {
                refuse("process in a paused", "paused container's")
            }
            ProcessState::Registered if held.deletes.is_some() => refuse("container", "deleted"),
            ProcessState::Registered => Ok(()),
            ProcessState::Created(_) if !is_exec && held.deletes.is_none() => Ok(()),
            ProcessState::Created(_) => refuse("container", "deleted"),
            ProcessState::Creating => refuse("container", "half-made"),
            ProcessState::Starting { .. } => refuse("process", "starting"),
            ProcessState::Running(_) => refuse("process", "running"),
            ProcessState::Stopped { .. } => refuse("process", "stopped"),
        }
    }

    fn kill(&mut self, process: &ProcessRef, signal: u32, all: bool, reply: Reply<()>) {
        let held = match self.process(process) {
            Ok(held) => held,
            Err(error) => return answer(reply, Err(error)),
        };
        let pid = match &held.state {
            ProcessState::Stopped { .. } => return answer(reply, Err(TaskError::Finished)),
            state if state.pid() == 0 => {
                let error = TaskError::State {
                    attempt: "kill",
                    object: "process",
                    state: "not yet started",
                };
                return answer(reply, Err(error));
            }
            state => state.pid(),
        };
        held.requested = Some(signal);
        if matches!(process, ProcessRef::Exec(_)) {
            // A child of ours that was not reaped: the number is its own.
            let result = sys::signal(pid, signal).map_err(|source| match source.raw_os_error() {
                Some(libc::ESRCH) => TaskError::Finished,
                _ => TaskError::System {
                    attempt: "kill process",
                    source,
                },
            });
            return answer(reply, result);
        }
        if self.ending.is_some() && !all {
            return answer(reply, Err(TaskError::Finished));
        }
        let context = self.context.clone();
        tokio::spawn(async move { answer(reply, work::kill(&context, signal, all).await) });
    }

    fn add_exec(&mut self, id: String, spec: Vec<u8>, stdio: Stdio) -> Result<(), TaskError> {
        proto::ids::validate(&id).map_err(TaskError::Id)?;
        if self.execs.contains_key(&id) {
            return Err(TaskError::ProcessExists(id));
        }
        let refuse = |state| {
            Err(TaskError::State {
                attempt: "exec in",
                object: "container",
                state,
            })
        };
        match self.init.state {
            _ if self.ending.is_some() || self.init.deletes.is_some() => return refuse("stopped"),
            ProcessState::Stopped { .. } => return refuse("stopped"),
            ProcessState::Creating => return refuse("half-made"),
            _ if self.pause != Pause::No => return refuse("paused"),
            _ => {}
        }
        let hub = stdio.hub()?;
        let mut process = Process::new(ProcessState::Registered, stdio, spec);
        process.hub = hub;
        self.execs.insert(id.clone(), process);
        self.context.publisher.publish(
            "/tasks/exec-added",
            &events::TaskExecAdded {
                container_id: self.context.id.clone(),
                exec_id: id,
            },
        );
        Ok(())
    }

    fn resize(&mut self, process: &ProcessRef, width: u16, height: u16) -> Result<(), TaskError> {
        match &self.process(process)?.io {
            None => Ok(()),
            Some(io) => io
                .resize(width, height)
                .map_err(|source| TaskError::System {
                    attempt: "resize terminal",
                    source,
                }),
        }
    }

    fn close_io(&mut self, process: &ProcessRef) -> Result<(), TaskError> {
        let held = self.process(process)?;
        held.stdin_closed = true;
        if let Some(io) = &mut held.io {
            io.close_stdin();
        }
        Ok(())
    }

    fn pids(&self) -> v2::PidsResponse {
        let exec_of = |pid: u32| {
            let found = self
                .execs
                .iter()
                .find(|(_, exec)| exec.state.is_alive() && exec.state.pid() == pid);
            found.map(|(id, _)| {
                proto::any::pack(&ProcessDetails {
                    exec_id: id.clone(),
                })
            })
        };
        let mut pids = self.cgroup.processes();
        let init = self.init.state.pid();
        if pids.is_empty() && init != 0 && self.init.state.is_alive() {
            pids.push(init);
        }
        v2::PidsResponse {
            processes: pids
                .into_iter()
                .map(|pid| ProcessInfo {
                    pid,
                    info: exec_of(pid),
                })
                .collect(),
        }
    }

    fn set_pause(&mut self, want: Pause, reply: Reply<()>) {
        let verb = if want == Pause::No { "resume" } else { "pause" };
        let allowed = matches!(self.init.state, ProcessState::Running(_))
            && self.ending.is_none()
            && match want {
                Pause::No => self.pause == Pause::Paused,
                _ => self.pause == Pause::No,
            };
        if !allowed {
            let state = match (&self.init.state, self.pause) {
                (ProcessState::Running(_), Pause::No) if self.ending.is_none() => "running",
                (ProcessState::Running(_), Pause::Pausing) => "pausing",
                (ProcessState::Running(_), Pause::Paused) => "paused",
                (ProcessState::Created(_), _) => "created",
                _ => "stopped",
            };
            let error = TaskError::State {
                attempt: verb,
                object: "container",
                state,
            };
            return answer(reply, Err(error));
        }
        if want == Pause::Paused {
            self.pause = Pause::Pausing;
        }
        let context = self.context.clone();
        self.spawn(async move {
            let call = Call::new(verb, [context.id.as_str()]);
            let result = context.runtime.run(call, SHORT).await;
            Message::Paused(
                want,
                result.map_err(|source| TaskError::Runtime { verb, source }),
                reply,
            )
        });
    }

    fn update(&mut self, resources: Vec<u8>, reply: Reply<()>) {
        let context = self.context.clone();
        tokio::spawn(async move { answer(reply, work::update(&context, &resources).await) });
    }

    fn checkpoint(&mut self, checkpoint: super::Checkpoint, reply: Reply<()>) {
        if !matches!(self.init.state, ProcessState::Running(_)) {
            let error = TaskError::State {
                attempt: "checkpoint",
                object: "container",
                state: "not running",
            };
            return answer(reply, Err(error));
        }
        let context = self.context.clone();
        tokio::spawn(async move {
            let result = super::checkpoint::run(&context, &checkpoint).await;
            if result.is_ok() {
                let event = events::TaskCheckpointed {
                    container_id: context.id.clone(),
                    checkpoint: checkpoint.path.clone(),
                };
                context.publisher.publish("/tasks/checkpointed", &event);
            }
            answer(reply, result);
        });
    }

    fn delete(&mut self, process: ProcessRef, reply: Reply<v2::DeleteResponse>) {
        let pause = self.pause;
        let ending = self.ending.is_some();
        let context = self.context.clone();
        let held = match self.process(&process) {
            Ok(held) => held,
            Err(error) => return answer(reply, Err(error)),
        };
        if let Some(deletes) = &mut held.deletes {
            return deletes.push(reply);
        }
        match held.state {
            ProcessState::Creating => {
                let error = TaskError::State {
                    attempt: "delete",
                    object: "container",
                    state: "half-made",
                };
                answer(reply, Err(error));
            }
            ProcessState::Running(_) | ProcessState::Starting { .. } => {
                let is_init = process == ProcessRef::Init;
                let word = if is_init && pause == Pause::Paused {
                    "paused"
                } else {
                    "running"
                };
                if is_init && ending {
                    // It has ended; the delete goes on once its exit has been told.
                    held.deletes = Some(vec![reply]);
                    return;
                }
                answer(reply, Err(TaskError::DeleteAlive(word)));
            }
            ProcessState::Created(_) => {
                held.deletes = Some(vec![reply]);
                held.requested = Some(9);
                tokio::spawn(async move {
                    // The exit that follows goes on with the delete.
                    if let Err(error) = work::kill(&context, 9, false).await {
                        diag::warn(format_args!(
                            "kill container {} before delete: {error}",
                            context.id
                        ));
                    }
                });
            }
            ProcessState::Registered if process == ProcessRef::Init => {
                held.deletes = Some(vec![reply]);
                self.begin_delete(process);
            }
            ProcessState::Registered => {
                self.drop_exec(&process);
                answer(reply, Ok(v2::DeleteResponse::default()));
            }
            ProcessState::Stopped { .. } => {
                held.deletes = Some(vec![reply]);
                self.begin_delete(process);
            }
        }
    }

    pub(super) fn drop_exec(&mut self, process: &ProcessRef) {
        if let Some(id) = process.exec_id() {
            self.execs.remove(id);
        }
    }
}
