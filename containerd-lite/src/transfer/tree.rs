//! The tree of a descriptor: walked from the root, each document made present and its children labelled as its.

use std::collections::HashSet;
use std::io::Read as _;

use super::image::{self, Descriptor, Role};
use super::platform::{Filter, Platform};
use super::{Job, Result, TransferError};
use crate::content::ContentError;
use crate::metadata::{Blob, Labels};
use crate::registry::Session;

/// Label that makes a document hold a blob, before its name among the children.
const REFERENCE: &str = "containerd.io/gc.ref.content.";
/// Longest document that is read.
const DOCUMENT: u64 = 8 << 20;
/// Indexes within indexes.
const DEPTH: usize = 4;

/// A manifest with what it names.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    pub(super) what: Descriptor,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
    /// Whether its layers are wanted, not only its documents.
    pub(super) wanted: bool,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    /// Indexes, those further down first.
    pub(super) indexes: Vec<Descriptor>,
    pub(super) manifests: Vec<Manifest>,
}

impl Tree {
    /// Layers that are wanted, each once.
    pub(super) fn layers(&self) -> Vec<Descriptor> {
        let mut known = HashSet::new();
        let wanted = self.manifests.iter().filter(|m| m.wanted);
        let layers = wanted.flat_map(|m| &m.layers);
        layers
            .filter(|l| known.insert(l.digest.clone()))
            .cloned()
            .collect()
    }
}

/// How to walk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Walk<'a> {
    pub(super) filter: &'a Filter,
    /// Where documents that are not there come from.
    pub(super) source: Option<&'a Session>,
    /// Name of the image in the progress.
    pub(super) root: &'a str,
    /// What is done with blobs, in the progress.
    pub(super) verb: &'static str,
    /// Whether documents are to hold their children.
    pub(super) label: bool,
}

impl Job {
    /// Walks the tree of `root`.
    pub(super) async fn walk(&self, root: &Descriptor, how: Walk<'_>) -> Result<Tree> {
        let mut tree = Tree::default();
        self.visit(root, how, how.root, true, 0, &mut tree).await?;
        Ok(tree)
    }

    async fn visit(
        &self,
        what: &Descriptor,
        how: Walk<'_>,
        parent: &str,
        wanted: bool,
        depth: usize,
        tree: &mut Tree,
    ) -> Result<()> {
        let progress = self.progress.blob(what, parent, how.verb);
        match Role::of(&what.media_type) {
            Role::Index if depth < DEPTH => {
                self.ensure(what, how.source, &progress).await?;
                let bytes = self.document(what).await?;
                let entries = image::index(what, &bytes)?;
                if how.label {
                    self.label(
                        what,
                        entries
                            .iter()
                            .enumerate()
                            .map(|(n, e)| (format!("m.{n}"), e)),
                    )
                    .await?;
                }
                for (entry, wanted) in chosen(entries, how.filter) {
                    let key = what.key();
                    Box::pin(self.visit(&entry, how, &key, wanted, depth + 1, tree)).await?;
                }
                tree.indexes.push(what.clone());
                Ok(())
            }
            Role::Manifest => {
                self.ensure(what, how.source, &progress).await?;
                let bytes = self.document(what).await?;
                let (config, layers) = image::manifest(what, &bytes)?;
                if how.label {
                    let config = std::iter::once(("config".to_owned(), &config));
                    let numbered = layers.iter().enumerate();
                    let layers = numbered.map(|(n, l)| (format!("l.{n}"), l));
                    self.label(what, config.chain(layers)).await?;
                }
                let progress = self.progress.blob(&config, &what.key(), how.verb);
                self.ensure(&config, how.source, &progress).await?;
                tree.manifests.push(Manifest {
                    what: what.clone(),
                    config,
                    layers,
                    wanted,
                });
                Ok(())
            }
            // An entry of an index that is no image: there is nothing to look into.
            _ if depth > 0 => self.ensure(what, how.source, &progress).await,
            _ => Err(TransferError::Unsupported(format!(
                "media type {:?} of {}",
                what.media_type, what.digest
            ))),
        }
    }

    /// Reads a document that is present.
    pub(super) async fn document(&self, what: &Descriptor) -> Result<Vec<u8>> {
        let (job, what) = (self.clone(), what.clone());
        self.blocking(move || {
            let (file, blob) = job.parts.blobs.read(&job.ns, &what.digest)?;
            let size = u64::try_from(blob.size).unwrap_or(u64::MAX);
            if size > DOCUMENT {
                return Err(TransferError::Invalid(format!(
                    "document {} has {size} bytes, more than {DOCUMENT}",
                    what.digest
                )));
            }
            let mut bytes = Vec::new();
            file.take(DOCUMENT)
                .read_to_end(&mut bytes)
                .map_err(|source| {
                    TransferError::Content(ContentError::Io {
                        attempt: "read blob",
                        path: job.parts.blobs.path(&what.digest),
                        source,
                    })
                })?;
            Ok(bytes)
        })
        .await
    }

    /// Labels a blob so that it holds its children.
    async fn label(
        &self,
        what: &Descriptor,
        children: impl Iterator<Item = (String, &Descriptor)>,
    ) -> Result<()> {
        let labels: Labels = children
            .map(|(name, child)| (format!("{REFERENCE}{name}"), child.digest.to_string()))
            .collect();
        self.add_labels(what, labels).await
    }

    /// Adds labels to a blob.
    pub(super) async fn add_labels(&self, what: &Descriptor, labels: Labels) -> Result<()> {
        let content = self.parts.store.content();
        let known = content.get(&self.ns, what.digest.as_str())?.labels;
        if labels
            .iter()
            .all(|(key, value)| known.get(key) == Some(value))
        {
            return Ok(());
        }
        let mask = labels.keys().map(|key| format!("labels.{key}")).collect();
        let new = Blob {
            digest: what.digest.to_string(),
            labels,
            ..Blob::default()
        };
        content.update(&self.ns, new, mask).await?;
        Ok(())
    }

    /// What an image's configuration says; it must be present.
    pub(super) async fn config(&self, manifest: &Manifest) -> Result<image::Config> {
        let bytes = self.document(&manifest.config).await?;
        image::config(&manifest.config.digest, &bytes)
    }

    /// The platform of a manifest: as its index says, or else its configuration.
    pub(super) async fn platform(&self, manifest: &Manifest) -> Option<Platform> {
        match &manifest.what.platform {
            Some(platform) => Some(platform.clone()),
            None => self.config(manifest).await.ok().map(|c| c.platform),
        }
    }
}

/// Entries of an index that are to be visited, the best first, and whether their layers are wanted.
fn chosen(entries: Vec<Descriptor>, filter: &Filter) -> Vec<(Descriptor, bool)> {
    let mut ranked: Vec<(usize, Descriptor)> = Vec::new();
    let mut others = Vec::new();
    for entry in entries {
        match filter.rank(entry.platform.as_ref()) {
            Some(rank) => ranked.push((rank, entry)),
            None => others.push(entry),
        }
    }
    if filter.limit > 0 {
        ranked.sort_by_key(|(rank, _)| *rank);
        others.extend(
            ranked
                .split_off(filter.limit.min(ranked.len()))
                .into_iter()
                .map(|(_, e)| e),
        );
    }
    let mut all: Vec<_> = ranked.into_iter().map(|(_, e)| (e, true)).collect();
    if filter.all_metadata {
        all.extend(others.into_iter().map(|e| (e, false)));
    }
    all
}
