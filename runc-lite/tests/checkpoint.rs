//! Checkpoint and restore, with the criu that is here: `LITE_CRIU`, or the one on the
//! usual path. One that is older than the kernel's first program image cannot work, so
//! whether it can is tried once; where it cannot, the tests say so.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::json;
use support::{Bundle, Said, eventually, possible};

/// A criu that can dump a process of this kernel.
fn criu() -> Option<&'static str> {
    static FOUND: OnceLock<Option<String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let given = std::env::var("LITE_CRIU").ok().map(PathBuf::from);
        let usual = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(|d| Path::new(d).join("criu"));
        let mut all = given.into_iter().chain(usual);
        let path = all.find(|p| p.is_file())?;
        dumps(&path).then(|| path.display().to_string())
    });
    if found.is_none() {
        eprintln!("SKIPPED: no criu here that can dump a process of this kernel");
    }
    found.as_deref()
}

/// Whether it dumps and restores a process without any container.
fn dumps(criu: &Path) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let script = "setsid busybox sleep 1000 </dev/null >/dev/null 2>&1 & pid=$!; sleep 0.2; \
         \"$CRIU\" dump -t $pid -D \"$D\" -o dump.log && \"$CRIU\" restore -d -D \"$D\" -o restore.log; \
         code=$?; kill -9 $pid 2>/dev/null; exit $code";
    let mut command = Command::new("timeout");
    command.args(["-k", "1", "20", "/bin/busybox", "sh", "-c", script]);
    command.env("CRIU", criu).env("D", dir.path());
    support::run(command).code == 0
}

/// A container that counts in its memory: the count goes to a file at `/log/n`.
fn counter(b: &mut Bundle) -> PathBuf {
    let log = b.dir.path().join("log");
    std::fs::create_dir(&log).unwrap();
    b.mount("/log", "bind", log.to_str().unwrap(), &["rbind", "rw"]);
    b.mount("/scratch", "tmpfs", "tmpfs", &["mode=1777"]);
    b.config["process"]["args"] = json!([
        "sh",
        "-c",
        "echo kept >/scratch/f; n=0; while :; do n=$((n+1)); echo $n >/log/n.new; busybox mv /log/n.new /log/n; sleep 0.05; done"
    ]);
    log.join("n")
}

fn count(file: &Path) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn counts_beyond(file: &Path, number: u64) {
    eventually(|| match count(file) {
        n if n > number => Ok(()),
        n => Err(format!("it counts {n}, not beyond {number}")),
    });
}

fn call(b: &Bundle, criu: &str, args: &[&str]) -> Said {
    let images = b.dir.path().join("images");
    let log = b.dir.path().join("call.log");
    let mut all = vec!["--criu", criu, "--log", log.to_str().unwrap()];
    all.extend([args[0], "--image-path", images.to_str().unwrap()]);
    all.extend(&args[1..]);
    all.push(&b.id);
    let mut command = b.command(&all);
    let null = || std::process::Stdio::null();
    let status = command
        .stdin(null())
        .stdout(null())
        .stderr(null())
        .status()
        .unwrap();
    let mut err = std::fs::read_to_string(&log).unwrap_or_default();
    if !status.success() {
        for name in ["dump.log", "restore.log"] {
            let text = std::fs::read_to_string(images.join(name)).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            let last = lines.len().saturating_sub(15);
            err.push_str(&format!("\n{name}:\n{}", lines[last..].join("\n")));
        }
    }
    Said {
        code: status.code().unwrap_or(-1),
        out: String::new(),
        err,
    }
}

/// A counter with what `more` gives it, checkpointed when it has counted beyond `number`; and its file.
fn checkpointed(criu: &str, number: u64, more: impl FnOnce(&mut Bundle)) -> (Bundle, PathBuf) {
    let mut b = Bundle::new("");
    let file = counter(&mut b);
    more(&mut b);
    b.start();
    counts_beyond(&file, number);
    call(&b, criu, &["checkpoint"]).code(0);
    (b, file)
}

/// A directory of the host at `/data`.
fn mount_data(b: &mut Bundle) {
    let data = b.dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    b.mount("/data", "bind", data.to_str().unwrap(), &["rbind", "rw"]);
}

#[test]
fn a_container_goes_on_where_it_stopped() {
    let (true, Some(criu)) = (possible(), criu()) else {
        return;
    };
    let (b, file) = checkpointed(criu, 3, |b| {
        b.config["linux"]["resources"]["pids"] = json!({"limit": 44});
    });
    b.assert_gone();
    let stopped_at = count(&file);
    assert!(stopped_at >= 3);
    call(&b, criu, &["restore", "--detach"]).code(0);
    // With its memory: it does not begin anew.
    counts_beyond(&file, stopped_at + 3);
    assert_eq!(b.state()["status"], "running");
    assert_eq!(b.exec("cat /scratch/f").code(0).out, "kept\n");
    // In the cgroup of the configuration.
    let pid = b.state()["pid"].to_string();
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let group = format!("/{}", b.id);
    for line in groups.lines() {
        assert!(line.ends_with(&group), "{groups}");
    }
    let limit = Path::new("/sys/fs/cgroup/pids")
        .join(&b.id)
        .join("pids.max");
    if limit.exists() {
        assert_eq!(std::fs::read_to_string(limit).unwrap(), "44\n");
    }
    b.call(&["pause", &b.id]).code(0);
    assert_eq!(b.state()["status"], "paused");
    b.call(&["resume", &b.id]).code(0);
    b.call(&["kill", &b.id, "KILL"]).code(0);
    b.wait_for("stopped");
    b.call(&["delete", &b.id]).code(0);
    b.assert_gone();
}

#[test]
fn a_container_may_run_on_after_its_checkpoint() {
    let (true, Some(criu)) = (possible(), criu()) else {
        return;
    };
    let mut b = Bundle::new("");
    let file = counter(&mut b);
    b.start();
    counts_beyond(&file, 3);
    call(&b, criu, &["checkpoint", "--leave-running"]).code(0);
    counts_beyond(&file, count(&file) + 3);
    assert_eq!(b.state()["status"], "running");
    // A second one of the same name is refused, and the first unharmed.
    let refused = call(&b, criu, &["restore", "--detach"]);
    assert_eq!(refused.code, 1);
    counts_beyond(&file, count(&file) + 3);
}

/// What is mounted, and how, is the configuration's to say and not the image's.
#[test]
fn a_bind_that_may_only_be_read_stays_so() {
    let (true, Some(criu)) = (possible(), criu()) else {
        return;
    };
    let (mut b, _) = checkpointed(criu, 1, mount_data);
    let data = b.dir.path().join("data");
    // The image says that it can be written.
    let mounts = b.config["mounts"].as_array_mut().unwrap();
    let last = mounts.last_mut().unwrap();
    last["options"] = json!(["rbind", "ro", "nosuid"]);
    b.write_config();
    call(&b, criu, &["restore", "--detach"]).code(0);
    b.exec("touch /data/x")
        .code(1)
        .says("Read-only file system");
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0);
}

#[test]
fn a_mount_that_only_the_image_has_is_refused() {
    let (true, Some(criu)) = (possible(), criu()) else {
        return;
    };
    let (mut b, _) = checkpointed(criu, 1, mount_data);
    b.config["mounts"].as_array_mut().unwrap().pop();
    b.write_config();
    assert_eq!(call(&b, criu, &["restore", "--detach"]).code, 1);
    b.assert_gone();
    // A new file system that the configuration does not have: criu would mount it.
    let (mut b, _) = checkpointed(criu, 1, |b| b.mount("/more", "tmpfs", "tmpfs", &[]));
    b.config["mounts"].as_array_mut().unwrap().pop();
    b.write_config();
    let said = call(&b, criu, &["restore", "--detach"]);
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("not in the configuration"),
        "{}",
        said.err
    );
    b.assert_gone();
}

/// A link in the rootfs that came to be after the checkpoint leads nowhere else.
#[test]
fn places_of_mounts_are_found_within_the_root() {
    let (true, Some(criu)) = (possible(), criu()) else {
        return;
    };
    let (b, _) = checkpointed(criu, 1, |_| {});
    let outside = tempfile::tempdir().unwrap();
    let log = b.rootfs().join("log");
    std::fs::remove_dir(&log).unwrap();
    std::os::unix::fs::symlink(outside.path().join("made"), &log).unwrap();
    // Whatever comes of it, nothing is made or mounted out there.
    let said = call(&b, criu, &["restore", "--detach"]);
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    if said.code == 0 {
        b.call(&["kill", &b.id, "KILL"]).code(0);
        b.wait_for("stopped");
    } else {
        b.assert_gone();
    }
}

#[test]
fn what_cannot_be_is_said() {
    if !possible() {
        return;
    }
    let b = Bundle::new("sleep 60");
    b.start();
    let said = call(&b, "/nonexistent/criu", &["checkpoint"]);
    assert_eq!(said.code, 1);
    said.says("criu is not installed");
    let said = call(&b, "/nonexistent/criu", &["restore", "--detach"]);
    assert_eq!(said.code, 1);
    said.says("criu is not installed");
    let said = call(&b, "/bin/false", &["checkpoint"]);
    assert_eq!(said.code, 1);
    said.says("criu");
    assert_eq!(b.state()["status"], "running");
}

/// What a restore puts onto the kernel's own files is refused as it is where a container is made.
#[test]
fn places_are_refused_as_in_a_create() {
    let (true, Some(criu)) = (possible(), criu()) else {
        return;
    };
    let (mut b, _) = checkpointed(criu, 3, |_| {});
    for (destination, kind, source, options) in [
        ("/proc/sys", "tmpfs", "tmpfs", &[][..]),
        ("/scratch/../proc/self/attr", "bind", "/tmp", &["rbind"]),
    ] {
        let mounts = b.config["mounts"].clone();
        b.mount(destination, kind, source, options);
        b.write_config();
        let said = call(&b, criu, &["restore", "--detach"]);
        said.code(1).says("is inside /proc");
        b.assert_gone();
        b.config["mounts"] = mounts;
    }
}
