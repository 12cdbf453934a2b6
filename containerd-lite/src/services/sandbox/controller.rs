//! What runs a sandbox. There is one controller here, `shim`, which is also the default.

use std::sync::Arc;

use proto::containerd::events::{SandboxCreate, SandboxStart};
use proto::containerd::runtime::sandbox::v1 as shim;
use proto::containerd::services::sandbox::v1 as wire;
use proto::error::ErrorKind;
use tonic::{Request, Response, Status};

use super::super::{Parts, namespace};
use crate::error::status;
use crate::runtime::{ACTION, LIFECYCLE, QUERY, Runtime};

/// The service.
#[derive(Debug)]
pub(crate) struct Controller(Parts);

impl Controller {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(parts)
    }

    fn runtime(&self, sandboxer: &str) -> Result<&Arc<Runtime>, Status> {
        match sandboxer {
            "" | "shim" => Ok(&self.0.runtime),
            other => {
                let text = format!("sandbox controller {other:?}: not found");
                Err(ErrorKind::NotFound.status(text))
            }
        }
    }
}

#[tonic::async_trait]
impl wire::controller_server::Controller for Controller {
    async fn create(
        &self,
        request: Request<wire::ControllerCreateRequest>,
    ) -> Result<Response<wire::ControllerCreateResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let request = request.into_inner();
        let runtime = self.runtime(&request.sandboxer)?;
        let sandbox_id = request.sandbox_id;
        let sandbox = match request.sandbox {
            Some(sandbox) if sandbox.sandbox_id == sandbox_id => sandbox,
            Some(sandbox) => {
                let text = format!(
                    "sandbox {:?} is not the {sandbox_id:?} that the request names",
                    sandbox.sandbox_id
                );
                return Err(ErrorKind::InvalidArgument.status(text));
            }
            // Clients of 1.7 name it only.
            None => {
                let found = self.0.store.sandboxes().get(&ns, &sandbox_id);
                found.map_err(status)?
            }
        };
        let create = shim::CreateSandboxRequest {
            rootfs: request.rootfs,
            options: request.options,
            netns_path: request.netns_path,
            annotations: request.annotations,
            ..shim::CreateSandboxRequest::default()
        };
        let created = runtime.sandbox_create(&ns, sandbox, create).await;
        created.map_err(status)?;
        let event = SandboxCreate {
            sandbox_id: sandbox_id.clone(),
        };
        let event = proto::any::pack(&event);
        self.0.events.publish(&ns, "/sandboxes/create", event);
        Ok(Response::new(wire::ControllerCreateResponse { sandbox_id }))
    }

    async fn start(
        &self,
        request: Request<wire::ControllerStartRequest>,
    ) -> Result<Response<wire::ControllerStartResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let request = request.into_inner();
        let runtime = self.runtime(&request.sandboxer)?;
        let id = request.sandbox_id;
        let answer = runtime.sandbox_answer(&ns, &id).map_err(status)?;
        let start = shim::StartSandboxRequest {
            sandbox_id: id.clone(),
        };
        let started = runtime
            .sandbox_ask(&ns, &id, "StartSandbox", Some(LIFECYCLE), &start)
            .await;
        let started: shim::StartSandboxResponse = started.map_err(status)?;
        let event = SandboxStart {
            sandbox_id: id.clone(),
        };
        let event = proto::any::pack(&event);
        self.0.events.publish(&ns, "/sandboxes/start", event);
        Ok(Response::new(wire::ControllerStartResponse {
            sandbox_id: id,
            pid: started.pid,
            created_at: started.created_at,
            address: answer.address,
            version: answer.version,
            ..wire::ControllerStartResponse::default()
        }))
    }

    async fn platform(
        &self,
        request: Request<wire::ControllerPlatformRequest>,
    ) -> Result<Response<wire::ControllerPlatformResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let request = request.into_inner();
        let runtime = self.runtime(&request.sandboxer)?;
        let sandbox_id = request.sandbox_id.clone();
        let asked = shim::PlatformRequest { sandbox_id };
        let told = runtime
            .sandbox_ask(&ns, &request.sandbox_id, "Platform", Some(QUERY), &asked)
            .await;
        let shim::PlatformResponse { platform } = told.map_err(status)?;
        Ok(Response::new(wire::ControllerPlatformResponse { platform }))
    }

    async fn stop(
        &self,
        request: Request<wire::ControllerStopRequest>,
    ) -> Result<Response<wire::ControllerStopResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let request = request.into_inner();
        let runtime = self.runtime(&request.sandboxer)?;
        let stop = shim::StopSandboxRequest {
            sandbox_id: request.sandbox_id.clone(),
            timeout_secs: request.timeout_secs,
        };
        let limit = ACTION + std::time::Duration::from_secs(request.timeout_secs.into());
        let stopped = runtime
            .sandbox_ask(&ns, &request.sandbox_id, "StopSandbox", Some(limit), &stop)
            .await;
        let shim::StopSandboxResponse {} = stopped.map_err(status)?;
        Ok(Response::new(wire::ControllerStopResponse {}))
    }

    async fn wait(
        &self,
        request: Request<wire::ControllerWaitRequest>,
    ) -> Result<Response<wire::ControllerWaitResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let request = request.into_inner();
        let runtime = self.runtime(&request.sandboxer)?;
        let sandbox_id = request.sandbox_id.clone();
        let wait = shim::WaitSandboxRequest { sandbox_id };
        let waited = runtime
            .sandbox_ask(&ns, &request.sandbox_id, "WaitSandbox", None, &wait)
            .await;
        let waited: shim::WaitSandboxResponse = waited.map_err(status)?;
        Ok(Response::new(wire::ControllerWaitResponse {
            exit_status: waited.exit_status,
            exited_at: waited.exited_at,
        }))
    }

    async fn status(
        &self,
        request: Request<wire::ControllerStatusRequest>,
    ) -> Result<Response<wire::ControllerStatusResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let request = request.into_inner();
        let runtime = self.runtime(&request.sandboxer)?;
        let id = request.sandbox_id;
        let answer = runtime.sandbox_answer(&ns, &id).map_err(status)?;
        let asked = shim::SandboxStatusRequest {
            sandbox_id: id.clone(),
            verbose: request.verbose,
        };
        let told = runtime
            .sandbox_ask(&ns, &id, "SandboxStatus", Some(QUERY), &asked)
            .await;
        let told: shim::SandboxStatusResponse = told.map_err(status)?;
        Ok(Response::new(wire::ControllerStatusResponse {
            sandbox_id: told.sandbox_id,
            pid: told.pid,
            state: told.state,
            info: told.info,
            created_at: told.created_at,
            exited_at: told.exited_at,
            extra: told.extra,
            address: answer.address,
            version: answer.version,
        }))
    }

    async fn shutdown(
        &self,
        request: Request<wire::ControllerShutdownRequest>,
    ) -> Result<Response<wire::ControllerShutdownResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let request = request.into_inner();
        let runtime = self.runtime(&request.sandboxer)?;
        let ended = runtime.sandbox_shutdown(&ns, &request.sandbox_id).await;
        ended.map_err(status)?;
        Ok(Response::new(wire::ControllerShutdownResponse {}))
    }

    async fn metrics(
        &self,
        request: Request<wire::ControllerMetricsRequest>,
    ) -> Result<Response<wire::ControllerMetricsResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let request = request.into_inner();
        let runtime = self.runtime(&request.sandboxer)?;
        let sandbox_id = request.sandbox_id.clone();
        let asked = shim::SandboxMetricsRequest { sandbox_id };
        let told = runtime
            .sandbox_ask(
                &ns,
                &request.sandbox_id,
                "SandboxMetrics",
                Some(QUERY),
                &asked,
            )
            .await;
        let shim::SandboxMetricsResponse { metrics } = told.map_err(status)?;
        Ok(Response::new(wire::ControllerMetricsResponse { metrics }))
    }

    /// A change of a sandbox is one of its record, which the store has by then: shims have no call that would take it on. So
    /// there is nothing to do for a sandbox that is there, as in the real daemon.
    async fn update(
        &self,
        request: Request<wire::ControllerUpdateRequest>,
    ) -> Result<Response<wire::ControllerUpdateResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let request = request.into_inner();
        let runtime = self.runtime(&request.sandboxer)?;
        let there = runtime.sandbox_answer(&ns, &request.sandbox_id);
        there.map_err(status)?;
        Ok(Response::new(wire::ControllerUpdateResponse {}))
    }
}
