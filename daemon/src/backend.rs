//! The containerd below: one gRPC channel over its unix socket, and a client for each service.
//!
//! Every call carries the namespace, the trace of the request that caused it, and, within a lease, its id. The channel
//! connects on first use and again after the other side went away. A call made meanwhile waits for a containerd-lite that the
//! daemon itself starts again, and fails as unavailable where somebody else has to. Deadlines are the caller's: [`within`]
//! gives one to a call.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use proto::containerd::services::containers::v1::containers_client::ContainersClient;
use proto::containerd::services::content::v1::content_client::ContentClient;
use proto::containerd::services::diff::v1::diff_client::DiffClient;
use proto::containerd::services::events::v1::events_client::EventsClient;
use proto::containerd::services::images::v1::images_client::ImagesClient;
use proto::containerd::services::leases::v1::leases_client::LeasesClient;
use proto::containerd::services::leases::v1::{CreateRequest, DeleteRequest};
use proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use proto::containerd::services::tasks::v1::tasks_client::TasksClient;
use proto::containerd::services::version::v1::version_client::VersionClient;
use proto::error::ErrorKind;
use tokio::net::UnixStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::error::{Error, Result};

/// containerd's limit for one message, both ways.
const MESSAGE: usize = 16 << 20;

/// Longest time for a call that only reads or writes metadata.
pub(crate) const QUICK: Duration = Duration::from_secs(10);

/// Longest time for a call that runs the OCI runtime.
pub(crate) const SLOW: Duration = Duration::from_secs(120);

tokio::task_local! {
    /// The `traceparent` of the request that is being served.
    pub(crate) static TRACE: String;
}

/// Adds what every call carries.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    namespace: MetadataValue<Ascii>,
    lease: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Header {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> Result<tonic::Request<()>, tonic::Status> {
        let metadata = request.metadata_mut();
        metadata.insert("containerd-namespace", self.namespace.clone());
        if let Some(lease) = &self.lease {
            metadata.insert("containerd-lease", lease.clone());
        }
        let trace = TRACE.try_with(|trace| trace.parse().ok()).ok().flatten();
        if let Some(trace) = trace {
            metadata.insert(proto::trace::TRACEPARENT, trace);
        }
        Ok(request)
    }
}

/// What the clients speak through.
pub(crate) type Wire = InterceptedService<Channel, Header>;

/// Handle of the containerd below; clones share the channel.
#[derive(Debug, Clone)]
pub(crate) struct Backend {
    channel: Channel,
    header: Header,
    address: PathBuf,
    namespace: String,
    snapshotter: String,
}

macro_rules! client {
    ($name:ident, $client:ident) => {
        /// A client of the service.
        pub(crate) fn $name(&self) -> $client<Wire> {
            $client::with_interceptor(self.channel.clone(), self.header.clone())
                .max_decoding_message_size(MESSAGE)
                .max_encoding_message_size(MESSAGE)
        }
    };
}

impl Backend {
    /// A handle of the containerd at `address`; nothing is connected yet. A connection is tried for `patience` while nobody
    /// listens there.
    pub(crate) fn new(
        address: &Path,
        patience: Duration,
        namespace: &str,
        snapshotter: &str,
    ) -> Result<Self> {
        proto::ids::validate(namespace)
            .map_err(|e| Error::invalid(format!("containerd namespace: {e}")))?;
        let place = address.to_owned();
        let channel = Endpoint::from_static("http://localhost")
            .connect_timeout(patience + Duration::from_secs(5))
            .http2_keep_alive_interval(Duration::from_secs(30))
            .connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                connect(place.clone(), patience)
            }));
        let text = namespace
            .parse()
            .map_err(|_| Error::invalid(format!("containerd namespace {namespace:?}")))?;
        Ok(Self {
            channel,
            header: Header {
                namespace: text,
                lease: None,
            },
            address: address.to_owned(),
            namespace: namespace.to_owned(),
            snapshotter: snapshotter.to_owned(),
        })
    }

    client!(containers, ContainersClient);
    client!(content, ContentClient);
    client!(diff, DiffClient);
    client!(events, EventsClient);
    client!(images, ImagesClient);
    client!(leases, LeasesClient);
    client!(snapshots, SnapshotsClient);
    client!(tasks, TasksClient);
    client!(version, VersionClient);

    /// The socket of the containerd.
    pub(crate) fn address(&self) -> &Path {
        &self.address
    }
    /// The namespace of every call.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }
    /// The snapshotter that images are unpacked into.
    pub(crate) fn snapshotter(&self) -> &str {
        &self.snapshotter
    }

    /// Makes a lease that expires by itself after a day, should nobody end it. What the returned handle creates is kept from
    /// garbage collection until [`Lease::end`].
    pub(crate) async fn lease(&self, id: &str) -> Result<Lease> {
        let expire = time::OffsetDateTime::now_utc() + Duration::from_secs(24 * 3600);
        let expire = expire
            .format(&time::format_description::well_known::Rfc3339)
            .map_err(|e| Error::internal(format!("format a time: {e}")))?;
        let request = CreateRequest {
            id: id.to_owned(),
            labels: [("containerd.io/gc.expire".to_owned(), expire)].into(),
        };
        match within(QUICK, self.leases().create(request)).await {
            Ok(_) => {}
            // One that a killed daemon left behind, taken over with what it holds.
            Err(e) if e.is_exists() => {}
            Err(e) => return Err(e.during(format!("create lease {id}"))),
        }
        let mut inside = self.clone();
        inside.header.lease = Some(
            id.parse()
                .map_err(|_| Error::internal(format!("lease id {id:?} is no header value")))?,
        );
        Ok(Lease {
            inside,
            id: id.to_owned(),
        })
    }
}

/// A lease and a handle that works within it.
#[derive(Debug)]
pub(crate) struct Lease {
    inside: Backend,
    id: String,
}

impl Lease {
    /// The handle whose creations the lease holds.
    pub(crate) fn backend(&self) -> &Backend {
        &self.inside
    }

    /// Ends the lease. What nothing else holds is collected; with `sync` before this returns.
    pub(crate) async fn end(self, sync: bool) -> Result<()> {
        let request = DeleteRequest {
            id: self.id.clone(),
            sync,
        };
        match within(SLOW, self.inside.leases().delete(request)).await {
            Ok(_) => Ok(()),
            Err(e) if e.is_not_found() => Ok(()),
            Err(e) => Err(e.during(format!("delete lease {}", self.id))),
        }
    }
}

/// Connects to a socket that may be about to appear.
async fn connect(address: PathBuf, patience: Duration) -> std::io::Result<TokioIo<UnixStream>> {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    let start = Instant::now();
    loop {
        match UnixStream::connect(&address).await {
            Err(e)
                if matches!(e.kind(), ConnectionRefused | NotFound)
                    && start.elapsed() < patience =>
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            connected => return connected.map(TokioIo::new),
        }
    }
}

/// Gives a call a deadline and takes its reply out of the envelope.
pub(crate) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) => Err(status.into()),
        Err(_) => Err(Error::new(
            ErrorKind::DeadlineExceeded,
            format!("no answer from containerd within {} s", limit.as_secs()),
        )),
    }
}
