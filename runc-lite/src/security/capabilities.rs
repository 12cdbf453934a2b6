//! The five capability sets of a process.
//!
//! ```text
//!  apply_bounding   while still root: drops from the bounding set what the
//!                   container must never have
//!  (keep capabilities, change of user)
//!  apply_process    cuts effective, permitted and inheritable, raises ambient
//! ```
//!
//! A name that no kernel knows is ignored with a warning, since profiles are
//! written for kernels newer than ours, and so is a capability that the caller
//! does not have itself.

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use crate::error::{Doing as _, StepError};
use crate::spec::Capabilities;

/// By number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// All names with their prefix, in order of number.
pub(crate) fn known() -> Vec<String> {
    NAMES.iter().map(|n| format!("CAP_{n}")).collect()
}

/// One capability by name, with or without `CAP_`, in any case.
pub(crate) fn parse(name: &str) -> Option<CapabilitySet> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let number = NAMES.iter().position(|n| *n == bare)?;
    Some(single(number))
}

fn single(number: usize) -> CapabilitySet {
    CapabilitySet::from_bits_retain(1 << number)
}

fn set(names: &[String], unknown: &mut Vec<String>) -> CapabilitySet {
    let mut set = CapabilitySet::empty();
    for name in names {
        match parse(name) {
            Some(cap) => set |= cap,
            None if unknown.contains(name) => {}
            None => unknown.push(name.clone()),
        }
    }
    set
}

fn list(set: CapabilitySet) -> String {
    let all = NAMES
        .iter()
        .enumerate()
        .filter(|(n, _)| set.contains(single(*n)));
    all.map(|(_, name)| format!("CAP_{name}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Warns of names that mean nothing here; once per container, before anything
/// is changed.
pub(crate) fn warn_unknown(caps: &Capabilities) {
    let mut unknown = Vec::new();
    for names in [
        &caps.bounding,
        &caps.effective,
        &caps.permitted,
        &caps.inheritable,
        &caps.ambient,
    ] {
        set(names, &mut unknown);
    }
    if !unknown.is_empty() {
        crate::log::warn(&format!(
            "ignoring unknown or unavailable capabilities: [{}]",
            unknown.join(" ")
        ));
    }
}

/// Drops everything but the given names from the bounding set.
pub(crate) fn apply_bounding(caps: &Capabilities) -> Result<(), StepError> {
    let wanted = set(&caps.bounding, &mut Vec::new());
    let mut absent = CapabilitySet::empty();
    // Numbers above those that we have names for exist in newer kernels: drop too.
    for number in 0..64 {
        let cap = single(number);
        let step = if wanted.contains(cap) {
            capability_is_in_bounding_set(cap).map(|there| {
                if !there {
                    absent |= cap;
                }
            })
        } else {
            remove_capability_from_bounding_set(cap)
        };
        match step {
            Ok(()) => {}
            // The kernel's last one is behind us.
            Err(rustix::io::Errno::INVAL) => break,
            Err(e) => {
                return Err(e).doing(|| format!("drop capability {number} from the bounding set"));
            }
        }
    }
    if !absent.is_empty() {
        crate::log::warn(&format!(
            "capabilities not available to this caller are left out: {}",
            list(absent)
        ));
    }
    Ok(())
}

/// Cuts the other sets, after the change of user.
pub(crate) fn apply_process(caps: &Capabilities) -> Result<(), StepError> {
    let mut ignored = Vec::new();
    let mut get = |names: &[String]| set(names, &mut ignored);
    let own = capabilities(None)
        .doing(|| "read own capabilities")?
        .permitted;
    // What is not permitted now cannot be gained, not even inheritably.
    let permitted = get(&caps.permitted) & own;
    let bounded = |wanted: CapabilitySet| wanted & (own | permitted);
    let sets = CapabilitySets {
        permitted,
        effective: get(&caps.effective) & permitted,
        inheritable: bounded(get(&caps.inheritable)),
    };
    let ambient = get(&caps.ambient);
    set_capabilities(None, sets).doing(|| "set capabilities")?;
    set_ambient(ambient)
}

/// Raising needs a capability in both the permitted and the inheritable set.
fn set_ambient(wanted: CapabilitySet) -> Result<(), StepError> {
    match clear_ambient_capability_set() {
        // Before Linux 4.3 there was no such set, and nothing in it.
        Err(rustix::io::Errno::INVAL) if wanted.is_empty() => return Ok(()),
        other => other.doing(|| "clear ambient capabilities")?,
    }
    for (number, name) in NAMES.iter().enumerate() {
        let cap = single(number);
        if wanted.contains(cap)
            && let Err(e) = configure_capability_in_ambient_set(cap, true)
        {
            let cause = crate::error::errno_text(e.raw_os_error());
            crate::log::warn(&format!(
                "can't raise ambient capability CAP_{name}: {cause}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_people_write_them() {
        assert_eq!(parse("CAP_CHOWN"), Some(CapabilitySet::CHOWN));
        assert_eq!(parse("net_admin"), Some(CapabilitySet::NET_ADMIN));
        assert_eq!(
            parse("CAP_CHECKPOINT_RESTORE"),
            Some(CapabilitySet::CHECKPOINT_RESTORE)
        );
        assert_eq!(parse("cap_sys_resource"), Some(CapabilitySet::SYS_RESOURCE));
        assert_eq!(parse("CAP_"), None);
        assert_eq!(parse("CAP_FUTURE"), None);
    }

    #[test]
    fn every_number_has_the_kernels_name() {
        for (number, name) in NAMES.iter().enumerate() {
            let known = CapabilitySet::from_name(name).unwrap();
            assert_eq!(known.bits(), 1 << number, "{name}");
        }
        assert_eq!(
            list(CapabilitySet::CHOWN | CapabilitySet::BPF),
            "CAP_CHOWN, CAP_BPF"
        );
    }

    #[test]
    fn unknown_names_are_collected_once() {
        let mut unknown = Vec::new();
        let names = [
            "CAP_X".to_owned(),
            "CAP_KILL".to_owned(),
            "CAP_X".to_owned(),
        ];
        assert_eq!(set(&names, &mut unknown), CapabilitySet::KILL);
        assert_eq!(unknown, ["CAP_X"]);
    }
}
