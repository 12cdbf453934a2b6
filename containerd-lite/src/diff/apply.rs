//! One layer blob into the file system that mounts describe, in one pass.

use std::fs::File;

use super::archive::Archive;
use super::compress::{is_layer, reader};
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

/// Applies a layer; the digest is of all that was decompressed.
pub(crate) fn apply(
    blob: File,
    media_type: &str,
    mounts: &[MountSpec],
    sync: bool,
) -> Result<Applied, DiffError> {
    if !is_layer(media_type) {
        return Err(DiffError::MediaType(media_type.to_owned()));
    }
    let target = Layers::parse(mounts)?.open()?;
    let mut archive = Archive::new(Hashed::new(reader(blob).map_err(DiffError::Read)?));
    let mut extractor =
        Extractor::new(target).map_err(super::io("open", std::path::Path::new("/")))?;
    while let Some(entry) = archive.next()? {
        extractor.put(&entry, &mut archive)?;
    }
    extractor.finish(sync)?;
    let read = archive.finish()?;
    Ok(Applied {
        digest: read.digest(),
        size: read.size,
    })
}
