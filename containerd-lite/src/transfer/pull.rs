//! A pull: resolve, fetch, unpack on the way, name.

use std::collections::HashMap;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use proto::containerd::types::transfer::{ImageStore, OciRegistry};
use tokio::sync::watch;

use super::image::Descriptor;
use super::tree::{Tree, Walk};
use super::unpack::{Arrivals, Plan};
use super::{Job, Result, TransferError, store};
use crate::metadata::Labels;
use crate::registry::Session;

/// Media types of images of old, which nobody can verify.
const SCHEMA1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/vnd.docker.distribution.manifest.v1+json",
];

/// Pulls an image.
pub(super) async fn pull(job: &Job, from: OciRegistry, to: ImageStore) -> Result<()> {
    let shown = format!("OCI Registry ({})", from.reference);
    job.progress.event(format!("Resolving from {shown}"));
    let session = job.session(&from, None)?;
    let found = session.resolve().await?;
    if SCHEMA1.contains(&found.media_type.as_str()) {
        return Err(TransferError::Invalid(format!(
            "{}: schema 1 image manifests are no longer supported",
            from.reference
        )));
    }
    let root = Descriptor {
        media_type: found.media_type,
        digest: found.digest,
        size: found.size,
        annotations: Labels::new(),
        platform: None,
    };
    job.progress.event(format!("Pulling from {shown}"));
    job.progress
        .about("fetching image content", &from.reference, &root);
    let filter = store::filter(&to);
    let how = Walk {
        filter: &filter,
        source: Some(&session),
        root: &from.reference,
        verb: "downloading",
        label: true,
    };
    let tree = job.walk(&root, how).await?;
    if tree.manifests.iter().all(|m| !m.wanted) && !filter.platforms.is_empty() {
        return Err(TransferError::NotFound(format!(
            "{}: no manifest for the wanted platforms",
            from.reference
        )));
    }
    let plans = job.plans(&tree, &to.unpacks).await?;
    layers(job, &session, &tree, &plans).await?;
    job.save(&to, &root).await?;
    job.progress.event(format!("Completed pull from {shown}"));
    Ok(())
}

/// Fetches all layers, several at once, and unpacks them in order meanwhile.
async fn layers(job: &Job, session: &Session, tree: &Tree, plans: &[Plan]) -> Result<()> {
    let mut arrived = HashMap::new();
    let mut arrivals = Arrivals::new();
    let layers = tree.layers();
    for layer in &layers {
        let (sender, receiver) = watch::channel(false);
        arrived.insert(layer.digest.clone(), sender);
        arrivals.insert(layer.digest.clone(), receiver);
    }
    let parent = |layer: &Descriptor| {
        let owner = tree
            .manifests
            .iter()
            .find(|m| m.layers.iter().any(|l| l.digest == layer.digest));
        owner.map_or(String::new(), |m| m.what.key())
    };
    // All are announced first, so that a client shows the whole of what is to come.
    let mut fetches = Vec::new();
    for layer in &layers {
        let progress = job.progress.blob(layer, &parent(layer), "downloading");
        let Some(arrived) = arrived.remove(&layer.digest) else {
            continue;
        };
        fetches.push(async move {
            job.ensure(layer, Some(session), &progress).await?;
            arrived.send_replace(true);
            Ok(())
        });
    }
    let fetching = stream::iter(fetches)
        .buffer_unordered(job.parts.settings.downloads.max(1))
        .try_collect::<Vec<()>>();
    let unpacking = async {
        for plan in plans {
            job.unpack(plan, &arrivals).await?;
        }
        Ok::<(), TransferError>(())
    };
    tokio::try_join!(fetching, unpacking)?;
    Ok(())
}
