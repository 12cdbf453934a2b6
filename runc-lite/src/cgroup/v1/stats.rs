//! Usage figures on v1.

use super::super::CgroupError;
use super::super::dir::Dir;
use super::super::stats::{BlkioEntry, Hugetlb, MemoryEntry, Stats, flat_keyed, number_list};
use super::V1;

/// Ticks of user mode time in a second, as the kernel shows them to everybody.
const NANOS_PER_TICK: u64 = 1_000_000_000 / 100;

/// Reads all hierarchies; one that is missing leaves zeros.
pub(super) fn read(v1: &V1) -> Result<Stats, CgroupError> {
    let mut stats = Stats::default();
    if let Some(dir) = v1.dir("cpu") {
        let cpu = dir
            .read_if_there("cpu.stat")?
            .map(|t| flat_keyed(&t))
            .unwrap_or_default();
        let get = |key: &str| cpu.get(key).copied().unwrap_or(0);
        let throttling = &mut stats.cpu.throttling;
        throttling.periods = get("nr_periods");
        throttling.throttled_periods = get("nr_throttled");
        throttling.throttled_time = get("throttled_time");
    }
    if let Some(dir) = v1.dir("cpuacct") {
        cpuacct(dir, &mut stats)?;
    }
    if let Some(dir) = v1.dir("cpuset") {
        cpuset(dir, &mut stats)?;
    }
    if let Some(dir) = v1.dir("memory") {
        memory(dir, &mut stats)?;
    }
    if let Some(dir) = v1.dir("pids") {
        stats.pids.current = dir.number("pids.current")?.unwrap_or(0);
        stats.pids.limit = dir.number("pids.max")?.unwrap_or(0);
    }
    if let Some(dir) = v1.dir("blkio") {
        stats.blkio.io_service_bytes_recursive = blkio(dir, "io_service_bytes")?;
        stats.blkio.io_serviced_recursive = blkio(dir, "io_serviced")?;
    }
    if let Some(dir) = v1.dir("hugetlb") {
        hugetlb(dir, &mut stats)?;
    }
    Ok(stats)
}

fn cpuacct(dir: &Dir, stats: &mut Stats) -> Result<(), CgroupError> {
    let usage = &mut stats.cpu.usage;
    let ticks = dir
        .read_if_there("cpuacct.stat")?
        .map(|t| flat_keyed(&t))
        .unwrap_or_default();
    usage.user = ticks.get("user").copied().unwrap_or(0) * NANOS_PER_TICK;
    usage.kernel = ticks.get("system").copied().unwrap_or(0) * NANOS_PER_TICK;
    usage.total = dir.number("cpuacct.usage")?.unwrap_or(0);
    let percpu = dir
        .read_if_there("cpuacct.usage_percpu")?
        .unwrap_or_default();
    usage.percpu = percpu
        .split_whitespace()
        .filter_map(|n| n.parse().ok())
        .collect();
    let all = dir.read_if_there("cpuacct.usage_all")?.unwrap_or_default();
    for line in all.lines().skip(1) {
        let mut numbers = line
            .split_whitespace()
            .skip(1)
            .filter_map(|n| n.parse().ok());
        if let (Some(user), Some(system)) = (numbers.next(), numbers.next()) {
            usage.percpu_user.push(user);
            usage.percpu_kernel.push(system);
        }
    }
    Ok(())
}

fn cpuset(dir: &Dir, stats: &mut Stats) -> Result<(), CgroupError> {
    let set = &mut stats.cpuset;
    set.cpus = dir
        .read_if_there("cpuset.cpus")?
        .map(|t| number_list(&t))
        .unwrap_or_default();
    set.mems = dir
        .read_if_there("cpuset.mems")?
        .map(|t| number_list(&t))
        .unwrap_or_default();
    for (file, into) in [
        ("cpuset.cpu_exclusive", &mut set.cpu_exclusive),
        ("cpuset.mem_hardwall", &mut set.mem_hardwall),
        ("cpuset.mem_exclusive", &mut set.mem_exclusive),
        ("cpuset.memory_migrate", &mut set.memory_migrate),
        ("cpuset.memory_spread_page", &mut set.memory_spread_page),
        ("cpuset.memory_spread_slab", &mut set.memory_spread_slab),
        ("cpuset.memory_pressure", &mut set.memory_pressure),
        ("cpuset.sched_load_balance", &mut set.sched_load_balance),
    ] {
        *into = dir.number(file)?.unwrap_or(0);
    }
    let level = dir.read_if_there("cpuset.sched_relax_domain_level")?;
    set.sched_relax_domain_level = level.and_then(|t| t.trim().parse().ok()).unwrap_or(0);
    Ok(())
}

fn memory(dir: &Dir, stats: &mut Stats) -> Result<(), CgroupError> {
    let memory = &mut stats.memory;
    memory.raw = dir
        .read_if_there("memory.stat")?
        .map(|t| flat_keyed(&t))
        .unwrap_or_default();
    memory.cache = memory.raw.get("cache").copied().unwrap_or(0);
    memory.usage = entry(dir, "memory")?;
    memory.swap = entry(dir, "memory.memsw")?;
    memory.kernel = entry(dir, "memory.kmem")?;
    memory.kernel_tcp = entry(dir, "memory.kmem.tcp")?;
    Ok(())
}

fn entry(dir: &Dir, prefix: &str) -> Result<MemoryEntry, CgroupError> {
    let get =
        |file: &str| Ok::<_, CgroupError>(dir.number(&format!("{prefix}.{file}"))?.unwrap_or(0));
    Ok(MemoryEntry {
        limit: get("limit_in_bytes")?,
        usage: get("usage_in_bytes")?,
        max: get("max_usage_in_bytes")?,
        failcnt: get("failcnt")?,
    })
}

/// The scheduler counts if it is the one that counts, else the throttle does.
fn blkio(dir: &Dir, what: &str) -> Result<Vec<BlkioEntry>, CgroupError> {
    for file in [
        format!("blkio.bfq.{what}_recursive"),
        format!("blkio.throttle.{what}_recursive"),
        format!("blkio.throttle.{what}"),
    ] {
        let entries = parse_blkio(&dir.read_if_there(&file)?.unwrap_or_default());
        if !entries.is_empty() {
            return Ok(entries);
        }
    }
    Ok(Vec::new())
}

/// Lines of `8:0 Read 4096`; the total over devices has no device and is left out.
fn parse_blkio(text: &str) -> Vec<BlkioEntry> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (major, minor) = words.next()?.split_once(':')?;
            let (op, value) = (words.next()?, words.next()?);
            Some(BlkioEntry {
                major: major.parse().ok()?,
                minor: minor.parse().ok()?,
                op: op.to_owned(),
                value: value.parse().ok()?,
            })
        })
        .collect()
}

fn hugetlb(dir: &Dir, stats: &mut Stats) -> Result<(), CgroupError> {
    for size in super::super::stats::page_sizes() {
        let get = |file: &str| {
            Ok::<_, CgroupError>(dir.number(&format!("hugetlb.{size}.{file}"))?.unwrap_or(0))
        };
        let entry = Hugetlb {
            usage: get("usage_in_bytes")?,
            max: get("max_usage_in_bytes")?,
            failcnt: get("failcnt")?,
        };
        stats.hugetlb.insert(size, entry);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_without_a_device_are_left_out() {
        let entries = parse_blkio("8:0 Read 4096\n8:0 Write 0\nTotal 4096\n");
        assert_eq!(entries.len(), 2);
        assert_eq!(
            (entries[0].major, entries[0].op.as_str(), entries[0].value),
            (8, "Read", 4096)
        );
    }
}
