//! Containers of an ordinary user of this machine: one who is made for the test, with
//! ids of their own to hand out, and removed after it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

use serde_json::{Value, json};
use support::{Bundle, Said, possible};

/// First of the ids that are handed out, and how many.
const FIRST: u32 = 700_000;
const COUNT: u32 = 65536;

/// Accounts are files that one at a time may change.
static ACCOUNTS: Mutex<()> = Mutex::new(());

fn accounts() -> MutexGuard<'static, ()> {
    ACCOUNTS
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A user who goes when dropped.
struct User {
    name: String,
    id: u32,
}

fn root_runs(program: &str, args: &[&str]) -> Said {
    let mut command = Command::new(program);
    command.args(args);
    support::run(command)
}

impl User {
    fn make() -> Option<Self> {
        static COUNT_OF: AtomicU32 = AtomicU32::new(0);
        if !possible() {
            return None;
        }
        if !Path::new("/usr/bin/newuidmap").exists() || !Path::new("/usr/sbin/useradd").exists() {
            eprintln!("SKIPPED: no newuidmap (Debian's package uidmap) or no useradd");
            return None;
        }
        let number = COUNT_OF.fetch_add(1, Ordering::Relaxed);
        let name = format!("lite{}n{number}", std::process::id());
        let _one = accounts();
        let options = ["--no-create-home", "--shell", "/bin/sh"];
        root_runs(
            "/usr/sbin/useradd",
            &[&options[..], &[name.as_str()]].concat(),
        )
        .code(0);
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
        let line = passwd.lines().find(|l| l.starts_with(&name)).unwrap();
        let id = line.split(':').nth(2).unwrap().parse().unwrap();
        let user = Self { name, id };
        let range = format!("{FIRST}-{}", FIRST + COUNT - 1);
        for option in ["--add-subuids", "--add-subgids"] {
            root_runs("/usr/sbin/usermod", &[option, &range, &user.name]).code(0);
        }
        Some(user)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _one = accounts();
        let said = root_runs("/usr/sbin/userdel", &["--force", &self.name]);
        if !std::thread::panicking() {
            assert_eq!(said.code, 0, "{}", said.err);
        }
    }
}

/// A bundle that is the user's own, with the binary beside it.
struct Home<'a> {
    b: Bundle,
    user: &'a User,
}

impl<'a> Home<'a> {
    fn new(user: &'a User, script: &str, change: impl FnOnce(&mut Value)) -> Self {
        let b = Bundle::new(script);
        let rootless = b.dir.path().join("rootless");
        std::fs::create_dir(&rootless).unwrap();
        b.call(&["spec", "--rootless", "--bundle", rootless.to_str().unwrap()])
            .code(0);
        let text = std::fs::read(rootless.join("config.json")).unwrap();
        let mut config: Value = serde_json::from_slice(&text).unwrap();
        config["process"]["terminal"] = false.into();
        config["process"]["args"] = json!(["sh", "-c", script]);
        config["root"]["readonly"] = false.into();
        let all = ["CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_KILL"];
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(all);
        }
        // Oneself as root, and the rest of the ids that were handed out.
        for field in ["uidMappings", "gidMappings"] {
            config["linux"][field] = json!([
                {"containerID": 0, "hostID": user.id, "size": 1},
                {"containerID": 1, "hostID": FIRST, "size": COUNT},
            ]);
        }
        change(&mut config);
        std::fs::write(b.dir.path().join("config.json"), config.to_string()).unwrap();
        let binary = b.dir.path().join("runc-lite");
        std::fs::copy(env!("CARGO_BIN_EXE_runc-lite"), &binary).unwrap();
        let ids = format!("{0}:{0}", user.id);
        let dir = b.dir.path().to_str().unwrap();
        root_runs("chown", &["-R", "-h", &ids, dir]).code(0);
        Self { b, user }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-k", "1", "20"]);
        command.arg(self.b.dir.path().join("runc-lite"));
        command.args(args);
        command.current_dir(self.b.dir.path());
        command.uid(self.user.id).gid(self.user.id);
        command.env_clear().env("PATH", "/usr/bin:/bin");
        command.env("XDG_RUNTIME_DIR", self.runtime_dir());
        command
    }

    fn runtime_dir(&self) -> PathBuf {
        self.b.dir.path().join("xdg")
    }

    /// Runs the runtime as the user, with the state where a user's is.
    fn call(&self, args: &[&str]) -> Said {
        support::run(self.command(args))
    }

    fn start(&self) {
        let log = self.b.dir.path().join("log");
        let mut command = self.command(&["--log", log.to_str().unwrap(), "run", "-d", "c"]);
        let null = || std::process::Stdio::null();
        command.stdin(null()).stdout(null()).stderr(null());
        let status = command.status().unwrap();
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        assert!(status.success(), "{said}");
    }

    fn state(&self) -> Value {
        serde_json::from_str(&self.call(&["state", "c"]).code(0).out).unwrap()
    }
}

impl Drop for Home<'_> {
    fn drop(&mut self) {
        let said = self.call(&["delete", "--force", "c"]);
        if !std::thread::panicking() {
            assert_eq!(said.code, 0, "{}", said.err);
        }
    }
}

#[test]
fn a_user_has_ids_devices_and_a_whole_life() {
    let Some(user) = User::make() else { return };
    let script = "id; cat /proc/self/uid_map; echo x >/dev/null && echo null; \
         grep -c ' /dev/null ' /proc/self/mountinfo; \
         touch /mine /other; busybox chown 1000:1001 /other; stat -c %u:%g /mine /other";
    let h = Home::new(&user, script, |_| {});
    let said = h.call(&["run", "c"]).code(0);
    let lines: Vec<_> = said.out.lines().collect();
    assert!(lines[0].starts_with("uid=0(root) gid=0"), "{}", said.out);
    let maps: Vec<Vec<&str>> = lines[1..3]
        .iter()
        .map(|l| l.split_whitespace().collect())
        .collect();
    let (own, first, count) = (user.id.to_string(), FIRST.to_string(), COUNT.to_string());
    assert_eq!(maps, [["0", &own, "1"], ["1", &first, &count]]);
    // Nodes cannot be made: the host's are bound.
    assert_eq!(lines[3..], ["null", "1", "0:0", "1000:1001"]);
    let there = std::fs::metadata(h.b.rootfs().join("other")).unwrap();
    assert_eq!((there.uid(), there.gid()), (FIRST + 999, FIRST + 1000));
    let state_dir = h.runtime_dir().join("runc-lite");
    let there = std::fs::metadata(&state_dir).unwrap();
    assert_eq!((there.uid(), there.mode() & 0o777), (user.id, 0o700));
    assert_eq!(std::fs::read_dir(&state_dir).unwrap().count(), 0);
}

#[test]
fn a_users_container_is_created_entered_and_killed() {
    let Some(user) = User::make() else { return };
    let h = Home::new(&user, "exec sleep 100", |_| {});
    h.start();
    assert_eq!(h.state()["status"], "running");
    let pid: u32 = h.state()["pid"].to_string().parse().unwrap();
    let there = std::fs::metadata(format!("/proc/{pid}/ns")).unwrap();
    assert_eq!(there.uid(), user.id);
    let said = h.call(&["exec", "-u", "1000:1000", "c", "sh", "-c", "id -u; exit 4"]);
    assert_eq!(said.code(4).out, "1000\n");
    // Another one in the same user namespace, whose ids it then has.
    let second = Home::new(&user, "cat /proc/self/uid_map; id -u", |config| {
        let list = config["linux"]["namespaces"].as_array_mut().unwrap();
        list.retain(|n| n["type"] != "user");
        list.push(json!({"type": "user", "path": format!("/proc/{pid}/ns/user")}));
        for field in ["uidMappings", "gidMappings"] {
            config["linux"][field] = json!([]);
        }
    });
    let said = second.call(&["run", "c"]).code(0);
    assert!(
        said.out.contains(&FIRST.to_string()) && said.out.ends_with("\n0\n"),
        "{}",
        said.out
    );
    h.call(&["kill", "c", "KILL"]).code(0);
    support::eventually(|| match h.state()["status"].as_str() {
        Some("stopped") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    h.call(&["delete", "c"]).code(0);
}

/// Calls that somebody else decides on, in a container of one's own and in one that is in another's namespaces, from where
/// it must not be looked into.
#[test]
fn a_users_listener_gets_its_descriptor() {
    let Some(user) = User::make() else { return };
    let first = Home::new(&user, "exec sleep 100", |_| {});
    first.start();
    let pid = first.state()["pid"].to_string();
    for joined in [false, true] {
        let sockets = tempfile::tempdir().unwrap();
        let path = sockets.path().join("agent");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        for path in [sockets.path(), &path] {
            chown(path, Some(user.id), Some(user.id)).unwrap();
        }
        let h = Home::new(&user, "mkdir /tmp/x", |config| {
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "listenerPath": path,
                "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
            });
            if joined {
                let list = config["linux"]["namespaces"].as_array_mut().unwrap();
                list.retain(|n| !["user", "uts"].contains(&n["type"].as_str().unwrap()));
                for kind in ["user", "uts"] {
                    list.push(json!({"type": kind, "path": format!("/proc/{pid}/ns/{kind}")}));
                }
                for field in ["uidMappings", "gidMappings"] {
                    config["linux"][field] = json!([]);
                }
            }
        });
        let agent = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut text = String::new();
            // The descriptor is dropped unread: the call is then as if it did not exist.
            std::io::Read::read_to_string(&mut stream, &mut text).unwrap();
            text
        });
        let said = h.call(&["run", "c"]);
        if said.code != 1 || !said.err.contains("Function not implemented") {
            // Nobody connects any more.
            panic!("joined: {joined}: {said:?}");
        }
        let message: Value = serde_json::from_str(&agent.join().unwrap()).unwrap();
        assert_eq!(message["fds"], json!(["seccompFd"]));
    }
}

#[test]
fn ids_that_are_not_the_users_are_refused() {
    let Some(user) = User::make() else { return };
    let h = Home::new(&user, "true", |config| {
        config["linux"]["uidMappings"][1]["hostID"] = 0.into();
    });
    h.call(&["run", "c"]).code(1).says("map ids with newuidmap");
    // One's own id alone takes no helper.
    let h = Home::new(&user, "cat /proc/self/setgroups; id -u", |config| {
        for field in ["uidMappings", "gidMappings"] {
            let list = config["linux"][field].as_array_mut().unwrap();
            list.truncate(1);
        }
    });
    assert_eq!(h.call(&["run", "c"]).code(0).out, "deny\n0\n");
}

/// Groups that root has handed to a user hold the container and its limits.
#[test]
fn delegated_cgroups_are_used() {
    let Some(user) = User::make() else { return };
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        eprintln!("SKIPPED: the VM shows delegation on cgroup v2");
        return;
    }
    let top = format!("lite-delegated-{}", user.name);
    let groups: Vec<PathBuf> = ["memory", "pids", "freezer"]
        .iter()
        .map(|c| Path::new("/sys/fs/cgroup").join(c).join(&top))
        .collect();
    for group in &groups {
        std::fs::create_dir(group).unwrap();
        for entry in std::fs::read_dir(group).unwrap() {
            chown(entry.unwrap().path(), Some(user.id), Some(user.id)).unwrap();
        }
        chown(group, Some(user.id), Some(user.id)).unwrap();
    }
    let result = std::panic::catch_unwind(|| {
        let h = Home::new(&user, "exec sleep 100", |config| {
            config["linux"]["cgroupsPath"] = format!("/{top}/c").into();
            config["linux"]["resources"] =
                json!({"pids": {"limit": 9}, "memory": {"limit": 32 << 20}});
        });
        h.start();
        let pid = h.state()["pid"].to_string();
        let read = |at: usize, file: &str| {
            let path = groups[at].join("c").join(file);
            std::fs::read_to_string(&path).unwrap().trim().to_owned()
        };
        assert_eq!(read(0, "memory.limit_in_bytes"), (32 << 20).to_string());
        assert_eq!(read(1, "pids.max"), "9");
        assert_eq!(read(1, "cgroup.procs"), pid);
        h.call(&["update", "--pids-limit", "11", "c"]).code(0);
        assert_eq!(read(1, "pids.max"), "11");
        h.call(&["pause", "c"]).code(0);
        assert_eq!(read(2, "freezer.state"), "FROZEN");
        h.call(&["resume", "c"]).code(0);
        h.call(&["delete", "--force", "c"]).code(0);
        assert!(groups.iter().all(|g| !g.join("c").exists()));
    });
    for group in &groups {
        // Of a failed test the container may be there for a moment more.
        support::eventually(|| std::fs::remove_dir(group).map_err(|e| e.to_string()));
    }
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// Without a group of one's own there are no limits, and that is said.
#[test]
fn limits_without_a_group_are_refused_by_name() {
    let Some(user) = User::make() else { return };
    let h = Home::new(&user, "true", |config| {
        config["linux"]["resources"] = json!({"pids": {"limit": 9}});
    });
    h.call(&["run", "c"]).code(1).says("pids");
    let h = Home::new(&user, "exec sleep 100", |_| {});
    h.start();
    h.call(&["update", "--pids-limit", "9", "c"])
        .code(1)
        .says("pids");
    h.call(&["pause", "c"]).code(1).says("freezer");
}
