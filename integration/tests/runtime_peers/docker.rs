//! The scenario in docker's words.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::eventually;

use crate::cgroup;
use crate::engine::{Engine, IMAGE};

/// How long something may take to show itself; generous, since machines that test are busy.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// Says that it is ready and ends with 5 on SIGTERM.
pub(crate) const LIVE: &str =
    "trap 'exit 5' TERM; echo ready >/rw/ready; while :; do sleep 0.1; done";
/// Allocates until it is killed.
pub(crate) const GREEDY: &str = "x=a; while :; do x=$x$x; done";
/// Names its terminal. It stays a moment: Go shims close a terminal when its process ends, whether it was read or not.
pub(crate) const TTY: &str = "tty; stty size; sleep 0.2";
/// A profile under which no directory can be made.
pub(crate) const PROFILE: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW",
 "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}"#;
/// Looks at its fences: capabilities and seccomp, a root that can only be read, a tmpfs of 64 KiB, two binds.
pub(crate) const CONFINED: &str = r"
sed -n 's/^\(CapEff\|CapBnd\|NoNewPrivs\|Seccomp\):\t//p' /proc/self/status
mkdir /rw/d 2>&1
touch /x 2>&1
head -c 100000 /dev/zero 2>/dev/null >/scratch/f; wc -c </scratch/f
cat /ro/given
(echo x >/ro/new) 2>&1
echo out >/rw/new";

/// What it then sees.
pub(crate) fn confined_sees(capabilities: &str) -> String {
    format!(
        "{capabilities}\n{capabilities}\n1\n2\n\
         mkdir: can't create directory '/rw/d': Operation not permitted\n\
         touch: /x: Read-only file system\n65536\ngiven\n\
         sh: can't create /ro/new: Read-only file system\n"
    )
}

/// Runs all steps; the error names the step.
pub(crate) fn scenario(engine: &Engine) -> Result<()> {
    run(engine).context("run")?;
    tty(engine).context("tty")?;
    user(engine).context("user")?;
    confined(engine).context("caps, seccomp, read-only, tmpfs, bind")?;
    hooks(engine).context("hooks")?;
    oom(engine).context("oom")?;
    let pid = live(engine).context("limits")?;
    exec(engine).context("exec")?;
    pause(engine, pid).context("pause")?;
    update(engine, pid).context("update")?;
    checkpoint(engine).context("checkpoint")?;
    let pid = engine.inspect("live", "{{.State.Pid}}")?.parse()?;
    stop(engine, pid).context("stop")?;
    kill(engine).context("kill")
}

fn run(engine: &Engine) -> Result<()> {
    let script = "echo out; echo err >&2; cat; exit 3";
    let words = ["run", "--rm", "-i", IMAGE, "sh", "-c", script];
    let said = engine.call_with(&words, b"in\n")?.exits(3)?;
    ensure!(said.stdout == "out\nin\n", "printed {:?}", said.stdout);
    ensure!(said.stderr == "err\n", "said {:?}", said.stderr);
    engine
        .call(&["run", "--rm", IMAGE, "nonesuch"])?
        .exits(127)?;
    engine.call(&["run", "--rm", IMAGE, "/etc"])?.exits(126)?;
    Ok(())
}

fn tty(engine: &Engine) -> Result<()> {
    let words = ["run", "--rm", "-t", IMAGE, "sh", "-c", TTY];
    let said = engine.call(&words)?.exits(0)?;
    ensure!(said.stdout.contains("/dev/"), "printed {:?}", said.stdout);
    Ok(())
}

fn user(engine: &Engine) -> Result<()> {
    let words = ["run", "--rm", "--user", "1000:1001", "--group-add", "7"];
    let script = "id -u; id -g; id -G; grep CapEff /proc/self/status";
    let said = engine.call(&[words.as_slice(), &[IMAGE, "sh", "-c", script]].concat())?;
    let said = said.exits(0)?;
    let wanted = "1000\n1001\n1001 7\nCapEff:\t0000000000000000\n";
    ensure!(said.stdout == wanted, "printed {:?}", said.stdout);
    Ok(())
}

fn confined(engine: &Engine) -> Result<()> {
    let (ro, rw) = (engine.path("ro"), engine.path("rw"));
    std::fs::create_dir_all(&ro)?;
    std::fs::create_dir_all(&rw)?;
    std::fs::write(ro.join("given"), "given\n")?;
    let profile = engine.path("profile.json");
    std::fs::write(&profile, PROFILE)?;
    let seccomp = format!("seccomp={}", profile.display());
    let ro = format!("{}:/ro:ro", ro.display());
    let bind = format!("{}:/rw", rw.display());
    let words = [
        "run",
        "--rm",
        "--read-only",
        "--tmpfs=/scratch:rw,size=64k",
        "--cap-drop=ALL",
        "--cap-add=CHOWN",
        "--security-opt=no-new-privileges",
        "--security-opt",
        &seccomp,
        "-v",
        &ro,
        "-v",
        &bind,
        IMAGE,
        "sh",
        "-c",
        CONFINED,
    ];
    let said = engine.call(&words)?.exits(0)?;
    let wanted = confined_sees("0000000000000001");
    ensure!(said.stdout == wanted, "printed {}", said.stdout);
    let new = std::fs::read_to_string(rw.join("new"))?;
    ensure!(new == "out\n", "the host sees {new:?}");
    Ok(())
}

/// podman runs hooks from a folder. dockerd asks the runtime for one that hands it the network namespace: its key then is
/// a mount of the container's own. dockerd-lite has nothing that asks for hooks.
fn hooks(engine: &Engine) -> Result<()> {
    if engine.is_dockerd() {
        let words = ["run", "-d", "--name", "hooked", IMAGE, "sleep", "1000"];
        engine.call(&words)?.exits(0)?;
        let key = engine.inspect("hooked", "{{.NetworkSettings.SandboxKey}}")?;
        let pid = engine.inspect("hooked", "{{.State.Pid}}")?;
        let inode = |path: &str| -> Result<u64> {
            let found = std::fs::metadata(path).with_context(|| format!("look at {path}"))?;
            Ok(std::os::unix::fs::MetadataExt::ino(&found))
        };
        let (key, own) = (inode(&key)?, inode(&format!("/proc/{pid}/ns/net"))?);
        ensure!(
            key == own,
            "dockerd has namespace {key}, the container {own}"
        );
        engine.call(&["rm", "-f", "hooked"])?.exits(0)?;
    }
    if !engine.is_podman() {
        return Ok(());
    }
    let (dir, out) = (engine.path("hooks"), engine.path("heard"));
    std::fs::create_dir_all(&dir)?;
    std::fs::create_dir_all(&out)?;
    for stage in ["prestart", "createRuntime", "poststart", "poststop"] {
        let script = format!("cat >{}/{stage}", out.display());
        let hook = serde_json::json!({
            "version": "1.0.0",
            "hook": {"path": "/bin/sh", "args": ["sh", "-c", script]},
            "when": {"always": true},
            "stages": [stage],
        });
        std::fs::write(dir.join(format!("{stage}.json")), hook.to_string())?;
    }
    engine.call(&["run", "--rm", IMAGE, "true"])?.exits(0)?;
    for (stage, status) in [
        ("prestart", "creat"),
        ("createRuntime", "creat"),
        ("poststart", ""),
        ("poststop", "stopped"),
    ] {
        let heard = std::fs::read_to_string(out.join(stage));
        let heard = heard.with_context(|| format!("hook {stage} left no word"))?;
        let state: serde_json::Value = serde_json::from_str(&heard)?;
        let told = state["status"].as_str().unwrap_or_default();
        ensure!(told.starts_with(status), "{stage} heard {heard}");
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

fn oom(engine: &Engine) -> Result<()> {
    let words = ["run", "--name", "oom", "-m", "16m", "--memory-swap", "16m"];
    let rest = [IMAGE, "sh", "-c", GREEDY];
    let said = engine.call(&[words.as_slice(), &rest].concat())?;
    said.exits(137)?;
    // podman's monitor misses it where the first process is what was killed, whatever the runtime
    eventually::within(SOON, "out of memory is told", || {
        if engine.is_podman() {
            return Ok(());
        }
        let told = engine.inspect("oom", "{{.State.OOMKilled}}")?;
        ensure!(told == "true", "OOMKilled is {told}");
        Ok(())
    })?;
    engine.call(&["rm", "oom"])?.exits(0).map(drop)
}

/// A container that stays, with limits; its pid.
fn live(engine: &Engine) -> Result<u32> {
    let bind = format!("{}:/rw", engine.path("rw").display());
    let words = ["run", "-d", "--name", "live", "--hostname", "box", "-v"];
    let limits = [
        bind.as_str(),
        "--memory=64m",
        "--memory-reservation=32m",
        "--cpu-shares=512",
        "--cpu-period=100000",
        "--cpu-quota=50000",
        "--cpuset-cpus=0",
        "--pids-limit=77",
        "--ulimit=nofile=100:200",
        "--ulimit=nproc=4096:8192",
        "--sysctl=net.ipv4.ip_forward=1",
    ];
    let rest = [IMAGE, "sh", "-c", LIVE];
    engine
        .call(&[words.as_slice(), &limits, &rest].concat())?
        .exits(0)?;
    ready(engine)?;
    let pid = engine.inspect("live", "{{.State.Pid}}")?.parse()?;
    cgroup::says(pid, cgroup::MEMORY, "67108864", "67108864")?;
    cgroup::says(pid, cgroup::RESERVED, "33554432", "33554432")?;
    cgroup::says(pid, cgroup::SHARES, "512", "20")?;
    cgroup::says(pid, cgroup::QUOTA, "50000", "50000 100000")?;
    cgroup::says(pid, cgroup::CPUS, "0", "0")?;
    cgroup::says(pid, cgroup::PIDS, "77", "77")?;
    Ok(pid)
}

fn ready(engine: &Engine) -> Result<()> {
    let file = engine.path("rw/ready");
    eventually::within(SOON, "the container is ready", || {
        ensure!(file.exists(), "no {}", file.display());
        Ok(())
    })?;
    std::fs::remove_file(file)?;
    Ok(())
}

fn exec(engine: &Engine) -> Result<()> {
    // The hard limit only: runc 1.1 sometimes leaves the soft one where Go put it.
    let look = "hostname; ulimit -Hn; cat /proc/sys/net/ipv4/ip_forward; exit 7";
    let said = engine.call(&["exec", "live", "sh", "-c", look])?.exits(7)?;
    ensure!(said.stdout == "box\n200\n1\n", "printed {:?}", said.stdout);
    let said = engine
        .call_with(&["exec", "-i", "live", "cat"], b"through\n")?
        .exits(0)?;
    ensure!(said.stdout == "through\n", "cat printed {:?}", said.stdout);
    let words = ["exec", "-u", "1000:1000", "-e", "A=b", "-w", "/etc", "live"];
    let script = ["sh", "-c", "id -u; echo $A; pwd"];
    let said = engine.call(&[words.as_slice(), &script].concat())?;
    let said = said.exits(0)?;
    ensure!(
        said.stdout == "1000\nb\n/etc\n",
        "printed {:?}",
        said.stdout
    );
    let said = engine.call(&["exec", "live", "nonesuch"])?;
    // podman and newer dockers read the code out of the runtime's words
    let codes = [126, 127];
    ensure!(codes.contains(&said.code), "no such program: {said:?}");
    ensure!(
        said.stdout.contains("not found") || said.stderr.contains("not found"),
        "no such program: {said:?}"
    );
    Ok(())
}

fn pause(engine: &Engine, pid: u32) -> Result<()> {
    engine.call(&["pause", "live"])?.exits(0)?;
    cgroup::says(pid, cgroup::FROZEN, "FROZEN", "1")?;
    let told = engine.inspect("live", "{{.State.Status}}")?;
    ensure!(told == "paused", "it is {told}");
    engine.call(&["unpause", "live"])?.exits(0)?;
    cgroup::says(pid, cgroup::FROZEN, "THAWED", "0")
}

fn update(engine: &Engine, pid: u32) -> Result<()> {
    let words = ["update", "--memory=96m", "--cpu-shares=256", "live"];
    engine.call(&words)?.exits(0)?;
    cgroup::says(pid, cgroup::MEMORY, "100663296", "100663296")?;
    cgroup::says(pid, cgroup::SHARES, "256", "10")?;
    // what was not named stays
    cgroup::says(pid, cgroup::QUOTA, "50000", "50000 100000")?;
    cgroup::says(pid, cgroup::PIDS, "77", "77")
}

/// podman, with the criu that `LITE_CRIU` names: what was counted in memory goes on.
fn checkpoint(engine: &Engine) -> Result<()> {
    if !engine.is_podman() || std::env::var_os("LITE_CRIU").is_none() {
        return Ok(());
    }
    engine
        .call(&["container", "checkpoint", "live"])?
        .exits(0)?;
    engine.call(&["container", "restore", "live"])?.exits(0)?;
    // the trap of its shell is still set: see stop
    let said = engine.call(&["exec", "live", "hostname"])?.exits(0)?;
    ensure!(said.stdout == "box\n", "printed {:?}", said.stdout);
    Ok(())
}

fn ends_with(engine: &Engine, code: &str) -> Result<()> {
    eventually::within(SOON, "it has ended", || {
        let told = engine.inspect("live", "{{.State.Status}} {{.State.ExitCode}}")?;
        ensure!(told == format!("exited {code}"), "it is {told}");
        Ok(())
    })
}

fn stop(engine: &Engine, pid: u32) -> Result<()> {
    let groups = cgroup::all_of(pid)?;
    engine.call(&["stop", "-t", "20", "live"])?.exits(0)?;
    ends_with(engine, "5")?;
    eventually::within(SOON, "its cgroups are gone", || {
        let left: Vec<_> = groups.iter().filter(|g| g.exists()).collect();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
}

fn kill(engine: &Engine) -> Result<()> {
    engine.call(&["start", "live"])?.exits(0)?;
    ready(engine)?;
    engine.call(&["kill", "live"])?.exits(0)?;
    ends_with(engine, "137")?;
    engine.call(&["rm", "live"])?.exits(0).map(drop)
}
