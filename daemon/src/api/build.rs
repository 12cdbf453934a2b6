//! `/build`: the classic builder, and its cache.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::post;

use super::{Params, ok};
use crate::App;
use crate::build::{self, Options};
use crate::error::{Error, Result};
use crate::images::progress::{self, Progress};

/// The routes of this noun.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/build", post(start))
        .route("/build/prune", post(prune))
        .route("/build/cancel", post(cancel))
}

async fn start(
    State(app): State<Arc<App>>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let registries = headers.get("x-registry-config");
    let registries = registries
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    let options = Options::read(&params, registries)?;
    let work = |progress: Progress| build::build(app, options, body, progress);
    Ok(progress::answer(true, work).await)
}

/// Cancels a build by the `buildid` that it was started with; one that is not there has ended already.
async fn cancel(State(app): State<Arc<App>>, params: Params) -> Result<StatusCode> {
    match params.text("id") {
        "" => Err(Error::invalid("build ID not provided")),
        id => {
            app.builds.cancel(id);
            Ok(StatusCode::OK)
        }
    }
}

async fn prune(State(app): State<Arc<App>>, params: Params) -> Result<Response> {
    params.filters(&[])?;
    let pruned = build::prune(&app).await?;
    app.events.emit("builder", "prune", "", Default::default());
    Ok(ok(&pruned))
}
