//! `commit`: a container's changes become a layer upon its image.
//!
//! containerd compares the container's snapshot with its parent and stores the difference as a blob; from there on it is
//! like any other new image: the layer is unpacked, config and manifest are written, the name is set.

use proto::containerd::services::diff::v1::DiffRequest;
use proto::containerd::services::snapshots::v1::{RemoveSnapshotRequest, ViewSnapshotRequest};
use proto::containerd::types;
use proto::engine::ImageConfig;

use super::blob;
use super::ingest::LeaseGuard;
use super::manifest::{History, ImageFile, OCI_LAYER_GZIP, Platform};
use super::{Images, names, now, write};
use crate::backend::{Backend, QUICK, within};
use crate::error::{During, Error, Result};

/// Longest time to compare and pack a container's changes.
const DIFF: std::time::Duration = std::time::Duration::from_secs(30 * 60);

/// What `POST /commit` asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct CommitOptions {
    /// Repository of the new image, or empty for none.
    pub(crate) repository: String,
    /// Tag of the new image, or empty for latest.
    pub(crate) tag: String,
    /// Who did it.
    pub(crate) author: String,
    /// What they say.
    pub(crate) comment: String,
    /// Instructions that change the config.
    pub(crate) changes: Vec<String>,
}

/// The container that is committed.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Its id, which is the key of its snapshot.
    pub(crate) container: String,
    /// Its image's id.
    pub(crate) image: String,
    /// Name of the image's top snapshot; empty for none.
    pub(crate) chain: String,
    /// The mounts of its snapshot.
    pub(crate) mounts: Vec<types::Mount>,
    /// Its config, as the new image's.
    pub(crate) config: ImageConfig,
    /// What it ran, for the history.
    pub(crate) command: String,
}

impl Images {
    /// Makes the image. Answers its id and the name as users see it.
    pub(crate) async fn commit(
        &self,
        source: Source,
        options: &CommitOptions,
    ) -> Result<(String, Option<String>)> {
        let name = match options.repository.as_str() {
            "" => None,
            repository => Some(names::new_name(repository, &options.tag)?),
        };
        let mut config = source.config.clone();
        let instructions: Vec<&str> = options.changes.iter().map(String::as_str).collect();
        crate::dockerfile::change(&mut config, &instructions)?;
        let guard = LeaseGuard::new(&self.backend, "commit").await?;
        let leased = guard.backend();
        let work = async {
            let (mut file, mut layers) = self.base(&source).await?;
            let (layer, diff_id) = changes(leased, &source).await?;
            file.rootfs.kind = "layers".into();
            file.rootfs.diff_ids.push(diff_id);
            layers.push(layer);
            self.describe(&mut file, config, &source, options);
            let target = write::documents(leased, &file, layers).await?;
            let long = name.as_ref().map(|name| name.image_name());
            self.finish(leased, &target, long.as_deref()).await
        };
        let outcome = work.await;
        let image = guard.end(outcome).await?;
        Ok((image.id.clone(), name.map(|name| name.familiar())))
    }

    /// Config and layers of the image below; of nothing if the image is gone but its snapshots are not.
    async fn base(&self, source: &Source) -> Result<(ImageFile, Vec<types::Descriptor>)> {
        match self.resolve(&source.image).await {
            Ok(named) => {
                let layers = named.image.layers.layers();
                let layers = layers.iter().map(super::unpack::wire).collect();
                Ok((named.image.file.clone(), layers))
            }
            Err(e) if e.is_not_found() && source.chain.is_empty() => {
                Ok((ImageFile::for_host(now()), Vec::new()))
            }
            Err(e) => Err(e.during(format!("read the image of container {}", source.container))),
        }
    }

    fn describe(
        &self,
        file: &mut ImageFile,
        config: ImageConfig,
        source: &Source,
        options: &CommitOptions,
    ) {
        let created = Some(now());
        let platform = Platform::host();
        if file.os.is_empty() {
            file.os = platform.os;
            file.architecture = platform.architecture;
        }
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        file.created.clone_from(&created);
        file.author = some(&options.author).or(file.author.take());
        file.config = Some(config);
        file.other
            .insert("container".into(), source.container.clone().into());
        let history = file.history.get_or_insert_default();
        // Tools that wrote no history leave layers without an entry; each needs one for the next to be in its place.
        let described = history.iter().filter(|h| !h.empty_layer).count();
        for _ in described..file.rootfs.diff_ids.len().saturating_sub(1) {
            history.push(History::default());
        }
        history.push(History {
            created,
            created_by: some(&source.command),
            author: some(&options.author),
            comment: some(&options.comment),
            empty_layer: false,
        });
    }
}

/// The container's changes as a layer, with the digest of its uncompressed content.
pub(super) async fn changes(
    leased: &Backend,
    source: &Source,
) -> Result<(types::Descriptor, String)> {
    let layer = difference(leased, source).await?;
    let diff_id = uncompressed(leased, &layer).await?;
    Ok((layer, diff_id))
}

/// The container's changes as a blob.
async fn difference(leased: &Backend, source: &Source) -> Result<types::Descriptor> {
    let what = || format!("compare container {} with its image", source.container);
    let key = format!("commit-{}", crate::random::hex(8));
    let left = match source.chain.as_str() {
        "" => Vec::new(),
        chain => view(leased, &key, chain).await.during(what)?,
    };
    let request = DiffRequest {
        left,
        right: source.mounts.clone(),
        media_type: OCI_LAYER_GZIP.to_owned(),
        r#ref: format!("commit-{}", crate::random::hex(8)),
        ..DiffRequest::default()
    };
    let outcome = within(DIFF, leased.diff().diff(request)).await.during(what);
    if !source.chain.is_empty() {
        let request = RemoveSnapshotRequest {
            snapshotter: leased.snapshotter().to_owned(),
            key,
        };
        if let Err(e) = within(QUICK, leased.snapshots().remove(request)).await {
            // It goes with the lease.
            tracing::debug!("remove the view of a commit: {e}");
        }
    }
    outcome?
        .diff
        .ok_or_else(|| Error::internal("containerd answers no difference").during(what()))
}

async fn view(leased: &Backend, key: &str, parent: &str) -> Result<Vec<types::Mount>> {
    let request = ViewSnapshotRequest {
        snapshotter: leased.snapshotter().to_owned(),
        key: key.to_owned(),
        parent: parent.to_owned(),
        ..ViewSnapshotRequest::default()
    };
    Ok(within(QUICK, leased.snapshots().view(request))
        .await?
        .mounts)
}

/// The digest of a new layer's content: containerd writes it on the blob.
async fn uncompressed(leased: &Backend, layer: &types::Descriptor) -> Result<String> {
    const LABEL: &str = "containerd.io/uncompressed";
    if let Some(digest) = layer.annotations.get(LABEL) {
        return Ok(digest.clone());
    }
    let info = blob::info(leased, &layer.digest).await?;
    info.and_then(|info| info.labels.get(LABEL).cloned())
        .ok_or_else(|| {
            Error::internal(format!(
                "containerd has not said what the content of layer {} is",
                layer.digest
            ))
        })
}
