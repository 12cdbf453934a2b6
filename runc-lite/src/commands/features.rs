//! `features`: what this build can do, as the runtime specification asks. It wants
//! the runtime's abilities, whatever the kernel at hand has: a caller decides by
//! them what to put into a config.json. `false` is what validation refuses.

use serde_json::json;

use super::{CommandError, say};
use crate::error::Doing as _;
use crate::init::scheduling;
use crate::rootfs::options;
use crate::security::{capabilities, seccomp};

pub(super) fn run() -> Result<(), CommandError> {
    let features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": crate::spec::VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": options::known_words(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities::known(),
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": false, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": seccomp::known_actions(),
                "operators": seccomp::known_operators(),
                "archs": seccomp::known_archs(),
                "knownFlags": seccomp::known_flags(),
                "supportedFlags": seccomp::supported_flags(),
            },
            "apparmor": {"enabled": true},
            // Labels of processes are applied, those of mounts are not.
            "selinux": {"enabled": false},
            "intelRdt": {"enabled": true, "schemata": {"enabled": true}, "monitoring": {"enabled": true}},
            "netDevices": {"enabled": true},
            "memoryPolicy": {"modes": scheduling::memory_modes(), "flags": scheduling::memory_flags()},
            "mountExtensions": {"idmap": {"enabled": true}},
        },
        "annotations": {
            "io.runc-lite.version": env!("CARGO_PKG_VERSION"),
            "io.runc-lite.commit": env!("RUNC_LITE_COMMIT"),
            "org.opencontainers.runc.checkpoint.enabled": "true",
        },
        "potentiallyUnsafeConfigAnnotations": ["org.criu.config", "org.systemd.property."],
    });
    let text = serde_json::to_string_pretty(&features)
        .map_err(std::io::Error::from)
        .doing(|| "print the features")?;
    say(format_args!("{text}\n"));
    Ok(())
}
