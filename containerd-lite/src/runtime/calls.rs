//! What clients ask of a task that exists: mostly one call to its shim, under a deadline.
//!
//! A task whose shim has died answers from what is known of it. A shim that leaves a question unanswered is marked silent: lists
//! do not wait for it again, and a prober asks it now and then until it answers.

use std::sync::Arc;
use std::time::Duration;

use proto::containerd::services::tasks::v1 as api;
use proto::containerd::task::v2 as shim;
use proto::containerd::v1::types::{ProcessInfo, Status as Phase};
use proto::error::ErrorKind;
use proto::prost::Message;
use proto::ttrpc::Status;

use super::shim_client::{ACTION, LIFECYCLE, Method, QUERY, ShimClient, is_broken};
use super::task::{Life, ProcessRef, Task};
use super::{Origin, Result, Runtime, RuntimeError, oom};
use crate::fault;

/// What a shim tells of a process.
pub(crate) type ProcessState = shim::StateResponse;

/// How long a list waits for one shim.
const LIST: Duration = Duration::from_secs(1);
/// How long a broken connection may take to be redialled or found dead.
const SETTLE: Duration = Duration::from_secs(40);

/// What came of a call.
pub(super) enum Asked<A> {
    /// The shim answered.
    Answer(A),
    /// There is no shim any more.
    Dead,
}

impl Runtime {
    /// Calls the shim of a task. A broken connection is waited out; then what only asks is asked again.
    pub(super) async fn ask<Q: Message, A: Message + Default>(
        self: &Arc<Self>,
        task: &Arc<Task>,
        method: Method,
        limit: Duration,
        traceparent: Option<&str>,
        request: &Q,
    ) -> Result<Asked<A>> {
        loop {
            let shim = match task.life() {
                Life::Live(shim) => shim,
                Life::Dead => return Ok(Asked::Dead),
                Life::Adopting => return Err(RuntimeError::Unreached(task.id.clone())),
                Life::Creating | Life::Gone => return Err(RuntimeError::NotFound(task.id.clone())),
            };
            let client = &shim.client;
            let answered = client.call(method, Some(limit), traceparent, request).await;
            match answered {
                Err(status) if status.kind == ErrorKind::DeadlineExceeded => {
                    self.mark_silent(task, client);
                    return Err(RuntimeError::Shim(Status::new(
                        status.kind,
                        format!(
                            "task {}: its shim did not answer {method:?} within {limit:?}",
                            task.id
                        ),
                    )));
                }
                Err(status) if is_broken(&status) => {
                    let settled = settled(task, client).await;
                    let asks = matches!(method, Method::State | Method::Pids | Method::Stats);
                    if settled && (asks || matches!(task.life(), Life::Dead)) {
                        continue;
                    }
                    return Err(RuntimeError::Shim(status));
                }
                answered => {
                    task.set_silent(client, false);
                    return answered.map(Asked::Answer).map_err(RuntimeError::Shim);
                }
            }
        }
    }

    /// The same where a dead shim is an error.
    async fn act<Q: Message>(
        self: &Arc<Self>,
        origin: &Origin,
        (id, operation): (&str, &'static str),
        method: Method,
        limit: Duration,
        request: &Q,
    ) -> Result<()> {
        let task = self.task(&origin.namespace, id).await?;
        let traceparent = origin.traceparent.as_deref();
        match self
            .ask::<Q, ()>(&task, method, limit, traceparent, request)
            .await?
        {
            Asked::Answer(()) => Ok(()),
            Asked::Dead => Err(RuntimeError::ShimDied {
                operation,
                id: id.to_owned(),
            }),
        }
    }

    /// State of one process.
    pub(crate) async fn state(
        self: &Arc<Self>,
        origin: &Origin,
        id: &str,
        process: &ProcessRef,
    ) -> Result<ProcessState> {
        let task = self.task(&origin.namespace, id).await?;
        self.state_of(&task, process, QUERY, origin.traceparent.as_deref())
            .await
    }

    pub(super) async fn state_of(
        self: &Arc<Self>,
        task: &Arc<Task>,
        process: &ProcessRef,
        limit: Duration,
        traceparent: Option<&str>,
    ) -> Result<ProcessState> {
        let request = shim::StateRequest {
            id: task.id.clone(),
            exec_id: process.wire().to_owned(),
        };
        match self
            .ask(task, Method::State, limit, traceparent, &request)
            .await?
        {
            Asked::Answer(state) => Ok(state),
            Asked::Dead => remembered(task, process),
        }
    }

    /// State of all inits of a namespace. A task whose shim does not answer is there with status unknown.
    pub(crate) async fn list(self: &Arc<Self>, namespace: &str) -> Vec<ProcessState> {
        let states = self
            .in_namespace(namespace)
            .into_iter()
            .map(|task| async move {
                let adopted = self.task(namespace, &task.id).await;
                let silent = matches!(task.life(), Life::Live(shim) if shim.silent);
                let state = match adopted {
                    Ok(_) if !silent => self.state_of(&task, &ProcessRef::Init, LIST, None).await,
                    Ok(_) => Err(RuntimeError::Unreached(task.id.clone())),
                    Err(error) => Err(error),
                };
                match state {
                    Ok(state) => Some(state),
                    Err(RuntimeError::NotFound(_)) => None,
                    Err(error) => {
                        tracing::warn!(id = task.id, %error, "list a task whose state is unknown");
                        Some(unknown(&task))
                    }
                }
            });
        let states = futures_util::future::join_all(states).await;
        states.into_iter().flatten().collect()
    }

    /// Starts the init or an exec; its pid.
    pub(crate) async fn start(
        self: &Arc<Self>,
        origin: &Origin,
        id: &str,
        process: ProcessRef,
    ) -> Result<u32> {
        let task = self.task(&origin.namespace, id).await?;
        let request = shim::StartRequest {
            id: id.to_owned(),
            exec_id: process.wire().to_owned(),
        };
        let traceparent = origin.traceparent.as_deref();
        fault::point("start.asked")?;
        let started = self
            .ask(&task, Method::Start, LIFECYCLE, traceparent, &request)
            .await?;
        match started {
            Asked::Answer(shim::StartResponse { pid }) => {
                fault::point("start.told")?;
                // A restored init has no pid before.
                let known = task.process(&process).and_then(|p| p.pid);
                task.note_process(&process, pid);
                if process == ProcessRef::Init && known != Some(pid) {
                    task.bundle.record_created(pid)?;
                }
                Ok(pid)
            }
            Asked::Dead => Err(RuntimeError::ShimDied {
                operation: "start",
                id: id.to_owned(),
            }),
        }
    }

    /// Registers an exec.
    pub(crate) async fn exec(
        self: &Arc<Self>,
        origin: &Origin,
        request: api::ExecProcessRequest,
    ) -> Result<()> {
        let invalid = |e: String| RuntimeError::Invalid(e);
        proto::ids::validate(&request.exec_id).map_err(|e| invalid(format!("exec id: {e}")))?;
        let task = self.task(&origin.namespace, &request.container_id).await?;
        let spec = request.spec.map(|mut spec| {
            spec.value = oom::clamp_process(&spec.value, oom::floor()).into_owned();
            spec
        });
        let process = ProcessRef::Exec(request.exec_id.clone());
        let known = task.process(&process).is_some();
        // Before the call, since a short exec may end before its start is answered.
        task.note_process(&process, 0);
        let wire = shim::ExecProcessRequest {
            id: request.container_id.clone(),
            exec_id: request.exec_id,
            terminal: request.terminal,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            spec,
        };
        fault::point("exec.asked")?;
        let name = (request.container_id.as_str(), "exec in");
        let done = self.act(origin, name, Method::Exec, ACTION, &wire).await;
        fault::point("exec.told")?;
        if done.is_err() && !known {
            task.forget_process(&process);
        }
        done
    }

    /// Sends a signal.
    pub(crate) async fn kill(
        self: &Arc<Self>,
        origin: &Origin,
        request: api::KillRequest,
    ) -> Result<()> {
        let wire = shim::KillRequest {
            id: request.container_id.clone(),
            exec_id: request.exec_id,
            signal: request.signal,
            all: request.all,
        };
        let name = (request.container_id.as_str(), "kill");
        match self.act(origin, name, Method::Kill, ACTION, &wire).await {
            Err(RuntimeError::ShimDied { .. }) => {
                Err(RuntimeError::NoProcess("already finished".to_owned()))
            }
            done => done,
        }
    }

    /// Sets the size of a terminal.
    pub(crate) async fn resize(
        self: &Arc<Self>,
        origin: &Origin,
        request: api::ResizePtyRequest,
    ) -> Result<()> {
        let wire = shim::ResizePtyRequest {
            id: request.container_id.clone(),
            exec_id: request.exec_id,
            width: request.width,
            height: request.height,
        };
        let name = (request.container_id.as_str(), "resize the terminal of");
        self.act(origin, name, Method::ResizePty, QUERY, &wire)
            .await
    }

    /// Closes standard input.
    pub(crate) async fn close_io(
        self: &Arc<Self>,
        origin: &Origin,
        request: api::CloseIoRequest,
    ) -> Result<()> {
        let wire = shim::CloseIoRequest {
            id: request.container_id.clone(),
            exec_id: request.exec_id,
            stdin: request.stdin,
        };
        let name = (request.container_id.as_str(), "close the input of");
        self.act(origin, name, Method::CloseIO, QUERY, &wire).await
    }

    /// Freezes all processes.
    pub(crate) async fn pause(self: &Arc<Self>, origin: &Origin, id: &str) -> Result<()> {
        let wire = shim::PauseRequest { id: id.to_owned() };
        self.act(origin, (id, "pause"), Method::Pause, ACTION, &wire)
            .await
    }

    /// Thaws them.
    pub(crate) async fn resume(self: &Arc<Self>, origin: &Origin, id: &str) -> Result<()> {
        let wire = shim::ResumeRequest { id: id.to_owned() };
        self.act(origin, (id, "resume"), Method::Resume, ACTION, &wire)
            .await
    }

    /// Changes limits.
    pub(crate) async fn update(
        self: &Arc<Self>,
        origin: &Origin,
        request: api::UpdateTaskRequest,
    ) -> Result<()> {
        let wire = shim::UpdateTaskRequest {
            id: request.container_id.clone(),
            resources: request.resources,
            annotations: request.annotations,
        };
        let name = (request.container_id.as_str(), "update");
        self.act(origin, name, Method::Update, ACTION, &wire).await
    }

    /// All processes in the container.
    pub(crate) async fn pids(
        self: &Arc<Self>,
        origin: &Origin,
        id: &str,
    ) -> Result<Vec<ProcessInfo>> {
        let task = self.task(&origin.namespace, id).await?;
        let wire = shim::PidsRequest { id: id.to_owned() };
        let traceparent = origin.traceparent.as_deref();
        match self
            .ask(&task, Method::Pids, ACTION, traceparent, &wire)
            .await?
        {
            Asked::Answer(shim::PidsResponse { processes }) => Ok(processes),
            Asked::Dead => Ok(Vec::new()),
        }
    }

    /// Metrics of the tasks of a namespace that `wanted` takes, as the shims give them. Who does not answer is left out.
    pub(crate) async fn metrics(
        self: &Arc<Self>,
        origin: &Origin,
        wanted: impl Fn(&str) -> bool,
    ) -> Vec<(String, prost_types::Any)> {
        let tasks = self.in_namespace(&origin.namespace);
        let all = tasks
            .into_iter()
            .filter(|task| wanted(&task.id))
            .map(|task| async move {
                let wire = shim::StatsRequest {
                    id: task.id.clone(),
                };
                let traceparent = origin.traceparent.as_deref();
                match self
                    .ask(&task, Method::Stats, QUERY, traceparent, &wire)
                    .await
                {
                    Ok(Asked::Answer(shim::StatsResponse { stats })) => {
                        Some((task.id.clone(), stats?))
                    }
                    Ok(Asked::Dead) => None,
                    Err(error) => {
                        tracing::warn!(id = task.id, %error, "leave a task out of the metrics");
                        None
                    }
                }
            });
        let all = futures_util::future::join_all(all).await;
        all.into_iter().flatten().collect()
    }

    /// Saves the state of the task's processes in the folder `path`.
    pub(crate) async fn checkpoint(
        self: &Arc<Self>,
        origin: &Origin,
        id: &str,
        path: String,
        options: Option<prost_types::Any>,
    ) -> Result<()> {
        let wire = shim::CheckpointTaskRequest {
            id: id.to_owned(),
            path,
            options,
        };
        self.act(
            origin,
            (id, "checkpoint"),
            Method::Checkpoint,
            LIFECYCLE,
            &wire,
        )
        .await
    }
}

/// Whether the task is live through this very connection.
pub(super) fn is_live_with(task: &Task, client: &ShimClient) -> bool {
    matches!(task.life(), Life::Live(shim) if shim.client.is_same(client))
}

/// Waits until the broken connection has been replaced, or the shim been found dead. False if that takes too long.
pub(super) async fn settled(task: &Task, client: &ShimClient) -> bool {
    let changed = task.until(Some(SETTLE), |task| {
        (!is_live_with(task, client)).then_some(())
    });
    changed.await.is_some()
}

/// What is known of a process of a task whose shim is dead.
fn remembered(task: &Task, process: &ProcessRef) -> Result<ProcessState> {
    let known = task.process(process);
    let exit = known
        .and_then(|p| p.exit)
        .ok_or_else(|| RuntimeError::NoProcess(format!("{} not found", process.wire())))?;
    let id = match process {
        ProcessRef::Init => &task.id,
        ProcessRef::Exec(exec) => exec,
    };
    Ok(ProcessState {
        id: id.clone(),
        bundle: task.bundle.path().to_string_lossy().into_owned(),
        pid: exit.pid,
        status: Phase::Stopped.into(),
        exit_status: exit.status,
        exited_at: crate::time::wire(exit.exited_at),
        exec_id: process.wire().to_owned(),
        ..ProcessState::default()
    })
}

/// The init of a task whose shim does not answer.
fn unknown(task: &Task) -> ProcessState {
    let pid = task.process(&ProcessRef::Init).and_then(|p| p.pid);
    ProcessState {
        id: task.id.clone(),
        pid: pid.unwrap_or(0),
        status: Phase::Unknown.into(),
        ..ProcessState::default()
    }
}
