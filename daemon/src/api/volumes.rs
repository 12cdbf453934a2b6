//! `/volumes`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use proto::engine::{VolumeCreate, VolumeList};

use super::{Json, Params, Version, json, ok};
use crate::App;
use crate::error::Result;
use crate::volumes::FILTERS;

/// The routes of this noun.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/volumes", get(list))
        .route("/volumes/create", post(create))
        .route("/volumes/prune", post(prune))
        .route("/volumes/{name}", get(inspect).delete(remove))
}

async fn list(State(app): State<Arc<App>>, params: Params) -> Result<Response> {
    let filters = params.filters(&FILTERS)?;
    let volumes = app.volumes.list(&filters, |name| users(&app, name))?;
    Ok(ok(&VolumeList {
        volumes,
        warnings: None,
    }))
}

async fn inspect(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response> {
    Ok(ok(&app.volumes.get(&name)?))
}

async fn create(State(app): State<Arc<App>>, Json(wanted): Json<VolumeCreate>) -> Result<Response> {
    let volume = app.volumes.create(wanted).await?;
    emit(&app, "create", &volume.name);
    Ok(json(StatusCode::CREATED, &volume))
}

async fn remove(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response> {
    let force = params.flag("force");
    app.volumes
        .remove(&name, force, |name| users(&app, name))
        .await?;
    emit(&app, "destroy", &name);
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn prune(State(app): State<Arc<App>>, version: Version, params: Params) -> Result<Response> {
    let filters = params.filters(&["label", "label!", "all"])?;
    // Before API 1.42 prune took the named ones too.
    let all = version < Version(42);
    let pruned = app
        .volumes
        .prune(&filters, all, |name| users(&app, name))
        .await?;
    for name in pruned.volumes_deleted.iter().flatten() {
        emit(&app, "destroy", name);
    }
    Ok(ok(&pruned))
}

/// The containers that use a volume.
fn users(app: &App, name: &str) -> Vec<String> {
    app.containers.volume_users(name, "")
}

fn emit(app: &App, action: &str, name: &str) {
    let attributes = BTreeMap::from([("driver".to_owned(), "local".to_owned())]);
    app.events.emit("volume", action, name, attributes);
}
