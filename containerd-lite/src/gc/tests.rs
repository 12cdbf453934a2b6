//! The collector against a model: random objects and references, reached by a search that shares no code with ours.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use proptest::prelude::*;

use super::graph;
use crate::metadata::{Image, Labels, Resource, SnapshotKind, SnapshotRow, Store, Target, Usage};

const OBJECTS: usize = 6;

/// A reference from an object to another, by kind and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Blob(usize),
    Snapshot(usize),
    Image(usize),
}

#[derive(Debug, Clone)]
struct World {
    /// Labels gc.ref.* of blobs.
    blob_references: Vec<Vec<Node>>,
    /// Labels gc.bref.* of blobs: needed by these.
    blob_back: Vec<Vec<Node>>,
    blob_root: Vec<bool>,
    /// Parent of each snapshot: a lower number, or none.
    parents: Vec<Option<usize>>,
    snapshot_references: Vec<Vec<Node>>,
    images: BTreeMap<usize, (usize, bool)>,
    lease: Vec<Node>,
    flat: bool,
    expired: bool,
}

fn node() -> impl Strategy<Value = Node> {
    (0..3usize, 0..OBJECTS).prop_map(|(kind, n)| match kind {
        0 => Node::Blob(n),
        1 => Node::Snapshot(n),
        _ => Node::Image(n),
    })
}

fn references() -> impl Strategy<Value = Vec<Vec<Node>>> {
    proptest::collection::vec(proptest::collection::vec(node(), 0..2), OBJECTS)
}

fn world() -> impl Strategy<Value = World> {
    let parents = proptest::collection::vec(proptest::option::of(0..OBJECTS), OBJECTS);
    (
        (
            references(),
            references(),
            proptest::collection::vec(proptest::bool::weighted(0.1), OBJECTS),
        ),
        (parents, references()),
        proptest::collection::btree_map(
            0..OBJECTS,
            (0..OBJECTS, proptest::bool::weighted(0.3)),
            0..3,
        ),
        (
            proptest::collection::vec(node(), 0..3),
            any::<bool>(),
            any::<bool>(),
        ),
    )
        .prop_map(
            |(
                (blob_references, blob_back, blob_root),
                (parents, snapshot_references),
                images,
                (lease, flat, expired),
            )| {
                let parents = parents
                    .into_iter()
                    .enumerate()
                    .map(|(n, p)| p.filter(|p| *p < n))
                    .collect();
                World {
                    blob_references,
                    blob_back,
                    blob_root,
                    parents,
                    snapshot_references,
                    images,
                    lease,
                    flat,
                    expired,
                }
            },
        )
}

fn digest(n: usize) -> String {
    format!("sha256:{n:064x}")
}

fn label(prefix: &str, at: usize, node: Node) -> (String, String) {
    match node {
        Node::Blob(n) => (format!("containerd.io/gc.{prefix}.content.{at}"), digest(n)),
        Node::Snapshot(n) => (
            format!("containerd.io/gc.{prefix}.snapshot.overlayfs/{at}"),
            format!("s{n}"),
        ),
        Node::Image(n) => (
            format!("containerd.io/gc.{prefix}.image/{at}"),
            format!("i{n}"),
        ),
    }
}

fn labels(references: &[Node], back: &[Node], root: bool) -> Labels {
    let mut labels: Labels = references
        .iter()
        .enumerate()
        .map(|(i, n)| label("ref", i, *n))
        .collect();
    labels.extend(back.iter().enumerate().map(|(i, n)| label("bref", i, *n)));
    if root {
        labels.insert("containerd.io/gc.root".into(), "x".into());
    }
    labels
}

fn fill(store: &Store, runtime: &tokio::runtime::Runtime, w: &World) {
    let content = store.content();
    for n in 0..OBJECTS {
        let labels = labels(&w.blob_references[n], &w.blob_back[n], w.blob_root[n]);
        content
            .publish("ns", None, None, &digest(n), 1, &labels)
            .unwrap();
        // Another namespace has the same blobs and nothing that needs them.
        content
            .publish("bystander", None, None, &digest(n), 1, &Labels::new())
            .unwrap();
    }
    for n in 0..OBJECTS {
        let row = SnapshotRow {
            name: format!("k{n}"),
            id: n as i64 + 1,
            parent: w.parents[n].map_or(String::new(), |p| format!("s{p}")),
            kind: SnapshotKind::Active,
            labels: Labels::new(),
            usage: Usage::default(),
            created_at: 1,
            updated_at: 1,
        };
        store
            .snapshots("overlayfs")
            .insert("ns", None, row)
            .unwrap();
        let labels = labels(&w.snapshot_references[n], &[], false);
        store
            .snapshots("overlayfs")
            .commit(
                "ns",
                None,
                &format!("s{n}"),
                &format!("k{n}"),
                Usage::default(),
                &labels,
            )
            .unwrap();
    }
    for (n, (target, expired)) in &w.images {
        let labels = match expired {
            true => Labels::from([(
                "containerd.io/gc.expire".to_owned(),
                "2001-01-01T00:00:00Z".to_owned(),
            )]),
            false => Labels::new(),
        };
        let target = Target {
            media_type: "m".into(),
            digest: digest(*target),
            size: 1,
            annotations: Labels::new(),
        };
        let image = Image {
            name: format!("i{n}"),
            labels,
            target,
            ..Image::default()
        };
        runtime
            .block_on(store.images().create("ns", image))
            .unwrap();
    }
    let mut labels = Labels::new();
    if w.flat {
        labels.insert("containerd.io/gc.flat".into(), "x".into());
    }
    if w.expired {
        labels.insert(
            "containerd.io/gc.expire".into(),
            "2001-01-01T00:00:00Z".into(),
        );
    }
    runtime
        .block_on(store.leases().create("ns", "l", labels))
        .unwrap();
    for node in &w.lease {
        let (kind, id) = match node {
            Node::Blob(n) => ("content", digest(*n)),
            Node::Snapshot(n) => ("snapshots/overlayfs", format!("s{n}")),
            Node::Image(n) => ("images", format!("i{n}")),
        };
        runtime
            .block_on(store.leases().add(
                "ns",
                "l",
                Resource {
                    kind: kind.into(),
                    id,
                },
            ))
            .unwrap();
    }
}

/// What must stay, by going over all rules until nothing changes.
fn model(w: &World) -> BTreeSet<Node> {
    let mut full: BTreeSet<Node> = BTreeSet::new();
    let mut flat: BTreeSet<Node> = BTreeSet::new();
    full.extend((0..OBJECTS).filter(|n| w.blob_root[*n]).map(Node::Blob));
    full.extend(
        w.images
            .iter()
            .filter(|(_, (_, expired))| !expired)
            .map(|(n, _)| Node::Image(*n)),
    );
    if !w.expired {
        if w.flat {
            flat.extend(&w.lease)
        } else {
            full.extend(&w.lease)
        }
    }
    let exists = |n: &Node| !matches!(n, Node::Image(n) if !w.images.contains_key(n));
    let own = |n: Node| match n {
        Node::Snapshot(n) => w.parents[n].map(Node::Snapshot),
        Node::Image(n) => w.images.get(&n).map(|(target, _)| Node::Blob(*target)),
        Node::Blob(_) => None,
    };
    loop {
        full.retain(exists);
        flat.retain(exists);
        let before = (full.len(), flat.len());
        for node in full.clone() {
            full.extend(own(node));
            match node {
                Node::Blob(n) => full.extend(&w.blob_references[n]),
                Node::Snapshot(n) => full.extend(&w.snapshot_references[n]),
                Node::Image(_) => {}
            }
            full.extend(
                (0..OBJECTS)
                    .filter(|n| w.blob_back[*n].contains(&node))
                    .map(Node::Blob),
            );
        }
        flat.extend(flat.clone().into_iter().filter_map(own));
        full.retain(exists);
        flat.retain(exists);
        if before == (full.len(), flat.len()) {
            return full.union(&flat).copied().collect();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn keeps_exactly_what_the_model_keeps(w in world()) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("m.db")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        fill(&store, &runtime, &w);
        store.write_blocking(|c| graph::collect(c, &HashSet::new(), crate::time::now())).unwrap();

        let mut kept = BTreeSet::new();
        for n in 0..OBJECTS {
            kept.extend(store.content().get("ns", &digest(n)).is_ok().then_some(Node::Blob(n)));
            kept.extend(store.snapshots("overlayfs").get("ns", &format!("s{n}")).is_ok().then_some(Node::Snapshot(n)));
            kept.extend(store.images().get("ns", &format!("i{n}")).is_ok().then_some(Node::Image(n)));
            prop_assert!(store.content().get("bystander", &digest(n)).is_err());
        }
        prop_assert_eq!(kept, model(&w));
    }
}

#[test]
fn ingests_stay_while_they_are_young_written_or_leased() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("m.db")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime
        .block_on(store.leases().create("ns", "l", Labels::new()))
        .unwrap();
    let begun = crate::time::now();
    for (reference, lease) in [("plain", None), ("written", None), ("leased", Some("l"))] {
        let row = crate::metadata::IngestRow {
            reference: reference.into(),
            folder: reference.into(),
            started_at: begun,
            ..Default::default()
        };
        store.content().open_ingest("ns", lease, row).unwrap();
    }
    let collect = |writing: HashSet<_>, now| {
        store
            .write_blocking(move |c| graph::collect(c, &writing, now))
            .unwrap();
        store
            .content()
            .ingests("ns")
            .unwrap()
            .into_iter()
            .map(|i| i.reference)
            .collect::<Vec<_>>()
    };
    let writing = HashSet::from([("ns".to_owned(), "written".to_owned())]);
    assert_eq!(
        collect(HashSet::new(), begun),
        ["leased", "plain", "written"]
    );
    let tomorrow = begun + 25 * 3600 * 1_000_000_000;
    assert_eq!(collect(writing, tomorrow), ["leased", "written"]);
    runtime.block_on(store.leases().delete("ns", "l")).unwrap();
    assert!(collect(HashSet::new(), tomorrow).is_empty());
}
