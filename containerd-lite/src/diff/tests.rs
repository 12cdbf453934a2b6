use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use proptest::prelude::*;
use tar::{EntryType, Header};

use super::*;
use crate::content::{Blobs, Digest};
use crate::error::Kind as _;
use crate::metadata::{Labels, Store};

const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";

/// One entry of a layer for a test.
#[derive(Debug, Clone)]
struct Item {
    path: Vec<u8>,
    kind: EntryType,
    link: Vec<u8>,
    data: Vec<u8>,
    pax: Vec<(String, Vec<u8>)>,
}

fn item(path: &str, kind: EntryType) -> Item {
    Item {
        path: path.into(),
        kind,
        link: Vec::new(),
        data: Vec::new(),
        pax: Vec::new(),
    }
}

fn file(path: &str, data: &str) -> Item {
    Item {
        data: data.into(),
        ..item(path, EntryType::Regular)
    }
}

fn link(path: &str, kind: EntryType, target: &str) -> Item {
    Item {
        link: target.into(),
        ..item(path, kind)
    }
}

fn layer(items: &[Item]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let (uid, gid) = (
        nix::unistd::getuid().as_raw(),
        nix::unistd::getgid().as_raw(),
    );
    for item in items {
        builder
            .append_pax_extensions(item.pax.iter().map(|(k, v)| (k.as_str(), v.as_slice())))
            .unwrap();
        let mut header = Header::new_ustar();
        let raw = header.as_old_mut();
        raw.name[..item.path.len()].copy_from_slice(&item.path);
        raw.linkname[..item.link.len()].copy_from_slice(&item.link);
        header.set_entry_type(item.kind);
        header.set_mode(if item.kind == EntryType::Directory {
            0o1750
        } else {
            0o640
        });
        header.set_uid(uid.into());
        header.set_gid(gid.into());
        header.set_mtime(1_000_000_000);
        header.set_size(item.data.len() as u64);
        header.set_cksum();
        builder.append(&header, item.data.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn apply_bytes(bytes: &[u8], into: &Path) -> Result<apply::Applied, DiffError> {
    let mut blob = tempfile::tempfile().unwrap();
    blob.write_all(bytes).unwrap();
    std::io::Seek::rewind(&mut blob).unwrap();
    apply(blob, &Digest::of_bytes(bytes), PLAIN, &[bind(into)], false)
}

fn bind(path: &Path) -> MountSpec {
    MountSpec {
        kind: "bind".into(),
        source: path.display().to_string(),
        options: vec!["rw".into(), "rbind".into()],
    }
}

/// A directory with a root to extract into and a file beside it that nobody may touch.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("root")).unwrap();
        std::fs::write(dir.path().join("canary"), "alive").unwrap();
        Self(dir)
    }

    fn root(&self) -> std::path::PathBuf {
        self.0.path().join("root")
    }

    fn assert_untouched(&self) {
        let mut names: Vec<_> = std::fs::read_dir(self.0.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["canary", "root"]);
        assert_eq!(
            std::fs::read_to_string(self.0.path().join("canary")).unwrap(),
            "alive"
        );
        assert_eq!(
            std::fs::metadata(self.0.path().join("canary"))
                .unwrap()
                .nlink(),
            1
        );
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Modes of hostile layers must not keep the temporary directory.
        for entry in std::fs::read_dir(self.root())
            .into_iter()
            .flatten()
            .flatten()
        {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                let _ =
                    std::fs::set_permissions(entry.path(), std::fs::Permissions::from_mode(0o700));
            }
        }
    }
}

#[test]
fn a_layer_is_laid_out_with_modes_times_links_and_attributes() {
    let place = Place::new();
    let long = format!("dir/{}/{}", "n".repeat(90), "m".repeat(90));
    let mut named = file("x", "long");
    named.pax = vec![
        ("path".into(), long.clone().into()),
        ("mtime".into(), b"1000000001.25".to_vec()),
    ];
    let mut attributed = file("attr", "");
    // A value with a line feed in it, which a reader line by line would cut.
    attributed.pax = vec![("SCHILY.xattr.user.test".into(), b"a\nb\0".to_vec())];
    let bytes = layer(&[
        item("./", EntryType::Directory),
        item("dir/", EntryType::Directory),
        file("dir/f", "data"),
        link("hard", EntryType::Link, "./dir/f"),
        link("soft", EntryType::Symlink, "/dir/f"),
        item("pipe", EntryType::Fifo),
        named,
        attributed,
    ]);
    let applied = apply_bytes(&bytes, &place.root()).unwrap();
    assert_eq!(applied.size, bytes.len() as u64);
    let at = |p: &str| place.root().join(p);
    let meta = std::fs::metadata(at("dir")).unwrap();
    assert_eq!(
        (meta.mode() & 0o7777, meta.mtime()),
        (0o1750, 1_000_000_000)
    );
    let meta = std::fs::metadata(at("dir/f")).unwrap();
    assert_eq!(
        (meta.mode() & 0o7777, meta.nlink(), meta.mtime()),
        (0o640, 2, 1_000_000_000)
    );
    assert_eq!(std::fs::read_to_string(at("hard")).unwrap(), "data");
    assert_eq!(std::fs::read_link(at("soft")).unwrap(), Path::new("/dir/f"));
    assert!(
        std::fs::symlink_metadata(at("pipe"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    let meta = std::fs::metadata(at(&long)).unwrap();
    assert_eq!(
        (meta.mtime(), meta.mtime_nsec()),
        (1_000_000_001, 250_000_000)
    );
    if let Some(value) = xattr::get(&at("attr"), &c"user.test".into()).unwrap() {
        assert_eq!(value, b"a\nb\0");
    }
    place.assert_untouched();
}

#[test]
fn whiteouts_remove_what_was_there_and_keep_what_came_along() {
    let place = Place::new();
    let below = [
        file("a", "1"),
        file("d/x", "1"),
        file("d/y", "1"),
        file("e/z", "1"),
        file("keep", "1"),
    ];
    apply_bytes(&layer(&below), &place.root()).unwrap();
    let above = [
        file("d/new", "2"),
        file("d/.wh..wh..opq", ""),
        file(".wh.a", ""),
        file(".wh.e", ""),
        file("keep", "2"),
        file(".wh.keep", ""),
        file(".wh..wh.plnk", ""),
        file(".wh.not-there", ""),
    ];
    apply_bytes(&layer(&above), &place.root()).unwrap();
    let names = |p: &str| {
        let mut all: Vec<_> = std::fs::read_dir(place.root().join(p))
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        all.sort();
        all
    };
    assert_eq!(names(""), ["d", "keep"]);
    assert_eq!(names("d"), ["new"]);
    assert_eq!(
        std::fs::read_to_string(place.root().join("keep")).unwrap(),
        "2"
    );
}

#[test]
fn hostile_entries_are_refused_or_stay_inside() {
    use EntryType::{Directory, Link, Symlink};
    let refused: &[&[Item]] = &[
        &[file("../escape", "x")],
        &[file("a/../../escape", "x")],
        &[link("h", Link, "../canary")],
        &[link("h", Link, "../../etc/passwd")],
        &[link("up", Symlink, ".."), link("h", Link, "up/canary")],
        &[link("h", Link, "missing")],
        &[item("d", Directory), link("h", Link, "d")],
        &[link("h", Link, "h")],
        &[file("f", "x"), file("f/g", "x")],
        &[file(".wh.", "x")],
        &[file(".wh...", "x")],
        &[link("l", Symlink, "l"), file("l/f", "x")],
        &[file("./", "x"), item("x", EntryType::GNUSparse)],
        &[item("x", EntryType::new(b'V'))],
        &[link("empty", Symlink, "")],
    ];
    for items in refused {
        let place = Place::new();
        let error = apply_bytes(&layer(items), &place.root()).unwrap_err();
        assert!(
            matches!(
                error.kind(),
                ErrorKind::InvalidArgument | ErrorKind::Unimplemented
            ),
            "{items:?}: {error:?}"
        );
        place.assert_untouched();
    }
    let inside: &[(&[Item], &str)] = &[
        (&[file("/absolute", "x")], "absolute"),
        (
            &[link("up", Symlink, "../.."), file("up/canary", "x")],
            "canary",
        ),
        (
            &[link("abs", Symlink, "/"), file("abs/canary", "x")],
            "canary",
        ),
        (&[link("l", Symlink, "../canary"), file("l", "x")], "l"),
        // Links to nothing: what they name is made, inside.
        (&[link("d", Symlink, "/etc"), file("d/x", "x")], "etc/x"),
        (
            &[
                link("a", Symlink, "b/c"),
                link("b", Symlink, "../../deep/er"),
                file("a/x/y", "x"),
            ],
            "deep/er/c/x/y",
        ),
        (
            &[
                item("d", Directory),
                link("d", Symlink, ".."),
                file("d/canary", "x"),
            ],
            "canary",
        ),
    ];
    for (items, made) in inside {
        let place = Place::new();
        apply_bytes(&layer(items), &place.root()).unwrap();
        let made = place.root().join(made);
        assert!(
            std::fs::symlink_metadata(&made).unwrap().is_file(),
            "{items:?}"
        );
        place.assert_untouched();
    }
}

#[test]
fn links_in_a_ring_are_an_error_of_their_own() {
    use EntryType::Symlink;
    let place = Place::new();
    let ring = [
        link("a", Symlink, "b"),
        link("b", Symlink, "a"),
        file("a/x", "x"),
    ];
    apply_bytes(&layer(&ring), &place.root()).unwrap_err();
    place.assert_untouched();
}

#[test]
fn truncated_and_oversized_layers_are_refused() {
    let place = Place::new();
    let whole = layer(&[file("f", &"x".repeat(2000))]);
    for length in [100, 513, 1000, 2400] {
        let error = apply_bytes(&whole[..length], &place.root()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{length}");
    }
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&whole).unwrap();
    let packed = packed.finish().unwrap();
    assert_eq!(
        apply_bytes(&packed, &place.root()).unwrap().size,
        whole.len() as u64
    );
    assert!(apply_bytes(&packed[..packed.len() / 2], &place.root()).is_err());
    // A header that announces more than may be read for one entry.
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    header.set_size(1 << 30);
    header.set_cksum();
    let mut bomb = header.as_bytes().to_vec();
    bomb.resize(4 << 20, b'9');
    assert_eq!(
        apply_bytes(&bomb, &place.root()).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
    let error = apply(
        tempfile::tempfile().unwrap(),
        &Digest::of_bytes(b""),
        "text/plain",
        &[bind(&place.root())],
        false,
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unimplemented);
}

fn hostile_item() -> impl Strategy<Value = Item> {
    let part = prop_oneof![
        "[ab]",
        Just("..".to_owned()),
        Just(".".to_owned()),
        Just(".wh.a".to_owned()),
        Just(".wh..wh..opq".to_owned())
    ];
    let path =
        (any::<bool>(), proptest::collection::vec(part, 1..4)).prop_map(|(absolute, parts)| {
            format!("{}{}", if absolute { "/" } else { "" }, parts.join("/"))
        });
    let kind = prop_oneof![
        Just(EntryType::Regular),
        Just(EntryType::Directory),
        Just(EntryType::Symlink),
        Just(EntryType::Link),
        Just(EntryType::Fifo)
    ];
    let target = prop_oneof![
        "[ab]",
        Just("..".to_owned()),
        Just("/".to_owned()),
        Just("../../..".to_owned()),
        Just("../canary".to_owned()),
        Just("/canary".to_owned())
    ];
    (path, kind, target, "[xy]{0,3}").prop_map(|(path, kind, target, data)| {
        let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
        let is_file = kind == EntryType::Regular;
        Item {
            path: path.into(),
            kind,
            link: if is_link { target.into() } else { Vec::new() },
            data: if is_file { data.into() } else { Vec::new() },
            pax: Vec::new(),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_sequence_of_entries_leaves_the_root(items in proptest::collection::vec(hostile_item(), 1..12)) {
        let place = Place::new();
        for item in &items {
            // One layer each, so that a refused entry does not end the sequence.
            let _ = apply_bytes(&layer(std::slice::from_ref(item)), &place.root());
        }
        let _ = apply_bytes(&layer(&items), &place.root());
        place.assert_untouched();
    }

    #[test]
    fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..2048), at in 0usize..1024, value in any::<u8>()) {
        let place = Place::new();
        let _ = apply_bytes(&bytes, &place.root());
        // Damage to a good archive goes deeper.
        bytes = layer(&[file("a", "x"), link("b", EntryType::Symlink, "a")]);
        bytes[at] = value;
        let _ = apply_bytes(&bytes, &place.root());
        place.assert_untouched();
    }
}

#[test]
fn a_layer_made_of_changes_makes_the_same_tree_again() {
    let (before, after, again) = (Place::new(), Place::new(), Place::new());
    let base = [
        file("same", "1"),
        file("changed", "1"),
        file("gone", "1"),
        file("d/gone", "1"),
        file("d/same", "1"),
    ];
    for place in [&before, &after, &again] {
        apply_bytes(&layer(&base), &place.root()).unwrap();
    }
    std::fs::write(after.root().join("changed"), "22").unwrap();
    std::fs::remove_file(after.root().join("gone")).unwrap();
    std::fs::remove_file(after.root().join("d/gone")).unwrap();
    std::fs::create_dir(after.root().join("new")).unwrap();
    let long = "n".repeat(200);
    std::fs::write(after.root().join("new").join(&long), "3").unwrap();
    std::fs::hard_link(
        after.root().join("new").join(&long),
        after.root().join("new/hard"),
    )
    .unwrap();
    std::os::unix::fs::symlink("/abs", after.root().join("new/soft")).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("m.db")).unwrap();
    let blobs = Blobs::open(dir.path().join("content"), store).unwrap();
    for media_type in [
        format!("{PLAIN}+gzip"),
        format!("{PLAIN}+zstd"),
        PLAIN.to_owned(),
    ] {
        let request = CreateRequest {
            ns: "ns".into(),
            lease: None,
            before: vec![bind(&before.root())],
            after: vec![bind(&after.root())],
            media_type: media_type.clone(),
            reference: String::new(),
            labels: Labels::new(),
            epoch: None,
        };
        let made = create(&blobs, request).unwrap();
        let (blob, info) = blobs.read("ns", &made.digest).unwrap();
        let applied = apply(
            blob,
            &made.digest,
            &media_type,
            &[bind(&again.root())],
            false,
        )
        .unwrap();
        assert_eq!(
            info.labels["containerd.io/uncompressed"],
            applied.digest.to_string()
        );
        assert_eq!(info.size, made.size);
    }
    let list = |root: &Path| {
        let mut all = Vec::new();
        let mut todo = vec![root.to_owned()];
        while let Some(path) = todo.pop() {
            for entry in std::fs::read_dir(path).unwrap() {
                let path = entry.unwrap().path();
                let meta = std::fs::symlink_metadata(&path).unwrap();
                let data = if meta.is_file() {
                    std::fs::read(&path).unwrap()
                } else {
                    Vec::new()
                };
                all.push((
                    path.strip_prefix(root).unwrap().to_owned(),
                    meta.mode(),
                    meta.nlink(),
                    data,
                ));
                if meta.is_dir() {
                    todo.push(path);
                }
            }
        }
        all.sort();
        all
    };
    assert_eq!(list(&again.root()), list(&after.root()));
    assert!(blobs.statuses("ns").unwrap().is_empty());
}
