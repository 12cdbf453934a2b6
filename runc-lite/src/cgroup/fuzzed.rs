//! What the fuzzer calls of this module, in one place.

use super::devices::DeviceSet;
use super::{CgroupError, locate, stats, v2};
use crate::spec::resources::LinuxDeviceCgroup;

/// Rules to both kernels' forms: the steps of v1 must lead where the rules say,
/// and the program of v2 must end.
pub(crate) fn device_rules(rules: &[LinuxDeviceCgroup]) -> Result<(), CgroupError> {
    let wanted = DeviceSet::of_container(rules)?;
    let from = DeviceSet::parse_list("a *:* rwm\n").expect("the kernel's own words");
    let _ = from.steps_to(&wanted);
    assert!(
        wanted.steps_to(&wanted).is_empty(),
        "no step to where one is"
    );
    let _ = v2::compiled_length(&wanted);
    Ok(())
}

/// Texts of the kernel; gives what tells one input from another.
pub(crate) fn texts(text: &str) -> (bool, usize) {
    let clean = locate::clean(text);
    assert!(!clean.is_absolute(), "{clean:?}");
    assert!(
        clean
            .components()
            .all(|c| matches!(c, std::path::Component::Normal(_)))
    );
    let counts = stats::flat_keyed(text).len();
    (
        DeviceSet::parse_list(text).is_some(),
        counts + locate::fuzzed(text),
    )
}
