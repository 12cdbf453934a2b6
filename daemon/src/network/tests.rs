use super::*;
use crate::network::attach::{EndpointWish, Wish};

fn create(name: &str, ipv6: bool) -> proto::engine::NetworkCreate {
    proto::engine::NetworkCreate {
        name: name.into(),
        enable_ipv6: Some(ipv6),
        ..Default::default()
    }
}

/// Run by hand or by CI: `unshare -n` around the test program, as root.
#[tokio::test]
#[ignore = "needs root and a network namespace of its own"]
async fn sandboxes_come_and_go_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let flags = <crate::config::Flags as clap::Parser>::parse_from([
        "dockerd-lite",
        "--data-root",
        &path("data"),
        "--exec-root",
        &path("exec"),
    ]);
    let config = Config::load(&flags).unwrap();
    let db = Db::open(&dir.path().join("r.db")).unwrap();
    // By thread: /sys shows the namespace of its mount.
    let links = || {
        std::fs::read_to_string("/proc/thread-self/net/dev")
            .unwrap()
            .lines()
            .count()
    };
    let network = Network::open(&config, &db).await.unwrap();
    let default = network.record(BRIDGE).unwrap();
    network.inner.link_of(&default.id).await.unwrap();
    let own = network.create(create("own", true)).await.unwrap();
    let wish = |networks: &[&str]| Wish {
        endpoints: networks
            .iter()
            .map(|network| EndpointWish {
                network: (*network).to_owned(),
                ..EndpointWish::default()
            })
            .collect(),
        ..Wish::default()
    };
    let before = links();
    let mut times = Vec::new();
    for n in 0..20 {
        let start = std::time::Instant::now();
        let wish = wish(&[&own.id, &default.id]);
        let sandbox = network.attach(&format!("c{n}"), &wish).await.unwrap();
        times.push(start.elapsed());
        assert!(sandbox.netns.exists());
        assert!(sandbox.endpoints[0].v6.is_some());
    }
    times.sort();
    println!(
        "attach: min {:?}, median {:?}, max {:?}",
        times[0], times[10], times[19]
    );
    drop(network);
    // A new daemon keeps the one whose container runs.
    let network = Network::open(&config, &db).await.unwrap();
    let kept = network.sandbox("c3").unwrap();
    network.restore(&["c3".to_owned()].into()).await.unwrap();
    assert_eq!(network.sandbox("c3"), Some(kept.clone()));
    let new = network.attach("new", &wish(&[&own.id])).await.unwrap();
    assert_ne!(new.endpoints[0].v4, kept.endpoints[0].v4);
    assert!(network.remove(&own).await.is_err());
    let start = std::time::Instant::now();
    network.detach("c3").await.unwrap();
    println!("detach: {:?}", start.elapsed());
    assert!(network.teardown().await.is_err());
    network.detach("new").await.unwrap();
    network.settle().await;
    assert_eq!(links(), before);
    assert_eq!(
        std::fs::read_dir(dir.path().join("exec/netns"))
            .unwrap()
            .count(),
        0
    );
    network.remove(&own).await.unwrap();
    network.teardown().await.unwrap();
    assert_eq!(links(), before - 2);
}
