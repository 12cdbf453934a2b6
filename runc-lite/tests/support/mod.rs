//! Runs the binary as root on small bundles, and leaves nothing behind.
//!
//! A [`Bundle`] is a temporary directory with busybox as its root file system,
//! a private state root and a cgroup name of its own; its configuration is what `spec`
//! writes. On drop the container is deleted by force, and a cgroup that is still there
//! fails the test. [`container::Container`] is its sparse sister.
//!
//! `RUNTIME_UNDER_TEST` names another runtime to run the same cases on, which tests the
//! tests. Without root a test is skipped and says so, unless `REQUIRE_ROOT` is set.

#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod container;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const BUSYBOX: &str = "/bin/busybox";

/// The runtime that is tested.
pub(crate) fn runtime() -> String {
    std::env::var("RUNTIME_UNDER_TEST")
        .unwrap_or_else(|_| env!("CARGO_BIN_EXE_runc-lite").to_owned())
}

/// Says why a test cannot run here; the test then returns.
pub(crate) fn skip(why: &str) -> bool {
    assert!(
        std::env::var_os("REQUIRE_ROOT").is_none(),
        "skipped although required: {why}"
    );
    eprintln!("SKIPPED: {why}");
    true
}

/// Whether the machine has what every test here needs; says so where it has not.
pub(crate) fn possible() -> bool {
    if !rustix::process::geteuid().is_root() {
        return !skip("needs root");
    }
    Path::new(BUSYBOX).exists() || !skip("needs a static busybox")
}

/// The mounted hierarchies of cgroups, or the one.
pub(crate) fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    std::fs::read_dir(root)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| !p.is_symlink())
        .collect()
}

/// What a finished command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Said {
    /// Asserts the exit code and gives the output.
    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "stdout: {}\nstderr: {}",
            self.out, self.err
        );
        self
    }

    /// Asserts that the error contains a text.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "no {text:?} in: {}", self.err);
        self
    }
}

/// A container to be.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) id: String,
    pub(crate) config: Value,
}

impl Bundle {
    /// A bundle that runs `script` in busybox's shell.
    pub(crate) fn new(script: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::tempdir().unwrap();
        let id = format!("rlt-{}-{number}", std::process::id());
        make_rootfs(&dir.path().join("rootfs"));
        let said = command(&["spec", "--bundle", dir.path().to_str().unwrap()]);
        run(said).code(0);
        let text = std::fs::read(dir.path().join("config.json")).unwrap();
        let mut config: Value = serde_json::from_slice(&text).unwrap();
        config["process"]["terminal"] = false.into();
        config["process"]["args"] = json!(["sh", "-c", script]);
        config["linux"]["cgroupsPath"] = format!("/{id}").into();
        Self { dir, id, config }
    }

    /// Adds a mount.
    pub(crate) fn mount(&mut self, destination: &str, kind: &str, source: &str, options: &[&str]) {
        let mounts = self.config["mounts"].as_array_mut().unwrap();
        mounts.push(
            json!({"destination": destination, "type": kind, "source": source, "options": options}),
        );
    }

    /// Removes a namespace from the list.
    pub(crate) fn without_namespace(&mut self, kind: &str) {
        let list = self.config["linux"]["namespaces"].as_array_mut().unwrap();
        list.retain(|n| n["type"] != kind);
    }

    /// Adds a user namespace with 65536 ids from 100000 on.
    pub(crate) fn with_user_namespace(&mut self) {
        self.config["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .push(json!({"type": "user"}));
        for field in ["uidMappings", "gidMappings"] {
            self.config["linux"][field] =
                json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        }
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    pub(crate) fn state_root(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn write_config(&self) {
        std::fs::write(self.dir.path().join("config.json"), self.config.to_string()).unwrap();
    }

    /// The binary with this bundle's state root and a time limit.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let root = self.state_root();
        let mut all = vec!["--root", root.to_str().unwrap()];
        all.extend_from_slice(args);
        let mut command = command(&all);
        command.current_dir(self.dir.path());
        command
    }

    /// Runs one command on it.
    pub(crate) fn call(&self, args: &[&str]) -> Said {
        run(self.command(args))
    }

    /// `run` in the foreground.
    pub(crate) fn run(&self) -> Said {
        self.write_config();
        self.call(&["run", &self.id])
    }

    /// `create`, with the process's streams on /dev/null, as it stays.
    pub(crate) fn create(&self) -> Said {
        self.create_with(&[])
    }

    /// `create` with further options.
    pub(crate) fn create_with(&self, options: &[&str]) -> Said {
        self.write_config();
        let log = self.dir.path().join("create.log");
        let mut args = vec!["--log", log.to_str().unwrap(), "create"];
        args.extend_from_slice(options);
        args.push(&self.id);
        let mut command = self.command(&args);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let status = command.status().unwrap();
        Said {
            code: status.code().unwrap_or(-1),
            out: String::new(),
            err: std::fs::read_to_string(log).unwrap_or_default(),
        }
    }

    /// `create` and `start`.
    pub(crate) fn start(&self) {
        self.create().code(0);
        self.call(&["start", &self.id]).code(0);
    }

    /// `exec` of a shell script.
    pub(crate) fn exec(&self, script: &str) -> Said {
        self.call(&["exec", &self.id, "sh", "-c", script])
    }

    pub(crate) fn state(&self) -> Value {
        serde_json::from_str(&self.call(&["state", &self.id]).code(0).out).unwrap()
    }

    /// Waits until `state` says this.
    #[track_caller]
    pub(crate) fn wait_for(&self, status: &str) {
        eventually(|| {
            let state = self.state();
            if state["status"] == status {
                Ok(())
            } else {
                Err(state.to_string())
            }
        });
    }

    /// Directories of the container's cgroup on the host.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let mut dirs: Vec<_> = hierarchies().iter().map(|h| h.join(&self.id)).collect();
        dirs.retain(|d| d.exists());
        dirs
    }

    /// Asserts that the container left nothing.
    #[track_caller]
    pub(crate) fn assert_gone(&self) {
        assert!(
            self.cgroups().is_empty(),
            "cgroups left: {:?}",
            self.cgroups()
        );
        let state = self.state_root().join(&self.id);
        assert!(!state.exists(), "state left: {}", state.display());
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let said = self.call(&["delete", "--force", &self.id]);
        for dir in self.cgroups() {
            let _ = std::fs::remove_dir(dir);
        }
        if !std::thread::panicking() {
            assert_eq!(said.code, 0, "{}", said.err);
            self.assert_gone();
        }
    }
}

/// busybox with all its names, and the usual directories.
fn make_rootfs(root: &Path) {
    for dir in ["bin", "proc", "sys", "dev", "tmp", "etc", "root"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    std::fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    for name in [
        "sh", "cat", "ls", "ping", "id", "env", "pwd", "stat", "sleep", "true", "mkdir", "touch",
        "readlink", "grep", "mount", "hostname", "kill", "tty", "stty", "echo", "rm", "chmod",
        "head", "cut", "wc", "ps", "ip", "df", "sort", "test", "dd", "umount", "ln", "sysctl",
        "mknod", "setpriv",
    ] {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    std::fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\n",
    )
    .unwrap();
}

/// The binary under a time limit.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-k", "1", "20", &runtime()]).args(args);
    command.env_remove("TRACEPARENT").env_remove("LISTEN_FDS");
    command
}

/// Runs it to its end.
pub(crate) fn run(mut command: Command) -> Said {
    command.stdin(Stdio::null()).output().unwrap().into()
}

/// Waits for a condition and shows what was last seen.
#[track_caller]
pub(crate) fn eventually(mut condition: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match condition() {
            Ok(()) => return,
            Err(seen) if Instant::now() > deadline => panic!("last seen: {seen}"),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Runs a script under `unshare FLAG`, as on a host of its own. `$RUN` in it is the
/// runtime with the bundle's state root, `$D` the bundle's directory.
pub(crate) fn on_a_host(b: &Bundle, flag: &str, script: &str) -> Said {
    b.write_config();
    let mut command = Command::new("timeout");
    command.args(["-k", "1", "30", "unshare", flag, "sh", "-ec", script]);
    command.env("D", b.dir.path());
    let runtime = runtime();
    command.env(
        "RUN",
        format!("{runtime} --root {}", b.state_root().display()),
    );
    command.current_dir(b.dir.path());
    run(command)
}
