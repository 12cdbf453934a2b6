//! The runtime's own file, as a container's root would like to write it (CVE-2019-5736 and what came after).
//!
//! All runs are of a copy, so that a success costs nothing but the test.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::harness::{Victim, time};

fn script(at: &Path, text: &str) -> Result<()> {
    fs::write(at, text)?;
    Ok(fs::set_permissions(at, fs::Permissions::from_mode(0o755))?)
}

/// A program of the host whose loader is `/proc/self/exe`; none where there is no program with a loader.
fn loaded_by_the_runtime(at: &Path) -> Result<bool> {
    let mut bytes = fs::read("/bin/sh")?;
    let Some(from) = bytes
        .windows(8)
        .position(|w| w.starts_with(b"/lib") && w.ends_with(b"/ld-"))
    else {
        // Named otherwise on this machine: try the common prefix alone.
        let Some(from) = bytes.windows(6).position(|w| w == b"/lib64") else {
            return Ok(false);
        };
        return put(&mut bytes, from, at);
    };
    put(&mut bytes, from, at)
}

fn put(bytes: &mut [u8], from: usize, at: &Path) -> Result<bool> {
    let loader = b"/proc/self/exe\0";
    bytes
        .get_mut(from..from + loader.len())
        .context("room for a loader")?
        .copy_from_slice(loader);
    fs::write(at, &bytes)?;
    fs::set_permissions(at, fs::Permissions::from_mode(0o755))?;
    Ok(true)
}

#[test]
fn no_disguise_executes_it_in_a_container() -> Result<()> {
    let mut victim = Victim::new("sleep 1000")?;
    let copy = victim.use_copy()?;
    let before = fs::read(&copy)?;
    let bin = victim.root().join("bin");
    symlink("/proc/self/exe", bin.join("link"))?;
    symlink("/proc/thread-self/exe", bin.join("thread"))?;
    script(&bin.join("script"), "#!/proc/self/exe --version\n")?;
    script(&bin.join("twice"), "#!/bin/script\n")?;
    let mut programs = vec![
        "/proc/self/exe",
        "/bin/link",
        "/bin/thread",
        "/bin/script",
        "/bin/twice",
        "link",
    ];
    if loaded_by_the_runtime(&bin.join("loaded"))? {
        programs.push("/bin/loaded");
    }
    for program in &programs {
        victim.config["process"]["args"] = json!([program, "--version"]);
        let out = victim.run()?;
        ensure!(
            out.code != 0 && !out.stdout.contains("runc"),
            "{program} ran: {}",
            out.stdout
        );
    }
    victim.config["process"]["args"] = json!(["sleep", "1000"]);
    victim.start()?;
    for program in &programs {
        let out = victim.call(&["exec", &victim.id, program, "--version"])?;
        ensure!(
            out.code != 0 && !out.stdout.contains("runc"),
            "{program} ran: {}",
            out.stdout
        );
    }
    ensure!(before == fs::read(&copy)?, "the runtime was written");
    victim.unharmed()
}

/// The container waits for processes that still are the runtime, opens what they run, and writes there once nobody
/// executes it.
fn grab(capabilities: &[&str], length: Duration) -> Result<()> {
    let mut victim = Victim::new("")?;
    let copy = victim.use_copy()?;
    let before = fs::read(&copy)?;
    let script = "while :; do for p in /proc/[0-9]*; do
        [ $p = /proc/$$ ] && continue
        ( exec 9<$p/exe; case $(readlink /proc/self/fd/9) in */busybox) exit;; esac
          echo owned >/proc/self/fd/9; echo owned >$p/exe ) 2>/dev/null
        done; done";
    victim.config["process"]["args"] = json!(["sh", "-c", script]);
    for set in ["bounding", "effective", "permitted"] {
        let all = victim.config["process"]["capabilities"][set]
            .as_array_mut()
            .context("a list of capabilities")?;
        all.extend(capabilities.iter().map(|c| json!(c)));
    }
    victim.start()?;
    let start = Instant::now();
    let mut execs = 0;
    while start.elapsed() < length {
        victim.call(&["exec", &victim.id, "true"])?.exits(0)?;
        victim
            .call(&["exec", &victim.id, "no-such-program"])?
            .exits(255)?;
        execs += 2;
        ensure!(
            before == fs::read(&copy)?,
            "the runtime was written after {execs} execs"
        );
    }
    println!("{execs} execs under the eyes of a container with {capabilities:?}");
    victim.unharmed()
}

#[test]
fn it_is_not_written_through_the_processes_of_execs() -> Result<()> {
    grab(&[], time(Duration::from_secs(2)))
}

#[test]
fn not_with_the_right_to_trace_either() -> Result<()> {
    grab(&["CAP_SYS_PTRACE"], time(Duration::from_secs(2)))
}
