//! Device rules on v1: the difference between what is in force and what is asked for.

use super::super::CgroupError;
use super::super::devices::DeviceSet;
use super::super::dir::Dir;
use crate::spec::resources::LinuxDeviceCgroup;

const LIST: &str = "devices.list";

/// Brings the group's rules to those of the container.
pub(super) fn set(dir: &Dir, rules: &[LinuxDeviceCgroup]) -> Result<(), CgroupError> {
    let target = DeviceSet::of_container(rules)?;
    let list = dir.read(LIST)?;
    let current = DeviceSet::parse_list(&list).ok_or_else(|| {
        CgroupError::invalid("devices.list", format!("cannot understand {list:?}"))
    })?;
    let steps = current.steps_to(&target);
    if steps.is_empty() {
        return Ok(());
    }
    let (allow, deny) = (
        dir.open_for_values("devices.allow")?,
        dir.open_for_values("devices.deny")?,
    );
    for step in &steps {
        let file = if step.allow { &allow } else { &deny };
        match file.write(&step.line) {
            // Inside a user namespace nobody may change the rules, and whoever made
            // the namespace has set them already.
            Err(e) if e.errno() == Some(libc::EPERM) && in_user_namespace() => return Ok(()),
            other => other?,
        }
    }
    Ok(())
}

/// Whether this process is in a user namespace other than the first.
pub(crate) fn in_user_namespace() -> bool {
    // The first one maps all ids to themselves.
    std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|m| m.split_whitespace().ne(["0", "0", "4294967295"]))
}
