//! A container of a bare configuration: few mounts, few capabilities, all devices
//! refused. For tests that look at limits and privileges from outside. Dropping it
//! removes everything, whatever the test left.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{hierarchies, make_rootfs, runtime};

const PATIENCE: Duration = Duration::from_secs(20);

/// One container and its bundle.
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) dir: tempfile::TempDir,
    /// Name of the cgroup from the root of each hierarchy.
    pub(crate) cgroup: String,
    group: String,
}

impl Container {
    /// A bundle that runs a shell script, changed as a test needs it.
    pub(crate) fn new(script: &str, change: impl FnOnce(&mut Value)) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let id = format!(
            "t{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let dir = tempfile::tempdir().unwrap();
        make_rootfs(&dir.path().join("bundle/rootfs"));
        let group = format!("runc-lite-test-{id}");
        let container = Self {
            cgroup: format!("{group}/c"),
            id,
            dir,
            group,
        };
        let mut config = container.config(script);
        change(&mut config);
        fs::write(container.bundle().join("config.json"), config.to_string()).unwrap();
        container
    }

    fn config(&self, script: &str) -> Value {
        let caps = json!(["CAP_MKNOD", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"]);
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "args": ["sh", "-c", script], "cwd": "/", "user": {"uid": 0, "gid": 0},
                "env": ["PATH=/bin"], "noNewPrivileges": true,
                "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            },
            "root": {"path": "rootfs"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            ],
            "linux": {
                "cgroupsPath": format!("/{}", self.cgroup),
                "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}],
                "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            },
        })
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.dir.path().join("bundle")
    }

    /// Runs the runtime to its end.
    pub(crate) fn runtime(&self, args: &[&str]) -> Output {
        let mut command = Command::new(runtime());
        command
            .arg("--root")
            .arg(self.dir.path().join("state"))
            .args(args)
            .current_dir(self.bundle());
        finish(command)
    }

    /// Runs the runtime, which must succeed; gives what it printed.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.runtime(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the runtime, which must fail; gives what it said.
    #[track_caller]
    pub(crate) fn fails(&self, args: &[&str]) -> String {
        let output = self.runtime(args);
        assert!(!output.status.success(), "{args:?} succeeded: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// `run`: output and exit code of the container.
    pub(crate) fn run(&self) -> (String, Option<i32>) {
        let output = self.runtime(&["run", &self.id]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        (text, output.status.code())
    }

    /// `create` and `start`, with the container's output to nowhere.
    #[track_caller]
    pub(crate) fn start(&self) -> u32 {
        self.ok(&["create", "--pid-file", "pid", &self.id]);
        self.ok(&["start", &self.id]);
        self.pid()
    }

    /// The first process, as the host sees it.
    pub(crate) fn pid(&self) -> u32 {
        fs::read_to_string(self.bundle().join("pid"))
            .unwrap()
            .parse()
            .unwrap()
    }

    pub(crate) fn status(&self) -> String {
        let state: Value = serde_json::from_str(&self.ok(&["state", &self.id])).unwrap();
        state["status"].as_str().unwrap().to_owned()
    }

    /// The container's directory in a v1 hierarchy.
    pub(crate) fn cgroup_dir(&self, controller: &str) -> PathBuf {
        Path::new("/sys/fs/cgroup")
            .join(controller)
            .join(&self.cgroup)
    }

    /// A file of the container's cgroup, trimmed.
    #[track_caller]
    pub(crate) fn cgroup_file(&self, controller: &str, file: &str) -> String {
        let path = self.cgroup_dir(controller).join(file);
        fs::read_to_string(&path)
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
            .trim()
            .to_owned()
    }

    /// Hierarchies in which a directory of the container is left.
    pub(crate) fn cgroups_left(&self) -> Vec<PathBuf> {
        hierarchies()
            .into_iter()
            .map(|h| h.join(&self.cgroup))
            .filter(|d| d.exists())
            .collect()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // A failed test is told as it failed, not by what cannot be cleaned up.
        let deleted = std::panic::catch_unwind(|| self.runtime(&["delete", "--force", &self.id]));
        if deleted.is_err() {
            eprintln!("delete --force {} hangs", self.id);
        }
        for hierarchy in hierarchies() {
            remove_tree(&hierarchy.join(&self.group));
        }
    }
}

fn remove_tree(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries
        .flatten()
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
    {
        remove_tree(&entry.path());
    }
    let start = Instant::now();
    while fs::remove_dir(dir).is_err() && dir.exists() && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a command to its end, with nothing to read; kills it if it hangs. A
/// container keeps its output open, so output goes through files.
fn finish(mut command: Command) -> Output {
    let (out, err) = (
        tempfile::NamedTempFile::new().unwrap(),
        tempfile::NamedTempFile::new().unwrap(),
    );
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out.reopen().unwrap())
        .stderr(err.reopen().unwrap())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("hangs: {command:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    Output {
        status,
        stdout: fs::read(out.path()).unwrap(),
        stderr: fs::read(err.path()).unwrap(),
    }
}
