//! `save`: one archive that is both `docker save`'s own form and an OCI layout: the same blobs, described twice.
//!
//! Everything is looked up before the first byte, so that a missing image or blob is an ordinary error.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::manifest::OCI_INDEX;
use super::reference::{Reference, is_hex};
use super::{Image, Images, Named, blob, no_such};
use crate::backend::Backend;
use crate::error::{Error, Result};

/// Pieces that wait for a slow client.
const QUEUE: usize = 4;

/// A file of the archive.
#[derive(Debug)]
enum File {
    Blob { digest: String, size: u64 },
    Text { name: &'static str, bytes: Vec<u8> },
}

impl Images {
    /// The archive of these images.
    pub(crate) async fn save(&self, names: &[&str]) -> Result<Body> {
        if names.is_empty() {
            return Err(Error::invalid("no image is named"));
        }
        let mut chosen: Vec<(std::sync::Arc<Image>, Vec<Reference>)> = Vec::new();
        for name in names {
            for named in self.meant(name).await? {
                let reference = named
                    .reference()
                    .filter(|reference| reference.tag.is_some() && !is_id(name));
                match chosen
                    .iter_mut()
                    .find(|(image, _)| image.id == named.image.id)
                {
                    Some((_, references)) => references.extend(reference),
                    None => chosen.push((named.image, reference.into_iter().collect())),
                }
            }
        }
        let files = self.plan(&chosen).await?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let backend = self.backend.clone();
        // Ends with the archive, or when the client has gone.
        tokio::spawn(async move {
            if let Err(e) = send(&backend, files, &sender).await
                && !sender.is_closed()
            {
                tracing::warn!("save breaks off: {e}");
                // A client that left in between does not hear it.
                let _ = sender.send(Err(std::io::Error::other(e.to_string()))).await;
            }
        });
        Ok(Body::from_stream(ReceiverStream::new(receiver)))
    }

    /// The images that a name means: a repository without a tag stands for all its tags.
    async fn meant(&self, text: &str) -> Result<Vec<Named>> {
        if let Ok(reference) = Reference::parse(text)
            && reference.tag.is_none()
            && reference.digest.is_none()
            && !is_id(text)
        {
            let repository = reference.repository();
            let mut all = self.all().await?;
            all.retain(|named| {
                named
                    .reference()
                    .is_some_and(|r| r.repository() == repository && r.tag.is_some())
            });
            if !all.is_empty() {
                return Ok(all);
            }
        }
        match self.resolve(text).await {
            Ok(named) => Ok(vec![named]),
            Err(e) if e.is_not_found() => Err(no_such(text)),
            Err(e) => Err(e),
        }
    }

    async fn plan(&self, chosen: &[(std::sync::Arc<Image>, Vec<Reference>)]) -> Result<Vec<File>> {
        let mut blobs: BTreeMap<String, u64> = BTreeMap::new();
        let (mut manifests, mut entries) = (Vec::new(), Vec::new());
        let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for (image, references) in chosen {
            let layers = image.layers.layers();
            let mut wanted: BTreeSet<String> =
                layers.iter().map(|l| l.digest().to_string()).collect();
            wanted.insert(image.id.clone());
            wanted.insert(image.manifest.digest.clone());
            for digest in wanted {
                let info = blob::info(&self.backend, &digest).await?.ok_or_else(|| {
                    Error::not_found(format!("image {}: blob {digest} is not here", image.id))
                })?;
                blobs.insert(digest, u64::try_from(info.size).unwrap_or(0));
            }
            let descriptor = json!({
                "mediaType": image.manifest.media_type,
                "digest": image.manifest.digest,
                "size": image.manifest.size,
            });
            if references.is_empty() {
                manifests.push(descriptor.clone());
            }
            for reference in references {
                let mut named = descriptor.clone();
                let tag = reference.tag.clone().unwrap_or_default();
                named["annotations"] = json!({
                    "io.containerd.image.name": reference.to_string(),
                    "org.opencontainers.image.ref.name": tag,
                });
                manifests.push(named);
                let top = image.chain.last().map(|c| super::hex_of(c).to_owned());
                repositories
                    .entry(reference.familiar_repository())
                    .or_default()
                    .insert(tag, top.unwrap_or_default());
            }
            let tags: Vec<String> = references.iter().map(Reference::familiar).collect();
            let paths: Vec<String> = layers.iter().map(|l| path(l.digest().as_ref())).collect();
            entries.push(json!({
                "Config": path(&image.id),
                "RepoTags": (!tags.is_empty()).then_some(tags),
                "Layers": paths,
            }));
        }
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
        let mut files: Vec<File> = blobs
            .into_iter()
            .map(|(digest, size)| File::Blob { digest, size })
            .collect();
        let mut text = |name, value: &Value| -> Result<()> {
            let bytes = serde_json::to_vec(value)
                .map_err(|e| Error::internal(format!("encode {name}: {e}")))?;
            files.push(File::Text { name, bytes });
            Ok(())
        };
        text("index.json", &index)?;
        text("manifest.json", &json!(entries))?;
        text("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}))?;
        if !repositories.is_empty() {
            text("repositories", &json!(repositories))?;
        }
        Ok(files)
    }
}

/// Whether a text is an id or the beginning of one, rather than a name.
fn is_id(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    is_hex(hex) && hex.len() >= 12
}

/// Where a blob lies in the archive.
fn path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

type Sender = mpsc::Sender<std::io::Result<Bytes>>;

async fn send(backend: &Backend, files: Vec<File>, out: &Sender) -> Result<()> {
    for directory in ["blobs/", "blobs/sha256/"] {
        push(out, header(directory, 0, tar::EntryType::Directory)?).await?;
    }
    for file in files {
        match file {
            File::Text { name, bytes } => {
                let size = bytes.len() as u64;
                push(out, header(name, size, tar::EntryType::Regular)?).await?;
                push(out, bytes.into()).await?;
                push(out, padding(size)).await?;
            }
            File::Blob { digest, size } => {
                push(out, header(&path(&digest), size, tar::EntryType::Regular)?).await?;
                let mut reading = blob::stream(backend, &digest).await?;
                let mut sent = 0;
                while let Some(piece) = reading.next().await? {
                    sent += piece.len() as u64;
                    push(out, piece).await?;
                }
                if sent != size {
                    return Err(Error::internal(format!(
                        "blob {digest} has {sent} bytes instead of {size}"
                    )));
                }
                push(out, padding(size)).await?;
            }
        }
    }
    push(out, Bytes::from_static(&[0; 1024])).await
}

async fn push(out: &Sender, bytes: Bytes) -> Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    out.send(Ok(bytes)).await.map_err(|_| {
        Error::new(
            proto::error::ErrorKind::Cancelled,
            "the client has gone away",
        )
    })
}

fn header(name: &str, size: u64, kind: tar::EntryType) -> Result<Bytes> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_entry_type(kind);
    header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    Ok(Bytes::copy_from_slice(header.as_bytes()))
}

/// What fills a file up to a whole block.
fn padding(size: u64) -> Bytes {
    const ZERO: [u8; 512] = [0; 512];
    let over = usize::try_from(size % 512).unwrap_or(0);
    Bytes::from_static(if over == 0 { &[] } else { &ZERO[over..] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_fill_whole_blocks() {
        assert_eq!(padding(0).len(), 0);
        assert_eq!(padding(1).len(), 511);
        assert_eq!(padding(512).len(), 0);
        assert_eq!(path("sha256:ab"), "blobs/sha256/ab");
        assert!(is_id("0123456789ab") && !is_id("abc") && !is_id("busybox"));
        assert_eq!(header("x", 5, tar::EntryType::Regular).unwrap().len(), 512);
    }
}
