//! Kills at system call boundaries, and many runs in a row.
//!
//! A first run under strace lists the calls of a command; then the command is
//! killed at the K-th call of each name, and `delete --force` must leave nothing.
//! So too the process that the command makes, up to the program: its calls of a name
//! after as many as the command itself makes, as strace counts in each process and
//! kills whichever comes first.
//! The ordinary test takes a sample by a printed seed (`LITE_SEED` repeats it);
//! `LITE_DRILL=full` takes everything.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::Bundle;

/// What each command may take in the ordinary test.
const BUDGET: Duration = Duration::from_secs(3);

fn full() -> bool {
    std::env::var("LITE_DRILL").is_ok_and(|v| v == "full")
}

fn seed() -> u64 {
    let given = std::env::var("LITE_SEED").ok().and_then(|s| s.parse().ok());
    given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        u64::from(now.unwrap().subsec_nanos()) | 1
    })
}

/// Numbers from a seed (xorshift).
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn strace(b: &Bundle, options: &[&str], args: &[&str]) {
    let root = b.state_root();
    let mut command = Command::new("timeout");
    command
        .args(["-k", "1", "20", "strace", "-qq"])
        .args(options)
        .arg(support::runtime())
        .args(["--root", root.to_str().unwrap()])
        .args(args)
        .current_dir(b.dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // Its end is a kill in most cases.
    command.status().unwrap();
}

/// How often each call is in a trace of one process, up to its `execve` if `child`.
fn counts(trace: &str, child: bool) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in trace.lines() {
        let Some((name, _)) = line.split_once('(') else {
            continue;
        };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            continue;
        }
        *counts.entry(name.to_owned()).or_default() += 1;
        if child && name == "execve" {
            break;
        }
    }
    counts
}

/// Every boundary, as name and how many-th call: of the command itself, or of the
/// processes that it makes, those which the command has not.
fn boundaries(b: &Bundle, whose: Whose) -> Vec<(String, usize)> {
    let entries = std::fs::read_dir(b.dir.path()).unwrap().flatten();
    let mut files: Vec<_> = entries
        .filter_map(|e| {
            let pid: u32 = e
                .file_name()
                .to_str()?
                .strip_prefix("trace.")?
                .parse()
                .ok()?;
            let text = std::fs::read_to_string(e.path()).unwrap();
            std::fs::remove_file(e.path()).unwrap();
            Some((pid, text))
        })
        .collect();
    files.sort();
    // Pids may have begun anew, but the others begin as a copy of the first.
    let own = files.iter().position(|(_, t)| t.starts_with("execve("));
    let (_, own) = files.remove(own.expect("the command is in the trace"));
    let own = counts(&own, false);
    let up_to = |all: &BTreeMap<String, usize>, after: &dyn Fn(&str) -> usize| {
        let each = all
            .iter()
            .map(|(name, count)| (name.clone(), after(name) + 1, *count));
        each.flat_map(|(name, first, last)| (first..=last).map(move |n| (name.clone(), n)))
            .collect::<Vec<_>>()
    };
    match whose {
        Whose::Command => up_to(&own, &|_| 0),
        Whose::Child => {
            let children = files.iter().map(|(_, text)| counts(text, true));
            let after = |name: &str| own.get(name).copied().unwrap_or(0);
            let all: BTreeSet<_> = children.flat_map(|c| up_to(&c, &after)).collect();
            all.into_iter().collect()
        }
    }
}

/// Processes whose command line has the text.
fn processes_with(text: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|e| {
            let line = std::fs::read(e.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(text).then_some(line)
        })
        .collect()
}

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Whose {
    Command,
    Child,
}

/// Kills `command` at its boundaries. `script` is what the container runs.
fn storm(command: &str, whose: Whose, script: &str, prepare: impl Fn(&Bundle), more: &[&str]) {
    if !support::possible() {
        return;
    }
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("SKIPPED: no strace");
        return;
    }
    let mut b = Bundle::new("");
    let script = format!("{script}; : {}", b.id);
    b.config["process"]["args"] = serde_json::json!(["sh", "-c", script]);
    b.create().code(0);
    b.call(&["delete", "--force", &b.id]).code(0);

    let mut args = vec![command, b.id.as_str()];
    args.extend_from_slice(more);
    let trace = b.dir.path().join("trace");
    prepare(&b);
    match whose {
        // A created container would keep a strace that follows it.
        Whose::Command => {
            let trace = format!("{}.1", trace.display());
            strace(&b, &["-o", &trace], &args);
        }
        Whose::Child => strace(&b, &["-ff", "-o", trace.to_str().unwrap()], &args),
    }
    b.call(&["delete", "--force", &b.id]).code(0);
    let mut todo = boundaries(&b, whose);
    assert!(todo.len() > 20, "{} calls traced", todo.len());
    let seed = seed();
    let total = todo.len();
    let start = Instant::now();
    let mut state = seed;
    let mut done = 0;
    while !todo.is_empty() && (full() || start.elapsed() < BUDGET) {
        let at = usize::try_from(next(&mut state) % todo.len() as u64).unwrap();
        let (name, count) = todo.swap_remove(at);
        prepare(&b);
        let inject = format!("inject={name}:signal=KILL:when={count}");
        let mut options = vec!["-o", "/dev/null", "-e", &inject];
        options.extend((whose == Whose::Child).then_some("-f"));
        strace(&b, &options, &args);
        let said = b.call(&["delete", "--force", &b.id]);
        let place = format!("{command}, {whose:?} killed at {name} #{count} (LITE_SEED={seed})");
        assert_eq!(said.code, 0, "{place}: {}", said.err);
        census(&b, &place);
        done += 1;
    }
    eprintln!("{command}, {whose:?}: {done} of {total} boundaries, LITE_SEED={seed}");
}

/// Nothing of the container is left: cgroups, state, mounts, processes.
fn census(b: &Bundle, place: &str) {
    assert!(b.cgroups().is_empty(), "{place}: {:?}", b.cgroups());
    assert!(!b.state_root().join(&b.id).exists(), "{place}: state left");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let bundle = b.dir.path().to_str().unwrap();
    assert!(!mounts.contains(bundle), "{place}: {mounts}");
    support::eventually(|| match processes_with(&b.id) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{place}: {left:?}")),
    });
}

#[test]
fn create_killed_at_any_call_leaves_nothing() {
    storm("create", Whose::Command, "sleep 100", |_| {}, &[]);
}

#[test]
fn start_killed_at_any_call_leaves_nothing() {
    let created = |b: &Bundle| drop(b.create().code(0));
    storm("start", Whose::Command, "sleep 100", created, &[]);
}

#[test]
fn exec_killed_at_any_call_leaves_nothing() {
    storm(
        "exec",
        Whose::Command,
        "sleep 100",
        Bundle::start,
        &["true"],
    );
}

#[test]
fn delete_killed_at_any_call_leaves_nothing() {
    let created = |b: &Bundle| drop(b.create().code(0));
    storm("delete", Whose::Command, "sleep 100", created, &[]);
}

// What `run` does after the program has ended is part of it, so that must end.
#[test]
fn run_killed_at_any_call_leaves_nothing() {
    storm(
        "run",
        Whose::Command,
        "sleep 0.3",
        Bundle::write_config,
        &[],
    );
}

#[test]
fn a_container_killed_at_any_call_before_the_program_leaves_nothing() {
    storm("run", Whose::Child, "true", Bundle::write_config, &[]);
}

#[test]
fn an_exec_killed_at_any_call_before_the_program_leaves_nothing() {
    storm("exec", Whose::Child, "sleep 100", Bundle::start, &["true"]);
}

/// Under load: a spinning process per CPU.
#[test]
fn foreground_runs_do_not_hang() {
    if !support::possible() {
        return;
    }
    let b = Bundle::new("true");
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mut load: Vec<_> = (0..cpus)
        .map(|_| {
            Command::new("timeout")
                .args(["900", "sh", "-c", "while :; do :; done"])
                .spawn()
                .unwrap()
        })
        .collect();
    let codes: Vec<_> = (0..if full() { 1000 } else { 50 })
        .map(|_| b.run().code)
        .collect();
    for child in &mut load {
        // timeout passes TERM on to its shell.
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        child.wait().unwrap();
    }
    assert!(codes.iter().all(|c| *c == 0), "{codes:?}");
}
