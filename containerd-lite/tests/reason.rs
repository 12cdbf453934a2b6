//! Why a process ended goes out with the answers about it, across restarts of the daemon and the death of shims.

mod support;

use support::{Daemon, shim_pid};

/// Writes the record that our own shim leaves, whatever shim the test runs on.
fn record(daemon: &Daemon, id: &str, name: &str, pid: u32, status: u32, reason: &str) {
    let record = serde_json::json!({
        "version": 1, "pid": pid, "start_time": 1, "status": status,
        "exited_at": "2026-01-02T03:04:05.000000006Z", "reason": reason
    });
    std::fs::write(daemon.bundle(id).join(name), record.to_string()).expect("record");
}

async fn started(daemon: &Daemon, id: &str, script: &str) -> u32 {
    daemon.container(id, script).await;
    let client = daemon.client().await;
    let pid = client.create(id).await.expect("create");
    client.start(id, "").await.expect("start");
    pid
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_of_the_shim_says_why() {
    if std::env::var_os("LITE_TEST_SHIM").is_some() {
        eprintln!("SKIPPED: needs a shim that writes no records, as Debian's does");
        return;
    }
    let Some(mut daemon) = Daemon::start().await else {
        return;
    };
    let pid = started(&daemon, "why", "sleep 1000").await;
    let client = daemon.client().await;
    assert_eq!(client.get_reason("why").await, None, "it runs");
    client.exec("why", "e", "exit 3").await.expect("exec");
    record(&daemon, "why", "exit.json", pid, 137, "out of memory");
    let exec = client.start("why", "e").await.expect("start");
    record(&daemon, "why", "exit-e.json", exec, 3, "exited with code 3");
    assert_eq!(client.wait("why", "e").await.expect("wait"), 3);
    client
        .delete_exec("why", "e")
        .await
        .expect("delete the exec");

    client.kill("why", 9).await.expect("kill");
    assert_eq!(
        client.wait_reason("why", "").await.as_deref(),
        Some("out of memory")
    );
    assert_eq!(
        client.get_reason("why").await.as_deref(),
        Some("out of memory")
    );
    daemon.kill();
    daemon.restart().await;
    let client = daemon.client().await;
    assert_eq!(
        client.wait_reason("why", "").await.as_deref(),
        Some("out of memory")
    );
    assert_eq!(
        client.delete_reason("why").await.as_deref(),
        Some("out of memory")
    );
    assert_eq!(daemon.remains().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_another_exit_says_nothing_and_a_dead_shim_is_named() {
    if std::env::var_os("LITE_TEST_SHIM").is_some() {
        eprintln!("SKIPPED: needs a shim that writes no records, as Debian's does");
        return;
    }
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let pid = started(&daemon, "dead", "sleep 1000").await;
    let client = daemon.client().await;
    record(&daemon, "dead", "exit.json", pid + 1, 137, "somebody else");
    client.kill("dead", 9).await.expect("kill");
    assert_eq!(client.wait_reason("dead", "").await, None);
    std::fs::remove_file(daemon.bundle("dead").join("exit.json")).expect("remove");
    client.delete("dead").await.expect("delete");

    client.create("dead").await.expect("create");
    client.start("dead", "").await.expect("start");
    let shim = nix::unistd::Pid::from_raw(shim_pid("dead"));
    nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGKILL).expect("kill");
    assert_eq!(
        client.wait_reason("dead", "").await.as_deref(),
        Some("its shim died")
    );
    assert_eq!(
        client.delete_reason("dead").await.as_deref(),
        Some("its shim died")
    );
    assert_eq!(daemon.remains().await, Vec::<String>::new());
}
