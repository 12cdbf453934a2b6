//! grpc.health.v1: SERVING from the first answer on; dockerd asks this after it lost the connection.

use proto::grpc::health::v1::health_check_response::ServingStatus;
use proto::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse, health_server::Health};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// The service. A process that answers at all serves, so there is no state but its end.
#[derive(Debug)]
pub(crate) struct Service {
    leaving: CancellationToken,
}

impl Service {
    /// A service whose watches end when `leaving` is told.
    pub(crate) fn new(leaving: CancellationToken) -> Self {
        Self { leaving }
    }
}

const SERVING: HealthCheckResponse = HealthCheckResponse {
    status: ServingStatus::Serving as i32,
};

type Watch =
    std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

fn known(service: &str) -> Result<(), Status> {
    // Only the server as a whole has a state, as in the real daemon.
    if service.is_empty() {
        Ok(())
    } else {
        Err(Status::not_found("unknown service"))
    }
}

#[tonic::async_trait]
impl Health for Service {
    type WatchStream = Watch;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        known(&request.get_ref().service)?;
        Ok(Response::new(SERVING))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Watch>, Status> {
        use futures_util::{FutureExt as _, StreamExt as _};
        known(&request.get_ref().service)?;
        // The state never changes while the process lives: one message, then silence until it leaves.
        let end = self.leaving.clone().cancelled_owned();
        let end = end.map(|()| Err(super::leaving())).into_stream();
        Ok(Response::new(Box::pin(
            tokio_stream::once(Ok(SERVING)).chain(end),
        )))
    }
}
