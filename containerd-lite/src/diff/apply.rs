//! One layer blob into the file system that mounts describe, in one pass.

use std::fs::File;
use std::io::Read;

use super::archive::Archive;
use super::compress::{Content, content, is_layer};
use super::extract::Extractor;
use super::target::Layers;
use super::{DiffError, MountSpec};
use crate::content::{Digest, Hashed};

/// The layer as it was before compression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// Applies a layer; the digest is of all that was decompressed. `stored` is the blob's own: what is not compressed has that
/// one, which was made of these bytes when they were stored, and is not hashed once more.
pub(crate) fn apply(
    blob: File,
    stored: &Digest,
    media_type: &str,
    mounts: &[MountSpec],
    sync: bool,
) -> Result<Applied, DiffError> {
    if !is_layer(media_type) {
        return Err(DiffError::MediaType(media_type.to_owned()));
    }
    let target = Layers::parse(mounts)?.open()?;
    let length = blob.metadata().map_err(DiffError::Read)?.len();
    let extractor = Extractor::new(target).map_err(super::io("open", std::path::Path::new("/")))?;
    match content(blob).map_err(DiffError::Read)? {
        Content::Plain(reader) => {
            extract(Archive::new(reader), extractor, sync)?;
            Ok(Applied {
                digest: stored.clone(),
                size: length,
            })
        }
        Content::Decoded(reader) => {
            let read = extract(Archive::new(Hashed::new(reader)), extractor, sync)?.finish()?;
            Ok(Applied {
                digest: read.digest(),
                size: read.size,
            })
        }
    }
}

/// Extracts all entries; what follows them is not read.
fn extract<R: Read>(
    mut archive: Archive<R>,
    mut extractor: Extractor,
    sync: bool,
) -> Result<Archive<R>, DiffError> {
    while let Some(entry) = archive.next()? {
        extractor.put(&entry, &mut archive)?;
    }
    extractor.finish(sync)?;
    Ok(archive)
}
