//! Diff.

use proto::containerd::services::diff::v1 as wire;
use proto::containerd::types::{Descriptor, Mount};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use super::{Parts, blocking, labels_in, lease, namespace, required};
use crate::config::{Config, ProxyKind, WALKING};
use crate::content::{ContentError, Digest};
use crate::diff::{CreateRequest, MountSpec, apply, create};

/// Media type of what was applied: the layer without compression.
const APPLIED: &str = "application/vnd.oci.image.layer.v1.tar";

/// How long another program may take over a layer.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(3600);

/// Who applies and makes layers, in the order in which they are asked: the first that does not say Unimplemented.
#[derive(Debug)]
pub(crate) struct Differs(Vec<Differ>);

#[derive(Debug)]
enum Differ {
    /// Ourselves.
    Walking,
    /// Another program.
    Proxy(wire::diff_client::DiffClient<Channel>),
}

impl Differs {
    /// As the configuration orders them.
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        let find = |name: &String| {
            if name == WALKING {
                return Ok(Differ::Walking);
            }
            let proxies = &config.proxies;
            let proxy = proxies
                .iter()
                .find(|proxy| proxy.kind == ProxyKind::Diff && proxy.name == *name)
                .ok_or_else(|| format!("there is no differ {name:?}"))?;
            let endpoint = Endpoint::try_from(format!("unix://{}", proxy.address.display()))
                .map_err(|e| format!("differ {name:?}: address {:?}: {e}", proxy.address))?;
            let client = wire::diff_client::DiffClient::new(endpoint.connect_lazy());
            Ok(Differ::Proxy(client))
        };
        let all = config.differs.iter().map(find);
        all.collect::<Result<_, String>>().map(Self)
    }
}

/// The request for another program, in the same namespace and lease.
fn forwarded<T: Clone>(metadata: &MetadataMap, message: &T) -> Request<T> {
    let mut request = Request::new(message.clone());
    for key in ["containerd-namespace", "containerd-lease"] {
        if let Some(value) = metadata.get(key) {
            request.metadata_mut().insert(key, value.clone());
        }
    }
    request.set_timeout(LIMIT);
    request
}

/// The service.
#[derive(Debug)]
pub(crate) struct Service(Parts);

impl Service {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(parts)
    }
}

fn mounts_in(mounts: Vec<Mount>) -> Vec<MountSpec> {
    mounts
        .into_iter()
        .map(|m| MountSpec {
            kind: m.r#type,
            source: m.source,
            options: m.options,
        })
        .collect()
}

impl Service {
    async fn apply_here(
        &self,
        ns: &str,
        request: wire::ApplyRequest,
    ) -> Result<wire::ApplyResponse, Status> {
        let layer = required(request.diff, "diff")?;
        let mounts = mounts_in(request.mounts);
        let (blobs, ns) = (self.0.blobs.clone(), ns.to_owned());
        let applied = blocking(move || {
            let digest = Digest::parse(&layer.digest).map_err(ContentError::from)?;
            let (blob, _) = blobs.read(&ns, &digest)?;
            apply(blob, &digest, &layer.media_type, &mounts, request.sync_fs)
        })
        .await?;
        let applied = Descriptor {
            media_type: APPLIED.to_owned(),
            digest: applied.digest.to_string(),
            size: i64::try_from(applied.size).unwrap_or(i64::MAX),
            ..Descriptor::default()
        };
        Ok(wire::ApplyResponse {
            applied: Some(applied),
        })
    }

    async fn diff_here(
        &self,
        ns: &str,
        lease: Option<String>,
        request: wire::DiffRequest,
    ) -> Result<wire::DiffResponse, Status> {
        let (blobs, ns) = (self.0.blobs.clone(), ns.to_owned());
        let made = blocking(move || {
            let request = CreateRequest {
                ns,
                lease,
                before: mounts_in(request.left),
                after: mounts_in(request.right),
                media_type: request.media_type,
                reference: request.r#ref,
                labels: labels_in(request.labels),
                epoch: request.source_date_epoch.map(|t| t.seconds),
            };
            create(&blobs, request)
        })
        .await?;
        let diff = Descriptor {
            media_type: made.media_type,
            digest: made.digest.to_string(),
            size: made.size,
            ..Descriptor::default()
        };
        Ok(wire::DiffResponse { diff: Some(diff) })
    }
}

#[tonic::async_trait]
impl wire::diff_server::Diff for Service {
    async fn apply(
        &self,
        request: Request<wire::ApplyRequest>,
    ) -> Result<Response<wire::ApplyResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let (metadata, _, message) = request.into_parts();
        let mut refused = Status::unimplemented("no differ is configured");
        for differ in &self.0.differs.0 {
            let answer = match differ {
                Differ::Walking => self
                    .apply_here(&ns, message.clone())
                    .await
                    .map(Response::new),
                Differ::Proxy(client) => client.clone().apply(forwarded(&metadata, &message)).await,
            };
            match answer {
                Err(status) if status.code() == Code::Unimplemented => refused = status,
                answer => return answer,
            }
        }
        Err(refused)
    }

    async fn diff(
        &self,
        request: Request<wire::DiffRequest>,
    ) -> Result<Response<wire::DiffResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let (metadata, _, message) = request.into_parts();
        let lease = lease(&metadata);
        let mut refused = Status::unimplemented("no differ is configured");
        for differ in &self.0.differs.0 {
            let answer = match differ {
                Differ::Walking => self
                    .diff_here(&ns, lease.clone(), message.clone())
                    .await
                    .map(Response::new),
                Differ::Proxy(client) => client.clone().diff(forwarded(&metadata, &message)).await,
            };
            match answer {
                Err(status) if status.code() == Code::Unimplemented => refused = status,
                answer => return answer,
            }
        }
        Err(refused)
    }
}
