//! Tasks over real shims: their life, and what a killed daemon, a killed shim and a stopped shim leave of it.

mod support;

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proto::containerd::events::TaskExit;
use proto::containerd::types::Envelope;
use proto::containerd::v1::types::Status as Phase;
use support::{Daemon, next, shim_pid};
use tonic::Code;

/// Ids are unique on the machine, since shims of all tests are found by them.
fn id(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

fn exit_of(event: &Envelope) -> Option<TaskExit> {
    let event = event.event.as_ref().expect("event");
    proto::any::unpack::<TaskExit>(event).map(|exit| exit.expect("exit"))
}

async fn exit_events(daemon: &Daemon, count: usize) -> Vec<TaskExit> {
    let mut events = daemon.client().await.subscribe().await;
    let mut exits = Vec::new();
    while exits.len() < count {
        exits.extend(exit_of(&next(&mut events).await));
    }
    exits
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_lives_and_leaves_nothing() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let (client, id) = (daemon.client().await, id("life"));
    let mut events = client.subscribe().await;
    daemon.container(&id, "exit 7").await;
    let pid = client.create(&id).await.expect("create");
    assert_eq!(
        client.create(&id).await.expect_err("twice").code(),
        Code::AlreadyExists
    );
    assert_eq!(
        client.get(&id, "").await.expect("get").status(),
        Phase::Created
    );
    assert_eq!(client.start(&id, "").await.expect("start"), pid);
    assert_eq!(client.wait(&id, "").await.expect("wait"), 7);
    let process = client.get(&id, "").await.expect("get");
    assert_eq!(
        (process.status(), process.exit_status, process.pid),
        (Phase::Stopped, 7, pid)
    );
    assert_eq!(client.delete(&id).await.expect("delete"), 7);
    let gone = client.get(&id, "").await.expect_err("gone");
    assert_eq!(
        (gone.code(), gone.message()),
        (Code::NotFound, format!("task {id} not found").as_str())
    );
    let mut topics = Vec::new();
    while topics.len() < 4 {
        topics.push(next(&mut events).await.topic);
    }
    assert_eq!(
        topics,
        [
            "/tasks/create",
            "/tasks/start",
            "/tasks/exit",
            "/tasks/delete"
        ]
    );
    assert!(!daemon.bundle(&id).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_create_says_why_and_leaves_nothing() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let (client, id) = (daemon.client().await, id("bad"));
    daemon.container(&id, "").await;
    std::fs::remove_dir_all(daemon.rootfs().join("bin")).expect("break the rootfs");
    let error = client.create(&id).await.expect_err("create");
    assert!(
        error
            .message()
            .contains("failed to create shim task: OCI runtime create failed"),
        "{error}"
    );
    assert!(!daemon.bundle(&id).exists());
    assert_eq!(
        client.get(&id, "").await.expect_err("gone").code(),
        Code::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn exits_during_an_outage_are_right_after_it() {
    let Some(mut daemon) = Daemon::start().await else {
        return;
    };
    const COUNT: u32 = 6;
    let names: Vec<String> = (0..COUNT).map(|i| id(&format!("outage-{i}"))).collect();
    let client = daemon.client().await;
    for (i, id) in names.iter().enumerate() {
        let fifo = daemon.rootfs().join(format!("tmp/go-{id}"));
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("fifo");
        daemon
            .container(id, &format!("read x < /tmp/go-{id}; exit {}", i + 200))
            .await;
        client.create(id).await.expect("create");
        client.start(id, "").await.expect("start");
    }
    let survivor = id("outage-live");
    daemon.container(&survivor, "sleep 600 & wait").await;
    let pid = client.create(&survivor).await.expect("create");
    client.start(&survivor, "").await.expect("start");
    client
        .exec(&survivor, "e", "sleep 600")
        .await
        .expect("exec");
    let exec_pid = client.start(&survivor, "e").await.expect("start exec");

    daemon.kill();
    for id in &names {
        let fifo = daemon.rootfs().join(format!("tmp/go-{id}"));
        std::fs::write(fifo, "x\n").expect("go");
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let back = Instant::now();
    daemon.restart().await;

    let mut exits = exit_events(&daemon, names.len()).await;
    assert!(
        back.elapsed() < Duration::from_secs(3),
        "{:?}",
        back.elapsed()
    );
    exits.sort_by_key(|exit| exit.exit_status);
    let client = daemon.client().await;
    for (i, exit) in exits.iter().enumerate() {
        let code = u32::try_from(i).expect("small") + 200;
        assert_eq!((exit.exit_status, &exit.container_id), (code, &names[i]));
        assert_eq!(client.wait(&names[i], "").await.expect("wait"), code);
        assert_eq!(
            client.get(&names[i], "").await.expect("get").exit_status,
            code
        );
        assert_eq!(client.delete(&names[i]).await.expect("delete"), code);
    }
    let process = client.get(&survivor, "").await.expect("get");
    assert_eq!((process.status(), process.pid), (Phase::Running, pid));
    assert_eq!(
        client.get(&survivor, "e").await.expect("exec").pid,
        exec_pid
    );
    client.exec(&survivor, "f", "exit 3").await.expect("exec");
    client.start(&survivor, "f").await.expect("start");
    assert_eq!(client.wait(&survivor, "f").await.expect("wait"), 3);
    assert_eq!(
        client
            .delete_exec(&survivor, "f")
            .await
            .expect("delete exec"),
        3
    );
    client.remove(&survivor).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shims_task_is_stopped_until_it_is_deleted() {
    let Some(mut daemon) = Daemon::start().await else {
        return;
    };
    let (client, name) = (daemon.client().await, id("shimless"));
    let mut events = client.subscribe().await;
    daemon.container(&name, "sleep 600").await;
    let pid = client.create(&name).await.expect("create");
    client.start(&name, "").await.expect("start");
    let waiting = {
        let (client, name) = (client.clone(), name.clone());
        tokio::spawn(async move { client.wait(&name, "").await })
    };
    kill(Pid::from_raw(shim_pid(&name)), Signal::SIGKILL).expect("kill the shim");
    let exit = loop {
        if let Some(exit) = exit_of(&next(&mut events).await) {
            break exit;
        }
    };
    assert_eq!((exit.exit_status, exit.pid), (137, pid));
    assert_eq!(waiting.await.expect("waiting").expect("wait"), 137);
    daemon.kill();
    daemon.restart().await;
    let client = daemon.client().await;
    let replayed = exit_events(&daemon, 1).await.remove(0);
    assert_eq!(
        (replayed.exit_status, replayed.exited_at),
        (137, exit.exited_at)
    );
    let process = client.get(&name, "").await.expect("get");
    assert_eq!(
        (process.status(), process.exit_status),
        (Phase::Stopped, 137)
    );
    assert_eq!(
        client.kill(&name, 9).await.expect_err("dead").code(),
        Code::NotFound
    );
    assert_eq!(client.delete(&name).await.expect("delete"), 137);
    assert_eq!(
        client.get(&name, "").await.expect_err("gone").code(),
        Code::NotFound
    );
    assert!(!daemon.bundle(&name).exists());
}

/// Stops a process and waits until each of its threads has: the signal alone lets them run on for a moment.
async fn stop(pid: Pid) {
    kill(pid, Signal::SIGSTOP).expect("stop the process");
    let stopped = || {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
        threads.flatten().all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ")
                .is_none_or(|(_, rest)| rest.starts_with('T'))
        })
    };
    while !stopped() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_shim_blocks_nobody_else() {
    let Some(mut daemon) = Daemon::start().await else {
        return;
    };
    let (client, stuck, other) = (daemon.client().await, id("stuck"), id("other"));
    for name in [&stuck, &other] {
        daemon.container(name, "sleep 600").await;
        client.create(name).await.expect("create");
        client.start(name, "").await.expect("start");
    }
    let shim = Pid::from_raw(shim_pid(&stuck));
    stop(shim).await;
    let asked = Instant::now();
    assert_eq!(
        client.get(&stuck, "").await.expect_err("stuck").code(),
        Code::DeadlineExceeded
    );
    assert!(asked.elapsed() < Duration::from_secs(3));
    for restarted in [false, true] {
        if restarted {
            daemon.kill();
            daemon.restart().await;
        }
        let client = daemon.client().await;
        let asked = Instant::now();
        assert_eq!(
            client.get(&other, "").await.expect("other").status(),
            Phase::Running
        );
        assert!(
            asked.elapsed() < Duration::from_secs(1),
            "{:?}",
            asked.elapsed()
        );
        let asked = Instant::now();
        let phases: Vec<Phase> = client
            .list()
            .await
            .expect("list")
            .iter()
            .map(|p| p.status())
            .collect();
        assert!(
            asked.elapsed() < Duration::from_secs(2),
            "{:?}",
            asked.elapsed()
        );
        assert_eq!(phases.len(), 2);
        assert!(
            phases.contains(&Phase::Unknown) && phases.contains(&Phase::Running),
            "{phases:?}"
        );
    }
    kill(shim, Signal::SIGCONT).expect("let the shim go on");
    let client = daemon.client().await;
    let asked = Instant::now();
    while client.get(&stuck, "").await.map(|p| p.status()).ok() != Some(Phase::Running) {
        assert!(
            asked.elapsed() < Duration::from_secs(10),
            "the shim is not taken back"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    client.remove(&stuck).await;
    client.remove(&other).await;
}
