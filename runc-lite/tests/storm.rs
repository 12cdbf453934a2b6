//! Kills at system call boundaries, and many runs in a row.
//!
//! A first run under strace lists the calls of a command; then the command is
//! killed at the K-th call of each name, and `delete --force` must leave nothing.
//! The ordinary test takes a sample by a printed seed (`LITE_SEED` repeats it);
//! `LITE_DRILL=full` takes everything.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::Bundle;

/// What each command may take in the ordinary test.
const BUDGET: Duration = Duration::from_secs(5);

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
        .arg(env!("CARGO_BIN_EXE_runc-lite"))
        .args(["--root", root.to_str().unwrap()])
        .args(args)
        .current_dir(b.dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // Its end is a kill in most cases.
    command.status().unwrap();
}

/// Every boundary of a command, as name and how many-th call.
fn boundaries(trace: &str) -> Vec<(String, usize)> {
    let mut seen = BTreeMap::<&str, usize>::new();
    let mut all = Vec::new();
    for line in trace.lines() {
        let Some((name, _)) = line.split_once('(') else {
            continue;
        };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            continue;
        }
        let count = seen.entry(name).or_default();
        *count += 1;
        all.push((name.to_owned(), *count));
    }
    all
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

fn storm(command: &str, prepare: impl Fn(&Bundle), more: &[&str]) {
    if !support::possible() {
        return;
    }
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("skipped: no strace");
        return;
    }
    let mut b = Bundle::new("");
    let script = format!("sleep 100; : {}", b.id);
    b.config["process"]["args"] = serde_json::json!(["sh", "-c", script]);
    b.create().code(0);
    b.call(&["delete", "--force", &b.id]).code(0);

    let mut args = vec![command, b.id.as_str()];
    args.extend_from_slice(more);
    let trace = b.dir.path().join("trace");
    prepare(&b);
    strace(&b, &["-o", trace.to_str().unwrap()], &args);
    b.call(&["delete", "--force", &b.id]).code(0);
    let mut todo = boundaries(&std::fs::read_to_string(&trace).unwrap());
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
        strace(&b, &["-o", "/dev/null", "-e", &inject], &args);
        let said = b.call(&["delete", "--force", &b.id]);
        let place = format!("{command} killed at {name} #{count} (LITE_SEED={seed})");
        assert_eq!(said.code, 0, "{place}: {}", said.err);
        assert!(b.cgroups().is_empty(), "{place}: {:?}", b.cgroups());
        assert!(!b.state_root().join(&b.id).exists(), "{place}: state left");
        support::eventually(|| match processes_with(&b.id) {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{place}: {left:?}")),
        });
        done += 1;
    }
    eprintln!("{command}: {done} of {total} boundaries, LITE_SEED={seed}");
}

#[test]
fn create_killed_at_any_call_leaves_nothing() {
    storm("create", |_| {}, &[]);
}

#[test]
fn start_killed_at_any_call_leaves_nothing() {
    storm("start", |b| drop(b.create().code(0)), &[]);
}

#[test]
fn exec_killed_at_any_call_leaves_nothing() {
    storm("exec", Bundle::start, &["true"]);
}

#[test]
fn delete_killed_at_any_call_leaves_nothing() {
    storm("delete", |b| drop(b.create().code(0)), &[]);
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
                .args(["120", "sh", "-c", "while :; do :; done"])
                .spawn()
                .unwrap()
        })
        .collect();
    let codes: Vec<_> = (0..if full() { 1000 } else { 200 })
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
