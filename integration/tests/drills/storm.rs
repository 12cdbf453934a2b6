//! A storm of kills and stops under load.
//!
//! Eight workers make, start, look into, end and remove containers over the API. Meanwhile programs of the chain picked at
//! random are killed, or stopped for a while and let go on. Everything the workers see is held against [`crate::model`]; at
//! the end nothing may be left, and a restart of the daemon takes as long as at the beginning.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use integration::http::{Answer, ask_within};
use integration::leaks::Census;
use integration::stack::{Stack, alive, send, tail};
use integration::{eventually, images};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::full;
use crate::model::{Deed, Model, Seen};
use crate::random::Random;

const WORKERS: u32 = 8;
/// How long an operation is tried before the chain counts as dead.
const PATIENCE: Duration = Duration::from_secs(90);
/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(20);

/// What all threads share.
struct Storm {
    socket: PathBuf,
    over: AtomicBool,
    /// Containers whose shim was killed.
    shimless: Mutex<BTreeSet<String>>,
    /// Containers of which a runtime call was killed, or their init before it became the program.
    struck: Mutex<BTreeSet<String>>,
    /// Runtime calls that were killed.
    runtimes_killed: AtomicU32,
    done: AtomicU32,
    execs: AtomicU32,
}

#[test]
fn nothing_is_lost_in_a_storm() -> Result<()> {
    let (kills, stops) = if full() { (200, 50) } else { (16, 4) };
    let mut random = Random::seeded("storm");
    let mut stack = Stack::start()?;
    images::busybox(&stack)?;
    // The folders that the first exec makes.
    let sleeper = ["run", "-d", "--name", "first", "busybox", "sleep", "1000"];
    stack.lite(sleeper)?.exits(0)?;
    stack.lite(["exec", "first", "true"])?.exits(0)?;
    stack.lite(["rm", "-f", "first"])?.exits(0)?;
    let before = Census::take(stack.scope())?;
    let storm = Arc::new(Storm {
        socket: stack.path("docker.sock"),
        over: AtomicBool::new(false),
        shimless: Mutex::default(),
        struck: Mutex::default(),
        runtimes_killed: AtomicU32::new(0),
        done: AtomicU32::new(0),
        execs: AtomicU32::new(0),
    });
    let workers: Vec<_> = (0..WORKERS)
        .map(|n| {
            let (storm, random) = (storm.clone(), random.fork());
            std::thread::spawn(move || worker(&storm, n, random))
        })
        .collect();
    let killed = rage(&mut stack, &storm, &mut random, kills, stops);
    storm.over.store(true, Ordering::Relaxed);
    let mut problems = Vec::new();
    for worker in workers {
        match worker.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => problems.push(format!("{error:#}")),
            Err(_) => problems.push("a worker panicked".to_owned()),
        }
    }
    let restarts = killed?;
    println!(
        "{kills} kills, {stops} stops: {} containers, {} execs, {} shims and {} runtime calls killed",
        storm.done.load(Ordering::Relaxed),
        storm.execs.load(Ordering::Relaxed),
        storm.shimless.lock().map_or(0, |s| s.len()),
        storm.runtimes_killed.load(Ordering::Relaxed)
    );
    ensure!(
        problems.is_empty(),
        "{problems:#?}\ndaemon: {}",
        tail(&stack.path("dockerd.log"))
    );
    calm(&mut stack, &before)?;
    flat(&restarts)?;
    stack.stop()
}

/// Nothing is left once all containers are removed.
fn calm(stack: &mut Stack, before: &Census) -> Result<()> {
    let ids = stack.lite(["ps", "-aq"])?.exits(0)?.stdout;
    let ids: Vec<_> = ids.split_whitespace().collect();
    if !ids.is_empty() {
        stack
            .lite([&["rm", "-f"], ids.as_slice()].concat())?
            .exits(0)?;
    }
    let had = |line: &&str| before.lines().any(|b| b == *line);
    eventually::within(Duration::from_secs(60), "the census is flat", || {
        let now = Census::take(stack.scope())?;
        let more: Vec<_> = now
            .lines()
            .filter(|l| !had(l))
            .filter(|l| {
                !l.contains("dockerd-lite")
                    && !l.contains("containerd-lite")
                    && !l.contains("sleep infinity")
            })
            .collect();
        ensure!(more.is_empty(), "left behind: {more:#?}");
        Ok(())
    })
}

/// The median of the last third of the restarts is not above that of the first third by more than a machine's mood.
fn flat(restarts: &[Duration]) -> Result<()> {
    if restarts.len() < 6 {
        return Ok(());
    }
    let third = restarts.len() / 3;
    let median = |part: &[Duration]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part[part.len() / 2]
    };
    let (first, last) = (
        median(&restarts[..third]),
        median(&restarts[restarts.len() - third..]),
    );
    println!("restart of dockerd-lite: {first:?} at the beginning, {last:?} at the end");
    ensure!(
        last <= first * 3 + Duration::from_millis(500),
        "restarts became slower: {first:?}, then {last:?}"
    );
    Ok(())
}

/// Kills and stops; gives the times that restarts of dockerd-lite took.
fn rage(
    stack: &mut Stack,
    storm: &Storm,
    random: &mut Random,
    kills: u32,
    stops: u32,
) -> Result<Vec<Duration>> {
    let mut restarts = Vec::new();
    let (mut killed, mut stopped) = (0, 0);
    let mut held: Vec<(u32, Instant)> = Vec::new();
    while killed < kills || stopped < stops {
        std::thread::sleep(Duration::from_millis(150 + random.below(500)));
        held.retain(|(pid, until)| {
            let over = Instant::now() >= *until;
            if over {
                // It may have been killed while it was stopped.
                let _ = send(*pid, Signal::SIGCONT);
            }
            !over
        });
        let kill = stopped >= stops || killed < kills && random.below(5) > 0;
        let Some((program, pid)) = pick(stack, random)? else {
            continue;
        };
        if !kill {
            if send(pid, Signal::SIGSTOP).is_ok() {
                stopped += 1;
                let pause = Duration::from_millis(200 + random.below(2500));
                held.push((pid, Instant::now() + pause));
            }
            continue;
        }
        // An init that has become its program meanwhile is none of the chain's programs any more.
        let of_the_chain = match program {
            SHIM => note(&storm.shimless, pid),
            RUNTIME => note(&storm.struck, pid),
            _ => true,
        };
        if !of_the_chain {
            continue;
        }
        if program == RUNTIME {
            storm.runtimes_killed.fetch_add(1, Ordering::Relaxed);
        }
        if program == DOCKERD {
            stack.kill_daemon()?;
            let begun = Instant::now();
            stack.spawn_daemon()?;
            // One that was stopped delays its successor until it is let go.
            let answered = stack.wait_ready(Duration::from_secs(30));
            answered.context("restart in the storm")?;
            restarts.push(begun.elapsed());
            killed += 1;
        } else if send(pid, Signal::SIGKILL).is_ok() {
            killed += 1;
        }
    }
    for (pid, _) in held {
        let _ = send(pid, Signal::SIGCONT);
    }
    Ok(restarts)
}

const DOCKERD: &str = "dockerd-lite";
const CONTAINERD: &str = "containerd-lite";
const SHIM: &str = "containerd-shim-lite-v2";
const RUNTIME: &str = "runc-lite";

/// A program and one of its processes.
fn pick(stack: &Stack, random: &mut Random) -> Result<Option<(&'static str, u32)>> {
    let program = match random.below(10) {
        0..=2 => DOCKERD,
        3..=5 => CONTAINERD,
        6..=8 => SHIM,
        _ => RUNTIME,
    };
    if program == DOCKERD {
        return Ok(stack.daemon_pid().map(|pid| (program, pid)));
    }
    let pids = stack.pids_of(program)?;
    if pids.is_empty() {
        return Ok(None);
    }
    let at = usize::try_from(random.below(pids.len() as u64))?;
    let pid = pids[at];
    Ok(alive(pid).then_some((program, pid)))
}

/// Notes the container that a process is about, by its command line; false if that names none.
fn note(set: &Mutex<BTreeSet<String>>, pid: u32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&line).into_owned();
    let is_id = |word: &&str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
    match (text.split('\0').find(is_id), set.lock()) {
        (Some(id), Ok(mut set)) => {
            set.insert(id.to_owned());
            true
        }
        _ => false,
    }
}

fn worker(storm: &Storm, number: u32, mut random: Random) -> Result<()> {
    let mut round = 0;
    while !storm.over.load(Ordering::Relaxed) {
        round += 1;
        let name = format!("w{number}-{round}");
        life(storm, &name, &mut random).with_context(|| format!("container {name}"))?;
        storm.done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// One container from its making to its removal.
fn life(storm: &Storm, name: &str, random: &mut Random) -> Result<()> {
    let deed = match random.below(3) {
        0 => Deed::Stay,
        _ => Deed::Speak {
            lines: u32::try_from(random.below(200))?,
            code: i64::try_from(random.below(120))?,
        },
    };
    let script = match deed {
        Deed::Stay => "exec sleep 100000".to_owned(),
        Deed::Speak { lines, code } => format!(
            "i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo $i; done; sleep 0.{}; exit {code}",
            random.below(10)
        ),
    };
    let body = json!({
        "Image": "busybox",
        "Cmd": ["sh", "-c", script],
        "HostConfig": {"NetworkMode": "none"},
    });
    let id = create(storm, name, &body)?;
    let mut model = Model::new(id, deed);
    model.start_asked = true;
    model.started = start(storm, &model)?;
    if model.started && deed == Deed::Stay && random.below(2) == 0 {
        exec(storm, &model, random)?;
    }
    look(storm, &mut model)?;
    if deed == Deed::Stay || !model.started {
        model.kill_asked = true;
        until(storm, "kill", &[204, 404, 409], || {
            storm.ask("POST", &format!("/containers/{}/kill", model.id), None)
        })?;
    }
    finish(storm, &mut model)?;
    let log = storm.logs(&model.id)?;
    model
        .hear(&log, storm.shimless(&model.id))
        .with_context(|| format!("{model:?}"))?;
    look(storm, &mut model)?;
    until(storm, "remove", &[204, 404], || {
        storm.ask(
            "DELETE",
            &format!("/containers/{}?force=true", model.id),
            None,
        )
    })
    .map(drop)
}

impl Storm {
    fn ask(&self, method: &str, path: &str, body: Option<&serde_json::Value>) -> Result<Answer> {
        let body = body.map(ToString::to_string).unwrap_or_default();
        ask_within(ANSWER, &self.socket, method, path, &body)
    }

    fn shimless(&self, id: &str) -> bool {
        self.shimless.lock().is_ok_and(|ids| ids.contains(id))
    }

    /// Whether the storm may have ended it.
    fn killed(&self, id: &str) -> bool {
        self.shimless(id) || self.struck.lock().is_ok_and(|ids| ids.contains(id))
    }

    /// The log as text, without frames.
    fn logs(&self, id: &str) -> Result<String> {
        let path = format!("/containers/{id}/logs?stdout=1&stderr=1");
        let answer = until(self, "logs", &[200], || self.ask("GET", &path, None))?;
        let (mut text, mut rest) = (Vec::new(), answer.body.as_slice());
        while let Some((header, after)) = rest.split_at_checked(8) {
            let size = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            let size = usize::try_from(size)?;
            let part = after.get(..size).context("a frame is cut short")?;
            text.extend_from_slice(part);
            rest = &after[size..];
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// Asks until the answer is one of `wanted`; what a storm breaks is asked again.
fn until(
    storm: &Storm,
    what: &str,
    wanted: &[u16],
    mut ask: impl FnMut() -> Result<Answer>,
) -> Result<Answer> {
    let begun = Instant::now();
    let mut last = anyhow!("never asked");
    while begun.elapsed() < PATIENCE {
        match ask() {
            Ok(answer) if wanted.contains(&answer.status) => return Ok(answer),
            Ok(answer) if answer.status < 500 && answer.status != 409 => {
                bail!("{what}: status {}: {}", answer.status, answer.text());
            }
            Ok(answer) => last = anyhow!("status {}: {}", answer.status, answer.text()),
            Err(error) => last = error,
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let done = storm.done.load(Ordering::Relaxed);
    Err(last.context(format!(
        "{what}: not within {PATIENCE:?}, {done} containers done"
    )))
}

fn create(storm: &Storm, name: &str, body: &serde_json::Value) -> Result<String> {
    let path = format!("/containers/create?name={name}");
    let begun = Instant::now();
    loop {
        ensure!(
            begun.elapsed() < PATIENCE,
            "create: not within {PATIENCE:?}"
        );
        match storm.ask("POST", &path, Some(body)) {
            Ok(answer) if answer.status == 201 => {
                let id = answer.json()["Id"].as_str().unwrap_or_default().to_owned();
                ensure!(!id.is_empty(), "created without an id");
                return Ok(id);
            }
            // An earlier try whose answer was lost has made it.
            Ok(answer) if answer.status == 409 => {
                if let Some(id) = inspect(storm, name)?.map(|(id, _)| id) {
                    return Ok(id);
                }
            }
            Ok(answer) if answer.status < 500 => {
                bail!("create: status {}: {}", answer.status, answer.text())
            }
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether the start was acknowledged. A refusal with a text is an outcome as well: its runtime or its shim was killed.
fn start(storm: &Storm, model: &Model) -> Result<bool> {
    let path = format!("/containers/{}/start", model.id);
    let begun = Instant::now();
    loop {
        match storm.ask("POST", &path, None) {
            Ok(answer) if [204, 304].contains(&answer.status) => return Ok(true),
            Ok(answer) if answer.status < 500 => {
                // The killed runtime's error may read like one of the request.
                let killed = storm.runtimes_killed.load(Ordering::Relaxed) > 0;
                ensure!(
                    killed || storm.killed(&model.id),
                    "start: status {}: {}",
                    answer.status,
                    answer.text()
                );
                return Ok(false);
            }
            _ => {
                // It may run, have ended, or still be created: only the last needs another try.
                if let Some((_, seen)) = inspect(storm, &model.id)?
                    && ["running", "exited"].contains(&seen.status.as_str())
                {
                    return Ok(false);
                }
            }
        }
        ensure!(begun.elapsed() < PATIENCE, "start: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// An exec whose code, if one is told, is the declared one or that of a kill.
fn exec(storm: &Storm, model: &Model, random: &mut Random) -> Result<()> {
    let code = i64::try_from(random.below(120))?;
    let body = json!({"Cmd": ["sh", "-c", format!("exit {code}")], "AttachStdout": true});
    let path = format!("/containers/{}/exec", model.id);
    let Ok(made) = storm.ask("POST", &path, Some(&body)) else {
        return Ok(());
    };
    let id = made.json()["Id"].as_str().unwrap_or_default().to_owned();
    if made.status != 201 || id.is_empty() {
        return Ok(());
    }
    let detach = json!({"Detach": true});
    let started = storm.ask("POST", &format!("/exec/{id}/start"), Some(&detach));
    if !started.is_ok_and(|a| a.status == 200) {
        return Ok(());
    }
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        // An exec is forgotten with a daemon that had not heard of its end; that is no wrong code.
        let Ok(answer) = storm.ask("GET", &format!("/exec/{id}/json"), None) else {
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        if answer.status == 404 {
            return Ok(());
        }
        let told = answer.json();
        if answer.status == 200 && told["Running"] == false {
            let got = told["ExitCode"].as_i64();
            let shimless = storm.shimless(&model.id);
            ensure!(
                got == Some(code) || got.is_none() || shimless,
                "exec told code {got:?}, wanted {code}"
            );
            storm.execs.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("an exec does not end")
}

/// Id and state; none if there is no such container.
fn inspect(storm: &Storm, name: &str) -> Result<Option<(String, Seen)>> {
    let path = format!("/containers/{name}/json");
    let answer = until(storm, "inspect", &[200, 404], || {
        storm.ask("GET", &path, None)
    })?;
    if answer.status == 404 {
        return Ok(None);
    }
    let told = answer.json();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let seen = Seen {
        status: text(&told["State"]["Status"]),
        code: told["State"]["ExitCode"].as_i64().unwrap_or(-1),
        error: text(&told["State"]["Error"]),
    };
    Ok(Some((text(&told["Id"]), seen)))
}

fn look(storm: &Storm, model: &mut Model) -> Result<Seen> {
    let seen = inspect(storm, &model.id)?.context("it is gone and nobody removed it")?;
    // Asked after the look: one killed in between counts.
    model.see(&seen.1, storm.killed(&model.id))?;
    Ok(seen.1)
}

/// Looks until the container has ended.
fn finish(storm: &Storm, model: &mut Model) -> Result<()> {
    let begun = Instant::now();
    loop {
        let seen = look(storm, model)?;
        let never_ran = !model.started && seen.status == "created";
        if model.exit().is_some() || never_ran {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < PATIENCE,
            "its end is not told within {PATIENCE:?}: {seen:?}, {model:?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
