//! The walk over all fault points: at each the daemon is killed once, held up once, and fails once, in the midst of a task's
//! life; the life goes on to its end, its exit codes are right, and nothing is left.
//!
//! An everyday run takes a few of them; `LITE_DRILL=full` takes all. `LITE_STORM_SEED` repeats a choice.

use std::sync::Arc;
use std::time::Duration;

use containerd_lite::fault::{POINTS, POINTS_OF_A_DEAD_SHIM};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tonic::Code;

use crate::job::{Job, World, is_fault, is_outage};
use crate::support::{self, Client, Daemon, shims};
use crate::{Random, seed};

/// How many are walked on an ordinary day.
const SAMPLE: usize = 8;
/// How long one life may take.
const LIFE: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_life_goes_on_whatever_happens_at_a_fault_point() {
    let Some(shim) = support::own_shim() else {
        eprintln!("SKIPPED: no {} beside this test", support::OWN_SHIM);
        return;
    };
    let Some(mut daemon) = Daemon::start_over(shim, "").await else {
        return;
    };
    let mut wanted: Vec<(&str, &str, bool)> = Vec::new();
    for action in ["kill", "delay", "fail"] {
        wanted.extend(POINTS.iter().map(|point| (*point, action, false)));
        let dead = POINTS_OF_A_DEAD_SHIM.iter();
        wanted.extend(dead.map(|point| (*point, action, true)));
    }
    if std::env::var("LITE_DRILL").as_deref() != Ok("full") {
        let seed = seed();
        eprintln!("seed {seed}");
        let mut random = Random(seed);
        while wanted.len() > SAMPLE {
            wanted.swap_remove(random.next(wanted.len() as u64) as usize);
        }
    }
    for (number, (point, action, dead)) in wanted.iter().enumerate() {
        eprintln!("{action} at {point}");
        one(&mut daemon, number, (point, action), *dead).await;
    }
    eprintln!("{} faults passed", wanted.len());
}

/// One life with one fault. With `dead` its shim is killed once it runs.
async fn one(daemon: &mut Daemon, number: usize, (point, action): (&str, &str), dead: bool) {
    let armed = daemon.path("armed");
    std::fs::write(&armed, "").expect("arm");
    daemon.kill();
    let fault = format!("{point}:{action}:{}", armed.display());
    daemon.restart_with(&[("LITE_FAULT", &fault)]).await;
    let world = Arc::new(World::new(daemon.recipe()));
    let id = format!("fault-{}-{number}", std::process::id());
    let life = match dead {
        true => tokio::spawn(without_its_shim(world, id)),
        false => tokio::spawn(async move {
            let mut job = Job {
                world: &world,
                id,
                code: u32::try_from(number).expect("few") % 200 + 1,
                with_exec: true,
                created: false,
                started: false,
                delete_asked: false,
            };
            job.cycle().await;
        }),
    };
    let deadline = tokio::time::Instant::now() + LIFE;
    while !life.is_finished() || armed.exists() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{action} at {point}: the life goes on: {}, the point was reached: {}",
            !life.is_finished(),
            !armed.exists()
        );
        if daemon.has_ended() {
            daemon.restart().await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    life.await.expect("a life");
    if daemon.has_ended() {
        daemon.restart().await;
    }
    let left = daemon.client().await.list().await.expect("list");
    assert_eq!(left, [], "{action} at {point}");
    let remains = daemon.remains().await;
    assert_eq!(remains, Vec::<String>::new(), "{action} at {point}");
}

/// A create that failed at any of its steps, and is not tried again, leaves nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_create_that_fails_leaves_nothing() {
    let Some(shim) = support::own_shim() else {
        eprintln!("SKIPPED: no {} beside this test", support::OWN_SHIM);
        return;
    };
    let Some(mut daemon) = Daemon::start_over(shim, "").await else {
        return;
    };
    let last = "create.recorded"; // behind which nothing fails
    let steps = POINTS
        .iter()
        .filter(|p| p.starts_with("create.") && **p != last);
    for (number, point) in steps.enumerate() {
        let armed = daemon.path("armed");
        std::fs::write(&armed, "").expect("arm");
        daemon.kill();
        let fault = format!("{point}:fail:{}", armed.display());
        daemon.restart_with(&[("LITE_FAULT", &fault)]).await;
        let id = format!("undone-{}-{number}", std::process::id());
        daemon.container(&id, "exit 0").await;
        let client = daemon.client().await;
        let failed = client.create(&id).await.expect_err(point);
        assert!(is_fault(&failed) && !armed.exists(), "{point}: {failed:?}");
        assert_eq!(daemon.remains().await, Vec::<String>::new(), "{point}");
    }
}

/// The life of a task whose shim is killed while it runs.
async fn without_its_shim(world: Arc<World>, id: String) {
    let client = Client::connect(&world.recipe.socket()).await;
    let client = client.expect("connect");
    let made = client.make(&world.recipe, &id, "exec sleep 1000").await;
    made.expect("container");
    client.create(&id).await.expect("create");
    client.start(&id, "").await.expect("start");
    let all = shims(&world.recipe.socket());
    let (_, pid) = all
        .iter()
        .find(|(found, _)| *found == id)
        .expect("its shim");
    kill(Pid::from_raw(*pid), Signal::SIGKILL).expect("kill its shim");
    let mut deleting = false;
    loop {
        let Some(client) = Client::connect(&world.recipe.socket()).await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let told = match deleting {
            false => client.wait(&id, "").await,
            true => client.delete(&id).await,
        };
        match told {
            Ok(status) => {
                assert_eq!(status, 137, "{id}");
                if std::mem::replace(&mut deleting, true) {
                    return;
                }
            }
            Err(error) if deleting && error.code() == Code::NotFound => return,
            Err(error) if is_outage(&error) || is_fault(&error) => {}
            Err(error) => panic!("{id}: {error:?}"),
        }
    }
}
