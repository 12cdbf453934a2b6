//! Processor time and placement on v1: `cpu` and `cpuset`.

use super::super::CgroupError;
use super::super::dir::Dir;
use super::V1;
use crate::spec::resources::LinuxCpu;

const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// Sets shares, period, quota, burst and idle.
pub(super) fn set(v1: &V1, cpu: &LinuxCpu) -> Result<(), CgroupError> {
    if let Some(idle) = cpu.idle {
        v1.need("cpu", "linux.resources.cpu.idle")?.set(
            "linux.resources.cpu.idle",
            "cpu.idle",
            &idle.to_string(),
        )?;
    }
    if let Some(shares) = cpu.shares.filter(|&s| s != 0) {
        check_shares(shares)?;
        let dir = v1.need("cpu", "linux.resources.cpu.shares")?;
        dir.set(
            "linux.resources.cpu.shares",
            "cpu.shares",
            &shares.to_string(),
        )?;
    }
    let period = cpu.period.filter(|&p| p != 0);
    let quota = cpu.quota.filter(|&q| q != 0);
    if period.is_none() && quota.is_none() && cpu.burst.is_none() {
        return Ok(());
    }
    let dir = v1.need("cpu", "linux.resources.cpu.quota")?;
    set_bandwidth(dir, period, quota, cpu.burst)
}

/// Shares that no kernel takes as they are; it would change them silently.
pub(in super::super) fn check_shares(shares: u64) -> Result<(), CgroupError> {
    const FIELD: &str = "linux.resources.cpu.shares";
    if shares < *SHARES.start() {
        return Err(CgroupError::invalid(
            FIELD,
            format!("the minimum allowed cpu-shares is {}", SHARES.start()),
        ));
    }
    if shares > *SHARES.end() {
        return Err(CgroupError::invalid(
            FIELD,
            format!("the maximum allowed cpu-shares is {}", SHARES.end()),
        ));
    }
    Ok(())
}

/// The kernel checks each of the three against the others as they are at that
/// moment, so the order has to suit the direction of the change.
fn set_bandwidth(
    dir: &Dir,
    period: Option<u64>,
    quota: Option<i64>,
    burst: Option<u64>,
) -> Result<(), CgroupError> {
    const FIELD: &str = "linux.resources.cpu.quota";
    let burst = burst.map(|b| b.to_string());
    let set_burst = |burst: &str| dir.set("linux.resources.cpu.burst", "cpu.cfs_burst_us", burst);
    let mut burst_left = burst.as_deref();
    if let Some(value) = burst_left {
        // A larger burst may have to wait for the larger quota.
        match set_burst(value) {
            Ok(()) => burst_left = None,
            Err(e) if e.errno() == Some(libc::EINVAL) => {}
            Err(e) => return Err(e),
        }
    }
    let mut period_left = period.map(|p| p.to_string());
    if let Some(value) = &period_left {
        match dir.set("linux.resources.cpu.period", "cpu.cfs_period_us", value) {
            Ok(()) => period_left = None,
            // A shorter period may have to wait for the smaller quota.
            Err(e) if e.errno() == Some(libc::EINVAL) && quota.is_some() => {}
            Err(e) => return Err(e),
        }
    }
    if let Some(quota) = quota {
        dir.set(FIELD, "cpu.cfs_quota_us", &quota.max(-1).to_string())?;
        if let Some(value) = &period_left {
            dir.set("linux.resources.cpu.period", "cpu.cfs_period_us", value)?;
        }
    }
    burst_left.map_or(Ok(()), set_burst)
}

/// Sets the realtime share of the group.
pub(super) fn set_realtime(dir: &Dir, cpu: Option<&LinuxCpu>) -> Result<(), CgroupError> {
    let Some(cpu) = cpu else { return Ok(()) };
    if let Some(period) = cpu.realtime_period.filter(|&p| p != 0) {
        dir.set(
            "linux.resources.cpu.realtimePeriod",
            "cpu.rt_period_us",
            &period.to_string(),
        )?;
    }
    if let Some(runtime) = cpu.realtime_runtime.filter(|&r| r != 0) {
        dir.set(
            "linux.resources.cpu.realtimeRuntime",
            "cpu.rt_runtime_us",
            &runtime.to_string(),
        )?;
    }
    Ok(())
}

/// Gives a new cpuset group, and those made above it, processors and memory
/// nodes: what is asked for, else what the group above has.
pub(super) fn open_cpuset(
    leaf: &Dir,
    made: &[Dir],
    cpu: Option<&LinuxCpu>,
) -> Result<(), CgroupError> {
    let asked = |f: fn(&LinuxCpu) -> Option<&String>| cpu.and_then(f).filter(|s| !s.is_empty());
    let (cpus, mems) = (asked(|c| c.cpus.as_ref()), asked(|c| c.mems.as_ref()));
    for (file, field, wish) in [
        ("cpuset.cpus", "linux.resources.cpu.cpus", cpus),
        ("cpuset.mems", "linux.resources.cpu.mems", mems),
    ] {
        for dir in made.iter().filter(|d| *d != leaf) {
            inherit(dir, file)?;
        }
        match wish {
            Some(value) => leaf.set(field, file, value)?,
            None if made.is_empty() && !leaf.read(file)?.trim().is_empty() => {}
            None => inherit(leaf, file)?,
        }
    }
    Ok(())
}

/// Gives a group what the one above has. If that has nothing, it is either somebody's who
/// made it this moment and is about to open it, as others that are created beside us
/// do, or was never opened; in both cases it may as well be opened by us, since nobody
/// can be in it.
fn inherit(dir: &Dir, file: &str) -> Result<(), CgroupError> {
    let Some(above) = dir.path().parent().map(Dir::new) else {
        return Ok(());
    };
    let mut value = above.read(file)?;
    if value.trim().is_empty() {
        inherit(&above, file).map_err(|e| {
            crate::log::debug(|| crate::error::chain(&e));
            CgroupError::invalid(
                "linux.cgroupsPath",
                format!(
                    "the cpuset group above, {}, has an empty {file}",
                    above.path().display()
                ),
            )
        })?;
        value = above.read(file)?;
    }
    dir.write(file, value.trim())
}

/// Changes the placement of a container that runs.
pub(super) fn set_cpuset(dir: &Dir, cpu: &LinuxCpu) -> Result<(), CgroupError> {
    if let Some(cpus) = cpu.cpus.as_ref().filter(|s| !s.is_empty()) {
        dir.set("linux.resources.cpu.cpus", "cpuset.cpus", cpus)?;
    }
    if let Some(mems) = cpu.mems.as_ref().filter(|s| !s.is_empty()) {
        dir.set("linux.resources.cpu.mems", "cpuset.mems", mems)?;
    }
    Ok(())
}
