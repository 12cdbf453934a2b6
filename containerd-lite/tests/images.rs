//! Layers through the real daemon: written, applied over one another, made from changes; and what kills leave of it.

mod store;

use std::path::Path;

use proto::containerd::types::Mount;
use store::{Client, Daemon, digest, layer};
use tonic::Code;

/// Overlays need root; says so where it is missing.
fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: needs root");
    }
    root
}

/// Stores a layer and makes the snapshot `name` of it and `parent`.
async fn unpack(client: &Client, bytes: &[u8], name: &str, parent: &str) {
    match client.write(&format!("layer-{name}"), bytes, &[]).await {
        Err(status) if status.code() == Code::AlreadyExists => {}
        other => drop(other.expect("write")),
    }
    let key = format!("extract {name}");
    match client.prepare(&key, parent).await {
        Ok(mounts) => {
            let applied = client.apply(bytes, mounts).await.expect("apply");
            assert_eq!(applied.digest, digest(bytes));
            assert_eq!(applied.size as usize, bytes.len());
        }
        Err(status) => assert_eq!(status.code(), Code::AlreadyExists),
    }
    client.commit(name, &key).await.expect("commit");
}

/// The upper directory of mounts.
fn upper(mounts: &[Mount]) -> String {
    let option = mounts[0]
        .options
        .iter()
        .find_map(|o| o.strip_prefix("upperdir="));
    option.expect("upperdir").to_owned()
}

fn shown(mounts: &[Mount], path: &str) -> bool {
    let lower = mounts[0]
        .options
        .iter()
        .find_map(|o| o.strip_prefix("lowerdir="))
        .expect("lowerdir");
    // The topmost directory that has the name tells; a device 0:0 there is a removal.
    lower
        .split(':')
        .find_map(|l| std::fs::symlink_metadata(Path::new(l).join(path)).ok())
        .is_some_and(|m| {
            use std::os::unix::fs::FileTypeExt as _;
            !m.file_type().is_char_device()
        })
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_lie_over_one_another_and_changes_become_a_layer() {
    if !root() {
        return;
    }
    let daemon = Daemon::start().await;
    let plain = daemon.client("test", None).await;
    plain.create_lease("l").await.expect("lease");
    let client = daemon.client("test", Some("l")).await;
    let base = layer(&[
        ("bin/", ""),
        ("bin/sh", "shell"),
        ("etc/", ""),
        ("etc/old", "1"),
        ("opq/", ""),
        ("opq/x", "1"),
    ]);
    let top = layer(&[
        ("etc/.wh.old", ""),
        ("opq/.wh..wh..opq", ""),
        ("opq/y", "2"),
        ("deep/er/file", "3"),
    ]);
    unpack(&client, &base, "base", "").await;
    unpack(&client, &top, "top", "base").await;
    let view = client.view("look", "top").await.expect("view");
    for (path, there) in [
        ("bin/sh", true),
        ("etc/old", false),
        ("opq/x", false),
        ("opq/y", true),
        ("deep/er/file", true),
    ] {
        assert_eq!(shown(&view, path), there, "{path}");
    }

    let active = client.prepare("container", "top").await.expect("prepare");
    let changes = upper(&active);
    std::fs::write(Path::new(&changes).join("written"), "by a container").expect("write");
    let parent = client.view("parent", "top").await.expect("view");
    let made = client.diff(parent, active).await.expect("diff");
    let info = client.info(&made.digest).await.expect("info");
    assert_eq!(info.labels["containerd.io/uncompressed"], made.digest);
    let bytes = client.read(&made.digest).await.expect("read");
    let mut archive = tar::Archive::new(bytes.as_slice());
    let names: Vec<_> = archive
        .entries()
        .expect("entries")
        .map(|e| {
            e.expect("entry")
                .path()
                .expect("path")
                .display()
                .to_string()
        })
        .collect();
    assert_eq!(names, ["written"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_carry_the_right_code_and_leave_nothing() {
    let daemon = Daemon::start().await;
    daemon
        .client("test", None)
        .await
        .create_lease("l")
        .await
        .expect("lease");
    let client = daemon.client("test", Some("l")).await;
    let code = |r: Result<(), tonic::Status>| r.expect_err("refused").code();

    let mut bare = client.content();
    let request = proto::containerd::services::content::v1::InfoRequest {
        digest: digest(b"x"),
    };
    let missing = bare
        .info(tonic::Request::new(request))
        .await
        .expect_err("no namespace");
    assert_eq!(missing.code(), Code::FailedPrecondition);
    assert!(missing.message().contains("namespace is required"));

    assert_eq!(
        code(client.info(&digest(b"x")).await.map(drop)),
        Code::NotFound
    );
    assert_eq!(
        code(client.info("sha256:../../etc/passwd").await.map(drop)),
        Code::InvalidArgument
    );
    assert_eq!(code(client.stat("nothing").await.map(drop)), Code::NotFound);
    let outside = layer(&[]);
    assert_eq!(
        code(client.apply(&outside, Vec::new()).await.map(drop)),
        Code::NotFound
    );
    let leased = daemon.client("test", Some("no-such-lease")).await;
    assert_eq!(
        code(leased.write("r", b"bytes", &[]).await.map(drop)),
        Code::NotFound
    );

    let mut hostile = layer(&[("aa/escape", "x")]);
    hostile[..2].copy_from_slice(b"..");
    let sum: u32 = hostile[..512]
        .iter()
        .enumerate()
        .map(|(i, b)| {
            if (148..156).contains(&i) {
                32
            } else {
                u32::from(*b)
            }
        })
        .sum();
    hostile[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    client.write("hostile", &hostile, &[]).await.expect("write");
    let mounts = client.prepare("k", "").await.expect("prepare");
    assert_eq!(
        code(client.apply(&hostile, mounts).await.map(drop)),
        Code::InvalidArgument
    );
    client.remove("k").await.expect("remove");
    assert!(
        !daemon
            .root("io.containerd.snapshotter.v1.overlayfs/snapshots/1/escape")
            .exists()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_is_refused() {
    let daemon = Daemon::start().await;
    let folder = daemon.socket().parent().expect("folder").to_owned();
    let mut second = store::spawn(&folder);
    assert!(!second.wait().expect("wait").success());
    let log = std::fs::read_to_string(folder.join("log")).expect("log");
    assert!(log.contains("is in use by another daemon"), "{log}");
    daemon
        .client("test", None)
        .await
        .stat("x")
        .await
        .expect_err("the first one answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_loses_nothing_that_it_acknowledged() {
    if !root() {
        return;
    }
    let mut daemon = Daemon::start().await;
    let base = layer(&[("bin/", ""), ("bin/sh", "shell")]);
    let big: Vec<u8> = (0..500_000u32).flat_map(|n| n.to_le_bytes()).collect();
    let mut resumed = false;
    for round in 0u64..6 {
        let client = daemon.client("test", None).await;
        client
            .create_lease(&format!("l{round}"))
            .await
            .expect("lease");
        let leased = daemon.client("test", Some(&format!("l{round}"))).await;
        let mut bytes = big.clone();
        bytes[..8].copy_from_slice(&round.to_le_bytes());
        let reference = format!("r{round}");
        let writing = {
            let (leased, bytes, reference) = (leased.clone(), bytes.clone(), reference.clone());
            tokio::spawn(async move { leased.write(&reference, &bytes, &[]).await })
        };
        unpack(&leased, &base, &format!("base{round}"), "").await;
        tokio::time::sleep(std::time::Duration::from_millis(round * 15)).await;
        daemon.kill_and_restart().await;
        let outcome = writing.await.expect("join");

        let leased = daemon.client("test", Some(&format!("l{round}"))).await;
        leased
            .stat(&format!("base{round}"))
            .await
            .expect("a committed snapshot is lost");
        match leased.write(&reference, &bytes, &[]).await {
            Ok(offset) => {
                assert!(outcome.is_err(), "an acknowledged blob is lost");
                resumed |= offset > 0;
            }
            Err(status) => assert_eq!(status.code(), Code::AlreadyExists, "{status}"),
        }
        assert_eq!(leased.read(&digest(&bytes)).await.expect("read"), bytes);
    }
    assert!(resumed, "no write was ever resumed");
    let client = daemon.client("test", None).await;
    for round in 0..6 {
        client
            .delete_lease(&format!("l{round}"))
            .await
            .expect("delete");
    }
    assert_eq!(
        (daemon.blob_files(), daemon.snapshot_folders()),
        (0, 0),
        "something is left"
    );
}
