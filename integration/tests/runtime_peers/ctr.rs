//! The scenario through containerd's ctr, its shim, and `--runc-binary`. ctr has no word for an update.

use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use integration::programs::{self, command};
use integration::rig::parts::{Client, Middle, Part as _, Release, Runtime, Shim};
use integration::rig::{IMAGE, Rig};
use integration::{eventually, images};

use crate::cgroup;
use crate::docker::{CONFINED, GREEDY, LIVE, PROFILE, SOON, TTY, confined_sees};

/// containerd with a runtime.
struct Ctr {
    rig: Rig,
    runtime: String,
}

impl Ctr {
    fn words<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str> {
        match words {
            ["run", rest @ ..] => [&["run", "--runc-binary", &self.runtime], rest].concat(),
            _ => words.to_vec(),
        }
    }

    fn call(&self, words: &[&str]) -> Result<programs::Output> {
        self.rig.ctr(self.words(words))
    }

    /// Pid and status as `ctr task ls` says.
    fn listed(&self, name: &str) -> Result<(u32, String)> {
        let list = self.call(&["task", "ls"])?.exits(0)?.stdout;
        let mut rows = list
            .lines()
            .map(|l| l.split_whitespace().collect::<Vec<_>>());
        match rows.find(|row| row.first() == Some(&name)).as_deref() {
            Some([_, pid, status]) => Ok((pid.parse()?, (*status).to_owned())),
            _ => anyhow::bail!("no {name} in {list:?}"),
        }
    }

    fn status_is(&self, name: &str, wanted: &str) -> Result<()> {
        eventually::within(SOON, wanted, || {
            let (_, status) = self.listed(name)?;
            ensure!(status == wanted, "it is {status}");
            Ok(())
        })
    }
}

/// Runs all steps; the error names the step.
pub(crate) fn scenario(runtime: Runtime) -> Result<()> {
    let middle = Middle::Containerd(Release::Installed);
    let rig = Rig::start(Client::Ctr(Release::Installed), middle).context("start")?;
    rig.choose(Shim::Go(Release::Installed), runtime)?;
    let program = runtime.program().context("no such runtime here")?;
    let runtime = program.to_string_lossy().into_owned();
    let ctr = Ctr { rig, runtime };
    run(&ctr).context("run")?;
    tty(&ctr).context("tty")?;
    confined(&ctr).context("caps, seccomp, read-only, tmpfs, bind")?;
    hooks(&ctr).context("hooks, user")?;
    oom(&ctr).context("oom")?;
    let pid = live(&ctr).context("limits")?;
    exec(&ctr).context("exec")?;
    pause(&ctr, pid).context("pause")?;
    end(&ctr, pid, "SIGTERM", 5).context("stop")?;
    let pid = live(&ctr).context("limits")?;
    end(&ctr, pid, "SIGKILL", 137).context("kill")
}

fn run(ctr: &Ctr) -> Result<()> {
    let script = "echo out; echo err >&2; exit 3";
    let words = ["run", "--rm", IMAGE, "once", "sh", "-c", script];
    let said = ctr.call(&words)?.exits(3)?;
    ensure!(said.stdout == "out\n", "printed {:?}", said.stdout);
    ensure!(said.stderr.contains("err\n"), "said {:?}", said.stderr);
    let said = ctr.call(&["run", "--rm", IMAGE, "none", "nonesuch"])?;
    let wanted = "executable file not found in $PATH";
    ensure!(
        said.code == 1 && said.stderr.contains(wanted),
        "no such program: {said:?}"
    );
    Ok(())
}

fn tty(ctr: &Ctr) -> Result<()> {
    let words = ["run", "--rm", "-t", IMAGE, "tty", "sh", "-c"];
    let inner = ctr.rig.ctr_command(ctr.words(&words))?;
    let words = std::iter::once(inner.get_program()).chain(inner.get_args());
    let mut line: Vec<_> = words.map(|w| w.to_string_lossy().into_owned()).collect();
    line.push(format!("'{TTY}'"));
    // ctr wants a terminal of its own
    let mut script = command("script", ["-qec", &line.join(" "), "/dev/null"]);
    let said = programs::run(&mut script, b"", SOON)?.exits(0)?;
    ensure!(said.stdout.contains("/dev/"), "printed {:?}", said.stdout);
    Ok(())
}

fn confined(ctr: &Ctr) -> Result<()> {
    let (ro, rw) = (ctr.rig.path("ro"), ctr.rig.path("rw"));
    std::fs::create_dir_all(&ro)?;
    std::fs::create_dir_all(&rw)?;
    std::fs::write(ro.join("given"), "given\n")?;
    let profile = ctr.rig.path("profile.json");
    std::fs::write(&profile, PROFILE)?;
    let profile = profile.to_string_lossy();
    let bind = |from: &std::path::Path, to: &str, mode: &str| {
        let from = from.display();
        format!("--mount=type=bind,src={from},dst={to},options=rbind:{mode}")
    };
    let (ro, write) = (bind(&ro, "/ro", "ro"), bind(&rw, "/rw", "rw"));
    let words = [
        "run",
        "--rm",
        "--read-only",
        "--mount=type=tmpfs,src=tmpfs,dst=/scratch,options=size=64k",
        "--cap-drop=CAP_MKNOD",
        "--cap-add=CAP_SYS_TIME",
        "--seccomp",
        "--seccomp-profile",
        &profile,
        &ro,
        &write,
        IMAGE,
        "confined",
        "sh",
        "-c",
        CONFINED,
    ];
    let said = ctr.call(&words)?.exits(0)?;
    // ctr's fourteen without one and with another
    let wanted = confined_sees("00000000a20425fb");
    ensure!(said.stdout == wanted, "printed {}", said.stdout);
    let new = std::fs::read_to_string(rw.join("new"))?;
    ensure!(new == "out\n", "the host sees {new:?}");
    Ok(())
}

/// A configuration of our own, which ctr passes on: hooks of all six kinds, and a user.
fn hooks(ctr: &Ctr) -> Result<()> {
    let (root, out) = (ctr.rig.path("hook-root"), ctr.rig.path("heard"));
    images::rootfs(&root)?;
    std::fs::create_dir_all(&out)?;
    std::fs::create_dir_all(root.join("heard"))?;
    let mut hooks = serde_json::Map::new();
    for stage in [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
        "poststop",
    ] {
        // in the container's own root this one runs
        let dir = match stage {
            "startContainer" => "/heard".to_owned(),
            _ => out.display().to_string(),
        };
        let script = format!("cat >{dir}/{stage}");
        let hook = serde_json::json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
        hooks.insert(stage.to_owned(), hook);
    }
    let heard = out.display().to_string();
    let config = serde_json::json!({
        "ociVersion": "1.0.2",
        "root": {"path": root},
        "process": {
            "cwd": "/", "args": ["sh", "-c", "id -u; id -g; id -G"], "env": ["PATH=/bin"],
            "user": {"uid": 1000, "gid": 1001, "additionalGids": [7]},
        },
        "hooks": hooks,
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/heard", "type": "bind", "source": heard, "options": ["bind"]},
        ],
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}],
            "cgroupsPath": format!("/{}/hooked", ctr.rig.scope().cgroup),
        },
    });
    // the program's user writes there as well
    std::fs::set_permissions(&out, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    let file = ctr.rig.path("hooks.json");
    std::fs::write(&file, config.to_string())?;
    let words = ["run", "--rm", "--config", &file.to_string_lossy(), "hooked"];
    let said = ctr.call(&words)?.exits(0)?;
    ensure!(
        said.stdout == "1000\n1001\n1001 7\n",
        "printed {:?}",
        said.stdout
    );
    let all = config["hooks"].as_object().into_iter().flatten();
    for (stage, _) in all {
        let heard = std::fs::read_to_string(out.join(stage));
        let heard = heard.with_context(|| format!("hook {stage} left no word"))?;
        let state: serde_json::Value = serde_json::from_str(&heard)?;
        ensure!(state["id"] == "hooked", "{stage} heard {heard}");
    }
    Ok(())
}

fn oom(ctr: &Ctr) -> Result<()> {
    let events = Events::follow(ctr)?;
    let words = ["run", "--rm", "--memory-limit=16777216", IMAGE, "oom"];
    let said = ctr.call(&[words.as_slice(), &["sh", "-c", GREEDY]].concat())?;
    said.exits(137)?;
    eventually::within(SOON, "out of memory is told", || {
        let text = std::fs::read_to_string(&events.file)?;
        ensure!(text.contains("/tasks/oom "), "events {text:?}");
        Ok(())
    })
}

/// `ctr events` into a file.
struct Events {
    child: Child,
    file: std::path::PathBuf,
}

impl Events {
    fn follow(ctr: &Ctr) -> Result<Self> {
        let file = ctr.rig.path("events");
        let mut command = ctr.rig.ctr_command(["events"])?;
        let child = command
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&file)?)
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child, file })
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // It may have ended with its daemon.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A container that stays, with limits; its pid.
fn live(ctr: &Ctr) -> Result<u32> {
    let rw = ctr.rig.path("rw");
    let ready = rw.join("ready");
    let bind = format!(
        "--mount=type=bind,src={},dst=/rw,options=rbind:rw",
        rw.display()
    );
    let limits = [
        "--memory-limit=67108864",
        "--cpu-shares=512",
        "--cpu-quota=50000",
        "--cpu-period=100000",
    ];
    let words = ["run", "-d", "--null-io", &bind];
    let rest = [IMAGE, "live", "sh", "-c", LIVE];
    ctr.call(&[words.as_slice(), &limits, &rest].concat())?
        .exits(0)?;
    eventually::within(SOON, "the container is ready", || {
        ensure!(ready.exists(), "no {}", ready.display());
        Ok(())
    })?;
    std::fs::remove_file(&ready)?;
    let (pid, status) = ctr.listed("live")?;
    ensure!(status == "RUNNING", "it is {status}");
    cgroup::says(pid, cgroup::MEMORY, "67108864", "67108864")?;
    cgroup::says(pid, cgroup::SHARES, "512", "20")?;
    cgroup::says(pid, cgroup::QUOTA, "50000", "50000 100000")?;
    Ok(pid)
}

fn exec(ctr: &Ctr) -> Result<()> {
    let words = ["task", "exec", "--exec-id", "e1", "--user", "1000:1001"];
    let rest = ["--cwd", "/etc", "live", "sh", "-c", "id -u; pwd; exit 7"];
    let said = ctr.call(&[words.as_slice(), &rest].concat())?.exits(7)?;
    ensure!(said.stdout == "1000\n/etc\n", "printed {:?}", said.stdout);
    let words = ["task", "exec", "--exec-id", "e2", "live", "nonesuch"];
    let said = ctr.call(&words)?;
    let wanted = "executable file not found in $PATH";
    ensure!(
        said.code != 0 && said.stderr.contains(wanted),
        "no such program: {said:?}"
    );
    Ok(())
}

fn pause(ctr: &Ctr, pid: u32) -> Result<()> {
    ctr.call(&["task", "pause", "live"])?.exits(0)?;
    cgroup::says(pid, cgroup::FROZEN, "FROZEN", "1")?;
    ctr.status_is("live", "PAUSED")?;
    ctr.call(&["task", "resume", "live"])?.exits(0)?;
    cgroup::says(pid, cgroup::FROZEN, "THAWED", "0")?;
    ctr.status_is("live", "RUNNING")
}

fn end(ctr: &Ctr, pid: u32, signal: &str, code: i32) -> Result<()> {
    let groups = cgroup::all_of(pid)?;
    ctr.call(&["task", "kill", "-s", signal, "live"])?
        .exits(0)?;
    ctr.status_is("live", "STOPPED")?;
    let said = ctr.call(&["task", "rm", "live"])?;
    // older ones only warn of a code, newer ones may end with it
    let told = said.stderr.contains(&format!("non-zero exit code {code}"));
    ensure!(
        told || said.code == code,
        "wanted exit code {code}, got {said:?}"
    );
    ctr.call(&["container", "rm", "live"])?.exits(0)?;
    let left: Vec<_> = groups.iter().filter(|g| g.exists()).collect();
    ensure!(left.is_empty(), "cgroups left: {left:?}");
    Ok(())
}
