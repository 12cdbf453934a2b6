//! Processes that end before anybody expects it: statuses and the order of events hold.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{Stack, eventually, exit_record, is_alive};
use proto::error::ErrorKind;

#[tokio::test]
async fn an_init_that_dies_at_once_starts_before_it_exits() {
    let mut stack = Stack::new();
    stack.daemon_up().await;
    let task = stack.container("c1", "exit 7").await;
    let pid = task.create("", "", "").await.unwrap();
    assert_eq!(task.start("").await.unwrap(), pid);
    assert_eq!(task.wait("").await.unwrap(), 7);
    let record = exit_record(&task.bundle, "exit.json");
    assert_eq!(
        (record["status"].as_u64(), record["pid"].as_u64()),
        (Some(7), Some(pid.into()))
    );
    let gone = task.delete("").await.unwrap();
    assert_eq!((gone.pid, gone.exit_status), (pid, 7));
    let told = stack.told.wait_for(4).await;
    assert_eq!(
        told,
        [
            "/tasks/create",
            "/tasks/start",
            "/tasks/exit c1=7",
            "/tasks/delete"
        ]
    );
    let shim = task.shim_pid().await;
    task.shutdown().await;
    eventually("end of the shim", || {
        (!is_alive(shim)).then_some(()).ok_or("alive".into())
    })
    .await;
    let address = std::fs::read_to_string(task.bundle.join("address")).unwrap();
    assert!(!std::path::Path::new(address.strip_prefix("unix://").unwrap()).exists());
}

/// A client that is told of an error tries again, and the container would run twice.
#[tokio::test]
async fn a_start_whose_runtime_was_killed_is_told_by_what_came_of_it() {
    let mut stack = Stack::new();
    stack.daemon_up().await;
    let task = stack.container("c1", "exit 7").await;
    task.create("", "", "").await.unwrap();
    std::fs::write(task.bundle.join("die-before"), "").unwrap();
    let refused = task.start("").await.unwrap_err();
    assert_eq!(
        refused.message,
        "OCI runtime start failed: runtime start was killed by signal 9"
    );
    assert_eq!(task.state("").await.unwrap().status, 1);
    std::fs::rename(
        task.bundle.join("die-before"),
        task.bundle.join("die-after"),
    )
    .unwrap();
    task.start("").await.unwrap();
    assert_eq!(task.wait("").await.unwrap(), 7);
    let told = stack.told.wait_for(3).await;
    assert_eq!(told, ["/tasks/create", "/tasks/start", "/tasks/exit c1=7"]);
}

#[tokio::test]
async fn an_exec_that_dies_before_the_runtime_returns_keeps_its_status() {
    let mut stack = Stack::new();
    stack.daemon_up().await;
    let task = stack.container("c1", "exec sleep 1000").await;
    task.create("", "", "").await.unwrap();
    task.start("").await.unwrap();
    std::fs::write(task.bundle.join("slow-exec"), "").unwrap();
    task.exec("e1", "exit 3", "", "").await.unwrap();
    let (start, ()) = tokio::join!(task.start("e1"), async {
        // The runtime hangs in exec; State of the rest is answered meanwhile.
        eventually("pid file", || {
            std::fs::metadata(task.bundle.join("e1.pid")).map_err(|e| e.to_string())
        })
        .await;
        assert_eq!(task.state("").await.unwrap().status, 2);
        assert_eq!(task.state("e1").await.unwrap().status, 1);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        std::fs::remove_file(task.bundle.join("slow-exec")).unwrap();
    });
    assert!(start.unwrap() > 1);
    assert_eq!(task.wait("e1").await.unwrap(), 3);
    let state = task.state("e1").await.unwrap();
    assert_eq!(
        (state.status, state.exit_status, state.exec_id.as_str()),
        (3, 3, "e1")
    );
    let told = stack.told.wait_for(5).await;
    assert_eq!(
        told[2..],
        [
            "/tasks/exec-added",
            "/tasks/exec-started",
            "/tasks/exit e1=3"
        ]
    );
    assert_eq!(task.delete("e1").await.unwrap().exit_status, 3);
    assert_eq!(
        task.state("e1").await.unwrap_err().kind,
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn many_instant_execs_have_their_own_status() {
    let stack = Stack::new();
    let task = stack.container("c1", "exec sleep 1000").await;
    task.create("", "", "").await.unwrap();
    task.start("").await.unwrap();
    for round in 0..4u32 {
        let one = async |n: u32| {
            let (id, code) = (format!("e{round}-{n}"), (round * 8 + n) % 256);
            task.exec(&id, &format!("exit {code}"), "", "")
                .await
                .unwrap();
            task.start(&id).await.unwrap();
            assert_eq!(task.wait(&id).await.unwrap(), code);
            assert_eq!(task.delete(&id).await.unwrap().exit_status, code);
        };
        tokio::join!(
            one(0),
            one(1),
            one(2),
            one(3),
            one(4),
            one(5),
            one(6),
            one(7)
        );
    }
}

#[tokio::test]
async fn a_refusing_runtime_is_quoted_and_leaves_nothing() {
    let stack = Stack::new();
    let task = stack.container("c1", "exit 0").await;
    std::fs::write(
        task.bundle.join("refuse"),
        "exec: no such file or directory",
    )
    .unwrap();
    let error = task.create("", "", "").await.unwrap_err();
    assert_eq!(
        error.message,
        "OCI runtime create failed: exec: no such file or directory"
    );
    assert_eq!(error.kind, ErrorKind::Unknown);
    assert_eq!(
        task.state("").await.unwrap_err().message,
        "container not created"
    );
    std::fs::remove_file(task.bundle.join("refuse")).unwrap();
    task.create("", "", "").await.unwrap();
    assert_eq!(
        task.create("", "", "").await.unwrap_err().kind,
        ErrorKind::AlreadyExists
    );
}

/// Memory and descriptors of the shim: kilobytes of its own, number open.
fn cost(pid: u32) -> (u64, usize) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("RssAnon")).unwrap();
    let resident = line
        .split_ascii_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count();
    (resident, open)
}

/// Long: 2000 execs with a log each, half of them attached to by clients that leave; run with `--ignored`.
#[tokio::test]
#[ignore = "takes a minute; part of the drill"]
async fn a_storm_of_execs_leaves_nothing_behind() {
    let mut stack = Stack::new();
    stack.daemon_up().await; // else the exits would be kept
    let task = stack.container("c1", "exec sleep 1000").await;
    task.create("", "", "").await.unwrap();
    task.start("").await.unwrap();
    let shim = task.shim_pid().await;
    let mut first = None;
    for round in 0..250u32 {
        let one = async |n: u32| {
            let id = format!("e{round}-{n}");
            let socket = stack.folder.path().join(format!("{n}.sock"));
            let uri = format!("attach://{}", socket.display());
            task.exec(&id, "echo some output; exit 5", "", &uri)
                .await
                .unwrap();
            let attached = n
                .is_multiple_of(2)
                .then(|| std::os::unix::net::UnixStream::connect(&socket).unwrap());
            task.start(&id).await.unwrap();
            drop(attached);
            assert_eq!(task.wait(&id).await.unwrap(), 5);
            task.delete(&id).await.unwrap();
        };
        tokio::join!(
            one(0),
            one(1),
            one(2),
            one(3),
            one(4),
            one(5),
            one(6),
            one(7)
        );
        if round % 50 == 25 {
            println!("round {round}: {:?}", cost(shim));
        }
        if round == 25 {
            first = Some(cost(shim));
        }
    }
    let (before, after) = (first.unwrap(), cost(shim));
    println!(
        "resident {} -> {} kB, open {} -> {}",
        before.0, after.0, before.1, after.1
    );
    assert!(
        after.0 < before.0 + 512 && after.1 <= before.1 + 2,
        "{before:?} {after:?}"
    );
}
