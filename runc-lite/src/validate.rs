//! Refuses a configuration that cannot be carried out, before anything is made.

mod process;

use crate::create::net_devices::check_name;
use crate::init::{privileges, scheduling};
use crate::namespaces::Plan;
use crate::rootfs::options;
use crate::spec::{Hook, Hooks, Spec};

pub(crate) use process::check_process;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ValidateError {
    /// Something required is missing or malformed.
    #[error("{0}")]
    Malformed(String),
    /// A field asks for what this runtime or this kernel does not have.
    #[error("{field} is not supported: {why}")]
    Unsupported {
        field: &'static str,
        why: &'static str,
    },
}

/// Checks the whole configuration.
pub(crate) fn check(spec: &Spec, plan: &Plan) -> Result<(), ValidateError> {
    if spec.version.is_empty() {
        return malformed("`ociVersion` must not be empty");
    }
    if !spec.version.starts_with("1.") {
        return malformed(format!(
            "unsupported spec version \"{}\": this runtime implements {}",
            spec.version,
            crate::spec::VERSION
        ));
    }
    if spec.root.as_ref().is_none_or(|r| r.path.is_empty()) {
        return malformed("root path must not be empty");
    }
    let Some(process) = &spec.process else {
        return malformed("process property must not be empty");
    };
    check_process(process)?;
    check_namespaces(spec, plan)?;
    check_sysctls(spec, plan)?;
    check_hooks(&spec.hooks)?;
    check_net_devices(spec, plan)?;
    check_mounts(spec)?;
    check_unsupported(spec)
}

fn check_namespaces(spec: &Spec, plan: &Plan) -> Result<(), ValidateError> {
    let has = |flag| plan.makes(flag) || plan.joins(flag);
    if !has(libc::CLONE_NEWNS) {
        return malformed(
            "a mount namespace is required: without one the root file system would be the host's",
        );
    }
    let mappings = !spec.linux.uid_mappings.is_empty() || !spec.linux.gid_mappings.is_empty();
    if plan.makes(libc::CLONE_NEWUSER)
        && (spec.linux.uid_mappings.is_empty() || spec.linux.gid_mappings.is_empty())
    {
        return malformed("user namespaces enabled, but no user and group mappings found");
    }
    if mappings && !has(libc::CLONE_NEWUSER) {
        return malformed(
            "user namespace mappings specified, but user namespace isn't enabled in the config",
        );
    }
    if !spec.linux.time_offsets.is_empty() && !crate::namespaces::has_time(plan.late) {
        return malformed(
            "time namespace offsets specified, but time namespace isn't enabled in the config",
        );
    }
    if let Some(clock) = spec
        .linux
        .time_offsets
        .keys()
        .find(|c| *c != "monotonic" && *c != "boottime")
    {
        return malformed(format!("unknown clock \"{clock}\" in time offsets"));
    }
    if !spec.hostname.is_empty() && !has(libc::CLONE_NEWUTS) {
        return malformed("unable to set hostname without a private UTS namespace");
    }
    if !spec.domainname.is_empty() && !has(libc::CLONE_NEWUTS) {
        return malformed("unable to set domainname without a private UTS namespace");
    }
    Ok(())
}

/// Only parameters that a namespace of the container's own separates.
fn check_sysctls(spec: &Spec, plan: &Plan) -> Result<(), ValidateError> {
    const IPC: &[&str] = &[
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let has = |flag| plan.makes(flag) || plan.joins(flag);
    for name in spec.linux.sysctl.keys() {
        let dotted =
            match name.contains('/') && !name.split('/').next().is_some_and(|p| p.contains('.')) {
                true => name.replace('/', "."),
                false => name.clone(),
            };
        if dotted.split('.').any(|part| part.is_empty()) || name.contains("..") {
            return malformed(format!("sysctl \"{name}\" is malformed"));
        }
        let allowed = match dotted.as_str() {
            n if IPC.contains(&n) || n.starts_with("fs.mqueue.") => has(libc::CLONE_NEWIPC),
            n if n.starts_with("net.") => has(libc::CLONE_NEWNET),
            "kernel.domainname" => has(libc::CLONE_NEWUTS),
            "kernel.hostname" => {
                return malformed(format!(
                    "sysctl \"{name}\" conflicts with the OCI field hostname"
                ));
            }
            _ => false,
        };
        if !allowed {
            return malformed(format!(
                "sysctl \"{name}\" is not in a separate kernel namespace"
            ));
        }
    }
    Ok(())
}

/// A path that is not absolute would be looked for in our caller's $PATH.
fn check_hooks(hooks: &Hooks) -> Result<(), ValidateError> {
    let kinds: [(&str, &[Hook]); 6] = [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
        ("startContainer", &hooks.start_container),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ];
    for (kind, hooks) in kinds {
        if let Some(hook) = hooks.iter().find(|h| !h.path.starts_with('/')) {
            return malformed(format!("{kind} hook path {:?} must be absolute", hook.path));
        }
    }
    Ok(())
}

/// The kernel maps the ids of a mount only for who governs its file system.
fn check_mounts(spec: &Spec) -> Result<(), ValidateError> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let mapped = spec.mounts.iter().find(|m| {
        let maps = !m.uid_mappings.is_empty() || !m.gid_mappings.is_empty();
        maps || options::Options::parse(&m.options).idmap.is_some()
    });
    match mapped {
        None => Ok(()),
        Some(mount) => malformed(format!(
            "ids of mount {} cannot be mapped without privileges on the host",
            mount.destination
        )),
    }
}

fn check_net_devices(spec: &Spec, plan: &Plan) -> Result<(), ValidateError> {
    let devices = &spec.linux.net_devices;
    if devices.is_empty() {
        return Ok(());
    }
    if !plan.makes(libc::CLONE_NEWNET) && !plan.joins(libc::CLONE_NEWNET) {
        return malformed("unable to move network devices without a private NET namespace");
    }
    if !rustix::process::geteuid().is_root() {
        return malformed("network devices cannot be moved without privileges on the host");
    }
    let mut targets = std::collections::BTreeSet::new();
    for (name, device) in devices {
        let target = match device.name.as_str() {
            "" => name,
            given => given,
        };
        check_name(name)
            .and_then(|()| check_name(target))
            .map_err(ValidateError::Malformed)?;
        if !targets.insert(target) {
            return malformed(format!(
                "two network devices would have the name {target:?}"
            ));
        }
    }
    Ok(())
}

fn check_unsupported(spec: &Spec) -> Result<(), ValidateError> {
    let linux = &spec.linux;
    let unsupported = |field, why| Err(ValidateError::Unsupported { field, why });
    if let Some(rdt) = &linux.intel_rdt {
        crate::resctrl::check(rdt).map_err(ValidateError::Malformed)?;
    }
    if let Some(policy) = &linux.memory_policy {
        scheduling::check_memory(policy).map_err(ValidateError::Malformed)?;
    }
    if !linux.mount_label.is_empty() {
        return unsupported("linux.mountLabel", "labels of mounts are not built yet");
    }
    if let Some(personality) = &linux.personality {
        privileges::domain(personality).map_err(ValidateError::Malformed)?;
        if !personality.flags.is_empty() {
            return unsupported("linux.personality.flags", "no flag is defined");
        }
    }
    let propagation = linux.rootfs_propagation.as_str();
    if !propagation.is_empty() && options::propagation_flag(propagation).is_none() {
        return malformed(format!("rootfsPropagation={propagation} is not supported"));
    }
    Ok(())
}

/// Whether the kernel has AppArmor switched on.
pub(crate) fn apparmor_enabled() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|b| b.first() == Some(&b'Y'))
}

fn malformed<T>(why: impl Into<String>) -> Result<T, ValidateError> {
    Err(ValidateError::Malformed(why.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(change: &str) -> Result<(), String> {
        let mut json: serde_json::Value = serde_json::json!({
            "ociVersion": "1.0.2", "root": {"path": "rootfs"},
            "process": {"args": ["sh"], "cwd": "/"},
            "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]}
        });
        let change: serde_json::Value = serde_json::from_str(change).unwrap();
        for (path, value) in change.as_object().unwrap() {
            *json.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value.clone();
        }
        let spec: Spec = serde_json::from_value(json).unwrap();
        let plan = Plan::from_spec(&spec).map_err(|e| e.to_string())?;
        check(&spec, &plan).map_err(|e| e.to_string())
    }

    #[test]
    fn a_plain_configuration_passes() {
        assert_eq!(verdict("{}"), Ok(()));
    }

    #[test]
    fn what_is_missing_is_named() {
        for (change, text) in [
            (r#"{"/process/args": []}"#, "args must not be empty"),
            (r#"{"/process/cwd": "tmp"}"#, "Cwd must be an absolute path"),
            (
                r#"{"/process": null}"#,
                "process property must not be empty",
            ),
            (r#"{"/root": null}"#, "root path must not be empty"),
            (
                r#"{"/ociVersion": "2.0.0"}"#,
                "unsupported spec version \"2.0.0\": this runtime implements 1.2.0",
            ),
        ] {
            assert_eq!(verdict(change).unwrap_err(), text);
        }
    }

    #[test]
    fn sysctls_need_their_namespace() {
        let change = r#"{"/linux": {"namespaces": [{"type": "mount"}], "sysctl": {"net.ipv4.ip_forward": "1"}}}"#;
        assert!(
            verdict(change)
                .unwrap_err()
                .contains("separate kernel namespace")
        );
        let change = r#"{"/linux": {"namespaces": [{"type": "mount"}, {"type": "network"}], "sysctl": {"net.ipv4.ip_forward": "1"}}}"#;
        assert_eq!(verdict(change), Ok(()));
    }
}
