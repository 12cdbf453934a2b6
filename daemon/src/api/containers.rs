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

use super::hijack::{self, Wanted};
use super::{Json, Params, Version, json, ok};
use crate::App;
use crate::backend::{QUICK, within};
use crate::clock;
use crate::container::list::{self, FILTERS};
use crate::container::stop::{self, Condition};
use crate::container::{self, Answer, Command, Connection, Handle, inspect, signal, stats, top};
use crate::error::{Error, Result};
use crate::logs::read;

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
        .route("/containers/{id}/attach", post(attach))
        .route("/containers/{id}/logs", get(logs))
        .route("/containers/{id}/resize", post(resize))
        .route("/containers/{id}/rename", post(rename))
        .route("/containers/{id}/update", post(update))
        .route("/containers/{id}/top", get(processes))
        .route("/containers/{id}/stats", get(usage))
        .route("/containers/{id}", delete(remove))
}

/// How long a list waits for the daemon to know the truth.
const PATIENCE: Duration = Duration::from_secs(1);

async fn index(State(app): Shared, params: Params) -> Result<Response> {
    app.reconciled.wait(PATIENCE).await;
    let limit = params.int("limit")?.unwrap_or(0);
    let wanted = list::Wanted {
        all: params.flag("all"),
        limit: usize::try_from(limit).unwrap_or(0),
        filters: params.filters(FILTERS)?,
    };
    let mut found = list::list(&app, &wanted).await?;
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
async fn found(app: &App, id: &str) -> Result<Handle> {
    let handle = app.containers.find(id)?;
    handle.confirmed().await?;
    Ok(handle)
}

async fn start(
    State(app): Shared,
    version: Version,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<StatusCode> {
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
    stop::stop(&app, &handle, signal, seconds).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn restart(State(app): Shared, Path(id): Path<String>, params: Params) -> Result<StatusCode> {
    let (signal, seconds) = stop_options(&params)?;
    let handle = found(&app, &id).await?;
    stop::restart(&app, &handle, signal, seconds).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn kill(State(app): Shared, Path(id): Path<String>, params: Params) -> Result<StatusCode> {
    let signal = signal::given(params.text("signal"), 9)?;
    let handle = found(&app, &id).await?;
    let stops = signal == 9 || signal == handle.record().stop_signal();
    let before = handle.view().exits;
    stop::kill(&handle, signal, stops).await?;
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

async fn attach(
    State(app): Shared,
    version: Version,
    Path(id): Path<String>,
    params: Params,
    mut request: Request<Body>,
) -> Response {
    let upgrade = hijack::upgrade(&mut request);
    let prepared = async {
        let handle = found(&app, &id).await?;
        let detach = hijack::detach_keys(params.text("detachKeys"))?;
        Ok::<_, Error>((handle, detach))
    };
    let (handle, detach) = match prepared.await {
        Ok(prepared) => prepared,
        Err(e) => return hijack::plain_error(&e),
    };
    let record = handle.record();
    if matches!(&record.state, container::state::State::Running(r) if r.paused) {
        return hijack::plain_error(&Error::conflict(format!(
            "container {} is paused, unpause the container before attach",
            record.id
        )));
    }
    let wanted = Wanted {
        stdin: params.flag("stdin") && record.config.open_stdin,
        stdout: params.flag("stdout"),
        stderr: params.flag("stderr"),
        tty: record.config.tty,
        detach,
    };
    let replay = params.flag("logs").then_some(read::Wanted {
        stdout: wanted.stdout,
        stderr: wanted.stderr,
        follow: false,
        tail: None,
        since: None,
        until: None,
        timestamps: false,
        details: false,
        framed: !wanted.tty,
    });
    // In the owner's queue before the client learns that it is attached, and can start the container.
    let connection = match params.flag("stream") {
        true => {
            let input = wanted.stdin;
            let asked = handle.begin(|reply| Command::Attach { input, reply });
            match asked.await {
                Ok(answer) => Some(answer),
                Err(e) => return hijack::plain_error(&e),
            }
        }
        false => None,
    };
    let session = Session {
        app,
        handle,
        wanted,
        replay,
        connection,
    };
    let kind = hijack::content_type(version, record.config.tty, upgrade.is_some());
    match upgrade {
        Some(upgrade) => {
            tokio::spawn(async move {
                match hijack::taken(upgrade).await {
                    Ok(client) => session.run(client).await,
                    Err(e) => tracing::debug!("attach: {e}"),
                }
            });
            hijack::switching(kind)
        }
        None => {
            let (client, output) = tokio::io::duplex(64 * 1024);
            tokio::spawn(session.run(client));
            hijack::body(kind, output)
        }
    }
}

/// An attach session of a container.
struct Session {
    app: Arc<App>,
    handle: Handle,
    wanted: Wanted,
    replay: Option<read::Wanted>,
    connection: Option<Answer<Connection>>,
}

impl Session {
    async fn run<C>(self, mut client: C)
    where
        C: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        use tokio::io::AsyncWriteExt;
        let record = self.handle.record();
        if let Some(replay) = self.replay
            && record.host.log_config.kind == "json-file"
        {
            // Only what is there: the end has come already.
            let Ok((ended, _)) = io::pipe() else { return };
            let path = crate::logs::path(&self.app.config, &record.id);
            let Ok(mut chunks) = read::spawn(path, replay, ended) else {
                return;
            };
            while let Some(chunk) = chunks.recv().await {
                if client.write_all(&chunk).await.is_err() {
                    return;
                }
            }
        }
        let Some(connection) = self.connection else {
            // The client may be gone already.
            let _ = client.shutdown().await;
            return;
        };
        self.app
            .events
            .emit("container", "attach", &record.id, record.attributes());
        let connection = match connection.answer().await {
            Ok(connection) => connection,
            // The start failed or the container went away: there is nothing to show.
            Err(e) => {
                tracing::debug!("attach to container {}: {e}", record.id);
                let _ = client.shutdown().await;
                return;
            }
        };
        let closed = async || {
            if record.config.stdin_once {
                close_stdin(&self.app, &record.id, "").await;
            }
        };
        let end = hijack::session(client, connection, &self.wanted, closed, async || {}).await;
        if end == hijack::End::Detached {
            self.app
                .events
                .emit("container", "detach", &record.id, record.attributes());
        }
    }
}

/// Ends the input of a process.
pub(super) async fn close_stdin(app: &App, container: &str, exec: &str) {
    use proto::containerd::services::tasks::v1::CloseIoRequest;
    let request = CloseIoRequest {
        container_id: container.to_owned(),
        exec_id: exec.to_owned(),
        stdin: true,
    };
    let mut client = app.backend.tasks();
    if let Err(e) = within(QUICK, client.close_io(request)).await {
        // A process that has ended needs no end of input.
        tracing::debug!("close stdin of {container}: {e}");
    }
}

async fn logs(
    State(app): Shared,
    version: Version,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response> {
    let handle = app.containers.find(&id)?;
    let record = handle.record();
    let (stdout, stderr) = (params.flag("stdout"), params.flag("stderr"));
    if !stdout && !stderr {
        return Err(Error::invalid(
            "Bad parameters: you must choose at least one stream",
        ));
    }
    if record.host.log_config.kind != "json-file" {
        return Err(Error::unimplemented(
            "configured logging driver does not support reading",
        ));
    }
    let moment = |key: &str| match params.text(key) {
        "" | "0" => Ok(None),
        text => clock::from_client(text)
            .map(Some)
            .ok_or_else(|| Error::invalid(format!("invalid value for \"{key}\": {text}"))),
    };
    let tail = match params.text("tail") {
        "" | "all" => None,
        // A number that is none means all, as in Docker.
        text => text.parse::<u64>().ok(),
    };
    let follow = params.flag("follow");
    let wanted = read::Wanted {
        stdout,
        stderr,
        follow,
        tail,
        since: moment("since")?,
        until: moment("until")?,
        timestamps: params.flag("timestamps"),
        details: params.flag("details"),
        framed: !record.config.tty,
    };
    let (ended, tell) = io::pipe()?;
    let chunks = read::spawn(crate::logs::path(&app.config, &record.id), wanted, ended)?;
    let (sink, body) = tokio::sync::mpsc::channel(2);
    tokio::spawn(forward(handle, chunks, sink, tell, follow));
    let body = Body::from_stream(ReceiverStream::new(body));
    let mut response = body.into_response();
    if version >= Version(42) {
        let kind = hijack::content_type(version, record.config.tty, true);
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    }
    Ok(response)
}

/// Passes chunks to the client, and tells the reader when nothing more will come or nobody listens any more.
async fn forward(
    handle: Handle,
    mut chunks: tokio::sync::mpsc::Receiver<Bytes>,
    sink: tokio::sync::mpsc::Sender<Result<Bytes, io::Error>>,
    tell: io::PipeWriter,
    follow: bool,
) {
    let mut tell = Some(tell);
    let mut watch = handle.watch();
    let over = async move {
        if follow {
            let running = |view: &container::View| {
                use container::state::State;
                matches!(view.record.state, State::Running(_)) || !view.settled
            };
            // An owner that has ended has removed its container.
            let _ = watch.wait_for(|view| !running(view) || view.gone).await;
        }
    };
    tokio::pin!(over);
    loop {
        tokio::select! {
            () = &mut over, if tell.is_some() => tell = None,
            () = sink.closed() => return,
            chunk = chunks.recv() => match chunk {
                Some(chunk) => if sink.send(Ok(chunk)).await.is_err() { return },
                None => return,
            },
        }
    }
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
    Json(body): Json<UpdateBody>,
) -> Result<Response> {
    let handle = found(&app, &id).await?;
    handle
        .ask(|reply| Command::Update {
            body: Box::new(body),
            reply,
        })
        .await?;
    Ok(ok(&UpdateResponse {
        warnings: Some(Vec::new()),
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
