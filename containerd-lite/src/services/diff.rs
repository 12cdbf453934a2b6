//! Diff.

use proto::containerd::services::diff::v1 as wire;
use proto::containerd::types::{Descriptor, Mount};
use tonic::{Request, Response, Status};

use super::{Parts, blocking, labels_in, lease, namespace, required};
use crate::content::{ContentError, Digest};
use crate::diff::{CreateRequest, MountSpec, apply, create};

/// Media type of what was applied: the layer without compression.
const APPLIED: &str = "application/vnd.oci.image.layer.v1.tar";

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

#[tonic::async_trait]
impl wire::diff_server::Diff for Service {
    async fn apply(
        &self,
        request: Request<wire::ApplyRequest>,
    ) -> Result<Response<wire::ApplyResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let request = request.into_inner();
        let layer = required(request.diff, "diff")?;
        let mounts = mounts_in(request.mounts);
        let blobs = self.0.blobs.clone();
        let applied = blocking(move || {
            let digest = Digest::parse(&layer.digest).map_err(ContentError::from)?;
            let (blob, _) = blobs.read(&ns, &digest)?;
            apply(blob, &layer.media_type, &mounts, request.sync_fs)
        })
        .await?;
        let applied = Descriptor {
            media_type: APPLIED.to_owned(),
            digest: applied.digest.to_string(),
            size: i64::try_from(applied.size).unwrap_or(i64::MAX),
            ..Descriptor::default()
        };
        Ok(Response::new(wire::ApplyResponse {
            applied: Some(applied),
        }))
    }

    async fn diff(
        &self,
        request: Request<wire::DiffRequest>,
    ) -> Result<Response<wire::DiffResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let lease = lease(request.metadata());
        let request = request.into_inner();
        let blobs = self.0.blobs.clone();
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
        Ok(Response::new(wire::DiffResponse { diff: Some(diff) }))
    }
}
