//! Layers into snapshots: Prepare, Apply, Commit under the name of the chain id, one layer upon the other.
//!
//! A layer whose snapshot exists is skipped. Two unpackers of one layer do no harm: each prepares under a key of its own, and
//! the second commit finds the name taken. What a failed one prepared is removed at once, and by the lease at the latest.

use oci_spec::image::Descriptor;
use proto::containerd::services::diff::v1::ApplyRequest;
use proto::containerd::services::snapshots::v1::{
    CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
};
use proto::containerd::types;

use super::blob::{self, Labels};
use super::manifest::ImageFile;
use crate::backend::{Backend, QUICK, within};
use crate::error::{During, Error, Result};

/// Longest time to apply one layer.
const APPLY: std::time::Duration = std::time::Duration::from_secs(30 * 60);

/// A descriptor as gRPC has it.
pub(crate) fn wire(descriptor: &Descriptor) -> types::Descriptor {
    types::Descriptor {
        media_type: descriptor.media_type().to_string(),
        digest: descriptor.digest().to_string(),
        size: i64::try_from(descriptor.size()).unwrap_or(i64::MAX),
        annotations: descriptor.annotations().clone().unwrap_or_default(),
    }
}

/// Whether a committed snapshot of this name exists.
pub(crate) async fn exists(backend: &Backend, name: &str) -> Result<bool> {
    let request = StatSnapshotRequest {
        snapshotter: backend.snapshotter().to_owned(),
        key: name.to_owned(),
    };
    match within(QUICK, backend.snapshots().stat(request)).await {
        Ok(_) => Ok(true),
        Err(e) if e.is_not_found() => Ok(false),
        Err(e) => Err(e.during(format!("look up snapshot {name}"))),
    }
}

/// Unpacks one layer upon `parent` (empty for none) as `chain`. False if it was there.
pub(crate) async fn layer(
    backend: &Backend,
    layer: &Descriptor,
    parent: &str,
    chain: &str,
    diff_id: &str,
) -> Result<bool> {
    if exists(backend, chain).await? {
        return Ok(false);
    }
    let snapshotter = backend.snapshotter().to_owned();
    let key = format!("extract-{} {chain}", crate::random::hex(8));
    let prepare = PrepareSnapshotRequest {
        snapshotter: snapshotter.clone(),
        key: key.clone(),
        parent: parent.to_owned(),
        labels: Labels::from([("containerd.io/snapshot.ref".into(), chain.to_owned())]),
    };
    let mounts = match within(QUICK, backend.snapshots().prepare(prepare)).await {
        Ok(reply) => reply.mounts,
        // A remote snapshotter answers so when it has the layer already.
        Err(e) if e.is_exists() && exists(backend, chain).await? => return Ok(false),
        Err(e) => return Err(e.during(format!("prepare snapshot for layer {chain}"))),
    };
    let done = apply(backend, layer, mounts, diff_id).await;
    let done = match done {
        Ok(()) => commit(backend, &key, chain).await,
        Err(e) => Err(e),
    };
    if done.is_err() || matches!(done, Ok(false)) {
        let remove = RemoveSnapshotRequest { snapshotter, key };
        if let Err(e) = within(QUICK, backend.snapshots().remove(remove)).await
            && !e.is_not_found()
        {
            tracing::warn!("remove the snapshot of a layer that was not unpacked: {e}");
        }
    }
    done
}

async fn apply(
    backend: &Backend,
    layer: &Descriptor,
    mounts: Vec<types::Mount>,
    diff_id: &str,
) -> Result<()> {
    let request = ApplyRequest {
        diff: Some(wire(layer)),
        mounts,
        ..ApplyRequest::default()
    };
    let applied = within(APPLY, backend.diff().apply(request))
        .await
        .during(|| format!("failed to register layer: apply {}", layer.digest()))?
        .applied
        .map(|descriptor| descriptor.digest)
        .unwrap_or_default();
    if applied != diff_id {
        return Err(Error::invalid(format!(
            "layer {}: the image config says its content is {diff_id}, but it is {applied}",
            layer.digest()
        )));
    }
    // Lets containerd's own clients find the blob by its content; losing it costs them a second look.
    let labels = Labels::from([("containerd.io/uncompressed".into(), applied)]);
    blob::label(backend, layer.digest().as_ref(), labels).await
}

async fn commit(backend: &Backend, key: &str, chain: &str) -> Result<bool> {
    let request = CommitSnapshotRequest {
        snapshotter: backend.snapshotter().to_owned(),
        name: chain.to_owned(),
        key: key.to_owned(),
        labels: Labels::from([("containerd.io/snapshot.ref".into(), chain.to_owned())]),
    };
    match within(QUICK, backend.snapshots().commit(request)).await {
        Ok(_) => Ok(true),
        Err(e) if e.is_exists() => Ok(false),
        Err(e) => Err(e.during(format!("commit snapshot {chain}"))),
    }
}

/// Unpacks all layers, bottom first; `done` hears of each.
pub(crate) async fn all(
    backend: &Backend,
    file: &ImageFile,
    layers: &[Descriptor],
    mut done: impl FnMut(usize),
) -> Result<()> {
    check_count(file, layers)?;
    let chain = file.chain_ids();
    // The top first: in most cases it is there, and then so is everything below it.
    if let Some(top) = chain.last()
        && exists(backend, top).await?
    {
        return Ok(());
    }
    let mut parent = "";
    for (n, descriptor) in layers.iter().enumerate() {
        layer(
            backend,
            descriptor,
            parent,
            &chain[n],
            &file.rootfs.diff_ids[n],
        )
        .await?;
        parent = &chain[n];
        done(n);
    }
    Ok(())
}

/// Checks that config and manifest speak of the same number of layers.
pub(crate) fn check_count(file: &ImageFile, layers: &[Descriptor]) -> Result<()> {
    if layers.len() == file.rootfs.diff_ids.len() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "invalid image: its manifest has {} layers, its config {}",
        layers.len(),
        file.rootfs.diff_ids.len()
    )))
}
