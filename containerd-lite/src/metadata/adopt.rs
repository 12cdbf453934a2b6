//! What is still on the disk when the database had to be begun anew: it goes into a namespace of its own, with a label that
//! keeps it, instead of being swept as garbage. Running containers keep their file systems, blobs need not be fetched again
//! (a blob that one namespace has, others get without its bytes), and what is no longer wanted is removed from there by hand.
//!
//! The damaged file's name says when that was. The adoption notes the same in the new database, in the job that does it, so a
//! kill in between only means that the next start does it.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Result, Store, attempt, namespaces};
use crate::content::Digest;
use crate::time::now;

/// The namespace of what was found.
const NAMESPACE: &str = "recovered";
/// Labels of it.
const KEPT: &str = r#"{"containerd.io/gc.root":"recovered"}"#;

/// What is on the disk.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Digests and sizes.
    pub(crate) blobs: Vec<(String, i64)>,
    /// Snapshotters and the numbers of their directories.
    pub(crate) snapshots: Vec<(String, i64)>,
}

impl Found {
    /// Looks below the folder of blobs, and in those of the snapshotters.
    pub(crate) fn look(blobs: &Path, snapshotters: &[(&str, PathBuf)]) -> Self {
        let mut found = Self::default();
        for entry in entries(&blobs.join("blobs/sha256")) {
            let digest = Digest::parse(&format!("sha256:{}", entry.file_name().display()));
            if let (Ok(digest), Ok(meta)) = (digest, entry.metadata()) {
                let size = i64::try_from(meta.len()).unwrap_or(i64::MAX);
                found.blobs.push((digest.to_string(), size));
            }
        }
        for (name, folder) in snapshotters {
            for entry in entries(&folder.join("snapshots")) {
                let number = entry.file_name().to_str().and_then(|n| n.parse().ok());
                found
                    .snapshots
                    .extend(number.map(|number| ((*name).to_owned(), number)));
            }
        }
        found
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = std::fs::DirEntry> {
    std::fs::read_dir(folder).into_iter().flatten().flatten()
}

/// When the newest damaged database beside `path` was set aside; 0 if none was.
fn damaged(path: &Path) -> i64 {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return 0;
    };
    let prefix = format!("{}.corrupt-", name.display());
    entries(folder)
        .filter_map(|entry| {
            let name = entry.file_name();
            name.to_str()?.strip_prefix(&prefix)?.parse().ok()
        })
        .max()
        .unwrap_or(0)
}

impl Store {
    /// Takes over what is on the disk if the database at `path` was begun anew after damage, once.
    pub(crate) async fn adopt_after_damage(
        &self,
        path: &Path,
        look: impl FnOnce() -> Found + Send,
    ) -> Result<()> {
        let when = damaged(path);
        if when == 0 || self.read(adopted)? >= when {
            return Ok(());
        }
        let found = look();
        let (blobs, snapshots) = (found.blobs.len(), found.snapshots.len());
        self.write(move |c| {
            namespaces::ensure(c, NAMESPACE)?;
            adopt(c, &found).map_err(attempt("adopt what is on the disk"))?;
            c.execute(
                "INSERT OR REPLACE INTO meta VALUES ('adopted', ?1)",
                [when.to_string()],
            )
            .map_err(attempt("note the adoption"))?;
            Ok(())
        })
        .await?;
        tracing::warn!(
            blobs,
            snapshots,
            "the database was damaged: what is on the disk is in namespace {NAMESPACE:?} now"
        );
        Ok(())
    }
}

fn adopted(c: &Connection) -> Result<i64> {
    let value: Option<String> = c
        .query_row("SELECT value FROM meta WHERE key = 'adopted'", [], |r| {
            r.get(0)
        })
        .optional()
        .map_err(attempt("read the adoption"))?;
    Ok(value.and_then(|value| value.parse().ok()).unwrap_or(0))
}

/// Rows for what has none in any namespace.
fn adopt(c: &Connection, found: &Found) -> rusqlite::Result<()> {
    let mut blob = c.prepare(
        "INSERT INTO content (ns, digest, size, labels, created_at, updated_at)
         SELECT ?1, ?2, ?3, ?4, ?5, ?5 WHERE NOT EXISTS (SELECT 1 FROM content WHERE digest = ?2)",
    )?;
    for (digest, size) in &found.blobs {
        blob.execute(params![NAMESPACE, digest, size, KEPT, now()])?;
    }
    // As committed ones, so that they can be looked at and nobody writes to them; whose parents they had is not known.
    let mut snapshot = c.prepare(
        "INSERT INTO snapshots (snapshotter, ns, name, id, parent, kind, labels, created_at, updated_at)
         SELECT ?1, ?2, ?3, ?4, '', 3, ?5, ?6, ?6
         WHERE NOT EXISTS (SELECT 1 FROM snapshots WHERE snapshotter = ?1 AND id = ?4)",
    )?;
    for (snapshotter, id) in &found.snapshots {
        let name = id.to_string();
        snapshot.execute(params![snapshotter, NAMESPACE, name, id, KEPT, now()])?;
    }
    Ok(())
}
