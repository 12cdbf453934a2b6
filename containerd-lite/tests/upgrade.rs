//! Another program file takes over in the same process, under calls; one that cannot is refused and nothing changes.

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use proto::lite::control::v1::{StatusRequest, UpgradeRequest, control_client::ControlClient};
use support::Daemon;
use tonic::Code;

fn id(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

fn own() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_containerd-lite"))
}

/// A script that answers for a program, as `text` says.
fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("script");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("mode");
    path
}

async fn upgrade(daemon: &Daemon, path: &Path) -> Result<String, tonic::Status> {
    let mut control = ControlClient::new(daemon.client().await.channel());
    let path = path.display().to_string();
    let answer = control.upgrade(UpgradeRequest { path }).await?;
    Ok(answer.into_inner().version)
}

/// When the program that serves was started, and its process.
async fn serving(daemon: &Daemon) -> Option<(prost_types::Timestamp, u32)> {
    let client = support::Client::connect(&daemon.recipe().socket()).await?;
    let mut control = ControlClient::new(client.channel());
    let status = control.status(StatusRequest {}).await.ok()?.into_inner();
    Some((status.started_at?, status.pid))
}

/// Waits until another program than the one started at `before` serves.
async fn replaced(daemon: &Daemon, before: (prost_types::Timestamp, u32)) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let now = serving(daemon).await;
        if let Some((started, pid)) = now
            && started != before.0
        {
            assert_eq!(pid, before.1, "another process serves");
            return;
        }
        assert!(Instant::now() < end, "still {now:?}: {}", daemon.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Asks on connections of their own without a break; gives the longest time an answer took, and what failed.
fn ask_all_the_time(
    daemon: &Daemon,
    over: Arc<AtomicBool>,
) -> tokio::task::JoinHandle<(Duration, u32, Vec<String>)> {
    let socket = daemon.recipe().socket();
    tokio::spawn(async move {
        let (mut longest, mut asked, mut failed) = (Duration::ZERO, 0, Vec::new());
        while !over.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let answer = match support::Client::connect(&socket).await {
                None => Err("connection refused".to_owned()),
                Some(client) => client.list().await.map_err(|e| e.to_string()),
            };
            failed.extend(answer.err());
            longest = longest.max(begun.elapsed());
            asked += 1;
        }
        (longest, asked, failed)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_follow_each_other_in_one_process() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let name = id("upgraded");
    daemon.container(&name, "sleep 600 & wait").await;
    let client = daemon.client().await;
    let pid = client.create(&name).await.expect("create");
    client.start(&name, "").await.expect("start");
    let over = Arc::new(AtomicBool::new(false));
    let asking = ask_all_the_time(&daemon, over.clone());
    for round in 0..5 {
        let waiting = {
            let (client, name) = (daemon.client().await, name.clone());
            tokio::spawn(async move { client.wait(&name, "").await })
        };
        let mut events = daemon.client().await.subscribe().await;
        let before = serving(&daemon).await.expect("status");
        if round == 2 {
            daemon.signal(Signal::SIGUSR2);
        } else {
            let version = upgrade(&daemon, &own()).await.expect("upgrade");
            assert_eq!(version, env!("CARGO_PKG_VERSION"));
        }
        replaced(&daemon, before).await;
        let ended = waiting.await.expect("waiting").expect_err("wait goes on");
        assert_eq!(ended.code(), Code::Unavailable, "{ended}");
        let cut = loop {
            match events.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the events ended as if they were over"),
                Err(cut) => break cut,
            }
        };
        assert_eq!(cut.code(), Code::Unavailable, "{cut}");
        let client = daemon.client().await;
        assert_eq!(client.get(&name, "").await.expect("get").pid, pid);
        let exec = format!("e{round}");
        client.exec(&name, &exec, "exit 4").await.expect("exec");
        client.start(&name, &exec).await.expect("start exec");
        assert_eq!(client.wait(&name, &exec).await.expect("wait exec"), 4);
    }
    over.store(true, Ordering::Relaxed);
    let (longest, asked, failed) = asking.await.expect("asking");
    println!("{asked} lists over five upgrades, the longest took {longest:?}, failed: {failed:?}");
    assert!(failed.is_empty(), "{failed:?}");
    daemon.client().await.remove(&name).await;
    assert_eq!(daemon.remains().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_cannot_take_over_changes_nothing() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let before = serving(&daemon).await.expect("status");
    let folder = tempfile::tempdir().expect("folder");
    let refuses = format!(
        "for a; do shift; [ \"$a\" = 1 ] && a=999; set -- \"$@\" \"$a\"; done; exec {} \"$@\"",
        own().display()
    );
    for (name, text, want) in [
        ("exits", "exit 7", "exit status: 7"),
        ("other", "echo hello", "not that it is ready"),
        ("refuses", refuses.as_str(), "handover of version 999"),
    ] {
        let path = script(folder.path(), name, text);
        let refused = upgrade(&daemon, &path).await.expect_err(name);
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains(want), "{name}: {refused}");
    }
    assert_eq!(serving(&daemon).await, Some(before));
    let refused = upgrade(&daemon, Path::new("relative")).await;
    assert_eq!(refused.expect_err("relative").code(), Code::InvalidArgument);

    // One that proves itself and cannot be executed after all: the program that was there begins anew.
    let text = format!("exec {} \"$@\"", own().display());
    let path = script(folder.path(), "script", &text);
    upgrade(&daemon, &path).await.expect("it proves itself");
    replaced(&daemon, before).await;
    assert!(
        daemon.log().contains("could not take over"),
        "{}",
        daemon.log()
    );
    assert!(daemon.client().await.list().await.expect("list").is_empty());
}
