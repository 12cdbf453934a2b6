//! Push: the blobs that the registry does not have, then the manifest under its tag.
//!
//! An index is pushed whole if all its manifests are here; else only the one for this host is, as nobody could pull the
//! others. A manifest goes last: a registry never has a name whose blobs are missing.

use std::sync::Arc;

use axum::http::HeaderValue;
use oci_client::errors::OciDistributionError;
use oci_spec::image::Descriptor;
use proto::containerd::types;
use proto::engine::{AuthConfig, JsonProgress};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::client::{Registries, Session, translate};
use crate::error::{Error, Result};
use crate::images::manifest::Document;
use crate::images::progress::Progress;
use crate::images::reference::Reference;
use crate::images::{Image, Images, blob, short};
use crate::rootless::outside;

/// How many layers are sent at once.
const AT_ONCE: usize = 5;

/// What one push works with.
#[derive(Debug, Clone)]
struct Push {
    session: Session,
    reference: Reference,
    images: Images,
    progress: Progress,
}

impl Registries {
    /// Pushes one reference, or every tag of a repository.
    pub(crate) async fn push(
        &self,
        images: Images,
        reference: &Reference,
        credentials: &AuthConfig,
        progress: &Progress,
    ) -> Result<()> {
        let (registries, reference) = (self.clone(), reference.clone());
        let (credentials, progress) = (credentials.clone(), progress.clone());
        outside::run(async move {
            registries
                .push_here(images, &reference, &credentials, &progress)
                .await
        })
        .await
    }

    async fn push_here(
        &self,
        images: Images,
        reference: &Reference,
        credentials: &AuthConfig,
        progress: &Progress,
    ) -> Result<()> {
        let repository = reference.repository();
        let shown = reference.familiar_repository();
        progress
            .status(format!("The push refers to repository [{repository}]"))
            .await;
        let mut names = Vec::new();
        for named in images.all().await? {
            let Some(found) = named.reference() else {
                continue;
            };
            let wanted = match &reference.tag {
                Some(_) => found == *reference,
                None => found.repository() == repository && found.tag.is_some(),
            };
            if wanted {
                names.push((found, named.image));
            }
        }
        if names.is_empty() {
            return Err(Error::not_found(match &reference.tag {
                Some(tag) => format!("tag does not exist: {shown}:{tag}"),
                None => format!("An image does not exist locally with the tag: {shown}"),
            }));
        }
        let session = self.writable(reference, credentials).await?;
        for (reference, image) in names {
            let push = Push {
                session: session.clone(),
                reference,
                images: images.clone(),
                progress: progress.clone(),
            };
            push.image(&image).await?;
        }
        Ok(())
    }
}

impl Push {
    async fn image(&self, image: &Image) -> Result<()> {
        self.blobs(image).await?;
        let mut target = image.manifest.clone();
        if image.target.digest != image.manifest.digest && self.whole_index(image).await? {
            target = image.target.clone();
        }
        let tag = self.reference.tag.clone().unwrap_or_default();
        let size = self.manifest(&self.reference, &target).await?;
        let digest = &target.digest;
        self.progress
            .status(format!("{tag}: digest: {digest} size: {size}"))
            .await;
        let aux = JsonProgress {
            progress_detail: Some(Default::default()),
            aux: Some(json!({"Tag": tag, "Digest": digest, "Size": size})),
            ..JsonProgress::default()
        };
        self.progress.send(aux).await;
        Ok(())
    }

    /// Pushes the manifests of an index, if all of them are here; answers whether they are.
    async fn whole_index(&self, image: &Image) -> Result<bool> {
        let backend = self.images.backend();
        let bytes = blob::read(backend, &image.target.digest).await?;
        let Document::Index(index) = Document::parse(&image.target.media_type, &bytes)? else {
            return Ok(false);
        };
        for child in index.manifests() {
            if blob::info(backend, child.digest().as_ref())
                .await?
                .is_none()
            {
                return Ok(false);
            }
        }
        for child in index.manifests() {
            let bytes = blob::read(backend, child.digest().as_ref()).await?;
            if let Document::Manifest(manifest) =
                Document::parse(child.media_type().as_ref(), &bytes)?
            {
                for below in manifest.layers().iter().chain([manifest.config()]) {
                    self.blob(below, None).await?;
                }
            }
            let mut reference = self.reference.clone();
            reference.digest = Some(child.digest().to_string());
            let wire = crate::images::unpack::wire(child);
            self.manifest(&reference, &wire).await?;
        }
        Ok(true)
    }

    async fn blobs(&self, image: &Image) -> Result<()> {
        let layers = image.layers.layers();
        for diff_id in &image.file.rootfs.diff_ids {
            self.progress.part(short(diff_id), "Preparing").await;
        }
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        // Dropped with this function: a failure ends the uploads that are under way.
        let mut uploads = JoinSet::new();
        for (layer, diff_id) in layers.iter().zip(&image.file.rootfs.diff_ids) {
            let (push, permits) = (self.clone(), permits.clone());
            let (layer, id) = (layer.clone(), short(diff_id).to_owned());
            uploads.spawn(async move {
                let _permit = permits.acquire_owned().await;
                push.blob(&layer, Some(&id)).await
            });
        }
        while let Some(done) = uploads.join_next().await {
            done.map_err(|e| Error::internal(format!("an upload ended early: {e}")))??;
        }
        self.blob(image.layers.config(), None).await
    }

    /// Sends a blob that the registry does not have; tells of it under `id`.
    async fn blob(&self, descriptor: &Descriptor, id: Option<&str>) -> Result<()> {
        let digest = descriptor.digest().to_string();
        let wrong = |e: OciDistributionError| {
            translate(&self.reference, &e).during(format!("push blob {}", short(&digest)))
        };
        let _turn = self.images.exclusive(&format!("push {digest}")).await;
        let name = self.session.name(&self.reference);
        let client = self.session.client();
        if client.blob_exists(&name, &digest).await.map_err(wrong)? {
            if let Some(id) = id {
                self.progress.part(id, "Layer already exists").await;
            }
            return Ok(());
        }
        let total = descriptor.size();
        let reading = blob::stream(self.images.backend(), &digest).await?;
        let bar = id.map(|id| self.progress.bar(id, "Pushing", total));
        let stream = futures_util::stream::unfold(
            (reading, bar, 0u64),
            |(mut reading, mut bar, done)| async move {
                let piece = match reading.next().await {
                    Ok(Some(piece)) => piece,
                    Ok(None) => return None,
                    Err(e) => {
                        let error = OciDistributionError::GenericError(Some(e.to_string()));
                        return Some((Err(error), (reading, bar, done)));
                    }
                };
                let done = done + piece.len() as u64;
                if let Some(bar) = &mut bar {
                    bar.at(done).await;
                }
                Some((Ok(piece), (reading, bar, done)))
            },
        );
        client
            .push_blob_stream(&name, stream, &digest, Some(total))
            .await
            .map_err(wrong)?;
        if let Some(id) = id {
            self.progress.part(id, "Pushed").await;
        }
        Ok(())
    }

    /// Sends a manifest or index; answers its size.
    async fn manifest(&self, reference: &Reference, target: &types::Descriptor) -> Result<usize> {
        let bytes = blob::read(self.images.backend(), &target.digest).await?;
        let size = bytes.len();
        let kind = HeaderValue::from_str(&target.media_type)
            .map_err(|e| Error::internal(format!("media type {:?}: {e}", target.media_type)))?;
        self.session
            .client()
            .push_manifest_raw(&self.session.name(reference), bytes, kind)
            .await
            .map_err(|e| {
                translate(reference, &e).during(format!("push manifest {}", target.digest))
            })?;
        Ok(size)
    }
}
