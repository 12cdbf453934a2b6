//! `/networks`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use proto::engine::{
    NetworkConnect, NetworkCreate, NetworkCreated, NetworkDisconnect, NetworksPruned,
};

use proto::error::ErrorKind;

use super::request::Json;
use super::{Params, json, ok};
use crate::App;
use crate::clock;
use crate::container::{Command, Handle};
use crate::error::{Error, Result};
use crate::network::{Record, show};

/// The routes of this noun.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/create", post(create))
        .route("/networks/prune", post(prune))
        .route("/networks/{name}", get(inspect).delete(remove))
        .route("/networks/{name}/connect", post(connect))
        .route("/networks/{name}/disconnect", post(disconnect))
}

async fn list(State(app): State<Arc<App>>, params: Params) -> Result<Response> {
    let filters = params.filters(&show::FILTERS)?;
    Ok(ok(&app.network.list(&filters)?))
}

async fn inspect(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response> {
    if !matches!(params.text("scope"), "" | "local") {
        return Err(not_found(&name));
    }
    let name_of = |id: &str| {
        let handle = app.containers.find(id).ok()?;
        Some(handle.record().name.clone())
    };
    Ok(ok(&app.network.inspect(&name, name_of)?))
}

async fn create(State(app): State<Arc<App>>, body: Json<NetworkCreate>) -> Result<Response> {
    let record = app.network.create(body.0).await?;
    emit(&app, "create", &record, &[]);
    let created = NetworkCreated {
        id: record.id.clone(),
        warning: String::new(),
    };
    Ok(json(StatusCode::CREATED, &created))
}

async fn remove(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response> {
    let record = find(&app, &name, |fixed| {
        format!("{fixed} is a pre-defined network and cannot be removed")
    })?;
    app.network.remove(&record).await?;
    emit(&app, "destroy", &record, &[]);
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// A network and the container that is to join or leave it.
async fn pair(app: &App, network: &str, container: &str) -> Result<(Arc<Record>, Handle)> {
    let record = find(app, network, |fixed| {
        format!(
            "container cannot be disconnected from {fixed} network or connected to {fixed} network"
        )
    })?;
    let handle = app.containers.find(container)?;
    handle.confirmed().await?;
    Ok((record, handle))
}

async fn connect(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Json(body): Json<NetworkConnect>,
) -> Result<Response> {
    let (record, handle) = pair(&app, &name, &body.container).await?;
    let settings = Box::new(body.endpoint_config.unwrap_or_default());
    let network = record.clone();
    handle
        .ask(|reply| Command::Connect {
            network,
            settings,
            reply,
        })
        .await?;
    Ok(StatusCode::OK.into_response())
}

async fn disconnect(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Json(body): Json<NetworkDisconnect>,
) -> Result<Response> {
    let found = pair(&app, &name, &body.container).await;
    // By force Docker removes what a container that is gone has left on the network; of ours none leaves anything.
    let (record, handle) =
        found.map_err(|e| match body.force && e.kind() == ErrorKind::NotFound {
            true if app.network.record(&name).is_some() => {
                Error::not_found(format!("endpoint {} not found", body.container))
            }
            _ => e,
        })?;
    let network = record.clone();
    handle
        .ask(|reply| Command::Disconnect { network, reply })
        .await?;
    Ok(StatusCode::OK.into_response())
}

async fn prune(State(app): State<Arc<App>>, params: Params) -> Result<Response> {
    let filters = params.filters(&["label", "label!", "until"])?;
    let until = match filters.get("until").next() {
        None => None,
        Some(text) => Some(
            clock::from_client(text)
                .ok_or_else(|| Error::invalid(format!("invalid filter 'until={text}'")))?,
        ),
    };
    let mut deleted = Vec::new();
    for record in app.network.records() {
        let shown = app.network.inspect(&record.id, |_| None)?;
        let labels = shown.labels.unwrap_or_default();
        let old = until.is_none_or(|until| clock::parse(&shown.created).is_some_and(|c| c < until));
        let used = app.network.is_used(&record.id);
        if record.is_default() || used || !old || !filters.labels("label", &labels) {
            continue;
        }
        match app.network.remove(&record).await {
            Ok(()) => {
                emit(&app, "destroy", &record, &[]);
                deleted.push(record.name.clone());
            }
            // A container was connected meanwhile.
            Err(e) => tracing::debug!("prune network {}: {e}", record.name),
        }
    }
    let attributes = BTreeMap::from([("reclaimed".to_owned(), "0".to_owned())]);
    app.events.emit("network", "prune", "", attributes);
    Ok(ok(&NetworksPruned {
        networks_deleted: (!deleted.is_empty()).then_some(deleted),
    }))
}

/// Tells an event about a network.
pub(crate) fn emit(app: &App, action: &str, record: &Record, more: &[(&str, &str)]) {
    let mut attributes = BTreeMap::from([
        ("name".to_owned(), record.name.clone()),
        ("type".to_owned(), record.driver.clone()),
    ]);
    for (key, value) in more {
        attributes.insert((*key).to_owned(), (*value).to_owned());
    }
    app.events.emit("network", action, &record.id, attributes);
}

/// The network that is meant; of the fixed ones nothing can be changed.
fn find(app: &App, text: &str, refusal: impl Fn(&str) -> String) -> Result<Arc<Record>> {
    if let Some(record) = app.network.record(text) {
        return Ok(record);
    }
    match app.network.find_fixed(text) {
        Some((name, _)) => Err(Error::forbidden(refusal(name))),
        None => Err(not_found(text)),
    }
}

fn not_found(text: &str) -> Error {
    Error::not_found(format!("network {text} not found"))
}
