//! SIGKILL of dockerd-lite, of containerd-lite and of both under twenty containers: nothing is lost.
//!
//! `LITE_DRILL=full` kills five times each; else one round each, which is what fits an everyday run.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
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

fn rounds() -> usize {
    if std::env::var("LITE_DRILL").as_deref() == Ok("full") {
        5
    } else {
        1
    }
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
/// Numbered lines at about 10 MB/s to a bounded total; each line also goes with its own time to a file outside of the log.
const FAST: &str = "i=0; while [ $i -lt 600 ]; do i=$((i+1)); n=$i; dd if=/dev/zero bs=100000 count=1 2>/dev/null | tr '\\0' x; echo \" $n\"; cut -d' ' -f1 /proc/uptime >>/out/times; usleep 5000; done; exec sleep 10000";

struct Population {
    /// Pid by name of what must survive.
    pids: BTreeMap<String, u32>,
    /// Names of what exits with 7 during the outage.
    exiting: Vec<String>,
    slow: Vec<String>,
}

fn populate(stack: &Stack, out: &std::path::Path) -> Result<Population> {
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
    let mut stack = Stack::start()?;
    images::busybox(&stack)?;
    for round in 0..rounds() {
        println!("{victim:?} round {round}");
        let before = Census::take(stack.scope())?;
        one_round(&mut stack, victim).with_context(|| {
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

fn one_round(stack: &mut Stack, victim: Victim) -> Result<()> {
    let out = tempfile::tempdir()?;
    let population = populate(stack, out.path())?;
    let started = Instant::now();
    match victim {
        Victim::Dockerd => stack.kill_daemon()?,
        Victim::Containerd => {
            let old = stack.pids_of("containerd-lite")?;
            stack.kill_containerd()?;
            let killed = Instant::now();
            eventually::within(Duration::from_secs(5), "a new containerd-lite", || {
                let now = stack.pids_of("containerd-lite")?;
                ensure!(!now.is_empty() && now != old, "{now:?}");
                Ok(())
            })?;
            let back = killed.elapsed();
            println!("containerd-lite back after {back:?}");
            ensure!(
                back < Duration::from_millis(250),
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
    fast_logger(stack, out.path())
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

/// All numbered lines are there once, and the writer was never held up for long.
fn fast_logger(stack: &Stack, out: &std::path::Path) -> Result<()> {
    let file = out.join("times");
    eventually::within(Duration::from_secs(60), "the fast logger is done", || {
        let lines = std::fs::read_to_string(&file)?.lines().count();
        ensure!(lines == 600, "{lines} of 600 lines");
        Ok(())
    })?;
    let mut wanted = 0_u64;
    let log = stack.lite(["logs", "fast"])?.exits(0)?.stdout;
    for line in log.lines() {
        wanted += 1;
        let (text, number) = line.rsplit_once(' ').context("a numbered line")?;
        ensure!(
            text.len() == 100_000 && number.parse() == Ok(wanted),
            "fast: line {wanted} is torn, missing or doubled"
        );
    }
    ensure!(wanted == 600, "fast: {wanted} of 600 lines");
    let times: Vec<f64> = std::fs::read_to_string(&file)?
        .lines()
        .filter_map(|l| l.parse().ok())
        .collect();
    let gap = times.windows(2).map(|w| w[1] - w[0]).fold(0.0, f64::max);
    println!("longest gap of the fast logger: {:.0} ms", gap * 1000.0);
    if gap > 0.75 {
        bail!("the fast logger was held up for {gap} s");
    }
    Ok(())
}
