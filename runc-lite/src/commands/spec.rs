//! `spec`: a config.json to start from.

use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::{CommandError, refuse};
use crate::args::Parsed;
use crate::error::Doing as _;

pub(super) fn run(parsed: &Parsed) -> Result<(), CommandError> {
    let dir = parsed
        .value("bundle")
        .filter(|b| !b.is_empty())
        .unwrap_or(".");
    let path = Path::new(dir).join("config.json");
    let mut spec = template();
    if parsed.switch("rootless") {
        make_rootless(&mut spec);
    }
    let text = serde_json::to_string_pretty(&spec)
        .map_err(std::io::Error::from)
        .doing(|| "write the configuration")?;
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path);
    match file {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            refuse("File config.json exists. Remove it first")
        }
        other => {
            let what = || format!("write {}", path.display());
            let mut file = other.doing(what)?;
            Ok(file.write_all(text.as_bytes()).doing(what)?)
        }
    }
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    let mut mount = json!({"destination": destination, "type": kind, "source": source});
    if !options.is_empty() {
        mount["options"] = json!(options);
    }
    mount
}

fn template() -> Value {
    let caps = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    json!({
        "ociVersion": crate::spec::VERSION,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "runc-lite",
        "mounts": [
            mount("/proc", "proc", "proc", &[]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"},
                {"type": "mount"}, {"type": "cgroup"},
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware",
                "/proc/scsi",
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
            ],
        },
    })
}

/// A user namespace with the caller in it, and nothing that needs more.
fn make_rootless(spec: &mut Value) {
    let map = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
    spec["linux"]["uidMappings"] = map(rustix::process::geteuid().as_raw());
    spec["linux"]["gidMappings"] = map(rustix::process::getegid().as_raw());
    spec["linux"]["namespaces"] = json!([
        {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"},
        {"type": "user"},
    ]);
    spec["linux"]["resources"] = Value::Null;
    let mounts = spec["mounts"]
        .as_array_mut()
        .expect("the template has mounts");
    for m in mounts {
        if m["destination"] == "/sys" {
            *m = mount(
                "/sys",
                "none",
                "/sys",
                &["rbind", "nosuid", "noexec", "nodev", "ro"],
            );
        }
        if let Some(options) = m["options"].as_array_mut() {
            options.retain(|o| !o.as_str().is_some_and(|o| o.starts_with("gid=")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_accepted() {
        for rootless in [false, true] {
            let mut value = template();
            if rootless {
                make_rootless(&mut value);
            }
            let spec: crate::spec::Spec = serde_json::from_value(value).unwrap();
            let plan = crate::namespaces::Plan::from_spec(&spec).unwrap();
            crate::validate::check(&spec, &plan).unwrap();
        }
    }
}
