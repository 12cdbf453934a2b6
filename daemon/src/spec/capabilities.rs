//! Which capabilities a container has: Docker's default set, more, less, or all. Pure.

use std::collections::BTreeSet;

use crate::error::{Error, Result};

/// What a container has when nothing is asked.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Every capability, in the order of their numbers.
const ALL: [&str; 41] = [
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

/// A set of capabilities by bare name (`NET_RAW`).
pub(crate) type Set = BTreeSet<&'static str>;

/// The set of a container. `held` is what this daemon itself may give (its bounding set): asking for all means those.
pub(crate) fn of(privileged: bool, add: &[String], drop: &[String], held: &Set) -> Result<Set> {
    let (add, drop) = (normalised(add)?, normalised(drop)?);
    if privileged {
        return Ok(held.clone());
    }
    let mut set: Set = match (add.contains("ALL"), drop.contains("ALL")) {
        (true, _) => held.clone(),
        (false, true) => Set::new(),
        (false, false) => DEFAULT.into(),
    };
    if !drop.contains("ALL") {
        set.retain(|name| !drop.contains(name));
    }
    set.extend(add.into_iter().filter(|name| *name != "ALL"));
    Ok(set)
}

/// Checks names as a create request gives them.
pub(crate) fn check(names: &[String]) -> Result<()> {
    normalised(names).map(drop)
}

fn normalised(names: &[String]) -> Result<Set> {
    names.iter().map(|name| known(name)).collect()
}

fn known(name: &str) -> Result<&'static str> {
    let upper = name.trim().to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if bare == "ALL" {
        return Ok("ALL");
    }
    let found = ALL.iter().find(|known| **known == bare);
    found
        .copied()
        .ok_or_else(|| Error::invalid(format!("invalid capability: {name:?}")))
}

/// The capabilities of a bounding mask such as that of /proc/self/status.
pub(crate) fn of_mask(mask: u64) -> Set {
    let bits = ALL.iter().enumerate();
    bits.filter(|(bit, _)| mask >> bit & 1 == 1)
        .map(|(_, name)| *name)
        .collect()
}

/// The bounding set of this process.
pub(crate) fn held() -> Set {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let mask = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    mask.map_or_else(|| ALL.into(), of_mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(privileged: bool, add: &[&str], drop: &[&str]) -> Vec<&'static str> {
        let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let got = of(privileged, &own(add), &own(drop), &ALL.into()).unwrap();
        got.into_iter().collect()
    }

    #[test]
    fn the_sets() {
        assert_eq!(set(false, &[], &[]).len(), 14);
        assert_eq!(set(true, &[], &["ALL"]).len(), 41);
        assert_eq!(set(false, &["net_admin"], &["ALL"]), ["NET_ADMIN"]);
        assert_eq!(set(false, &["ALL"], &["CAP_KILL"]).len(), 40);
        assert!(!set(false, &[], &["NET_RAW"]).contains(&"NET_RAW"));
        assert!(check(&["NOPE".into()]).is_err());
    }

    #[test]
    fn masks() {
        assert_eq!(
            of_mask(0b1001).into_iter().collect::<Vec<_>>(),
            ["CHOWN", "FOWNER"]
        );
        assert_eq!(of_mask(u64::MAX).len(), 41);
    }
}
