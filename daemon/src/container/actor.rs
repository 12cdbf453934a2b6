//! The owner of one container: the only place where its record changes.
//!
//! Commands and news of its task come in one queue, so that nothing has to be locked and no exit can overtake the start that
//! caused it. A view is published after every change, before the change is answered and before its event is told. What
//! takes long because the container takes long (stop, wait) is done by the caller, with commands and the view.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::containerd::services::tasks::v1 as tasks;
use proto::containerd::v1::types::{Process, Status};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::attach::{Connection, Files};
use super::record::{self, Held, Record};
use super::state::{Exited, Failure, Running, State};
use super::{Handle, Order, QUEUE, Shared, View, restart};
use crate::App;
use crate::backend::{QUICK, SLOW, TRACE, within};
use crate::clock;
use crate::error::{During, Error, Result};

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T>>;

/// What an owner is asked or told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Start it; not modified if it runs.
    Start(Reply<()>),
    /// Send a signal to the init process. `stops` says that a user wants it down.
    Kill {
        signal: u32,
        stops: bool,
        reply: Reply<()>,
    },
    /// Attach now if it runs, at its next start if not.
    Attach {
        input: bool,
        reply: Reply<Connection>,
    },
    /// Freeze or thaw.
    Freeze { on: bool, reply: Reply<()> },
    /// Give it another name, already reserved.
    Rename { name: String, reply: Reply<()> },
    /// Change limits and restart policy.
    Update {
        body: Box<proto::engine::UpdateBody>,
        reply: Reply<()>,
    },
    /// Remove it.
    Remove {
        force: bool,
        volumes: bool,
        reply: Reply<()>,
    },
    /// Its task has ended.
    Exited(Exit),
    /// A process of it was killed for memory.
    Oom,
    /// What containerd says of its task, after a connect.
    Reconcile {
        task: Option<Box<Process>>,
        first: bool,
        reply: Reply<()>,
    },
}

/// An exit as containerd tells it.
#[derive(Debug, Clone)]
pub(crate) struct Exit {
    pub(crate) pid: u32,
    pub(crate) code: u32,
    /// RFC 3339.
    pub(crate) at: String,
}

/// The owner.
pub(super) struct Actor {
    pub(super) app: Arc<App>,
    pub(super) shared: Arc<Shared>,
    pub(super) record: Held,
    commands: mpsc::Receiver<Order>,
    exits: u64,
    code: i64,
    confirmed: bool,
    /// Nothing of an ended task is left, its output included.
    settled: bool,
    /// The reconciliation that waits for the truth, which is known before it is dealt with.
    unanswered: Option<Reply<()>>,
    /// When the policy starts it again.
    timer: Option<Instant>,
    /// The pause before the last start that the policy made.
    pause: Duration,
    /// Attachers that wait for the next start.
    pub(super) waiting: Vec<(bool, Reply<Connection>)>,
    pub(super) removed: bool,
}

/// Starts the owner of a record.
pub(super) fn spawn(app: Arc<App>, record: Record, confirmed: bool) -> Handle {
    let (sender, commands) = mpsc::channel(QUEUE);
    let record = Held::new(record);
    let view = View {
        record: record.share(),
        exits: 0,
        code: record.state.code(),
        gone: false,
        confirmed,
        settled: true,
    };
    let shared = Arc::new(Shared {
        id: record.id.clone(),
        view: watch::channel(view).0,
        commands: sender,
        execs: Mutex::default(),
    });
    let actor = Actor {
        app,
        shared: shared.clone(),
        code: record.state.code(),
        record,
        commands,
        exits: 0,
        confirmed,
        settled: true,
        unanswered: None,
        timer: None,
        pause: Duration::ZERO,
        waiting: Vec::new(),
        removed: false,
    };
    tokio::spawn(actor.run());
    Handle(shared)
}

impl Actor {
    async fn run(mut self) {
        while !self.removed {
            let timer = self.timer;
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Order { command, trace: Some(trace) }) => {
                        TRACE.scope(trace, self.handle(command)).await;
                    }
                    Some(Order { command, trace: None }) => self.handle(command).await,
                    None => break,
                },
                () = tokio::time::sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {
                    self.timer = None;
                    self.start_again().await;
                }
            }
        }
    }

    async fn handle(&mut self, command: Command) {
        // Whoever asked may have gone; then nobody needs the answer.
        match command {
            Command::Start(reply) => drop(reply.send(self.start().await)),
            Command::Kill {
                signal,
                stops,
                reply,
            } => drop(reply.send(self.kill(signal, stops).await)),
            Command::Attach { input, reply } => self.attach(input, reply).await,
            Command::Freeze { on, reply } => drop(reply.send(self.freeze(on).await)),
            Command::Rename { name, reply } => drop(reply.send(self.rename(name).await)),
            Command::Update { body, reply } => drop(reply.send(self.update(*body).await)),
            Command::Remove {
                force,
                volumes,
                reply,
            } => drop(reply.send(self.remove(force, volumes).await)),
            Command::Exited(exit) => self.exited(exit).await,
            Command::Oom => self.oom().await,
            Command::Reconcile { task, first, reply } => {
                self.unanswered = Some(reply);
                let outcome = self.reconcile(task, first).await;
                self.answer(outcome);
            }
        }
    }

    /// Tells the reconciliation, if one waits, that the record is true now.
    fn answer(&mut self, outcome: Result<()>) {
        if let Some(reply) = self.unanswered.take() {
            self.confirmed |= outcome.is_ok();
            self.publish();
            drop(reply.send(outcome));
        }
    }

    /// Shows the record to everybody.
    pub(super) fn publish(&self) {
        self.shared.view.send_replace(View {
            record: self.record.share(),
            exits: self.exits,
            code: self.code,
            gone: self.removed,
            confirmed: self.confirmed,
            settled: self.settled,
        });
    }

    /// Makes the record durable.
    pub(super) async fn persist(&self) -> Result<()> {
        self.app
            .db
            .put(record::KIND, &self.record.id, &*self.record)
            .await
    }

    /// Makes the record durable where nobody can be told that it failed.
    pub(super) async fn persist_or_log(&self) {
        if let Err(e) = self.persist().await {
            tracing::error!("container {}: {e}", self.record.id);
        }
    }

    /// Tells an event about the container, with further attributes.
    pub(super) fn emit(&self, action: &str, more: &[(&str, String)]) {
        let mut attributes = self.record.attributes();
        for (key, value) in more {
            attributes.insert((*key).to_owned(), value.clone());
        }
        self.app
            .events
            .emit("container", action, &self.record.id, attributes);
    }

    async fn start(&mut self) -> Result<()> {
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
    async fn start_again(&mut self) {
        self.record.restarts += 1;
        if let Err(e) = self.launch().await {
            tracing::warn!("restart container {}: {e}", self.record.id);
        }
    }

    async fn launch(&mut self) -> Result<()> {
        let before = self.record.state.clone();
        match super::start::launch(self).await {
            Ok(running) => {
                self.record.state = State::Running(running);
                self.publish();
                self.persist_or_log().await;
                self.emit("start", &[]);
                Ok(())
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

    async fn kill(&mut self, signal: u32, stops: bool) -> Result<()> {
        if let State::Restarting(exited) = &self.record.state {
            if !stops {
                return Err(self.not_running());
            }
            // Nothing to kill; the pause before the next start is what is stopped.
            self.timer = None;
            self.record.state = State::Exited(exited.clone());
            self.record.stopped_by_user = true;
            self.exits += 1;
            self.publish();
            return self.persist().await;
        }
        let Some(running) = self.record.state.running().cloned() else {
            return Err(self.not_running());
        };
        if stops && !self.record.stopped_by_user {
            self.record.stopped_by_user = true;
            self.publish();
            self.persist().await?;
        }
        let request = tasks::KillRequest {
            container_id: self.record.id.clone(),
            exec_id: String::new(),
            signal,
            all: false,
        };
        let sent = within(QUICK, self.app.backend.tasks().kill(request)).await;
        match sent {
            Ok(()) => {}
            // It has ended by itself; the news of that is on its way.
            Err(e) if e.is_not_found() => return Ok(()),
            Err(e) if e.message().contains("process already finished") => return Ok(()),
            Err(e) => {
                return Err(e.during(format!("Cannot kill container: {}", self.record.id)));
            }
        }
        if running.paused && (stops || signal == 9) {
            // A frozen process dies only when it thaws.
            self.freeze(false).await?;
        }
        self.emit("kill", &[("signal", signal.to_string())]);
        Ok(())
    }

    pub(super) fn not_running(&self) -> Error {
        Error::conflict(format!("container {} is not running", self.record.id))
    }

    async fn attach(&mut self, input: bool, reply: Reply<Connection>) {
        self.waiting.retain(|(_, reply)| !reply.is_closed());
        match &self.record.state {
            State::Running(running) if running.paused => {
                drop(reply.send(Err(Error::conflict(format!(
                    "container {} is paused, unpause the container before attach",
                    self.record.id
                )))))
            }
            State::Running(_) => {
                let files = Files::of(&self.app.config, &self.record.id);
                drop(reply.send(files.connect(input).await));
            }
            State::Removing { .. } => {
                drop(reply.send(Err(super::no_such(&self.record.id))));
            }
            _ => self.waiting.push((input, reply)),
        }
    }

    async fn freeze(&mut self, on: bool) -> Result<()> {
        let id = self.record.id.clone();
        let State::Running(running) = &mut self.record.state else {
            return Err(Error::conflict(format!("Container {id} is not running")));
        };
        match (on, running.paused) {
            (true, true) => {
                return Err(Error::conflict(format!("Container {id} is already paused")));
            }
            (false, false) => return Err(Error::internal(format!("Container {id} is not paused"))),
            _ => {}
        }
        let mut client = self.app.backend.tasks();
        let container_id = id.clone();
        if on {
            let request = tasks::PauseTaskRequest { container_id };
            within(SLOW, client.pause(request)).await
        } else {
            let request = tasks::ResumeTaskRequest { container_id };
            within(SLOW, client.resume(request)).await
        }
        .during(|| format!("{} container {id}", if on { "pause" } else { "unpause" }))?;
        running.paused = on;
        self.publish();
        self.persist().await?;
        self.emit(if on { "pause" } else { "unpause" }, &[]);
        Ok(())
    }

    async fn rename(&mut self, name: String) -> Result<()> {
        let old = std::mem::replace(&mut self.record.name, name);
        if let Err(e) = self.persist().await {
            self.record.name = old;
            return Err(e);
        }
        self.publish();
        self.app.containers.release(&old, &self.record.id);
        self.emit("rename", &[("oldName", format!("/{old}"))]);
        Ok(())
    }

    async fn update(&mut self, body: proto::engine::UpdateBody) -> Result<()> {
        use crate::spec::resources;
        if matches!(self.record.state, State::Removing { .. }) {
            return Err(Error::conflict(
                "container is marked for removal and cannot be \"update\"",
            ));
        }
        let limits = resources::updated(&self.record.host.resources, &body.resources);
        resources::check(&limits)?;
        if !body.restart_policy.name.is_empty() {
            restart::check(&body.restart_policy)?;
            if self.record.auto_remove() && body.restart_policy.name != "no" {
                return Err(Error::conflict(
                    "Restart policy cannot be updated because AutoRemove is enabled for the container",
                ));
            }
        }
        if self.record.state.running().is_some() {
            let spec = serde_json::to_vec(&resources::limits(&limits)?)
                .map_err(|e| Error::internal(format!("encode limits: {e}")))?;
            let request = tasks::UpdateTaskRequest {
                container_id: self.record.id.clone(),
                resources: Some(proto::any::json(proto::any::RESOURCES, spec)),
                ..Default::default()
            };
            within(SLOW, self.app.backend.tasks().update(request))
                .await
                .during(|| format!("Cannot update container {}", self.record.id))?;
        }
        self.record.host.resources = limits;
        if !body.restart_policy.name.is_empty() {
            self.record.host.restart_policy = body.restart_policy;
        }
        self.publish();
        self.persist().await?;
        self.emit("update", &[]);
        Ok(())
    }

    async fn oom(&mut self) {
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
        let exited = Exited {
            started_at: running.started_at.clone(),
            finished_at: exit.at,
            code: exit.code.into(),
            oom: running.oom,
            error: String::new(),
        };
        self.settle(exited).await;
    }

    /// Takes over how the task ended.
    async fn settle(&mut self, exited: Exited) {
        let ran = ran(&exited);
        self.code = exited.code;
        self.exits += 1;
        let policy = restart::next(
            &self.record.host.restart_policy,
            restart::Exit {
                code: exited.code,
                by_user: self.record.stopped_by_user,
                restarts: self.record.restarts,
                ran,
                pause: self.pause,
            },
        );
        let code = exited.code;
        self.record.state = match policy {
            Some(_) => State::Restarting(exited),
            None if self.record.auto_remove() => State::Removing { code },
            None => State::Exited(exited),
        };
        self.settled = false;
        self.publish();
        self.answer(Ok(()));
        self.emit(
            "die",
            &[
                ("exitCode", code.to_string()),
                ("execDuration", ran.as_secs().to_string()),
            ],
        );
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

    /// Makes the record agree with what containerd says. The list may be older than what happened since: whatever does not
    /// agree is asked for once more.
    async fn reconcile(&mut self, listed: Option<Box<Process>>, first: bool) -> Result<()> {
        if matches!(self.record.state, State::Removing { .. }) {
            self.answer(Ok(()));
            return self.remove(true, self.record.auto_remove()).await;
        }
        if !self.agrees(listed.as_deref()) {
            let task = self.task().await?;
            self.agree(task).await?;
        }
        self.answer(Ok(()));
        if first {
            self.first_seen().await;
        }
        Ok(())
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
                    "the task is unknown to containerd; its exit code is lost"
                } else {
                    "the host was restarted"
                };
                self.settle(Exited {
                    started_at: running.started_at,
                    finished_at: clock::now(),
                    code: 255,
                    oom: running.oom,
                    error: error.into(),
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
                    self.record.state = State::Running(Running {
                        pid: task.pid,
                        started_at: clock::now(),
                        paused: task.status() != Status::Running,
                        oom: false,
                        boot_id: super::start::boot_id(),
                    });
                    self.publish();
                    self.persist_or_log().await;
                }
                _ => super::stop::clear(self).await,
            },
            (_, None) => {}
        }
        Ok(())
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
