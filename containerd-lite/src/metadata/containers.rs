//! Container records: what was asked for, no process. Spec, options and extensions are carried as they came.

use std::collections::BTreeMap;

use prost_types::Any;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    Labels, MetadataError, Result, Store, attempt, bad_path, checked_labels, from_json, identifier,
    mask_map, namespaces, to_json,
};
use crate::time::{Nanos, now};

/// A container record.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) labels: Labels,
    pub(crate) image: String,
    pub(crate) runtime: Runtime,
    pub(crate) spec: Option<Any>,
    pub(crate) snapshotter: String,
    pub(crate) snapshot_key: String,
    pub(crate) extensions: BTreeMap<String, Any>,
    pub(crate) sandbox: String,
    pub(crate) created_at: Nanos,
    pub(crate) updated_at: Nanos,
}

/// Which runtime starts it, and with which options.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Runtime {
    pub(crate) name: String,
    pub(crate) options: Option<Any>,
}

/// The container records of a store.
#[derive(Debug)]
pub(crate) struct Containers<'a>(&'a Store);

impl Store {
    /// The container records.
    pub(crate) fn containers(&self) -> Containers<'_> {
        Containers(self)
    }
}

fn any(row: &rusqlite::Row<'_>, url: &str, value: &str) -> rusqlite::Result<Option<Any>> {
    Ok(
        match (
            row.get::<_, Option<String>>(url)?,
            row.get::<_, Option<Vec<u8>>>(value)?,
        ) {
            (Some(type_url), Some(value)) => Some(Any { type_url, value }),
            _ => None,
        },
    )
}

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Container> {
    Ok(Container {
        id: row.get("id")?,
        labels: from_json(row, "labels")?,
        image: row.get("image")?,
        runtime: Runtime {
            name: row.get("runtime")?,
            options: any(row, "options_url", "options")?,
        },
        spec: any(row, "spec_url", "spec")?,
        snapshotter: row.get("snapshotter")?,
        snapshot_key: row.get("snapshot_key")?,
        extensions: BTreeMap::new(),
        sandbox: row.get("sandbox")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

fn find(c: &Connection, ns: &str, id: &str) -> Result<Container> {
    let mut container = c
        .prepare_cached("SELECT * FROM containers WHERE ns = ?1 AND id = ?2")
        .and_then(|mut s| s.query_row([ns, id], row).optional())
        .map_err(attempt("read container"))?
        .ok_or_else(|| MetadataError::NotFound(format!("container {id:?} in namespace {ns:?}")))?;
    container.extensions = c
        .prepare_cached("SELECT name, url, value FROM extensions WHERE ns = ?1 AND container = ?2")
        .and_then(|mut s| {
            s.query_map([ns, id], |r| {
                Ok((
                    r.get(0)?,
                    Any {
                        type_url: r.get(1)?,
                        value: r.get(2)?,
                    },
                ))
            })?
            .collect()
        })
        .map_err(attempt("read extensions"))?;
    Ok(container)
}

fn put(c: &Connection, ns: &str, k: &Container) -> Result<()> {
    let url = |a: &Option<Any>| a.as_ref().map(|a| a.type_url.clone());
    let value = |a: &Option<Any>| a.as_ref().map(|a| a.value.clone());
    c.prepare_cached(
        "INSERT INTO containers (ns, id, image, runtime, options_url, options, spec_url, spec, snapshotter, snapshot_key,
           sandbox, labels, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
         ON CONFLICT (ns, id) DO UPDATE SET image = excluded.image, runtime = excluded.runtime,
           options_url = excluded.options_url, options = excluded.options, spec_url = excluded.spec_url,
           spec = excluded.spec, snapshotter = excluded.snapshotter, snapshot_key = excluded.snapshot_key,
           sandbox = excluded.sandbox, labels = excluded.labels, updated_at = excluded.updated_at",
    )
    .and_then(|mut s| {
        s.execute(params![
            ns,
            k.id,
            k.image,
            k.runtime.name,
            url(&k.runtime.options),
            value(&k.runtime.options),
            url(&k.spec),
            value(&k.spec),
            k.snapshotter,
            k.snapshot_key,
            k.sandbox,
            to_json(&k.labels),
            k.created_at,
            k.updated_at
        ])
    })
    .map_err(attempt("write container"))?;
    drop_extensions(c, ns, &k.id)?;
    for (name, any) in &k.extensions {
        c.prepare_cached(
            "INSERT INTO extensions (ns, container, name, url, value) VALUES (?1, ?2, ?3, ?4, ?5)",
        )
        .and_then(|mut s| s.execute(params![ns, k.id, name, any.type_url, any.value]))
        .map_err(attempt("write extension"))?;
    }
    Ok(())
}

fn drop_extensions(c: &Connection, ns: &str, id: &str) -> Result<()> {
    c.prepare_cached("DELETE FROM extensions WHERE ns = ?1 AND container = ?2")
        .and_then(|mut s| s.execute([ns, id]))
        .map_err(attempt("delete extensions"))?;
    Ok(())
}

impl Containers<'_> {
    /// One record.
    pub(crate) fn get(&self, ns: &str, id: &str) -> Result<Container> {
        self.0.read(|c| find(c, ns, id))
    }

    /// All records of a namespace, by id.
    pub(crate) fn list(&self, ns: &str) -> Result<Vec<Container>> {
        self.0.read(|c| {
            let mut all: Vec<Container> = c
                .prepare_cached("SELECT * FROM containers WHERE ns = ?1 ORDER BY id")
                .and_then(|mut s| s.query_map([ns], row)?.collect())
                .map_err(attempt("list containers"))?;
            let mut extensions = BTreeMap::<String, BTreeMap<String, Any>>::new();
            let mut statement = c
                .prepare_cached("SELECT container, name, url, value FROM extensions WHERE ns = ?1")
                .map_err(attempt("list extensions"))?;
            let mut rows = statement.query([ns]).map_err(attempt("list extensions"))?;
            while let Some(r) = rows.next().map_err(attempt("list extensions"))? {
                let mut take = || -> rusqlite::Result<()> {
                    let any = Any {
                        type_url: r.get(2)?,
                        value: r.get(3)?,
                    };
                    extensions
                        .entry(r.get(0)?)
                        .or_default()
                        .insert(r.get(1)?, any);
                    Ok(())
                };
                take().map_err(attempt("list extensions"))?;
            }
            for container in &mut all {
                container.extensions = extensions.remove(&container.id).unwrap_or_default();
            }
            Ok(all)
        })
    }

    /// How many there are in all namespaces.
    pub(crate) fn count(&self) -> Result<u64> {
        self.0.read(|c| {
            c.query_row("SELECT count(*) FROM containers", [], |r| {
                r.get::<_, i64>(0)
            })
            .map(i64::unsigned_abs)
            .map_err(attempt("count containers"))
        })
    }

    /// Makes one.
    pub(crate) async fn create(&self, ns: &str, mut container: Container) -> Result<Container> {
        identifier("container", &container.id)?;
        identifier("namespace", ns)?;
        container.labels = checked_labels(&container.labels)?;
        if container.runtime.name.is_empty() {
            return Err(MetadataError::Invalid(
                "container.Runtime.Name must be set".into(),
            ));
        }
        if container.spec.is_none() {
            return Err(MetadataError::Invalid("container.Spec must be set".into()));
        }
        if !container.snapshot_key.is_empty() && container.snapshotter.is_empty() {
            return Err(MetadataError::Invalid(
                "container.Snapshotter must be set if container.SnapshotKey is set".into(),
            ));
        }
        let ns = ns.to_owned();
        self.0
            .write(move |c| {
                match find(c, &ns, &container.id) {
                    Ok(_) => {
                        return Err(MetadataError::AlreadyExists(format!(
                            "container {:?}",
                            container.id
                        )));
                    }
                    Err(MetadataError::NotFound(_)) => {}
                    Err(error) => return Err(error),
                }
                namespaces::ensure(c, &ns)?;
                container.created_at = now();
                container.updated_at = container.created_at;
                put(c, &ns, &container)?;
                Ok(container)
            })
            .await
    }

    /// Changes the fields that the mask names; without one all that may change.
    pub(crate) async fn update(
        &self,
        ns: &str,
        new: Container,
        mask: Vec<String>,
    ) -> Result<Container> {
        let ns = ns.to_owned();
        self.0
            .write(move |c| {
                let mut current = find(c, &ns, &new.id)?;
                if mask.is_empty() {
                    if !new.snapshotter.is_empty() && new.snapshotter != current.snapshotter {
                        return Err(MetadataError::Invalid(
                            "container.Snapshotter field is immutable".into(),
                        ));
                    }
                    if !new.runtime.name.is_empty() && new.runtime.name != current.runtime.name {
                        return Err(MetadataError::Invalid(
                            "container.Runtime.Name field is immutable".into(),
                        ));
                    }
                    current = Container {
                        created_at: current.created_at,
                        snapshotter: current.snapshotter,
                        runtime: if new.runtime.name.is_empty() {
                            current.runtime
                        } else {
                            new.runtime
                        },
                        sandbox: current.sandbox,
                        ..new
                    };
                } else {
                    for path in &mask {
                        mask_field(&mut current, &new, path)?;
                    }
                }
                current.labels = checked_labels(&current.labels)?;
                current.updated_at = now();
                put(c, &ns, &current)?;
                Ok(current)
            })
            .await
    }

    /// Removes one.
    pub(crate) async fn delete(&self, ns: &str, id: &str) -> Result<()> {
        let (ns, id) = (ns.to_owned(), id.to_owned());
        self.0
            .write(move |c| {
                let gone = c
                    .prepare_cached("DELETE FROM containers WHERE ns = ?1 AND id = ?2")
                    .and_then(|mut s| s.execute([&ns, &id]))
                    .map_err(attempt("delete container"))?;
                if gone == 0 {
                    return Err(MetadataError::NotFound(format!(
                        "container {id:?} in namespace {ns:?}"
                    )));
                }
                drop_extensions(c, &ns, &id)
            })
            .await
    }
}

fn mask_field(current: &mut Container, new: &Container, path: &str) -> Result<()> {
    if mask_map(&mut current.labels, &new.labels, "labels", path) {
        return Ok(());
    }
    match path {
        "image" => current.image.clone_from(&new.image),
        "spec" => current.spec.clone_from(&new.spec),
        "runtime" => current.runtime.clone_from(&new.runtime),
        "snapshotkey" | "snapshot_key" => current.snapshot_key.clone_from(&new.snapshot_key),
        "extensions" => current.extensions.clone_from(&new.extensions),
        _ => match path.strip_prefix("extensions.") {
            None => return Err(bad_path(path, "container", &new.id)),
            Some(key) => match new.extensions.get(key) {
                Some(any) => {
                    current.extensions.insert(key.to_owned(), any.clone());
                }
                None => {
                    current.extensions.remove(key);
                }
            },
        },
    }
    Ok(())
}
