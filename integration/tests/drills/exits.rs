//! Exits while the daemon in the middle is away: every code is there soon after its return, whoever asks.
//!
//! All containers wait for one fifo to be opened. The daemon is killed, the fifo opened, and after the outage the daemon
//! started again. Container `i` ends with code `i` modulo 256. A first round with nothing down shows what a hundred ends at once
//! cost the client itself on this machine; only what is above that is the outage's. A real dockerd comes back when it likes:
//! by its pauses between attempts up to some seconds after a long outage, and answers questions about a container once it is
//! through with all ends that it has heard of; so only a generous bound is put on that.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use integration::eventually;
use integration::leaks::Census;
use integration::rig::parts::{Client, Middle, Part as _, Release, Runtime, Shim};
use integration::rig::{IMAGE, Rig};

use crate::full;

/// How long a real dockerd may take to come back and to be through with all ends.
const COMEBACK: Duration = Duration::from_secs(15);

/// How one chain did.
struct Figure {
    outage: Duration,
    /// Of how many containers the right code was told.
    right: usize,
    /// From the return of the daemon, or the client's new subscription where that is seen, to the first right code.
    first: Duration,
    /// The same to the last one.
    took: Duration,
}

fn count() -> usize {
    if full() { 100 } else { 8 }
}

fn outages() -> Vec<Duration> {
    let seconds: &[f64] = if full() {
        &[0.1, 1.0, 10.0, 60.0]
    } else {
        &[0.5]
    };
    seconds
        .iter()
        .map(|s| Duration::from_secs_f64(*s))
        .collect()
}

#[test]
fn ctr_hears_of_every_exit() -> Result<()> {
    ours(Client::Ctr(Release::Installed), Duration::from_secs(1))
}

#[test]
#[ignore = "a minute; make drill runs it"]
fn dockerd_hears_of_every_exit() -> Result<()> {
    ours(Client::Dockerd(Release::Installed), COMEBACK)
}

#[test]
#[ignore = "a minute; make drill runs it"]
fn newest_dockerd_hears_of_every_exit() -> Result<()> {
    ours(Client::Dockerd(Release::Newest), COMEBACK)
}

#[test]
fn dockerd_lite_hears_of_every_exit() -> Result<()> {
    ours(Client::DockerdLite, Duration::from_secs(1))
}

/// The same drill on the real containerd, for comparison: nothing is asserted of it.
#[test]
#[ignore = "figures of a peer; make drill runs it"]
fn real_containerd_for_comparison() -> Result<()> {
    for client in [
        Client::Ctr(Release::Installed),
        Client::Dockerd(Release::Installed),
    ] {
        let middle = Middle::Containerd(Release::Installed);
        let shim = Shim::Go(Release::Installed);
        for figure in drill(client, middle, shim, Runtime::Runc)? {
            print(
                &format!("{} on {}", client.label(), middle.label()),
                &figure,
            );
        }
    }
    Ok(())
}

fn ours(client: Client, limit: Duration) -> Result<()> {
    if client.program().is_none() {
        println!("SKIPPED exit drill: no {} here", client.label());
        return Ok(());
    }
    // Debug builds on a busy machine take longer; the promise is held by the full drill.
    let limit = if full() { limit } else { limit * 5 };
    let figures = drill(client, Middle::Lite, Shim::Lite, Runtime::Lite)?;
    let mut undisturbed = Duration::ZERO;
    for figure in figures {
        print(&format!("{} on containerd-lite", client.label()), &figure);
        if figure.outage.is_zero() {
            undisturbed = figure.took;
        }
        ensure!(
            figure.right == count() && figure.took <= limit + undisturbed,
            "{} of {} right after {:?}, {limit:?} more than {undisturbed:?} are allowed",
            figure.right,
            count(),
            figure.took
        );
    }
    Ok(())
}

fn print(name: &str, figure: &Figure) {
    println!(
        "{name}: down {:?}: {} of {} codes right, the first {:?} and the last {:?} after the return",
        figure.outage,
        figure.right,
        count(),
        figure.first,
        figure.took
    );
}

fn drill(client: Client, middle: Middle, shim: Shim, runtime: Runtime) -> Result<Vec<Figure>> {
    let mut rig = Rig::start(client, middle)?;
    rig.choose(shim, runtime)?;
    std::fs::create_dir(rig.path("gate"))?;
    let fifo = rig.path("gate/go");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU)?;
    let before = Census::take(rig.scope())?;
    let mut figures = Vec::new();
    let undisturbed = Duration::ZERO;
    for outage in std::iter::once(undisturbed).chain(outages()) {
        let docker = !matches!(client, Client::Ctr(_));
        start_all(&rig, docker)?;
        if outage == undisturbed {
            open_gate(&fifo)?;
        } else {
            rig.kill_middle()?;
            let killed = Instant::now();
            open_gate(&fifo)?;
            std::thread::sleep(outage.saturating_sub(killed.elapsed()));
            rig.start_middle()?;
        }
        let (right, first, took) = if docker {
            by_docker(&rig)?
        } else {
            by_ctr(&rig)?
        };
        figures.push(Figure {
            outage,
            right,
            first,
            took,
        });
        // What a real peer has lost may not go; that is its figure, not an error of the drill.
        let names: Vec<_> = (0..count()).map(name).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        for names in names.chunks(20) {
            if docker {
                rig.docker([&["rm", "-f"], names].concat())?;
            } else {
                rig.ctr([&["task", "rm", "-f"], names].concat())?;
                rig.ctr([&["container", "rm"], names].concat())?;
            }
        }
    }
    if middle == Middle::Lite {
        let same: Vec<_> = before
            .lines()
            .filter(|l| !l.starts_with("process"))
            .collect();
        eventually::within(Duration::from_secs(20), "the census is flat", || {
            let now = Census::take(rig.scope())?;
            let more: Vec<_> = now
                .lines()
                .filter(|l| !l.starts_with("process") && !same.contains(l))
                .filter(|l| l.contains("cgroup") || l.contains("mount") || l.contains("e2e"))
                .collect();
            ensure!(more.is_empty(), "left behind: {more:#?}");
            Ok(())
        })?;
    }
    Ok(figures)
}

fn name(i: usize) -> String {
    format!("e2e{i}")
}

fn code(i: usize) -> String {
    (i % 256).to_string()
}

/// Starts all of them, some at a time.
fn start_all(rig: &Rig, docker: bool) -> Result<()> {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let work = || {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= count() {
                    return Ok(());
                }
                start(rig, docker, i).with_context(|| format!("container {i}"))?;
            }
        };
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .expect("a thread that starts containers does not panic")
        })
    })
}

fn start(rig: &Rig, docker: bool, i: usize) -> Result<()> {
    let script = format!("read x </gate/go; exit {}", code(i));
    let gate = rig.path("gate");
    let command = ["sh", "-c", &script];
    if docker {
        let volume = format!("{}:/gate", gate.display());
        let name = name(i);
        let flags = ["run", "-d", "--name", &name, "--network", "none", "-v"];
        return rig
            .docker([flags.as_slice(), &[&volume, IMAGE], &command].concat())?
            .exits(0)
            .map(drop);
    }
    let mount = format!(
        "type=bind,src={},dst=/gate,options=rbind:rw",
        gate.display()
    );
    let name = name(i);
    let flags = [
        "run",
        "-d",
        "--null-io",
        "--runc-binary",
        "runc",
        "--mount",
        &mount,
    ];
    rig.ctr([flags.as_slice(), &[IMAGE, &name], &command].concat())?
        .exits(0)
        .map(drop)
}

/// Lets every container go: each reads the end of the fifo once it was opened for writing and closed.
fn open_gate(fifo: &std::path::Path) -> Result<()> {
    for _ in 0..3 {
        let mut flags = std::fs::File::options();
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut flags, nix::libc::O_NONBLOCK);
        match flags.write(true).open(fifo) {
            Ok(gate) => {
                std::thread::sleep(Duration::from_millis(30));
                drop(gate);
            }
            // Nobody waits any more.
            Err(e) if e.raw_os_error() == Some(nix::libc::ENXIO) => return Ok(()),
            Err(e) => bail!("open the gate: {e}"),
        }
    }
    Ok(())
}

/// Asks until all are right, at most for a while; how many are right in the end and after what time the last was.
fn by_docker(rig: &Rig) -> Result<(usize, Duration, Duration)> {
    let begun = Instant::now();
    let names: Vec<_> = (0..count()).map(name).collect();
    let format = "{{.Name}} {{.State.Status}} {{.State.ExitCode}}";
    let wanted: Vec<_> = (0..count())
        .map(|i| format!("/{} exited {}", name(i), code(i)))
        .collect();
    let (mut right, mut first, mut last) = (0, None, Duration::ZERO);
    loop {
        let mut arguments = vec!["inspect", "-f", format];
        arguments.extend(names.iter().map(String::as_str));
        let told = rig.docker(arguments)?;
        let answered = begun.elapsed();
        let lines: Vec<_> = told.stdout.lines().collect();
        let now = wanted
            .iter()
            .filter(|w| lines.contains(&w.as_str()))
            .count();
        if now > right {
            (right, last) = (now, answered);
            first.get_or_insert(answered);
        }
        if right == count() || begun.elapsed() > Duration::from_secs(30) {
            return Ok((right, first.unwrap_or_default(), last));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Subscribes anew and counts what is told.
fn by_ctr(rig: &Rig) -> Result<(usize, Duration, Duration)> {
    let file = rig.path("exits");
    let mut command = rig.ctr_command(["events"])?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&file)?)
        .stderr(Stdio::null())
        .spawn()?;
    let begun = Instant::now();
    let (mut right, mut first, mut last) = (0, None, Duration::ZERO);
    while right < count() && begun.elapsed() < Duration::from_secs(8) {
        std::thread::sleep(Duration::from_millis(20));
        let told = told(&std::fs::read_to_string(&file)?);
        let fits = |i: &usize| told.get(&name(*i)).is_some_and(|c| *c == code(*i));
        let now = (0..count()).filter(fits).count();
        if now > right {
            (right, last) = (now, begun.elapsed());
            first.get_or_insert(last);
        }
    }
    child.kill()?;
    child.wait()?;
    Ok((right, first.unwrap_or_default(), last))
}

/// Exit codes by container, from the lines of `ctr events`.
fn told(text: &str) -> BTreeMap<String, String> {
    let mut codes = BTreeMap::new();
    for line in text.lines().filter(|l| l.contains(" /tasks/exit ")) {
        let Some(at) = line.find('{') else { continue };
        let Ok(event) = serde_json::from_str::<serde_json::Value>(&line[at..]) else {
            continue;
        };
        let id = event["container_id"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        // A code of 0 is left out.
        let code = event["exit_status"].as_u64().unwrap_or(0);
        codes.insert(id, code.to_string());
    }
    codes
}
