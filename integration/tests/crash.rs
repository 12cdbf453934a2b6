//! SIGKILL of dockerd-lite, of containerd-lite and of both under twenty containers: nothing is lost.
//!
//! `LITE_DRILL=full` kills five times each and holds the promised times; else one round each, which is what fits an everyday
//! run, and more time, since debug builds run there on a busy machine.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration::leaks::Census;
use integration::stack::{Stack, alive, tail};
use integration::{eventually, images};

/// Which daemons a round kills.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Victim {
    Dockerd,
    Containerd,
    Both,
}

fn full() -> bool {
    std::env::var("LITE_DRILL").as_deref() == Ok("full")
}

/// How long a killed containerd-lite may take until it listens again.
fn back_within() -> Duration {
    Duration::from_millis(if full() { 100 } else { 500 })
}

/// By how much the fast logger's longest gap may exceed that of a run without kills.
fn longer_gap() -> Duration {
    Duration::from_millis(if full() { 250 } else { 750 })
}

#[test]
fn dockerd_lite_killed() -> Result<()> {
    drill(Victim::Dockerd)
}

#[test]
fn containerd_lite_killed() -> Result<()> {
    drill(Victim::Containerd)
}

#[test]
fn both_killed() -> Result<()> {
    drill(Victim::Both)
}

/// Lines of one logger a container: `seq` counts up without a gap.
const SLOW: &str = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done";
/// How many lines the fast logger writes.
const LINES: usize = 600;
/// Numbered lines at about 10 MB/s to a bounded total; each line also goes with its own time to a file outside of the log.
const FAST: &str = "i=0; while [ $i -lt 600 ]; do i=$((i+1)); n=$i; dd if=/dev/zero bs=100000 count=1 2>/dev/null | tr '\\0' x; echo \" $n\"; cut -d' ' -f1 /proc/uptime >>/out/times; usleep 5000; done; exec sleep 10000";

struct Population {
    /// Pid by name of what must survive.
    pids: BTreeMap<String, u32>,
    /// Names of what exits with 7 during the outage.
    exiting: Vec<String>,
    slow: Vec<String>,
}

fn populate(stack: &Stack, out: &Path) -> Result<Population> {
    let mut slow = Vec::new();
    let run = |name: &str, flags: &[&str], command: &str| -> Result<()> {
        let mut args = vec!["run", "-d", "--name", name];
        args.extend_from_slice(flags);
        args.extend_from_slice(&["busybox", "sh", "-c", command]);
        stack
            .lite(args)?
            .exits(0)
            .with_context(|| format!("container {name}"))?;
        Ok(())
    };
    for i in 0..6 {
        let name = format!("slow{i}");
        run(&name, &[], SLOW)?;
        slow.push(name);
    }
    for i in 0..6 {
        run(&format!("sleep{i}"), &[], "exec sleep 10000")?;
    }
    for i in 0..2 {
        run(&format!("tty{i}"), &["-t"], SLOW)?;
    }
    run("fast", &["-v", &format!("{}:/out", out.display())], FAST)?;
    let survivors = stack
        .lite(["ps", "--no-trunc", "--format", "{{.Names}}"])?
        .exits(0)?;
    let mut pids = BTreeMap::new();
    for name in survivors.stdout.lines() {
        pids.insert(name.to_owned(), pid_of(stack, name)?);
    }
    ensure!(pids.len() == 15, "15 of 15 run: {pids:?}");
    // these end while the daemons are away
    let mut exiting = Vec::new();
    for i in 0..5 {
        let name = format!("exit{i}");
        run(&name, &[], "sleep 3; exit 7")?;
        exiting.push(name);
    }
    Ok(Population {
        pids,
        exiting,
        slow,
    })
}

fn pid_of(stack: &Stack, name: &str) -> Result<u32> {
    let out = stack
        .lite(["inspect", "-f", "{{.State.Pid}}", name])?
        .exits(0)?;
    out.stdout
        .trim()
        .parse()
        .with_context(|| format!("pid of {name}: {:?}", out.stdout))
}

fn drill(victim: Victim) -> Result<()> {
    let calm = calm_gap()?;
    let mut stack = Stack::start()?;
    images::busybox(&stack)?;
    for round in 0..if full() { 5 } else { 1 } {
        println!("{victim:?} round {round}");
        let before = Census::take(stack.scope())?;
        one_round(&mut stack, victim, calm).with_context(|| {
            format!(
                "{victim:?} round {round}; dockerd-lite's log: {}",
                tail(&stack.path("dockerd.log"))
            )
        })?;
        let ids = stack.lite(["ps", "-aq"])?.exits(0)?.stdout;
        let ids: Vec<_> = ids.split_whitespace().collect();
        stack
            .lite([&["rm", "-f"], ids.as_slice()].concat())?
            .exits(0)?;
        // daemons that were started anew have new pids
        let same = before.lines().filter(|l| !l.starts_with("process")).count();
        eventually::within(Duration::from_secs(10), "the census is flat", || {
            let now = Census::take(stack.scope())?;
            let things: Vec<_> = now.lines().filter(|l| !l.starts_with("process")).collect();
            ensure!(
                things.len() <= same,
                "left behind: {:#?}",
                things
                    .iter()
                    .filter(|t| !before.lines().any(|b| b == **t))
                    .collect::<Vec<_>>()
            );
            ensure!(
                stack.pids_of("containerd-shim-lite-v2")?.is_empty(),
                "a shim is left"
            );
            Ok(())
        })?;
    }
    stack.stop()
}

/// The fast logger's longest gap among the same containers when nothing is killed; measured once.
fn calm_gap() -> Result<Duration> {
    static CALM: OnceLock<Duration> = OnceLock::new();
    if let Some(gap) = CALM.get() {
        return Ok(*gap);
    }
    let stack = Stack::start()?;
    images::busybox(&stack)?;
    let out = tempfile::tempdir()?;
    populate(&stack, out.path())?;
    let gap = longest_gap(&stack, out.path())?;
    println!("longest gap of the fast logger without kills: {gap:?}");
    stack.stop()?;
    Ok(*CALM.get_or_init(|| gap))
}

/// An HTTP/2 client's first words (RFC 9113, 3.4): the preface and an empty SETTINGS frame.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Kills containerd-lite and says after how long another one answers at the same place.
fn kill_containerd(stack: &Stack) -> Result<Duration> {
    let old = stack.pids_of("containerd-lite")?;
    stack.kill_containerd()?;
    let killed = Instant::now();
    let socket = stack.path("exec/containerd/containerd.sock");
    eventually::within(Duration::from_secs(5), "a new containerd-lite", || {
        ensure!(!old.iter().any(|pid| alive(*pid)), "{old:?} lives");
        // the listener may be older than the one who answers on it
        let mut connection = UnixStream::connect(&socket)?;
        connection.set_read_timeout(Some(Duration::from_secs(2)))?;
        connection.write_all(HELLO)?;
        connection.read_exact(&mut [0; 9]).context("its SETTINGS")
    })?;
    Ok(killed.elapsed())
}

fn one_round(stack: &mut Stack, victim: Victim, calm: Duration) -> Result<()> {
    let out = tempfile::tempdir()?;
    let population = populate(stack, out.path())?;
    let written = lines_written(out.path())?;
    ensure!(written < LINES, "the fast logger was done before the kill");
    let started = Instant::now();
    match victim {
        Victim::Dockerd => stack.kill_daemon()?,
        Victim::Containerd => {
            let back = kill_containerd(stack)?;
            println!("containerd-lite back after {back:?}");
            ensure!(
                back < back_within(),
                "containerd-lite was back after {back:?} only"
            );
        }
        Victim::Both => {
            stack.kill_daemon()?;
            stack.kill_containerd()?;
        }
    }
    // the exiting ones end now; with only containerd-lite killed there is no outage to speak of
    let away = Duration::from_secs(4).saturating_sub(started.elapsed());
    std::thread::sleep(away);
    if victim != Victim::Containerd {
        stack.spawn_daemon()?;
        stack.wait_ready(Duration::from_secs(10))?;
    }
    let answered = Instant::now();
    first_list_is_right(stack, &population)?;
    eventually::within(Duration::from_secs(1), "every exit code is right", || {
        for name in &population.exiting {
            let state = stack
                .lite([
                    "inspect",
                    "-f",
                    "{{.State.Status}} {{.State.ExitCode}}",
                    name,
                ])?
                .exits(0)?;
            ensure!(
                state.stdout.trim() == "exited 7",
                "{name}: {:?}",
                state.stdout
            );
        }
        Ok(())
    })?;
    println!(
        "exit codes right {:?} after the first answer",
        answered.elapsed()
    );
    for (name, pid) in &population.pids {
        ensure!(alive(*pid), "{name} (pid {pid}) did not survive");
        let now = pid_of(stack, name)?;
        ensure!(now == *pid, "{name} had pid {pid} and has {now}");
    }
    for name in &population.slow {
        numbers_have_no_gap(&stack.lite(["logs", name])?.exits(0)?.stdout, name)?;
    }
    for i in 0..2 {
        let name = format!("tty{i}");
        numbers_have_no_gap(&stack.lite(["logs", &name])?.exits(0)?.stdout, &name)?;
    }
    let gap = longest_gap(stack, out.path())?;
    println!("longest gap of the fast logger: {gap:?}");
    ensure!(
        gap <= calm + longer_gap(),
        "the fast logger was held up for {gap:?}, {calm:?} without kills"
    );
    Ok(())
}

fn first_list_is_right(stack: &Stack, population: &Population) -> Result<()> {
    let listed = stack
        .lite(["ps", "-a", "--format", "{{.Names}} {{.State}}"])?
        .exits(0)?;
    for name in population.pids.keys() {
        ensure!(
            listed
                .stdout
                .lines()
                .any(|l| l == format!("{name} running")),
            "first list: {name} is not running: {}",
            listed.stdout
        );
    }
    for name in &population.exiting {
        ensure!(
            listed.stdout.lines().any(|l| l == format!("{name} exited")),
            "first list: {name} is not exited: {}",
            listed.stdout
        );
    }
    Ok(())
}

fn numbers_have_no_gap(log: &str, name: &str) -> Result<()> {
    let mut wanted = 0_u64;
    for line in log.lines() {
        wanted += 1;
        let got: u64 = line
            .trim()
            .parse()
            .with_context(|| format!("{name}: line {line:?}"))?;
        ensure!(
            got == wanted,
            "{name}: line {wanted} missing or doubled, got {got}"
        );
    }
    ensure!(wanted > 40, "{name}: {wanted} lines only");
    Ok(())
}

fn lines_written(out: &Path) -> Result<usize> {
    match std::fs::read_to_string(out.join("times")) {
        Ok(text) => Ok(text.lines().count()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e).context("read the fast logger's times"),
    }
}

/// Waits for the fast logger's end; all its numbered lines are there once. The longest time between two of them, as it saw it.
fn longest_gap(stack: &Stack, out: &Path) -> Result<Duration> {
    eventually::within(Duration::from_secs(60), "the fast logger is done", || {
        let lines = lines_written(out)?;
        ensure!(lines == LINES, "{lines} of {LINES} lines");
        Ok(())
    })?;
    let mut wanted = 0;
    let log = stack.lite(["logs", "fast"])?.exits(0)?.stdout;
    for line in log.lines() {
        wanted += 1;
        let (text, number) = line.rsplit_once(' ').context("a numbered line")?;
        ensure!(
            text.len() == 100_000 && number.parse() == Ok(wanted),
            "fast: line {wanted} is torn, missing or doubled"
        );
    }
    ensure!(wanted == LINES, "fast: {wanted} of {LINES} lines");
    let times: Vec<f64> = std::fs::read_to_string(out.join("times"))?
        .lines()
        .map(|l| l.parse().with_context(|| format!("time {l:?}")))
        .collect::<Result<_>>()?;
    let gap = times.windows(2).map(|w| w[1] - w[0]).fold(0.0, f64::max);
    Ok(Duration::from_secs_f64(gap))
}
