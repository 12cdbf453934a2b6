//! Namespaces: they come to be with the first object in them, and go only when empty.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    Labels, MetadataError, Result, Store, attempt, bad_path, checked_labels, from_json, identifier,
    mask_map, to_json,
};

/// A namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Namespace {
    pub(crate) name: String,
    pub(crate) labels: Labels,
}

/// The namespaces of a store.
#[derive(Debug)]
pub(crate) struct Namespaces<'a>(&'a Store);

impl Store {
    /// The namespaces.
    pub(crate) fn namespaces(&self) -> Namespaces<'_> {
        Namespaces(self)
    }
}

/// Makes the namespace unless it is there; part of every job that makes an object in it.
pub(super) fn ensure(c: &Connection, ns: &str) -> Result<()> {
    c.prepare_cached("INSERT INTO namespaces (ns) VALUES (?1) ON CONFLICT DO NOTHING")
        .and_then(|mut s| s.execute([ns]))
        .map_err(attempt("make namespace"))?;
    Ok(())
}

fn find(c: &Connection, name: &str) -> Result<Option<Namespace>> {
    c.query_row(
        "SELECT ns, labels FROM namespaces WHERE ns = ?1",
        [name],
        row,
    )
    .optional()
    .map_err(attempt("read namespace"))
}

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Namespace> {
    Ok(Namespace {
        name: row.get("ns")?,
        labels: from_json(row, "labels")?,
    })
}

fn not_found(name: &str) -> MetadataError {
    MetadataError::NotFound(format!("namespace {name:?}"))
}

impl Namespaces<'_> {
    /// One namespace; an unknown one has no labels, as with the real daemon.
    pub(crate) fn get(&self, name: &str) -> Result<Namespace> {
        let found = self.0.read(|c| find(c, name))?;
        Ok(found.unwrap_or_else(|| Namespace {
            name: name.to_owned(),
            labels: Labels::new(),
        }))
    }

    /// All of them, by name.
    pub(crate) fn list(&self) -> Result<Vec<Namespace>> {
        self.0.read(|c| {
            c.prepare("SELECT ns, labels FROM namespaces ORDER BY ns")
                .and_then(|mut s| s.query_map([], row)?.collect())
                .map_err(attempt("list namespaces"))
        })
    }

    /// Makes one.
    pub(crate) async fn create(&self, namespace: Namespace) -> Result<Namespace> {
        identifier("namespace", &namespace.name)?;
        let labels = checked_labels(&namespace.labels)?;
        self.0
            .write(move |c| {
                if find(c, &namespace.name)?.is_some() {
                    return Err(MetadataError::AlreadyExists(format!(
                        "namespace {:?}",
                        namespace.name
                    )));
                }
                c.execute(
                    "INSERT INTO namespaces (ns, labels) VALUES (?1, ?2)",
                    params![namespace.name, to_json(&labels)],
                )
                .map_err(attempt("make namespace"))?;
                Ok(Namespace {
                    name: namespace.name,
                    labels,
                })
            })
            .await
    }

    /// Changes labels by mask; all of them without one.
    pub(crate) async fn update(&self, new: Namespace, mask: Vec<String>) -> Result<Namespace> {
        self.0
            .write(move |c| {
                let mut current = find(c, &new.name)?.ok_or_else(|| not_found(&new.name))?;
                if mask.is_empty() {
                    current.labels = new.labels.clone();
                }
                for path in &mask {
                    if !mask_map(&mut current.labels, &new.labels, "labels", path) {
                        return Err(bad_path(path, "namespace", &new.name));
                    }
                }
                current.labels = checked_labels(&current.labels)?;
                c.execute(
                    "UPDATE namespaces SET labels = ?2 WHERE ns = ?1",
                    params![current.name, to_json(&current.labels)],
                )
                .map_err(attempt("update namespace"))?;
                Ok(current)
            })
            .await
    }

    /// Removes an empty one.
    pub(crate) async fn delete(&self, name: String) -> Result<()> {
        self.0
            .write(move |c| {
                find(c, &name)?.ok_or_else(|| not_found(&name))?;
                let mut left = Vec::new();
                for (table, what) in [
                    ("images", "images"),
                    ("content", "blobs"),
                    ("containers", "containers"),
                    ("sandboxes", "sandboxes"),
                    ("snapshots", "snapshots"),
                ] {
                    let some: Option<i64> = c
                        .query_row(
                            &format!("SELECT 1 FROM {table} WHERE ns = ?1 LIMIT 1"),
                            [&name],
                            |r| r.get(0),
                        )
                        .optional()
                        .map_err(attempt("look for objects of namespace"))?;
                    if some.is_some() {
                        left.push(what);
                    }
                }
                if !left.is_empty() {
                    return Err(MetadataError::Precondition(format!(
                        "namespace {name:?} must be empty, but it still has {}",
                        left.join(", ")
                    )));
                }
                for table in [
                    "namespaces",
                    "leases",
                    "lease_resources",
                    "ingests",
                    "exits",
                ] {
                    c.execute(&format!("DELETE FROM {table} WHERE ns = ?1"), [&name])
                        .map_err(attempt("delete namespace"))?;
                }
                Ok(())
            })
            .await
    }
}
