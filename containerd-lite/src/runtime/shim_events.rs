//! Events of shims: a ttrpc server on `ADDRESS.ttrpc` with the one method Forward.
//!
//! Exits are noted on their task and kept by the exchange until the task is deleted; all else passes through. A shim sends
//! one event after the other, each after the answer to the last, so their order is kept. Only our own user may connect.

use std::sync::Arc;
use std::time::Duration;

use proto::containerd::events::TaskExit;
use proto::containerd::services::events::ttrpc::v1::{ForwardRequest, events_ttrpc};
use proto::containerd::types::Envelope;
use proto::error::ErrorKind;
use proto::ttrpc::{Status, TtrpcContext, async_trait};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use ttrpc::asynchronous::Server;
use ttrpc::asynchronous::transport::Listener;

use super::task::{Life, ProcessExit, ProcessRef};
use super::{Runtime, record};
use crate::events::PublishError;
use crate::fault;

/// How long an exit waits for the answer to the Create of its own task.
const CREATING: Duration = Duration::from_secs(2);
/// Pause after a failed accept, which is most often a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

struct Service(Arc<Runtime>);

#[async_trait]
impl events_ttrpc::Events for Service {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> Result<(), Status> {
        let invalid = |text: String| Status::new(ErrorKind::InvalidArgument, text);
        let envelope = request
            .envelope
            .ok_or_else(|| invalid("envelope is required".to_owned()))?;
        let fault = |point| {
            let passed = fault::point(point);
            passed.map_err(|error| Status::new(ErrorKind::Unavailable, error.to_string()))
        };
        let is_exit = envelope.topic == "/tasks/exit";
        if is_exit {
            fault("exit.heard")?;
        }
        let forwarded = self.0.forward(envelope).await;
        forwarded.map_err(|error| invalid(error.to_string()))?;
        if is_exit {
            fault("exit.told")?;
        }
        Ok(())
    }
}

impl Runtime {
    /// Takes an event that a shim, or a client in its place, made.
    pub(crate) async fn forward(&self, envelope: Envelope) -> Result<(), PublishError> {
        let exit = envelope
            .event
            .as_ref()
            .and_then(proto::any::unpack::<TaskExit>);
        let Some(Ok(exit)) = exit.filter(|_| envelope.topic == "/tasks/exit") else {
            return self.events.forward(envelope);
        };
        let Some(task) = self.find(&envelope.namespace, &exit.container_id) else {
            return self.events.forward(envelope);
        };
        let created = task.until(Some(CREATING), |task| {
            (!matches!(task.life(), Life::Creating)).then_some(())
        });
        // An exit that comes while Create goes on after all is only passed on.
        let _ = created.await;
        let process = if exit.id == exit.container_id {
            ProcessRef::Init
        } else {
            ProcessRef::Exec(exit.id.clone())
        };
        let exited_at = exit.exited_at.unwrap_or_default();
        let ours = task.note_exit(
            &process,
            ProcessExit {
                pid: exit.pid,
                status: exit.exit_status,
                exited_at: crate::time::from_wire(&exited_at),
                reason: record::reason(&task.bundle, &process, (exit.pid, exit.exit_status)),
            },
        );
        if ours && !matches!(task.life(), Life::Gone) {
            self.events
                .publish_exit(task.exit_key(&process), exited_at, envelope)
        } else {
            self.events.forward(envelope)
        }
    }
}

/// Serves the events of shims until `stop`.
pub(crate) async fn serve(
    listener: std::os::unix::net::UnixListener,
    runtime: Arc<Runtime>,
    stop: CancellationToken,
) {
    let listener = listener
        .set_nonblocking(true)
        .and_then(|()| UnixListener::from_std(listener));
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "serve the events of shims");
            return;
        }
    };
    let service = events_ttrpc::service(Arc::new(Service(runtime)));
    let mut server = Server::new()
        .register_service(service)
        .add_listener(Listener::new(accepted(listener)));
    if let Err(error) = server.start().await {
        tracing::error!(%error, "serve the events of shims");
        return;
    }
    stop.cancelled().await;
    // Connections close with the process; a shim sends again what was not answered.
    server.stop_listen().await;
}

/// Connections of our own user, for ever.
fn accepted(
    listener: UnixListener,
) -> impl futures_util::Stream<Item = std::io::Result<UnixStream>> + Send {
    futures_util::stream::unfold(listener, |listener| async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) if crate::listen::is_trusted(&stream) => {
                    return Some((Ok(stream), listener));
                }
                Ok(_) => {
                    tracing::warn!("a stranger connected to the events socket and was refused")
                }
                Err(error) => {
                    tracing::warn!(%error, "accept a shim's connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}
