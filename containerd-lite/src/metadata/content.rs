//! What is known of blobs and ingests; their bytes are `crate::content`'s.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::leases::{CONTENT, INGEST};
use super::{
    Labels, MetadataError, Result, Store, attempt, bad_path, checked_labels, from_json, leases,
    mask_map, namespaces, to_json,
};
use crate::time::{Nanos, now};

/// How long an ingest without a lease is kept.
const INGEST_LIFE: Nanos = 24 * 3600 * 1_000_000_000;

/// A blob as one namespace sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) digest: String,
    pub(crate) size: i64,
    pub(crate) labels: Labels,
    pub(crate) created_at: Nanos,
    pub(crate) updated_at: Nanos,
}

/// An unfinished write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct IngestRow {
    pub(crate) reference: String,
    /// Its directory below `ingest/`.
    pub(crate) folder: String,
    pub(crate) total: i64,
    pub(crate) expected: String,
    pub(crate) started_at: Nanos,
    pub(crate) updated_at: Nanos,
}

/// Blobs and ingests of a store.
#[derive(Debug)]
pub(crate) struct Content<'a>(&'a Store);

impl Store {
    /// Blobs and ingests.
    pub(crate) fn content(&self) -> Content<'_> {
        Content(self)
    }
}

fn blob(row: &rusqlite::Row<'_>) -> rusqlite::Result<Blob> {
    Ok(Blob {
        digest: row.get("digest")?,
        size: row.get("size")?,
        labels: from_json(row, "labels")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

fn ingest(row: &rusqlite::Row<'_>) -> rusqlite::Result<IngestRow> {
    Ok(IngestRow {
        reference: row.get("ref")?,
        folder: row.get("folder")?,
        total: row.get("total")?,
        expected: row.get("expected")?,
        started_at: row.get("started_at")?,
        updated_at: row.get("updated_at")?,
    })
}

fn find(c: &Connection, ns: &str, digest: &str) -> Result<Option<Blob>> {
    c.prepare_cached("SELECT * FROM content WHERE digest = ?1 AND ns = ?2")
        .and_then(|mut s| s.query_row([digest, ns], blob).optional())
        .map_err(attempt("read content"))
}

fn not_found(digest: &str) -> MetadataError {
    MetadataError::NotFound(format!("content digest {digest}"))
}

fn delete_ingest(c: &Connection, ns: &str, reference: &str) -> Result<usize> {
    leases::forget(c, ns, INGEST, reference)?;
    c.prepare_cached("DELETE FROM ingests WHERE ns = ?1 AND ref = ?2")
        .and_then(|mut s| s.execute([ns, reference]))
        .map_err(attempt("delete ingest"))
}

impl Content<'_> {
    /// One blob, if the namespace sees it.
    pub(crate) fn get(&self, ns: &str, digest: &str) -> Result<Blob> {
        self.0
            .read(|c| find(c, ns, digest))?
            .ok_or_else(|| not_found(digest))
    }

    /// Calls `each` with every blob that the namespace sees, by digest, without holding them all.
    pub(crate) fn for_each(&self, ns: &str, mut each: impl FnMut(Blob)) -> Result<()> {
        self.0.read(|c| {
            let mut walk = || -> rusqlite::Result<()> {
                let mut statement =
                    c.prepare_cached("SELECT * FROM content WHERE ns = ?1 ORDER BY digest")?;
                let mut rows = statement.query([ns])?;
                while let Some(row) = rows.next()? {
                    each(blob(row)?);
                }
                Ok(())
            };
            walk().map_err(attempt("list content"))
        })
    }

    /// Size of a blob that any namespace sees.
    pub(crate) fn size_anywhere(&self, digest: &str) -> Result<Option<i64>> {
        self.0.read(|c| {
            c.prepare_cached("SELECT size FROM content WHERE digest = ?1 LIMIT 1")
                .and_then(|mut s| s.query_row([digest], |r| r.get(0)).optional())
                .map_err(attempt("read content"))
        })
    }

    /// Makes a stored blob visible, ends its ingest, and lets the lease hold it: one job. The caller holds the sweep off.
    pub(crate) fn publish(
        &self,
        ns: &str,
        reference: Option<&str>,
        lease: Option<&str>,
        digest: &str,
        size: i64,
        labels: &Labels,
    ) -> Result<Blob> {
        let labels = checked_labels(labels)?;
        let exists = MetadataError::AlreadyExists(format!("content {digest}"));
        let (ns, digest) = (ns.to_owned(), digest.to_owned());
        let (reference, lease) = (reference.map(str::to_owned), lease.map(str::to_owned));
        let published = self.0.write_blocking(move |c| {
            namespaces::ensure(c, &ns)?;
            if let Some(reference) = &reference {
                delete_ingest(c, &ns, reference)?;
            }
            leases::hold(c, &ns, lease.as_deref(), CONTENT, &digest)?;
            if find(c, &ns, &digest)?.is_some() {
                return Ok(None);
            }
            let now = now();
            let blob = Blob { digest, size, labels, created_at: now, updated_at: now };
            c.prepare_cached(
                "INSERT INTO content (ns, digest, size, labels, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )
            .and_then(|mut s| {
                s.execute(params![ns, blob.digest, blob.size, to_json(&blob.labels), blob.created_at, blob.updated_at])
            })
            .map_err(attempt("write content"))?;
            Ok(Some(blob))
        })?;
        // The job itself must not fail on this: the lease and the end of the ingest have to stay.
        published.ok_or(exists)
    }

    /// Changes labels by mask; all of them without one.
    pub(crate) async fn update(&self, ns: &str, new: Blob, mask: Vec<String>) -> Result<Blob> {
        let ns = ns.to_owned();
        self.0
            .write(move |c| {
                let mut current =
                    find(c, &ns, &new.digest)?.ok_or_else(|| not_found(&new.digest))?;
                if mask.is_empty() {
                    current.labels = new.labels.clone();
                }
                for path in &mask {
                    if !mask_map(&mut current.labels, &new.labels, "labels", path) {
                        return Err(bad_path(path, "content", &new.digest));
                    }
                }
                current.labels = checked_labels(&current.labels)?;
                current.updated_at = now();
                c.prepare_cached(
                    "UPDATE content SET labels = ?3, updated_at = ?4 WHERE digest = ?1 AND ns = ?2",
                )
                .and_then(|mut s| {
                    s.execute(params![
                        current.digest,
                        ns,
                        to_json(&current.labels),
                        current.updated_at
                    ])
                })
                .map_err(attempt("update content"))?;
                Ok(current)
            })
            .await
    }

    /// Hides a blob from the namespace; the bytes go with the next collection if nobody else sees them.
    pub(crate) async fn delete(&self, ns: &str, digest: &str) -> Result<()> {
        let (ns, digest) = (ns.to_owned(), digest.to_owned());
        self.0
            .write(move |c| {
                leases::forget(c, &ns, CONTENT, &digest)?;
                let gone = c
                    .execute(
                        "DELETE FROM content WHERE digest = ?1 AND ns = ?2",
                        [&digest, &ns],
                    )
                    .map_err(attempt("delete content"))?;
                if gone == 0 {
                    Err(not_found(&digest))
                } else {
                    Ok(())
                }
            })
            .await
    }

    /// One ingest.
    pub(crate) fn ingest(&self, ns: &str, reference: &str) -> Result<Option<IngestRow>> {
        self.0.read(|c| {
            c.prepare_cached("SELECT * FROM ingests WHERE ns = ?1 AND ref = ?2")
                .and_then(|mut s| s.query_row([ns, reference], ingest).optional())
                .map_err(attempt("read ingest"))
        })
    }

    /// All ingests of a namespace.
    pub(crate) fn ingests(&self, ns: &str) -> Result<Vec<IngestRow>> {
        self.0.read(|c| {
            c.prepare_cached("SELECT * FROM ingests WHERE ns = ?1 ORDER BY ref")
                .and_then(|mut s| s.query_map([ns], ingest)?.collect())
                .map_err(attempt("list ingests"))
        })
    }

    /// Records an ingest, held by the lease or for a day.
    pub(crate) fn open_ingest(&self, ns: &str, lease: Option<&str>, row: IngestRow) -> Result<()> {
        let (ns, lease) = (ns.to_owned(), lease.map(str::to_owned));
        self.0.write_blocking(move |c| {
            namespaces::ensure(c, &ns)?;
            leases::hold(c, &ns, lease.as_deref(), INGEST, &row.reference)?;
            let expires_at = lease.is_none().then(|| row.started_at.saturating_add(INGEST_LIFE));
            c.prepare_cached(
                "INSERT INTO ingests (ns, ref, folder, total, expected, started_at, updated_at, expires_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                 ON CONFLICT (ns, ref) DO UPDATE SET total = excluded.total, expected = excluded.expected,
                   updated_at = excluded.updated_at, expires_at = excluded.expires_at",
            )
            .and_then(|mut s| {
                s.execute(params![
                    ns,
                    row.reference,
                    row.folder,
                    row.total,
                    row.expected,
                    row.started_at,
                    row.updated_at,
                    expires_at
                ])
            })
            .map_err(attempt("write ingest"))?;
            Ok(())
        })
    }

    /// Forgets an ingest; false if there was none.
    pub(crate) fn drop_ingest(&self, ns: &str, reference: &str) -> Result<bool> {
        let (ns, reference) = (ns.to_owned(), reference.to_owned());
        self.0
            .write_blocking(move |c| Ok(delete_ingest(c, &ns, &reference)? > 0))
    }

    /// Digests that any namespace sees, and directories of ingests: what must stay on disk.
    pub(crate) fn kept(
        &self,
    ) -> Result<(
        std::collections::HashSet<String>,
        std::collections::HashSet<String>,
    )> {
        self.0.read(|c| {
            let column = |sql: &str| {
                c.prepare(sql)
                    .and_then(|mut s| s.query_map([], |r| r.get(0))?.collect())
                    .map_err(attempt("list what is kept"))
            };
            Ok((
                column("SELECT DISTINCT digest FROM content")?,
                column("SELECT folder FROM ingests")?,
            ))
        })
    }
}
