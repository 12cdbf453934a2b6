//! Diffs: a layer into a directory ([`apply`]) and a directory's changes into a layer ([`create`]).
//!
//! ```text
//!  blob ─▶ decompress ─▶ hash ─▶ archive (entries) ─▶ extract (fd-relative) ─▶ target (a directory, or overlayfs)
//!  changes (walk) ─▶ layer (tar) ─▶ hash ─▶ compress ─▶ content ingest
//! ```
//!
//! A layer is hostile input. Names are normalised and may not leave the layer; directories are opened below the root with
//! openat2(RESOLVE_IN_ROOT), the last component is never followed; what is read for one header is bounded; the disk is
//! never filled to the last block. A target that is an overlay is mounted detached: it has no mount point, so nobody sees
//! it and a kill leaves nothing mounted. The kernel then finds what lies below, copies up and writes the whiteouts.
//!
//! Everything here blocks; the service enters it through `spawn_blocking`.

mod apply;
mod archive;
mod attributes;
mod changes;
mod compress;
mod create;
mod extract;
mod layer;
mod ours;
mod root;
mod target;
#[cfg(test)]
mod tests;
pub(crate) mod xattr;

use std::path::{Path, PathBuf};

use proto::error::ErrorKind;

pub(crate) use apply::apply;
pub(crate) use compress::decompressed;
pub(crate) use create::{Request as CreateRequest, create};

use crate::content::ContentError;

/// A mount as a client names it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MountSpec {
    pub(crate) kind: String,
    pub(crate) source: String,
    pub(crate) options: Vec<String>,
}

/// Why a layer cannot be applied or made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiffError {
    #[error(transparent)]
    Content(#[from] ContentError),
    #[error("media type {0:?} is not supported")]
    MediaType(String),
    #[error("mounts cannot be used here: {0}")]
    Mounts(String),
    #[error("mount overlay")]
    Overlay(#[source] std::io::Error),
    #[error("read layer")]
    Read(#[source] std::io::Error),
    #[error("layer entry {path:?}: {what}")]
    Entry { path: String, what: &'static str },
    #[error("layer entry {path:?}: {what} is not supported")]
    Unsupported { path: String, what: &'static str },
    #[error("{attempt} {path}", path = .path.display())]
    Io {
        attempt: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
}

impl crate::error::Kind for DiffError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Content(error) => error.kind(),
            Self::MediaType(_) | Self::Unsupported { .. } => ErrorKind::Unimplemented,
            Self::Mounts(_) | Self::Entry { .. } => ErrorKind::InvalidArgument,
            Self::Overlay(source) => crate::error::io_kind(source),
            Self::Read(source) => match crate::error::io_kind(source) {
                // What the decompressor or the archive says of malformed bytes.
                ErrorKind::Internal | ErrorKind::NotFound => ErrorKind::InvalidArgument,
                kind => kind,
            },
            Self::Io { source, .. } => match source.raw_os_error() {
                // A path component that is no directory, a loop of links, a name that is too long: the layer's fault.
                Some(
                    libc::ENOTDIR | libc::ELOOP | libc::ENAMETOOLONG | libc::EEXIST | libc::EINVAL,
                ) => ErrorKind::InvalidArgument,
                _ => match crate::error::io_kind(source) {
                    ErrorKind::NotFound => ErrorKind::InvalidArgument,
                    kind => kind,
                },
            },
        }
    }
}

/// Names the attempt and the path in an error.
fn io<E: Into<std::io::Error>>(attempt: &'static str, path: &Path) -> impl FnOnce(E) -> DiffError {
    let path = path.to_owned();
    move |source| DiffError::Io {
        attempt,
        path,
        source: source.into(),
    }
}
