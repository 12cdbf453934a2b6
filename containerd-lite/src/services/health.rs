//! grpc.health.v1: SERVING from the first answer on; dockerd asks this after it lost the connection.

use proto::grpc::health::v1::health_check_response::ServingStatus;
use proto::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse, health_server::Health};
use tonic::{Request, Response, Status};

/// The service. A process that answers at all serves, so there is no state.
#[derive(Debug)]
pub(crate) struct Service;

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
        use tokio_stream::StreamExt as _;
        known(&request.get_ref().service)?;
        // The state never changes while the process lives: one message, then silence until the connection ends.
        Ok(Response::new(Box::pin(
            tokio_stream::once(Ok(SERVING)).chain(tokio_stream::pending()),
        )))
    }
}
