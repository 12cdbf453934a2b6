//! One set of cases that every driver passes.

use std::path::Path;
use std::sync::Arc;

use super::{Copy, Driver, Mount, Overlay, SnapshotError, SnapshotKind, Snapshotter};
use crate::error::Kind as _;
use crate::metadata::{Labels, Store};
use proto::error::ErrorKind;

fn each(case: impl Fn(&Arc<Snapshotter>, &Path)) {
    for native in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("m.db")).unwrap();
        let driver: Box<dyn Driver> = if native {
            Box::new(Copy::new(dir.path()))
        } else {
            Box::new(Overlay::new(dir.path()))
        };
        let snapshotter = Snapshotter::open(driver, store).unwrap();
        case(&snapshotter, dir.path());
    }
}

fn prepare(s: &Snapshotter, key: &str, parent: &str) -> Result<Vec<Mount>, SnapshotError> {
    s.prepare(
        "ns",
        None,
        SnapshotKind::Active,
        key,
        parent,
        &Labels::new(),
    )
}

fn commit(s: &Snapshotter, name: &str, key: &str) -> Result<(), SnapshotError> {
    s.commit("ns", None, name, key, &Labels::new())
}

fn kind<T: std::fmt::Debug>(result: Result<T, SnapshotError>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn a_layer_is_prepared_committed_and_built_on() {
    each(|s, _| {
        let mounts = prepare(s, "a key with / and blanks", "").unwrap();
        assert_eq!((mounts.len(), &*mounts[0].kind), (1, "bind"));
        assert_eq!(mounts[0].options, ["rw", "rbind"]);
        std::fs::write(Path::new(&mounts[0].source).join("f"), "x").unwrap();
        commit(s, "layer", "a key with / and blanks").unwrap();
        assert_eq!(
            kind(s.stat("ns", "a key with / and blanks")),
            ErrorKind::NotFound
        );
        assert_eq!(s.stat("ns", "layer").unwrap().kind, SnapshotKind::Committed);
        assert!(s.usage("ns", "layer").unwrap().inodes >= 2);
        assert_eq!(
            s.mounts("ns", "a key with / and blanks")
                .unwrap_err()
                .kind(),
            ErrorKind::NotFound
        );
        assert_eq!(kind(s.mounts("ns", "layer")), ErrorKind::FailedPrecondition);

        let view = s
            .prepare(
                "ns",
                None,
                SnapshotKind::View,
                "view",
                "layer",
                &Labels::new(),
            )
            .unwrap();
        assert_eq!(
            (&*view[0].kind, &view[0].options[..]),
            ("bind", &["ro".to_owned(), "rbind".to_owned()][..])
        );
        assert!(Path::new(&view[0].source).join("f").exists());
        prepare(s, "top", "layer").unwrap();
        assert_eq!(kind(s.remove("ns", "layer")), ErrorKind::FailedPrecondition);
    });
}

#[test]
fn what_may_not_be_is_refused() {
    each(|s, _| {
        prepare(s, "k", "").unwrap();
        assert_eq!(kind(prepare(s, "k", "")), ErrorKind::AlreadyExists);
        assert_eq!(kind(prepare(s, "x", "missing")), ErrorKind::NotFound);
        assert_eq!(kind(prepare(s, "x", "k")), ErrorKind::InvalidArgument);
        assert_eq!(kind(prepare(s, "", "")), ErrorKind::InvalidArgument);
        assert_eq!(kind(commit(s, "n", "missing")), ErrorKind::NotFound);
        assert_eq!(kind(s.remove("ns", "missing")), ErrorKind::NotFound);
        assert_eq!(kind(s.stat("other", "k")), ErrorKind::NotFound);
        s.prepare("ns", None, SnapshotKind::View, "v", "", &Labels::new())
            .unwrap();
        assert_eq!(kind(commit(s, "n", "v")), ErrorKind::FailedPrecondition);
        let lease = s.prepare(
            "ns",
            Some("no-such-lease"),
            SnapshotKind::Active,
            "l",
            "",
            &Labels::new(),
        );
        assert_eq!(kind(lease), ErrorKind::NotFound);
        assert_eq!(kind(s.stat("ns", "l")), ErrorKind::NotFound);
    });
}

#[test]
fn what_a_kill_leaves_is_removed_and_numbers_are_not_used_twice() {
    each(|s, dir| {
        prepare(s, "k", "").unwrap();
        commit(s, "n", "k").unwrap();
        let folder = dir.join("snapshots");
        std::fs::create_dir(folder.join("77")).unwrap();
        std::fs::create_dir(folder.join("rm-5")).unwrap();
        s.remove("ns", "n").unwrap();
        s.cleanup().unwrap();
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        prepare(s, "again", "").unwrap();
        assert!(
            s.mounts("ns", "again").unwrap()[0]
                .source
                .contains("/snapshots/2")
        );
    });
}

#[test]
fn overlay_mounts_name_all_parents_from_the_top() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("m.db")).unwrap();
    let s = Snapshotter::open(Box::new(Overlay::new(dir.path())), store).unwrap();
    let mut parent = String::new();
    for name in ["one", "two"] {
        prepare(&s, "k", &parent).unwrap();
        commit(&s, name, "k").unwrap();
        parent = name.to_owned();
    }
    let active = &prepare(&s, "top", "two").unwrap()[0];
    let at = |n: u32| {
        dir.path()
            .join(format!("snapshots/{n}/fs"))
            .display()
            .to_string()
    };
    assert_eq!(
        (&*active.kind, active.source.as_str()),
        ("overlay", "overlay")
    );
    let options: Vec<_> = active
        .options
        .iter()
        .filter(|o| *o != "index=off")
        .cloned()
        .collect();
    let work = dir.path().join("snapshots/3/work").display().to_string();
    assert_eq!(
        options,
        [
            format!("workdir={work}"),
            format!("upperdir={}", at(3)),
            format!("lowerdir={}:{}", at(2), at(1))
        ]
    );
    let view = &s
        .prepare("ns", None, SnapshotKind::View, "v", "two", &Labels::new())
        .unwrap()[0];
    assert_eq!(
        view.options.last().unwrap(),
        &format!("lowerdir={}:{}", at(2), at(1))
    );
    assert!(!view.options.iter().any(|o| o.starts_with("upperdir")));
}
