//! The rows of the database as a graph, and the deletion of what was not reached. Runs inside one job of the writer.
//!
//! Every object has a node. An object that a flat lease holds has a second one, which follows only what is part of the
//! object itself (the parent of a snapshot, the target of an image), not labels.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, Row, params};

use super::mark::Graph;
use crate::metadata::leases::{CONTENT, IMAGE, INGEST, SNAPSHOTS};
use crate::metadata::{Labels, MetadataError, attempt, sandboxes};
use crate::time::{Nanos, from_rfc3339};

const ROOT: &str = "containerd.io/gc.root";
const EXPIRE: &str = "containerd.io/gc.expire";
const FLAT: &str = "containerd.io/gc.flat";
const REFERENCE: &str = "containerd.io/gc.ref.";
const BACK: &str = "containerd.io/gc.bref.";

/// What a node stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Content(String, String),
    Ingest(String, String),
    Image(String, String),
    /// Snapshotter, namespace, name.
    Snapshot(String, String, String),
    Container(String, String),
    Sandbox(String, String),
}

#[derive(Debug, Default)]
struct Builder {
    graph: Graph,
    /// Node and flat node.
    nodes: HashMap<Key, (u32, u32)>,
    /// Applied when all nodes are there; one to something that is not is dropped.
    edges: Vec<(Key, Key)>,
    /// Edges that flat nodes follow as well.
    own: Vec<(Key, Key)>,
    roots: Vec<Key>,
    flat_roots: Vec<Key>,
}

impl Builder {
    fn add(&mut self, key: Key) {
        let both = (self.graph.node(), self.graph.node());
        self.nodes.insert(key, both);
    }

    /// Reads the labels of an object.
    fn labels(&mut self, ns: &str, key: &Key, labels: &Labels) {
        for (label, value) in labels {
            if label == ROOT {
                self.roots.push(key.clone());
            } else if let Some(target) = label
                .strip_prefix(REFERENCE)
                .and_then(|kind| target(ns, kind, value))
            {
                self.edges.push((key.clone(), target));
            } else if let Some(source) = label
                .strip_prefix(BACK)
                .and_then(|kind| target(ns, kind, value))
            {
                self.edges.push((source, key.clone()));
            }
        }
    }

    fn reached(mut self) -> (HashMap<Key, (u32, u32)>, Vec<bool>) {
        for (from, to) in self.own {
            if let (Some(from), Some(to)) = (self.nodes.get(&from), self.nodes.get(&to)) {
                self.graph.edge(from.0, to.0);
                self.graph.edge(from.1, to.1);
            }
        }
        for (from, to) in self.edges {
            if let (Some(from), Some(to)) = (self.nodes.get(&from), self.nodes.get(&to)) {
                self.graph.edge(from.0, to.0);
            }
        }
        for (roots, flat) in [(self.roots, false), (self.flat_roots, true)] {
            for key in roots {
                if let Some((full, thin)) = self.nodes.get(&key) {
                    self.graph.root(if flat { *thin } else { *full });
                }
            }
        }
        let reached = self.graph.reached();
        (self.nodes, reached)
    }
}

/// What a label `content[.X]`, `image[.X]`, `container[.X]` or `snapshot.NAME[/X]` of value `value` names.
fn target(ns: &str, kind: &str, value: &str) -> Option<Key> {
    let is = |name: &str| {
        kind.strip_prefix(name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '/']))
    };
    let ns = ns.to_owned();
    let value = value.to_owned();
    if is("content") {
        Some(Key::Content(ns, value))
    } else if is("image") {
        Some(Key::Image(ns, value))
    } else if is("container") {
        Some(Key::Container(ns, value))
    } else {
        let name = kind.strip_prefix("snapshot.")?.split('/').next()?;
        Some(Key::Snapshot(name.to_owned(), ns, value))
    }
}

/// Deletes the rows that nothing needs; returns how many.
pub(super) fn collect(
    c: &Connection,
    writing: &HashSet<(String, String)>,
    now: Nanos,
) -> Result<usize, MetadataError> {
    let expired = drop_expired_leases(c, now)?;
    let (nodes, reached) = read(c, writing, now)
        .map_err(attempt("read references"))?
        .reached();
    let mut removed = 0;
    for (key, (full, thin)) in &nodes {
        if reached[*full as usize] || reached[*thin as usize] {
            continue;
        }
        removed += delete(c, key).map_err(attempt("delete what nothing refers to"))?;
    }
    Ok(removed + expired)
}

fn delete(c: &Connection, key: &Key) -> rusqlite::Result<usize> {
    let run = |sql: &str, values: &[&str]| {
        c.prepare_cached(sql)?
            .execute(rusqlite::params_from_iter(values))
    };
    match key {
        Key::Content(ns, digest) => run(
            "DELETE FROM content WHERE ns = ?1 AND digest = ?2",
            &[ns, digest],
        ),
        Key::Ingest(ns, reference) => run(
            "DELETE FROM ingests WHERE ns = ?1 AND ref = ?2",
            &[ns, reference],
        ),
        Key::Image(ns, name) => run(
            "DELETE FROM images WHERE ns = ?1 AND name = ?2",
            &[ns, name],
        ),
        Key::Snapshot(snapshotter, ns, name) => run(
            "DELETE FROM snapshots WHERE snapshotter = ?1 AND ns = ?2 AND name = ?3",
            &[snapshotter, ns, name],
        ),
        // These are roots.
        Key::Container(..) | Key::Sandbox(..) => Ok(0),
    }
}

fn drop_expired_leases(c: &Connection, now: Nanos) -> Result<usize, MetadataError> {
    let mut expired = Vec::new();
    each(c, "SELECT ns, id, labels FROM leases", |row| {
        if is_expired(&labels(row, "labels")?, now) {
            expired.push((row.get::<_, String>("ns")?, row.get::<_, String>("id")?));
        }
        Ok(())
    })
    .map_err(attempt("read leases"))?;
    for (ns, id) in &expired {
        for sql in [
            "DELETE FROM lease_resources WHERE ns = ?1 AND lease = ?2",
            "DELETE FROM leases WHERE ns = ?1 AND id = ?2",
        ] {
            c.execute(sql, params![ns, id])
                .map_err(attempt("delete expired lease"))?;
        }
    }
    Ok(expired.len())
}

/// Whether the object's time is over. A time that cannot be read never is: rather too much is kept than too little.
fn is_expired(labels: &Labels, now: Nanos) -> bool {
    labels
        .get(EXPIRE)
        .and_then(|t| from_rfc3339(t))
        .is_some_and(|t| t <= now)
}

fn labels(row: &Row<'_>, column: &str) -> rusqlite::Result<Labels> {
    crate::metadata::from_json(row, column)
}

fn each(
    c: &Connection,
    sql: &str,
    mut take: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut statement = c.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        take(row)?;
    }
    Ok(())
}

fn read(
    c: &Connection,
    writing: &HashSet<(String, String)>,
    now: Nanos,
) -> rusqlite::Result<Builder> {
    let mut b = Builder::default();
    each(c, "SELECT ns, digest, labels FROM content", |row| {
        let ns: String = row.get("ns")?;
        let key = Key::Content(ns.clone(), row.get("digest")?);
        b.labels(&ns, &key, &labels(row, "labels")?);
        b.add(key);
        Ok(())
    })?;
    each(
        c,
        "SELECT ns, ref, expected, expires_at FROM ingests",
        |row| {
            let ns: String = row.get("ns")?;
            let reference: String = row.get("ref")?;
            let key = Key::Ingest(ns.clone(), reference.clone());
            let young = row
                .get::<_, Option<Nanos>>("expires_at")?
                .is_some_and(|t| t > now);
            if young || writing.contains(&(ns.clone(), reference)) {
                b.roots.push(key.clone());
            }
            b.own
                .push((key.clone(), Key::Content(ns, row.get("expected")?)));
            b.add(key);
            Ok(())
        },
    )?;
    each(c, "SELECT ns, name, digest, labels FROM images", |row| {
        let ns: String = row.get("ns")?;
        let key = Key::Image(ns.clone(), row.get("name")?);
        let labels = labels(row, "labels")?;
        if !is_expired(&labels, now) {
            b.roots.push(key.clone());
        }
        b.labels(&ns, &key, &labels);
        b.own
            .push((key.clone(), Key::Content(ns, row.get("digest")?)));
        b.add(key);
        Ok(())
    })?;
    each(
        c,
        "SELECT snapshotter, ns, name, parent, labels FROM snapshots",
        |row| {
            let (snapshotter, ns): (String, String) = (row.get("snapshotter")?, row.get("ns")?);
            let key = Key::Snapshot(snapshotter.clone(), ns.clone(), row.get("name")?);
            b.labels(&ns, &key, &labels(row, "labels")?);
            b.own.push((
                key.clone(),
                Key::Snapshot(snapshotter, ns, row.get("parent")?),
            ));
            b.add(key);
            Ok(())
        },
    )?;
    each(
        c,
        "SELECT ns, id, snapshotter, snapshot_key, labels FROM containers",
        |row| {
            let ns: String = row.get("ns")?;
            let key = Key::Container(ns.clone(), row.get("id")?);
            b.labels(&ns, &key, &labels(row, "labels")?);
            b.own.push((
                key.clone(),
                Key::Snapshot(row.get("snapshotter")?, ns, row.get("snapshot_key")?),
            ));
            b.roots.push(key.clone());
            b.add(key);
            Ok(())
        },
    )?;
    each(c, "SELECT ns, id, record FROM sandboxes", |row| {
        let ns: String = row.get("ns")?;
        let key = Key::Sandbox(ns.clone(), row.get("id")?);
        let sandbox = sandboxes::decode(&row.get::<_, Vec<u8>>("record")?)?;
        b.labels(&ns, &key, &sandboxes::labels(&sandbox));
        b.roots.push(key.clone());
        b.add(key);
        Ok(())
    })?;
    read_leases(c, &mut b)?;
    Ok(b)
}

fn read_leases(c: &Connection, b: &mut Builder) -> rusqlite::Result<()> {
    let mut flat = HashSet::new();
    each(c, "SELECT ns, id, labels FROM leases", |row| {
        let (ns, id): (String, String) = (row.get("ns")?, row.get("id")?);
        let labels = labels(row, "labels")?;
        if labels.contains_key(FLAT) {
            flat.insert((ns.clone(), id));
        }
        // A lease may name what it needs by labels, too.
        for (label, value) in &labels {
            b.roots.extend(
                label
                    .strip_prefix(REFERENCE)
                    .and_then(|kind| target(&ns, kind, value)),
            );
        }
        Ok(())
    })?;
    each(
        c,
        "SELECT ns, lease, type, id FROM lease_resources",
        |row| {
            let (ns, lease, kind, id): (String, String, String, String) = (
                row.get("ns")?,
                row.get("lease")?,
                row.get("type")?,
                row.get("id")?,
            );
            let is_flat = flat.contains(&(ns.clone(), lease));
            let key = match kind.as_str() {
                CONTENT => Key::Content(ns, id),
                INGEST => Key::Ingest(ns, id),
                IMAGE => Key::Image(ns, id),
                _ => match kind.strip_prefix(SNAPSHOTS) {
                    Some(name) => Key::Snapshot(name.to_owned(), ns, id),
                    None => return Ok(()),
                },
            };
            if is_flat {
                b.flat_roots.push(key)
            } else {
                b.roots.push(key)
            }
            Ok(())
        },
    )
}
