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
//! the database is the truth (see `metadata::snapshots`); a [`Driver`] keeps the files of snapshot N in `snapshots/N` and
//! says how to mount them. Order makes a kill harmless: files before the row on the way in, the row before the files on
//! the way out, so that what a kill leaves is a directory without a row, and [`Snapshotter::cleanup`] removes it.
//!
//! Everything here blocks; services enter it through `spawn_blocking`.

mod copy;
mod overlay;
#[cfg(test)]
mod suite;
mod usage;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use proto::error::ErrorKind;

pub(crate) use copy::Copy;
pub(crate) use overlay::Overlay;

use crate::metadata::{Labels, MetadataError, SnapshotKind, SnapshotRow, Store, Usage};

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
    pub(crate) kind: &'static str,
    pub(crate) source: String,
    pub(crate) options: Vec<String>,
}

impl Mount {
    /// A bind mount of one directory.
    fn bind(source: &Path, writable: bool) -> Self {
        let mode = if writable { "rw" } else { "ro" };
        Self {
            kind: "bind",
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
            kind: mount.kind.to_owned(),
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

/// The snapshots of one driver.
#[derive(Debug)]
pub(crate) struct Snapshotter {
    driver: Box<dyn Driver>,
    store: Store,
    next: AtomicI64,
    /// Shared by whoever makes a directory and its row, exclusive for the cleanup.
    making: RwLock<()>,
}

impl Snapshotter {
    /// Opens or makes the directory of the driver.
    pub(crate) fn open(driver: Box<dyn Driver>, store: Store) -> Result<Arc<Self>, SnapshotError> {
        crate::listen::directory(driver.folder()).map_err(io("make directory", driver.folder()))?;
        let in_rows = store
            .snapshots(driver.name())
            .ids()?
            .into_iter()
            .max()
            .unwrap_or(0);
        let on_disk = numbered(driver.folder())?.into_iter().max().unwrap_or(0);
        let next = AtomicI64::new(in_rows.max(on_disk) + 1);
        Ok(Arc::new(Self {
            driver,
            store,
            next,
            making: RwLock::new(()),
        }))
    }

    /// Name that clients use.
    pub(crate) fn name(&self) -> &'static str {
        self.driver.name()
    }

    fn rows(&self) -> crate::metadata::Snapshots<'_> {
        self.store.snapshots(self.driver.name())
    }

    fn path(&self, id: i64) -> PathBuf {
        self.driver.folder().join(id.to_string())
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
        let parents = self.rows().parents(ns, parent)?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.path(id);
        let _making = self.making.read().unwrap_or_else(PoisonError::into_inner);
        let now = crate::time::now();
        let row = SnapshotRow {
            name: key.to_owned(),
            id,
            parent: parent.to_owned(),
            kind,
            labels: labels.clone(),
            usage: Usage::default(),
            created_at: now,
            updated_at: now,
        };
        let made = self
            .driver
            .make(&path, kind, &parents)
            .and_then(|()| Ok(self.rows().insert(ns, lease, row)?));
        if let Err(error) = made {
            // The first cause is what the caller needs; a leftover is removed by the next cleanup.
            let _ = std::fs::remove_dir_all(&path);
            return Err(error);
        }
        Ok(self.driver.mounts(id, kind, &parents))
    }

    /// How to mount an active snapshot or a view.
    pub(crate) fn mounts(&self, ns: &str, key: &str) -> Result<Vec<Mount>, SnapshotError> {
        let (row, parents) = self.rows().chain(ns, key)?;
        match row.kind {
            SnapshotKind::Committed => Err(SnapshotError::Committed(key.to_owned())),
            kind => Ok(self.driver.mounts(row.id, kind, &parents)),
        }
    }

    /// Finishes an active snapshot. Its files are on the disk before its row says committed: a layer that power loss cut
    /// must not look whole.
    pub(crate) fn commit(
        &self,
        ns: &str,
        lease: Option<&str>,
        name: &str,
        key: &str,
        labels: &Labels,
    ) -> Result<(), SnapshotError> {
        let row = self.rows().get(ns, key)?;
        let path = self.path(row.id);
        let usage = self.driver.usage(row.id)?;
        std::fs::File::open(&path)
            .and_then(|dir| rustix::fs::syncfs(&dir).map_err(Into::into))
            .map_err(io("sync", &path))?;
        Ok(self.rows().commit(ns, lease, name, key, usage, labels)?)
    }

    /// Forgets a snapshot and takes its files out of the way; they are removed by [`Self::cleanup`].
    pub(crate) fn remove(&self, ns: &str, name: &str) -> Result<(), SnapshotError> {
        let row = self.rows().delete(ns, name)?;
        let path = self.path(row.id);
        match std::fs::rename(&path, self.driver.folder().join(format!("rm-{}", row.id))) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(io("set aside", &path)(error))
            }
            _ => Ok(()),
        }
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
            SnapshotKind::Active | SnapshotKind::View => self.driver.usage(row.id),
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
        let folder = self.driver.folder();
        {
            let _alone = self.making.write().unwrap_or_else(PoisonError::into_inner);
            let kept = self.rows().ids()?;
            for id in numbered(folder)? {
                if !kept.contains(&id) {
                    let path = self.path(id);
                    std::fs::rename(&path, folder.join(format!("rm-{id}")))
                        .map_err(io("set aside", &path))?;
                }
            }
        }
        // The slow part is done without holding anybody up.
        for entry in std::fs::read_dir(folder).map_err(io("read directory", folder))? {
            let path = entry.map_err(io("read directory", folder))?.path();
            if path
                .file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with("rm-"))
            {
                match std::fs::remove_dir_all(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(io("remove", &path)(error));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Numbers of the directories in `folder`.
fn numbered(folder: &Path) -> Result<Vec<i64>, SnapshotError> {
    let entries = std::fs::read_dir(folder).map_err(io("read directory", folder))?;
    let mut ids = Vec::new();
    for entry in entries {
        let name = entry.map_err(io("read directory", folder))?.file_name();
        ids.extend(name.to_str().and_then(|n| n.parse::<i64>().ok()));
    }
    Ok(ids)
}
