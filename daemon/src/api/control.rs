//! `lite.control.v1` by gRPC on the socket that serves REST: what this daemon is and how it fares.

use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::http::{Request, header};
use axum::response::Response;
use proto::lite::control::v1::control_server::{Control, ControlServer};
use proto::lite::control::v1::{
    DrainRequest, DrainResponse, State, StatusRequest, StatusResponse, UpgradeRequest,
    UpgradeResponse,
};
use tower::Service as _;

use crate::App;

/// The service as connections hold it.
pub(crate) type Service = ControlServer<Answers>;

/// Answers from the daemon's own memory.
#[derive(Debug, Clone)]
pub(crate) struct Answers {
    app: Arc<App>,
    started: SystemTime,
    listen: Arc<Vec<String>>,
}

/// The service of this daemon.
pub(crate) fn service(app: Arc<App>, listen: Arc<Vec<String>>) -> Service {
    ControlServer::new(Answers {
        app,
        started: SystemTime::now(),
        listen,
    })
}

/// Whether a request is gRPC.
pub(crate) fn is_grpc<B>(request: &Request<B>) -> bool {
    request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Answers one gRPC call; methods of other services are unimplemented.
pub(crate) async fn serve(
    mut service: Service,
    request: Request<hyper::body::Incoming>,
) -> Response {
    let ours = request
        .uri()
        .path()
        .starts_with("/lite.control.v1.Control/");
    if !ours {
        let status =
            tonic::Status::unimplemented(format!("{} is not served here", request.uri().path()));
        return status.into_http::<tonic::body::Body>().map(Body::new);
    }
    match service.call(request).await {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    }
}

#[tonic::async_trait]
impl Control for Answers {
    async fn status(
        &self,
        _: tonic::Request<StatusRequest>,
    ) -> Result<tonic::Response<StatusResponse>, tonic::Status> {
        let state = if self.app.ready() {
            State::Ready
        } else {
            State::Starting
        };
        Ok(tonic::Response::new(StatusResponse {
            component: proto::layout::program::DAEMON.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            revision: env!("GIT_COMMIT").into(),
            pid: std::process::id(),
            started_at: Some(self.started.into()),
            listen: self.listen.to_vec(),
            state: state.into(),
            downstream: format!("unix://{}", self.app.backend.address().display()),
            objects: self.app.containers.len() as u64,
        }))
    }

    async fn drain(
        &self,
        _: tonic::Request<DrainRequest>,
    ) -> Result<tonic::Response<DrainResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("drain is not supported yet"))
    }

    async fn upgrade(
        &self,
        _: tonic::Request<UpgradeRequest>,
    ) -> Result<tonic::Response<UpgradeResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("upgrade is not supported yet"))
    }
}
