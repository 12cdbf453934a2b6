//! One connection to a shim: typed calls with deadlines, and the news that it has closed.
//!
//! Versions 2 and 3 of the task service have the same messages under two service names, so one set of types serves both; a
//! shim that answered `3` but does not know the service is asked by the older name from then on.
//!
//! A call that the shim does not answer ends by its own deadline and touches no other connection. Async.

use std::io::ErrorKind as IoKind;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use proto::containerd::task::{v2, v3};
use proto::error::ErrorKind;
use proto::prost::Message;
use proto::ttrpc::{Call, Status};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use ttrpc::asynchronous::transport::Socket;

use super::answer::Answer;

/// Deadline of State and the like.
pub(crate) const QUERY: Duration = Duration::from_secs(2);
/// Deadline of what makes the shim run its engine once.
pub(crate) const ACTION: Duration = Duration::from_secs(60);
/// Deadline of what may load, unpack or drain.
pub(crate) const LIFECYCLE: Duration = Duration::from_secs(300);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// Nobody listens: the shim is dead.
    #[error("no shim listens on {0}")]
    Dead(String),
    /// Somebody may listen, but does not accept now.
    #[error("connect to shim on {0}")]
    Busy(String, #[source] std::io::Error),
}

/// A connection to the shim of one task. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct ShimClient {
    client: Client,
    namespace: Arc<str>,
    /// Whether the older service name is to be used.
    older: Arc<AtomicBool>,
    closed: CancellationToken,
}

#[derive(Clone)]
struct Client(ttrpc::asynchronous::Client);

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl ShimClient {
    /// Connects to where the shim said that it listens.
    pub(crate) async fn connect(answer: &Answer, namespace: &str) -> Result<Self, ConnectError> {
        let path = answer.path().unwrap_or_default();
        let stream = match tokio::time::timeout(QUERY, UnixStream::connect(path)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) if matches!(e.kind(), IoKind::ConnectionRefused | IoKind::NotFound) => {
                return Err(ConnectError::Dead(answer.address.clone()));
            }
            Ok(Err(e)) => return Err(ConnectError::Busy(answer.address.clone(), e)),
            Err(_) => {
                let error = std::io::Error::from(IoKind::TimedOut);
                return Err(ConnectError::Busy(answer.address.clone(), error));
            }
        };
        let closed = CancellationToken::new();
        let watched = Watched {
            stream,
            closed: closed.clone(),
        };
        Ok(Self {
            client: Client(ttrpc::asynchronous::Client::new(Socket::new(watched))),
            namespace: namespace.into(),
            older: Arc::new(AtomicBool::new(answer.version < 3)),
            closed,
        })
    }

    /// Ends when the connection is closed, by whichever side.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Whether both are handles on one connection.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.older, &other.older)
    }

    /// Calls a method of the task service.
    pub(crate) async fn call<Q: Message, A: Message + Default>(
        &self,
        method: Method,
        limit: Option<Duration>,
        traceparent: Option<&str>,
        request: &Q,
    ) -> Result<A, Status> {
        let call = Call {
            namespace: Some(self.namespace.to_string()),
            traceparent: traceparent.map(str::to_owned),
        };
        let name = format!("{method:?}");
        let ask = |service| {
            proto::ttrpc::call::<Q, A>(&self.client.0, service, &name, &call, limit, request)
        };
        if !self.older.load(Ordering::Relaxed) {
            match ask(v3::task_ttrpc::NAME).await {
                Err(status) if status.kind == ErrorKind::Unimplemented => {
                    self.older.store(true, Ordering::Relaxed);
                }
                answer => return answer,
            }
        }
        ask(v2::task_ttrpc::NAME).await
    }
}

impl ShimClient {
    /// Calls a method of another service of the shim.
    pub(crate) async fn ask<Q: Message, A: Message + Default>(
        &self,
        (service, method): (&str, &str),
        limit: Option<Duration>,
        request: &Q,
    ) -> Result<A, Status> {
        let call = Call::in_namespace(self.namespace.to_string());
        proto::ttrpc::call(&self.client.0, service, method, &call, limit, request).await
    }
}

/// Methods of the task service, spelled as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    State,
    Create,
    Start,
    Delete,
    Pids,
    Pause,
    Resume,
    Checkpoint,
    Kill,
    Exec,
    ResizePty,
    CloseIO,
    Update,
    Wait,
    Stats,
    Shutdown,
}

/// Whether an error means that the connection broke, rather than that the shim said no.
pub(crate) fn is_broken(status: &Status) -> bool {
    status.kind == ErrorKind::Unavailable
}

/// A stream that tells when its end, an error, or its own drop has come.
struct Watched {
    stream: UnixStream,
    closed: CancellationToken,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let room = buffer.remaining();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        match &polled {
            Poll::Ready(Ok(())) if room > 0 && buffer.filled().len() == before => {
                self.closed.cancel();
            }
            Poll::Ready(Err(_)) => self.closed.cancel(),
            _ => {}
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
