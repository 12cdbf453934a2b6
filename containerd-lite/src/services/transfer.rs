//! Transfer: see [`crate::transfer`].

use proto::containerd::services::transfer::v1 as wire;
use tonic::{Request, Response, Status};

use super::{Parts, lease, namespace};
use crate::error::status;
use crate::transfer;

/// The service.
#[derive(Debug)]
pub(crate) struct Service(transfer::Parts);

impl Service {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(transfer::Parts {
            settings: parts.config.transfer.clone(),
            store: parts.store,
            blobs: parts.blobs,
            snapshotters: parts.snapshotters,
            gc: parts.gc,
            events: parts.events,
            streams: parts.streams,
        })
    }
}

#[tonic::async_trait]
impl wire::transfer_server::Transfer for Service {
    async fn transfer(
        &self,
        request: Request<wire::TransferRequest>,
    ) -> Result<Response<()>, Status> {
        let (ns, lease) = (namespace(request.metadata())?, lease(request.metadata()));
        transfer::run(self.0.clone(), ns, lease, request.into_inner())
            .await
            .map_err(status)?;
        Ok(Response::new(()))
    }
}
