//! Leases: what holds resources that nothing refers to yet.

use rusqlite::{Connection, params};

use super::{
    Labels, MetadataError, Result, Store, attempt, checked_labels, from_json, identifier,
    namespaces, to_json,
};
use crate::time::{Nanos, now};

/// Resource type of blobs.
pub(crate) const CONTENT: &str = "content";
/// Resource type of ingests.
pub(crate) const INGEST: &str = "ingests";
/// Resource type of images.
pub(crate) const IMAGE: &str = "images";
/// Resource type of snapshots, before the slash and the snapshotter's name.
pub(crate) const SNAPSHOTS: &str = "snapshots/";

/// Longest id of a lease in bytes.
const MAX_ID: usize = 256;

/// A lease.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) id: String,
    pub(crate) labels: Labels,
    pub(crate) created_at: Nanos,
}

/// What a lease holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Resource {
    /// `content`, `ingests`, `images` or `snapshots/NAME`.
    pub(crate) kind: String,
    pub(crate) id: String,
}

/// The leases of a store.
#[derive(Debug)]
pub(crate) struct Leases<'a>(&'a Store);

impl Store {
    /// The leases.
    pub(crate) fn leases(&self) -> Leases<'_> {
        Leases(self)
    }
}

fn not_found(id: &str) -> MetadataError {
    MetadataError::NotFound(format!("lease {id:?}"))
}

fn exists(c: &Connection, ns: &str, id: &str) -> Result<bool> {
    c.prepare_cached("SELECT 1 FROM leases WHERE ns = ?1 AND id = ?2")
        .and_then(|mut s| s.exists([ns, id]))
        .map_err(attempt("read lease"))
}

/// Lets the lease of a request, if there is one, hold a resource; part of the job that makes the resource.
pub(super) fn hold(
    c: &Connection,
    ns: &str,
    lease: Option<&str>,
    kind: &str,
    id: &str,
) -> Result<()> {
    let Some(lease) = lease else { return Ok(()) };
    if !exists(c, ns, lease)? {
        return Err(not_found(lease));
    }
    c.prepare_cached("INSERT INTO lease_resources (ns, lease, type, id) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING")
        .and_then(|mut s| s.execute([ns, lease, kind, id]))
        .map_err(attempt("add resource to lease"))?;
    Ok(())
}

/// Takes a resource that is gone out of every lease of the namespace.
pub(super) fn forget(c: &Connection, ns: &str, kind: &str, id: &str) -> Result<()> {
    c.prepare_cached("DELETE FROM lease_resources WHERE ns = ?1 AND type = ?2 AND id = ?3")
        .and_then(|mut s| s.execute([ns, kind, id]))
        .map_err(attempt("remove resource from leases"))?;
    Ok(())
}

fn check(resource: &Resource) -> Result<()> {
    let known = matches!(resource.kind.as_str(), CONTENT | INGEST | IMAGE)
        || resource
            .kind
            .strip_prefix(SNAPSHOTS)
            .is_some_and(|name| !name.is_empty() && !name.contains('/'));
    if !known {
        return Err(MetadataError::Invalid(format!(
            "lease resource type {:?} is unknown",
            resource.kind
        )));
    }
    if resource.id.is_empty() {
        return Err(MetadataError::Invalid(
            "lease resource id must not be empty".into(),
        ));
    }
    if resource.kind == CONTENT {
        crate::content::Digest::parse(&resource.id)
            .map_err(|e| MetadataError::Invalid(e.to_string()))?;
    }
    Ok(())
}

impl Leases<'_> {
    /// Makes one.
    pub(crate) async fn create(&self, ns: &str, id: &str, labels: Labels) -> Result<Lease> {
        // Free text, as with the real daemon: clients make ids such as `611-_WBp`.
        if id.is_empty() || id.len() > MAX_ID {
            return Err(MetadataError::Invalid(format!(
                "lease id must have 1 to {MAX_ID} bytes"
            )));
        }
        identifier("namespace", ns)?;
        let labels = checked_labels(&labels)?;
        let (ns, id) = (ns.to_owned(), id.to_owned());
        self.0
            .write(move |c| {
                if exists(c, &ns, &id)? {
                    return Err(MetadataError::AlreadyExists(format!("lease {id:?}")));
                }
                namespaces::ensure(c, &ns)?;
                let lease = Lease {
                    id,
                    labels,
                    created_at: now(),
                };
                c.execute(
                    "INSERT INTO leases (ns, id, labels, created_at) VALUES (?1, ?2, ?3, ?4)",
                    params![ns, lease.id, to_json(&lease.labels), lease.created_at],
                )
                .map_err(attempt("write lease"))?;
                Ok(lease)
            })
            .await
    }

    /// Removes one; what only it held goes with the next collection.
    pub(crate) async fn delete(&self, ns: &str, id: &str) -> Result<()> {
        let (ns, id) = (ns.to_owned(), id.to_owned());
        self.0
            .write(move |c| {
                c.execute(
                    "DELETE FROM lease_resources WHERE ns = ?1 AND lease = ?2",
                    [&ns, &id],
                )
                .map_err(attempt("delete resources of lease"))?;
                let gone = c
                    .execute("DELETE FROM leases WHERE ns = ?1 AND id = ?2", [&ns, &id])
                    .map_err(attempt("delete lease"))?;
                if gone == 0 {
                    Err(not_found(&id))
                } else {
                    Ok(())
                }
            })
            .await
    }

    /// All leases of a namespace, by id.
    pub(crate) fn list(&self, ns: &str) -> Result<Vec<Lease>> {
        let row = |r: &rusqlite::Row<'_>| {
            Ok(Lease {
                id: r.get("id")?,
                labels: from_json(r, "labels")?,
                created_at: r.get("created_at")?,
            })
        };
        self.0.read(|c| {
            c.prepare_cached("SELECT * FROM leases WHERE ns = ?1 ORDER BY id")
                .and_then(|mut s| s.query_map([ns], row)?.collect())
                .map_err(attempt("list leases"))
        })
    }

    /// Adds a resource to a lease.
    pub(crate) async fn add(&self, ns: &str, lease: &str, resource: Resource) -> Result<()> {
        check(&resource)?;
        let (ns, lease) = (ns.to_owned(), lease.to_owned());
        self.0
            .write(move |c| hold(c, &ns, Some(&lease), &resource.kind, &resource.id))
            .await
    }

    /// Takes a resource out of a lease; none there is no error.
    pub(crate) async fn remove(&self, ns: &str, lease: &str, resource: Resource) -> Result<()> {
        check(&resource)?;
        let (ns, lease) = (ns.to_owned(), lease.to_owned());
        self.0
            .write(move |c| {
                if !exists(c, &ns, &lease)? {
                    return Err(not_found(&lease));
                }
                c.execute(
                    "DELETE FROM lease_resources WHERE ns = ?1 AND lease = ?2 AND type = ?3 AND id = ?4",
                    [&ns, &lease, &resource.kind, &resource.id],
                )
                .map_err(attempt("remove resource from lease"))?;
                Ok(())
            })
            .await
    }

    /// What a lease holds.
    pub(crate) fn resources(&self, ns: &str, lease: &str) -> Result<Vec<Resource>> {
        self.0.read(|c| {
            if !exists(c, ns, lease)? {
                return Err(not_found(lease));
            }
            c.prepare_cached("SELECT type, id FROM lease_resources WHERE ns = ?1 AND lease = ?2 ORDER BY type, id")
                .and_then(|mut s| {
                    s.query_map([ns, lease], |r| Ok(Resource { kind: r.get(0)?, id: r.get(1)? }))?.collect()
                })
                .map_err(attempt("list resources of lease"))
        })
    }
}

/// Whether a lease is there; a request that names a missing one fails before it does any work.
pub(crate) fn required(store: &Store, ns: &str, lease: Option<&str>) -> Result<()> {
    match lease {
        None => Ok(()),
        Some(id) => store.read(|c| {
            if exists(c, ns, id)? {
                Ok(())
            } else {
                Err(not_found(id))
            }
        }),
    }
}
