use super::*;
use proptest::prelude::*;
use serde_json::Value;
use std::time::UNIX_EPOCH;

fn open(folder: &Path, config: impl FnOnce(&mut JsonFileConfig)) -> JsonFile {
    let mut settings = JsonFileConfig {
        path: folder.join("c.log"),
        max_size: None,
        max_files: 1,
        compress: false,
        attrs: None,
        attach: None,
    };
    config(&mut settings);
    JsonFile::open(&settings).unwrap()
}

fn records(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn texts(path: &Path) -> Vec<String> {
    records(path)
        .iter()
        .map(|r| r["log"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_file_is_docker_s() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path(), |c| c.attrs = Some("{\"tag\":\"t\"}".into()));
    let mut lines = Lines::default();
    let now = UNIX_EPOCH + std::time::Duration::new(1, 500_000_000);
    log.append(Stream::Stdout, &mut lines, b"a\t<b> \"q\"\nrest", now);
    log.finish(Stream::Stdout, &mut lines, now);
    log.append(Stream::Stderr, &mut Lines::default(), b"e\n", now);
    let text = std::fs::read_to_string(folder.path().join("c.log")).unwrap();
    let want = concat!(
        r#"{"log":"a\u0009\u003cb\u003e \"q\"\n","stream":"stdout","attrs":{"tag":"t"},"time":"1970-01-01T00:00:01.5Z"}"#,
        "\n",
        r#"{"log":"rest","stream":"stdout","attrs":{"tag":"t"},"time":"1970-01-01T00:00:01.5Z"}"#,
        "\n",
        r#"{"log":"e\n","stream":"stderr","attrs":{"tag":"t"},"time":"1970-01-01T00:00:01.5Z"}"#,
        "\n"
    );
    assert_eq!(text, want);
}

#[test]
fn bytes_that_are_no_text_become_replacement_marks() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path(), |_| ());
    log.append(
        Stream::Stdout,
        &mut Lines::default(),
        b"\xe2\x82 \xff \xe2\x80\xa8 \xe2\x82\xac\n",
        UNIX_EPOCH,
    );
    assert_eq!(
        texts(&folder.path().join("c.log")),
        ["\u{fffd}\u{fffd} \u{fffd} \u{2028} \u{20ac}\n"]
    );
}

#[test]
fn a_torn_record_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.log");
    std::fs::write(
        &path,
        format!("{{\"log\":\"a\"}}\n{{\"log\":\"{}", "x".repeat(10_000)),
    )
    .unwrap();
    let mut log = open(folder.path(), |_| ());
    log.append(Stream::Stdout, &mut Lines::default(), b"b\n", UNIX_EPOCH);
    assert_eq!(texts(&path), ["a", "b\n"]);
    std::fs::write(&path, "no newline at all").unwrap();
    assert_eq!(open(folder.path(), |_| ()).size, 0);
}

#[test]
fn rotation_keeps_the_newest_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path(), |c| {
        c.max_size = Some(200);
        c.max_files = 3;
    });
    let mut lines = Lines::default();
    let input: Vec<u8> = (0..40)
        .flat_map(|n| format!("line {n}\n").into_bytes())
        .collect();
    log.append(Stream::Stdout, &mut lines, &input, UNIX_EPOCH);
    let names = ["c.log.2", "c.log.1", "c.log"];
    let kept: Vec<String> = names
        .iter()
        .flat_map(|n| texts(&folder.path().join(n)))
        .collect();
    let first = 40 - kept.len();
    let want: Vec<String> = (first..40).map(|n| format!("line {n}\n")).collect();
    assert_eq!(kept, want);
    assert!(!folder.path().join("c.log.3").exists());
    for name in ["c.log.1", "c.log.2"] {
        let size = folder.path().join(name).metadata().unwrap().len();
        assert!((200..300).contains(&size), "{size}");
    }
}

/// The texts of a compressed part.
fn unzipped(path: &Path) -> Vec<String> {
    let mut text = String::new();
    let file = File::open(path).unwrap();
    let mut decoder = flate2::read::GzDecoder::new(file);
    std::io::Read::read_to_string(&mut decoder, &mut text).unwrap();
    let comment = decoder.header().unwrap().comment().unwrap();
    assert!(proto::layout::read_log_part(comment).is_some());
    let texts = text.lines().map(|line| {
        let record: Value = serde_json::from_str(line).unwrap();
        record["log"].as_str().unwrap().to_owned()
    });
    texts.collect()
}

#[test]
fn older_parts_are_compressed_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let config = |c: &mut JsonFileConfig| {
        (c.max_size, c.max_files, c.compress) = (Some(4_000), 50, true);
    };
    let at = |n: u32, ending: &str| folder.path().join(format!("c.log.{n}{ending}"));
    // What an earlier life was at when it was killed.
    std::fs::write(at(1, ""), "{\"log\":\"first\"}\n").unwrap();
    std::fs::write(at(1, ".gz"), "torn").unwrap();
    std::fs::write(folder.path().join("c.log.gz.new"), "torn").unwrap();
    let mut log = open(folder.path(), config);
    let mut lines = Lines::default();
    for n in 0..2_000 {
        let text = format!("line {n}\n");
        log.append(Stream::Stdout, &mut lines, text.as_bytes(), UNIX_EPOCH);
    }
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while (1..50).any(|n| at(n, "").exists()) {
        assert!(std::time::Instant::now() < end, "a part stays plain");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    drop(log);
    let numbers = (1..50).rev().filter(|n| at(*n, ".gz").exists());
    let mut all: Vec<String> = numbers.flat_map(|n| unzipped(&at(n, ".gz"))).collect();
    all.extend(texts(&folder.path().join("c.log")));
    let want = std::iter::once("first".to_owned());
    let want = want.chain((0..2_000).map(|n| format!("line {n}\n")));
    assert_eq!(all, want.collect::<Vec<_>>());
    assert!(!folder.path().join("c.log.gz.new").exists());
}

#[test]
fn one_file_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path(), |c| c.max_size = Some(100));
    for n in 0..5 {
        log.append(
            Stream::Stdout,
            &mut Lines::default(),
            format!("{n}\n").as_bytes(),
            UNIX_EPOCH,
        );
    }
    assert_eq!(texts(&folder.path().join("c.log")), ["4\n"]);
}

proptest! {
    #[test]
    fn all_bytes_of_text_come_back_however_they_are_cut(
        pieces in proptest::collection::vec(prop_oneof![
            "[ -~]{0,30}", Just("\n".to_owned()), Just("ä€😀".to_owned()),
            (16_000usize..34_000).prop_map(|n| "x".repeat(n)),
        ], 0..12),
        cuts in proptest::collection::vec(1usize..20_000, 1..10),
    ) {
        let input = pieces.concat();
        let folder = tempfile::tempdir().unwrap();
        let mut log = open(folder.path(), |_| ());
        let mut lines = Lines::default();
        let (mut at, mut cut) = (0, cuts.iter().cycle());
        let bytes = input.as_bytes();
        while at < bytes.len() {
            let end = (at + cut.next().unwrap()).min(bytes.len());
            log.append(Stream::Stdout, &mut lines, &bytes[at..end], UNIX_EPOCH);
            at = end;
        }
        log.finish(Stream::Stdout, &mut lines, UNIX_EPOCH);
        let got = texts(&folder.path().join("c.log"));
        // A multi-byte character may be cut by a record's end, as docker cuts it.
        if input.split('\n').all(|line| line.len() < RECORD) {
            prop_assert_eq!(got.concat(), input.clone());
        }
        let want: usize = input.split('\n').map(|l| l.len() / RECORD + 1).sum::<usize>()
            - usize::from(input.rsplit('\n').next().is_some_and(|l| l.len() % RECORD == 0));
        prop_assert_eq!(got.len(), want);
    }
}
