//! lite.control.v1: the state of this program for whoever runs the stack.

use proto::lite::control::v1::{
    DrainRequest, DrainResponse, State, StatusRequest, StatusResponse, UpgradeRequest,
    UpgradeResponse, control_server::Control,
};
use tonic::{Request, Response, Status};

use super::Parts;
use crate::error::status;

/// The service.
#[derive(Debug)]
pub(crate) struct Service(Parts);

impl Service {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(parts)
    }
}

#[tonic::async_trait]
impl Control for Service {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let parts = &self.0;
        let objects = parts.store.containers().count().map_err(status)?;
        let listen = [&parts.config.address, &parts.config.ttrpc_address]
            .map(|p| format!("unix://{}", p.display()));
        Ok(Response::new(StatusResponse {
            component: proto::layout::program::CONTAINERD.to_owned(),
            version: crate::version::VERSION.to_owned(),
            revision: crate::version::REVISION.to_owned(),
            pid: std::process::id(),
            started_at: crate::time::wire(parts.started_at),
            listen: listen.to_vec(),
            state: State::Ready.into(),
            downstream: String::new(),
            objects,
        }))
    }

    async fn drain(&self, _: Request<DrainRequest>) -> Result<Response<DrainResponse>, Status> {
        Err(Status::unimplemented(
            "drain is not supported by this version",
        ))
    }

    async fn upgrade(
        &self,
        _: Request<UpgradeRequest>,
    ) -> Result<Response<UpgradeResponse>, Status> {
        Err(Status::unimplemented(
            "upgrade is not supported by this version",
        ))
    }
}
