//! Events: subscribe across namespaces, publish, forward.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use proto::containerd::services::events::v1 as wire;
use proto::containerd::types::Envelope;
use proto::error::ErrorKind;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{Parts, filters, namespace, required};
use crate::events::{Exchange, PublishError, field};
use crate::filters::Fields;
use crate::runtime::Runtime;

impl crate::error::Kind for PublishError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

/// An event under filters.
struct Filtered<'a>(&'a Envelope);

impl Fields for Filtered<'_> {
    fn field(&self, path: &[&str]) -> Option<Cow<'_, str>> {
        field(self.0, path).map(Cow::Owned)
    }
}

/// The service.
#[derive(Debug)]
pub(crate) struct Service {
    exchange: Arc<Exchange>,
    runtime: Arc<Runtime>,
    leaving: CancellationToken,
}

impl Service {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            exchange: parts.events.clone(),
            runtime: parts.runtime.clone(),
            leaving: parts.upgrades.leaving.clone(),
        }
    }
}

#[tonic::async_trait]
impl wire::events_server::Events for Service {
    async fn publish(
        &self,
        request: Request<wire::PublishRequest>,
    ) -> Result<Response<()>, Status> {
        let namespace = namespace(request.metadata())?;
        let request = request.into_inner();
        let envelope = Envelope {
            timestamp: crate::time::wire(crate::time::now()),
            namespace,
            topic: request.topic,
            event: Some(required(request.event, "event")?),
        };
        let published = self.runtime.forward(envelope).await;
        published.map_err(crate::error::status)?;
        Ok(Response::new(()))
    }

    async fn forward(
        &self,
        request: Request<wire::ForwardRequest>,
    ) -> Result<Response<()>, Status> {
        let envelope = required(request.into_inner().envelope, "envelope")?;
        let published = self.runtime.forward(envelope).await;
        published.map_err(crate::error::status)?;
        Ok(Response::new(()))
    }

    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<Envelope, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<wire::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let texts = request.into_inner().filters;
        let parsed = filters(&texts)?;
        let wanted = move |envelope: &Envelope| parsed.matches(&Filtered(envelope));
        let events = self.exchange.subscribe(texts, wanted).map(|event| {
            event.map_err(|cut_off| ErrorKind::ResourceExhausted.status(cut_off.to_string()))
        });
        let events = events
            .take_until(self.leaving.clone().cancelled_owned())
            .chain(futures_util::stream::once(async { Err(super::leaving()) }));
        Ok(Response::new(Box::pin(events)))
    }
}
