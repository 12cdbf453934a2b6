//! What is in an archive of images, stored as it is read.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read};

use serde::Deserialize;

use super::blob::{self, DOCUMENT};
use super::ingest::Ingest;
use super::tarball::{BodyReader, Compression, broken};
use crate::backend::Backend;
use crate::error::{Error, Result};

/// Most files in an archive.
const MOST_FILES: usize = 20_000;

/// Most of those that are documents read into memory, in bytes.
const MOST_DOCUMENTS: u64 = 64 << 20;

/// One file of the archive, stored.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) digest: String,
    pub(super) size: u64,
    pub(super) compression: Compression,
}

/// What was in the archive.
#[derive(Debug, Default)]
pub(super) struct Contents {
    files: HashMap<String, Stored>,
    /// Names that stand for other names.
    links: HashMap<String, String>,
    /// The documents at the top, as they are.
    documents: BTreeMap<String, Vec<u8>>,
}

impl Contents {
    /// A document at the top.
    pub(super) fn document(&self, name: &str) -> Option<&[u8]> {
        self.documents.get(name).map(Vec::as_slice)
    }

    /// The file of a name, through links.
    pub(super) fn file(&self, name: &str) -> Result<&Stored> {
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
    pub(super) fn blob(&self, digest: &str) -> Option<&Stored> {
        let path = format!("blobs/{}", digest.replacen(':', "/", 1));
        self.files.get(&path).filter(|file| file.digest == digest)
    }

    /// Refuses layouts of versions that we do not know.
    pub(super) fn check_layout(&self) -> Result<()> {
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
pub(super) fn store(
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

/// Reads a document of the archive.
pub(super) fn json<T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|e| Error::invalid(format!("invalid archive: {name}: {e}")))
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
