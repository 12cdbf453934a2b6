//! Many containers: what one costs, that it costs as much as the first, and that a restart among them is quick.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration::eventually;
use integration::http::{ask, ask_within};
use integration::images;
use integration::leaks::Census;
use integration::peers::Dockerd;
use integration::programs::{command, run};
use integration::require;
use integration::stack::{Stack, alive};

use crate::full;
use crate::meter::{self, Memory, Meter};

/// A daemon that containers are made in.
struct Fleet {
    socket: PathBuf,
    made: AtomicUsize,
    /// Groups whose CPU is that of the chain: the daemons' and the containers'.
    groups: Vec<PathBuf>,
}

/// What a batch of starts cost.
struct Batch {
    count: usize,
    cpu: Duration,
    wall: Duration,
    latencies: Vec<Duration>,
}

impl Batch {
    fn cpu_each(&self) -> Duration {
        self.cpu / u32::try_from(self.count).unwrap_or(u32::MAX)
    }

    fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(at).copied().unwrap_or_default()
    }

    fn print(&self, what: &str) {
        println!(
            "{what}: create and start {} ms CPU each, {:.1} a second, median {:?}, p99 {:?}",
            self.cpu_each().as_micros() as f64 / 1e3,
            self.count as f64 / self.wall.as_secs_f64(),
            self.percentile(50),
            self.percentile(99)
        );
    }
}

impl Fleet {
    fn used(&self) -> Result<Duration> {
        self.groups.iter().map(|group| meter::used(group)).sum()
    }

    /// Makes and starts one container that does nothing; how long that took.
    fn one(&self, tty: bool) -> Result<Duration> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let begun = Instant::now();
        let body = format!(
            r#"{{"Image":"busybox","Cmd":["sleep","1000000"],"Tty":{tty},"HostConfig":{{"NetworkMode":"none"}}}}"#
        );
        let path = format!("/containers/create?name=fleet-{number}");
        let made = ask(&self.socket, "POST", &path, &body)?;
        ensure!(made.status == 201, "create {number}: {made:?}");
        let path = format!("/containers/fleet-{number}/start");
        let started = ask(&self.socket, "POST", &path, "")?;
        ensure!(started.status == 204, "start {number}: {started:?}");
        Ok(begun.elapsed())
    }

    /// Makes `count` of them, `parallel` at a time.
    fn grow(&self, count: usize, parallel: usize) -> Result<Batch> {
        let (before, begun) = (self.used()?, Instant::now());
        let left = AtomicUsize::new(count);
        let take = || {
            let mut took = Vec::new();
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                .is_ok()
            {
                took.push(self.one(false)?);
            }
            Ok(took)
        };
        let latencies = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..parallel).map(|_| scope.spawn(take)).collect();
            let mut all = Vec::new();
            for thread in threads {
                let took: Result<Vec<Duration>> = thread
                    .join()
                    .expect("a thread that starts containers does not panic");
                all.extend(took?);
            }
            Ok::<_, anyhow::Error>(all)
        })?;
        Ok(Batch {
            count,
            cpu: self.used()? - before,
            wall: begun.elapsed(),
            latencies,
        })
    }

    fn running(&self) -> Result<usize> {
        let list = ask(&self.socket, "GET", "/containers/json", "")?.json();
        Ok(list.as_array().map_or(0, Vec::len))
    }

    fn remove_all(&self) -> Result<()> {
        let count = self.made.load(Ordering::Relaxed);
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let remove = || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return Ok(());
                    }
                    let path = format!("/containers/fleet-{number}?force=1");
                    let limit = Duration::from_secs(120);
                    let gone = ask_within(limit, &self.socket, "DELETE", &path, "")?;
                    ensure!([204, 404].contains(&gone.status), "{number}: {gone:?}");
                }
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(remove)).collect();
            for thread in threads {
                thread
                    .join()
                    .expect("a thread that removes containers does not panic")
                    .context("remove")?;
            }
            Ok(())
        })
    }
}

#[test]
fn containers_cost_little_and_the_last_as_much_as_the_first() -> Result<()> {
    let stack = Stack::start()?;
    images::busybox(&stack)?;
    let daemon = stack.daemon_pid().context("the daemon runs")?;
    let containerd = stack.pids_of("containerd-lite")?;
    let containerd = *containerd.first().context("containerd-lite runs")?;
    let name = format!("lite-drill-scale-{}", std::process::id());
    let _meter = Meter::of(&name, &[daemon, containerd])?;
    let scope = stack.scope();
    let memory = Memory::of(&name, &[daemon, containerd], &scope.cgroup)?;
    let fleet = Fleet {
        socket: stack.path("docker.sock"),
        made: AtomicUsize::new(0),
        groups: vec![meter::group(&name), meter::group(&scope.cgroup)],
    };
    let before = Census::take(scope)?;
    fleet.grow(2, 1)?;
    idle(&stack, &fleet, &memory, containerd)?;
    parallel(&fleet)?;
    if full() {
        many(&fleet)?;
    }
    fleet.remove_all()?;
    before.flat_within(Duration::from_secs(60))?;
    stack.stop()
}

/// Memory, threads and CPU of idle ones, made one after another.
fn idle(stack: &Stack, fleet: &Fleet, memory: &Memory, containerd: u32) -> Result<()> {
    let count = if full() { 200 } else { 6 };
    let (available, grown) = (meter::available()?, meter::pss(containerd)?);
    let charged = memory.charged()?;
    let batch = fleet.grow(count, 1)?;
    batch.print(&format!("{count} one after another"));
    // Shims give memory back a second after their last start.
    std::thread::sleep(Duration::from_secs(3));
    let fall = available.saturating_sub(meter::available()?) as f64 / count as f64;
    let charged = memory.charged()?.saturating_sub(charged) as f64 / count as f64;
    let shims = stack.pids_of("containerd-shim-lite-v2")?;
    ensure!(shims.len() == count + 2, "{} shims", shims.len());
    let mut pss = 0;
    for shim in &shims {
        pss += meter::pss(*shim)?;
        let threads = meter::threads(*shim)?;
        ensure!(threads == 1, "shim {shim} has {threads} threads");
    }
    let pss = pss as f64 / shims.len() as f64;
    let grown = meter::pss(containerd)?.saturating_sub(grown) as f64 / count as f64;
    println!(
        "idle: a shim {pss:.0} KiB PSS, containerd-lite {grown:.1} KiB more each, MemAvailable {fall:.0} KiB less each, {charged:.0} KiB charged with the kernel's"
    );
    fleet.one(true)?;
    for shim in stack.pids_of("containerd-shim-lite-v2")? {
        let threads = meter::threads(shim)?;
        ensure!(threads <= 2, "shim {shim} has {threads} threads");
    }
    if !full() {
        return Ok(());
    }
    docker_beside(50)?;
    ensure!(pss <= 0.4 * 1024.0, "0.4 MB of PSS are allowed");
    ensure!(
        grown <= 0.05 * 1024.0,
        "containerd-lite may grow by 0.05 MB"
    );
    let allowed = Duration::from_millis(40);
    ensure!(batch.cpu_each() <= allowed, "{allowed:?} are allowed");
    Ok(())
}

/// The same figures of a real dockerd, for comparison.
fn docker_beside(count: usize) -> Result<()> {
    let parent = format!("lite-drill-peer-{}", std::process::id());
    let peer = Dockerd::start(&[
        "--bridge=none",
        "--iptables=false",
        "--cgroup-parent",
        &format!("/{parent}"),
    ])?;
    let folder = tempfile::tempdir()?;
    let tar = images::rootfs_tar(folder.path())?;
    let mut import = command(
        require::peer("docker")?,
        [
            "-H",
            &peer.host(),
            "import",
            &tar.to_string_lossy(),
            "busybox",
        ],
    );
    run(&mut import, b"", Duration::from_secs(60))?.exits(0)?;
    let mut pids = meter::children(peer.pid())?;
    pids.push(peer.pid());
    let name = format!("lite-drill-docker-{}", std::process::id());
    let _meter = Meter::of(&name, &pids)?;
    let memory = Memory::of(&name, &pids, &parent)?;
    let mut fleet = Fleet {
        socket: peer.socket(),
        made: AtomicUsize::new(0),
        groups: vec![meter::group(&name)],
    };
    fleet.grow(2, 1)?;
    // That of the containers is there now.
    fleet.groups.push(meter::group(&parent));
    let (available, charged) = (meter::available()?, memory.charged()?);
    let batch = fleet.grow(count, 1)?;
    std::thread::sleep(Duration::from_secs(3));
    let fall = available.saturating_sub(meter::available()?) as f64 / count as f64;
    let charged = memory.charged()?.saturating_sub(charged) as f64 / count as f64;
    batch.print(&format!("docker, {count} one after another"));
    println!(
        "docker, idle: MemAvailable {fall:.0} KiB less each, {charged:.0} KiB charged with the kernel's"
    );
    fleet.remove_all()?;
    drop(peer);
    drop(memory);
    // Its groups are empty now.
    let _ = command("find", ["/sys/fs/cgroup", "-depth", "-type", "d", "-path"])
        .arg(format!("*/{parent}*"))
        .arg("-delete")
        .stderr(std::process::Stdio::null())
        .status();
    Ok(())
}

/// Many at a time: nobody waits much longer than the others.
fn parallel(fleet: &Fleet) -> Result<()> {
    let count = if full() { 320 } else { 16 };
    let batch = fleet.grow(count, 32)?;
    batch.print(&format!("{count}, 32 at a time"));
    let (p99, median) = (batch.percentile(99), batch.percentile(50));
    ensure!(
        !full() || p99 <= median * 3,
        "p99 is {p99:?}, the median {median:?}"
    );
    Ok(())
}

/// Up to a thousand at the promised pace, then to two thousand.
fn many(fleet: &Fleet) -> Result<()> {
    let made = fleet.made.load(Ordering::Relaxed);
    let batch = fleet.grow(1000_usize.saturating_sub(made), 4)?;
    batch.print("up to 1000, 4 at a time");
    let per_core = 1.0 / batch.cpu_each().as_secs_f64();
    ensure!(per_core >= 25.0, "{per_core:.1} per second and core");
    fleet.grow(1000, 4)?.print("up to 2000, 4 at a time");
    let running = fleet.running()?;
    ensure!(running == 2000, "{running} of 2000 run");
    Ok(())
}

/// Whether all of these have ended within the time.
pub(crate) fn all_end(pids: &[u32], limit: Duration) -> Result<Duration> {
    let begun = Instant::now();
    eventually::within(limit, "all end", || {
        let left = pids.iter().filter(|pid| alive(**pid)).count();
        ensure!(left == 0, "{left} are alive");
        Ok(())
    })?;
    Ok(begun.elapsed())
}
