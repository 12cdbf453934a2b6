//! The stack of a test: dockerd-lite (which starts its own containerd-lite) in a folder and a network namespace of its own.
//!
//! The namespace is held by a sleeping process, so that a killed daemon is started again into the same one. Dropping a
//! stack ends whatever still names its folder: daemons first, then shims and containers.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::leaks::{Census, Scope};
use crate::programs::{self, Output, run};
use crate::{eventually, require};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// The process that serves ports and names for dockerd-lite, as [`Stack::pids_of`] calls it.
pub const NET: &str = "dockerd-lite net";

/// A running stack.
#[derive(Debug)]
pub struct Stack {
    dir: tempfile::TempDir,
    cgroup: String,
    holder: Child,
    daemon: Option<Child>,
    arguments: Vec<String>,
}

impl Stack {
    /// Starts a stack with the default options.
    pub fn start() -> Result<Self> {
        Self::with(&[])
    }

    /// Starts a stack; `arguments` go to dockerd-lite.
    pub fn with(arguments: &[&str]) -> Result<Self> {
        let mut stack = Self::unstarted(arguments)?;
        stack.start_daemon()?;
        Ok(stack)
    }

    /// A stack whose daemon waits for [`start_daemon`](Self::start_daemon), so that its folder can be prepared.
    pub fn unstarted(arguments: &[&str]) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("lite.")
            .tempdir()
            .context("make a folder for the stack")?;
        let cgroup = format!(
            "lite-test-{}-{}",
            std::process::id(),
            COUNTER.fetch_add(1, Ordering::Relaxed)
        );
        let holder = hold_namespace()?;
        Ok(Self {
            dir,
            cgroup,
            holder,
            daemon: None,
            arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
        })
    }

    /// Gives dockerd-lite more arguments at its next start.
    pub fn add_arguments(&mut self, arguments: &[&str]) {
        let more = arguments.iter().map(|a| (*a).to_owned());
        self.arguments.extend(more);
    }

    /// Starts dockerd-lite (again) and waits until it answers.
    pub fn start_daemon(&mut self) -> Result<()> {
        self.spawn_daemon()?;
        self.wait_ready(Duration::from_secs(10))
    }

    /// Starts dockerd-lite (again) without waiting.
    pub fn spawn_daemon(&mut self) -> Result<()> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("dockerd.log"))?;
        let mut command = self.in_namespace(&programs::path("dockerd-lite")?);
        command
            .arg("--data-root")
            .arg(self.path("data"))
            .arg("--exec-root")
            .arg(self.path("exec"))
            .arg("--pidfile")
            .arg(self.path("pid"))
            .args(["--cgroup-parent", &self.cgroup])
            .arg("-H")
            .arg(self.host())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.daemon = Some(command.spawn().context("start dockerd-lite")?);
        Ok(())
    }

    /// Waits until the daemon answers a ping.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        let socket = self.path("docker.sock");
        let answered =
            eventually::within(limit, "dockerd-lite answers", || crate::http::ping(&socket));
        answered.with_context(|| format!("dockerd-lite's log: {}", tail(&self.path("dockerd.log"))))
    }

    /// The folder of all its state.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path below its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The API's address.
    pub fn host(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }

    /// What the leak census looks for.
    pub fn scope(&self) -> Scope {
        Scope {
            dir: self.dir.path().to_owned(),
            cgroup: self.cgroup.clone(),
        }
    }

    /// A command that runs in the stack's network namespace.
    pub fn in_namespace(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{}/ns/net", self.holder.id()))
            .arg("--")
            .arg(program);
        command
    }

    /// Runs docker-lite on the stack, at most for a minute.
    pub fn lite<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Output> {
        self.client(&programs::path("docker-lite")?, args)
    }

    /// Runs the real docker CLI on the stack.
    pub fn docker<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Output> {
        self.client(&require::peer("docker")?, args)
    }

    fn client<S: AsRef<OsStr>>(
        &self,
        program: &Path,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Output> {
        run(
            &mut self.client_command(program, args),
            b"",
            Duration::from_secs(60),
        )
    }

    /// A CLI command for the stack, not started.
    pub fn client_command<S: AsRef<OsStr>>(
        &self,
        program: &Path,
        args: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = programs::command(program, args);
        command
            .env("DOCKER_HOST", self.host())
            .env("DOCKER_CONFIG", self.path("config"))
            .env_remove("DOCKER_CONTEXT");
        command
    }

    /// Pid of the running dockerd-lite.
    pub fn daemon_pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// Pids of the stack's living processes of that program.
    pub fn pids_of(&self, program: &str) -> Result<Vec<u32>> {
        let dir = self.dir.path().to_string_lossy().into_owned();
        let mut pids = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let entry = entry?;
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
                continue;
            };
            let Ok(cmdline) = std::fs::read(entry.path().join("cmdline")) else {
                continue;
            };
            let cmdline = String::from_utf8_lossy(&cmdline).into_owned();
            let first = cmdline.split('\0').next().unwrap_or_default();
            // `dockerd-lite net` is a program of its own but for its file
            let helper = cmdline.split('\0').nth(1) == Some("net");
            let file = Path::new(first).file_name().and_then(OsStr::to_str);
            let name = match (file, helper) {
                (Some("dockerd-lite"), true) => Some(NET),
                (file, _) => file,
            };
            if name == Some(program) && cmdline.contains(&dir) && alive(pid) {
                pids.push(pid);
            }
        }
        Ok(pids)
    }

    /// SIGKILLs dockerd-lite.
    pub fn kill_daemon(&mut self) -> Result<()> {
        let mut child = self.daemon.take().context("dockerd-lite is not running")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGKILLs containerd-lite.
    pub fn kill_containerd(&self) -> Result<()> {
        let pids = self.pids_of("containerd-lite")?;
        ensure!(
            !pids.is_empty(),
            "no containerd-lite of the stack is running"
        );
        for pid in pids {
            send(pid, Signal::SIGKILL)?;
        }
        Ok(())
    }

    /// Removes all containers, stops both daemons and checks that nothing is left of the stack.
    pub fn stop(mut self) -> Result<()> {
        let ids = self.lite(["ps", "-aq"])?.exits(0)?;
        let ids: Vec<_> = ids.stdout.split_whitespace().collect();
        if !ids.is_empty() {
            self.lite([&["rm", "-fv"], ids.as_slice()].concat())?
                .exits(0)?;
        }
        self.terminate()?;
        let scope = self.scope();
        eventually::within(
            Duration::from_secs(5),
            "nothing is left of the stack",
            || {
                let left = Census::take(scope.clone())?;
                let live: Vec<_> = left
                    .lines()
                    .filter(|l| l.starts_with("process") || l.starts_with("mount"))
                    .collect();
                ensure!(live.is_empty(), "left behind: {live:#?}");
                Ok(())
            },
        )
    }

    fn terminate(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            send(daemon.id(), Signal::SIGTERM)?;
            wait_end(&mut daemon, Duration::from_secs(10))
                .context("dockerd-lite does not end on SIGTERM")?;
        }
        for program in ["containerd-lite", NET] {
            for pid in self.pids_of(program)? {
                send(pid, Signal::SIGTERM)?;
            }
            let what = format!("{program} ends");
            eventually::within(Duration::from_secs(5), &what, || {
                ensure!(self.pids_of(program)?.is_empty(), "it is running");
                Ok(())
            })?;
        }
        Ok(())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            // it may have ended by itself
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if let Ok(pids) = self.pids_of("containerd-lite") {
            pids.into_iter()
                .for_each(|pid| drop(send(pid, Signal::SIGKILL)));
        }
        end_all(&self.scope());
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Ends whatever still names the folder or sits below the cgroup parent (containers, shims, helpers), unmounts and removes
/// their groups.
pub(crate) fn end_all(scope: &Scope) {
    for _ in 0..20 {
        let Ok(left) = Census::take(scope.clone()) else {
            break;
        };
        let pids: Vec<u32> = left
            .lines()
            .filter_map(|l| l.strip_prefix("process ")?.split(' ').next()?.parse().ok())
            .collect();
        if pids.is_empty() {
            break;
        }
        pids.into_iter()
            .for_each(|pid| drop(send(pid, Signal::SIGKILL)));
        std::thread::sleep(Duration::from_millis(50));
    }
    unmount_below(&scope.dir);
    remove_cgroups(&scope.cgroup);
}

/// A sleeping process that holds a new network namespace.
pub fn hold_namespace() -> Result<Child> {
    let holder = Command::new("unshare")
        .args([
            "--net",
            "--",
            "/bin/sh",
            "-c",
            "ip link set lo up; echo ready; exec sleep infinity",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("start the holder of a network namespace")?;
    let mut holder = holder;
    let mut line = String::new();
    let out = holder.stdout.take().expect("stdout is piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line)?;
    ensure!(line == "ready\n", "no network namespace: {line:?}");
    Ok(holder)
}

/// Whether a process is there and not a zombie.
pub fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| {
        s.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    })
}

/// Sends a signal to a process of the test's own.
pub fn send(pid: u32, signal: Signal) -> Result<()> {
    let raw = i32::try_from(pid).context("pid out of range")?;
    kill(Pid::from_raw(raw), signal).with_context(|| format!("send {signal} to {pid}"))
}

/// Waits for a child at most for `limit`.
pub fn wait_end(child: &mut Child, limit: Duration) -> Result<()> {
    eventually::within(limit, "the process ends", || match child.try_wait()? {
        Some(_) => Ok(()),
        None => bail!("it is running"),
    })
}

fn unmount_below(dir: &Path) {
    let dir = dir.to_string_lossy().into_owned();
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut targets: Vec<_> = text
        .lines()
        .filter_map(|l| l.split(' ').nth(4))
        .filter(|t| t.starts_with(&dir))
        .collect();
    targets.sort_unstable_by_key(|t| std::cmp::Reverse(t.len()));
    for target in targets {
        // a failure shows itself as a folder that cannot be removed
        let _ = Command::new("umount")
            .args(["-l", target])
            .stderr(Stdio::null())
            .status();
    }
}

fn remove_cgroups(name: &str) {
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten()
    {
        let parent = hierarchy.path().join(name);
        if parent.is_dir() {
            let _ = Command::new("find")
                .arg(&parent)
                .args(["-depth", "-type", "d", "-delete"])
                .stderr(Stdio::null())
                .status();
            let _ = std::fs::remove_dir(&parent);
        }
    }
}

/// The last lines of a log, for messages.
pub fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
