//! Writing images: documents with the labels by which the garbage collector finds what hangs on them, and names.

use oci_spec::image::ImageManifest;
use proto::containerd::services::images::v1 as wire;
use proto::containerd::types;
use serde_json::json;

use super::blob::{self, Labels};
use super::manifest::{ImageFile, OCI_CONFIG, OCI_MANIFEST};
use super::{DANGLING, Images, unpack};
use crate::backend::{Backend, QUICK, within};
use crate::error::{During, Error, Result};

/// Labels of a manifest: config and layers are kept as long as it is.
pub(crate) fn manifest_labels(manifest: &ImageManifest) -> Labels {
    let mut labels = Labels::from([(
        "containerd.io/gc.ref.content.config".to_owned(),
        manifest.config().digest().to_string(),
    )]);
    for (n, layer) in manifest.layers().iter().enumerate() {
        labels.insert(
            format!("containerd.io/gc.ref.content.l.{n}"),
            layer.digest().to_string(),
        );
    }
    labels
}

/// Labels of an index: the manifests that are here are kept as long as it is. Each goes by its position, so that those of
/// another platform, which came earlier, keep theirs.
pub(crate) fn index_labels<'a>(manifests: impl Iterator<Item = (usize, &'a str)>) -> Labels {
    manifests
        .map(|(n, digest)| {
            (
                format!("containerd.io/gc.ref.content.m.{n}"),
                digest.to_owned(),
            )
        })
        .collect()
}

/// Label of a config: the snapshot of its layers is kept as long as it is.
pub(crate) fn config_labels(snapshotter: &str, file: &ImageFile) -> Labels {
    let top = file.chain_ids().pop();
    top.map(|top| (format!("containerd.io/gc.ref.snapshot.{snapshotter}"), top))
        .into_iter()
        .collect()
}

/// A new image's documents, stored: config, manifest, labels. The layers' blobs must be there.
pub(crate) async fn documents(
    leased: &Backend,
    file: &ImageFile,
    layers: Vec<types::Descriptor>,
) -> Result<types::Descriptor> {
    let config = to_json(file)?;
    let labels = config_labels(leased.snapshotter(), file);
    let config_digest = blob::put(leased, &config, labels).await?;
    let config = types::Descriptor {
        media_type: OCI_CONFIG.to_owned(),
        digest: config_digest,
        size: config.len() as i64,
        ..types::Descriptor::default()
    };
    manifest(leased, &config, &layers).await
}

/// A new manifest over blobs that are there, stored.
pub(crate) async fn manifest(
    leased: &Backend,
    config: &types::Descriptor,
    layers: &[types::Descriptor],
) -> Result<types::Descriptor> {
    let descriptor = |d: &types::Descriptor| json!({"mediaType": d.media_type, "digest": d.digest, "size": d.size});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config),
        "layers": layers.iter().map(descriptor).collect::<Vec<_>>(),
    });
    store_manifest(leased, OCI_MANIFEST, &to_json(&manifest)?).await
}

/// Stores a manifest document with its labels.
pub(crate) async fn store_manifest(
    leased: &Backend,
    media_type: &str,
    bytes: &[u8],
) -> Result<types::Descriptor> {
    let parsed: ImageManifest = serde_json::from_slice(bytes)
        .map_err(|e| Error::invalid(format!("invalid manifest: {e}")))?;
    let digest = blob::put(leased, bytes, manifest_labels(&parsed)).await?;
    Ok(types::Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size: bytes.len() as i64,
        ..types::Descriptor::default()
    })
}

fn to_json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::internal(format!("encode an image document: {e}")))
}

impl Images {
    /// Points a name at an image. The image that loses its last name by this stays as a dangling one.
    pub(crate) async fn name(&self, name: &str, target: &types::Descriptor) -> Result<()> {
        let _turn = self.exclusive(&format!("name {name}")).await;
        let before = self.by_name(name).await.ok().flatten();
        if let Some(before) = &before {
            if before.image.target.digest == target.digest {
                super::lock(&self.known).remove(&target.digest);
                return Ok(());
            }
            // First the new name for the old image: a crash between leaves one name too many, never one too few.
            self.keep_dangling(before).await?;
        }
        // An index may have got a manifest that suits better than the one remembered.
        super::lock(&self.known).remove(&target.digest);
        self.point(name, target).await?;
        self.drop_dangling(&target.digest).await
    }

    /// Gives an image that is about to lose `named` a dangling name, unless it has another one.
    pub(crate) async fn keep_dangling(&self, named: &super::Named) -> Result<()> {
        let others = self.all().await?;
        let has_other = others
            .iter()
            .any(|other| other.image.id == named.image.id && other.name != named.name);
        if has_other {
            return Ok(());
        }
        self.dangling(&named.image.target).await
    }

    /// Names an image that has no name.
    pub(crate) async fn dangling(&self, target: &types::Descriptor) -> Result<()> {
        self.point(&format!("{DANGLING}{}", target.digest), target)
            .await
    }

    /// An image that has a name again is not dangling any more.
    async fn drop_dangling(&self, digest: &str) -> Result<()> {
        match self.unname(&format!("{DANGLING}{digest}"), false).await {
            Err(e) if !e.is_not_found() => Err(e),
            _ => Ok(()),
        }
    }

    async fn point(&self, name: &str, target: &types::Descriptor) -> Result<()> {
        let image = wire::Image {
            name: name.to_owned(),
            target: Some(target.clone()),
            ..wire::Image::default()
        };
        let create = wire::CreateImageRequest {
            image: Some(image.clone()),
            ..wire::CreateImageRequest::default()
        };
        match within(QUICK, self.backend.images().create(create)).await {
            Ok(_) => return Ok(()),
            Err(e) if e.is_exists() => {}
            Err(e) => return Err(e.during(format!("create image {name}"))),
        }
        let update = wire::UpdateImageRequest {
            image: Some(image),
            update_mask: Some(proto::prost_types::FieldMask {
                paths: vec!["target".into()],
            }),
            ..wire::UpdateImageRequest::default()
        };
        within(QUICK, self.backend.images().update(update))
            .await
            .during(|| format!("update image {name}"))?;
        Ok(())
    }

    /// Drops a name; with `sync`, what hung on it alone is collected before this returns.
    pub(crate) async fn unname(&self, name: &str, sync: bool) -> Result<()> {
        let request = wire::DeleteImageRequest {
            name: name.to_owned(),
            sync,
            ..wire::DeleteImageRequest::default()
        };
        within(crate::backend::SLOW, self.backend.images().delete(request))
            .await
            .during(|| format!("delete image {name}"))?;
        Ok(())
    }

    /// Unpacks what a new image brought and names it, or leaves it dangling.
    pub(crate) async fn finish(
        &self,
        leased: &Backend,
        target: &types::Descriptor,
        name: Option<&str>,
    ) -> Result<std::sync::Arc<super::Image>> {
        let image = self.behind(target.clone()).await?;
        blob::label(
            leased,
            &image.id,
            config_labels(leased.snapshotter(), &image.file),
        )
        .await?;
        unpack::all(leased, &image.file, image.layers.layers(), |_| {}).await?;
        match name {
            Some(name) => self.name(name, target).await?,
            None => {
                let all = self.all().await?;
                if !all.iter().any(|named| named.image.id == image.id) {
                    self.dangling(target).await?;
                }
            }
        }
        Ok(image)
    }
}
