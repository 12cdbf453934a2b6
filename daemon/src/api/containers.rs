//! The container routes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use bytes::Bytes;
use proto::engine::{
    ContainerCreateBody, ContainersPruned, UpdateBody, UpdateResponse, WaitResponse,
};
use tokio_stream::wrappers::ReceiverStream;

use super::{Json, Params, Version, json, ok, streams};
use crate::App;
use crate::clock;
use crate::container::list::{self, FILTERS};
use crate::container::stop::{self, Condition};
use crate::container::why::Asked;
use crate::container::{self, Command, Handle, inspect, signal, stats, top};
use crate::error::{Error, Result};

type Shared = State<Arc<App>>;

/// The routes of this noun.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/containers/json", get(index))
        .route("/containers/create", post(create))
        .route("/containers/prune", post(prune))
        .route("/containers/{id}/json", get(show))
        .route("/containers/{id}/start", post(start))
        .route("/containers/{id}/stop", post(stop_it))
        .route("/containers/{id}/restart", post(restart))
        .route("/containers/{id}/kill", post(kill))
        .route("/containers/{id}/pause", post(pause))
        .route("/containers/{id}/unpause", post(unpause))
        .route("/containers/{id}/wait", post(wait))
        .route("/containers/{id}/attach", post(streams::attach))
        .route("/containers/{id}/attach/ws", get(streams::attach_ws))
        .route("/containers/{id}/logs", get(streams::logs))
        .route("/containers/{id}/resize", post(resize))
        .route("/containers/{id}/rename", post(rename))
        .route("/containers/{id}/update", post(update))
        .route("/containers/{id}/top", get(processes))
        .route("/containers/{id}/stats", get(usage))
        .route(
            "/containers/{id}/checkpoints",
            get(checkpoints).post(checkpoint),
        )
        .route(
            "/containers/{id}/checkpoints/{checkpoint}",
            delete(remove_checkpoint),
        )
        .route("/containers/{id}", delete(remove))
}

/// How long a list waits for the daemon to know the truth.
const PATIENCE: Duration = Duration::from_secs(1);

async fn index(State(app): Shared, version: Version, params: Params) -> Result<Response> {
    app.reconciled.wait(PATIENCE).await;
    let limit = params.int("limit")?.unwrap_or(0);
    let wanted = list::Wanted {
        all: params.flag("all"),
        limit: usize::try_from(limit).unwrap_or(0),
        filters: params.filters(FILTERS)?,
    };
    let mut found = list::list(&app, &wanted).await?;
    if version < Version(52) {
        found.iter_mut().for_each(|summary| summary.health = None);
    }
    if params.flag("size") {
        for summary in &mut found {
            let size = inspect::size(&app, &summary.id).await?;
            (summary.size_rw, summary.size_root_fs) = size;
        }
    }
    Ok(ok(&found))
}

async fn create(
    State(app): Shared,
    params: Params,
    Json(body): Json<ContainerCreateBody>,
) -> Result<Response> {
    let created = container::create::create(&app, params.text("name"), body).await?;
    Ok(json(StatusCode::CREATED, &created))
}

async fn show(State(app): Shared, Path(id): Path<String>, params: Params) -> Result<Response> {
    app.reconciled.wait(PATIENCE).await;
    let handle = app.containers.find(&id)?;
    let mut shown = inspect::inspect(&app, &handle);
    if params.flag("size") {
        let (rw, root) = inspect::size(&app, handle.id()).await?;
        (shown.size_rw, shown.size_root_fs) = (Some(rw), Some(root));
    }
    Ok(ok(&shown))
}

/// The container for a write, once what is known of it is true.
pub(super) async fn found(app: &App, id: &str) -> Result<Handle> {
    let handle = app.containers.find(id)?;
    handle.confirmed().await?;
    Ok(handle)
}

async fn start(
    State(app): Shared,
    version: Version,
    Path(id): Path<String>,
    params: Params,
    request: Request<Body>,
) -> Result<StatusCode> {
    if !params.text("checkpoint").is_empty() {
        return Err(no_checkpoints());
    }
    let body = super::request::read_body(request.into_body(), 8 << 20).await?;
    // An empty object is what some clients send for nothing.
    let nothing = body.is_empty() || body.as_ref() == b"{}" || body.as_ref() == b"null";
    if !nothing && version >= Version(24) {
        return Err(Error::invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    let handle = found(&app, &id).await?;
    handle.ask(Command::Start).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn stop_options(params: &Params) -> Result<(Option<u32>, Option<i64>)> {
    let signal = match params.text("signal") {
        "" => None,
        text => Some(signal::given(text, 15)?),
    };
    Ok((signal, params.int("t")?))
}

async fn stop_it(State(app): Shared, Path(id): Path<String>, params: Params) -> Result<StatusCode> {
    let (signal, seconds) = stop_options(&params)?;
    let handle = found(&app, &id).await?;
    stop::stop(&app, &handle, signal, seconds, Asked::User).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn restart(State(app): Shared, Path(id): Path<String>, params: Params) -> Result<StatusCode> {
    let (signal, seconds) = stop_options(&params)?;
    let handle = found(&app, &id).await?;
    stop::restart(&app, &handle, signal, seconds, Asked::User).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn kill(State(app): Shared, Path(id): Path<String>, params: Params) -> Result<StatusCode> {
    let signal = signal::given(params.text("signal"), 9)?;
    let handle = found(&app, &id).await?;
    let stops = signal == 9 || signal == handle.record().stop_signal();
    let before = handle.view().exits;
    stop::kill(&handle, signal, stops, Asked::User).await?;
    if signal == 9 {
        // A killed container is a stopped one by the time of the answer.
        let mut watch = handle.watch();
        let over = watch.wait_for(|view| view.exits > before || view.gone);
        let _ = tokio::time::timeout(Duration::from_secs(10), over).await;
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn pause(State(app): Shared, Path(id): Path<String>) -> Result<StatusCode> {
    let handle = found(&app, &id).await?;
    handle
        .ask(|reply| Command::Freeze { on: true, reply })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn unpause(State(app): Shared, Path(id): Path<String>) -> Result<StatusCode> {
    let handle = found(&app, &id).await?;
    handle
        .ask(|reply| Command::Freeze { on: false, reply })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The header goes out at once: clients take it for "the wait has begun".
async fn wait(State(app): Shared, Path(id): Path<String>, params: Params) -> Result<Response> {
    let condition = Condition::parse(params.text("condition"))?;
    let handle = found(&app, &id).await?;
    let watch = handle.watch();
    let since = handle.view().exits;
    let body = futures_util::stream::once(async move {
        let code = stop::wait(watch, since, condition).await;
        let answer = WaitResponse {
            error: None,
            status_code: code,
        };
        let mut text = serde_json::to_vec(&answer).unwrap_or_default();
        text.push(b'\n');
        Ok::<_, io::Error>(Bytes::from(text))
    });
    let kind = [(header::CONTENT_TYPE, "application/json")];
    Ok((kind, Body::from_stream(body)).into_response())
}

async fn resize(State(app): Shared, Path(id): Path<String>, params: Params) -> Result<StatusCode> {
    let (height, width) = super::exec::size(&params)?;
    let handle = found(&app, &id).await?;
    let record = handle.record();
    if record.state.running().is_none() {
        return Err(Error::conflict(format!(
            "container {} is not running",
            record.id
        )));
    }
    super::exec::resize_process(&app, &record.id, "", height, width).await?;
    Ok(StatusCode::OK)
}

async fn rename(State(app): Shared, Path(id): Path<String>, params: Params) -> Result<StatusCode> {
    let wanted = params.text("name");
    if wanted.is_empty() {
        return Err(Error::invalid("Neither old nor new names may be empty"));
    }
    let name = container::name::check(wanted)?.to_owned();
    let handle = found(&app, &id).await?;
    if handle.record().name == name {
        return Err(Error::invalid(
            "Renaming a container with the same name as its current name",
        ));
    }
    app.containers.reserve(&name, handle.id())?;
    let renamed = handle
        .ask(|reply| Command::Rename {
            name: name.clone(),
            reply,
        })
        .await;
    if renamed.is_err() {
        app.containers.release(&name, handle.id());
    }
    renamed.map(|()| StatusCode::NO_CONTENT)
}

async fn update(
    State(app): Shared,
    Path(id): Path<String>,
    Json(mut body): Json<UpdateBody>,
) -> Result<Response> {
    let handle = found(&app, &id).await?;
    let mut warnings = Vec::new();
    if !app.config.has_cgroups() {
        crate::rootless::limits::take_out(&mut body.resources, &mut warnings);
    }
    handle
        .ask(|reply| Command::Update {
            body: Box::new(body),
            reply,
        })
        .await?;
    Ok(ok(&UpdateResponse {
        warnings: Some(warnings),
    }))
}

async fn processes(State(app): Shared, Path(id): Path<String>, params: Params) -> Result<Response> {
    let handle = app.containers.find(&id)?;
    Ok(ok(&top::top(&app, &handle, params.text("ps_args")).await?))
}

async fn usage(State(app): Shared, Path(id): Path<String>, params: Params) -> Result<Response> {
    let handle = app.containers.find(&id)?;
    let stream = params.flag_or("stream", true);
    let once = params.flag("one-shot");
    if !stream {
        return Ok(ok(&stats::once(&app, &handle, !once).await?));
    }
    let (sink, body) = tokio::sync::mpsc::channel(1);
    tokio::spawn(stats::stream(app, handle, sink));
    let kind = [(header::CONTENT_TYPE, "application/json")];
    Ok((kind, Body::from_stream(ReceiverStream::new(body))).into_response())
}

async fn remove(State(app): Shared, Path(id): Path<String>, params: Params) -> Result<StatusCode> {
    if params.flag("link") {
        return Err(Error::unimplemented("links are not supported yet"));
    }
    let handle = found(&app, &id).await?;
    handle
        .ask(|reply| Command::Remove {
            force: params.flag("force"),
            volumes: params.flag("v"),
            reply,
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

fn no_checkpoints() -> Error {
    Error::unimplemented("checkpoints are not supported yet")
}

/// None can be made, so there is none.
async fn checkpoints(State(app): Shared, Path(id): Path<String>) -> Result<Response> {
    app.containers.find(&id)?;
    Ok(ok(&serde_json::Value::Array(Vec::new())))
}

async fn checkpoint(State(app): Shared, Path(id): Path<String>) -> Result<Response> {
    app.containers.find(&id)?;
    Err(no_checkpoints())
}

async fn remove_checkpoint(
    State(app): Shared,
    Path((id, checkpoint)): Path<(String, String)>,
) -> Result<Response> {
    let handle = app.containers.find(&id)?;
    Err(Error::not_found(format!(
        "checkpoint {checkpoint} does not exist for container {}",
        handle.id()
    )))
}

async fn prune(State(app): Shared, params: Params) -> Result<Response> {
    use container::state::State as Life;
    let filters = params.filters(&["label", "label!", "until"])?;
    let until = match filters.get("until").next() {
        None => None,
        Some(text) => Some(
            clock::from_client(text)
                .ok_or_else(|| Error::invalid(format!("invalid filter 'until={text}'")))?,
        ),
    };
    let mut pruned = ContainersPruned::default();
    let mut ids = Vec::new();
    for handle in app.containers.all() {
        let record = handle.record();
        let down = matches!(record.state, Life::Created { .. } | Life::Exited(_));
        let old =
            until.is_none_or(|until| clock::parse(&record.created).is_some_and(|c| c < until));
        if !down || !old || !filters.labels("label", &record.config.labels) {
            continue;
        }
        let (size, _) = inspect::size(&app, &record.id).await.unwrap_or_default();
        let removed = handle.ask(|reply| Command::Remove {
            force: false,
            volumes: false,
            reply,
        });
        match removed.await {
            Ok(()) => {
                pruned.space_reclaimed += u64::try_from(size).unwrap_or(0);
                ids.push(record.id.clone());
            }
            Err(e) => tracing::warn!("prune container {}: {e}", record.id),
        }
    }
    pruned.containers_deleted = Some(ids).filter(|ids| !ids.is_empty());
    let attributes = [("reclaimed".to_owned(), pruned.space_reclaimed.to_string())];
    app.events.emit("container", "prune", "", attributes.into());
    Ok(ok(&pruned))
}
