//! `load`: an archive of images, as `docker save` writes it (manifest.json) or as an OCI layout (index.json).
//!
//! The archive is read once, as it comes: its documents may be at the end, so every file becomes a blob under the lease, and
//! only its name, digest and size are kept. What no image then refers to goes with the lease. Nothing of the archive's own
//! names ever touches a path here.

use axum::body::Body;
use oci_spec::image::{Descriptor, ImageIndex};
use proto::containerd::types;
use serde::Deserialize;

use super::blob::{self, DOCUMENT};
use super::contents::{Contents, json, store};
use super::ingest::LeaseGuard;
use super::manifest::{Document, ImageFile, OCI_INDEX, OCI_LAYER};
use super::progress::Progress;
use super::reference::{Reference, is_digest};
use super::tarball::{BodyReader, Compression};
use super::{Images, unpack, write};
use crate::backend::Backend;
use crate::error::{Error, Result};

/// Annotations of an index that name an image; the first is containerd's and holds the whole name.
const NAMES: [&str; 2] = [
    "io.containerd.image.name",
    "org.opencontainers.image.ref.name",
];

/// One image of a manifest.json.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// An image that was found: what to point names at.
#[derive(Debug)]
struct Found {
    target: types::Descriptor,
    names: Vec<Reference>,
}

impl Images {
    /// Loads an archive. Answers the ids and names of its images, as users see them.
    pub(crate) async fn load(
        &self,
        body: Body,
        progress: &Progress,
    ) -> Result<Vec<(String, Option<String>)>> {
        let reader = BodyReader::new(body);
        let guard = LeaseGuard::new(&self.backend, "load").await?;
        let outcome = self.load_leased(guard.backend(), reader, progress).await;
        guard.end(outcome).await
    }

    async fn load_leased(
        &self,
        leased: &Backend,
        reader: BodyReader,
        progress: &Progress,
    ) -> Result<Vec<(String, Option<String>)>> {
        let (backend, runtime) = (leased.clone(), tokio::runtime::Handle::current());
        let contents = tokio::task::spawn_blocking(move || store(&backend, &runtime, reader))
            .await
            .map_err(|e| Error::internal(format!("load ended early: {e}")))??;
        let found = match (
            contents.document("index.json"),
            contents.document("manifest.json"),
        ) {
            (Some(index), manifest) => {
                contents.check_layout()?;
                let found = layout(leased, &contents, index).await?;
                // An index without images, as some tools write beside the older form.
                match (found.is_empty(), manifest) {
                    (true, Some(manifest)) => archive(leased, &contents, manifest).await?,
                    _ => found,
                }
            }
            (None, Some(manifest)) => archive(leased, &contents, manifest).await?,
            (None, None) => {
                return Err(Error::invalid(
                    "invalid archive: it has neither a manifest.json nor an index.json",
                ));
            }
        };
        let mut loaded = Vec::new();
        for image in found {
            self.take(leased, image, progress, &mut loaded).await?;
        }
        Ok(loaded)
    }

    async fn take(
        &self,
        leased: &Backend,
        found: Found,
        progress: &Progress,
        loaded: &mut Vec<(String, Option<String>)>,
    ) -> Result<()> {
        let image = self.behind(found.target.clone()).await?;
        let labels = write::config_labels(leased.snapshotter(), &image.file);
        blob::label(leased, &image.id, labels).await?;
        let chain = image.chain.clone();
        let layers = image.layers.layers();
        let mut parent = "";
        for (n, layer) in layers.iter().enumerate() {
            let id = super::short(&image.file.rootfs.diff_ids[n]).to_owned();
            let mut bar = progress.bar(&id, "Loading layer", layer.size());
            if !unpack::exists(leased, &chain[n]).await? {
                bar.at(0).await;
                let diff_id = &image.file.rootfs.diff_ids[n];
                unpack::layer(leased, layer, parent, &chain[n], diff_id).await?;
                bar.at(layer.size()).await;
            }
            parent = &chain[n];
        }
        if found.names.is_empty() {
            self.finish(leased, &found.target, None).await?;
            progress
                .text(format!("Loaded image ID: {}\n", image.id))
                .await;
            loaded.push((image.id.clone(), None));
        }
        for name in found.names {
            self.name(&name.image_name(), &found.target).await?;
            let shown = name.familiar();
            progress.text(format!("Loaded image: {shown}\n")).await;
            loaded.push((image.id.clone(), Some(shown)));
        }
        Ok(())
    }
}

/// The images of a manifest.json. Their manifests are made here; their ids stay what they were.
async fn archive(leased: &Backend, contents: &Contents, bytes: &[u8]) -> Result<Vec<Found>> {
    let entries: Vec<Entry> = json("manifest.json", bytes)?;
    let mut found = Vec::new();
    for entry in entries {
        let config = contents.file(&entry.config)?;
        if config.size > DOCUMENT {
            return Err(Error::invalid("invalid archive: a config is too large"));
        }
        let file = ImageFile::parse(&blob::read(leased, &config.digest).await?)?;
        let mut layers = Vec::new();
        for (n, name) in entry.layers.iter().flatten().enumerate() {
            let stored = contents.file(name)?;
            let plain = stored.compression == Compression::None;
            // Checked here for a clear error; unpacking checks it in any case.
            if plain && file.rootfs.diff_ids.get(n) != Some(&stored.digest) {
                return Err(Error::invalid(format!(
                    "invalid diffID for layer {n}: expected {:?}, got {:?}",
                    file.rootfs.diff_ids.get(n).map_or("none", String::as_str),
                    stored.digest
                )));
            }
            layers.push(types::Descriptor {
                media_type: match plain {
                    true => OCI_LAYER.to_owned(),
                    false => stored.compression.layer().to_owned(),
                },
                digest: stored.digest.clone(),
                size: i64::try_from(stored.size).unwrap_or(i64::MAX),
                ..types::Descriptor::default()
            });
        }
        let config = types::Descriptor {
            media_type: super::manifest::OCI_CONFIG.to_owned(),
            digest: config.digest.clone(),
            size: i64::try_from(config.size).unwrap_or(i64::MAX),
            ..types::Descriptor::default()
        };
        let target = write::manifest(leased, &config, &layers).await?;
        let names = entry.repo_tags.iter().flatten().map(|tag| {
            Reference::parse_tag(tag)
                .map_err(|e| Error::invalid(format!("invalid archive: tag {tag:?}: {e}")))
        });
        let names = names.collect::<Result<_>>()?;
        found.push(Found { target, names });
    }
    Ok(found)
}

/// The images of an OCI layout. Their documents are stored as they are; they only get labels.
async fn layout(leased: &Backend, contents: &Contents, bytes: &[u8]) -> Result<Vec<Found>> {
    let index: ImageIndex = json("index.json", bytes)?;
    let mut found: Vec<Found> = Vec::new();
    for entry in index.manifests() {
        if !super::manifest::is_image(entry.media_type().as_ref()) {
            continue;
        }
        let digest = entry.digest().to_string();
        let names: Vec<Reference> = name_of(entry).into_iter().collect();
        // Several entries for one image are several names of it.
        if let Some(same) = found.iter_mut().find(|f| f.target.digest == digest) {
            same.names.extend(names);
            continue;
        }
        adopt(leased, contents, entry).await?;
        found.push(Found {
            target: unpack::wire(entry),
            names,
        });
    }
    Ok(found)
}

/// The name that an entry of an index has, if it is a whole one and not just a tag.
fn name_of(entry: &Descriptor) -> Option<Reference> {
    let annotations = entry.annotations().as_ref()?;
    let text = NAMES.iter().find_map(|key| annotations.get(*key))?;
    if !text.contains([':', '/']) {
        return None;
    }
    Reference::parse_tag(text).ok()
}

/// Labels a manifest, or an index and the manifests of it that are in the archive.
async fn adopt(leased: &Backend, contents: &Contents, entry: &Descriptor) -> Result<()> {
    let document = read(leased, contents, entry).await?;
    let Document::Index(index) = document else {
        return label(leased, contents, entry, document).await;
    };
    let mut here = Vec::new();
    for (n, child) in index.manifests().iter().enumerate() {
        let digest = child.digest().to_string();
        if contents.blob(&digest).is_none() {
            continue;
        }
        let document = read(leased, contents, child).await?;
        if let Document::Manifest(_) = &document {
            label(leased, contents, child, document).await?;
            here.push((n, digest));
        }
    }
    if here.is_empty() {
        return Err(Error::invalid(
            "invalid archive: it holds none of the manifests of its index",
        ));
    }
    let labels = write::index_labels(here.iter().map(|(n, digest)| (*n, digest.as_str())));
    blob::label(leased, entry.digest().as_ref(), labels).await
}

async fn read(leased: &Backend, contents: &Contents, entry: &Descriptor) -> Result<Document> {
    let digest = entry.digest().to_string();
    let stored = contents
        .blob(&digest)
        .filter(|stored| is_digest(&digest) && stored.size <= DOCUMENT)
        .ok_or_else(|| Error::invalid(format!("invalid archive: blob {digest} is missing")))?;
    let bytes = blob::read(leased, &stored.digest).await?;
    let media_type = match entry.media_type().as_ref() {
        "" => OCI_INDEX.to_owned(),
        given => given.to_owned(),
    };
    Document::parse(&media_type, &bytes)
}

async fn label(
    leased: &Backend,
    contents: &Contents,
    entry: &Descriptor,
    document: Document,
) -> Result<()> {
    let Document::Manifest(manifest) = document else {
        return Err(Error::invalid("invalid archive: an index within an index"));
    };
    for below in manifest.layers().iter().chain([manifest.config()]) {
        let digest = below.digest().to_string();
        if contents.blob(&digest).is_none() && blob::info(leased, &digest).await?.is_none() {
            return Err(Error::invalid(format!(
                "invalid archive: blob {digest} is missing"
            )));
        }
    }
    let labels = write::manifest_labels(&manifest);
    blob::label(leased, entry.digest().as_ref(), labels).await
}
