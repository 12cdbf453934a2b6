//! Kills of the daemon and of shims at random moments while workers create, start, exec in, wait for and delete tasks: no exit
//! is lost or invented, no acknowledged task disappears, and nothing is left at the end.
//!
//! Runs over the shim that `LITE_TEST_SHIM` names, or ours if it was built beside this test; not over Debian's, which kills the engine under a Create, Start or Exec whose
//! caller died, and panics when a short exec is started once more after that.
//!
//! `LITE_STORM_KILLS` sets how many kills (default 8), `LITE_STORM_SEED` repeats a run.

mod faults;
mod job;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use job::{Job, World};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Daemon, shims};

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

/// Kills the shim of some task.
fn kill_a_shim(world: &World, random: &mut Random) {
    let shims = shims(&world.recipe.socket());
    if shims.is_empty() {
        return;
    }
    let at = random.next(shims.len() as u64) as usize;
    let (id, pid) = &shims[at];
    let mut shimless = world.shimless.lock().expect("no panic under this lock");
    shimless.insert(id.clone());
    // It may have ended by itself.
    let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Where chance begins.
fn seed() -> u64 {
    number("LITE_STORM_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 20 | 1)
}

async fn storm(name: &'static str, kills_shims: bool) {
    let Some(shim) = support::own_shim() else {
        eprintln!("SKIPPED: no {} beside this test", support::OWN_SHIM);
        return;
    };
    let Some(mut daemon) = Daemon::start_over(shim, "").await else {
        return;
    };
    let kills = number("LITE_STORM_KILLS").unwrap_or(8);
    let seed = seed();
    eprintln!("seed {seed}");
    let mut random = Random(seed);
    let world = Arc::new(World::new(daemon.recipe()));
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| tokio::spawn(work(world.clone(), name, worker)))
        .collect();
    for _ in 0..kills {
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(10 + random.next(130))).await;
            if kills_shims {
                kill_a_shim(&world, &mut random);
            }
        }
        daemon.kill();
        tokio::time::sleep(Duration::from_millis(random.next(300))).await;
        daemon.restart().await;
    }
    world.stop.store(true, Ordering::Relaxed);
    for worker in workers {
        let ended = tokio::time::timeout(Duration::from_secs(60), worker).await;
        ended.expect("a worker hangs").expect("worker");
    }
    let shims = world
        .shimless
        .lock()
        .expect("no panic under this lock")
        .len();
    let cycles = world.cycles.load(Ordering::Relaxed);
    eprintln!("{cycles} cycles over {kills} kills of the daemon and {shims} of shims");
    let left = daemon.client().await.list().await.expect("list");
    assert_eq!(left, []);
    assert_eq!(
        daemon.remains().await,
        Vec::<String>::new(),
        "{}",
        daemon.log()
    );
}

async fn work(world: Arc<World>, name: &'static str, worker: u32) {
    let mut round = 0;
    while !world.stop.load(Ordering::Relaxed) {
        let mut job = Job {
            world: &world,
            id: format!("{name}-{}-{worker}-{round}", std::process::id()),
            code: (worker * 50 + round * 7) % 250,
            with_exec: round % 3 == 2,
            created: false,
            started: false,
            delete_asked: false,
        };
        job.cycle().await;
        world.cycles.fetch_add(1, Ordering::Relaxed);
        round += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kills_of_the_daemon_lose_nothing() {
    storm("storm-d", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kills_of_shims_end_their_tasks_and_no_others() {
    storm("storm-s", true).await;
}
