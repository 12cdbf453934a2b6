//! Refuses a process that cannot be, of config.json or of `exec`.

use super::{ValidateError, malformed};
use crate::init::{affinity, scheduling};
use crate::security::{capabilities, rlimits};
use crate::spec::Process;

/// Checks a process, of the configuration or of `exec`.
pub(crate) fn check_process(process: &Process) -> Result<(), ValidateError> {
    if process.cwd.is_empty() {
        return malformed("Cwd property must not be empty");
    }
    if !process.cwd.starts_with('/') {
        return malformed("Cwd must be an absolute path");
    }
    if process.args.is_empty() {
        return malformed("args must not be empty");
    }
    let strings = process
        .args
        .iter()
        .chain(&process.env)
        .chain([&process.cwd]);
    for text in strings {
        if text.contains('\0') {
            return malformed("process strings must not contain a zero byte");
        }
    }
    for (field, id) in [("uid", process.user.uid), ("gid", process.user.gid)] {
        if id == u32::MAX {
            return malformed(format!("user {field} {id} is out of range"));
        }
    }
    let affinity = process.exec_cpu_affinity.as_ref();
    rlimits::check(&process.rlimits)
        .and_then(|()| scheduling::check(process))
        .and_then(|()| affinity.map_or(Ok(()), affinity::check))
        .map_err(ValidateError::Malformed)?;
    if let Some(caps) = &process.capabilities {
        capabilities::warn_unknown(caps);
    }
    if !process.selinux_label.is_empty()
        && !std::path::Path::new("/sys/fs/selinux/enforce").exists()
    {
        return malformed(
            "selinux label is specified in config, but selinux is disabled or not supported",
        );
    }
    if !process.apparmor_profile.is_empty() && !super::apparmor_enabled() {
        return malformed(
            "apparmor profile is specified in config, but apparmor is not supported on the host",
        );
    }
    Ok(())
}
