//! The one database: everything that must survive a reboot and is not a blob or a file of a layer.
//!
//! ```text
//!  meta              key ─ value                       version of this drawing, uuid of the installation
//!  namespaces        ns ─ labels
//!  containers        ns, id ─ image, runtime, options, spec, snapshotter, snapshot_key, sandbox, labels, times
//!    extensions      ns, container, name ─ Any
//!  images            ns, name ─ target descriptor, labels, times
//!  content           ns, digest ─ size, labels, times          the bytes: one file per digest for all namespaces
//!  ingests           ns, ref ─ folder, total, expected, times  the bytes so far: FOLDER/data
//!  snapshots         snapshotter, ns, name ─ id, parent, kind, labels, usage, times   the files: snapshots/ID
//!  sandboxes         ns, id ─ record                  the message as it came
//!    foreign_snapshots  snapshotter, id ─ name            what another program's snapshotter calls it, if not as we do
//!  leases            ns, id ─ labels, created
//!    lease_resources ns, lease, type, id
//!  exits             ns, container, exec ─ pid, status, exited_at, reason      kept until Tasks.Delete
//! ```
//!
//! Change this drawing with [`db::SCHEMA`]. Labels are JSON objects; an Any is its type URL and its bytes, never decoded.
//! Times are nanoseconds since 1970. Statements name their columns, so columns of a later version are kept.
//!
//! **Writing** is one thread with one connection. A job is a closure over the connection, run in its own savepoint; the
//! jobs that wait at one time share one commit, so one fsync serves them all, and a job that fails undoes only itself.
//! An answer comes after the commit. **Reading** goes past the writer (write-ahead log), on a few pooled connections, in
//! the caller's thread: a lookup takes microseconds and never waits for an fsync.
//!
//! A mutation and what depends on it (a blob and its lease, an object and its namespace) are one job. The garbage
//! collector marks and deletes rows in one job too, hence sees no half of anything.

mod adopt;
mod containers;
mod content;
mod db;
mod exits;
mod foreign;
mod images;
pub(crate) mod leases;
mod namespaces;
pub(crate) mod sandboxes;
mod snapshots;

use std::collections::BTreeMap;

use proto::error::ErrorKind;

pub(crate) use adopt::Found;
pub(crate) use containers::{Container, Runtime};
pub(crate) use content::{Blob, IngestRow};
pub(crate) use db::Store;
pub(crate) use exits::Exit;
pub(crate) use images::{Image, Target};
pub(crate) use leases::{Lease, Resource};
pub(crate) use namespaces::Namespace;
pub(crate) use snapshots::{SnapshotKind, SnapshotRow, Snapshots, Usage};

/// Labels of an object.
pub(crate) type Labels = BTreeMap<String, String>;

/// Longest label, key and value together, in bytes.
const MAX_LABEL: usize = 4096;

/// Why the database refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MetadataError {
    /// There is no such object.
    #[error("{0}: not found")]
    NotFound(String),
    /// There is one already.
    #[error("{0}: already exists")]
    AlreadyExists(String),
    /// The request is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The object's state forbids it.
    #[error("{0}: failed precondition")]
    Precondition(String),
    /// The database failed.
    #[error("metadata: {attempt}")]
    Database {
        /// What was attempted.
        attempt: &'static str,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// The file belongs to a later version of this program.
    #[error("metadata: {path} has format {found}, this program knows up to {known}")]
    Format {
        /// The file.
        path: std::path::PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The file cannot be moved or made.
    #[error("metadata: {path}")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The writer has ended.
    #[error("metadata: the writer is gone")]
    Closed,
}

impl crate::error::Kind for MetadataError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::AlreadyExists(_) => ErrorKind::AlreadyExists,
            Self::Invalid(_) => ErrorKind::InvalidArgument,
            Self::Precondition(_) => ErrorKind::FailedPrecondition,
            Self::Database { source, .. } => match source.sqlite_error_code() {
                Some(rusqlite::ErrorCode::DiskFull) => ErrorKind::ResourceExhausted,
                _ => ErrorKind::Internal,
            },
            Self::Format { .. } | Self::File { .. } => ErrorKind::Internal,
            Self::Closed => ErrorKind::Unavailable,
        }
    }
}

/// Shorthand of this module.
type Result<T> = std::result::Result<T, MetadataError>;

/// Names the attempt in a database error.
pub(crate) fn attempt(attempt: &'static str) -> impl Fn(rusqlite::Error) -> MetadataError {
    move |source| MetadataError::Database { attempt, source }
}

/// Checks an identifier.
pub(crate) fn identifier(what: &str, id: &str) -> Result<()> {
    proto::ids::validate(id).map_err(|e| MetadataError::Invalid(format!("{what} id {id:?}: {e}")))
}

/// Checks labels. An empty value means "no such label" everywhere, so those are dropped.
pub(crate) fn checked_labels(labels: &Labels) -> Result<Labels> {
    for (key, value) in labels {
        if key.len() + value.len() > MAX_LABEL {
            let start: String = key.chars().take(10).collect();
            return Err(MetadataError::Invalid(format!(
                "label key and value length ({} bytes) greater than maximum size ({MAX_LABEL} bytes), key: {start}",
                key.len() + value.len()
            )));
        }
    }
    Ok(labels
        .iter()
        .filter(|(_, v)| !v.is_empty())
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect())
}

/// Labels as stored.
fn to_json(labels: &Labels) -> String {
    serde_json::to_string(labels).expect("a map of strings has a JSON form")
}

/// Labels as read.
pub(crate) fn from_json(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<Labels> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|e| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(e))
    })
}

/// Lays the paths of a field mask below `field` (`labels`, `labels.KEY`) over a map. True if the path was one of these.
/// An empty or missing new value removes the key. KEY may hold dots.
pub(crate) fn mask_map(current: &mut Labels, new: &Labels, field: &str, path: &str) -> bool {
    if path == field {
        *current = new.clone();
        return true;
    }
    let Some(key) = path
        .strip_prefix(field)
        .and_then(|rest| rest.strip_prefix('.'))
    else {
        return false;
    };
    match new.get(key).filter(|v| !v.is_empty()) {
        Some(value) => current.insert(key.to_owned(), value.clone()),
        None => current.remove(key),
    };
    true
}

/// The error of a mask path that the object does not have.
pub(crate) fn bad_path(path: &str, what: &str, name: &str) -> MetadataError {
    MetadataError::Invalid(format!("cannot update {path:?} field on {what} {name:?}"))
}

#[cfg(test)]
mod tests;
