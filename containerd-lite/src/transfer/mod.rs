//! Transfers: images between registries, archives and the image store, done here for clients that ask for it (ctr 2.x).
//!
//! ```text
//!  registry ──pull──▶ ┐                        ┌ ──push──▶ registry
//!                     │  content, image store  │
//!  archive ──import─▶ ┘ ◀────────tag─────────▶ └ ─export─▶ archive
//!                └─ unpack ─▶ snapshots
//! ```
//!
//! Each goes over the tree of a descriptor ([`tree`]): an index has manifests, a manifest a configuration and layers. A
//! pull makes each node present ([`fetch`]), several layers at once, each resumed where an earlier pull broke off, and
//! unpacks layers in order as soon as the next one is there ([`unpack`]). All that is made is held by a lease of the
//! transfer until the image names it; ingests are not, so that they outlive a pull that failed and are resumed by the next.
//!
//! A transfer whose client leaves is given up. Progress is told on a stream of the client's, as far as it listens.

mod archive;
mod docker;
mod export;
mod fetch;
mod image;
mod import;
mod platform;
mod progress;
mod pull;
mod push;
mod store;
mod tree;
mod unpack;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use prost_types::Any;
use proto::containerd::services::transfer::v1::TransferRequest;
use proto::containerd::types::transfer::{
    ImageExportStream, ImageImportStream, ImageStore, OciRegistry, RegistryResolver,
};
use proto::error::ErrorKind;

use crate::content::{Blobs, ContentError};
use crate::diff::DiffError;
use crate::events::Exchange;
use crate::gc::Collector;
use crate::metadata::{Labels, MetadataError, Store};
use crate::registry::{Helper, Options, Reference, RegistryError, Session};
use crate::snapshots::{SnapshotError, Snapshotter};
use crate::streams::{StreamError, Streams};

use progress::Progress;

/// How long what a killed daemon's transfer held is kept.
const LEASE_LIFE: i64 = 24 * 3600;

/// Why an image did not get to where it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransferError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Content(#[from] ContentError),
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error(transparent)]
    Snapshots(#[from] SnapshotError),
    #[error(transparent)]
    Diff(#[from] DiffError),
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("read {what}")]
    Document {
        what: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{0}")]
    Invalid(String),
    #[error("{0}: not found")]
    NotFound(String),
    #[error("{0}: not implemented")]
    Unsupported(String),
    #[error("archive: {what}")]
    Archive {
        what: String,
        source: std::io::Error,
    },
    #[error("blocking work of a transfer: {0}")]
    Worker(String),
}

impl crate::error::Kind for TransferError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Registry(error) => error.kind(),
            Self::Content(error) => error.kind(),
            Self::Metadata(error) => error.kind(),
            Self::Snapshots(error) => error.kind(),
            Self::Diff(error) => error.kind(),
            Self::Stream(error) => error.kind(),
            Self::Document { .. } | Self::Invalid(_) => ErrorKind::InvalidArgument,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Unsupported(_) => ErrorKind::Unimplemented,
            Self::Archive { source, .. } => match source.kind() {
                std::io::ErrorKind::BrokenPipe => ErrorKind::Cancelled,
                _ => match crate::error::io_kind(source) {
                    // What a reader of archives says of malformed ones.
                    ErrorKind::Internal | ErrorKind::NotFound => ErrorKind::InvalidArgument,
                    kind => kind,
                },
            },
            Self::Worker(_) => ErrorKind::Internal,
        }
    }
}

type Result<T> = std::result::Result<T, TransferError>;

/// What the configuration says of transfers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Layers of one pull that are fetched at one time.
    pub(crate) downloads: usize,
    /// Layers of one push that are sent at one time.
    pub(crate) uploads: usize,
    /// Folders with the configuration of registries, unless a client names one; the first that knows a host counts.
    pub(crate) hosts: Vec<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            downloads: 3,
            uploads: 3,
            hosts: Vec::new(),
        }
    }
}

/// What transfers work with.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    pub(crate) blobs: Arc<Blobs>,
    pub(crate) snapshotters: Arc<HashMap<&'static str, Arc<Snapshotter>>>,
    pub(crate) gc: Collector,
    pub(crate) events: Arc<Exchange>,
    pub(crate) streams: Arc<Streams>,
}

/// One transfer under way.
#[derive(Debug, Clone)]
struct Job {
    parts: Parts,
    ns: String,
    lease: String,
    progress: Progress,
}

/// What a transfer can begin or end with.
enum End {
    Registry(OciRegistry),
    Store(ImageStore),
    Import(ImageImportStream),
    Export(ImageExportStream),
}

impl End {
    fn parse(any: Option<&Any>, which: &str) -> Result<Self> {
        let any = any.ok_or_else(|| TransferError::Invalid(format!("no {which}")))?;
        let malformed = |e: prost::DecodeError| TransferError::Document {
            what: which.to_owned(),
            source: e.into(),
        };
        macro_rules! try_as {
            ($variant:ident) => {
                if let Some(message) = proto::any::unpack(any) {
                    return message.map(Self::$variant).map_err(malformed);
                }
            };
        }
        try_as!(Registry);
        try_as!(Store);
        try_as!(Import);
        try_as!(Export);
        Err(TransferError::Unsupported(format!(
            "a transfer with {which} {:?}",
            any.type_url
        )))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Registry(_) => "a registry",
            Self::Store(_) => "the image store",
            Self::Import(_) => "an archive to read",
            Self::Export(_) => "an archive to write",
        }
    }
}

/// Does what a request says. Dropping the future gives the transfer up.
pub(crate) async fn run(
    parts: Parts,
    ns: String,
    lease: Option<String>,
    request: TransferRequest,
) -> Result<()> {
    let from = End::parse(request.source.as_ref(), "source")?;
    let to = End::parse(request.destination.as_ref(), "destination")?;
    let options = request.options.unwrap_or_default();
    let progress = match options.progress_stream.as_str() {
        "" => Progress::silent(),
        id => Progress::on(parts.streams.take(&ns, id)?),
    };
    let (lease, own) = match lease {
        Some(lease) => {
            crate::metadata::leases::required(&parts.store, &ns, Some(&lease))?;
            (lease, None)
        }
        None => {
            let lease = new_lease(&parts, &ns).await?;
            (lease.clone(), Some(LeaseGuard::new(&parts, &ns, lease)))
        }
    };
    let job = Job {
        parts,
        ns,
        lease,
        progress,
    };
    let outcome = match (from, to) {
        (End::Registry(from), End::Store(to)) => pull::pull(&job, from, to).await,
        (End::Store(from), End::Registry(to)) => push::push(&job, from, to).await,
        (End::Import(from), End::Store(to)) => import::import(&job, from, to).await,
        (End::Store(from), End::Export(to)) => export::export(&job, from, to).await,
        (End::Store(from), End::Store(to)) => store::tag(&job, &from, &to).await,
        (from, to) => Err(TransferError::Unsupported(format!(
            "a transfer from {} to {}",
            from.name(),
            to.name()
        ))),
    };
    if let Some(own) = own {
        own.end().await;
    }
    outcome
}

async fn new_lease(parts: &Parts, ns: &str) -> Result<String> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let id = format!(
        "transfer-{}-{}-{number}",
        std::process::id(),
        crate::time::now()
    );
    let until = crate::time::now().saturating_add(LEASE_LIFE * 1_000_000_000);
    let labels = Labels::from([(
        "containerd.io/gc.expire".to_owned(),
        crate::time::to_rfc3339(until),
    )]);
    parts.store.leases().create(ns, &id, labels).await?;
    Ok(id)
}

/// Ends the lease of a transfer, also of one that was given up.
struct LeaseGuard {
    parts: Parts,
    ns: String,
    lease: Option<String>,
}

impl LeaseGuard {
    fn new(parts: &Parts, ns: &str, lease: String) -> Self {
        Self {
            parts: parts.clone(),
            ns: ns.to_owned(),
            lease: Some(lease),
        }
    }

    async fn end(mut self) {
        if let Some(lease) = self.lease.take() {
            end_lease(&self.parts, &self.ns, &lease).await;
        }
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        let Some(lease) = self.lease.take() else {
            return;
        };
        let (parts, ns) = (self.parts.clone(), self.ns.clone());
        // Without a runtime the daemon is going down: the lease expires by itself.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { end_lease(&parts, &ns, &lease).await });
        }
    }
}

async fn end_lease(parts: &Parts, ns: &str, lease: &str) {
    if let Err(error) = parts.store.leases().delete(ns, lease).await {
        tracing::warn!(
            "end the lease of a transfer: {}",
            crate::error::chain(&error)
        );
    }
    parts.gc.soon();
}

impl Job {
    /// Runs what blocks on a thread for it.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|e| Err(TransferError::Worker(e.to_string())))
    }

    /// A session with the registry that a client names.
    fn session(&self, registry: &OciRegistry, digest: Option<&str>) -> Result<Session> {
        let mut reference = Reference::parse(&registry.reference)?;
        if let Some(digest) = digest {
            let digest = crate::content::Digest::parse(digest).map_err(ContentError::from)?;
            reference.digest.get_or_insert(digest);
        }
        let resolver = registry.resolver.clone().unwrap_or_default();
        Ok(Session::open(reference, &self.options(resolver)?)?)
    }

    fn options(&self, resolver: RegistryResolver) -> Result<Options> {
        let helper = match resolver.auth_stream.as_str() {
            "" => None,
            id => Some(Helper::new(self.parts.streams.take(&self.ns, id)?)),
        };
        let folders = match resolver.host_dir.as_str() {
            "" => self.parts.settings.hosts.clone(),
            folder => vec![folder.into()],
        };
        Ok(Options {
            folders,
            scheme: resolver.default_scheme,
            headers: resolver.headers.into_iter().collect(),
            helper,
        })
    }
}
