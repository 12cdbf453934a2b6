//! Sandbox records: what a pod was asked to be. Kept as the message that came, since nothing here looks into most of it.

use proto::containerd::types::Sandbox;
use proto::prost::Message as _;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    Labels, MetadataError, Result, Store, attempt, bad_path, checked_labels, identifier, mask_map,
    namespaces,
};
use crate::time::{now, wire};

/// The sandbox records of a store.
#[derive(Debug)]
pub(crate) struct Sandboxes<'a>(&'a Store);

impl Store {
    /// The sandbox records.
    pub(crate) fn sandboxes(&self) -> Sandboxes<'_> {
        Sandboxes(self)
    }
}

/// Labels of a record.
pub(crate) fn labels(sandbox: &Sandbox) -> Labels {
    let labels = sandbox.labels.iter();
    labels.map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// A record from its bytes.
pub(crate) fn decode(bytes: &[u8]) -> rusqlite::Result<Sandbox> {
    Sandbox::decode(bytes).map_err(|e| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, Box::new(e))
    })
}

fn find(c: &Connection, ns: &str, id: &str) -> Result<Option<Sandbox>> {
    let bytes: Option<Vec<u8>> = c
        .prepare_cached("SELECT record FROM sandboxes WHERE ns = ?1 AND id = ?2")
        .and_then(|mut s| s.query_row([ns, id], |r| r.get(0)).optional())
        .map_err(attempt("read sandbox"))?;
    bytes
        .map(|bytes| decode(&bytes).map_err(attempt("decode sandbox")))
        .transpose()
}

fn put(c: &Connection, ns: &str, sandbox: &Sandbox) -> Result<()> {
    c.prepare_cached("INSERT OR REPLACE INTO sandboxes (ns, id, record) VALUES (?1, ?2, ?3)")
        .and_then(|mut s| s.execute(params![ns, sandbox.sandbox_id, sandbox.encode_to_vec()]))
        .map_err(attempt("write sandbox"))?;
    Ok(())
}

fn not_found(ns: &str, id: &str) -> MetadataError {
    MetadataError::NotFound(format!("sandbox {id:?} in namespace {ns:?}"))
}

/// Checks and cleans what a client sent.
fn checked(mut sandbox: Sandbox) -> Result<Sandbox> {
    sandbox.labels = checked_labels(&labels(&sandbox))?.into_iter().collect();
    Ok(sandbox)
}

impl Sandboxes<'_> {
    /// One record.
    pub(crate) fn get(&self, ns: &str, id: &str) -> Result<Sandbox> {
        self.0
            .read(|c| find(c, ns, id)?.ok_or_else(|| not_found(ns, id)))
    }

    /// All records of a namespace, by id.
    pub(crate) fn list(&self, ns: &str) -> Result<Vec<Sandbox>> {
        self.0.read(|c| {
            c.prepare_cached("SELECT record FROM sandboxes WHERE ns = ?1 ORDER BY id")
                .and_then(|mut s| {
                    s.query_map([ns], |r| decode(&r.get::<_, Vec<u8>>(0)?))?
                        .collect()
                })
                .map_err(attempt("list sandboxes"))
        })
    }

    /// Makes one.
    pub(crate) async fn create(&self, ns: &str, sandbox: Sandbox) -> Result<Sandbox> {
        identifier("sandbox", &sandbox.sandbox_id)?;
        identifier("namespace", ns)?;
        let mut sandbox = checked(sandbox)?;
        let ns = ns.to_owned();
        self.0
            .write(move |c| {
                let id = &sandbox.sandbox_id;
                if find(c, &ns, id)?.is_some() {
                    return Err(MetadataError::AlreadyExists(format!("sandbox {id:?}")));
                }
                namespaces::ensure(c, &ns)?;
                sandbox.created_at = wire(now());
                sandbox.updated_at = sandbox.created_at;
                put(c, &ns, &sandbox)?;
                Ok(sandbox)
            })
            .await
    }

    /// Changes the fields that the mask names; without one all that may change.
    pub(crate) async fn update(
        &self,
        ns: &str,
        new: Sandbox,
        mask: Vec<String>,
    ) -> Result<Sandbox> {
        let ns = ns.to_owned();
        self.0
            .write(move |c| {
                let id = &new.sandbox_id;
                let mut current = find(c, &ns, id)?.ok_or_else(|| not_found(&ns, id))?;
                let runtime = |s: &Sandbox| s.runtime.as_ref().map(|r| r.name.clone());
                if mask.is_empty() && runtime(&new) != runtime(&current) {
                    return Err(MetadataError::Precondition(
                        "sandbox.Runtime.Name field is immutable".into(),
                    ));
                }
                let all = ["labels", "extensions", "spec", "runtime"].map(str::to_owned);
                let paths = if mask.is_empty() { &all[..] } else { &mask[..] };
                for path in paths {
                    mask_field(&mut current, &new, path)?;
                }
                let mut current = checked(current)?;
                current.updated_at = wire(now());
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
                    .prepare_cached("DELETE FROM sandboxes WHERE ns = ?1 AND id = ?2")
                    .and_then(|mut s| s.execute([&ns, &id]))
                    .map_err(attempt("delete sandbox"))?;
                if gone == 0 {
                    return Err(not_found(&ns, &id));
                }
                Ok(())
            })
            .await
    }
}

fn mask_field(current: &mut Sandbox, new: &Sandbox, path: &str) -> Result<()> {
    let mut changed = labels(current);
    if mask_map(&mut changed, &labels(new), "labels", path) {
        current.labels = changed.into_iter().collect();
        return Ok(());
    }
    match path {
        "extensions" => current.extensions.clone_from(&new.extensions),
        "spec" => current.spec.clone_from(&new.spec),
        "runtime" => current.runtime.clone_from(&new.runtime),
        _ => {
            let Some(key) = path.strip_prefix("extensions.") else {
                return Err(bad_path(path, "sandbox", &new.sandbox_id));
            };
            match new.extensions.get(key) {
                Some(any) => current.extensions.insert(key.to_owned(), any.clone()),
                None => current.extensions.remove(key),
            };
        }
    }
    Ok(())
}
