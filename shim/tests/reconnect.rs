//! The daemon above goes and returns, or the shim itself is killed: exits are kept.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{Stack, eventually, exit_record, is_alive};
use prost::Message as _;
use proto::containerd::task::v2::DeleteResponse;
use std::process::Command;

fn kill_shim(pid: u32) {
    assert!(
        Command::new("kill")
            .args(["-9", &pid.to_string()])
            .status()
            .unwrap()
            .success()
    );
}

#[tokio::test]
async fn events_wait_for_the_daemon_in_order() {
    let mut stack = Stack::new();
    let task = stack.container("c1", "exit 9").await;
    task.create("", "", "").await.unwrap();
    task.start("").await.unwrap();
    assert_eq!(task.wait("").await.unwrap(), 9);
    drop(task); // the daemon's connection goes
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    stack.daemon_up().await;
    let told = stack.told.wait_for(3).await;
    assert_eq!(told, ["/tasks/create", "/tasks/start", "/tasks/exit c1=9"]);
    let address = std::fs::read_to_string(stack.bundle("c1").join("address")).unwrap();
    let task = stack.connect("c1", &address).await;
    assert_eq!(task.state("").await.unwrap().exit_status, 9);
    stack.daemon_down().await;
    assert_eq!(task.delete("").await.unwrap().exit_status, 9);
    stack.daemon_up().await;
    assert_eq!(stack.told.wait_for(4).await[3], "/tasks/delete");
}

#[tokio::test]
async fn delete_ends_the_container_of_a_killed_shim() {
    let stack = Stack::new();
    let task = stack.container("c1", "exec sleep 1000").await;
    let pid = task.create("", "", "").await.unwrap();
    task.start("").await.unwrap();
    kill_shim(task.shim_pid().await);
    let output = stack.run_shim(
        "c1",
        &["-bundle", &task.bundle.to_string_lossy(), "delete"],
        b"",
    );
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let response = DeleteResponse::decode(output.stdout.as_slice()).unwrap();
    assert_eq!((response.pid, response.exit_status), (pid, 137));
    eventually("end of the container", || {
        (!is_alive(pid)).then_some(()).ok_or("alive".into())
    })
    .await;
    let record = exit_record(&task.bundle, "exit.json");
    assert_eq!(
        (record["status"].as_u64(), record["reason"].as_str()),
        (Some(137), Some("killed: its shim died"))
    );
    let address = std::fs::read_to_string(task.bundle.join("address")).unwrap();
    assert!(!std::path::Path::new(address.strip_prefix("unix://").unwrap()).exists());
}

#[tokio::test]
async fn delete_ends_a_stopped_shim() {
    let stack = Stack::new();
    let task = stack.container("c1", "exec sleep 1000").await;
    let pid = task.create("", "", "").await.unwrap();
    task.start("").await.unwrap();
    let shim = task.shim_pid().await;
    let stop = std::process::Command::new("kill")
        .args(["-STOP", &shim.to_string()])
        .status();
    assert!(stop.unwrap().success());
    eventually("the shim is stopped", || {
        let stat = std::fs::read_to_string(format!("/proc/{shim}/stat")).unwrap();
        stat.contains(") T ").then_some(()).ok_or(stat)
    })
    .await;
    let output = stack.run_shim("c1", &["delete"], b"");
    let response = DeleteResponse::decode(output.stdout.as_slice()).unwrap();
    assert_eq!((response.pid, response.exit_status), (pid, 137));
    for pid in [shim, pid] {
        eventually("its end", || {
            (!is_alive(pid)).then_some(()).ok_or(pid.to_string())
        })
        .await;
    }
}

#[tokio::test]
async fn delete_tells_the_recorded_status() {
    let stack = Stack::new();
    let task = stack.container("c1", "exit 5").await;
    let pid = task.create("", "", "").await.unwrap();
    task.start("").await.unwrap();
    assert_eq!(task.wait("").await.unwrap(), 5);
    kill_shim(task.shim_pid().await);
    for _ in 0..2 {
        let output = stack.run_shim("c1", &["delete"], b"");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let response = DeleteResponse::decode(output.stdout.as_slice()).unwrap();
        assert_eq!((response.pid, response.exit_status), (pid, 5));
    }
}

#[tokio::test]
async fn a_container_without_its_own_pids_is_killed_with_its_init() {
    let mut stack = Stack::new();
    stack.daemon_up().await;
    stack.make_bundle("c1", "exit 6", "{}");
    let task = stack.start_shim("c1").await;
    task.create("", "", "").await.unwrap();
    task.start("").await.unwrap();
    assert_eq!(task.wait("").await.unwrap(), 6);
    assert_eq!(stack.told.wait_for(3).await[2], "/tasks/exit c1=6");
}

/// Bundles as released shims left them. A shim may outlive many versions of this program: what it wrote must be understood.
#[tokio::test]
async fn bundles_of_released_shims_are_understood() {
    let stack = Stack::new();
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    for release in std::fs::read_dir(fixtures).unwrap() {
        let release = release.unwrap().path();
        let id = release
            .file_name()
            .unwrap()
            .to_string_lossy()
            .replace('.', "-");
        let bundle = stack.make_bundle(&id, "", "{}");
        for file in std::fs::read_dir(&release).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), bundle.join(file.file_name())).unwrap();
        }
        let output = stack.run_shim(&id, &["delete"], b"");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let response = DeleteResponse::decode(output.stdout.as_slice()).unwrap();
        assert_eq!((response.pid, response.exit_status), (4_194_000, 5));
        assert_eq!(response.exited_at.unwrap().seconds, 1_795_496_737);
        std::fs::remove_file(bundle.join("exit.json")).unwrap();
        let output = stack.run_shim(&id, &["delete"], b"");
        assert_eq!(
            DeleteResponse::decode(output.stdout.as_slice())
                .unwrap()
                .exit_status,
            137
        );
    }
}
