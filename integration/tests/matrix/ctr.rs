//! The scenario through ctr.

use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::eventually;
use integration::programs::{command, run};
use integration::rig::{IMAGE, Rig, has_line};

use crate::docker::{GREEDY, LIVE, TTY};

/// How long something may take to show itself; generous, since machines that test are busy.
const SOON: Duration = Duration::from_secs(30);

/// Words of every `ctr run`.
const RUN: [&str; 3] = ["run", "--runc-binary", "runc"];

/// Runs all steps; the error names the step.
pub(crate) fn scenario(rig: &mut Rig) -> Result<()> {
    let events = Events::follow(rig).context("events")?;
    plain_run(rig).context("run")?;
    tty(rig).context("tty")?;
    let pid = live(rig).context("logs")?;
    exec(rig).context("exec")?;
    pause(rig).context("pause")?;
    stats(rig).context("stats")?;
    oom(rig).context("oom")?;
    events.tell().context("events")?;
    restart(rig, &pid).context("restart of the middle")?;
    end(rig, "live", "SIGTERM", 5).context("stop")?;
    detached(rig, "live").context("kill")?;
    end(rig, "live", "SIGKILL", 137).context("kill")
}

/// Removes what a failed scenario left.
pub(crate) fn clean(rig: &Rig) -> Result<()> {
    for name in ["once", "tty", "live", "oom"] {
        rig.ctr(["task", "kill", "-s", "SIGKILL", name])?;
        rig.ctr(["task", "rm", "-f", name])?;
        rig.ctr(["container", "rm", name])?;
    }
    Ok(())
}

/// `ctr events` into a file.
struct Events {
    child: Child,
    file: std::path::PathBuf,
}

impl Events {
    fn follow(rig: &Rig) -> Result<Self> {
        let file = rig.path("events");
        let mut command = rig.ctr_command(["events"])?;
        let child = command
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&file)?)
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child, file })
    }

    fn tell(&self) -> Result<()> {
        eventually::within(SOON, "all events are told", || {
            let text = std::fs::read_to_string(&self.file)?;
            for topic in [
                "create",
                "start",
                "exit",
                "delete",
                "oom",
                "paused",
                "exec-started",
            ] {
                let topic = format!("/tasks/{topic} ");
                ensure!(text.contains(&topic), "no {topic}in {text:?}");
            }
            Ok(())
        })
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // It may have ended with its daemon.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn plain_run(rig: &Rig) -> Result<()> {
    let rest = [
        "--rm",
        IMAGE,
        "once",
        "sh",
        "-c",
        "echo hi; sleep 0.2; exit 3",
    ];
    let out = rig.ctr([RUN.as_slice(), &rest].concat())?.exits(3)?;
    ensure!(out.stdout == "hi\n", "printed {:?}", out.stdout);
    Ok(())
}

fn tty(rig: &Rig) -> Result<()> {
    let rest = ["--rm", "-t", IMAGE, "tty", "sh", "-c"];
    let inner = rig.ctr_command([RUN.as_slice(), &rest].concat())?;
    let words = std::iter::once(inner.get_program()).chain(inner.get_args());
    let mut line: Vec<_> = words.map(|w| w.to_string_lossy().into_owned()).collect();
    line.push(format!("'{TTY}'"));
    // ctr wants a terminal of its own
    let out = run(
        &mut command("script", ["-qec", &line.join(" "), "/dev/null"]),
        b"",
        SOON,
    )?;
    let out = out.exits(0)?;
    ensure!(out.stdout.contains("/dev/"), "printed {:?}", out.stdout);
    Ok(())
}

fn detached(rig: &Rig, name: &str) -> Result<()> {
    let log = rig.path("live.log");
    if log.exists() {
        std::fs::remove_file(&log)?;
    }
    let uri = format!("file://{}", log.display());
    let rest = ["-d", "--log-uri", &uri, IMAGE, name, "sh", "-c", LIVE];
    rig.ctr([RUN.as_slice(), &rest].concat())?.exits(0)?;
    eventually::within(SOON, "its line is in the log", || {
        has_line(&std::fs::read_to_string(&log)?, "ready")
    })
}

fn live(rig: &Rig) -> Result<String> {
    detached(rig, "live")?;
    let (pid, status) = listed(rig, "live")?;
    ensure!(status == "RUNNING", "it is {status}");
    Ok(pid)
}

/// Pid and status as `ctr task ls` says.
fn listed(rig: &Rig, name: &str) -> Result<(String, String)> {
    let list = rig.ctr(["task", "ls"])?.exits(0)?.stdout;
    let mut rows = list
        .lines()
        .map(|l| l.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row.first() == Some(&name));
    let row = row.with_context(|| format!("no {name} in {list:?}"))?;
    ensure!(row.len() == 3, "row {row:?}");
    Ok((row[1].to_owned(), row[2].to_owned()))
}

fn exec(rig: &Rig) -> Result<()> {
    let words = ["task", "exec", "--exec-id", "e1", "live"];
    let out = rig.ctr(
        [
            words.as_slice(),
            &["sh", "-c", "echo in; sleep 0.2; exit 7"],
        ]
        .concat(),
    )?;
    let out = out.exits(7)?;
    ensure!(out.stdout == "in\n", "printed {:?}", out.stdout);
    Ok(())
}

fn pause(rig: &Rig) -> Result<()> {
    rig.ctr(["task", "pause", "live"])?.exits(0)?;
    let (_, status) = listed(rig, "live")?;
    ensure!(status == "PAUSED", "it is {status}");
    rig.ctr(["task", "resume", "live"])?.exits(0)?;
    let (_, status) = listed(rig, "live")?;
    ensure!(status == "RUNNING", "it is {status}");
    Ok(())
}

fn stats(rig: &Rig) -> Result<()> {
    let out = rig
        .ctr(["task", "metrics", "--format", "json", "live"])?
        .exits(0)?;
    let value: serde_json::Value =
        serde_json::from_str(&out.stdout).with_context(|| format!("metrics {:?}", out.stdout))?;
    let text = value.to_string();
    ensure!(
        value.pointer("/pids/current").is_some() && text.contains("memory"),
        "metrics {text}"
    );
    Ok(())
}

fn oom(rig: &Rig) -> Result<()> {
    let rest = ["--rm", "--memory-limit", "16777216", IMAGE, "oom"];
    let words = [RUN.as_slice(), &rest, &["sh", "-c", GREEDY]].concat();
    rig.ctr(words)?.exits(137).map(drop)
}

/// The task is there with the same pid, and whatever needs its shim works again.
fn restart(rig: &mut Rig, pid: &str) -> Result<()> {
    rig.kill_middle()?;
    rig.start_middle()?;
    let (now, status) = eventually::within(SOON, "the task is listed", || listed(rig, "live"))?;
    ensure!(
        now == pid && status == "RUNNING",
        "it had pid {pid} and is now {now} {status}"
    );
    let words = [
        "task",
        "exec",
        "--exec-id",
        "e2",
        "live",
        "sh",
        "-c",
        "exit 9",
    ];
    rig.ctr(words)?.exits(9).map(drop)
}

fn end(rig: &Rig, name: &str, signal: &str, code: i32) -> Result<()> {
    rig.ctr(["task", "kill", "-s", signal, name])?.exits(0)?;
    eventually::within(SOON, "it has ended", || {
        let (_, status) = listed(rig, name)?;
        ensure!(status == "STOPPED", "it is {status}");
        Ok(())
    })?;
    let out = rig.ctr(["task", "rm", name])?;
    // older ones only warn of a code, newer ones may end with it
    let told = out.stderr.contains(&format!("non-zero exit code {code}"));
    ensure!(
        told || out.code == code,
        "wanted exit code {code}, got {out:?}"
    );
    rig.ctr(["container", "rm", name])?.exits(0).map(drop)
}
