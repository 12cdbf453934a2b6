//! Kills of the daemon at random moments while workers create, start, exec in, wait for and delete tasks: no exit is lost or
//! invented, no acknowledged task disappears, and nothing is left at the end.
//!
//! Runs over a shim that `LITE_TEST_SHIM` names; not over Debian's, which kills the engine under a Create, Start or Exec whose
//! caller died, and panics when a short exec is started once more after that.
//!
//! `LITE_STORM_KILLS` sets how many kills (default 8), `LITE_STORM_SEED` repeats a run.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use proto::containerd::v1::types::Status as Phase;
use support::{Client, Daemon, Recipe};
use tonic::{Code, Status};

const WORKERS: u32 = 4;

/// A small generator; the seed is printed, so a run can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// What one worker knows of its task; what it does not know is whether an unanswered call took place.
#[derive(Debug, Default)]
struct Known {
    created: bool,
    started: bool,
    delete_asked: bool,
}

/// Whether the daemon was killed under the call.
fn is_outage(error: &Status) -> bool {
    let text = error.message();
    let ours = text.contains("shim") || text.contains("ttrpc") || text.contains("runtime");
    match error.code() {
        Code::Unavailable | Code::Cancelled => !ours,
        Code::Unknown | Code::Internal => {
            text.contains("h2 protocol") || text.contains("transport")
        }
        _ => false,
    }
}

/// Takes one task through its life, however often the daemon goes.
async fn cycle(recipe: &Recipe, id: &str, code: u32, with_exec: bool) {
    let mut known = Known::default();
    loop {
        let Some(client) = Client::connect(&recipe.socket()).await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        match advance(&client, recipe, id, code, with_exec, &mut known).await {
            Ok(()) => return,
            Err(error) if is_outage(&error) => {}
            Err(error) => panic!("{id} ({known:?}): {:?} {}", error.code(), error.message()),
        }
    }
}

async fn advance(
    client: &Client,
    recipe: &Recipe,
    id: &str,
    code: u32,
    with_exec: bool,
    known: &mut Known,
) -> Result<(), Status> {
    let script = if with_exec {
        format!("while [ ! -e /tmp/{id} ]; do sleep 0.02; done; exit {code}")
    } else {
        format!("exit {code}")
    };
    match client.make(recipe, id, &script).await {
        Err(error) if error.code() != Code::AlreadyExists => return Err(error),
        _ => {}
    }
    if !known.delete_asked {
        match client.create(id).await {
            Ok(_) => assert!(!known.created, "{id} was lost: it could be created again"),
            Err(error) if error.code() == Code::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        known.created = true;
        let phase = client.get(id, "").await?.status();
        if phase == Phase::Created {
            assert!(!known.started, "{id} went back to created");
            start(client, id, "").await?;
        }
        known.started = true;
        if with_exec {
            exec(client, recipe, id, code).await?;
        }
        let waited = client.wait(id, "").await?;
        assert_eq!(waited, code, "{id}: wait told another exit");
        let process = client.get(id, "").await?;
        assert_eq!(
            (process.status(), process.exit_status),
            (Phase::Stopped, code),
            "{id}"
        );
        known.delete_asked = true;
    }
    match client.delete(id).await {
        Ok(told) => assert_eq!(told, code, "{id}: delete told another exit"),
        // The unanswered delete went through.
        Err(error) if error.code() == Code::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Starts a process that was created a moment ago. An unanswered start of before may overtake this one.
async fn start(client: &Client, id: &str, exec: &str) -> Result<(), Status> {
    match client.start(id, exec).await {
        Err(error) if error.code() == Code::FailedPrecondition => {
            let phase = client.get(id, exec).await?.status();
            assert_ne!(phase, Phase::Created, "{id} {exec}: {error}");
            Ok(())
        }
        started => started.map(drop),
    }
}

/// An exec whose code differs, then the init may end.
async fn exec(client: &Client, recipe: &Recipe, id: &str, code: u32) -> Result<(), Status> {
    let code = code + 1;
    let go = recipe.rootfs().join("tmp").join(id);
    if go.exists() {
        return Ok(());
    }
    match client.exec(id, "e", &format!("exit {code}")).await {
        Err(error) if error.code() != Code::AlreadyExists => return Err(error),
        _ => {}
    }
    let process = client.get(id, "e").await?;
    if process.status() == Phase::Created {
        start(client, id, "e").await?;
    }
    assert_eq!(client.wait(id, "e").await?, code, "{id}: exec");
    std::fs::write(go, "").expect("go");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kills_at_random_moments_lose_nothing() {
    if std::env::var_os("LITE_TEST_SHIM").is_none() {
        eprintln!("skipped: LITE_TEST_SHIM names no shim");
        return;
    }
    let Some(mut daemon) = Daemon::start().await else {
        return;
    };
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let kills = number("LITE_STORM_KILLS").unwrap_or(8);
    let seed = number("LITE_STORM_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 20 | 1);
    eprintln!("seed {seed}");
    let mut random = Random(seed);
    let recipe = Arc::new(daemon.recipe());
    let stop = Arc::new(AtomicBool::new(false));
    let cycles = Arc::new(AtomicU32::new(0));
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (recipe, stop, cycles) = (recipe.clone(), stop.clone(), cycles.clone());
            tokio::spawn(async move {
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    let id = format!("storm-{}-{worker}-{round}", std::process::id());
                    let code = (worker * 50 + round * 7) % 250;
                    cycle(&recipe, &id, code, round % 3 == 2).await;
                    cycles.fetch_add(1, Ordering::Relaxed);
                    round += 1;
                }
            })
        })
        .collect();
    for _ in 0..kills {
        tokio::time::sleep(Duration::from_millis(50 + random.next(500))).await;
        daemon.kill();
        tokio::time::sleep(Duration::from_millis(random.next(300))).await;
        daemon.restart().await;
    }
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        let ended = tokio::time::timeout(Duration::from_secs(60), worker).await;
        ended.expect("a worker hangs").expect("worker");
    }
    eprintln!(
        "{} cycles over {kills} kills",
        cycles.load(Ordering::Relaxed)
    );
    assert_eq!(daemon.client().await.list().await.expect("list"), []);
    assert_eq!(daemon.remains(), Vec::<String>::new(), "{}", daemon.log());
}
