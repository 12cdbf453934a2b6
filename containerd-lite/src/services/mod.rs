//! The gRPC face: wire in, call a noun, wire out. Wire types stop here.
//!
//! Every method but those of Version, Health, Introspection and Namespaces needs the header `containerd-namespace`.

pub(crate) mod checkpoint;
mod containers;
mod content;
mod control;
mod diff;
mod events;
mod health;
mod images;
mod introspection;
mod leases;
mod namespaces;
mod sandbox;
mod snapshots;
mod streaming;
mod tasks;
mod transfer;
mod version;

use std::collections::HashMap;
use std::sync::Arc;

use proto::error::ErrorKind;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::config::Config;
use crate::content::Blobs;
use crate::error::Kind;
use crate::events::Exchange;
use crate::gc::Collector;
use crate::metadata::{Labels, Store};
use crate::runtime::Runtime;
use crate::snapshots::Snapshotter;
pub(crate) use diff::Differs;

/// What the services call, built by [`crate::serve`].
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) config: Arc<Config>,
    pub(crate) store: Store,
    pub(crate) blobs: Arc<Blobs>,
    pub(crate) snapshotters: Arc<HashMap<&'static str, Arc<Snapshotter>>>,
    pub(crate) differs: Arc<Differs>,
    pub(crate) gc: Collector,
    pub(crate) events: Arc<Exchange>,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) streams: Arc<crate::streams::Streams>,
    pub(crate) upgrades: crate::upgrade::Upgrades,
    pub(crate) started_at: crate::time::Nanos,
}

/// Wraps a service with the configured message limits.
macro_rules! limited {
    ($max:expr, $server:ty, $service:expr) => {
        <$server>::new($service)
            .max_decoding_message_size($max)
            .max_encoding_message_size($max)
    };
}

/// All services on one router. A path that none of them has is answered Unimplemented.
pub(crate) fn routes(parts: Parts) -> tonic::service::Routes {
    use proto::containerd::services as wire;
    let max = parts.config.max_message;
    tonic::service::Routes::default()
        .add_service(limited!(
            max,
            wire::version::v1::version_server::VersionServer<_>,
            version::Service
        ))
        .add_service(limited!(
            max,
            proto::grpc::health::v1::health_server::HealthServer<_>,
            health::Service::new(parts.upgrades.leaving.clone())
        ))
        .add_service(limited!(
            max,
            proto::lite::control::v1::control_server::ControlServer<_>,
            control::Service::new(parts.clone())
        ))
        .add_service(limited!(
            max,
            wire::tasks::v1::tasks_server::TasksServer<_>,
            tasks::Service::new(&parts)
        ))
        .add_service(limited!(
            max,
            wire::events::v1::events_server::EventsServer<_>,
            events::Service::new(&parts)
        ))
        .add_service(limited!(
            max,
            wire::namespaces::v1::namespaces_server::NamespacesServer<_>,
            namespaces::Service::new(parts.clone())
        ))
        .add_service(limited!(
            max,
            wire::containers::v1::containers_server::ContainersServer<_>,
            containers::Service::new(parts.clone())
        ))
        .add_service(limited!(
            max,
            wire::images::v1::images_server::ImagesServer<_>,
            images::Service::new(parts.clone())
        ))
        .add_service(limited!(
            max,
            wire::content::v1::content_server::ContentServer<_>,
            content::Service::new(parts.clone())
        ))
        .add_service(limited!(
            max,
            wire::snapshots::v1::snapshots_server::SnapshotsServer<_>,
            snapshots::Service::new(parts.clone())
        ))
        .add_service(limited!(
            max,
            wire::diff::v1::diff_server::DiffServer<_>,
            diff::Service::new(parts.clone())
        ))
        .add_service(limited!(
            max,
            wire::leases::v1::leases_server::LeasesServer<_>,
            leases::Service::new(parts.clone())
        ))
        .add_service(limited!(
            max,
            wire::sandbox::v1::store_server::StoreServer<_>,
            sandbox::Store::new(parts.clone())
        ))
        .add_service(limited!(
            max,
            wire::sandbox::v1::controller_server::ControllerServer<_>,
            sandbox::Controller::new(parts.clone())
        ))
        .add_service(limited!(
            max,
            wire::streaming::v1::streaming_server::StreamingServer<_>,
            streaming::Service::new(&parts)
        ))
        .add_service(limited!(
            max,
            wire::transfer::v1::transfer_server::TransferServer<_>,
            transfer::Service::new(parts.clone())
        ))
        .add_service(limited!(
            max,
            wire::introspection::v1::introspection_server::IntrospectionServer<_>,
            introspection::Service::new(parts)
        ))
}

/// What ends a call that would go on for as long as this program: the client asks again, and is answered by the next one.
pub(crate) fn leaving() -> Status {
    Status::unavailable("containerd-lite is about to be replaced or to end: ask again")
}

/// Runs what blocks on a thread for it.
pub(crate) async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Status>
where
    T: Send + 'static,
    E: Kind + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(crate::error::status),
        Err(error) => Err(Status::internal(format!("blocking work: {error}"))),
    }
}

/// A server stream of lists.
pub(crate) type Chunks<M> = tokio_stream::Iter<std::vec::IntoIter<Result<M, Status>>>;

/// Cuts a list into messages of `size` items.
pub(crate) fn chunks<T, M>(items: Vec<T>, size: usize, message: impl Fn(Vec<T>) -> M) -> Chunks<M> {
    let mut messages = Vec::with_capacity(items.len().div_ceil(size));
    let mut rest = items.into_iter().peekable();
    while rest.peek().is_some() {
        messages.push(Ok(message(rest.by_ref().take(size).collect())));
    }
    tokio_stream::iter(messages)
}

/// The namespace of a request.
pub(crate) fn namespace(metadata: &MetadataMap) -> Result<String, Status> {
    let missing =
        || ErrorKind::FailedPrecondition.status("namespace is required: failed precondition");
    let value = metadata.get("containerd-namespace").ok_or_else(missing)?;
    let name = value
        .to_str()
        .map_err(|_| ErrorKind::InvalidArgument.status("namespace header is not text"))?;
    if name.is_empty() {
        return Err(missing());
    }
    proto::ids::validate(name)
        .map_err(|e| ErrorKind::InvalidArgument.status(format!("namespace {name:?}: {e}")))?;
    Ok(name.to_owned())
}

/// The lease of a request, if it has one.
pub(crate) fn lease(metadata: &MetadataMap) -> Option<String> {
    let value = metadata.get("containerd-lease")?.to_str().ok()?;
    (!value.is_empty()).then(|| value.to_owned())
}

/// The trace of a request, if it has one.
pub(crate) fn traceparent(metadata: &MetadataMap) -> Option<String> {
    let value = metadata.get(proto::trace::TRACEPARENT)?.to_str().ok()?;
    proto::trace::trace_id(value).map(|_| value.to_owned())
}

/// Parses the filters of a request.
pub(crate) fn filters<S: AsRef<str>>(filters: &[S]) -> Result<crate::filters::Filters, Status> {
    crate::filters::Filters::parse(filters).map_err(crate::error::status)
}

/// Paths of a field mask.
pub(crate) fn mask(mask: Option<prost_types::FieldMask>) -> Vec<String> {
    mask.map(|m| m.paths).unwrap_or_default()
}

/// The field that a request must have.
pub(crate) fn required<T>(field: Option<T>, name: &str) -> Result<T, Status> {
    field.ok_or_else(|| ErrorKind::InvalidArgument.status(format!("{name} is required")))
}

/// Labels from the wire.
pub(crate) fn labels_in(labels: HashMap<String, String>) -> Labels {
    labels.into_iter().collect()
}

/// Labels for the wire.
pub(crate) fn labels_out(labels: Labels) -> HashMap<String, String> {
    labels.into_iter().collect()
}
