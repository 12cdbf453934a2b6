//! `load`: an archive of images, as `docker save` writes it (manifest.json) or as an OCI layout (index.json).
//!
//! The archive is read once, as it comes: its documents may be at the end, so every file becomes a blob under the lease, and
//! only its name, digest and size are kept. What no image then refers to goes with the lease. Nothing of the archive's own
//! names ever touches a path here.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read};

use axum::body::Body;
use oci_spec::image::{Descriptor, ImageIndex};
use proto::containerd::types;
use serde::Deserialize;

use super::blob::{self, DOCUMENT};
use super::ingest::{Ingest, LeaseGuard};
use super::manifest::{Document, ImageFile, OCI_INDEX, OCI_LAYER};
use super::progress::Progress;
use super::reference::{Reference, is_digest};
use super::tarball::{BodyReader, Compression, broken};
use super::{Images, unpack, write};
use crate::backend::Backend;
use crate::error::{Error, Result};

/// Most files in an archive.
const MOST_FILES: usize = 20_000;

/// Most of those that are documents read into memory, in bytes.
const MOST_DOCUMENTS: u64 = 64 << 20;

/// Annotations of an index that name an image; the first is containerd's and holds the whole name.
const NAMES: [&str; 2] = [
    "io.containerd.image.name",
    "org.opencontainers.image.ref.name",
];

/// One file of the archive, stored.
#[derive(Debug, Clone)]
struct Stored {
    digest: String,
    size: u64,
    compression: Compression,
}

/// What was in the archive.
#[derive(Debug, Default)]
struct Contents {
    files: HashMap<String, Stored>,
    /// Names that stand for other names.
    links: HashMap<String, String>,
    /// The documents at the top, as they are.
    documents: BTreeMap<String, Vec<u8>>,
}

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

impl Contents {
    fn document(&self, name: &str) -> Option<&[u8]> {
        self.documents.get(name).map(Vec::as_slice)
    }

    /// The file of a name, through links.
    fn file(&self, name: &str) -> Result<&Stored> {
        let mut name = normal(name.as_bytes());
        for _ in 0..8 {
            if let Some(file) = self.files.get(&name) {
                return Ok(file);
            }
            match self.links.get(&name) {
                Some(target) => name.clone_from(target),
                None => break,
            }
        }
        Err(Error::invalid(format!(
            "invalid archive: {name:?} is missing"
        )))
    }

    /// The blob of a digest in an OCI layout; it must be what its name says.
    fn blob(&self, digest: &str) -> Option<&Stored> {
        let path = format!("blobs/{}", digest.replacen(':', "/", 1));
        self.files.get(&path).filter(|file| file.digest == digest)
    }

    fn check_layout(&self) -> Result<()> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Layout {
            image_layout_version: String,
        }
        let Some(bytes) = self.document("oci-layout") else {
            return Ok(());
        };
        let layout: Layout = json("oci-layout", bytes)?;
        match layout.image_layout_version.starts_with("1.") {
            true => Ok(()),
            false => Err(Error::invalid(format!(
                "invalid archive: OCI layout version {} is unknown",
                layout.image_layout_version
            ))),
        }
    }
}

/// Reads the archive to its end and stores its files.
fn store(
    leased: &Backend,
    runtime: &tokio::runtime::Handle,
    reader: BodyReader,
) -> Result<Contents> {
    let wrong = broken("invalid archive");
    let mut raw = BufReader::with_capacity(128 << 10, reader);
    let compression = Compression::sniff(raw.fill_buf().map_err(&wrong)?)?;
    let content = compression.decoder(&mut raw).map_err(&wrong)?;
    let mut archive = tar::Archive::new(content);
    let mut contents = Contents::default();
    let mut documents = 0;
    for (count, entry) in archive.entries().map_err(&wrong)?.enumerate() {
        let mut entry = entry.map_err(&wrong)?;
        if count >= MOST_FILES {
            return Err(Error::invalid(format!(
                "invalid archive: it has more than {MOST_FILES} files"
            )));
        }
        let name = normal(&entry.path_bytes());
        let kind = entry.header().entry_type();
        if kind.is_symlink() || kind.is_hard_link() {
            let target = entry.link_name_bytes().unwrap_or_default().into_owned();
            let target = match kind.is_symlink() {
                true => beside(&name, &target),
                false => normal(&target),
            };
            contents.links.insert(name, target);
            continue;
        }
        if !kind.is_file() || is_ignored(&name) {
            continue;
        }
        let size = entry.size();
        if !name.contains('/') && matches!(extension(&name), "json" | "oci-layout") {
            documents += size;
            if size > DOCUMENT || documents > MOST_DOCUMENTS {
                return Err(Error::invalid(format!(
                    "invalid archive: {name} is too large for a document"
                )));
            }
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(&wrong)?;
            if bytes.len() as u64 != size {
                return Err(Error::invalid("invalid archive: unexpected EOF"));
            }
            // A config of the older form lies at the top too, and must be a blob.
            let digest = runtime.block_on(blob::put(leased, &bytes, blob::Labels::new()))?;
            let file = Stored {
                digest,
                size,
                compression: Compression::None,
            };
            contents.files.insert(name.clone(), file);
            contents.documents.insert(name, bytes);
            continue;
        }
        let file = store_file(leased, runtime, &mut entry, size)?;
        contents.files.insert(name, file);
    }
    Ok(contents)
}

fn store_file(
    leased: &Backend,
    runtime: &tokio::runtime::Handle,
    entry: &mut impl Read,
    size: u64,
) -> Result<Stored> {
    let wrong = broken("invalid archive");
    let mut ingest = runtime.block_on(Ingest::open(leased, "load"))?;
    let mut buffer = vec![0u8; 128 << 10];
    let mut compression = None;
    let mut done = 0u64;
    loop {
        let n = entry.read(&mut buffer).map_err(&wrong)?;
        if n == 0 {
            break;
        }
        if compression.is_none() {
            compression = Some(Compression::sniff(&buffer[..n])?);
        }
        ingest.write(&buffer[..n])?;
        done += n as u64;
    }
    if done != size {
        return Err(Error::invalid("invalid archive: unexpected EOF"));
    }
    let (digest, size) = ingest.commit()?;
    Ok(Stored {
        digest,
        size,
        compression: compression.unwrap_or(Compression::None),
    })
}

/// A name without leading slashes and dots.
fn normal(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let parts = text.split('/').filter(|part| !matches!(*part, "" | "."));
    parts.collect::<Vec<_>>().join("/")
}

/// What a link in the archive means, seen from where it is.
fn beside(name: &str, target: &[u8]) -> String {
    let target = String::from_utf8_lossy(target);
    let above = name.rsplit_once('/').map_or("", |(above, _)| above);
    let mut parts: Vec<&str> = above.split('/').collect();
    for part in target.split('/') {
        match part {
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    normal(parts.join("/").as_bytes())
}

/// Files of the oldest form that nothing refers to.
fn is_ignored(name: &str) -> bool {
    name == "repositories" || name.ends_with("/VERSION") || name.ends_with("/json")
}

fn extension(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, end)| end)
}

fn json<T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|e| Error::invalid(format!("invalid archive: {name}: {e}")))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_links_of_an_archive() {
        assert_eq!(normal(b"./a//b"), "a/b");
        assert_eq!(normal(b"/a"), "a");
        assert_eq!(beside("x/layer.tar", b"../y/layer.tar"), "y/layer.tar");
        assert_eq!(beside("l", b"t"), "t");
        assert_eq!(extension("oci-layout"), "oci-layout");
        let stored = Stored {
            digest: "d".into(),
            size: 1,
            compression: Compression::None,
        };
        let mut contents = Contents::default();
        contents.files.insert("y/layer.tar".into(), stored);
        contents
            .links
            .insert("x/layer.tar".into(), "y/layer.tar".into());
        contents.links.insert("l".into(), "l".into());
        assert!(contents.file("./x/layer.tar").is_ok());
        assert!(contents.file("l").is_err());
    }
}
