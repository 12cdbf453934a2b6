//! The task service on the wire: requests in, questions to the owner, answers out. Versions 2 and 3 have the same messages
//! and share the table of methods; `lite.control.v1` tells of the shim itself.
//!
//! Async.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use proto::containerd::runc::v1::CheckpointOptions;
use proto::containerd::task::{v2, v3};
use proto::error::ErrorKind;
use proto::lite::control::v1 as control;
use proto::ttrpc::{Call, Service, Status, TtrpcContext, async_trait};
use tokio::sync::Notify;
use v2::task_ttrpc::Task;

use crate::container::{Containers, Context, NewTask, ProcessRef, Request, TaskError};
use crate::io::Stdio;
use crate::options::RuntimeOptions;
use crate::publish::Publisher;
use crate::reaper::Reaper;
use crate::runc::Runc;
use crate::spec::Spec;
use crate::{clock, sys};

/// The serving shim.
#[derive(Debug)]
pub(crate) struct Shim {
    pub(crate) namespace: String,
    /// containerd's gRPC socket.
    pub(crate) address: String,
    /// Where the shim itself listens, as a URI.
    pub(crate) listen: String,
    pub(crate) containers: Containers,
    pub(crate) reaper: Reaper,
    pub(crate) publisher: Publisher,
    pub(crate) started: SystemTime,
    /// A [`sys::settle`] is on its way.
    pub(crate) settling: Arc<AtomicBool>,
    /// Told once everything is over.
    pub(crate) shutdown: Notify,
}

/// All services by name.
pub(crate) fn services(shim: &Arc<Shim>) -> HashMap<String, Service> {
    let mut all = v2::task_ttrpc::service(shim.clone());
    // The messages are the same to the byte, so the methods are too.
    let mut again = v2::task_ttrpc::service(shim.clone());
    if let Some(methods) = again.remove(v2::task_ttrpc::NAME) {
        all.insert(v3::task_ttrpc::NAME.to_owned(), methods);
    }
    all.extend(control::control_ttrpc::service(shim.clone()));
    // A service without methods answers Unimplemented, which is what probing daemons look for.
    let none = Service {
        methods: HashMap::new(),
        streams: HashMap::new(),
    };
    all.insert("containerd.runtime.sandbox.v1.Sandbox".to_owned(), none);
    all
}

fn trace(ctx: &TtrpcContext) -> Option<String> {
    // A malformed trace is not passed on.
    Call::from_context(ctx)
        .traceparent
        .filter(|trace| proto::trace::trace_id(trace).is_some())
}

/// How long after a process was started its shim is taken to be at rest.
const REST: Duration = Duration::from_secs(1);

impl Shim {
    /// Gives memory back once the present work is done.
    fn settle_later(&self) {
        if self.settling.swap(true, Ordering::Relaxed) {
            return;
        }
        let settling = self.settling.clone();
        tokio::spawn(async move {
            tokio::time::sleep(REST).await;
            settling.store(false, Ordering::Relaxed);
            sys::settle();
        });
    }

    fn context(&self, request: &v2::CreateTaskRequest) -> Result<Context, TaskError> {
        proto::ids::validate(&request.id)
            .map_err(|e| TaskError::Invalid(format!("container id: {e}")))?;
        let bundle = PathBuf::from(&request.bundle);
        if !bundle.is_absolute() {
            return Err(TaskError::Invalid(format!(
                "bundle {:?}: path must be absolute",
                request.bundle
            )));
        }
        let options = RuntimeOptions::from_any(request.options.as_ref())?;
        let runtime = Runc::new(
            &options,
            &bundle,
            &self.address,
            &self.namespace,
            self.reaper.clone(),
        );
        Ok(Context {
            namespace: self.namespace.clone(),
            id: request.id.clone(),
            private_pids: Spec::load(&bundle)
                .map_err(TaskError::Spec)?
                .has_private_pids(),
            bundle,
            options,
            runtime,
            reaper: self.reaper.clone(),
            publisher: self.publisher.clone(),
        })
    }
}

#[async_trait]
impl Task for Shim {
    async fn state(
        &self,
        _: &TtrpcContext,
        request: v2::StateRequest,
    ) -> Result<v2::StateResponse, Status> {
        let process = ProcessRef::from_wire(request.exec_id);
        self.containers
            .ask(&request.id, |reply| Request::State(process, reply))
            .await
    }

    async fn create(
        &self,
        ctx: &TtrpcContext,
        request: v2::CreateTaskRequest,
    ) -> Result<v2::CreateTaskResponse, Status> {
        let context = self.context(&request)?;
        let checkpoint = Some(request.checkpoint).filter(|path| !path.is_empty());
        let new = NewTask {
            rootfs: request.rootfs,
            stdio: Stdio {
                stdin: request.stdin,
                stdout: request.stdout,
                stderr: request.stderr,
                terminal: request.terminal,
            },
            trace: trace(ctx),
            checkpoint: checkpoint.map(PathBuf::from),
        };
        let pid = self.containers.create(context, new).await?;
        Ok(v2::CreateTaskResponse { pid })
    }

    async fn start(
        &self,
        ctx: &TtrpcContext,
        request: v2::StartRequest,
    ) -> Result<v2::StartResponse, Status> {
        let (process, trace) = (ProcessRef::from_wire(request.exec_id), trace(ctx));
        let pid = self
            .containers
            .ask(&request.id, |reply| Request::Start(process, trace, reply))
            .await?;
        self.settle_later();
        Ok(v2::StartResponse { pid })
    }

    async fn delete(
        &self,
        _: &TtrpcContext,
        request: v2::DeleteRequest,
    ) -> Result<v2::DeleteResponse, Status> {
        let process = ProcessRef::from_wire(request.exec_id);
        self.containers
            .ask(&request.id, |reply| Request::Delete(process, reply))
            .await
    }

    async fn pids(
        &self,
        _: &TtrpcContext,
        request: v2::PidsRequest,
    ) -> Result<v2::PidsResponse, Status> {
        self.containers.ask(&request.id, Request::Pids).await
    }

    async fn pause(&self, _: &TtrpcContext, request: v2::PauseRequest) -> Result<(), Status> {
        self.containers.ask(&request.id, Request::Pause).await
    }

    async fn resume(&self, _: &TtrpcContext, request: v2::ResumeRequest) -> Result<(), Status> {
        self.containers.ask(&request.id, Request::Resume).await
    }

    async fn checkpoint(
        &self,
        _: &TtrpcContext,
        request: v2::CheckpointTaskRequest,
    ) -> Result<(), Status> {
        let options = match &request.options {
            None => CheckpointOptions::default(),
            Some(any) if any.type_url.is_empty() => CheckpointOptions::default(),
            Some(any) => proto::any::unpack(any)
                .ok_or_else(|| {
                    TaskError::Invalid(format!(
                        "checkpoint options: unsupported type {:?}",
                        any.type_url
                    ))
                })?
                .map_err(|e| TaskError::Invalid(format!("decode checkpoint options: {e}")))?,
        };
        let checkpoint = crate::container::Checkpoint {
            path: request.path,
            options,
        };
        self.containers
            .ask(&request.id, |reply| Request::Checkpoint(checkpoint, reply))
            .await
    }

    async fn kill(&self, _: &TtrpcContext, request: v2::KillRequest) -> Result<(), Status> {
        let process = ProcessRef::from_wire(request.exec_id);
        let (signal, all) = (request.signal, request.all);
        self.containers
            .ask(&request.id, |reply| Request::Kill {
                process,
                signal,
                all,
                reply,
            })
            .await
    }

    async fn exec(&self, _: &TtrpcContext, request: v2::ExecProcessRequest) -> Result<(), Status> {
        let spec = request.spec.map(|any| any.value).unwrap_or_default();
        if spec.is_empty() {
            return Err(TaskError::Invalid("exec without a process spec".to_owned()).into());
        }
        let stdio = Stdio {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let id = request.exec_id;
        self.containers
            .ask(&request.id, |reply| Request::Exec {
                id,
                spec,
                stdio,
                reply,
            })
            .await
    }

    async fn resize_pty(
        &self,
        _: &TtrpcContext,
        request: v2::ResizePtyRequest,
    ) -> Result<(), Status> {
        let process = ProcessRef::from_wire(request.exec_id);
        let side = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        let (width, height) = (side(request.width), side(request.height));
        self.containers
            .ask(&request.id, |reply| Request::Resize {
                process,
                width,
                height,
                reply,
            })
            .await
    }

    async fn close_io(&self, _: &TtrpcContext, request: v2::CloseIoRequest) -> Result<(), Status> {
        if !request.stdin {
            return Ok(());
        }
        let process = ProcessRef::from_wire(request.exec_id);
        self.containers
            .ask(&request.id, |reply| Request::CloseIo(process, reply))
            .await
    }

    async fn update(&self, _: &TtrpcContext, request: v2::UpdateTaskRequest) -> Result<(), Status> {
        let resources = request.resources.map(|any| any.value).unwrap_or_default();
        if serde_json::from_slice::<serde::de::IgnoredAny>(&resources).is_err() {
            return Err(TaskError::Invalid("update: resources are not JSON".to_owned()).into());
        }
        self.containers
            .ask(&request.id, |reply| Request::Update(resources, reply))
            .await
    }

    async fn wait(
        &self,
        _: &TtrpcContext,
        request: v2::WaitRequest,
    ) -> Result<v2::WaitResponse, Status> {
        let process = ProcessRef::from_wire(request.exec_id);
        self.containers
            .ask(&request.id, |reply| Request::Wait(process, reply))
            .await
    }

    async fn stats(
        &self,
        _: &TtrpcContext,
        request: v2::StatsRequest,
    ) -> Result<v2::StatsResponse, Status> {
        let stats = self.containers.ask(&request.id, Request::Stats).await?;
        Ok(v2::StatsResponse { stats: Some(stats) })
    }

    async fn connect(
        &self,
        _: &TtrpcContext,
        request: v2::ConnectRequest,
    ) -> Result<v2::ConnectResponse, Status> {
        let task_pid = match self.containers.ask(&request.id, Request::Pid).await {
            Ok(pid) => pid,
            Err(status) if status.kind == ErrorKind::NotFound => 0,
            Err(status) => return Err(status),
        };
        Ok(v2::ConnectResponse {
            shim_pid: std::process::id(),
            task_pid,
            version: crate::VERSION.to_owned(),
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: v2::ShutdownRequest) -> Result<(), Status> {
        if self.containers.len() == 0 {
            self.shutdown.notify_one();
        }
        Ok(())
    }
}

#[async_trait]
impl control::control_ttrpc::Control for Shim {
    async fn status(
        &self,
        _: &TtrpcContext,
        _: control::StatusRequest,
    ) -> Result<control::StatusResponse, Status> {
        Ok(control::StatusResponse {
            component: proto::layout::program::SHIM.to_owned(),
            version: crate::VERSION.to_owned(),
            revision: crate::COMMIT.to_owned(),
            pid: std::process::id(),
            started_at: Some(clock::timestamp(self.started)),
            listen: vec![self.listen.clone()],
            state: control::State::Ready.into(),
            downstream: String::new(),
            objects: self.containers.len() as u64,
        })
    }
}
