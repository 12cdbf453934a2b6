use std::io::Read as _;

use proptest::prelude::*;

use super::*;
use crate::error::Kind as _;
use crate::metadata::{Labels, Store};

fn blobs() -> (tempfile::TempDir, std::sync::Arc<Blobs>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("m.db")).unwrap();
    let blobs = Blobs::open(dir.path().join("content"), store).unwrap();
    (dir, blobs)
}

/// Of "hello".
const HELLO: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn hello() -> Digest {
    Digest::parse(HELLO).unwrap()
}

fn kind<T: std::fmt::Debug>(result: Result<T, ContentError>) -> ErrorKind {
    result.unwrap_err().kind()
}

fn store_hello(blobs: &std::sync::Arc<Blobs>, ns: &str) {
    let mut ingest = blobs.write(ns, None, "r", 5, Some(&hello())).unwrap();
    ingest.write_at(0, b"hello").unwrap();
    ingest.commit(5, Some(&hello()), &Labels::new()).unwrap();
}

#[test]
fn a_blob_is_written_in_pieces_resumed_and_read_back() {
    let (_dir, blobs) = blobs();
    let mut ingest = blobs
        .write("ns", None, "a ref/with blanks", 5, None)
        .unwrap();
    ingest.write_at(0, b"hel").unwrap();
    assert_eq!(
        kind(blobs.write("ns", None, "a ref/with blanks", 5, None)),
        ErrorKind::Unavailable
    );
    assert_eq!(kind(ingest.write_at(7, b"x")), ErrorKind::OutOfRange);
    drop(ingest);
    assert_eq!(blobs.status("ns", "a ref/with blanks").unwrap().offset, 3);
    assert_eq!(
        kind(blobs.status("other", "a ref/with blanks")),
        ErrorKind::NotFound
    );

    let mut ingest = blobs
        .write("ns", None, "a ref/with blanks", 5, None)
        .unwrap();
    assert_eq!((ingest.offset(), ingest.total()), (3, 5));
    ingest.write_at(3, b"lo").unwrap();
    let blob = ingest.commit(5, Some(&hello()), &Labels::new()).unwrap();
    assert_eq!((blob.digest.as_str(), blob.size), (HELLO, 5));
    let mut text = String::new();
    blobs
        .read("ns", &hello())
        .unwrap()
        .0
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "hello");
    assert!(blobs.statuses("ns").unwrap().is_empty());
    assert_eq!(
        kind(blobs.write("ns", None, "x", 5, Some(&hello()))),
        ErrorKind::AlreadyExists
    );
    assert!(blobs.active().is_empty(), "a refused writer holds its ref");
}

#[test]
fn a_wrong_commit_leaves_the_ingest_and_offset_0_begins_anew() {
    let (_dir, blobs) = blobs();
    let write = |data: &[u8], size, digest: Option<&Digest>| {
        let mut ingest = blobs.write("ns", None, "r", 0, None).unwrap();
        ingest.write_at(0, data).unwrap();
        ingest.commit(size, digest, &Labels::new())
    };
    assert_eq!(
        kind(write(b"hellx", 5, Some(&hello()))),
        ErrorKind::FailedPrecondition
    );
    assert_eq!(
        kind(write(b"hello", 4, None)),
        ErrorKind::FailedPrecondition
    );
    assert_eq!(blobs.status("ns", "r").unwrap().offset, 5);
    write(b"hello", 5, Some(&hello())).unwrap();
    // The same bytes under another ref, the digest unknown beforehand.
    let mut again = blobs.write("ns", None, "s", 0, None).unwrap();
    again.write_at(0, b"hello").unwrap();
    assert_eq!(
        kind(again.commit(0, None, &Labels::new())),
        ErrorKind::AlreadyExists
    );
    assert_eq!(kind(blobs.status("ns", "s")), ErrorKind::NotFound);
}

#[test]
fn a_blob_of_another_namespace_needs_no_data() {
    let (_dir, blobs) = blobs();
    store_hello(&blobs, "one");
    assert_eq!(kind(blobs.read("two", &hello())), ErrorKind::NotFound);
    let ingest = blobs.write("two", None, "r", 5, Some(&hello())).unwrap();
    assert_eq!(ingest.offset(), 5);
    ingest.commit(5, Some(&hello()), &Labels::new()).unwrap();
    blobs.read("two", &hello()).unwrap();
    // It may send the data all the same.
    let mut ingest = blobs.write("three", None, "r", 5, Some(&hello())).unwrap();
    ingest.write_at(0, b"hello").unwrap();
    ingest.commit(5, Some(&hello()), &Labels::new()).unwrap();
}

#[test]
fn the_sweep_removes_what_no_row_speaks_of() {
    let (dir, blobs) = blobs();
    store_hello(&blobs, "ns");
    let mut open = blobs.write("ns", None, "open", 0, None).unwrap();
    open.write_at(0, b"x").unwrap();
    let stray = dir.path().join("content/blobs/sha256").join("0".repeat(64));
    std::fs::write(&stray, "x").unwrap();
    std::fs::create_dir(dir.path().join("content/ingest/stray")).unwrap();
    blobs.sweep().unwrap();
    assert!(!stray.exists());
    assert_eq!(
        std::fs::read_dir(dir.path().join("content/ingest"))
            .unwrap()
            .count(),
        1
    );
    blobs.read("ns", &hello()).unwrap();
    assert_eq!(kind(blobs.abort("ns", "open")), ErrorKind::Unavailable);
    drop(open);
    blobs.abort("ns", "open").unwrap();
    assert_eq!(kind(blobs.abort("ns", "open")), ErrorKind::NotFound);
}

#[test]
fn digests_are_strict() {
    for bad in [
        "",
        "sha256:",
        "sha256:AB",
        "x",
        "sha256:../../etc",
        &HELLO.to_uppercase(),
        &format!("{HELLO}0"),
    ] {
        assert!(
            matches!(
                Digest::parse(bad),
                Err(DigestError::Malformed(_) | DigestError::Algorithm(_))
            ),
            "{bad}"
        );
    }
    assert!(matches!(
        Digest::parse("sha512:00"),
        Err(DigestError::Algorithm(_))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_split_of_the_bytes_makes_the_same_blob(parts in proptest::collection::vec(any::<Vec<u8>>(), 1..6)) {
        let (_dir, blobs) = blobs();
        let whole: Vec<u8> = parts.concat();
        let mut hashed = Hashed::new(std::io::sink());
        std::io::Write::write_all(&mut hashed, &whole).unwrap();
        let mut offset = 0;
        for part in &parts {
            // A new writer each time: a client that reconnects.
            let mut ingest = blobs.write("ns", None, "r", 0, None).unwrap();
            prop_assert_eq!(ingest.offset(), offset);
            if offset > 0 || !part.is_empty() {
                ingest.write_at(offset, part).unwrap();
            }
            offset = ingest.offset();
        }
        let ingest = blobs.write("ns", None, "r", 0, None).unwrap();
        let blob = ingest.commit(whole.len() as i64, Some(&hashed.digest()), &Labels::new()).unwrap();
        prop_assert_eq!(blob.size as usize, whole.len());
    }
}
