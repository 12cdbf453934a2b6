//! The exec routes.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use proto::containerd::services::tasks::v1::ResizePtyRequest;
use proto::engine::{ExecConfig, ExecStart, IdResponse};

use super::hijack::{self, Wanted};
use super::{Json, Params, Version, json, ok};
use crate::App;
use crate::backend::{QUICK, within};
use crate::container::exec::{self, Stage};
use crate::container::{Connection, Handle};
use crate::error::{During, Error, Result};

type Shared = State<Arc<App>>;

/// How long the exit may be behind the end of output.
const EXIT: std::time::Duration = std::time::Duration::from_secs(2);

/// The routes of this noun.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/containers/{id}/exec", post(create))
        .route("/exec/{id}/start", post(start))
        .route("/exec/{id}/json", get(show))
        .route("/exec/{id}/resize", post(resize))
}

async fn create(
    State(app): Shared,
    Path(id): Path<String>,
    Json(config): Json<ExecConfig>,
) -> Result<Response> {
    let handle = app.containers.find(&id)?;
    handle.confirmed().await?;
    hijack::detach_keys(&config.detach_keys)?;
    let exec = exec::create(&app, &handle, config)?;
    let created = IdResponse {
        id: exec.id.clone(),
    };
    Ok(json(StatusCode::CREATED, &created))
}

async fn show(State(app): Shared, Path(id): Path<String>) -> Result<Response> {
    let (handle, exec) = app.containers.exec(&id)?;
    Ok(ok(&exec.inspect(handle.id())))
}

async fn start(
    State(app): Shared,
    version: Version,
    Path(id): Path<String>,
    mut request: Request<Body>,
) -> Result<Response> {
    let upgrade = hijack::upgrade(&mut request);
    let Json(body) = read(request).await?;
    let (handle, exec) = app.containers.exec(&id)?;
    if body.detach {
        exec::start(&app, &handle, &exec, false, body.console_size).await?;
        return Ok(StatusCode::OK.into_response());
    }
    if exec.stage() != Stage::Created {
        return Err(Error::conflict(format!("exec {} has already run", exec.id)));
    }
    let tty = exec.config.tty;
    let session = Session {
        wanted: Wanted {
            stdin: exec.config.attach_stdin,
            stdout: exec.config.attach_stdout,
            stderr: exec.config.attach_stderr,
            tty,
            detach: hijack::detach_keys(&exec.config.detach_keys)?,
        },
        console: body.console_size,
        app,
        handle,
        exec,
    };
    let kind = hijack::content_type(version, tty, upgrade.is_some());
    Ok(match upgrade {
        Some(upgrade) => {
            tokio::spawn(async move {
                match hijack::taken(upgrade).await {
                    Ok(client) => session.run(client).await,
                    Err(e) => tracing::debug!("exec: {e}"),
                }
            });
            hijack::switching(kind)
        }
        None => {
            let (client, output) = tokio::io::duplex(64 * 1024);
            tokio::spawn(session.run(client));
            hijack::body(kind, output)
        }
    })
}

async fn read(request: Request<Body>) -> Result<Json<ExecStart>> {
    use axum::extract::FromRequest;
    Json::from_request(request, &()).await
}

/// An attached exec.
struct Session {
    app: Arc<App>,
    handle: Handle,
    exec: Arc<exec::Exec>,
    wanted: Wanted,
    console: Option<[u32; 2]>,
}

impl Session {
    /// Starts the exec and stays with it to its end. A failed start is told in the stream, since the answer has gone out.
    async fn run<C>(self, mut client: C)
    where
        C: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        use tokio::io::AsyncWriteExt;
        let started = exec::start(&self.app, &self.handle, &self.exec, true, self.console).await;
        let connection: Connection = match started {
            Ok(Some(connection)) => connection,
            Ok(None) => {
                let mut watch = self.exec.watch();
                // Nothing is attached; the client waits for the end.
                let _ = watch
                    .wait_for(|stage| matches!(stage, Stage::Ended { .. }))
                    .await;
                let _ = client.shutdown().await;
                return;
            }
            Err(e) => {
                let text = format!("{e}\r\n");
                let framed = match self.wanted.tty {
                    true => text.into_bytes(),
                    false => frame(2, text.as_bytes()),
                };
                // The client may be gone already.
                let _ = client.write_all(&framed).await;
                let _ = client.shutdown().await;
                return;
            }
        };
        let closed = async || {
            super::streams::close_stdin(&self.app, self.handle.id(), &self.exec.id).await;
        };
        // The exit code is asked for right after the end of the stream, so it must be known by then. A process may close its
        // output and live on; its client does not wait for that.
        let mut watch = self.exec.watch();
        let finished = async || {
            let ended = watch.wait_for(|stage| matches!(stage, Stage::Ended { .. }));
            let _ = tokio::time::timeout(EXIT, ended).await;
        };
        hijack::session(client, connection, &self.wanted, closed, finished).await;
    }
}

/// One frame of a multiplexed stream.
fn frame(stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut out = vec![stream, 0, 0, 0];
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// Height and width of a terminal.
pub(super) fn size(params: &Params) -> Result<(u32, u32)> {
    let number = |key: &str| {
        let given = params.int(key)?;
        u32::try_from(given.unwrap_or(0))
            .map_err(|_| Error::invalid(format!("invalid value for {key}: out of range")))
    };
    let both = (number("h")?, number("w")?);
    if params.text("h").is_empty() || params.text("w").is_empty() {
        return Err(Error::invalid("invalid resize: both h and w are needed"));
    }
    Ok(both)
}

/// Sets the size of a process's terminal.
pub(super) async fn resize_process(
    app: &App,
    container: &str,
    exec: &str,
    height: u32,
    width: u32,
) -> Result<()> {
    let request = ResizePtyRequest {
        container_id: container.to_owned(),
        exec_id: exec.to_owned(),
        width,
        height,
    };
    within(QUICK, app.backend.tasks().resize_pty(request))
        .await
        .during(|| format!("resize the terminal of container {container}"))?;
    Ok(())
}

async fn resize(State(app): Shared, Path(id): Path<String>, params: Params) -> Result<StatusCode> {
    let (height, width) = size(&params)?;
    let (handle, exec) = app.containers.exec(&id)?;
    if !matches!(exec.stage(), Stage::Running { .. }) {
        return Err(Error::conflict(format!("exec {} is not running", exec.id)));
    }
    resize_process(&app, handle.id(), &exec.id, height, width).await?;
    Ok(StatusCode::OK)
}
