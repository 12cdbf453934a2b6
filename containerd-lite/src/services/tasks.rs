//! Tasks.

use std::borrow::Cow;
use std::sync::Arc;

use proto::containerd::runc::v1::CheckpointOptions;
use proto::containerd::services::tasks::v1 as wire;
use proto::containerd::types::Metric;
use proto::containerd::v1::types::{Process, Status as Phase};
use proto::error::ErrorKind;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::{Parts, checkpoint, filters, lease, namespace, traceparent};
use crate::error::status;
use crate::filters::{Fields, text};
use crate::runtime::{Origin, ProcessExit, ProcessRef, ProcessState, Runtime};

/// The service.
#[derive(Debug)]
pub(crate) struct Service {
    runtime: Arc<Runtime>,
    parts: Parts,
}

impl Service {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            runtime: parts.runtime.clone(),
            parts: parts.clone(),
        }
    }
}

/// A task under the filters of Metrics.
struct Filtered<'a> {
    namespace: &'a str,
    id: &'a str,
}

impl Fields for Filtered<'_> {
    fn field(&self, path: &[&str]) -> Option<Cow<'_, str>> {
        match path {
            ["id"] => text(self.id),
            ["namespace"] => text(self.namespace),
            _ => None,
        }
    }
}

fn origin(metadata: &MetadataMap) -> Result<Origin, Status> {
    Ok(Origin {
        namespace: namespace(metadata)?,
        traceparent: traceparent(metadata),
    })
}

/// Splits a request into where it comes from and what it asks.
fn split<T>(request: Request<T>) -> Result<(Origin, T), Status> {
    let origin = origin(request.metadata())?;
    Ok((origin, request.into_inner()))
}

/// As the real one does, the id of the process goes into `id`, and `container_id` stays empty.
fn process_out(state: ProcessState) -> Process {
    Process {
        container_id: String::new(),
        id: state.id,
        pid: state.pid,
        status: state.status,
        stdin: state.stdin,
        stdout: state.stdout,
        stderr: state.stderr,
        terminal: state.terminal,
        exit_status: state.exit_status,
        exited_at: state.exited_at,
    }
}

fn deleted(id: String, exit: &ProcessExit) -> Response<wire::DeleteResponse> {
    let message = wire::DeleteResponse {
        id,
        pid: exit.pid,
        exit_status: exit.status,
        exited_at: crate::time::wire(exit.exited_at),
    };
    because(message, &exit.reason)
}

/// Where the options of a checkpoint say that it shall be; empty if nowhere.
fn image_path(options: Option<&prost_types::Any>) -> Result<String, Status> {
    match options.and_then(proto::any::unpack::<CheckpointOptions>) {
        Some(Ok(options)) => Ok(options.image_path),
        Some(Err(error)) => {
            let text = format!("decode the checkpoint options: {error}");
            Err(ErrorKind::InvalidArgument.status(text))
        }
        None => Ok(String::new()),
    }
}

/// An answer with the reason of an exit in its header, for clients that know of it.
fn because<T>(message: T, reason: &str) -> Response<T> {
    let mut response = Response::new(message);
    // A reason that no header can carry is left out: it is for people.
    if let (false, Ok(value)) = (reason.is_empty(), reason.parse()) {
        response.metadata_mut().insert(proto::exit::REASON, value);
    }
    response
}

#[tonic::async_trait]
impl wire::tasks_server::Tasks for Service {
    async fn create(
        &self,
        request: Request<wire::CreateTaskRequest>,
    ) -> Result<Response<wire::CreateTaskResponse>, Status> {
        let (origin, request) = split(request)?;
        let container_id = request.container_id.clone();
        let restored = match &request.checkpoint {
            None => None,
            Some(checkpoint) => {
                let state = &self.parts.config.state;
                let (blobs, ns) = (&self.parts.blobs, &origin.namespace);
                Some(checkpoint::load(blobs, ns, state, checkpoint).await?)
            }
        };
        let restored = restored.map(checkpoint::Folder::take);
        let created = self.runtime.create(origin, request, restored).await;
        let pid = created.map_err(status)?;
        Ok(Response::new(wire::CreateTaskResponse {
            container_id,
            pid,
        }))
    }

    async fn start(
        &self,
        request: Request<wire::StartRequest>,
    ) -> Result<Response<wire::StartResponse>, Status> {
        let (origin, request) = split(request)?;
        let process = ProcessRef::from_wire(&request.exec_id);
        let started = self
            .runtime
            .start(&origin, &request.container_id, process)
            .await;
        let pid = started.map_err(status)?;
        Ok(Response::new(wire::StartResponse { pid }))
    }

    async fn delete(
        &self,
        request: Request<wire::DeleteTaskRequest>,
    ) -> Result<Response<wire::DeleteResponse>, Status> {
        let (origin, request) = split(request)?;
        let exit = self.runtime.delete(origin, &request.container_id).await;
        Ok(deleted(request.container_id, &exit.map_err(status)?))
    }

    async fn delete_process(
        &self,
        request: Request<wire::DeleteProcessRequest>,
    ) -> Result<Response<wire::DeleteResponse>, Status> {
        let (origin, request) = split(request)?;
        let (id, exec) = (request.container_id, request.exec_id);
        let exit = self.runtime.delete_exec(&origin, &id, &exec).await;
        Ok(deleted(exec, &exit.map_err(status)?))
    }

    async fn get(
        &self,
        request: Request<wire::GetRequest>,
    ) -> Result<Response<wire::GetResponse>, Status> {
        let (origin, request) = split(request)?;
        let process = ProcessRef::from_wire(&request.exec_id);
        let state = self
            .runtime
            .state(&origin, &request.container_id, &process)
            .await;
        let state = state.map_err(status)?;
        let reason = match state.status() {
            Phase::Stopped => {
                let (namespace, id) = (&origin.namespace, &request.container_id);
                self.runtime.reason(namespace, id, &process)
            }
            _ => None,
        };
        let process = Some(process_out(state));
        let answer = wire::GetResponse { process };
        Ok(because(answer, &reason.unwrap_or_default()))
    }

    async fn list(
        &self,
        request: Request<wire::ListTasksRequest>,
    ) -> Result<Response<wire::ListTasksResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let states = self.runtime.list(&namespace).await;
        let tasks = states.into_iter().map(process_out).collect();
        Ok(Response::new(wire::ListTasksResponse { tasks }))
    }

    async fn kill(&self, request: Request<wire::KillRequest>) -> Result<Response<()>, Status> {
        let (origin, request) = split(request)?;
        self.runtime.kill(&origin, request).await.map_err(status)?;
        Ok(Response::new(()))
    }

    async fn exec(
        &self,
        request: Request<wire::ExecProcessRequest>,
    ) -> Result<Response<()>, Status> {
        let (origin, request) = split(request)?;
        self.runtime.exec(&origin, request).await.map_err(status)?;
        Ok(Response::new(()))
    }

    async fn resize_pty(
        &self,
        request: Request<wire::ResizePtyRequest>,
    ) -> Result<Response<()>, Status> {
        let (origin, request) = split(request)?;
        self.runtime
            .resize(&origin, request)
            .await
            .map_err(status)?;
        Ok(Response::new(()))
    }

    async fn close_io(
        &self,
        request: Request<wire::CloseIoRequest>,
    ) -> Result<Response<()>, Status> {
        let (origin, request) = split(request)?;
        self.runtime
            .close_io(&origin, request)
            .await
            .map_err(status)?;
        Ok(Response::new(()))
    }

    async fn pause(
        &self,
        request: Request<wire::PauseTaskRequest>,
    ) -> Result<Response<()>, Status> {
        let (origin, request) = split(request)?;
        let paused = self.runtime.pause(&origin, &request.container_id).await;
        paused.map_err(status)?;
        Ok(Response::new(()))
    }

    async fn resume(
        &self,
        request: Request<wire::ResumeTaskRequest>,
    ) -> Result<Response<()>, Status> {
        let (origin, request) = split(request)?;
        let resumed = self.runtime.resume(&origin, &request.container_id).await;
        resumed.map_err(status)?;
        Ok(Response::new(()))
    }

    async fn list_pids(
        &self,
        request: Request<wire::ListPidsRequest>,
    ) -> Result<Response<wire::ListPidsResponse>, Status> {
        let (origin, request) = split(request)?;
        let pids = self.runtime.pids(&origin, &request.container_id).await;
        let processes = pids.map_err(status)?;
        Ok(Response::new(wire::ListPidsResponse { processes }))
    }

    async fn checkpoint(
        &self,
        request: Request<wire::CheckpointTaskRequest>,
    ) -> Result<Response<wire::CheckpointTaskResponse>, Status> {
        let owner = checkpoint::Owner {
            ns: namespace(request.metadata())?,
            lease: lease(request.metadata()),
        };
        let (origin, request) = split(request)?;
        let named = image_path(request.options.as_ref())?;
        let id = request.container_id;
        if !named.is_empty() {
            let done = self
                .runtime
                .checkpoint(&origin, &id, named, request.options);
            done.await.map_err(status)?;
            return Ok(Response::new(wire::CheckpointTaskResponse::default()));
        }
        // Without a path of its own the client wants it as content.
        let container = self.parts.store.containers().get(&owner.ns, &id);
        let spec = container.map_err(status)?.spec;
        let folder = checkpoint::Folder::new(&self.parts.config.state)?;
        let path = folder.path().display().to_string();
        let done = self.runtime.checkpoint(&origin, &id, path, request.options);
        done.await.map_err(status)?;
        let descriptors = checkpoint::store(&self.parts.blobs, owner, folder, spec).await?;
        Ok(Response::new(wire::CheckpointTaskResponse { descriptors }))
    }

    async fn update(
        &self,
        request: Request<wire::UpdateTaskRequest>,
    ) -> Result<Response<()>, Status> {
        let (origin, request) = split(request)?;
        self.runtime
            .update(&origin, request)
            .await
            .map_err(status)?;
        Ok(Response::new(()))
    }

    async fn metrics(
        &self,
        request: Request<wire::MetricsRequest>,
    ) -> Result<Response<wire::MetricsResponse>, Status> {
        let (origin, request) = split(request)?;
        let parsed = filters(&request.filters)?;
        let namespace = origin.namespace.as_str();
        let wanted = |id: &str| parsed.matches(&Filtered { namespace, id });
        let found = self.runtime.metrics(&origin, wanted).await;
        let timestamp = crate::time::wire(crate::time::now());
        let metrics = found.into_iter().map(|(id, data)| Metric {
            timestamp,
            id,
            data: Some(data),
        });
        Ok(Response::new(wire::MetricsResponse {
            metrics: metrics.collect(),
        }))
    }

    async fn wait(
        &self,
        request: Request<wire::WaitRequest>,
    ) -> Result<Response<wire::WaitResponse>, Status> {
        let (origin, request) = split(request)?;
        let process = ProcessRef::from_wire(&request.exec_id);
        let waited = self.runtime.wait(&origin, &request.container_id, process);
        let exit = tokio::select! {
            waited = waited => waited.map_err(status)?,
            () = self.parts.upgrades.leaving.cancelled() => return Err(super::leaving()),
        };
        let answer = wire::WaitResponse {
            exit_status: exit.status,
            exited_at: crate::time::wire(exit.exited_at),
        };
        Ok(because(answer, &exit.reason))
    }
}
