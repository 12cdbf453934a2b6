//! Limits: checked as Docker checks them, and as the runtime takes them.

use oci_spec::runtime::{
    LinuxBlockIoBuilder, LinuxCpuBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources,
    LinuxResourcesBuilder, LinuxThrottleDevice, LinuxThrottleDeviceBuilder,
    LinuxWeightDeviceBuilder,
};
use proto::engine::{Resources, ThrottleDevice, WeightDevice};

use super::devices;
use crate::error::{Error, Result};

const SMALLEST_MEMORY: i64 = 6 << 20;

fn wrong(error: oci_spec::OciSpecError) -> Error {
    Error::internal(format!("build the resource limits: {error}"))
}

/// Refuses limits that contradict themselves or that no kernel takes.
pub(crate) fn check(r: &Resources) -> Result<()> {
    let bad = |text: String| Err(Error::invalid(text));
    if r.memory < 0 {
        return bad(format!("invalid memory limit: {}", r.memory));
    }
    if r.memory > 0 && r.memory < SMALLEST_MEMORY {
        return bad("Minimum memory limit allowed is 6MB".into());
    }
    if r.memory_swap > 0 && r.memory == 0 {
        return bad(
            "You should always set the Memory limit when using Memoryswap limit, see usage".into(),
        );
    }
    if r.memory_swap > 0 && r.memory_swap < r.memory {
        return bad(
            "Minimum memoryswap limit should be larger than memory limit, see usage".into(),
        );
    }
    if r.memory_reservation < 0
        || r.memory_reservation > 0 && r.memory_reservation < SMALLEST_MEMORY
    {
        return bad("Minimum memory reservation allowed is 6MB".into());
    }
    if r.memory > 0 && r.memory_reservation > r.memory {
        return bad(
            "Minimum memory limit can not be less than memory reservation limit, see usage".into(),
        );
    }
    if let Some(swappiness) = r.memory_swappiness
        && !(-1..=100).contains(&swappiness)
    {
        return bad(format!(
            "invalid value: {swappiness}, valid memory swappiness range is 0-100"
        ));
    }
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as i64;
    if r.nano_cpus < 0 || r.nano_cpus > cpus * 1_000_000_000 {
        return bad(format!(
            "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        ));
    }
    if r.nano_cpus > 0 && (r.cpu_period > 0 || r.cpu_quota > 0) {
        return bad(
            "Conflicting options: Nano CPUs and CPU Period/Quota cannot both be set".into(),
        );
    }
    if r.cpu_shares < 0 {
        return bad(format!(
            "invalid CPU shares ({}): value must be a positive integer",
            r.cpu_shares
        ));
    }
    if r.cpu_period != 0 && !(1_000..=1_000_000).contains(&r.cpu_period) {
        return bad(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
                .into(),
        );
    }
    if r.cpu_quota > 0 && r.cpu_quota < 1_000 {
        return bad("CPU cfs quota can not be less than 1ms (i.e. 1000)".into());
    }
    for (what, list) in [("cpus", &r.cpuset_cpus), ("mems", &r.cpuset_mems)] {
        if !is_cpu_list(list) {
            return bad(format!("Invalid value {list} for cpuset {what}"));
        }
    }
    if r.blkio_weight != 0 && !(10..=1000).contains(&r.blkio_weight) {
        return bad("Range of blkio weight is from 10 to 1000".into());
    }
    for rule in r.device_cgroup_rules.iter().flatten() {
        devices::parse_rule(rule)?;
    }
    for ulimit in r.ulimits.iter().flatten() {
        super::process::rlimit(&ulimit.name, ulimit.soft, ulimit.hard)?;
    }
    Ok(())
}

/// Refuses processors and memory nodes that this host does not have.
pub(crate) fn check_sets(r: &Resources) -> Result<()> {
    for (asked, what, path) in [
        (&r.cpuset_cpus, "CPUs", "/sys/devices/system/cpu/online"),
        (
            &r.cpuset_mems,
            "memory nodes",
            "/sys/devices/system/node/online",
        ),
    ] {
        let available = std::fs::read_to_string(path).unwrap_or_default();
        let available = available.trim();
        // A kernel that does not tell leaves it to the runtime.
        if !available.is_empty() && !members(asked).is_subset(&members(available)) {
            return Err(Error::invalid(format!(
                "Requested {what} are not available - requested {asked}, available: {available}"
            )));
        }
    }
    Ok(())
}

/// The numbers of a list; none of what is no list. Those beyond any machine are cut off.
fn members(text: &str) -> std::collections::BTreeSet<u32> {
    const MOST: u32 = 1 << 13;
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let from: u32 = from.trim().parse().ok()?;
        let to: u32 = to.trim().parse().ok()?;
        Some(from.min(MOST)..=to.min(MOST))
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// `0-3,7` or empty.
fn is_cpu_list(text: &str) -> bool {
    let number = |text: &str| text.parse::<u32>().ok();
    text.is_empty()
        || text
            .split(',')
            .all(|part| match part.trim().split_once('-') {
                Some((from, to)) => {
                    matches!((number(from), number(to)), (Some(a), Some(b)) if a <= b)
                }
                None => number(part.trim()).is_some(),
            })
}

/// The limits but for devices.
pub(crate) fn limits(r: &Resources) -> Result<LinuxResources> {
    let mut built = LinuxResourcesBuilder::default();
    if let Some(memory) = memory(r)? {
        built = built.memory(memory);
    }
    if let Some(cpu) = cpu(r)? {
        built = built.cpu(cpu);
    }
    if let Some(io) = block_io(r)? {
        built = built.block_io(io);
    }
    match r.pids_limit {
        None | Some(0) => {}
        Some(limit) => {
            let pids = LinuxPidsBuilder::default().limit(limit.max(-1));
            built = built.pids(pids.build().map_err(wrong)?);
        }
    }
    built.build().map_err(wrong)
}

fn memory(r: &Resources) -> Result<Option<oci_spec::runtime::LinuxMemory>> {
    let mut built = LinuxMemoryBuilder::default();
    let mut any = false;
    if r.memory > 0 {
        built = built.limit(r.memory);
        any = true;
    }
    if r.memory_reservation > 0 {
        built = built.reservation(r.memory_reservation);
        any = true;
    }
    let swap = swap(r);
    if swap != 0 {
        built = built.swap(swap);
        any = true;
    }
    if let Some(Ok(swappiness)) = r.memory_swappiness.map(u64::try_from) {
        built = built.swappiness(swappiness);
        any = true;
    }
    if r.oom_kill_disable == Some(true) {
        built = built.disable_oom_killer(true);
        any = true;
    }
    any.then(|| built.build().map_err(wrong)).transpose()
}

/// Memory and swap together; as much swap as memory where only that is limited.
pub(crate) fn swap(r: &Resources) -> i64 {
    match (r.memory, r.memory_swap) {
        (memory, 0) if memory > 0 => memory.saturating_mul(2),
        (_, swap) => swap,
    }
}

fn cpu(r: &Resources) -> Result<Option<oci_spec::runtime::LinuxCpu>> {
    let mut built = LinuxCpuBuilder::default();
    let mut any = false;
    if let (true, Ok(shares)) = (r.cpu_shares > 0, u64::try_from(r.cpu_shares)) {
        built = built.shares(shares);
        any = true;
    }
    let (period, quota) = match r.nano_cpus {
        0 => (r.cpu_period, r.cpu_quota),
        nano => (100_000, nano / 10_000),
    };
    if let (true, Ok(period)) = (period > 0, u64::try_from(period)) {
        built = built.period(period);
        any = true;
    }
    if quota != 0 {
        built = built.quota(quota);
        any = true;
    }
    if let (true, Ok(period)) = (
        r.cpu_realtime_period > 0,
        u64::try_from(r.cpu_realtime_period),
    ) {
        built = built.realtime_period(period);
        any = true;
    }
    if r.cpu_realtime_runtime != 0 {
        built = built.realtime_runtime(r.cpu_realtime_runtime);
        any = true;
    }
    if !r.cpuset_cpus.is_empty() {
        built = built.cpus(r.cpuset_cpus.clone());
        any = true;
    }
    if !r.cpuset_mems.is_empty() {
        built = built.mems(r.cpuset_mems.clone());
        any = true;
    }
    any.then(|| built.build().map_err(wrong)).transpose()
}

fn block_io(r: &Resources) -> Result<Option<oci_spec::runtime::LinuxBlockIo>> {
    let mut built = LinuxBlockIoBuilder::default();
    let mut any = false;
    if r.blkio_weight > 0 {
        built = built.weight(r.blkio_weight);
        any = true;
    }
    if let Some(list) = given(r.blkio_weight_device.as_ref()) {
        built = built.weight_device(list.iter().map(weight).collect::<Result<Vec<_>>>()?);
        any = true;
    }
    if let Some(list) = given(r.blkio_device_read_bps.as_ref()) {
        built = built.throttle_read_bps_device(throttles(list)?);
        any = true;
    }
    if let Some(list) = given(r.blkio_device_write_bps.as_ref()) {
        built = built.throttle_write_bps_device(throttles(list)?);
        any = true;
    }
    if let Some(list) = given(r.blkio_device_read_iops.as_ref()) {
        built = built.throttle_read_iops_device(throttles(list)?);
        any = true;
    }
    if let Some(list) = given(r.blkio_device_write_iops.as_ref()) {
        built = built.throttle_write_iops_device(throttles(list)?);
        any = true;
    }
    any.then(|| built.build().map_err(wrong)).transpose()
}

fn given<T>(list: Option<&Vec<T>>) -> Option<&Vec<T>> {
    list.filter(|list| !list.is_empty())
}

fn weight(device: &WeightDevice) -> Result<oci_spec::runtime::LinuxWeightDevice> {
    let (major, minor) = devices::block_device(&device.path)?;
    LinuxWeightDeviceBuilder::default()
        .major(major)
        .minor(minor)
        .weight(device.weight)
        .build()
        .map_err(wrong)
}

fn throttles(list: &[ThrottleDevice]) -> Result<Vec<LinuxThrottleDevice>> {
    list.iter()
        .map(|device| {
            let (major, minor) = devices::block_device(&device.path)?;
            LinuxThrottleDeviceBuilder::default()
                .major(major)
                .minor(minor)
                .rate(device.rate)
                .build()
                .map_err(wrong)
        })
        .collect()
}

/// Takes over what an update names; zero and empty mean unchanged, as in Docker.
pub(crate) fn updated(old: &Resources, new: &Resources) -> Resources {
    let mut r = old.clone();
    macro_rules! take {
        ($($field:ident),*) => { $(
            if new.$field != Resources::default().$field { r.$field = new.$field.clone(); }
        )* };
    }
    take!(
        cpu_shares,
        memory,
        nano_cpus,
        blkio_weight,
        cpu_period,
        cpu_quota,
        cpu_realtime_period,
        cpu_realtime_runtime,
        cpuset_cpus,
        cpuset_mems,
        memory_reservation,
        memory_swap,
        pids_limit
    );
    // The two ways to limit processor time exclude each other; the newer one stands.
    if new.nano_cpus > 0 {
        (r.cpu_period, r.cpu_quota) = (0, 0);
    } else if new.cpu_period > 0 || new.cpu_quota > 0 {
        r.nano_cpus = 0;
    }
    r
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_refused() {
        let base = Resources::default();
        let bad = [
            Resources {
                memory: 1 << 20,
                ..base.clone()
            },
            Resources {
                memory_swap: 1 << 30,
                ..base.clone()
            },
            Resources {
                memory: 64 << 20,
                memory_swap: 32 << 20,
                ..base.clone()
            },
            Resources {
                nano_cpus: 1,
                cpu_quota: 5000,
                ..base.clone()
            },
            Resources {
                nano_cpus: 1 << 50,
                ..base.clone()
            },
            Resources {
                cpuset_cpus: "0-x".into(),
                ..base.clone()
            },
            Resources {
                blkio_weight: 5,
                ..base.clone()
            },
            Resources {
                cpu_period: 10,
                ..base.clone()
            },
        ];
        for r in bad {
            assert!(check(&r).is_err(), "{r:?}");
        }
        assert!(check(&base).is_ok());
        assert!(
            check(&Resources {
                memory: 64 << 20,
                memory_swap: -1,
                ..base
            })
            .is_ok()
        );
    }

    #[test]
    fn limits_are_dockers() {
        let r = Resources {
            memory: 64 << 20,
            nano_cpus: 500_000_000,
            pids_limit: Some(-1),
            ..Resources::default()
        };
        let out = serde_json::to_value(limits(&r).unwrap()).unwrap();
        assert_eq!(
            out,
            serde_json::json!({
                "memory": {"limit": 67108864, "swap": 134217728},
                "cpu": {"period": 100000, "quota": 50000},
                "pids": {"limit": -1}
            })
        );
    }

    #[test]
    fn an_update_leaves_the_rest() {
        let old = Resources {
            memory: 1 << 30,
            cpu_shares: 5,
            ..Resources::default()
        };
        let new = Resources {
            cpu_shares: 7,
            ..Resources::default()
        };
        let got = updated(&old, &new);
        assert_eq!((got.memory, got.cpu_shares), (1 << 30, 7));
    }
}
