//! Garbage through the real daemon: what goes with an image or a lease, and what stays.

mod store;

use store::{Daemon, digest};
use tonic::Code;

fn reference(kind: &str) -> String {
    format!("containerd.io/gc.ref.{kind}")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_holds_what_its_labels_name_and_a_lease_what_it_was_written_under() {
    let daemon = Daemon::start().await;
    let client = daemon.client("test", None).await;
    client.create_lease("l").await.expect("lease");
    let leased = daemon.client("test", Some("l")).await;
    let (manifest, config, stray) = (
        b"manifest".as_slice(),
        b"config".as_slice(),
        b"stray".as_slice(),
    );
    leased
        .write(
            "config",
            config,
            &[(&reference("snapshot.overlayfs"), "chain".into())],
        )
        .await
        .expect("write");
    leased
        .write(
            "manifest",
            manifest,
            &[(&reference("content.config"), digest(config))],
        )
        .await
        .expect("write");
    leased.write("stray", stray, &[]).await.expect("write");
    leased.prepare("key", "").await.expect("prepare");
    leased.commit("chain", "key").await.expect("commit");
    leased.image("an/image:1", manifest).await.expect("image");
    client
        .image("an/image:1", manifest)
        .await
        .expect_err("twice");

    client.delete_lease("l").await.expect("delete");
    for kept in [manifest, config] {
        client.info(&digest(kept)).await.expect("kept by the image");
    }
    client.stat("chain").await.expect("kept by the config");
    assert_eq!(
        client.info(&digest(stray)).await.expect_err("stray").code(),
        Code::NotFound
    );
    assert_eq!((daemon.blob_files(), daemon.snapshot_folders()), (2, 1));

    client.remove_image("an/image:1").await.expect("remove");
    assert_eq!(
        client.info(&digest(config)).await.expect_err("gone").code(),
        Code::NotFound
    );
    assert_eq!(
        client.stat("chain").await.expect_err("gone").code(),
        Code::NotFound
    );
    assert_eq!((daemon.blob_files(), daemon.snapshot_folders()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_under_leases_lose_nothing_while_others_are_collected() {
    let daemon = Daemon::start().await;
    let mut tasks = Vec::new();
    for worker in 0..4u8 {
        let plain = daemon.client("test", None).await;
        let leased = daemon.client("test", Some(&format!("l{worker}"))).await;
        tasks.push(tokio::spawn(async move {
            for round in 0..10u8 {
                plain
                    .create_lease(&format!("l{worker}"))
                    .await
                    .expect("lease");
                let blobs: Vec<Vec<u8>> = (0..5u8).map(|n| vec![worker, round, n]).collect();
                for (n, blob) in blobs.iter().enumerate() {
                    leased
                        .write(&format!("{worker}-{n}"), blob, &[])
                        .await
                        .expect("write");
                    // Whatever others delete meanwhile.
                    for earlier in &blobs[..=n] {
                        leased
                            .info(&digest(earlier))
                            .await
                            .expect("held by the lease");
                        assert_eq!(leased.read(&digest(earlier)).await.expect("read"), *earlier);
                    }
                }
                plain
                    .delete_lease(&format!("l{worker}"))
                    .await
                    .expect("delete");
            }
        }));
    }
    for task in tasks {
        task.await.expect("pull");
    }
    assert_eq!(daemon.blob_files(), 0);
}
