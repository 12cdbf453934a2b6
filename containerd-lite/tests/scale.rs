//! Many tasks on one daemon: what each costs it, and how soon it serves again after a kill when many shims do not answer.
//!
//! Long, so only run when asked for (`--ignored`). `LITE_SCALE` sets the number of tasks (default 200); `LITE_TEST_SHIM` names
//! the shim.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proto::containerd::v1::types::Status as Phase;
use support::{Daemon, shim_pid};

const PARALLEL: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "long"]
async fn many_tasks_cost_little_and_stuck_shims_delay_nothing() {
    let Some(mut daemon) = Daemon::start().await else {
        return;
    };
    let count = std::env::var("LITE_SCALE")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(200);
    // What the first task touches once and for all is not the cost of a task.
    let first = format!("scale-{}-first", std::process::id());
    let client = daemon.client().await;
    daemon.container(&first, "exit 0").await;
    client.create(&first).await.expect("create");
    client.start(&first, "").await.expect("start");
    client.remove(&first).await;
    let names: Vec<String> = (0..count)
        .map(|i| format!("scale-{}-{i}", std::process::id()))
        .collect();
    let before = daemon.pss();
    let begun = Instant::now();
    let turns = Arc::new(tokio::sync::Semaphore::new(PARALLEL));
    let recipe = Arc::new(daemon.recipe());
    let mut starts = tokio::task::JoinSet::new();
    for name in names.clone() {
        let (turns, recipe, client) = (turns.clone(), recipe.clone(), client.clone());
        starts.spawn(async move {
            let _turn = turns.acquire().await;
            client
                .make(&recipe, &name, "exec sleep 6000")
                .await
                .expect("container");
            client.create(&name).await.expect("create");
            client.start(&name, "").await.expect("start");
        });
    }
    starts.join_all().await;
    let took = begun.elapsed();
    let grown = daemon.pss() - before;
    eprintln!(
        "{count} tasks in {took:?}; the daemon has {before} KiB and grew by {grown} KiB, {} B each",
        grown * 1024 / count
    );
    let listed = Instant::now();
    assert_eq!(client.list().await.expect("list").len(), names.len());
    eprintln!("list in {:?}", listed.elapsed());
    assert!(grown / count <= 50, "{} KiB each", grown / count);

    let stuck = &names[..names.len() / 4];
    let shims: Vec<Pid> = stuck
        .iter()
        .map(|name| Pid::from_raw(shim_pid(name)))
        .collect();
    for shim in &shims {
        kill(*shim, Signal::SIGSTOP).expect("stop a shim");
    }
    daemon.kill();
    let begun = Instant::now();
    daemon.restart().await;
    let served = begun.elapsed();
    let client = daemon.client().await;
    for name in &names[names.len() / 4..] {
        let phase = client.get(name, "").await.expect("get").status();
        assert_eq!(phase, Phase::Running);
    }
    eprintln!(
        "serving after {served:?}, all that answer known after {:?}",
        begun.elapsed()
    );
    assert!(served < Duration::from_secs(1), "{served:?}");
    // The first list may find shims that are not known to be stuck yet.
    let listed = Instant::now();
    let phases = client.list().await.expect("list");
    assert_eq!(
        phases
            .iter()
            .filter(|p| p.status() == Phase::Unknown)
            .count(),
        stuck.len()
    );
    eprintln!("list in {:?}", listed.elapsed());
    for shim in &shims {
        kill(*shim, Signal::SIGCONT).expect("let a shim go on");
    }
    let begun = Instant::now();
    for name in stuck {
        while client.get(name, "").await.map(|p| p.status()).ok() != Some(Phase::Running) {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "{name} is not taken back"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let begun = Instant::now();
    let mut removals = tokio::task::JoinSet::new();
    for name in names {
        let (turns, client) = (turns.clone(), client.clone());
        removals.spawn(async move {
            let _turn = turns.acquire().await;
            client.remove(&name).await;
        });
    }
    removals.join_all().await;
    eprintln!(
        "removed in {:?}; the daemon has {} KiB",
        begun.elapsed(),
        daemon.pss()
    );
    assert_eq!(daemon.remains().await, Vec::<String>::new());
}
