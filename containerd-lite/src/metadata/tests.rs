use std::collections::BTreeMap;

use super::*;
use crate::error::Kind as _;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("m.db")).unwrap();
    (dir, store)
}

fn container(id: &str) -> Container {
    let any = |url: &str, value: &[u8]| prost_types::Any {
        type_url: url.to_owned(),
        value: value.to_vec(),
    };
    Container {
        id: id.to_owned(),
        labels: [("a.b".to_owned(), "x".to_owned())].into(),
        image: "i".to_owned(),
        runtime: Runtime {
            name: "io.containerd.lite.v2".to_owned(),
            options: Some(any("unknown/Options", b"\x00\xff")),
        },
        spec: Some(any("types.containerd.io/Spec", b"{}")),
        extensions: [("e".to_owned(), any("x", b"\x01"))].into(),
        ..Container::default()
    }
}

#[tokio::test]
async fn a_container_comes_back_as_it_was_written_and_its_namespace_with_it() {
    let (dir, store) = store();
    let made = store
        .containers()
        .create("ns", container("c"))
        .await
        .unwrap();
    assert!(made.created_at > 0);
    drop(store);
    let store = Store::open(&dir.path().join("m.db")).unwrap();
    assert_eq!(store.containers().get("ns", "c").unwrap(), made);
    assert_eq!(store.containers().list("ns").unwrap(), [made]);
    assert_eq!(store.containers().list("other").unwrap(), []);
    assert_eq!(store.namespaces().list().unwrap()[0].name, "ns");
    let kind = |r: Result<Container>| r.unwrap_err().kind();
    assert_eq!(
        kind(store.containers().create("ns", container("c")).await),
        ErrorKind::AlreadyExists
    );
    assert_eq!(
        kind(store.containers().create("ns", container("a/b")).await),
        ErrorKind::InvalidArgument
    );
    assert_eq!(kind(store.containers().get("ns", "d")), ErrorKind::NotFound);
    let busy = store.namespaces().delete("ns".into()).await.unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::FailedPrecondition);
    store.containers().delete("ns", "c").await.unwrap();
    store.namespaces().delete("ns".into()).await.unwrap();
    assert!(store.namespaces().list().unwrap().is_empty());
}

#[tokio::test]
async fn a_mask_changes_what_it_names_and_nothing_else() {
    let (_dir, store) = store();
    store
        .containers()
        .create("ns", container("c"))
        .await
        .unwrap();
    let mut new = Container {
        id: "c".into(),
        ..Container::default()
    };
    new.labels = [("k.with.dots".to_owned(), "v".to_owned())].into();
    new.image = "ignored".into();
    let paths = |p: &[&str]| p.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
    let changed = store
        .containers()
        .update(
            "ns",
            new.clone(),
            paths(&["labels.k.with.dots", "labels.a.b", "extensions.e"]),
        )
        .await
        .unwrap();
    assert_eq!(
        changed.labels,
        BTreeMap::from([("k.with.dots".to_owned(), "v".to_owned())])
    );
    assert_eq!(changed.image, "i");
    assert!(changed.extensions.is_empty() && changed.spec.is_some());
    let refused = store
        .containers()
        .update("ns", new, paths(&["snapshotter"]))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn a_failed_job_undoes_itself_and_not_its_neighbours() {
    let (_dir, store) = store();
    let jobs: Vec<_> = (0..40)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                // Every third one fails after it has written its namespace.
                let lease = format!("l{}", if n % 3 == 0 { 0 } else { n });
                store
                    .leases()
                    .create(&format!("n{n}"), &lease, Labels::new())
                    .await?;
                store
                    .write(move |c| {
                        c.execute("INSERT INTO namespaces (ns) VALUES (?1)", [format!("x{n}")])
                            .map_err(attempt("test"))?;
                        if n % 3 == 0 {
                            Err(MetadataError::Invalid("no".into()))
                        } else {
                            Ok(())
                        }
                    })
                    .await
            })
        })
        .collect();
    let mut failed = 0;
    for job in jobs {
        failed += usize::from(job.await.unwrap().is_err());
    }
    let names = store.namespaces().list().unwrap();
    let written = names.iter().filter(|n| n.name.starts_with('x')).count();
    assert_eq!((failed, written), (14, 26));
}

#[test]
fn a_damaged_file_is_moved_aside_and_a_later_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.db");
    std::fs::write(&path, [0x55; 8192]).unwrap();
    let store = Store::open(&path).unwrap();
    let kept = std::fs::read_dir(dir.path()).unwrap().filter(|e| {
        e.as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .contains("corrupt")
    });
    assert_eq!(kept.count(), 1);
    store
        .write_blocking(|c| {
            c.execute("UPDATE meta SET value = '99' WHERE key = 'version'", [])
                .map_err(attempt("test"))
        })
        .unwrap();
    drop(store);
    assert!(matches!(
        Store::open(&path),
        Err(MetadataError::Format { found: 99, .. })
    ));
}

#[test]
fn long_labels_are_refused_and_empty_ones_dropped() {
    let one = |k: &str, v: String| Labels::from([(k.to_owned(), v)]);
    assert!(checked_labels(&one("k", "v".repeat(4096))).is_err());
    assert_eq!(
        checked_labels(&one("k", "v".repeat(4095))).unwrap().len(),
        1
    );
    assert!(checked_labels(&one("k", String::new())).unwrap().is_empty());
}

#[tokio::test]
async fn exit_records_are_kept_until_deleted() {
    let (_dir, store) = store();
    let exit = |exec: &str, status| Exit {
        container: "c".into(),
        exec: exec.into(),
        pid: 7,
        status,
        exited_at: 1,
        reason: "r".into(),
    };
    store.exits().put("ns", exit("", 137)).await.unwrap();
    store.exits().put("ns", exit("e", 3)).await.unwrap();
    store.exits().put("ns", exit("e", 4)).await.unwrap();
    let all = store.exits().all().unwrap();
    assert_eq!(
        all,
        [
            ("ns".to_owned(), exit("", 137)),
            ("ns".to_owned(), exit("e", 4))
        ]
    );
    store.exits().delete("ns", "c", "e").await.unwrap();
    assert_eq!(store.exits().all().unwrap().len(), 1);
    store.exits().delete_all("ns", "c").await.unwrap();
    assert!(store.exits().all().unwrap().is_empty());
}

/// A database of the first release, with a column that a later one has added.
#[tokio::test]
async fn the_frozen_database_opens_and_keeps_what_it_does_not_know() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.db");
    let raw = rusqlite::Connection::open(&path).unwrap();
    raw.execute_batch(include_str!("fixture-0.1.0.sql"))
        .unwrap();
    raw.execute_batch(
        "ALTER TABLE containers ADD COLUMN later TEXT; UPDATE containers SET later = 'kept'",
    )
    .unwrap();
    let store = Store::open(&path).unwrap();
    let container = store.containers().get("default", "c1").unwrap();
    assert_eq!(container.labels["k.with.dots"], "v");
    assert_eq!(container.snapshot_key, "c1");
    assert_eq!(container.spec.unwrap().value, b"{}");
    let image = store.images().list("default").unwrap().remove(0);
    let target = store
        .content()
        .get("default", &image.target.digest)
        .unwrap();
    assert_eq!(target.size, image.target.size);
    let rows = store.snapshots("overlayfs");
    let active = rows.get("default", "c1").unwrap();
    let parents = rows.parents("default", &active.parent).unwrap();
    assert_eq!((active.id, parents), (3, vec![2, 1]));
    assert_eq!(
        store.leases().resources("default", "kept").unwrap().len(),
        1
    );
    assert_eq!(store.exits().all().unwrap()[0].1.status, 137);
    assert!(
        store
            .content()
            .ingest("default", "a ref")
            .unwrap()
            .is_some()
    );
    assert_eq!(store.uuid().unwrap().len(), 36);

    let new = Container {
        id: "c1".into(),
        image: "other".into(),
        ..Container::default()
    };
    store
        .containers()
        .update("default", new, vec!["image".into()])
        .await
        .unwrap();
    let later: String = raw
        .query_row("SELECT later FROM containers", [], |r| r.get(0))
        .unwrap();
    assert_eq!(later, "kept");
}
