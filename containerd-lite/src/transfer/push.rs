//! A push: what lies deepest first, so that a registry never has a document without what it names.

use std::io::Read as _;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use proto::containerd::types::transfer::{ImageStore, OciRegistry};
use tokio::sync::mpsc;

use super::image::{Descriptor, Role};
use super::platform::Filter;
use super::progress::BlobProgress;
use super::tree::Walk;
use super::{Job, Result, TransferError};
use crate::registry::{Pushed, Session};

/// Bytes in one chunk of an upload.
const CHUNK: usize = 128 << 10;

/// Pushes an image with all its platforms.
pub(super) async fn push(job: &Job, from: ImageStore, to: OciRegistry) -> Result<()> {
    let (name, root) = job
        .lookup(&from)?
        .into_iter()
        .next()
        .ok_or_else(|| TransferError::Invalid("no image is named".into()))?;
    let shown = format!("OCI Registry ({})", to.reference);
    job.progress.event(format!("Pushing to {shown}"));
    job.progress.about("pushing content", &name, &root);
    // An image that is only known by its digest is pushed by it.
    let session = job.session(&to, None)?;
    let how = Walk {
        filter: &Filter::all(),
        source: None,
        root: &name,
        verb: "uploading",
        label: false,
    };
    let silent = Job {
        progress: super::Progress::silent(),
        ..job.clone()
    };
    let tree = silent.walk(&root, how).await?;
    let mut blobs = tree.layers();
    blobs.retain(|layer| !layer.is_foreign());
    for manifest in &tree.manifests {
        if !blobs.iter().any(|b| b.digest == manifest.config.digest) {
            blobs.push(manifest.config.clone());
        }
    }
    let mut pushes = Vec::new();
    for blob in &blobs {
        pushes.push(push_blob(job, &session, blob, &name));
    }
    stream::iter(pushes)
        .buffer_unordered(job.parts.settings.uploads.max(1))
        .try_collect::<Vec<()>>()
        .await?;
    let manifests = tree.manifests.iter().map(|m| &m.what);
    for document in manifests.chain(&tree.indexes) {
        let progress = job.progress.blob(document, &name, "uploading");
        let bytes = job.document(document).await?;
        let is_image = document.digest == root.digest;
        let pushed = session
            .push_manifest(&document.digest, &document.media_type, &bytes, is_image)
            .await?;
        tell(&progress, pushed);
    }
    job.progress.about("pushed content", &name, &root);
    job.progress.event(format!("Completed push to {shown}"));
    Ok(())
}

fn tell(progress: &BlobProgress, pushed: Pushed) {
    match pushed {
        Pushed::Existed => progress.exists(),
        Pushed::Mounted | Pushed::Uploaded => progress.complete(),
    }
}

async fn push_blob(job: &Job, session: &Session, blob: &Descriptor, parent: &str) -> Result<()> {
    debug_assert!(!matches!(
        Role::of(&blob.media_type),
        Role::Index | Role::Manifest
    ));
    let progress = job.progress.blob(blob, parent, "uploading");
    // Missing content is told before anything is sent.
    let _ = job.parts.blobs.read(&job.ns, &blob.digest)?;
    let from = job.sources(&blob.digest, &session.reference().host);
    let pushed = session
        .push_blob(&blob.digest, blob.size, &from, || {
            reqwest::Body::wrap_stream(bytes_of(job, blob, &progress))
        })
        .await?;
    tell(&progress, pushed);
    Ok(())
}

/// The bytes of a blob, read on a thread of its own while they are sent.
fn bytes_of(
    job: &Job,
    blob: &Descriptor,
    progress: &BlobProgress,
) -> tokio_stream::wrappers::ReceiverStream<std::io::Result<bytes::Bytes>> {
    let (sender, receiver) = mpsc::channel(4);
    let (job, blob, progress) = (job.clone(), blob.clone(), progress.clone());
    tokio::task::spawn_blocking(move || {
        let mut file = match job.parts.blobs.read(&job.ns, &blob.digest) {
            Ok((file, _)) => file,
            Err(error) => {
                let _ = sender.blocking_send(Err(std::io::Error::other(error)));
                return;
            }
        };
        let mut done = 0;
        loop {
            let mut buffer = vec![0; CHUNK];
            let chunk = match file.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    buffer.truncate(length);
                    Ok(bytes::Bytes::from(buffer))
                }
                Err(error) => Err(error),
            };
            let failed = chunk.is_err();
            done += chunk.as_ref().map_or(0, |c| c.len() as u64);
            // Whoever sent them stopped.
            if sender.blocking_send(chunk).is_err() || failed {
                return;
            }
            progress.at(done);
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}
