//! Who takes docker's words: dockerd with its own containerd, podman, and a stack of ours.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use integration::peers::Dockerd;
use integration::programs::{self, Output};
use integration::rig::parts::{Part as _, Runtime};
use integration::stack::Stack;
use integration::{images, require};

use crate::Client;

/// Name of the image in every store.
pub(crate) const IMAGE: &str = "localhost/test/busybox:latest";
/// Name under which daemons know the runtime.
const NAME: &str = "under-test";
const COMMAND: Duration = Duration::from_secs(60);

#[derive(Debug)]
enum Kind {
    Dockerd(Dockerd),
    Podman,
    Stack(Stack),
}

/// An engine with a runtime under it.
#[derive(Debug)]
pub(crate) struct Engine {
    kind: Kind,
    runtime: PathBuf,
    dir: tempfile::TempDir,
}

impl Engine {
    /// Starts it, with the image in its store.
    pub(crate) fn start(client: Client, runtime: Runtime) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("peer.").tempdir()?;
        let runtime = runtime.program().context("no such runtime here")?;
        let add = format!("{NAME}={}", runtime.display());
        let add = ["--add-runtime", add.as_str()];
        let kind = match client {
            Client::Podman => Kind::Podman,
            Client::OurShim => Kind::Stack(Stack::with(&add)?),
            _ => {
                let apart = ["--bridge=none", "--iptables=false", "--ip-forward=false"];
                Kind::Dockerd(Dockerd::start(&[&add, apart.as_slice()].concat())?)
            }
        };
        let engine = Self { kind, runtime, dir };
        // podman's own limits are more than a root without CAP_SYS_RESOURCE may have, which runc refuses; and it reads errors
        // from a log as JSON only of runtimes whose names it knows.
        let config = "[containers]\ndefault_ulimits = [\"nofile=1024:4096\", \"nproc=4096:8192\"]\n\
                      [engine]\nruntime_supports_json = [\"runc\", \"runc-lite\"]\n";
        std::fs::write(engine.path("containers.conf"), config)?;
        let tar = images::rootfs_tar(engine.dir.path())?;
        engine
            .call(&["import", &tar.to_string_lossy(), IMAGE])?
            .exits(0)?;
        Ok(engine)
    }

    /// A path in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn is_podman(&self) -> bool {
        matches!(self.kind, Kind::Podman)
    }

    pub(crate) fn is_dockerd(&self) -> bool {
        matches!(self.kind, Kind::Dockerd(_))
    }

    /// A command, not started; `run` gets the runtime.
    pub(crate) fn command(&self, words: &[&str]) -> Result<Command> {
        let mut command = match &self.kind {
            Kind::Podman => self.podman()?,
            Kind::Stack(stack) => {
                let none: [&str; 0] = [];
                stack.client_command(&programs::path("docker-lite")?, none)
            }
            Kind::Dockerd(daemon) => {
                let mut command = Command::new(require::peer("docker")?);
                command
                    .env("DOCKER_HOST", daemon.host())
                    .env("DOCKER_CONFIG", self.path("config"))
                    .env_remove("DOCKER_CONTEXT");
                command
            }
        };
        match words {
            ["run", rest @ ..] => {
                command.args(["run", "--network", "none"]);
                if !self.is_podman() {
                    command.args(["--runtime", NAME]);
                }
                command.args(rest)
            }
            _ => command.args(words),
        };
        Ok(command)
    }

    fn podman(&self) -> Result<Command> {
        let mut command = Command::new(require::peer("podman")?);
        for (flag, name) in [
            ("--root", "root"),
            ("--runroot", "run"),
            ("--tmpdir", "tmp"),
        ] {
            command.arg(flag).arg(self.path(name));
        }
        if let Some(criu) = std::env::var_os("LITE_CRIU").map(PathBuf::from) {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let own = criu.parent().map(PathBuf::from).into_iter();
            let all = own.chain(std::env::split_paths(&path));
            command.env("PATH", std::env::join_paths(all)?);
        }
        let how = ["--cgroup-manager=cgroupfs", "--storage-driver=vfs"];
        command
            .arg("--runtime")
            .arg(&self.runtime)
            .args(how)
            .arg("--events-backend=file")
            .arg("--hooks-dir")
            .arg(self.path("hooks"))
            .env("CONTAINERS_CONF", self.path("containers.conf"))
            .env_remove("XDG_RUNTIME_DIR");
        Ok(command)
    }

    /// Runs a command to its end.
    pub(crate) fn call(&self, words: &[&str]) -> Result<Output> {
        self.call_with(words, b"")
    }

    /// Runs a command with something on its standard input.
    pub(crate) fn call_with(&self, words: &[&str], input: &[u8]) -> Result<Output> {
        programs::run(&mut self.command(words)?, input, COMMAND)
    }

    /// What `inspect` says.
    pub(crate) fn inspect(&self, name: &str, format: &str) -> Result<String> {
        let said = self.call(&["inspect", "-f", format, name])?.exits(0)?;
        Ok(said.stdout.trim().to_owned())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Daemons end with their containers; podman's have only themselves.
        if self.is_podman() {
            let _ = self.call(&["rm", "-f", "-a", "-t", "0"]);
        }
    }
}
