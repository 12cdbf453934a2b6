//! `/networks`: the predefined ones can be seen; others cannot be made yet.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use proto::engine::NetworksPruned;

use super::{Params, ok};
use crate::App;
use crate::error::{Error, Result};
use crate::network::show;

/// The routes of this noun.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/create", post(unsupported))
        .route("/networks/prune", post(prune))
        .route("/networks/{name}", get(inspect).delete(remove))
        .route("/networks/{name}/connect", post(connect))
        .route("/networks/{name}/disconnect", post(connect))
}

async fn list(State(app): State<Arc<App>>, params: Params) -> Result<Response> {
    let filters = params.filters(&show::FILTERS)?;
    Ok(ok(&app.network.list(&filters)?))
}

async fn inspect(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response> {
    let name_of = |id: &str| container_name(&app, id);
    Ok(ok(&app.network.inspect(&name, name_of)?))
}

async fn remove(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response> {
    let name = app.network.find(&name)?;
    Err(Error::forbidden(format!(
        "{name} is a pre-defined network and cannot be removed"
    )))
}

async fn connect(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response> {
    app.network.find(&name)?;
    Err(Error::unimplemented(
        "connecting containers to further networks is not supported yet",
    ))
}

async fn unsupported() -> Result<Response> {
    Err(Error::unimplemented(
        "user-defined networks are not supported yet",
    ))
}

async fn prune(params: Params) -> Result<Response> {
    params.filters(&["label", "label!", "until"])?;
    Ok(ok(&NetworksPruned::default()))
}

fn container_name(app: &App, id: &str) -> Option<String> {
    let handle = app.containers.find(id).ok()?;
    Some(handle.record().name.clone())
}
