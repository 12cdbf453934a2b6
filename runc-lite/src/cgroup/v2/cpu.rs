//! Processor time and placement on v2.

use super::super::CgroupError;
use super::super::dir::Dir;
use super::super::v1::cpu::check_shares;
use crate::spec::resources::LinuxCpu;

/// What the kernel starts with, microseconds.
pub(in super::super) const DEFAULT_PERIOD: u64 = 100_000;

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
    if let Some((quota, period)) = bandwidth(dir, cpu)? {
        let quota = quota.map_or("max".to_owned(), |q| q.to_string());
        let line = format!("{quota} {period}");
        dir.set("linux.resources.cpu.quota", "cpu.max", &line)?;
    }
    burst_left.map_or(Ok(()), set_burst)
}

/// Quota, if there is to be one, and period. The file has both in one line, so
/// one that is not asked for is taken from what is in force.
pub(in super::super) fn bandwidth(
    dir: &Dir,
    cpu: &LinuxCpu,
) -> Result<Option<(Option<u64>, u64)>, CgroupError> {
    let period = cpu.period.filter(|&p| p != 0);
    let quota = cpu.quota.filter(|&q| q != 0);
    let quota = quota.map(|q| u64::try_from(q).ok());
    match (quota, period) {
        (None, None) => Ok(None),
        (Some(quota), Some(period)) => Ok(Some((quota, period))),
        (quota, period) => {
            let line = dir.read_if_there("cpu.max")?.unwrap_or_default();
            let mut words = line.split_whitespace();
            let old_quota = words.next().and_then(|q| q.parse().ok());
            let old_period = words.next().and_then(|p| p.parse().ok());
            let period = period.or(old_period).unwrap_or(DEFAULT_PERIOD);
            Ok(Some((quota.unwrap_or(old_quota), period)))
        }
    }
}

/// Shares of 2 to 262144 as a weight of 1 to 10000. The usual 1024 shares must
/// be the usual weight of 100, and both ends must meet: a parabola through the
/// three points on logarithmic axes does that.
pub(in super::super) fn weight(shares: u64) -> u64 {
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
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::new(root.path());
        let line = |quota, period| {
            let cpu = LinuxCpu {
                quota,
                period,
                ..LinuxCpu::default()
            };
            bandwidth(&dir, &cpu).unwrap()
        };
        assert_eq!(line(Some(50_000), None), Some((Some(50_000), 100_000)));
        assert_eq!(line(Some(-1), Some(50_000)), Some((None, 50_000)));
        assert_eq!(line(None, None), None);
        // What is in force stays.
        std::fs::write(root.path().join("cpu.max"), "7000 20000\n").unwrap();
        assert_eq!(line(None, Some(50_000)), Some((Some(7000), 50_000)));
        assert_eq!(line(Some(9000), None), Some((Some(9000), 20_000)));
    }
}
