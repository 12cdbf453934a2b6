//! Snapshots: file systems built on one another.
//!
//! ```text
//!            prepare(key, parent)              commit(name, key)
//!  parent ─────────────────────────▶ active ───────────────────▶ committed ──▶ parent of others
//!     │     view(key, parent)                                        │
//!     └────────────────────────────▶ view                            │
//!            remove(key or name): refused while another builds on it ┘
//! ```
//!
//! An active snapshot and a view go by a *key*, a committed one by a *name*; both are free text per namespace. The row in
//! the database is the truth (see `metadata::snapshots`); a [`Backend`] has the files. Of our own ([`local`]) a [`Driver`] keeps
//! those of snapshot N in `snapshots/N` and says how to mount them; another program's is asked over gRPC ([`proxy`]). Order makes a kill harmless: files before the row on the way in, the row before the files on
//! the way out, so that what a kill leaves is a directory without a row, and [`Snapshotter::cleanup`] removes it.
//!
//! Everything here blocks; services enter it through `spawn_blocking`.

mod copy;
mod local;
mod overlay;
mod proxy;
#[cfg(test)]
mod suite;
mod usage;

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proto::error::ErrorKind;

pub(crate) use copy::Copy;
use local::Local;
pub(crate) use overlay::Overlay;
use proxy::Proxy;

use crate::metadata::{Labels, MetadataError, SnapshotKind, SnapshotRow, Snapshots, Store, Usage};

/// Name of the snapshotter that an empty name means.
pub(crate) const DEFAULT: &str = "overlayfs";

/// Why a snapshot cannot be made, mounted or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error("snapshotter not loaded: {0}: invalid argument")]
    Unknown(String),
    #[error("{attempt} {path}", path = .path.display())]
    Io {
        attempt: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("snapshot {0} is committed: it has no mounts")]
    Committed(String),
    #[error("snapshotter {name}: {text}")]
    Proxy {
        name: &'static str,
        kind: ErrorKind,
        text: String,
    },
}

impl crate::error::Kind for SnapshotError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Metadata(error) => error.kind(),
            Self::Unknown(_) => ErrorKind::InvalidArgument,
            Self::Io { source, .. } => match crate::error::io_kind(source) {
                ErrorKind::NotFound => ErrorKind::Internal,
                kind => kind,
            },
            Self::Committed(_) => ErrorKind::FailedPrecondition,
            Self::Proxy { kind, .. } => *kind,
        }
    }
}

/// Names the attempt and the path in an I/O error.
fn io(attempt: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::Io {
        attempt,
        path,
        source,
    }
}

/// One mount, as clients and shims make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) kind: Cow<'static, str>,
    pub(crate) source: String,
    pub(crate) options: Vec<String>,
}

impl Mount {
    /// A bind mount of one directory.
    fn bind(source: &Path, writable: bool) -> Self {
        let mode = if writable { "rw" } else { "ro" };
        Self {
            kind: "bind".into(),
            source: source.display().to_string(),
            options: vec![mode.to_owned(), "rbind".to_owned()],
        }
    }
}

/// Keeps the files of snapshots by number.
pub(crate) trait Driver: std::fmt::Debug + Send + Sync {
    /// Name that clients use.
    fn name(&self) -> &'static str;
    /// Directory with the numbered directories.
    fn folder(&self) -> &Path;
    /// Makes the files of a new active snapshot or view below `at`, `folder()/ID`, with its parents, the nearest first.
    fn make(&self, at: &Path, kind: SnapshotKind, parents: &[i64]) -> Result<(), SnapshotError>;
    /// How to mount it.
    fn mounts(&self, id: i64, kind: SnapshotKind, parents: &[i64]) -> Vec<Mount>;
    /// What its own files take, without the parents'.
    fn usage(&self, id: i64) -> Result<Usage, SnapshotError>;
}

impl From<Mount> for crate::diff::MountSpec {
    fn from(mount: Mount) -> Self {
        Self {
            kind: mount.kind.into_owned(),
            source: mount.source,
            options: mount.options,
        }
    }
}

/// A snapshotter by the name in a request.
pub(crate) fn find(
    all: &HashMap<&'static str, Arc<Snapshotter>>,
    name: &str,
) -> Result<Arc<Snapshotter>, SnapshotError> {
    let name = if name.is_empty() { DEFAULT } else { name };
    all.get(name)
        .cloned()
        .ok_or_else(|| SnapshotError::Unknown(name.to_owned()))
}

/// A snapshot to be made.
#[derive(Debug)]
pub(crate) struct New<'a> {
    ns: &'a str,
    lease: Option<&'a str>,
    kind: SnapshotKind,
    key: &'a str,
    parent: &'a str,
    labels: &'a Labels,
}

impl New<'_> {
    fn row(&self, id: i64) -> SnapshotRow {
        let now = crate::time::now();
        SnapshotRow {
            name: self.key.to_owned(),
            id,
            parent: self.parent.to_owned(),
            kind: self.kind,
            labels: self.labels.clone(),
            usage: Usage::default(),
            created_at: now,
            updated_at: now,
        }
    }
}

/// Has the files of snapshots.
pub(crate) trait Backend: std::fmt::Debug + Send + Sync {
    /// Makes the files, then the row.
    fn prepare(&self, rows: &Snapshots<'_>, new: &New<'_>) -> Result<Vec<Mount>, SnapshotError>;
    /// How to mount an active snapshot or a view.
    fn mounts(
        &self,
        rows: &Snapshots<'_>,
        ns: &str,
        row: &SnapshotRow,
    ) -> Result<Vec<Mount>, SnapshotError>;
    /// Finishes the files of an active snapshot before its row says committed, and tells what they take.
    fn finish(
        &self,
        rows: &Snapshots<'_>,
        ns: &str,
        row: &SnapshotRow,
        name: &str,
        labels: &Labels,
    ) -> Result<Usage, SnapshotError>;
    /// Takes the files of a row that has gone out of the way.
    fn discarded(
        &self,
        rows: &Snapshots<'_>,
        ns: &str,
        row: &SnapshotRow,
    ) -> Result<(), SnapshotError>;
    /// What the files take, without the parents'.
    fn usage(
        &self,
        rows: &Snapshots<'_>,
        ns: &str,
        row: &SnapshotRow,
    ) -> Result<Usage, SnapshotError>;
    /// Removes the files that no row speaks of.
    fn cleanup(&self, rows: &Snapshots<'_>) -> Result<(), SnapshotError>;
}

/// The snapshots of one backend.
#[derive(Debug)]
pub(crate) struct Snapshotter {
    name: &'static str,
    store: Store,
    backend: Box<dyn Backend>,
}

impl Snapshotter {
    /// Opens or makes the directory of a driver of our own.
    pub(crate) fn open(driver: Box<dyn Driver>, store: Store) -> Result<Arc<Self>, SnapshotError> {
        let name = driver.name();
        let last = store.snapshots(name).last_id()?;
        Ok(Arc::new(Self {
            name,
            backend: Box::new(Local::open(driver, last)?),
            store,
        }))
    }

    /// One that is another program's.
    pub(crate) fn proxy(
        name: &'static str,
        socket: &Path,
        store: Store,
    ) -> Result<Arc<Self>, SnapshotError> {
        let last = store.snapshots(name).last_id()?;
        Ok(Arc::new(Self {
            name,
            backend: Box::new(Proxy::new(name, socket, last)?),
            store,
        }))
    }

    /// Name that clients use.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    fn rows(&self) -> Snapshots<'_> {
        self.store.snapshots(self.name)
    }

    /// Makes an active snapshot or a view on `parent` (or on nothing) and says how to mount it.
    pub(crate) fn prepare(
        &self,
        ns: &str,
        lease: Option<&str>,
        kind: SnapshotKind,
        key: &str,
        parent: &str,
        labels: &Labels,
    ) -> Result<Vec<Mount>, SnapshotError> {
        match self.rows().get(ns, key) {
            Ok(_) => return Err(MetadataError::AlreadyExists(format!("snapshot {key:?}")).into()),
            Err(MetadataError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let new = New {
            ns,
            lease,
            kind,
            key,
            parent,
            labels,
        };
        self.backend.prepare(&self.rows(), &new)
    }

    /// How to mount an active snapshot or a view.
    pub(crate) fn mounts(&self, ns: &str, key: &str) -> Result<Vec<Mount>, SnapshotError> {
        let row = self.rows().get(ns, key)?;
        match row.kind {
            SnapshotKind::Committed => Err(SnapshotError::Committed(key.to_owned())),
            _ => self.backend.mounts(&self.rows(), ns, &row),
        }
    }

    /// Finishes an active snapshot.
    pub(crate) fn commit(
        &self,
        ns: &str,
        lease: Option<&str>,
        name: &str,
        key: &str,
        labels: &Labels,
    ) -> Result<(), SnapshotError> {
        let row = self.rows().get(ns, key)?;
        self.rows().may_commit(ns, name, &row)?;
        let usage = self.backend.finish(&self.rows(), ns, &row, name, labels)?;
        Ok(self.rows().commit(ns, lease, name, key, usage, labels)?)
    }

    /// Forgets a snapshot and takes its files out of the way; they are removed by [`Self::cleanup`].
    pub(crate) fn remove(&self, ns: &str, name: &str) -> Result<(), SnapshotError> {
        let row = self.rows().delete(ns, name)?;
        self.backend.discarded(&self.rows(), ns, &row)
    }

    /// One snapshot.
    pub(crate) fn stat(&self, ns: &str, name: &str) -> Result<SnapshotRow, SnapshotError> {
        Ok(self.rows().get(ns, name)?)
    }

    /// All snapshots of a namespace.
    pub(crate) fn list(&self, ns: &str) -> Result<Vec<SnapshotRow>, SnapshotError> {
        Ok(self.rows().list(ns)?)
    }

    /// What a snapshot takes without its parents.
    pub(crate) fn usage(&self, ns: &str, name: &str) -> Result<Usage, SnapshotError> {
        let row = self.rows().get(ns, name)?;
        match row.kind {
            SnapshotKind::Committed => Ok(row.usage),
            SnapshotKind::Active | SnapshotKind::View => self.backend.usage(&self.rows(), ns, &row),
        }
    }

    /// Changes labels by mask.
    pub(crate) async fn update(
        &self,
        ns: &str,
        name: &str,
        labels: Labels,
        mask: Vec<String>,
    ) -> Result<SnapshotRow, SnapshotError> {
        Ok(self.rows().update(ns, name, labels, mask).await?)
    }

    /// Removes the files that no row speaks of.
    pub(crate) fn cleanup(&self) -> Result<(), SnapshotError> {
        self.backend.cleanup(&self.rows())
    }
}
