//! What is not here, with the answers that clients understand.

use std::sync::Arc;

use axum::Router;
use axum::routing::any;

use crate::App;
use crate::error::Error;

/// The routes of this noun.
pub(crate) fn routes() -> Router<Arc<App>> {
    let mut router = Router::new();
    for family in [
        "/swarm",
        "/services",
        "/nodes",
        "/tasks",
        "/secrets",
        "/configs",
    ] {
        router = router
            .route(family, any(swarm))
            .route(&format!("{family}/{{*rest}}"), any(swarm));
    }
    router
        .route("/session", any(buildkit))
        .route("/grpc", any(buildkit))
}

async fn swarm() -> Error {
    Error::unavailable(
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
    )
}

async fn buildkit() -> Error {
    Error::unimplemented(
        "BuildKit is not built in; build with DOCKER_BUILDKIT=0, or run buildkitd and reach it with a remote builder",
    )
}
