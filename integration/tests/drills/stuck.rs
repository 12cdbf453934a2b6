//! containerd-lite comes back among shims that are stopped and sockets that never answer: it serves at once and says which.

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration::eventually;
use integration::rig::parts::{Client, Middle, Release};
use integration::rig::{IMAGE, Rig};
use integration::stack::{alive, send};
use nix::sys::signal::Signal;

use crate::full;
use crate::scale::all_end;

/// Containers, those whose shim is stopped, and those whose shim is a socket that never answers.
fn counts() -> (usize, usize, usize) {
    if full() { (200, 50, 20) } else { (8, 3, 2) }
}

fn name(number: usize) -> String {
    format!("stuck-{number:03}")
}

#[test]
fn a_daemon_comes_back_among_stuck_shims() -> Result<()> {
    let (all, stopped, mute) = counts();
    let mut rig = Rig::start(Client::Ctr(Release::Installed), Middle::Lite)?;
    for number in 0..all {
        let flags = ["run", "-d", "--null-io", "--runc-binary", "runc", IMAGE];
        let name = name(number);
        let rest = [name.as_str(), "sleep", "100000"];
        rig.ctr([flags.as_slice(), &rest].concat())?.exits(0)?;
    }
    let shims = shims(rig.dir())?;
    ensure!(shims.len() == all, "{} shims of {all}", shims.len());
    rig.kill_middle()?;
    let mut listeners = Vec::new();
    for number in 0..mute {
        listeners.push(replace(&rig, shims[&name(number)], &name(number))?);
    }
    for number in mute..mute + stopped {
        send(shims[&name(number)], Signal::SIGSTOP)?;
    }
    let begun = Instant::now();
    rig.start_middle()?;
    rig.ctr(["version"])?.exits(0)?;
    let serving = begun.elapsed();
    let told = listed(&rig, mute + stopped)?;
    println!(
        "{all} bundles, {stopped} shims stopped, {mute} sockets mute: serving after {serving:?}, all told after {:?}",
        begun.elapsed()
    );
    ensure!(
        !full() || serving <= Duration::from_secs(1),
        "1 s is allowed"
    );
    for number in 0..all {
        let wanted = if number < mute + stopped {
            "UNKNOWN"
        } else {
            "RUNNING"
        };
        let status = told.get(&name(number)).map_or("gone", String::as_str);
        ensure!(
            status == wanted,
            "{} is {status}, wanted {wanted}",
            name(number)
        );
    }
    for number in mute..mute + stopped {
        send(shims[&name(number)], Signal::SIGCONT)?;
    }
    drop(listeners);
    let left: Vec<u32> = shims.into_values().filter(|pid| alive(*pid)).collect();
    left.iter()
        .try_for_each(|pid| send(*pid, Signal::SIGTERM))?;
    let took = all_end(&left, Duration::from_secs(if full() { 1 } else { 10 }))?;
    println!("{} shims end within {took:?} of SIGTERM", left.len());
    ensure!(
        !full() || took <= Duration::from_secs(1),
        "{} shims took {took:?} to end",
        left.len()
    );
    Ok(())
}

/// Pids of shims by container.
fn shims(dir: &Path) -> Result<BTreeMap<String, u32>> {
    let dir = dir.to_string_lossy().into_owned();
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let mut words = line.split('\0');
        let is_shim = words.next().is_some_and(|w| w.contains("containerd-shim"));
        if is_shim && line.contains(&dir) && words.any(|word| word == "-id") {
            let id = words.next().unwrap_or_default().to_owned();
            found.insert(id, pid);
        }
    }
    Ok(found)
}

/// Kills a shim and listens in its place, accepting nothing.
fn replace(rig: &Rig, shim: u32, name: &str) -> Result<UnixListener> {
    let tasks = rig.path("state").join("io.containerd.runtime.v2.task");
    let bundle = tasks.join(rig.scope().cgroup).join(name);
    let address = std::fs::read_to_string(bundle.join("address"))
        .with_context(|| format!("address of {name}"))?;
    let socket = address.trim().trim_start_matches("unix://").to_owned();
    send(shim, Signal::SIGKILL)?;
    all_end(&[shim], Duration::from_secs(10))?;
    std::fs::remove_file(&socket)?;
    UnixListener::bind(&socket).with_context(|| format!("listen at {socket}"))
}

/// Status by container, once as many as that are told to be unknown.
fn listed(rig: &Rig, unknown: usize) -> Result<BTreeMap<String, String>> {
    eventually::within(Duration::from_secs(20), "the stuck ones are marked", || {
        let list = rig.ctr(["task", "ls"])?.exits(0)?.stdout;
        let mut told = BTreeMap::new();
        for line in list.lines().skip(1) {
            let words: Vec<_> = line.split_whitespace().collect();
            if let [name, _, status] = words.as_slice() {
                told.insert((*name).to_owned(), (*status).to_owned());
            }
        }
        let count = told.values().filter(|s| *s == "UNKNOWN").count();
        ensure!(count == unknown, "{count} of {unknown} are unknown");
        Ok(told)
    })
}
