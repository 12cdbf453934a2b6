//! What flows out of a container: attach and logs.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Request, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio_stream::wrappers::ReceiverStream;

use super::containers::found;
use super::hijack::{self, Wanted};
use super::{Params, Version};
use crate::App;
use crate::backend::{QUICK, within};
use crate::clock;
use crate::container::{self, Answer, Command, Connection, Handle};
use crate::error::{Error, Result};
use crate::logs::read;

type Shared = State<Arc<App>>;

pub(super) async fn attach(
    State(app): Shared,
    version: Version,
    Path(id): Path<String>,
    params: Params,
    mut request: Request<Body>,
) -> Response {
    let upgrade = hijack::upgrade(&mut request);
    let session = match Session::begin(&app, &id, &params).await {
        Ok(session) => session,
        Err(e) => return hijack::plain_error(&e),
    };
    let kind = hijack::content_type(version, session.wanted.tty, upgrade.is_some());
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

/// Attach over a websocket: the output goes out in binary messages without frames, what comes in is the input.
pub(super) async fn attach_ws(
    State(app): Shared,
    Path(id): Path<String>,
    params: Params,
    request: Request<Body>,
) -> Result<Response> {
    use axum::extract::FromRequest as _;
    use axum::extract::ws::WebSocketUpgrade;
    let upgrade = WebSocketUpgrade::from_request(request, &())
        .await
        .map_err(|e| Error::invalid(format!("attach by websocket: {}", e.body_text())))?;
    let session = Session::begin(&app, &id, &params).await?;
    let framed = !session.wanted.tty;
    Ok(upgrade.on_upgrade(move |socket| async move {
        let (client, ours) = tokio::io::duplex(64 * 1024);
        tokio::join!(
            session.run(client),
            super::websocket::carry(socket, ours, framed)
        );
    }))
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
    /// Looks the container up and takes a place in its owner's queue, before the client learns that it is attached.
    async fn begin(app: &Arc<App>, id: &str, params: &Params) -> Result<Self> {
        let handle = found(app, id).await?;
        let detach = hijack::detach_keys(params.text("detachKeys"))?;
        let record = handle.record();
        if matches!(&record.state, container::state::State::Running(r) if r.paused) {
            return Err(Error::conflict(format!(
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
            framed: !wanted.tty,
            ..read::Wanted::default()
        });
        let connection = match params.flag("stream") {
            true => {
                let input = wanted.stdin;
                let asked = handle.begin(|reply| Command::Attach { input, reply });
                Some(asked.await?)
            }
            false => None,
        };
        Ok(Self {
            app: app.clone(),
            handle,
            wanted,
            replay,
            connection,
        })
    }

    async fn run<C>(self, mut client: C)
    where
        C: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        use tokio::io::AsyncWriteExt;
        let record = self.handle.record();
        if let Some(replay) = self.replay
            && crate::logs::is_kept(&record.host.log_config.kind)
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

pub(super) async fn logs(
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
    if !crate::logs::is_kept(&record.host.log_config.kind) {
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
