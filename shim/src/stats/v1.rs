//! Metrics from the files of cgroup version 1.

use std::path::Path;

use proto::io::containerd::cgroups::v1 as wire;

use super::{Table, page_sizes};
use crate::cgroup::{Cgroup, number};

/// The metrics of a container's groups.
pub(super) fn metrics(cgroup: &Cgroup) -> wire::Metrics {
    let folder = |name| cgroup.controller(name);
    wire::Metrics {
        pids: folder("pids").and_then(|f| {
            Some(wire::PidsStat {
                current: number(&f.join("pids.current"))?,
                // No limit is 0 on this wire.
                limit: number(&f.join("pids.max"))
                    .filter(|n| *n != u64::MAX)
                    .unwrap_or(0),
            })
        }),
        cpu: folder("cpuacct").and_then(|f| cpu_stat(f, folder("cpu"))),
        memory: folder("memory").and_then(memory_stat),
        memory_oom_control: folder("memory").map(|f| {
            let table = Table::read(&f.join("memory.oom_control"));
            wire::MemoryOomControl {
                oom_kill_disable: table.get("oom_kill_disable"),
                under_oom: table.get("under_oom"),
                oom_kill: table.get("oom_kill"),
            }
        }),
        blkio: folder("blkio").map(block_io),
        hugetlb: folder("hugetlb").map(huge_pages).unwrap_or_default(),
        ..wire::Metrics::default()
    }
}

fn cpu_stat(accounting: &Path, cpu: Option<&Path>) -> Option<wire::CpuStat> {
    /// Nanoseconds of one tick of `cpuacct.stat`: user space always sees 100 a second.
    const TICK: u64 = 10_000_000;
    let total = number(&accounting.join("cpuacct.usage"))?;
    let ticks = Table::read(&accounting.join("cpuacct.stat"));
    let per_cpu =
        std::fs::read_to_string(accounting.join("cpuacct.usage_percpu")).unwrap_or_default();
    let throttling = cpu.map(|f| {
        let table = Table::read(&f.join("cpu.stat"));
        wire::Throttle {
            periods: table.get("nr_periods"),
            throttled_periods: table.get("nr_throttled"),
            throttled_time: table.get("throttled_time"),
        }
    });
    Some(wire::CpuStat {
        usage: Some(wire::CpuUsage {
            total,
            kernel: ticks.get("system") * TICK,
            user: ticks.get("user") * TICK,
            per_cpu: per_cpu
                .split_ascii_whitespace()
                .filter_map(|n| n.parse().ok())
                .collect(),
        }),
        throttling,
    })
}

fn memory_stat(folder: &Path) -> Option<wire::MemoryStat> {
    let t = Table::read(&folder.join("memory.stat"));
    if t.is_empty() {
        return None;
    }
    let entry = |name: &str| {
        let file = |key: &str| number(&folder.join(format!("memory.{name}{key}")));
        Some(wire::MemoryEntry {
            usage: file("usage_in_bytes")?,
            limit: file("limit_in_bytes").unwrap_or(0),
            max: file("max_usage_in_bytes").unwrap_or(0),
            failcnt: file("failcnt").unwrap_or(0),
        })
    };
    Some(wire::MemoryStat {
        cache: t.get("cache"),
        rss: t.get("rss"),
        rss_huge: t.get("rss_huge"),
        mapped_file: t.get("mapped_file"),
        dirty: t.get("dirty"),
        writeback: t.get("writeback"),
        pg_pg_in: t.get("pgpgin"),
        pg_pg_out: t.get("pgpgout"),
        pg_fault: t.get("pgfault"),
        pg_maj_fault: t.get("pgmajfault"),
        inactive_anon: t.get("inactive_anon"),
        active_anon: t.get("active_anon"),
        inactive_file: t.get("inactive_file"),
        active_file: t.get("active_file"),
        unevictable: t.get("unevictable"),
        hierarchical_memory_limit: t.get("hierarchical_memory_limit"),
        hierarchical_swap_limit: t.get("hierarchical_memsw_limit"),
        total_cache: t.get("total_cache"),
        total_rss: t.get("total_rss"),
        total_rss_huge: t.get("total_rss_huge"),
        total_mapped_file: t.get("total_mapped_file"),
        total_dirty: t.get("total_dirty"),
        total_writeback: t.get("total_writeback"),
        total_pg_pg_in: t.get("total_pgpgin"),
        total_pg_pg_out: t.get("total_pgpgout"),
        total_pg_fault: t.get("total_pgfault"),
        total_pg_maj_fault: t.get("total_pgmajfault"),
        total_inactive_anon: t.get("total_inactive_anon"),
        total_active_anon: t.get("total_active_anon"),
        total_inactive_file: t.get("total_inactive_file"),
        total_active_file: t.get("total_active_file"),
        total_unevictable: t.get("total_unevictable"),
        usage: entry(""),
        swap: entry("memsw."),
        kernel: entry("kmem."),
        kernel_tcp: entry("kmem.tcp."),
    })
}

fn block_io(folder: &Path) -> wire::BlkIoStat {
    // Under the bfq scheduler the generic files stay empty and its own are filled.
    let entries = |name: &str| {
        let read = |prefix: &str| {
            std::fs::read_to_string(folder.join(format!("{prefix}{name}"))).unwrap_or_default()
        };
        let found = blkio_entries(&read("blkio."));
        if found.is_empty() {
            blkio_entries(&read("blkio.bfq."))
        } else {
            found
        }
    };
    let throttle = |name: &str, generic: Vec<wire::BlkIoEntry>| match generic.is_empty() {
        true => {
            let file = folder.join(format!("blkio.throttle.{name}"));
            blkio_entries(&std::fs::read_to_string(file).unwrap_or_default())
        }
        false => generic,
    };
    wire::BlkIoStat {
        io_service_bytes_recursive: throttle(
            "io_service_bytes_recursive",
            entries("io_service_bytes_recursive"),
        ),
        io_serviced_recursive: throttle("io_serviced_recursive", entries("io_serviced_recursive")),
        io_queued_recursive: entries("io_queued_recursive"),
        io_service_time_recursive: entries("io_service_time_recursive"),
        io_wait_time_recursive: entries("io_wait_time_recursive"),
        io_merged_recursive: entries("io_merged_recursive"),
        io_time_recursive: entries("time_recursive"),
        sectors_recursive: entries("sectors_recursive"),
    }
}

/// Lines of `major:minor operation value`, or without the operation; the sum at the end is left out.
fn blkio_entries(text: &str) -> Vec<wire::BlkIoEntry> {
    let parse = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        // The only word after the device is the value; the operation is then empty.
        let (op, value) = match (words.next()?, words.next()) {
            (op, Some(value)) => (op, value),
            (value, None) => ("", value),
        };
        Some(wire::BlkIoEntry {
            op: op.to_owned(),
            device: String::new(),
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            value: value.parse().ok()?,
        })
    };
    text.lines().filter_map(parse).collect()
}

fn huge_pages(folder: &Path) -> Vec<wire::HugetlbStat> {
    page_sizes(folder, ".usage_in_bytes")
        .into_iter()
        .map(|size| {
            let file =
                |key: &str| number(&folder.join(format!("hugetlb.{size}.{key}"))).unwrap_or(0);
            wire::HugetlbStat {
                usage: file("usage_in_bytes"),
                max: file("max_usage_in_bytes"),
                failcnt: file("failcnt"),
                pagesize: size,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_version_1_files() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "memory.stat",
            "cache 10\nrss 20\ntotal_inactive_file 5\nhierarchical_memory_limit 100\n",
        );
        write("memory.usage_in_bytes", "30\n");
        write("memory.limit_in_bytes", "100\n");
        write("pids.current", "2\n");
        write("pids.max", "max\n");
        write("cpuacct.usage", "77\n");
        write("cpuacct.stat", "user 3\nsystem 4\n");
        write("cpuacct.usage_percpu", "40 37 \n");
        let path = folder.path().to_owned();
        let names = ["memory", "pids", "cpuacct", "cpu"];
        let cgroup = Cgroup {
            v1: names
                .iter()
                .map(|n| ((*n).to_owned(), path.clone()))
                .collect(),
            v2: None,
        };
        let metrics = metrics(&cgroup);
        let memory = metrics.memory.unwrap();
        assert_eq!(
            (
                memory.rss,
                memory.total_inactive_file,
                memory.usage.unwrap().usage
            ),
            (20, 5, 30)
        );
        assert_eq!(
            metrics.pids,
            Some(wire::PidsStat {
                current: 2,
                limit: 0
            })
        );
        let usage = metrics.cpu.unwrap().usage.unwrap();
        assert_eq!(
            (usage.total, usage.kernel, usage.per_cpu),
            (77, 40_000_000, vec![40, 37])
        );
        assert!(
            crate::stats::collect(&cgroup)
                .type_url
                .ends_with("cgroups.v1.Metrics")
        );
    }

    #[test]
    fn reads_block_io() {
        let entries = blkio_entries("254:0 Read 4096\n254:0 Total 4096\nTotal 4096\n8:1 9\n");
        assert_eq!(entries.len(), 3);
        assert_eq!(
            (entries[0].op.as_str(), entries[0].major, entries[0].value),
            ("Read", 254, 4096)
        );
        assert_eq!((entries[2].op.as_str(), entries[2].value), ("", 9));
    }
}
