//! A damaged database: said, set aside, and nothing on the disk is lost for it.

mod store;

use std::path::PathBuf;

use proto::containerd::services::content::v1 as content;
use store::{Daemon, digest};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn blobs_and_file_systems_outlive_a_damaged_database() {
    let mut daemon = Daemon::start().await;
    let plain = daemon.client("ns", None).await;
    plain.create_lease("held").await.expect("lease");
    let client = daemon.client("ns", Some("held")).await;
    client.write("w", b"precious", &[]).await.expect("write");
    let mounts = client.prepare("running", "").await.expect("prepare");
    let file = PathBuf::from(&mounts[0].source).join("file");
    std::fs::write(&file, "data of a container").expect("write");
    daemon.kill();
    for suffix in ["", "-wal"] {
        let path = daemon.root(&format!("metadata.db{suffix}"));
        let length = std::fs::metadata(&path).map_or(0, |meta| meta.len());
        std::fs::write(&path, vec![0xa5; usize::try_from(length).expect("small")]).expect("damage");
    }

    for _ in 0..2 {
        daemon.kill_and_restart().await;
        let client = daemon.client("ns", None).await;
        // The rows have gone, and a collection has run; the files are there.
        client.create_lease("gc").await.expect("lease");
        client.delete_lease("gc").await.expect("collect");
        let gone = client.info(&digest(b"precious")).await;
        assert_eq!(gone.expect_err("no row").code(), Code::NotFound);
        assert_eq!(
            std::fs::read_to_string(&file).expect("file"),
            "data of a container"
        );
    }
    assert!(
        daemon.log().contains("is damaged: kept as"),
        "{}",
        daemon.log()
    );
    let found = daemon.client("recovered", None).await;
    assert_eq!(
        found.read(&digest(b"precious")).await.expect("blob"),
        b"precious"
    );
    let names = std::fs::read_dir(daemon.root("")).expect("root");
    let aside = names.flatten().filter(|e| {
        e.file_name()
            .to_string_lossy()
            .starts_with("metadata.db.corrupt-")
    });
    assert!(aside.count() >= 1);

    // A pull of the same blob needs no bytes.
    let client = daemon.client("ns", None).await;
    let stat = content::WriteContentRequest {
        action: content::WriteAction::Stat.into(),
        r#ref: "again".into(),
        total: 8,
        expected: digest(b"precious"),
        ..content::WriteContentRequest::default()
    };
    let stream = tokio_stream::once(stat);
    let mut answers = client
        .content()
        .write(client.request(stream))
        .await
        .expect("write")
        .into_inner();
    let told = answers.message().await.expect("answer").expect("answer");
    assert_eq!(told.offset, 8, "it is all here");
    // New snapshots do not take the numbers of the old ones.
    client.create_lease("new").await.expect("lease");
    let held = daemon.client("ns", Some("new")).await;
    let mounts = held.prepare("fresh", "").await.expect("prepare");
    assert!(!PathBuf::from(&mounts[0].source).join("file").exists());
}
