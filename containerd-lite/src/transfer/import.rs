//! An import: an archive from a client's stream into the image store.

use proto::containerd::types::transfer::{ImageImportStream, ImageStore};

use super::archive::{self, Contents};
use super::docker;
use super::image::{self, Descriptor, OCI_INDEX};
use super::tree::Walk;
use super::unpack::Arrivals;
use super::{Job, Result, TransferError, store};
use crate::metadata::Labels;
use crate::streams::Received;

/// Imports an archive.
pub(super) async fn import(job: &Job, from: ImageImportStream, to: ImageStore) -> Result<()> {
    let stream = job.parts.streams.take(&job.ns, &from.stream)?;
    job.progress.event("Importing");
    let (work, compress) = (job.clone(), from.force_compress);
    let index = job
        .blocking(move || {
            let contents = archive::read(&work, Received::new(stream))?;
            keep_index(&work, &contents, compress)
        })
        .await?;
    let filter = store::filter(&to);
    let how = Walk {
        filter: &filter,
        source: None,
        root: &to.name,
        verb: "importing",
        label: true,
    };
    let tree = job.walk(&index, how).await?;
    let layers = tree.layers();
    for layer in &layers {
        if !job.hold(&layer.digest).await? {
            return Err(TransferError::NotFound(format!(
                "archive: layer {}",
                layer.digest
            )));
        }
    }
    for plan in job.plans(&tree, &to.unpacks).await? {
        job.unpack(&plan, &Arrivals::new()).await?;
    }
    let mut any = job.save_index(&to, &index).await?;
    let bytes = job.document(&index).await?;
    for entry in image::index(&index, &bytes)? {
        any |= job.save_entry(&to, &entry).await?;
    }
    if !any {
        tracing::info!(digest = %index.digest, "an imported archive names no image");
    }
    job.progress.event("Completed import");
    Ok(())
}

/// Stores the index of an archive, or the one that its other documents come to.
fn keep_index(job: &Job, contents: &Contents, compress: bool) -> Result<Descriptor> {
    let bytes = match (&contents.index, &contents.docker) {
        (Some(index), _) => index.clone(),
        (None, Some(docker)) => docker::index(job, contents, docker, compress)?,
        (None, None) => {
            return Err(TransferError::Invalid(
                "archive: neither an OCI layout nor one of docker save".into(),
            ));
        }
    };
    let (digest, size) = archive::store(job, &mut bytes.as_slice(), None, "index.json")?;
    Ok(Descriptor {
        media_type: OCI_INDEX.to_owned(),
        digest,
        size,
        annotations: Labels::new(),
        platform: None,
    })
}
