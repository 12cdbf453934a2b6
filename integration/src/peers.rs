//! Real daemons of the field, run like a stack of ours: own folder, own network namespace.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::http::ping;
use crate::stack::{send, tail, wait_end};
use crate::{eventually, require};

/// A real dockerd with its own containerd.
#[derive(Debug)]
pub struct Dockerd {
    dir: tempfile::TempDir,
    child: Child,
}

impl Dockerd {
    /// Starts it and waits until it answers. `arguments` go to it.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("real.").tempdir()?;
        let binary = require::peer("dockerd")?;
        let log = std::fs::File::create(dir.path().join("log"))?;
        let path = std::env::join_paths(binary.parent().map(Path::to_owned).into_iter().chain(
            std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()),
        ))?;
        let child = Command::new("unshare")
            .args([
                "--net",
                "--",
                "/bin/sh",
                "-c",
                "ip link set lo up; exec \"$0\" \"$@\"",
            ])
            .arg(&binary)
            .arg("--data-root")
            .arg(dir.path().join("data"))
            .arg("--exec-root")
            .arg(dir.path().join("exec"))
            .arg("-p")
            .arg(dir.path().join("pid"))
            .arg("-H")
            .arg(format!(
                "unix://{}",
                dir.path().join("docker.sock").display()
            ))
            .args(arguments)
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start dockerd")?;
        let daemon = Self { dir, child };
        let socket = daemon.socket();
        eventually::within(Duration::from_secs(60), "dockerd answers", || ping(&socket))
            .with_context(|| format!("dockerd's log: {}", tail(&daemon.dir.path().join("log"))))?;
        Ok(daemon)
    }

    /// Its API's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A command that runs in its network namespace.
    pub fn in_namespace(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{}/ns/net", self.pid()))
            .arg("--")
            .arg(program);
        command
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Whether it is of the release that tests compare whole answers with; says that a test is skipped if not.
    pub fn is_measure(&self, test: &str) -> Result<bool> {
        const MEASURE: &str = "20.10.";
        let version = crate::http::ask(&self.socket(), "GET", "/version", "")?.json();
        let version = version["Version"].as_str().unwrap_or_default().to_owned();
        if !version.starts_with(MEASURE) {
            println!("SKIPPED {test}: dockerd {version} is not of {MEASURE}x");
        }
        Ok(version.starts_with(MEASURE))
    }

    /// The API's address.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // it ends its containerd and containers itself
        let _ = send(self.child.id(), Signal::SIGTERM);
        if wait_end(&mut self.child, Duration::from_secs(20)).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
