//! Processor time and placement on v2.

use super::super::CgroupError;
use super::super::dir::Dir;
use super::super::v1::cpu::check_shares;
use crate::spec::resources::LinuxCpu;

const DEFAULT_PERIOD: u64 = 100_000;

/// Sets weight, idle, quota and burst.
pub(super) fn set(dir: &Dir, cpu: &LinuxCpu) -> Result<(), CgroupError> {
    if let Some(n) = cpu.realtime_runtime.filter(|&r| r != 0) {
        let why = format!("{n}: cgroup v2 has no realtime groups");
        return Err(CgroupError::invalid(
            "linux.resources.cpu.realtimeRuntime",
            why,
        ));
    }
    if let Some(idle) = cpu.idle {
        dir.set("linux.resources.cpu.idle", "cpu.idle", &idle.to_string())?;
    }
    if let Some(shares) = cpu.shares.filter(|&s| s != 0) {
        check_shares(shares)?;
        // An idle group has no weight to change.
        if cpu.idle != Some(1) {
            dir.set(
                "linux.resources.cpu.shares",
                "cpu.weight",
                &weight(shares).to_string(),
            )?;
        }
    }
    set_bandwidth(dir, cpu)
}

fn set_bandwidth(dir: &Dir, cpu: &LinuxCpu) -> Result<(), CgroupError> {
    let period = cpu.period.filter(|&p| p != 0);
    let quota = cpu.quota.filter(|&q| q != 0);
    let burst = cpu.burst.map(|b| b.to_string());
    let set_burst = |burst: &str| dir.set("linux.resources.cpu.burst", "cpu.max.burst", burst);
    let mut burst_left = burst.as_deref();
    if let Some(value) = burst_left {
        // A larger burst may have to wait for the larger quota.
        match set_burst(value) {
            Ok(()) => burst_left = None,
            Err(e) if e.errno() == Some(libc::EINVAL) => {}
            Err(e) => return Err(e),
        }
    }
    if let Some(value) = max_line(quota, period) {
        dir.set("linux.resources.cpu.quota", "cpu.max", &value)?;
    }
    burst_left.map_or(Ok(()), set_burst)
}

/// `cpu.max` takes the quota alone, but not the period alone.
fn max_line(quota: Option<i64>, period: Option<u64>) -> Option<String> {
    let quota = match quota {
        Some(q) if q > 0 => q.to_string(),
        Some(_) => "max".to_owned(),
        None if period.is_some() => "max".to_owned(),
        None => return None,
    };
    Some(format!("{quota} {}", period.unwrap_or(DEFAULT_PERIOD)))
}

/// Shares of 2 to 262144 as a weight of 1 to 10000. The usual 1024 shares must
/// be the usual weight of 100, and both ends must meet: a parabola through the
/// three points on logarithmic axes does that.
fn weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    #[expect(clippy::cast_precision_loss, reason = "at most 262144")]
    let l = (shares as f64).log2();
    let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and 10000"
    )]
    let weight = 10f64.powf(exponent).ceil() as u64;
    weight.clamp(1, 10_000)
}

/// Places the group.
pub(super) fn set_cpuset(dir: &Dir, cpu: &LinuxCpu) -> Result<(), CgroupError> {
    if let Some(cpus) = cpu.cpus.as_ref().filter(|s| !s.is_empty()) {
        dir.set("linux.resources.cpu.cpus", "cpuset.cpus", cpus)?;
    }
    if let Some(mems) = cpu.mems.as_ref().filter(|s| !s.is_empty()) {
        dir.set("linux.resources.cpu.mems", "cpuset.mems", mems)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_meet_weights_at_the_ends_and_in_the_middle() {
        assert_eq!([2, 1024, 262_144].map(weight), [1, 100, 10_000]);
        assert!((3..262_144).step_by(97).map(weight).is_sorted());
    }

    #[test]
    fn quota_and_period_make_one_line() {
        assert_eq!(
            max_line(Some(50_000), None).as_deref(),
            Some("50000 100000")
        );
        assert_eq!(
            max_line(Some(-1), Some(50_000)).as_deref(),
            Some("max 50000")
        );
        assert_eq!(max_line(None, Some(50_000)).as_deref(), Some("max 50000"));
        assert_eq!(max_line(None, None), None);
    }
}
