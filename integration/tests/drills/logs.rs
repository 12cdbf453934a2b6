//! Much output: what it costs outside of the container to keep it, to read it back and to follow it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::http::ask_within;
use integration::images;
use integration::stack::Stack;

use crate::full;
use crate::meter::Meter;

/// How long one container may write.
const PATIENCE: Duration = Duration::from_secs(300);

fn lines() -> usize {
    if full() { 1_000_000 } else { 20_000 }
}

#[test]
fn a_million_lines_cost_little() -> Result<()> {
    let stack = Stack::start()?;
    images::busybox(&stack)?;
    let mut pids = vec![stack.daemon_pid().context("the daemon runs")?];
    pids.extend(stack.pids_of("containerd-lite")?);
    let name = format!("lite-drill-logs-{}", std::process::id());
    let meter = Meter::of(&name, &pids)?;
    let lines = lines();
    let digits: usize = (1..=lines).map(|n| n.to_string().len() + 1).sum();
    for (what, script, bytes) in [
        ("short", format!("seq 1 {lines}"), digits),
        (
            "long",
            format!("yes {} | head -n {lines}", "x".repeat(99)),
            lines * 100,
        ),
    ] {
        let kept = write(&stack, &meter, what, &script)?;
        let read = read(&stack, &meter, what, "", bytes)?;
        let followed = follow(&stack, &meter, &script, bytes, kept)?;
        println!(
            "{lines} {what} lines, {:.1} MB: kept for {kept:?} CPU, read back for {read:?}, followed live for {followed:?} more",
            bytes as f64 / 1e6
        );
        let limit = Duration::from_secs(1);
        ensure!(
            !full() || kept <= limit && read <= limit && followed <= limit,
            "{limit:?} are allowed for each"
        );
        stack.lite(["rm", what])?.exits(0)?;
    }
    drop(meter);
    stack.stop()
}

/// CPU that the chain has used without the containers themselves.
fn outside(stack: &Stack, meter: &Meter) -> Result<Duration> {
    meter.used_outside(&stack.scope().cgroup)
}

/// CPU outside of the container while it writes.
fn write(stack: &Stack, meter: &Meter, name: &str, script: &str) -> Result<Duration> {
    let before = outside(stack, meter)?;
    let flags = ["run", "-d", "--name", name, "--network", "none", "busybox"];
    stack
        .lite([flags.as_slice(), &["sh", "-c", script]].concat())?
        .exits(0)?;
    let socket = stack.path("docker.sock");
    let path = format!("/containers/{name}/wait");
    let ended = ask_within(PATIENCE, &socket, "POST", &path, "")?;
    ensure!(ended.json()["StatusCode"] == 0, "{ended:?}");
    Ok(outside(stack, meter)?.saturating_sub(before))
}

/// CPU of reading a log as a client does; `more` goes into the query.
fn read(stack: &Stack, meter: &Meter, name: &str, more: &str, bytes: usize) -> Result<Duration> {
    let before = outside(stack, meter)?;
    let socket = stack.path("docker.sock");
    let path = format!("/containers/{name}/logs?stdout=1&stderr=1{more}");
    let answer = ask_within(PATIENCE, &socket, "GET", &path, "")?;
    let (mut got, mut rest) = (0, answer.body.as_slice());
    while let Some((header, after)) = rest.split_at_checked(8) {
        let size = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let size = usize::try_from(size)?;
        got += size;
        rest = after.get(size..).context("a frame is cut short")?;
    }
    ensure!(got == bytes, "the log has {got} bytes, wanted {bytes}");
    Ok(outside(stack, meter)?.saturating_sub(before))
}

/// CPU of a client that follows while the container writes: that of both, less that of writing without a client.
fn follow(
    stack: &Stack,
    meter: &Meter,
    script: &str,
    bytes: usize,
    kept: Duration,
) -> Result<Duration> {
    let before = outside(stack, meter)?;
    let flags = ["run", "-d", "--name", "followed", "--network", "none"];
    let command = ["busybox", "sh", "-c", script];
    stack
        .lite([flags.as_slice(), &command].concat())?
        .exits(0)?;
    read(stack, meter, "followed", "&follow=1", bytes)?;
    let both = outside(stack, meter)?.saturating_sub(before);
    stack.lite(["rm", "-f", "followed"])?.exits(0)?;
    Ok(both.saturating_sub(kept))
}
