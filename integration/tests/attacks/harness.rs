//! A container to be attacked from, and what must stay as it is.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use integration::programs::{self, Output};
use integration::require;
use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};
use serde_json::{Value, json};

/// No single call of the runtime may take this long, on a busy machine either.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a container's program runs to see whether anything of the canary is inside.
pub(crate) const LOOK: &str =
    "find / \\( -path /proc -o -path /sys \\) -prune -o -name host-secret -print 2>/dev/null";

/// How long one attack goes on.
pub(crate) fn time(short: Duration) -> Duration {
    match std::env::var("LITE_DRILL").as_deref() {
        Ok("full") => Duration::from_secs(60),
        _ => short,
    }
}

/// A bundle, its state, and a piece of the host beside it.
pub(crate) struct Victim {
    dir: tempfile::TempDir,
    pub(crate) id: String,
    pub(crate) config: Value,
    runtime: PathBuf,
    before: BTreeMap<PathBuf, String>,
}

impl Victim {
    /// One that runs `script` in busybox's shell.
    pub(crate) fn new(script: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::tempdir()?;
        let root = dir.path().join("bundle/rootfs");
        for name in [
            "bin", "dev", "proc", "sys", "tmp", "etc", "data", "up/data", "up/work",
        ] {
            fs::create_dir_all(root.join(name))?;
        }
        fs::copy(require::peer("busybox")?, root.join("bin/busybox"))?;
        for name in [
            "sh", "cat", "find", "ls", "id", "sleep", "true", "mount", "readlink", "wc", "stat",
            "grep",
        ] {
            symlink("busybox", root.join("bin").join(name))?;
        }
        fs::write(root.join("etc/file"), "inside\n")?;
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
        let outside = dir.path().join("outside");
        for name in [
            "data",
            "work",
            "pts",
            "mqueue",
            "cgroup",
            "dev",
            "sys/net/ipv4",
            "self/attr",
            "empty",
        ] {
            fs::create_dir_all(outside.join(name))?;
        }
        for name in [
            "host-secret",
            "data/host-secret",
            "passwd",
            "file",
            "null",
            "console",
            "ptmx",
            "dev/ptmx",
            "core",
            "sys/net/ipv4/ip_forward",
            "self/attr/exec",
            "self/oom_score_adj",
        ] {
            fs::write(outside.join(name), "of the host\n")?;
        }
        let id = format!("attack-{}-{number}", std::process::id());
        let mut victim = Self {
            config: config(&id, script),
            id,
            // Another runtime shows whether an attack is one.
            runtime: match std::env::var_os("RUNTIME_UNDER_TEST") {
                Some(path) => path.into(),
                None => programs::path("runc-lite")?,
            },
            before: BTreeMap::new(),
            dir,
        };
        victim.before = victim.seen()?;
        Ok(victim)
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.dir.path().join("bundle")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.bundle().join("rootfs")
    }

    /// The piece of the host.
    pub(crate) fn outside(&self) -> PathBuf {
        self.dir.path().join("outside")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Runs from a copy of the runtime, which may be lost; gives where it is.
    pub(crate) fn use_copy(&mut self) -> Result<PathBuf> {
        let copy = self.dir.path().join("runc-lite");
        fs::copy(&self.runtime, &copy)?;
        self.runtime.clone_from(&copy);
        Ok(copy)
    }

    pub(crate) fn mount(&mut self, destination: &str, kind: &str, source: &str, options: &[&str]) {
        let mount =
            json!({"destination": destination, "type": kind, "source": source, "options": options});
        self.config["mounts"].as_array_mut().unwrap().push(mount);
    }

    /// Takes a mount out of the list.
    pub(crate) fn unmount(&mut self, destination: &str) {
        let mounts = self.config["mounts"].as_array_mut().unwrap();
        mounts.retain(|m| m["destination"] != destination);
    }

    pub(crate) fn write_config(&self) -> Result<()> {
        let text = self.config.to_string();
        Ok(fs::write(self.bundle().join("config.json"), text)?)
    }

    /// One call of the runtime, which must end by itself and not by a panic.
    pub(crate) fn call(&self, args: &[&str]) -> Result<Output> {
        let state = self.state();
        let mut all: Vec<OsString> = vec!["--root".into(), state.into()];
        all.extend(args.iter().map(OsString::from));
        self.finish(Command::new(&self.runtime).args(all))
    }

    /// A call by a shell, in which `$RUN` is the runtime with its state root.
    pub(crate) fn shell(&self, script: &str) -> Result<Output> {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", script])
            .env("RUNTIME", &self.runtime)
            .env("STATE", self.state())
            .env("OUTSIDE", self.outside())
            .env("ID", &self.id)
            .env(
                "RUN",
                format!(
                    "{} --root {}",
                    self.runtime.display(),
                    self.state().display()
                ),
            );
        self.finish(&mut command)
    }

    fn finish(&self, command: &mut Command) -> Result<Output> {
        command.current_dir(self.bundle()).env_remove("LISTEN_FDS");
        let out = programs::run(command, b"", PATIENCE)?;
        ensure!(
            !out.stderr.contains("panicked"),
            "{command:?} panicked: {}",
            out.stderr
        );
        ensure!(
            out.code != -1 && out.code != 101,
            "{command:?} ended with {}: {}",
            out.code,
            out.stderr
        );
        Ok(out)
    }

    /// `run` with the configuration as it is now.
    pub(crate) fn run(&self) -> Result<Output> {
        self.write_config()?;
        self.call(&["run", &self.id])
    }

    /// `create` and `start`, with the program's output to nowhere.
    pub(crate) fn start(&self) -> Result<()> {
        self.write_config()?;
        self.shell(
            "$RUN create $ID </dev/null >/dev/null 2>create.log || { cat create.log >&2; exit 1; }",
        )?
        .exits(0)?;
        self.call(&["start", &self.id])?.exits(0).map(drop)
    }

    /// Fails if anything of the host has changed, or can be seen from inside.
    #[track_caller]
    pub(crate) fn unharmed(&self) -> Result<()> {
        let now = self.seen()?;
        for (path, was) in &self.before {
            let is = now.get(path).map_or("gone", String::as_str);
            ensure!(is == was, "{} was {was}, is {is}", path.display());
        }
        let new: Vec<_> = now
            .keys()
            .filter(|p| !self.before.contains_key(*p))
            .collect();
        ensure!(new.is_empty(), "made on the host: {new:?}");
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let here = self.dir.path().to_str().context("path of the test")?;
        ensure!(
            !mounts.contains(here),
            "a mount is left on the host: {mounts}"
        );
        Ok(())
    }

    /// Kind, owner, times and content of all that must stay.
    fn seen(&self) -> Result<BTreeMap<PathBuf, String>> {
        let mut seen = BTreeMap::new();
        let mut left = vec![self.outside()];
        while let Some(path) = left.pop() {
            let found = path.symlink_metadata()?;
            let mut text = format!(
                "{:o} {} {} {} {}.{} {}.{}",
                found.mode(),
                found.uid(),
                found.gid(),
                found.rdev(),
                found.mtime(),
                found.mtime_nsec(),
                found.ctime(),
                found.ctime_nsec()
            );
            if found.is_dir() {
                for entry in fs::read_dir(&path)? {
                    left.push(entry?.path());
                }
            } else if found.is_file() {
                text += &fs::read_to_string(&path)?;
            }
            seen.insert(path, text);
        }
        // What a slip with a device or a parameter would change.
        for name in ["/dev/null", "/dev/ptmx", "/dev/console", "/dev/tty"] {
            let text = fs::symlink_metadata(name).map_or("absent".into(), |f| {
                format!("{:o} {} {} {}", f.mode(), f.uid(), f.gid(), f.rdev())
            });
            seen.insert(name.into(), text);
        }
        for name in [
            "/proc/sys/kernel/core_pattern",
            "/proc/sys/kernel/modprobe",
            "/proc/sys/kernel/hostname",
        ] {
            seen.insert(name.into(), fs::read_to_string(name).unwrap_or_default());
        }
        Ok(seen)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let deleted = self.call(&["delete", "--force", &self.id]);
        if let Ok(top) = fs::read_dir("/sys/fs/cgroup") {
            for entry in top.flatten() {
                let _ = fs::remove_dir(entry.path().join(&self.id));
            }
        }
        if !std::thread::panicking()
            && let Err(e) = deleted
        {
            panic!("delete --force: {e:#}");
        }
    }
}

fn config(id: &str, script: &str) -> Value {
    let caps = json!([
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_KILL",
        "CAP_MKNOD",
        "CAP_SETUID",
        "CAP_SETGID"
    ]);
    let kinds = ["pid", "mount", "ipc", "uts", "network"];
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "args": ["sh", "-c", script], "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"],
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
        ],
        "linux": {
            "cgroupsPath": format!("/{id}"),
            "namespaces": kinds.map(|kind| json!({"type": kind})),
        },
    })
}

/// Swaps a name with others in turn, as fast as it can.
pub(crate) struct Swapper {
    stop: Arc<AtomicBool>,
    swaps: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Swapper {
    /// Between `name` in `dir` and each of `others` beside it.
    pub(crate) fn start(dir: &Path, name: &str, others: &[String]) -> Self {
        let (stop, swaps) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let own = dir.join(name);
        let others: Vec<PathBuf> = others.iter().map(|o| dir.join(o)).collect();
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&swaps));
        let thread = std::thread::spawn(move || {
            for other in others.iter().cycle() {
                // There and back, so that each has its turn and it ends as it began.
                for _ in 0..2 {
                    if renameat_with(CWD, &own, CWD, other, RenameFlags::EXCHANGE).is_ok() {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    std::thread::yield_now();
                }
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        Self {
            stop,
            swaps,
            thread: Some(thread),
        }
    }

    /// Ends it; gives the number of swaps.
    pub(crate) fn stop(mut self) -> u64 {
        self.end();
        self.swaps.load(Ordering::Relaxed)
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the swapper does not panic");
        }
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.end();
    }
}

/// A fifo that nobody writes to.
pub(crate) fn fifo(at: &Path) -> Result<()> {
    Ok(mknodat(
        CWD,
        at,
        FileType::Fifo,
        Mode::from_raw_mode(0o666),
        0,
    )?)
}
