//! Snapshots.

use std::borrow::Cow;
use std::sync::Arc;

use proto::containerd::events::{SnapshotCommit, SnapshotPrepare, SnapshotRemove};
use proto::containerd::services::snapshots::v1 as wire;
use proto::containerd::types;
use tonic::{Request, Response, Status};

use super::{
    Parts, blocking, chunks, filters, labels_in, labels_out, lease, mask, namespace, required,
};
use crate::error::status;
use crate::filters::{Fields, in_map, text};
use crate::metadata::{SnapshotKind, SnapshotRow};
use crate::snapshots::{Mount, Snapshotter};

/// Snapshots in one message of a list.
const CHUNK: usize = 100;

/// The service.
#[derive(Debug)]
pub(crate) struct Service(Parts);

impl Service {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(parts)
    }

    fn snapshotter(&self, name: &str) -> Result<Arc<Snapshotter>, Status> {
        crate::snapshots::find(&self.0.snapshotters, name).map_err(status)
    }

    async fn make(
        &self,
        metadata: &tonic::metadata::MetadataMap,
        kind: SnapshotKind,
        request: wire::PrepareSnapshotRequest,
    ) -> Result<Vec<types::Mount>, Status> {
        let (ns, lease) = (namespace(metadata)?, lease(metadata));
        let snapshotter = self.snapshotter(&request.snapshotter)?;
        let event = SnapshotPrepare {
            key: request.key.clone(),
            parent: request.parent.clone(),
            snapshotter: snapshotter.name().to_owned(),
        };
        let space = ns.clone();
        let mounts = blocking(move || {
            let labels = labels_in(request.labels);
            snapshotter.prepare(
                &space,
                lease.as_deref(),
                kind,
                &request.key,
                &request.parent,
                &labels,
            )
        })
        .await?;
        self.0
            .events
            .publish(&ns, "/snapshot/prepare", proto::any::pack(&event));
        Ok(mounts.into_iter().map(mount_out).collect())
    }
}

fn mount_out(m: Mount) -> types::Mount {
    types::Mount {
        r#type: m.kind.into_owned(),
        source: m.source,
        target: String::new(),
        options: m.options,
    }
}

fn kind_name(kind: SnapshotKind) -> &'static str {
    match kind {
        SnapshotKind::View => "view",
        SnapshotKind::Active => "active",
        SnapshotKind::Committed => "committed",
    }
}

impl Fields for SnapshotRow {
    fn field(&self, path: &[&str]) -> Option<Cow<'_, str>> {
        match path {
            ["name"] => text(&self.name),
            ["parent"] => text(&self.parent),
            ["kind"] => text(kind_name(self.kind)),
            ["labels", key @ ..] => in_map(&self.labels, key),
            _ => None,
        }
    }
}

fn out(row: SnapshotRow) -> wire::Info {
    let kind = match row.kind {
        SnapshotKind::View => wire::Kind::View,
        SnapshotKind::Active => wire::Kind::Active,
        SnapshotKind::Committed => wire::Kind::Committed,
    };
    wire::Info {
        name: row.name,
        parent: row.parent,
        kind: kind.into(),
        created_at: crate::time::wire(row.created_at),
        updated_at: crate::time::wire(row.updated_at),
        labels: labels_out(row.labels),
    }
}

#[tonic::async_trait]
impl wire::snapshots_server::Snapshots for Service {
    type ListStream = super::Chunks<wire::ListSnapshotsResponse>;

    async fn prepare(
        &self,
        request: Request<wire::PrepareSnapshotRequest>,
    ) -> Result<Response<wire::PrepareSnapshotResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let mounts = self.make(&metadata, SnapshotKind::Active, request).await?;
        Ok(Response::new(wire::PrepareSnapshotResponse { mounts }))
    }

    async fn view(
        &self,
        request: Request<wire::ViewSnapshotRequest>,
    ) -> Result<Response<wire::ViewSnapshotResponse>, Status> {
        let (metadata, _, r) = request.into_parts();
        let same = wire::PrepareSnapshotRequest {
            snapshotter: r.snapshotter,
            key: r.key,
            parent: r.parent,
            labels: r.labels,
        };
        let mounts = self.make(&metadata, SnapshotKind::View, same).await?;
        Ok(Response::new(wire::ViewSnapshotResponse { mounts }))
    }

    async fn mounts(
        &self,
        request: Request<wire::MountsRequest>,
    ) -> Result<Response<wire::MountsResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let request = request.into_inner();
        let snapshotter = self.snapshotter(&request.snapshotter)?;
        let mounts = blocking(move || snapshotter.mounts(&ns, &request.key)).await?;
        Ok(Response::new(wire::MountsResponse {
            mounts: mounts.into_iter().map(mount_out).collect(),
        }))
    }

    async fn commit(
        &self,
        request: Request<wire::CommitSnapshotRequest>,
    ) -> Result<Response<()>, Status> {
        let (ns, lease) = (namespace(request.metadata())?, lease(request.metadata()));
        let request = request.into_inner();
        let snapshotter = self.snapshotter(&request.snapshotter)?;
        let event = SnapshotCommit {
            key: request.key.clone(),
            name: request.name.clone(),
            snapshotter: snapshotter.name().to_owned(),
        };
        let space = ns.clone();
        blocking(move || {
            let labels = labels_in(request.labels);
            snapshotter.commit(
                &space,
                lease.as_deref(),
                &request.name,
                &request.key,
                &labels,
            )
        })
        .await?;
        self.0
            .events
            .publish(&ns, "/snapshot/commit", proto::any::pack(&event));
        Ok(Response::new(()))
    }

    async fn remove(
        &self,
        request: Request<wire::RemoveSnapshotRequest>,
    ) -> Result<Response<()>, Status> {
        let ns = namespace(request.metadata())?;
        let request = request.into_inner();
        let snapshotter = self.snapshotter(&request.snapshotter)?;
        let event = SnapshotRemove {
            key: request.key.clone(),
            snapshotter: snapshotter.name().to_owned(),
        };
        let space = ns.clone();
        blocking(move || snapshotter.remove(&space, &request.key)).await?;
        self.0
            .events
            .publish(&ns, "/snapshot/remove", proto::any::pack(&event));
        self.0.gc.soon();
        Ok(Response::new(()))
    }

    async fn stat(
        &self,
        request: Request<wire::StatSnapshotRequest>,
    ) -> Result<Response<wire::StatSnapshotResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let request = request.into_inner();
        let row = self
            .snapshotter(&request.snapshotter)?
            .stat(&ns, &request.key)
            .map_err(status)?;
        Ok(Response::new(wire::StatSnapshotResponse {
            info: Some(out(row)),
        }))
    }

    async fn update(
        &self,
        request: Request<wire::UpdateSnapshotRequest>,
    ) -> Result<Response<wire::UpdateSnapshotResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let request = request.into_inner();
        let info = required(request.info, "info")?;
        let row = self
            .snapshotter(&request.snapshotter)?
            .update(
                &ns,
                &info.name,
                labels_in(info.labels),
                mask(request.update_mask),
            )
            .await
            .map_err(status)?;
        Ok(Response::new(wire::UpdateSnapshotResponse {
            info: Some(out(row)),
        }))
    }

    async fn list(
        &self,
        request: Request<wire::ListSnapshotsRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let ns = namespace(request.metadata())?;
        let request = request.into_inner();
        let filters = filters(&request.filters)?;
        let snapshotter = self.snapshotter(&request.snapshotter)?;
        let rows = blocking(move || snapshotter.list(&ns)).await?;
        let info: Vec<_> = rows
            .into_iter()
            .filter(|r| filters.matches(r))
            .map(out)
            .collect();
        Ok(Response::new(chunks(info, CHUNK, |info| {
            wire::ListSnapshotsResponse { info }
        })))
    }

    async fn usage(
        &self,
        request: Request<wire::UsageRequest>,
    ) -> Result<Response<wire::UsageResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let request = request.into_inner();
        let snapshotter = self.snapshotter(&request.snapshotter)?;
        let usage = blocking(move || snapshotter.usage(&ns, &request.key)).await?;
        Ok(Response::new(wire::UsageResponse {
            size: usage.size,
            inodes: usage.inodes,
        }))
    }

    async fn cleanup(
        &self,
        request: Request<wire::CleanupRequest>,
    ) -> Result<Response<()>, Status> {
        namespace(request.metadata())?;
        let snapshotter = self.snapshotter(&request.get_ref().snapshotter)?;
        blocking(move || snapshotter.cleanup()).await?;
        Ok(Response::new(()))
    }
}
