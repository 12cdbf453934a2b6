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

    /// Answered once the other program has proved itself; Status tells when it serves.
    async fn upgrade(
        &self,
        request: Request<UpgradeRequest>,
    ) -> Result<Response<UpgradeResponse>, Status> {
        only_us(&request)?;
        let path = std::path::PathBuf::from(request.into_inner().path);
        let version = self.0.upgrades.upgrade(&path).await.map_err(status)?;
        Ok(Response::new(UpgradeResponse { version }))
    }
}

/// Lets root and our own user pass.
fn only_us<T>(request: &Request<T>) -> Result<(), Status> {
    let peer = request
        .extensions()
        .get::<tonic::transport::server::UdsConnectInfo>()
        .and_then(|info| info.peer_cred);
    let own = nix::unistd::geteuid().as_raw();
    match peer {
        Some(peer) if peer.uid() == 0 || peer.uid() == own => Ok(()),
        Some(peer) => Err(Status::permission_denied(format!(
            "user {} may not upgrade",
            peer.uid()
        ))),
        None => Err(Status::permission_denied("who asks is not known")),
    }
}
