//! A daemon that has thousands of containers: how soon it answers after its start, how long a list takes, what it needs.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration::http::{ask, ping};
use integration::stack::Stack;
use integration::{eventually, images};
use serde_json::Value;

use crate::{full, meter};

/// How many are stopped and how many run.
fn sizes() -> (usize, usize) {
    match full() {
        true => (5000, 200),
        false => (40, 4),
    }
}

#[test]
fn a_daemon_with_many_containers_answers_at_once() -> Result<()> {
    let (stopped, running) = sizes();
    let mut stack = Stack::start()?;
    images::busybox(&stack)?;
    let socket = stack.path("docker.sock");
    let begun = Instant::now();
    make(&socket, "stopped", stopped, "[\"true\"]")?;
    make(&socket, "running", running, "[\"sleep\",\"1000000\"]")?;
    eventually::within(Duration::from_secs(300), "all have ended", || {
        let (_, all) = listed(&socket)?;
        holds(&all, stopped, running)
    })?;
    println!(
        "{stopped} stopped and {running} running ones made in {:?}",
        begun.elapsed()
    );
    look(&stack, &socket)?;
    for both in [false, false, true] {
        stack.kill_daemon()?;
        if both {
            stack.kill_containerd()?;
        }
        let begun = Instant::now();
        stack.spawn_daemon()?;
        let answers = first(begun, || ping(&socket))?;
        let complete = first(begun, || {
            let (_, all) = listed(&socket)?;
            holds(&all, stopped, running)
        })?;
        let who = if both { "both daemons" } else { "dockerd-lite" };
        println!("{who} started anew: ping after {answers:?}, complete list after {complete:?}");
        ensure!(
            !full() || both || answers <= Duration::from_millis(200),
            "a ping was answered after {answers:?} only"
        );
        ensure!(
            !full() || both || complete <= Duration::from_secs(1),
            "the list was complete after {complete:?} only"
        );
    }
    look(&stack, &socket)?;
    remove(&socket)?;
    stack.stop()
}

/// The time from `begun` until `probe` succeeds.
fn first(begun: Instant, probe: impl FnMut() -> Result<()>) -> Result<Duration> {
    eventually::within(Duration::from_secs(60), "it answers", probe)?;
    Ok(begun.elapsed())
}

/// Memory and the time of a list, printed.
fn look(stack: &Stack, socket: &Path) -> Result<()> {
    let times: Vec<_> = (0..5)
        .map(|_| Ok(listed(socket)?.0))
        .collect::<Result<_>>()?;
    let best = times.iter().min().context("some lists")?;
    let daemon = stack.daemon_pid().context("the daemon runs")?;
    let containerd = stack.pids_of("containerd-lite")?;
    let containerd = containerd.first().context("containerd-lite runs")?;
    println!(
        "list of all: {best:?}; PSS of dockerd-lite {} KiB, of containerd-lite {} KiB",
        meter::pss(daemon)?,
        meter::pss(*containerd)?
    );
    Ok(())
}

fn listed(socket: &Path) -> Result<(Duration, Value)> {
    let begun = Instant::now();
    let answer = ask(socket, "GET", "/containers/json?all=1", "")?;
    ensure!(answer.status == 200, "list: {answer:?}");
    Ok((begun.elapsed(), answer.json()))
}

fn holds(all: &Value, stopped: usize, running: usize) -> Result<()> {
    let all = all.as_array().context("a list")?;
    let in_state = |state: &str| all.iter().filter(|one| one["State"] == state).count();
    let found = (in_state("exited"), in_state("running"), all.len());
    ensure!(
        found == (stopped, running, stopped + running),
        "stopped, running and all: {found:?}"
    );
    Ok(())
}

/// Does something for each number, eight at a time.
fn each(count: usize, work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let take = || {
        loop {
            match next.fetch_add(1, Ordering::Relaxed) {
                number if number < count => work(number)?,
                _ => return Ok(()),
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(take)).collect();
        let mut ends = threads.into_iter().map(|thread| thread.join());
        ends.try_for_each(|end| end.expect("a worker does not panic"))
    })
}

/// Makes containers and starts them.
fn make(socket: &Path, name: &str, count: usize, command: &str) -> Result<()> {
    each(count, |number| {
        let path = format!("/containers/create?name={name}-{number}");
        let body = format!(
            r#"{{"Image":"busybox","Cmd":{command},"Env":["NUMBER={number}"],"Labels":{{"app":"{name}"}},"HostConfig":{{"NetworkMode":"none"}}}}"#
        );
        let made = ask(socket, "POST", &path, &body)?;
        ensure!(made.status == 201, "create {name}-{number}: {made:?}");
        let started = ask(
            socket,
            "POST",
            &format!("/containers/{name}-{number}/start"),
            "",
        )?;
        ensure!(started.status == 204, "start {name}-{number}: {started:?}");
        Ok(())
    })
}

fn remove(socket: &Path) -> Result<()> {
    let (_, all) = listed(socket)?;
    let all = all.as_array().context("a list")?;
    each(all.len(), |number| {
        let id = all[number]["Id"].as_str().context("an id")?;
        let gone = ask(socket, "DELETE", &format!("/containers/{id}?force=1"), "")?;
        ensure!(gone.status == 204, "remove {id}: {gone:?}");
        Ok(())
    })
}
