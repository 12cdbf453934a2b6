//! The state of the daemon, on its debug socket and in its log.

mod support;

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use support::Daemon;

fn get(socket: &std::path::Path, path: &str) -> String {
    let mut stream = std::os::unix::net::UnixStream::connect(socket).expect("connect");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("ask");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answer");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_names_every_task_and_its_shim() {
    let home = tempfile::tempdir().expect("folder");
    let socket = home.path().join("debug.sock");
    let config = format!("[debug]\naddress = \"{}\"\n", socket.display());
    let Some(daemon) = Daemon::start_with(&config).await else {
        return;
    };
    let client = daemon.client().await;
    daemon.container("seen", "sleep 1000").await;
    let pid = client.create("seen").await.expect("create");
    let answer = get(&socket, "/debug/state");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    assert!(head.contains("application/json"), "{head}");
    let state: serde_json::Value = serde_json::from_str(body).expect("json");
    let task = &state["tasks"][0];
    assert_eq!(
        (task["id"].as_str(), task["life"].as_str()),
        (Some("seen"), Some("live"))
    );
    assert_eq!(task["processes"][0]["pid"], pid);
    assert!(
        task["shim"]["address"]
            .as_str()
            .expect("address")
            .starts_with("unix://")
    );
    assert!(get(&socket, "/debug/pprof").starts_with("HTTP/1.1 404"));

    daemon.signal(nix::sys::signal::Signal::SIGUSR1);
    let started = Instant::now();
    while !daemon.log().contains("state: {") {
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "{}",
            daemon.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    client.remove("seen").await;
    assert_eq!(daemon.remains().await, Vec::<String>::new());
}
