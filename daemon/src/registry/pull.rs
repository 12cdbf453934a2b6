//! Pull: manifest, config, layers, snapshots, name. What was fetched before a failure stays in its ingest until the lease
//! ends or expires, so that a pull whose daemon was killed goes on where it was.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use oci_client::client::BlobResponse;
use oci_spec::image::{Descriptor, ImageManifest};
use proto::containerd::types;
use proto::engine::AuthConfig;
use sha2::Digest as _;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use super::client::{Registries, Session, translate};
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::images::blob::{self, Labels, Opened, Writer};
use crate::images::ingest::LeaseGuard;
use crate::images::manifest::{Document, ImageFile, Platform};
use crate::images::progress::Progress;
use crate::images::reference::Reference;
use crate::images::{Images, short, unpack, write};
use crate::rootless::outside;

/// How many layers are fetched at once.
const AT_ONCE: usize = 3;

/// How often a broken download is taken up again without having got any further.
const TRIES: u32 = 5;

/// What one pull works with.
#[derive(Debug, Clone)]
struct Pull {
    session: Session,
    reference: Reference,
    leased: Backend,
    images: Images,
    progress: Progress,
}

impl Registries {
    /// Pulls one reference.
    pub(crate) async fn pull(
        &self,
        images: Images,
        reference: &Reference,
        platform: &Platform,
        credentials: &AuthConfig,
        progress: &Progress,
    ) -> Result<()> {
        let (registries, reference) = (self.clone(), reference.clone());
        let (platform, credentials) = (platform.clone(), credentials.clone());
        let progress = progress.clone();
        outside::run(async move {
            registries
                .pull_here(images, &reference, &platform, &credentials, &progress)
                .await
        })
        .await
    }

    async fn pull_here(
        &self,
        images: Images,
        reference: &Reference,
        platform: &Platform,
        credentials: &AuthConfig,
        progress: &Progress,
    ) -> Result<()> {
        let (session, bytes, digest) = self.manifest(reference, credentials).await?;
        let label = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => digest.clone(),
            (None, tag) => tag.clone().unwrap_or_default(),
        };
        let first = proto::engine::JsonProgress {
            status: format!("Pulling from {}", reference.path),
            id: label,
            ..Default::default()
        };
        progress.send(first).await;
        let name = reference.image_name();
        let before = images.by_name(&name).await.ok().flatten();
        let current = before.is_some_and(|named| named.image.target.digest == digest);
        let _turn = images.exclusive(&format!("pull {name}")).await;
        let id = format!("pull-{}", &hex::encode(sha2::Sha256::digest(&name))[..32]);
        let guard = LeaseGuard::named(images.backend(), &id).await?;
        let pull = Pull {
            session,
            reference: reference.clone(),
            leased: guard.backend().clone(),
            images: images.clone(),
            progress: progress.clone(),
        };
        let outcome = async {
            let target = pull.all(&bytes, &digest, platform).await?;
            images.name(&name, &target).await
        };
        let outcome = outcome.await;
        guard.end(outcome).await?;
        progress.status(format!("Digest: {digest}")).await;
        let shown = reference.familiar();
        let status = match current {
            true => format!("Status: Image is up to date for {shown}"),
            false => format!("Status: Downloaded newer image for {shown}"),
        };
        progress.status(status).await;
        Ok(())
    }
}

impl Pull {
    /// Brings everything of a document here; answers what the name shall point at.
    async fn all(
        &self,
        bytes: &[u8],
        digest: &str,
        platform: &Platform,
    ) -> Result<types::Descriptor> {
        let media_type = media_type(bytes);
        match Document::parse(&media_type, bytes)? {
            Document::Manifest(manifest) => {
                self.image(&manifest, platform).await?;
                let mut labels = write::manifest_labels(&manifest);
                labels.extend(self.source());
                self.store(bytes, digest, &media_type, labels).await
            }
            Document::Index(index) => {
                let chosen = platform.choose(&index);
                let chosen = chosen.first().ok_or_else(|| {
                    Error::not_found(format!(
                        "no matching manifest for {platform} in the manifest list entries"
                    ))
                })?;
                let child = chosen.digest().to_string();
                let mut reference = self.reference.clone();
                reference.digest = Some(child.clone());
                let (bytes_below, _) = self
                    .session
                    .manifest(&reference)
                    .await
                    .map_err(|e| translate(&self.reference, &e))?;
                let below = chosen.media_type().to_string();
                let Document::Manifest(manifest) = Document::parse(&below, &bytes_below)? else {
                    return Err(Error::invalid(format!(
                        "index {digest} points at another index"
                    )));
                };
                self.image(&manifest, platform).await?;
                let mut labels = write::manifest_labels(&manifest);
                labels.extend(self.source());
                self.store(&bytes_below, &child, &below, labels).await?;
                let position = index
                    .manifests()
                    .iter()
                    .position(|entry| entry.digest() == chosen.digest());
                let below = position.map(|n| (n, child.as_str()));
                let mut labels = write::index_labels(below.into_iter());
                labels.extend(self.source());
                self.store(bytes, digest, &media_type, labels).await
            }
        }
    }

    async fn store(
        &self,
        bytes: &[u8],
        digest: &str,
        media_type: &str,
        labels: Labels,
    ) -> Result<types::Descriptor> {
        let stored = blob::put(&self.leased, bytes, labels).await?;
        if stored != digest {
            return Err(Error::invalid(format!(
                "the registry sent {stored} for {digest}"
            )));
        }
        Ok(types::Descriptor {
            media_type: media_type.to_owned(),
            digest: stored,
            size: bytes.len() as i64,
            ..types::Descriptor::default()
        })
    }

    /// The label by which other programs of containerd know where a blob came from.
    fn source(&self) -> Labels {
        let key = format!("containerd.io/distribution.source.{}", self.reference.host);
        Labels::from([(key, self.reference.path.clone())])
    }

    /// Config, layers and snapshots of one manifest.
    async fn image(&self, manifest: &ImageManifest, platform: &Platform) -> Result<()> {
        let config = manifest.config();
        if config.size() > blob::DOCUMENT {
            return Err(Error::invalid(format!(
                "the image config {} is larger than {} bytes",
                config.digest(),
                blob::DOCUMENT
            )));
        }
        self.fetch(config, false).await?;
        let file = ImageFile::parse(&blob::read(&self.leased, config.digest().as_ref()).await?)?;
        unpack::check_count(&file, manifest.layers())?;
        if !file.os.is_empty() && file.os != platform.os {
            return Err(Error::invalid(format!(
                "image operating system {:?} cannot be used on this platform",
                file.os
            )));
        }
        self.layers(&file, manifest.layers()).await?;
        let labels = write::config_labels(self.leased.snapshotter(), &file);
        blob::label(&self.leased, config.digest().as_ref(), labels).await
    }

    async fn layers(&self, file: &ImageFile, layers: &[Descriptor]) -> Result<()> {
        let chain = file.chain_ids();
        for layer in layers {
            self.progress
                .part(short(layer.digest().as_ref()), "Pulling fs layer")
                .await;
        }
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        // Dropped with this function: a failure ends the downloads that are under way.
        let mut downloads = JoinSet::new();
        let mut arrivals = Vec::new();
        for layer in layers {
            let (sender, arrival) = oneshot::channel();
            arrivals.push(arrival);
            let (pull, permits, layer) = (self.clone(), permits.clone(), layer.clone());
            downloads.spawn(async move {
                let _permit = permits.acquire_owned().await;
                // The receiver is gone if an earlier layer has failed.
                drop(sender.send(pull.fetch(&layer, true).await));
            });
        }
        let mut parent = "";
        for (n, arrival) in arrivals.into_iter().enumerate() {
            let layer = &layers[n];
            let id = short(layer.digest().as_ref());
            let here = arrival.await.map_err(|_| {
                Error::internal(format!("the download of layer {id} ended early"))
            })??;
            let _turn = self.images.exclusive(&format!("unpack {}", chain[n])).await;
            if unpack::exists(&self.leased, &chain[n]).await? {
                let status = if here {
                    "Already exists"
                } else {
                    "Pull complete"
                };
                self.progress.part(id, status).await;
            } else {
                let mut bar = self.progress.bar(id, "Extracting", layer.size());
                bar.at(layer.size()).await;
                let diff_id = &file.rootfs.diff_ids[n];
                unpack::layer(&self.leased, layer, parent, &chain[n], diff_id).await?;
                self.progress.part(id, "Pull complete").await;
            }
            parent = &chain[n];
        }
        Ok(())
    }

    /// Fetches a blob. True if it was here already.
    async fn fetch(&self, descriptor: &Descriptor, told: bool) -> Result<bool> {
        let digest = descriptor.digest().to_string();
        let total = descriptor.size();
        let id = short(&digest).to_owned();
        let _turn = self.images.exclusive(&format!("fetch {digest}")).await;
        let mut writer =
            match Writer::open(&self.leased, &format!("layer-{digest}"), &digest, total).await? {
                Opened::Present => {
                    blob::label(&self.leased, &digest, self.source()).await?;
                    return Ok(true);
                }
                Opened::Writer(writer) => *writer,
            };
        let mut failures = 0;
        while writer.offset() < total {
            let before = writer.offset();
            let Err(error) = self.download(descriptor, &mut writer, told).await else {
                break;
            };
            if self.progress.is_abandoned() || error.is_final {
                return Err(error.error);
            }
            failures = if writer.offset() > before {
                0
            } else {
                failures + 1
            };
            if failures >= TRIES {
                return Err(error.error);
            }
            let pause = Duration::from_millis(250 << failures);
            tracing::debug!("layer {digest}: {}; again in {pause:?}", error.error);
            if told {
                let seconds = pause.as_secs().max(1);
                let status = format!(
                    "Retrying in {seconds} second{}",
                    if seconds == 1 { "" } else { "s" }
                );
                self.progress.part(&id, &status).await;
            }
            tokio::time::sleep(pause).await;
        }
        if told {
            self.progress.part(&id, "Verifying Checksum").await;
        }
        writer
            .commit(total, &digest, self.source())
            .await
            .map_err(|e| e.during(format!("verify layer {digest}")))?;
        if told {
            self.progress.part(&id, "Download complete").await;
        }
        Ok(false)
    }

    async fn download(
        &self,
        descriptor: &Descriptor,
        writer: &mut Writer,
        told: bool,
    ) -> Result<(), Broken> {
        let digest = descriptor.digest().to_string();
        let total = descriptor.size();
        let name = self.session.name(&self.reference);
        let wanted = oci_client::manifest::OciDescriptor {
            digest: digest.clone(),
            size: i64::try_from(total).unwrap_or(i64::MAX),
            ..Default::default()
        };
        let client = self.session.client();
        let offset = writer.offset();
        let response = if offset == 0 {
            client
                .pull_blob_stream(&name, &wanted)
                .await
                .map(BlobResponse::Full)
        } else {
            client
                .pull_blob_stream_partial(&name, &wanted, offset, None)
                .await
        };
        let response = response.map_err(|e| Broken {
            is_final: !matches!(
                &e,
                oci_client::errors::OciDistributionError::RequestError(_)
            ),
            error: translate(&self.reference, &e),
        })?;
        let mut stream = match response {
            BlobResponse::Partial(sized) => sized.stream,
            BlobResponse::Full(sized) => {
                if offset > 0 {
                    writer.truncate().await.map_err(ours)?;
                }
                sized.stream
            }
        };
        let mut bar = self.progress.bar(short(&digest), "Downloading", total);
        let mut pending: Vec<u8> = Vec::new();
        while let Some(piece) = stream.next().await {
            let piece = match piece {
                Ok(piece) => piece,
                Err(e) => {
                    // What has come is kept.
                    writer.write(Bytes::from(pending)).await.map_err(ours)?;
                    return Err(Broken {
                        is_final: false,
                        error: Error::internal(format!("download layer {digest}: {e}")),
                    });
                }
            };
            pending.extend_from_slice(&piece);
            if writer.offset() + pending.len() as u64 > total {
                return Err(ours(Error::invalid(format!(
                    "layer {digest} is longer than the {total} bytes that its manifest says"
                ))));
            }
            if pending.len() >= 512 << 10 {
                let full = std::mem::take(&mut pending);
                writer.write(Bytes::from(full)).await.map_err(ours)?;
                if told {
                    bar.at(writer.offset()).await;
                }
            }
        }
        writer.write(Bytes::from(pending)).await.map_err(ours)?;
        if told {
            bar.at(writer.offset()).await;
        }
        if writer.offset() < total {
            return Err(Broken {
                is_final: false,
                error: Error::internal(format!("download layer {digest}: unexpected EOF")),
            });
        }
        Ok(())
    }
}

/// A download that did not come to its end.
struct Broken {
    error: Error,
    /// Another try would end in the same way.
    is_final: bool,
}

/// A failure on this side of the wire.
fn ours(error: Error) -> Broken {
    Broken {
        error,
        is_final: true,
    }
}

/// What a document says of itself; by its content if it says nothing.
pub(super) fn media_type(bytes: &[u8]) -> String {
    use crate::images::manifest::{OCI_INDEX, OCI_MANIFEST};
    let value: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let own = value.get("mediaType").and_then(serde_json::Value::as_str);
    own.map_or_else(
        || match value.get("manifests") {
            Some(_) => OCI_INDEX.to_owned(),
            None => OCI_MANIFEST.to_owned(),
        },
        str::to_owned,
    )
}
