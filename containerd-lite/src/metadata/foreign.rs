//! Names that other programs' snapshotters have for layers which they had before us.

use rusqlite::{OptionalExtension as _, params};

use super::leases::{self, SNAPSHOTS};
use super::snapshots::{free, write_row};
use super::{Result, SnapshotRow, Snapshots, attempt, namespaces};

impl Snapshots<'_> {
    /// Their name of a snapshot, if it is not one that we gave.
    pub(crate) fn foreign_key(&self, id: i64) -> Result<Option<String>> {
        self.store.read(|c| {
            c.prepare_cached(
                "SELECT name FROM foreign_snapshots WHERE snapshotter = ?1 AND id = ?2",
            )
            .and_then(|mut s| {
                s.query_row(params![self.snapshotter, id], |r| r.get(0))
                    .optional()
            })
            .map_err(attempt("read name of snapshot"))
        })
    }

    /// Forgets their name. False if there was none.
    pub(crate) fn forget_foreign_key(&self, id: i64) -> Result<bool> {
        let snapshotter = self.snapshotter.clone();
        self.store.write_blocking(move |c| {
            c.prepare_cached("DELETE FROM foreign_snapshots WHERE snapshotter = ?1 AND id = ?2")
                .and_then(|mut s| s.execute(params![snapshotter, id]))
                .map(|gone| gone > 0)
                .map_err(attempt("forget name of snapshot"))
        })
    }

    /// Records a committed snapshot that they have under `theirs`.
    pub(crate) fn adopt(
        &self,
        ns: &str,
        lease: Option<&str>,
        row: SnapshotRow,
        theirs: &str,
    ) -> Result<()> {
        let (snapshotter, ns, theirs) =
            (self.snapshotter.clone(), ns.to_owned(), theirs.to_owned());
        let lease = lease.map(str::to_owned);
        self.store.write_blocking(move |c| {
            free(c, &snapshotter, &ns, &row.name)?;
            namespaces::ensure(c, &ns)?;
            let kind = format!("{SNAPSHOTS}{snapshotter}");
            leases::hold(c, &ns, lease.as_deref(), &kind, &row.name)?;
            write_row(c, &snapshotter, &ns, &row)?;
            c.prepare_cached("INSERT OR REPLACE INTO foreign_snapshots (snapshotter, id, name) VALUES (?1, ?2, ?3)")
                .and_then(|mut s| s.execute(params![snapshotter, row.id, theirs]))
                .map_err(attempt("write name of snapshot"))?;
            Ok(())
        })
    }

    /// Forgets the names of snapshots that have gone.
    pub(crate) fn sweep_foreign_keys(&self) -> Result<()> {
        let snapshotter = self.snapshotter.clone();
        self.store.write_blocking(move |c| {
            c.execute(
                "DELETE FROM foreign_snapshots WHERE snapshotter = ?1
                   AND id NOT IN (SELECT id FROM snapshots WHERE snapshotter = ?1)",
                [&snapshotter],
            )
            .map_err(attempt("sweep names of snapshots"))?;
            Ok(())
        })
    }
}
