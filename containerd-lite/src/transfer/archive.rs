//! Reads an archive of images: every file of it becomes a blob, and the documents on top say what they are for.
//!
//! Two layouts are known, and one archive may be both: OCI's (`oci-layout`, `index.json`, `blobs/sha256/HEX`) and that of
//! `docker save` (`manifest.json`, files by name, links between them). Blocks; the bytes come from a client's stream.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Component, Path};

use tar::EntryType;

use super::{Job, Result, TransferError};
use crate::content::{ContentError, Digest};
use crate::metadata::{Labels, MetadataError};

/// Longest document on top.
const DOCUMENT: u64 = 8 << 20;
/// Entries of one archive.
const ENTRIES: usize = 100_000;
/// Links that are followed from one name.
const LINKS: usize = 16;

/// What was in an archive.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// `index.json`, if `oci-layout` was there as well.
    pub(super) index: Option<Vec<u8>>,
    /// `manifest.json`.
    pub(super) docker: Option<Vec<u8>>,
    /// Files by name, with their blobs.
    files: HashMap<String, (Digest, u64)>,
    /// Links by name.
    links: HashMap<String, String>,
}

impl Contents {
    /// The blob that a name stands for, through links.
    pub(super) fn find(&self, name: &str) -> Option<&(Digest, u64)> {
        let mut name = name.to_owned();
        for _ in 0..LINKS {
            if let Some(found) = self.files.get(&name) {
                return Some(found);
            }
            name = self.links.get(&name)?.clone();
        }
        None
    }
}

fn failed(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> TransferError {
    let what = what.into();
    move |source| match source.downcast::<ContentError>() {
        Ok(content) => content.into(),
        Err(source) => TransferError::Archive { what, source },
    }
}

/// Reads an archive to its end and stores its files under the lease of the job.
pub(super) fn read(job: &Job, reader: impl Read) -> Result<Contents> {
    let plain = crate::diff::decompressed(reader).map_err(failed("read"))?;
    let mut archive = tar::Archive::new(plain);
    let mut contents = Contents::default();
    let mut layout = false;
    let mut index = None;
    for (count, entry) in archive.entries().map_err(failed("read"))?.enumerate() {
        let mut entry = entry.map_err(failed("read entry"))?;
        if count >= ENTRIES {
            return Err(TransferError::Invalid(format!(
                "archive: more than {ENTRIES} entries"
            )));
        }
        let path = entry.path().map_err(failed("read name"))?.into_owned();
        let Some(name) = clean(&path) else {
            return Err(TransferError::Invalid(format!(
                "archive: entry {path:?} leads out of it"
            )));
        };
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                match name.as_str() {
                    "oci-layout" => layout = true,
                    "index.json" => index = Some(document(&mut entry, &name)?),
                    "manifest.json" => contents.docker = Some(document(&mut entry, &name)?),
                    "repositories" => {}
                    _ => {
                        let size = entry.size();
                        let blob = blob(job, &mut entry, &name, size)?;
                        contents.files.insert(name, blob);
                    }
                }
            }
            EntryType::Symlink | EntryType::Link => {
                let target = entry.link_name().map_err(failed("read link"))?;
                let from = match entry.header().entry_type() {
                    EntryType::Symlink => path.parent().unwrap_or(Path::new("")),
                    _ => Path::new(""),
                };
                if let Some(target) = target.and_then(|t| clean(&from.join(t))) {
                    contents.links.insert(name, target);
                }
            }
            _ => {}
        }
    }
    contents.index = index.filter(|_| layout);
    Ok(contents)
}

/// A name without dots; none if it leads out.
fn clean(path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir => {}
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

fn document(entry: &mut impl Read, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry
        .take(DOCUMENT + 1)
        .read_to_end(&mut bytes)
        .map_err(failed(name))?;
    if bytes.len() as u64 > DOCUMENT {
        return Err(TransferError::Invalid(format!(
            "archive: {name} is longer than {DOCUMENT} bytes"
        )));
    }
    Ok(bytes)
}

/// Stores one file. A name that is a digest is believed only if the bytes agree.
fn blob(job: &Job, entry: &mut impl Read, name: &str, size: u64) -> Result<(Digest, u64)> {
    let expected = match name.strip_prefix("blobs/sha256/") {
        Some(hex) => Some(Digest::parse(&format!("sha256:{hex}")).map_err(ContentError::from)?),
        None => None,
    };
    let (digest, stored) = store(job, entry, expected.as_ref(), name)?;
    if stored != size {
        return Err(TransferError::Invalid(format!(
            "archive: {name} has {stored} bytes, its header says {size}"
        )));
    }
    Ok((digest, stored))
}

/// Stores bytes as a blob of the job's lease; bytes that are there already are only read and verified.
pub(super) fn store(
    job: &Job,
    reader: &mut impl Read,
    expected: Option<&Digest>,
    name: &str,
) -> Result<(Digest, u64)> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let blobs = &job.parts.blobs;
    let reference = format!(
        "import-{}-{}",
        job.lease,
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let ingest = blobs.write(&job.ns, Some(&job.lease), &reference, 0, None)?;
    let mut ingest = std::io::BufWriter::with_capacity(256 << 10, ingest);
    let copied = std::io::copy(reader, &mut ingest)
        .and_then(|_| ingest.into_inner().map_err(|e| e.into_error()));
    let ingest = match copied {
        Ok(ingest) => ingest,
        Err(error) => {
            // Half a file under a name of ours is of no use to anybody.
            let _ = blobs.abort(&job.ns, &reference);
            return Err(failed(format!("read {name}"))(error));
        }
    };
    let (digest, size) = (ingest.digest(), ingest.offset());
    match ingest.commit(size, expected, &Labels::new()) {
        Ok(_) | Err(ContentError::Metadata(MetadataError::AlreadyExists(_))) => {}
        Err(error) => {
            let _ = blobs.abort(&job.ns, &reference);
            return Err(error.into());
        }
    }
    Ok((digest, u64::try_from(size).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_plain_and_stay_inside() {
        let plain = |path: &str| clean(Path::new(path));
        assert_eq!(plain("./a/./b").as_deref(), Some("a/b"));
        assert_eq!(plain("a/../b").as_deref(), Some("b"));
        assert_eq!(plain("../a"), None);
        assert_eq!(plain("/a"), None);
    }

    #[test]
    fn links_are_followed_and_loops_end() {
        let mut contents = Contents::default();
        let blob = (Digest::of_bytes(b"x"), 1);
        contents.files.insert("a".into(), blob.clone());
        contents.links.insert("b".into(), "a".into());
        contents.links.insert("c".into(), "d".into());
        contents.links.insert("d".into(), "c".into());
        assert_eq!(contents.find("b"), Some(&blob));
        assert_eq!(contents.find("c"), None);
    }
}
