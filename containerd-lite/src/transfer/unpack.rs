//! Unpacks layers into snapshots, each as soon as it and all below it are there.

use std::collections::HashMap;
use std::sync::Arc;

use proto::containerd::types::transfer::UnpackConfiguration;
use proto::error::ErrorKind;
use tokio::sync::watch;

use super::image::{Descriptor, UNCOMPRESSED, chain};
use super::platform::{Filter, Platform};
use super::tree::{Manifest, Tree};
use super::{Job, Result, TransferError};
use crate::content::Digest;
use crate::error::Kind as _;
use crate::metadata::leases::SNAPSHOTS;
use crate::metadata::{Labels, Resource, SnapshotKind};
use crate::snapshots::Snapshotter;

/// Label by which a configuration holds the snapshot of its image.
const HELD: &str = "containerd.io/gc.ref.snapshot.";
/// Label of a snapshot with the name that it will be committed under.
const TARGET: &str = "containerd.io/snapshot.ref";

/// Layers that are being fetched: true when they are there.
pub(super) type Arrivals = HashMap<Digest, watch::Receiver<bool>>;

/// An image to be unpacked.
#[derive(Debug)]
pub(super) struct Plan {
    manifest: Manifest,
    snapshotter: Arc<Snapshotter>,
}

impl Job {
    /// What a client wants unpacked of a tree.
    pub(super) async fn plans(
        &self,
        tree: &Tree,
        wishes: &[UnpackConfiguration],
    ) -> Result<Vec<Plan>> {
        let mut plans = Vec::new();
        for wish in wishes {
            let snapshotter = crate::snapshots::find(&self.parts.snapshotters, &wish.snapshotter)?;
            let wanted = wish.platform.as_ref().map(Platform::of_wire);
            let filter = Filter {
                platforms: vec![wanted.unwrap_or_else(Platform::host)],
                ..Filter::default()
            };
            for manifest in tree.manifests.iter().filter(|m| m.wanted) {
                let platform = self.platform(manifest).await;
                if platform.is_some() && filter.rank(platform.as_ref()).is_some() {
                    plans.push(Plan {
                        manifest: manifest.clone(),
                        snapshotter: snapshotter.clone(),
                    });
                    break;
                }
            }
        }
        Ok(plans)
    }

    /// Unpacks an image. `arrivals` tell of layers whose blobs are on their way.
    pub(super) async fn unpack(&self, plan: &Plan, arrivals: &Arrivals) -> Result<()> {
        let Plan {
            manifest,
            snapshotter,
        } = plan;
        let config = self.config(manifest).await?;
        if config.diff_ids.len() != manifest.layers.len() {
            return Err(TransferError::Invalid(format!(
                "manifest {} has {} layers, its configuration {}",
                manifest.what.digest,
                manifest.layers.len(),
                config.diff_ids.len()
            )));
        }
        let names = chain(&config.diff_ids);
        let mut parent = String::new();
        for ((layer, id), name) in manifest.layers.iter().zip(&config.diff_ids).zip(&names) {
            // Held before it is looked for: a collection in between would take it.
            self.hold_snapshot(snapshotter, name).await?;
            if !self.has_snapshot(snapshotter, name).await? {
                if let Some(arrival) = arrivals.get(&layer.digest) {
                    // The sender lives as long as the pull; without it the blob is missing, and that is told below.
                    let _ = arrival.clone().wait_for(|there| *there).await;
                }
                let progress = self
                    .progress
                    .blob(layer, &manifest.what.key(), "extracting");
                progress.unpacking(false);
                self.apply(snapshotter, layer, id, name, &parent).await?;
                progress.unpacking(true);
            }
            parent = name.to_string();
        }
        if !parent.is_empty() {
            let key = format!("{HELD}{}", snapshotter.name());
            self.add_labels(&manifest.config, Labels::from([(key, parent)]))
                .await?;
        }
        Ok(())
    }

    async fn hold_snapshot(&self, snapshotter: &Snapshotter, name: &Digest) -> Result<()> {
        let resource = Resource {
            kind: format!("{SNAPSHOTS}{}", snapshotter.name()),
            id: name.to_string(),
        };
        let leases = self.parts.store.leases();
        Ok(leases.add(&self.ns, &self.lease, resource).await?)
    }

    async fn has_snapshot(&self, snapshotter: &Arc<Snapshotter>, name: &Digest) -> Result<bool> {
        let (snapshotter, ns, name) = (snapshotter.clone(), self.ns.clone(), name.to_string());
        self.blocking(move || match snapshotter.stat(&ns, &name) {
            Ok(row) => Ok(row.kind == SnapshotKind::Committed),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        })
        .await
    }

    /// One layer onto its parent.
    async fn apply(
        &self,
        snapshotter: &Arc<Snapshotter>,
        layer: &Descriptor,
        id: &Digest,
        name: &Digest,
        parent: &str,
    ) -> Result<()> {
        let work = Layer {
            job: self.clone(),
            snapshotter: snapshotter.clone(),
            layer: layer.clone(),
            id: id.clone(),
            name: name.to_string(),
            parent: parent.to_owned(),
            key: format!("extract-{} {name}", crate::time::now()),
        };
        self.blocking(move || work.run()).await?;
        let labels = Labels::from([(UNCOMPRESSED.to_owned(), id.to_string())]);
        self.add_labels(layer, labels).await
    }
}

/// The work on one layer, which blocks.
struct Layer {
    job: Job,
    snapshotter: Arc<Snapshotter>,
    layer: Descriptor,
    id: Digest,
    name: String,
    parent: String,
    key: String,
}

impl Layer {
    fn run(self) -> Result<()> {
        let outcome = self.fill();
        match outcome {
            // Somebody else was faster.
            Err(TransferError::Snapshots(error)) if error.kind() == ErrorKind::AlreadyExists => {
                self.give_up();
                Ok(())
            }
            Err(error) => {
                self.give_up();
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    fn fill(&self) -> Result<()> {
        let (ns, lease) = (&self.job.ns, Some(self.job.lease.as_str()));
        let labels = Labels::from([(TARGET.to_owned(), self.name.clone())]);
        let mounts = self.snapshotter.prepare(
            ns,
            lease,
            SnapshotKind::Active,
            &self.key,
            &self.parent,
            &labels,
        )?;
        let mounts: Vec<_> = mounts.into_iter().map(Into::into).collect();
        let (blob, _) = self.job.parts.blobs.read(ns, &self.layer.digest)?;
        let digest = &self.layer.digest;
        let applied = crate::diff::apply(blob, digest, &self.layer.media_type, &mounts, false)?;
        if applied.digest != self.id {
            return Err(TransferError::Invalid(format!(
                "layer {} unpacks to {}, the image's configuration says {}",
                self.layer.digest, applied.digest, self.id
            )));
        }
        self.snapshotter
            .commit(ns, lease, &self.name, &self.key, &Labels::new())?;
        Ok(())
    }

    /// Removes what was begun; the first cause is what counts.
    fn give_up(&self) {
        let _ = self.snapshotter.remove(&self.job.ns, &self.key);
    }
}
