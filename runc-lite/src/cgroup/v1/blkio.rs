//! Block devices on v1. Weights belong to one I/O scheduler and are there only
//! where it is; throttles are there always.

use super::super::CgroupError;
use super::super::dir::Dir;
use super::V1;
use crate::spec::resources::{LinuxBlockIo, LinuxThrottleDevice};

/// Sets whatever is given.
pub(super) fn set(v1: &V1, io: &LinuxBlockIo) -> Result<(), CgroupError> {
    if *io == LinuxBlockIo::default() {
        return Ok(());
    }
    let dir = v1.need("blkio", "linux.resources.blockIO")?;
    if let Some(weight) = io.weight.filter(|&w| w != 0) {
        set_weight(
            dir,
            "linux.resources.blockIO.weight",
            "weight",
            &weight.to_string(),
        )?;
    }
    if let Some(weight) = io.leaf_weight.filter(|&w| w != 0) {
        dir.set(
            "linux.resources.blockIO.leafWeight",
            "blkio.leaf_weight",
            &weight.to_string(),
        )?;
    }
    for device in &io.weight_device {
        let line = |n: u16| format!("{}:{} {n}", device.major, device.minor);
        if let Some(weight) = device.weight.filter(|&w| w != 0) {
            set_weight(
                dir,
                "linux.resources.blockIO.weightDevice",
                "weight_device",
                &line(weight),
            )?;
        }
        if let Some(weight) = device.leaf_weight.filter(|&w| w != 0) {
            dir.set(
                "linux.resources.blockIO.weightDevice",
                "blkio.leaf_weight_device",
                &line(weight),
            )?;
        }
    }
    for (field, file, devices) in [
        (
            "linux.resources.blockIO.throttleReadBpsDevice",
            "blkio.throttle.read_bps_device",
            &io.throttle_read_bps_device,
        ),
        (
            "linux.resources.blockIO.throttleWriteBpsDevice",
            "blkio.throttle.write_bps_device",
            &io.throttle_write_bps_device,
        ),
        (
            "linux.resources.blockIO.throttleReadIOPSDevice",
            "blkio.throttle.read_iops_device",
            &io.throttle_read_iops_device,
        ),
        (
            "linux.resources.blockIO.throttleWriteIOPSDevice",
            "blkio.throttle.write_iops_device",
            &io.throttle_write_iops_device,
        ),
    ] {
        throttle(dir, field, file, devices)?;
    }
    Ok(())
}

fn throttle(
    dir: &Dir,
    field: &'static str,
    file: &str,
    devices: &[LinuxThrottleDevice],
) -> Result<(), CgroupError> {
    devices
        .iter()
        .try_for_each(|d| dir.set(field, file, &format!("{}:{} {}", d.major, d.minor, d.rate)))
}

/// The file has one name with the scheduler of old and another with today's.
fn set_weight(dir: &Dir, field: &'static str, file: &str, value: &str) -> Result<(), CgroupError> {
    if dir.write_if_there(&format!("blkio.{file}"), value)?
        || dir.write_if_there(&format!("blkio.bfq.{file}"), value)?
    {
        return Ok(());
    }
    Err(CgroupError::unavailable(field, format!("blkio.{file}")))
}
