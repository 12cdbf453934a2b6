//! Streaming: opens side channels, see [`crate::streams`].

use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt as _;
use prost_types::Any;
use proto::containerd::services::streaming::v1 as wire;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{Parts, namespace};
use crate::error::status;
use crate::streams::{ParkedGuard, QUEUE, Stream, Streams};

/// Type URL of the answer that says the stream is there.
const READY: &str = "google.protobuf.Empty";

/// The service.
#[derive(Debug)]
pub(crate) struct Service {
    streams: Arc<Streams>,
    leaving: CancellationToken,
}

impl Service {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            streams: parts.streams.clone(),
            leaving: parts.upgrades.leaving.clone(),
        }
    }
}

/// What a client gets.
type Answers = Pin<Box<dyn futures_util::Stream<Item = Result<Any, Status>> + Send>>;

#[tonic::async_trait]
impl wire::streaming_server::Streaming for Service {
    type StreamStream = Answers;

    async fn stream(
        &self,
        request: Request<Streaming<Any>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let ns = namespace(request.metadata())?;
        let streams = self.streams.clone();
        let (outgoing, answers) = mpsc::channel(QUEUE);
        // The first message may come after our headers, so the headers go out at once.
        let opened = open(streams, ns, request.into_inner(), outgoing);
        tokio::spawn(self.leaving.clone().run_until_cancelled_owned(opened));
        let leaving = self.leaving.clone();
        let answers = ReceiverStream::new(answers)
            .take_until(leaving.clone().cancelled_owned())
            .chain(futures_util::stream::iter(
                // Asked for when the rest is over.
                std::iter::once_with(move || leaving.is_cancelled())
                    .filter(|cut| *cut)
                    .map(|_| Err(super::leaving())),
            ));
        Ok(Response::new(Box::pin(answers)))
    }
}

/// Parks the stream under the id of its first message and passes on what the client sends.
async fn open(
    streams: Arc<Streams>,
    ns: String,
    mut messages: Streaming<Any>,
    outgoing: mpsc::Sender<Result<Any, Status>>,
) {
    let (sender, incoming) = mpsc::channel(QUEUE);
    let parked = park(&streams, &ns, &mut messages, incoming, &outgoing).await;
    let _guard = match parked {
        Ok(guard) => guard,
        Err(error) => {
            let _ = outgoing.send(Err(error)).await;
            return;
        }
    };
    // Ours to hold no longer: the stream ends when whoever took it drops its side.
    drop(outgoing);
    while let Ok(Some(message)) = messages.message().await {
        if sender.send(message).await.is_err() {
            return;
        }
    }
}

async fn park(
    streams: &Arc<Streams>,
    ns: &str,
    messages: &mut Streaming<Any>,
    incoming: mpsc::Receiver<Any>,
    outgoing: &mpsc::Sender<Result<Any, Status>>,
) -> Result<ParkedGuard, Status> {
    let invalid = || Status::invalid_argument("the first message must be a StreamInit with an id");
    let first = messages.message().await?.ok_or_else(invalid)?;
    let init = proto::any::unpack::<wire::StreamInit>(&first)
        .and_then(Result::ok)
        .filter(|init| !init.id.is_empty())
        .ok_or_else(invalid)?;
    let stream = Stream {
        incoming,
        outgoing: outgoing.clone(),
    };
    let guard = streams.park(ns, &init.id, stream).map_err(status)?;
    let ready = Any {
        type_url: READY.to_owned(),
        value: Vec::new(),
    };
    // Parked first: the client names it as soon as it hears of it.
    outgoing
        .send(Ok(ready))
        .await
        .map_err(|_| Status::cancelled("the client left"))?;
    Ok(guard)
}
