//! Metrics from the files of cgroup version 2.

use std::path::Path;

use proto::io::containerd::cgroups::v2 as wire;

use super::{Table, page_sizes};
use crate::cgroup::{keyed, number};

/// The metrics of a container's group.
pub(super) fn metrics(folder: &Path) -> wire::Metrics {
    let file = |name: &str| folder.join(name);
    wire::Metrics {
        pids: number(&file("pids.current")).map(|current| wire::PidsStat {
            current,
            limit: number(&file("pids.max"))
                .filter(|n| *n != u64::MAX)
                .unwrap_or(0),
        }),
        cpu: cpu_stat(&file("cpu.stat")),
        memory: memory_stat(folder),
        memory_events: Some(Table::read(&file("memory.events")))
            .filter(|t| !t.is_empty())
            .map(|t| wire::MemoryEvents {
                low: t.get("low"),
                high: t.get("high"),
                max: t.get("max"),
                oom: t.get("oom"),
                oom_kill: t.get("oom_kill"),
                oom_group_kill: t.get("oom_group_kill"),
            }),
        io: Some(block_io(
            &std::fs::read_to_string(file("io.stat")).unwrap_or_default(),
        )),
        hugetlb: page_sizes(folder, ".current")
            .into_iter()
            .map(|size| {
                let value =
                    |key: &str| number(&file(&format!("hugetlb.{size}.{key}"))).unwrap_or(0);
                wire::HugeTlbStat {
                    current: value("current"),
                    max: value("max"),
                    failcnt: keyed(&file(&format!("hugetlb.{size}.events")), "max").unwrap_or(0),
                    pagesize: size.clone(),
                }
            })
            .collect(),
        ..wire::Metrics::default()
    }
}

fn cpu_stat(file: &Path) -> Option<wire::CpuStat> {
    let t = Table::read(file);
    (!t.is_empty()).then(|| wire::CpuStat {
        usage_usec: t.get("usage_usec"),
        user_usec: t.get("user_usec"),
        system_usec: t.get("system_usec"),
        nr_periods: t.get("nr_periods"),
        nr_throttled: t.get("nr_throttled"),
        throttled_usec: t.get("throttled_usec"),
        nr_bursts: t.get("nr_bursts"),
        burst_usec: t.get("burst_usec"),
        psi: None,
    })
}

fn memory_stat(folder: &Path) -> Option<wire::MemoryStat> {
    let t = Table::read(&folder.join("memory.stat"));
    if t.is_empty() {
        return None;
    }
    let value = |name: &str| number(&folder.join(name)).unwrap_or(0);
    Some(wire::MemoryStat {
        anon: t.get("anon"),
        file: t.get("file"),
        kernel_stack: t.get("kernel_stack"),
        slab: t.get("slab"),
        sock: t.get("sock"),
        shmem: t.get("shmem"),
        file_mapped: t.get("file_mapped"),
        file_dirty: t.get("file_dirty"),
        file_writeback: t.get("file_writeback"),
        anon_thp: t.get("anon_thp"),
        inactive_anon: t.get("inactive_anon"),
        active_anon: t.get("active_anon"),
        inactive_file: t.get("inactive_file"),
        active_file: t.get("active_file"),
        unevictable: t.get("unevictable"),
        slab_reclaimable: t.get("slab_reclaimable"),
        slab_unreclaimable: t.get("slab_unreclaimable"),
        pgfault: t.get("pgfault"),
        pgmajfault: t.get("pgmajfault"),
        workingset_refault: t.get("workingset_refault"),
        workingset_activate: t.get("workingset_activate"),
        workingset_nodereclaim: t.get("workingset_nodereclaim"),
        pgrefill: t.get("pgrefill"),
        pgscan: t.get("pgscan"),
        pgsteal: t.get("pgsteal"),
        pgactivate: t.get("pgactivate"),
        pgdeactivate: t.get("pgdeactivate"),
        pglazyfree: t.get("pglazyfree"),
        pglazyfreed: t.get("pglazyfreed"),
        thp_fault_alloc: t.get("thp_fault_alloc"),
        thp_collapse_alloc: t.get("thp_collapse_alloc"),
        usage: value("memory.current"),
        usage_limit: value("memory.max"),
        swap_usage: value("memory.swap.current"),
        swap_limit: value("memory.swap.max"),
        max_usage: value("memory.peak"),
        swap_max_usage: value("memory.swap.peak"),
        psi: None,
    })
}

/// Lines of `major:minor rbytes=1 wbytes=2 ...`.
fn block_io(text: &str) -> wire::IoStat {
    let parse = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let mut entry = wire::IoEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            ..wire::IoEntry::default()
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let value = value.parse().unwrap_or(0);
            match key {
                "rbytes" => entry.rbytes = value,
                "wbytes" => entry.wbytes = value,
                "rios" => entry.rios = value,
                "wios" => entry.wios = value,
                _ => {}
            }
        }
        Some(entry)
    };
    wire::IoStat {
        usage: text.lines().filter_map(parse).collect(),
        psi: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_block_io() {
        let io = block_io("254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0\nnonsense\n");
        assert_eq!(io.usage.len(), 1);
        assert_eq!((io.usage[0].wbytes, io.usage[0].rios), (2, 3));
    }
}
