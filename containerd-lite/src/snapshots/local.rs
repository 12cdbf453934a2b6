//! Snapshots whose files are ours: numbered directories in one folder, kept by a [`Driver`].

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{PoisonError, RwLock};

use super::{Backend, Driver, Mount, New, SnapshotError, io};
use crate::metadata::{Labels, SnapshotRow, Snapshots, Usage};

/// A driver and its folder.
#[derive(Debug)]
pub(super) struct Local {
    driver: Box<dyn Driver>,
    next: AtomicI64,
    /// Shared by whoever makes a directory and its row, exclusive for the cleanup.
    making: RwLock<()>,
}

impl Local {
    /// Opens or makes the folder. `last` is the highest id in use by rows.
    pub(super) fn open(driver: Box<dyn Driver>, last: i64) -> Result<Self, SnapshotError> {
        crate::listen::directory(driver.folder()).map_err(io("make directory", driver.folder()))?;
        let on_disk = numbered(driver.folder())?.into_iter().max().unwrap_or(0);
        Ok(Self {
            driver,
            next: AtomicI64::new(last.max(on_disk) + 1),
            making: RwLock::new(()),
        })
    }

    fn path(&self, id: i64) -> PathBuf {
        self.driver.folder().join(id.to_string())
    }
}

impl Backend for Local {
    fn prepare(&self, rows: &Snapshots<'_>, new: &New<'_>) -> Result<Vec<Mount>, SnapshotError> {
        let parents = rows.parents(new.ns, new.parent)?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.path(id);
        let _making = self.making.read().unwrap_or_else(PoisonError::into_inner);
        let made = self
            .driver
            .make(&path, new.kind, &parents)
            .and_then(|()| Ok(rows.insert(new.ns, new.lease, new.row(id))?));
        if let Err(error) = made {
            // The first cause is what the caller needs; a leftover is removed by the next cleanup.
            let _ = std::fs::remove_dir_all(&path);
            return Err(error);
        }
        Ok(self.driver.mounts(id, new.kind, &parents))
    }

    fn mounts(
        &self,
        rows: &Snapshots<'_>,
        ns: &str,
        row: &SnapshotRow,
    ) -> Result<Vec<Mount>, SnapshotError> {
        let parents = rows.parents(ns, &row.parent)?;
        Ok(self.driver.mounts(row.id, row.kind, &parents))
    }

    /// The files are on the disk before the row says committed: a layer that power loss cut must not look whole.
    fn finish(
        &self,
        _: &Snapshots<'_>,
        _: &str,
        row: &SnapshotRow,
        _: &str,
        _: &Labels,
    ) -> Result<Usage, SnapshotError> {
        let path = self.path(row.id);
        let usage = self.driver.usage(row.id)?;
        std::fs::File::open(&path)
            .and_then(|dir| rustix::fs::syncfs(&dir).map_err(Into::into))
            .map_err(io("sync", &path))?;
        Ok(usage)
    }

    fn discarded(
        &self,
        _: &Snapshots<'_>,
        _: &str,
        row: &SnapshotRow,
    ) -> Result<(), SnapshotError> {
        let path = self.path(row.id);
        match std::fs::rename(&path, self.driver.folder().join(format!("rm-{}", row.id))) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(io("set aside", &path)(error))
            }
            _ => Ok(()),
        }
    }

    fn usage(&self, _: &Snapshots<'_>, _: &str, row: &SnapshotRow) -> Result<Usage, SnapshotError> {
        self.driver.usage(row.id)
    }

    fn cleanup(&self, rows: &Snapshots<'_>) -> Result<(), SnapshotError> {
        let folder = self.driver.folder();
        {
            let _alone = self.making.write().unwrap_or_else(PoisonError::into_inner);
            let kept = rows.ids()?;
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
