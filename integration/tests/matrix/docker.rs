//! The scenario through a Docker daemon.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::eventually;
use integration::rig::{IMAGE, Rig, has_line};

/// How long something may take to show itself; generous, since machines that test are busy.
const SOON: Duration = Duration::from_secs(30);

/// A container that says so when it is ready and ends with 5 on SIGTERM.
pub(crate) const LIVE: &str = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done";
/// Names its terminal. Whatever speaks here stays a moment behind its last word: Go shims and ctr lose the output of a process
/// that ends at once now and then, with any runtime (seen here with runc: 3 of 240 terminals, 2 of 160 execs).
pub(crate) const TTY: &str = "tty; sleep 0.2";
/// Allocates until it is killed.
pub(crate) const GREEDY: &str = "x=a; while :; do x=$x$x; done";

/// Runs all steps; the error names the step.
pub(crate) fn scenario(rig: &mut Rig) -> Result<()> {
    run(rig).context("run")?;
    tty(rig).context("tty")?;
    let pid = live(rig).context("logs")?;
    exec(rig).context("exec")?;
    pause(rig).context("pause")?;
    stats(rig).context("stats")?;
    oom_and_events(rig).context("oom, events")?;
    restart(rig, pid).context("restart of the middle")?;
    stop(rig).context("stop")?;
    kill(rig).context("kill")
}

/// Removes what a failed scenario left.
pub(crate) fn clean(rig: &Rig) -> Result<()> {
    rig.docker(["rm", "-f", "live", "oom"]).map(drop)
}

fn run(rig: &Rig) -> Result<()> {
    let command = ["sh", "-c", "echo hi; sleep 0.2; exit 3"];
    let out = rig.docker(
        [
            &["run", "--rm", "--network", "none", IMAGE],
            command.as_slice(),
        ]
        .concat(),
    )?;
    let out = out.exits(3)?;
    ensure!(out.stdout == "hi\n", "printed {:?}", out.stdout);
    Ok(())
}

fn tty(rig: &Rig) -> Result<()> {
    let command = ["run", "--rm", "-t", "--network", "none", IMAGE];
    let command = [command.as_slice(), &["sh", "-c", TTY]].concat();
    let out = rig.docker(command)?.exits(0)?;
    ensure!(out.stdout.starts_with("/dev/"), "printed {:?}", out.stdout);
    Ok(())
}

fn live(rig: &Rig) -> Result<String> {
    let flags = ["run", "-d", "--name", "live", "--network", "none", IMAGE];
    rig.docker([flags.as_slice(), &["sh", "-c", LIVE]].concat())?
        .exits(0)?;
    eventually::within(SOON, "its line is in the log", || {
        has_line(&rig.docker(["logs", "live"])?.exits(0)?.stdout, "ready")
    })?;
    inspect(rig, "live", "{{.State.Pid}}")
}

fn inspect(rig: &Rig, name: &str, format: &str) -> Result<String> {
    let out = rig.docker(["inspect", "-f", format, name])?.exits(0)?;
    Ok(out.stdout.trim().to_owned())
}

fn exec(rig: &Rig) -> Result<()> {
    let out = rig.docker(["exec", "live", "sh", "-c", "echo in; sleep 0.2; exit 7"])?;
    let out = out.exits(7)?;
    ensure!(out.stdout == "in\n", "printed {:?}", out.stdout);
    let mut input = rig.docker_command(["exec", "-i", "live", "cat"])?;
    let out = integration::programs::run(&mut input, b"through\n", SOON)?.exits(0)?;
    ensure!(out.stdout == "through\n", "cat printed {:?}", out.stdout);
    Ok(())
}

fn state_is(rig: &Rig, name: &str, wanted: &str) -> Result<()> {
    let format = "{{.State.Status}} {{.State.ExitCode}}";
    eventually::within(SOON, wanted, || {
        let state = inspect(rig, name, format)?;
        ensure!(state == wanted, "{name} is {state}");
        Ok(())
    })
}

fn pause(rig: &Rig) -> Result<()> {
    rig.docker(["pause", "live"])?.exits(0)?;
    state_is(rig, "live", "paused 0")?;
    rig.docker(["unpause", "live"])?.exits(0)?;
    state_is(rig, "live", "running 0")
}

fn stats(rig: &Rig) -> Result<()> {
    let format = "{{.PIDs}} {{.MemUsage}}";
    let out = rig.docker(["stats", "--no-stream", "--format", format, "live"])?;
    let out = out.exits(0)?;
    let pids: u32 = out
        .stdout
        .split(' ')
        .next()
        .unwrap_or_default()
        .parse()
        .with_context(|| format!("printed {:?}", out.stdout))?;
    ensure!(pids >= 1, "printed {:?}", out.stdout);
    ensure!(!out.stdout.contains(" 0B /"), "printed {:?}", out.stdout);
    Ok(())
}

fn oom_and_events(rig: &Rig) -> Result<()> {
    let since = now();
    let limits = ["-m", "16m", "--memory-swap", "16m"];
    let flags = ["run", "--name", "oom", "--network", "none"];
    let command = [IMAGE, "sh", "-c", GREEDY];
    rig.docker([flags.as_slice(), &limits, &command].concat())?
        .exits(137)?;
    eventually::within(SOON, "out of memory is told", || {
        let told = inspect(rig, "oom", "{{.State.OOMKilled}}")?;
        ensure!(told == "true", "OOMKilled is {told}");
        Ok(())
    })?;
    rig.docker(["rm", "oom"])?.exits(0)?;
    eventually::within(SOON, "all events are told", || {
        let until = now();
        let window = ["events", "--since", &since, "--until", &until];
        let rest = ["--filter", "container=oom", "--format", "{{.Action}}"];
        let told = rig
            .docker([window.as_slice(), &rest].concat())?
            .exits(0)?
            .stdout;
        for event in ["create", "start", "oom", "die", "destroy"] {
            has_line(&told, event)?;
        }
        Ok(())
    })
}

fn now() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.unwrap_or_default();
    format!("{}.{:09}", now.as_secs(), now.subsec_nanos())
}

/// The container is there with the same pid, and whatever needs its shim works again.
fn restart(rig: &mut Rig, pid: String) -> Result<()> {
    rig.kill_middle()?;
    rig.start_middle()?;
    eventually::within(SOON, "an exec works again", || {
        let out = rig
            .docker(["exec", "live", "sh", "-c", "exit 9"])?
            .exits(9)?;
        ensure!(out.stderr.is_empty(), "stderr {:?}", out.stderr);
        Ok(())
    })?;
    let now = inspect(rig, "live", "{{.State.Pid}}")?;
    ensure!(now == pid, "it had pid {pid} and has {now}");
    Ok(())
}

/// A real dockerd takes up to two seconds after the restart to hear of exits again, so this waits.
fn stop(rig: &Rig) -> Result<()> {
    rig.docker(["stop", "-t", "20", "live"])?.exits(0)?;
    state_is(rig, "live", "exited 5")
}

fn kill(rig: &Rig) -> Result<()> {
    rig.docker(["start", "live"])?.exits(0)?;
    rig.docker(["kill", "live"])?.exits(0)?;
    state_is(rig, "live", "exited 137")?;
    rig.docker(["rm", "live"])?.exits(0).map(drop)
}
