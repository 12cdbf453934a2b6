//! Kills of the daemon and of shims at random moments while workers create, start, exec in, wait for and delete tasks: no exit
//! is lost or invented, no acknowledged task disappears, and nothing is left at the end.
//!
//! Runs over a shim that `LITE_TEST_SHIM` names; not over Debian's, which kills the engine under a Create, Start or Exec whose
//! caller died, and panics when a short exec is started once more after that.
//!
//! `LITE_STORM_KILLS` sets how many kills (default 8), `LITE_STORM_SEED` repeats a run.

mod support;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proto::containerd::v1::types::Status as Phase;
use support::{Client, Daemon, Recipe, shims};
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

/// What the workers share.
struct World {
    recipe: Recipe,
    /// Tasks whose shim was killed. These may end with 137, and calls about them may fail.
    shimless: Mutex<HashSet<String>>,
    stop: AtomicBool,
    cycles: AtomicU32,
}

/// One task and what its worker knows of it; what it does not know is whether an unanswered call took place.
struct Job<'a> {
    world: &'a World,
    id: String,
    code: u32,
    with_exec: bool,
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

impl Job<'_> {
    fn is_shimless(&self) -> bool {
        let shimless = self
            .world
            .shimless
            .lock()
            .expect("no panic under this lock");
        shimless.contains(&self.id)
    }

    /// Whether `told` is how a process that exits with `code` can have ended.
    fn is_right(&self, told: u32, code: u32) -> bool {
        told == code || told == 137 && self.is_shimless()
    }

    /// Takes the task through its life, however often the daemon or its shim goes.
    async fn cycle(&mut self) {
        loop {
            let Some(client) = Client::connect(&self.world.recipe.socket()).await else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            match self.advance(&client).await {
                Ok(()) => return,
                Err(error) if is_outage(&error) => {}
                Err(error) if self.is_shimless() => {
                    eprintln!(
                        "{} without its shim: {:?} {}",
                        self.id,
                        error.code(),
                        error.message()
                    );
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!(
                    "{} (created {}, started {}): {:?} {}",
                    self.id,
                    self.created,
                    self.started,
                    error.code(),
                    error.message()
                ),
            }
        }
    }

    async fn advance(&mut self, client: &Client) -> Result<(), Status> {
        let (id, code) = (self.id.clone(), self.code);
        let script = if self.with_exec {
            format!("while [ ! -e /tmp/{id} ]; do sleep 0.02; done; exit {code}")
        } else {
            format!("exit {code}")
        };
        match client.make(&self.world.recipe, &id, &script).await {
            Err(error) if error.code() != Code::AlreadyExists => return Err(error),
            _ => {}
        }
        if !self.delete_asked {
            match client.create(&id).await {
                Ok(_) => assert!(!self.created, "{id} was lost: it could be created again"),
                Err(error) if error.code() == Code::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            let phase = client.get(&id, "").await?.status();
            self.created = true;
            if phase == Phase::Created {
                assert!(!self.started, "{id} went back to created");
                start(client, &id, "").await?;
            }
            self.started = true;
            if self.with_exec && phase != Phase::Stopped {
                self.exec(client).await?;
            }
            let waited = client.wait(&id, "").await?;
            assert!(
                self.is_right(waited, code),
                "{id}: wait told {waited}, not {code}"
            );
            let process = client.get(&id, "").await?;
            let seen = (process.status(), process.exit_status);
            assert_eq!(seen, (Phase::Stopped, waited), "{id}");
            self.delete_asked = true;
        }
        match client.delete(&id).await {
            Ok(told) => assert!(
                self.is_right(told, code),
                "{id}: delete told {told}, not {code}"
            ),
            // The unanswered delete went through.
            Err(error) if error.code() == Code::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// An exec whose code differs, then the init may end.
    async fn exec(&self, client: &Client) -> Result<(), Status> {
        let (id, code) = (&self.id, self.code + 1);
        let go = self.world.recipe.rootfs().join("tmp").join(id);
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
        let told = client.wait(id, "e").await?;
        assert!(
            self.is_right(told, code),
            "{id}: the exec ended with {told}, not {code}"
        );
        std::fs::write(go, "").expect("go");
        Ok(())
    }
}

/// Starts a process that was created a moment ago. An unanswered start of before may overtake this one.
async fn start(client: &Client, id: &str, exec: &str) -> Result<(), Status> {
    match client.start(id, exec).await {
        Err(error)
            if error.code() == Code::FailedPrecondition && !error.message().contains("shim") =>
        {
            let phase = client.get(id, exec).await?.status();
            assert_ne!(phase, Phase::Created, "{id} {exec}: {error}");
            Ok(())
        }
        started => started.map(drop),
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

async fn storm(name: &'static str, kills_shims: bool) {
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
    let world = Arc::new(World {
        recipe: daemon.recipe(),
        shimless: Mutex::default(),
        stop: AtomicBool::new(false),
        cycles: AtomicU32::new(0),
    });
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
