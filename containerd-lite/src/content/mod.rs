//! Content: bytes by digest.
//!
//! ```text
//!  blobs/sha256/HEX      a blob: complete, verified, never changed; one file for all namespaces
//!  ingest/FOLDER/data    an ingest: what has been written so far under one ref of one namespace
//! ```
//!
//! An ingest becomes a blob by [`Ingest::commit`]: verify, fsync, rename, fsync the directory, then one database job that
//! makes the blob visible in its namespace, ends the ingest and lets the lease hold it. A kill before the job leaves a
//! file that nobody sees; [`Blobs::sweep`] removes it. Whoever makes files and rows that belong together holds the sweep
//! lock shared meanwhile; the sweep holds it alone, so it never removes the file of a row that is about to be written.
//!
//! Everything here blocks; services enter it through `spawn_blocking`.

mod digest;
mod ingest;
mod store;

use std::path::PathBuf;

use proto::error::ErrorKind;

pub(crate) use digest::{Digest, DigestError, Hashed};
pub(crate) use ingest::Ingest;
pub(crate) use store::{Blobs, IngestStatus};

use crate::metadata::MetadataError;

/// Why content cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContentError {
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error(transparent)]
    Digest(#[from] DigestError),
    #[error("{attempt} {path}", path = .path.display())]
    Io {
        attempt: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("content {digest}: blob is missing on disk")]
    Missing { digest: Digest },
    #[error("ref {reference} locked: unavailable")]
    Locked { reference: String },
    #[error("ingest {reference}: not found")]
    NoIngest { reference: String },
    #[error("write @{offset} must occur at current offset {current}")]
    Offset { offset: i64, current: i64 },
    #[error("unexpected commit {what} {found}, expected {expected}: failed precondition")]
    Mismatch {
        what: &'static str,
        found: String,
        expected: String,
    },
    #[error("content {digest}: read at {offset}, past the end {size}: out of range")]
    PastEnd {
        digest: Digest,
        offset: i64,
        size: i64,
    },
    #[error("{0}")]
    Invalid(String),
}

impl crate::error::Kind for ContentError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Metadata(error) => error.kind(),
            Self::Digest(_) | Self::Invalid(_) => ErrorKind::InvalidArgument,
            Self::Io { source, .. } => match crate::error::io_kind(source) {
                // A file of ours that is missing is a fault, not an unknown object.
                ErrorKind::NotFound => ErrorKind::Internal,
                kind => kind,
            },
            Self::Missing { .. } | Self::NoIngest { .. } => ErrorKind::NotFound,
            Self::Locked { .. } => ErrorKind::Unavailable,
            Self::Offset { .. } | Self::PastEnd { .. } => ErrorKind::OutOfRange,
            Self::Mismatch { .. } => ErrorKind::FailedPrecondition,
        }
    }
}

#[cfg(test)]
mod tests;
