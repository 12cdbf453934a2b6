//! A chain put together of our programs and those of the field: one client, one daemon in the middle, in a folder and a network
//! namespace of its own.
//!
//! ```text
//!  client ──▶ DIR/c.sock  middle ──▶ DIR/bin/containerd-shim-runc-v2 ──▶ DIR/bin/runc
//! ```
//!
//! Shim and runtime are links in `DIR/bin`, the first folder on everybody's PATH, so they can be exchanged between two containers
//! while the daemons run.

pub mod parts;

use std::ffi::OsStr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::leaks::Scope;
use crate::programs::{self, Output, run};
use crate::stack::{self, send, tail, wait_end};
use crate::{eventually, http, images};
use parts::{Client, Middle, Part as _, Release, Runtime, Shim};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// Most that a command of a client may take.
const COMMAND: Duration = Duration::from_secs(60);
/// Name of the image that [`Rig::start`] leaves in the client's store.
pub const IMAGE: &str = "docker.io/test/busybox:latest";

/// A running chain.
#[derive(Debug)]
pub struct Rig {
    dir: tempfile::TempDir,
    name: String,
    holder: Child,
    client: Client,
    middle: Middle,
    daemon: Option<Child>,
    engine: Option<Child>,
}

impl Rig {
    /// Starts both and puts [`IMAGE`] into the store.
    pub fn start(client: Client, middle: Middle) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("rig.").tempdir()?;
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("lite-rig-{}-{count:03}", std::process::id());
        std::fs::create_dir(dir.path().join("bin"))?;
        let mut rig = Self {
            dir,
            name,
            holder: stack::hold_namespace()?,
            client,
            middle,
            daemon: None,
            engine: None,
        };
        rig.choose(Shim::Lite, Runtime::Lite)?;
        rig.start_middle()?;
        rig.start_engine()?;
        rig.import()?;
        Ok(rig)
    }

    /// The folder of all its state.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path below its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What the leak census looks for.
    pub fn scope(&self) -> Scope {
        Scope {
            dir: self.dir.path().to_owned(),
            cgroup: self.name.clone(),
        }
    }

    /// Makes the next containers use this shim and this runtime.
    pub fn choose(&self, shim: Shim, runtime: Runtime) -> Result<()> {
        let shim_program = shim.program().context("no such shim here")?;
        self.link("containerd-shim-runc-v2", &shim_program)?;
        match shim {
            Shim::Lite => self.link("containerd-shim-lite-v2", &shim_program)?,
            Shim::Go(_) => remove(&self.path("bin/containerd-shim-lite-v2"))?,
        }
        let program = runtime.program().context("no such runtime here")?;
        let hybrid = Path::new("/sys/fs/cgroup/unified");
        if runtime != Runtime::Crun || !hybrid.is_dir() {
            return self.link("runc", &program);
        }
        let wrapper = self.path("bin/runc");
        remove(&wrapper)?;
        let script = format!(
            "#!/bin/sh\nexec unshare --mount -- /bin/sh -c 'umount -l {}; exec {} \"$@\"' runc \"$@\"\n",
            hybrid.display(),
            program.display()
        );
        std::fs::write(&wrapper, script)?;
        std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    fn link(&self, name: &str, target: &Path) -> Result<()> {
        let link = self.path("bin").join(name);
        remove(&link)?;
        symlink(target, &link).with_context(|| format!("link {}", link.display()))
    }

    /// The socket of the daemon in the middle.
    pub fn socket(&self) -> PathBuf {
        self.path("c.sock")
    }

    /// Starts the daemon in the middle (again) and waits until it listens.
    pub fn start_middle(&mut self) -> Result<()> {
        let mut program = self.middle.program().context("no such containerd here")?;
        let mut arguments: Vec<String> = Vec::new();
        if self.middle == Middle::Lite {
            // It looks for shims beside itself first, so it gets a folder where none are.
            let own = self.path("own");
            std::fs::create_dir_all(&own)?;
            let copy = own.join("containerd-lite");
            if !copy.is_file() {
                std::fs::copy(&program, &copy)?;
            }
            program = copy;
        } else {
            let config = self.path("config.toml");
            std::fs::write(
                &config,
                "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\"]\n",
            )?;
            arguments.extend(["--config".into(), config.display().to_string()]);
        }
        let flags = [
            ("--root", "root"),
            ("--state", "state"),
            ("--address", "c.sock"),
        ];
        for (flag, name) in flags {
            arguments.extend([flag.to_owned(), self.path(name).display().to_string()]);
        }
        self.daemon = Some(self.spawn(&program, &arguments, "middle.log")?);
        let socket = self.socket();
        eventually::within(Duration::from_secs(30), "it listens", || {
            UnixStream::connect(&socket)?;
            Ok(())
        })
        .with_context(|| format!("its log: {}", tail(&self.path("middle.log"))))
    }

    /// SIGKILLs the daemon in the middle.
    pub fn kill_middle(&mut self) -> Result<()> {
        let mut child = self.daemon.take().context("it is not running")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Pid of the daemon in the middle.
    pub fn middle_pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// Pid of the Docker daemon.
    pub fn engine_pid(&self) -> Option<u32> {
        self.engine.as_ref().map(Child::id)
    }

    /// Starts the Docker daemon, if the client is one, and waits until it answers.
    pub fn start_engine(&mut self) -> Result<()> {
        let program = self.client.program().context("no such client here")?;
        let mut arguments: Vec<String> = Vec::new();
        let mut put = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
        put("--containerd", self.socket().display().to_string());
        put("--data-root", self.path("data").display().to_string());
        put("--exec-root", self.path("exec").display().to_string());
        put("--pidfile", self.path("pid").display().to_string());
        put("--cgroup-parent", format!("/{}", self.name));
        put("--bridge", "none".into());
        put("--host", self.host());
        match self.client {
            Client::Ctr(_) => return Ok(()),
            Client::DockerdLite => {
                put("--add-runtime", "runc=runc".into());
                put("--default-runtime", "runc".into());
            }
            Client::Dockerd(_) | Client::DockerdStore => {
                let store = self.client == Client::DockerdStore;
                let config = self.path("daemon.json");
                std::fs::write(
                    &config,
                    format!("{{\"features\":{{\"containerd-snapshotter\":{store}}}}}"),
                )?;
                put("--config-file", config.display().to_string());
                arguments.extend(["--iptables=false".into(), "--ip-forward=false".into()]);
            }
        }
        self.engine = Some(self.spawn(&program, &arguments, "engine.log")?);
        let socket = self.path("d.sock");
        eventually::within(Duration::from_secs(60), "it answers", || {
            http::ping(&socket)
        })
        .with_context(|| format!("its log: {}", tail(&self.path("engine.log"))))
    }

    /// SIGKILLs the Docker daemon.
    pub fn kill_engine(&mut self) -> Result<()> {
        let mut child = self.engine.take().context("it is not running")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// The Docker API's address.
    pub fn host(&self) -> String {
        format!("unix://{}", self.path("d.sock").display())
    }

    fn search_path(&self) -> Result<std::ffi::OsString> {
        let system = ["/usr/local/sbin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
        let folders = std::iter::once(self.path("bin")).chain(system.map(PathBuf::from));
        Ok(std::env::join_paths(folders)?)
    }

    fn spawn(&self, program: &Path, arguments: &[String], log: &str) -> Result<Child> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.path(log))?;
        Command::new("nsenter")
            .arg(format!("--net=/proc/{}/ns/net", self.holder.id()))
            .arg("--")
            .arg(program)
            .args(arguments)
            .env("PATH", self.search_path()?)
            .env("TMPDIR", self.dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", program.display()))
    }

    fn import(&self) -> Result<()> {
        if !matches!(self.client, Client::Ctr(_)) {
            let tar = images::rootfs_tar(self.dir())?;
            self.docker(["import", &tar.to_string_lossy(), IMAGE])?
                .exits(0)?;
            return Ok(());
        }
        let layout = images::oci_archive(self.dir())?;
        let tar = self.path("oci.tar");
        let folder = layout.to_string_lossy().into_owned();
        let mut pack = programs::command("tar", ["-C", &folder, "-cf"]);
        pack.arg(&tar).arg(".").env_remove("TAR_OPTIONS");
        run(&mut pack, b"", COMMAND)?.exits(0)?;
        let mut arguments = vec!["image", "import", "--base-name", "docker.io/test/busybox"];
        if self.client == Client::Ctr(Release::Newest) {
            arguments.push("--local");
        }
        let tar = tar.to_string_lossy();
        arguments.push(&tar);
        self.ctr(arguments)?.exits(0).map(drop)
    }

    /// A command of ctr in this chain's containerd namespace.
    pub fn ctr_command<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Command> {
        let program = match self.client {
            Client::Ctr(_) => self.client.program(),
            _ => Release::Installed.program("ctr"),
        };
        let mut command = Command::new(program.context("no ctr here")?);
        let namespace = match self.client {
            Client::Ctr(_) => self.name.as_str(),
            _ => "moby",
        };
        command
            .arg("--address")
            .arg(self.socket())
            .args(["--namespace", namespace])
            .args(arguments)
            .env("PATH", self.search_path()?);
        Ok(command)
    }

    /// Runs ctr to its end.
    pub fn ctr<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<Output> {
        run(&mut self.ctr_command(arguments)?, b"", COMMAND)
    }

    /// A command of the Docker CLI: the real one on a real daemon, ours on ours.
    pub fn docker_command<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Command> {
        let program = match self.client {
            Client::Dockerd(release) => release.program("docker"),
            Client::DockerdStore => Release::Newest.program("docker"),
            _ => programs::path("docker-lite").ok(),
        };
        let mut command = Command::new(program.context("no docker CLI here")?);
        command
            .args(arguments)
            .env("DOCKER_HOST", self.host())
            .env("DOCKER_CONFIG", self.path("config"))
            .env_remove("DOCKER_CONTEXT");
        Ok(command)
    }

    /// Runs the Docker CLI to its end.
    pub fn docker<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Output> {
        run(&mut self.docker_command(arguments)?, b"", COMMAND)
    }

    /// The last lines of both daemons' logs.
    pub fn logs(&self) -> String {
        let (middle, engine) = (self.path("middle.log"), self.path("engine.log"));
        format!("middle: {}\nclient: {}", tail(&middle), tail(&engine))
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for mut child in [self.engine.take(), self.daemon.take()]
            .into_iter()
            .flatten()
        {
            // A daemon that is asked leaves less behind; one that does not listen is killed.
            let _ = send(child.id(), Signal::SIGTERM);
            if wait_end(&mut child, Duration::from_secs(5)).is_err() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        stack::end_all(&self.scope());
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Whether a line is among those of a text.
pub fn has_line(text: &str, line: &str) -> Result<()> {
    ensure!(
        text.lines().any(|l| l.trim() == line),
        "no line {line:?} in {text:?}"
    );
    Ok(())
}
