//! Block devices on v2.

use super::super::CgroupError;
use super::super::dir::Dir;
use crate::spec::resources::LinuxBlockIo;

/// Sets whatever is given.
pub(super) fn set(dir: &Dir, io: &LinuxBlockIo) -> Result<(), CgroupError> {
    if io.leaf_weight.is_some_and(|w| w != 0) {
        return Err(CgroupError::unavailable(
            "linux.resources.blockIO.leafWeight",
            "a leaf weight on cgroup v2",
        ));
    }
    if let Some(weight) = io.weight.filter(|&w| w != 0) {
        set_weight(dir, "linux.resources.blockIO.weight", None, weight)?;
    }
    for device in &io.weight_device {
        if let Some(weight) = device.weight.filter(|&w| w != 0) {
            let id = format!("{}:{}", device.major, device.minor);
            set_weight(
                dir,
                "linux.resources.blockIO.weightDevice",
                Some(&id),
                weight,
            )?;
        }
    }
    for (field, key, devices) in [
        (
            "linux.resources.blockIO.throttleReadBpsDevice",
            "rbps",
            &io.throttle_read_bps_device,
        ),
        (
            "linux.resources.blockIO.throttleWriteBpsDevice",
            "wbps",
            &io.throttle_write_bps_device,
        ),
        (
            "linux.resources.blockIO.throttleReadIOPSDevice",
            "riops",
            &io.throttle_read_iops_device,
        ),
        (
            "linux.resources.blockIO.throttleWriteIOPSDevice",
            "wiops",
            &io.throttle_write_iops_device,
        ),
    ] {
        for d in devices {
            // Nothing per second is how v1 lifts a throttle.
            let rate = if d.rate == 0 {
                "max".to_owned()
            } else {
                d.rate.to_string()
            };
            dir.set(
                field,
                "io.max",
                &format!("{}:{} {key}={rate}", d.major, d.minor),
            )?;
        }
    }
    Ok(())
}

/// The BFQ scheduler keeps v1's scale; the general file has a wider one.
fn set_weight(
    dir: &Dir,
    field: &'static str,
    device: Option<&str>,
    weight: u16,
) -> Result<(), CgroupError> {
    let line = |w: u64| device.map_or_else(|| w.to_string(), |d| format!("{d} {w}"));
    if dir.write_if_there("io.bfq.weight", &line(weight.into()))? {
        return Ok(());
    }
    dir.set(field, "io.weight", &line(general_weight(weight)))
}

/// 10 to 1000 as 1 to 10000.
pub(in super::super) fn general_weight(weight: u16) -> u64 {
    1 + u64::from(weight.saturating_sub(10)) * 9999 / 990
}

#[cfg(test)]
mod tests {
    #[test]
    fn weights_meet_at_both_ends() {
        assert_eq!([10, 1000].map(super::general_weight), [1, 10_000]);
    }
}
