//! Why a container ended: inspect, the event and the list say so, one case for each cause.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::stack::{Stack, send};
use integration::{eventually, images};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(30);

fn lite(stack: &Stack, args: &[&str]) -> Result<String> {
    Ok(stack.lite(args)?.exits(0)?.stdout)
}

fn pid(stack: &Stack, name: &str) -> Result<u32> {
    let pid = lite(stack, &["inspect", "-f", "{{.State.Pid}}", name])?;
    Ok(pid.trim().parse()?)
}

/// Waits for the end and checks what the three places say.
fn ends(stack: &Stack, name: &str, code: i64, reason: &str, short: &str) -> Result<()> {
    let form = "{{.State.Status}} {{.State.ExitCode}} {{json .State}}";
    let state = eventually::within(LIMIT, &format!("{name} has ended"), || {
        let state = lite(stack, &["inspect", "-f", form, name])?;
        ensure!(state.starts_with(&format!("exited {code} ")), "{state}");
        Ok(state)
    })?;
    ensure!(
        state.contains(&format!("\"ExitReason\":\"{reason}")),
        "{name}: {state}"
    );
    let list = lite(
        stack,
        &[
            "ps",
            "-a",
            "--filter",
            &format!("name={name}"),
            "--format",
            "{{.Status}}",
        ],
    )?;
    ensure!(
        list.trim_end().ends_with(&format!(" ago ({short})")),
        "{name}: {list}"
    );
    let filter = format!("container={name}");
    let told = lite(
        stack,
        &[
            "events",
            "--since",
            "10m",
            "--until",
            "0s",
            "--filter",
            "event=die",
            "--filter",
            &filter,
            "--format",
            "{{json .Actor.Attributes}}",
        ],
    )?;
    ensure!(
        told.contains(&format!("\"exitReason\":\"{reason}")),
        "{name}: {told}"
    );
    Ok(())
}

#[test]
fn the_reason_of_an_end_is_told_everywhere() -> Result<()> {
    let stack = Stack::start()?;
    images::busybox(&stack)?;
    let run = |name: &str, more: &[&str], command: &[&str]| {
        lite(
            &stack,
            &[&["run", "-d", "--name", name], more, &["busybox"], command].concat(),
        )
    };
    let sleep: &[&str] = &["sleep", "1000"];

    run(
        "memory",
        &["-m", "16m", "--memory-swap", "16m"],
        &["sh", "-c", "tail -c 200m /dev/zero"],
    )?;
    // The shell says 137 for its killed child, or is killed itself.
    eventually::within(LIMIT, "it is out of memory", || {
        let state = lite(
            &stack,
            &[
                "inspect",
                "-f",
                "{{.State.OOMKilled}} {{.State.ExitCode}}",
                "memory",
            ],
        )?;
        ensure!(state == "true 137\n", "{state}");
        Ok(())
    })?;
    ends(&stack, "memory", 137, "out of memory", "out of memory")?;

    run("request", &[], sleep)?;
    lite(&stack, &["kill", "request"])?;
    ends(
        &stack,
        "request",
        137,
        "killed by API request: signal 9",
        "killed by request",
    )?;

    run(
        "deaf",
        &[],
        &["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"],
    )?;
    lite(&stack, &["stop", "-t", "1", "deaf"])?;
    ends(&stack, "deaf", 137, "stop timeout", "stop timeout")?;
    stack.stop()
}

#[test]
fn what_nobody_asked_for_is_told_from_the_exit_record() -> Result<()> {
    let stack = Stack::start()?;
    images::busybox(&stack)?;
    lite(
        &stack,
        &["run", "-d", "--name", "signal", "busybox", "sleep", "1000"],
    )?;
    // The first process of a pid namespace is deaf to all but this one.
    send(pid(&stack, "signal")?, Signal::SIGKILL)?;
    ends(
        &stack,
        "signal",
        137,
        "killed by signal 9 of unknown origin",
        "killed by a signal of unknown origin",
    )?;

    lite(
        &stack,
        &["run", "-d", "--name", "orphan", "busybox", "sleep", "1000"],
    )?;
    let shim = stack.pids_of("containerd-shim-lite-v2")?;
    send(*shim.first().context("no shim")?, Signal::SIGKILL)?;
    ends(&stack, "orphan", 137, "its shim died", "shim died")?;
    stack.stop()
}
