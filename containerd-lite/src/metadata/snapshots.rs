//! What is known of snapshots; their files are `crate::snapshots`'s.
//!
//! A row is written after its directory is made and removed before its directory is, so a directory without a row is a
//! leftover, and a row without a directory does not exist.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::leases::{self, SNAPSHOTS};
use super::{
    Labels, MetadataError, Result, Store, attempt, bad_path, checked_labels, from_json, identifier,
    mask_map, namespaces, to_json,
};
use crate::time::{Nanos, now};

/// What a snapshot may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum SnapshotKind {
    /// Read only, by key.
    View,
    /// Writable, by key.
    Active,
    /// Finished, by name; others may build on it.
    Committed,
}

impl SnapshotKind {
    fn number(self) -> i64 {
        match self {
            Self::View => 1,
            Self::Active => 2,
            Self::Committed => 3,
        }
    }

    fn from_number(number: i64) -> rusqlite::Result<Self> {
        match number {
            1 => Ok(Self::View),
            2 => Ok(Self::Active),
            3 => Ok(Self::Committed),
            _ => Err(rusqlite::Error::IntegralValueOutOfRange(0, number)),
        }
    }
}

/// Bytes and inodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) size: i64,
    pub(crate) inodes: i64,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotRow {
    /// Key of an active one or a view, name of a committed one.
    pub(crate) name: String,
    /// Its directory below `snapshots/`.
    pub(crate) id: i64,
    /// Name of the parent, or empty.
    pub(crate) parent: String,
    pub(crate) kind: SnapshotKind,
    pub(crate) labels: Labels,
    pub(crate) usage: Usage,
    pub(crate) created_at: Nanos,
    pub(crate) updated_at: Nanos,
}

/// The snapshots of one snapshotter in a store.
#[derive(Debug)]
pub(crate) struct Snapshots<'a> {
    pub(super) store: &'a Store,
    pub(super) snapshotter: String,
}

impl Store {
    /// The snapshots of a snapshotter.
    pub(crate) fn snapshots(&self, snapshotter: &str) -> Snapshots<'_> {
        Snapshots {
            store: self,
            snapshotter: snapshotter.to_owned(),
        }
    }
}

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<SnapshotRow> {
    Ok(SnapshotRow {
        name: row.get("name")?,
        id: row.get("id")?,
        parent: row.get("parent")?,
        kind: SnapshotKind::from_number(row.get("kind")?)?,
        labels: from_json(row, "labels")?,
        usage: Usage {
            size: row.get("size")?,
            inodes: row.get("inodes")?,
        },
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

fn find(c: &Connection, snapshotter: &str, ns: &str, name: &str) -> Result<SnapshotRow> {
    c.prepare_cached("SELECT * FROM snapshots WHERE snapshotter = ?1 AND ns = ?2 AND name = ?3")
        .and_then(|mut s| s.query_row([snapshotter, ns, name], row).optional())
        .map_err(attempt("read snapshot"))?
        .ok_or_else(|| MetadataError::NotFound(format!("snapshot {name} does not exist")))
}

/// Ids from the parent of a snapshot down to the bottom.
fn ancestors(c: &Connection, snapshotter: &str, ns: &str, parent: &str) -> Result<Vec<i64>> {
    let mut ids = Vec::new();
    let mut next = parent.to_owned();
    while !next.is_empty() {
        let row = find(c, snapshotter, ns, &next)?;
        ids.push(row.id);
        next = row.parent;
    }
    Ok(ids)
}

pub(super) fn write_row(
    c: &Connection,
    snapshotter: &str,
    ns: &str,
    row: &SnapshotRow,
) -> Result<()> {
    c.prepare_cached(
                "INSERT INTO snapshots (snapshotter, ns, name, id, parent, kind, labels, created_at, updated_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)",
            )
            .and_then(|mut s| {
                s.execute(params![
                    snapshotter,
                    ns,
                    row.name,
                    row.id,
                    row.parent,
                    row.kind.number(),
                    to_json(&row.labels),
                    row.created_at
                ])
            })
            .map_err(attempt("write snapshot"))?;
    Ok(())
}

pub(super) fn free(c: &Connection, snapshotter: &str, ns: &str, name: &str) -> Result<()> {
    match find(c, snapshotter, ns, name) {
        Ok(_) => Err(MetadataError::AlreadyExists(format!("snapshot {name:?}"))),
        Err(MetadataError::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

impl Snapshots<'_> {
    /// One snapshot.
    pub(crate) fn get(&self, ns: &str, name: &str) -> Result<SnapshotRow> {
        self.store.read(|c| find(c, &self.snapshotter, ns, name))
    }

    /// Ids of a committed parent and its ancestors, parent first; empty without a parent.
    pub(crate) fn parents(&self, ns: &str, parent: &str) -> Result<Vec<i64>> {
        self.store.read(|c| {
            if !parent.is_empty()
                && find(c, &self.snapshotter, ns, parent)?.kind != SnapshotKind::Committed
            {
                return Err(MetadataError::Invalid(format!(
                    "parent {parent:?} is not a committed snapshot"
                )));
            }
            ancestors(c, &self.snapshotter, ns, parent)
        })
    }

    /// All snapshots of a namespace, by name.
    pub(crate) fn list(&self, ns: &str) -> Result<Vec<SnapshotRow>> {
        self.store.read(|c| {
            c.prepare_cached(
                "SELECT * FROM snapshots WHERE snapshotter = ?1 AND ns = ?2 ORDER BY name",
            )
            .and_then(|mut s| s.query_map([&self.snapshotter, ns], row)?.collect())
            .map_err(attempt("list snapshots"))
        })
    }

    /// Ids of all namespaces: the directories that must stay.
    pub(crate) fn ids(&self) -> Result<std::collections::HashSet<i64>> {
        self.store.read(|c| {
            c.prepare("SELECT id FROM snapshots WHERE snapshotter = ?1")
                .and_then(|mut s| s.query_map([&self.snapshotter], |r| r.get(0))?.collect())
                .map_err(attempt("list snapshot ids"))
        })
    }

    /// The highest id in use, 0 if there is none.
    pub(crate) fn last_id(&self) -> Result<i64> {
        Ok(self.ids()?.into_iter().max().unwrap_or(0))
    }

    /// Whether `row` may become the committed snapshot `name`: asked before its files are finished.
    pub(crate) fn may_commit(&self, ns: &str, name: &str, row: &SnapshotRow) -> Result<()> {
        if row.kind != SnapshotKind::Active {
            let text = format!("snapshot {} is not active", row.name);
            return Err(MetadataError::Precondition(text));
        }
        self.store.read(|c| free(c, &self.snapshotter, ns, name))
    }

    /// Records `new`, an active snapshot or a view whose directory has been made.
    pub(crate) fn insert(
        &self,
        ns: &str,
        lease: Option<&str>,
        mut new: SnapshotRow,
    ) -> Result<SnapshotRow> {
        identifier("namespace", ns)?;
        if new.name.is_empty() {
            return Err(MetadataError::Invalid(
                "snapshot key must not be empty".into(),
            ));
        }
        new.labels = checked_labels(&new.labels)?;
        let (snapshotter, ns, lease) = (
            self.snapshotter.clone(),
            ns.to_owned(),
            lease.map(str::to_owned),
        );
        self.store.write_blocking(move |c| {
            free(c, &snapshotter, &ns, &new.name)?;
            if !new.parent.is_empty()
                && find(c, &snapshotter, &ns, &new.parent)?.kind != SnapshotKind::Committed
            {
                return Err(MetadataError::Invalid(format!(
                    "parent {:?} is not a committed snapshot",
                    new.parent
                )));
            }
            namespaces::ensure(c, &ns)?;
            leases::hold(
                c,
                &ns,
                lease.as_deref(),
                &format!("{SNAPSHOTS}{snapshotter}"),
                &new.name,
            )?;
            write_row(c, &snapshotter, &ns, &new)?;
            Ok(new)
        })
    }

    /// Turns the active snapshot `key` into the committed one `name`.
    pub(crate) fn commit(
        &self,
        ns: &str,
        lease: Option<&str>,
        name: &str,
        key: &str,
        usage: Usage,
        labels: &Labels,
    ) -> Result<()> {
        if name.is_empty() {
            return Err(MetadataError::Invalid(
                "snapshot name must not be empty".into(),
            ));
        }
        let labels = checked_labels(labels)?;
        let (snapshotter, ns, lease) = (
            self.snapshotter.clone(),
            ns.to_owned(),
            lease.map(str::to_owned),
        );
        let (name, key) = (name.to_owned(), key.to_owned());
        self.store.write_blocking(move |c| {
            let active = find(c, &snapshotter, &ns, &key)?;
            if active.kind != SnapshotKind::Active {
                return Err(MetadataError::Precondition(format!("snapshot {key} is not active")));
            }
            free(c, &snapshotter, &ns, &name)?;
            let kind = format!("{SNAPSHOTS}{snapshotter}");
            leases::forget(c, &ns, &kind, &key)?;
            leases::hold(c, &ns, lease.as_deref(), &kind, &name)?;
            c.prepare_cached(
                "UPDATE snapshots SET name = ?4, kind = ?5, labels = ?6, size = ?7, inodes = ?8, updated_at = ?9
                 WHERE snapshotter = ?1 AND ns = ?2 AND name = ?3",
            )
            .and_then(|mut s| {
                s.execute(params![
                    snapshotter,
                    ns,
                    key,
                    name,
                    SnapshotKind::Committed.number(),
                    to_json(&labels),
                    usage.size,
                    usage.inodes,
                    now()
                ])
            })
            .map_err(attempt("commit snapshot"))?;
            Ok(())
        })
    }

    /// Forgets a snapshot that no other builds on, and returns what it was.
    pub(crate) fn delete(&self, ns: &str, name: &str) -> Result<SnapshotRow> {
        let (snapshotter, ns, name) = (self.snapshotter.clone(), ns.to_owned(), name.to_owned());
        self.store.write_blocking(move |c| {
            let gone = find(c, &snapshotter, &ns, &name)?;
            let child = c
                .prepare_cached("SELECT 1 FROM snapshots WHERE snapshotter = ?1 AND ns = ?2 AND parent = ?3 LIMIT 1")
                .and_then(|mut s| s.exists([&snapshotter, &ns, &name]))
                .map_err(attempt("look for children of snapshot"))?;
            if child {
                return Err(MetadataError::Precondition(format!("cannot remove snapshot {name} with child")));
            }
            leases::forget(c, &ns, &format!("{SNAPSHOTS}{snapshotter}"), &name)?;
            c.prepare_cached("DELETE FROM snapshots WHERE snapshotter = ?1 AND ns = ?2 AND name = ?3")
                .and_then(|mut s| s.execute([&snapshotter, &ns, &name]))
                .map_err(attempt("delete snapshot"))?;
            Ok(gone)
        })
    }

    /// Changes labels by mask; all of them without one.
    pub(crate) async fn update(
        &self,
        ns: &str,
        name: &str,
        new: Labels,
        mask: Vec<String>,
    ) -> Result<SnapshotRow> {
        let (snapshotter, ns, name) = (self.snapshotter.clone(), ns.to_owned(), name.to_owned());
        self.store
            .write(move |c| {
                let mut current = find(c, &snapshotter, &ns, &name)?;
                if mask.is_empty() {
                    current.labels = new.clone();
                }
                for path in &mask {
                    if !mask_map(&mut current.labels, &new, "labels", path) {
                        return Err(bad_path(path, "snapshot", &name));
                    }
                }
                current.labels = checked_labels(&current.labels)?;
                current.updated_at = now();
                c.execute(
                    "UPDATE snapshots SET labels = ?4, updated_at = ?5 WHERE snapshotter = ?1 AND ns = ?2 AND name = ?3",
                    params![snapshotter, ns, name, to_json(&current.labels), current.updated_at],
                )
                .map_err(attempt("update snapshot"))?;
                Ok(current)
            })
            .await
    }
}
