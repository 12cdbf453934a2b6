//! What a container uses, read from its control groups, as containerd's metrics of version 1 or 2. Sync; a file that is
//! missing (a controller that is off, a container that is gone) leaves its part out.

use std::path::Path;

use prost_types::Any;
use proto::io::containerd::cgroups::{v1, v2};

use crate::cgroup::{Cgroup, keyed, number, parse_number};

/// The metrics of the version in use.
pub(crate) fn collect(cgroup: &Cgroup) -> Any {
    match &cgroup.v2 {
        Some(folder) => proto::any::pack(&unified(folder)),
        None => proto::any::pack(&legacy(cgroup)),
    }
}

/// Lines of `key value` as a lookup.
struct Table(Vec<(String, u64)>);

impl Table {
    fn read(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let pairs = text.lines().filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), parse_number(value.trim())?))
        });
        Self(pairs.collect())
    }

    fn get(&self, key: &str) -> u64 {
        self.0
            .iter()
            .find(|(k, _)| k == key)
            .map_or(0, |(_, value)| *value)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn legacy(cgroup: &Cgroup) -> v1::Metrics {
    let folder = |name| cgroup.controller(name);
    v1::Metrics {
        pids: folder("pids").and_then(|f| {
            Some(v1::PidsStat {
                current: number(&f.join("pids.current"))?,
                // No limit is 0 on this wire.
                limit: number(&f.join("pids.max"))
                    .filter(|n| *n != u64::MAX)
                    .unwrap_or(0),
            })
        }),
        cpu: folder("cpuacct").and_then(|f| legacy_cpu(f, folder("cpu"))),
        memory: folder("memory").and_then(legacy_memory),
        memory_oom_control: folder("memory").map(|f| {
            let table = Table::read(&f.join("memory.oom_control"));
            v1::MemoryOomControl {
                oom_kill_disable: table.get("oom_kill_disable"),
                under_oom: table.get("under_oom"),
                oom_kill: table.get("oom_kill"),
            }
        }),
        blkio: folder("blkio").map(legacy_blkio),
        hugetlb: folder("hugetlb").map(legacy_hugetlb).unwrap_or_default(),
        ..v1::Metrics::default()
    }
}

fn legacy_cpu(accounting: &Path, cpu: Option<&Path>) -> Option<v1::CpuStat> {
    /// Nanoseconds of one tick of `cpuacct.stat`: user space always sees 100 a second.
    const TICK: u64 = 10_000_000;
    let total = number(&accounting.join("cpuacct.usage"))?;
    let ticks = Table::read(&accounting.join("cpuacct.stat"));
    let per_cpu =
        std::fs::read_to_string(accounting.join("cpuacct.usage_percpu")).unwrap_or_default();
    let throttling = cpu.map(|f| {
        let table = Table::read(&f.join("cpu.stat"));
        v1::Throttle {
            periods: table.get("nr_periods"),
            throttled_periods: table.get("nr_throttled"),
            throttled_time: table.get("throttled_time"),
        }
    });
    Some(v1::CpuStat {
        usage: Some(v1::CpuUsage {
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

fn legacy_memory(folder: &Path) -> Option<v1::MemoryStat> {
    let t = Table::read(&folder.join("memory.stat"));
    if t.is_empty() {
        return None;
    }
    let entry = |name: &str| {
        let file = |key: &str| number(&folder.join(format!("memory.{name}{key}")));
        Some(v1::MemoryEntry {
            usage: file("usage_in_bytes")?,
            limit: file("limit_in_bytes").unwrap_or(0),
            max: file("max_usage_in_bytes").unwrap_or(0),
            failcnt: file("failcnt").unwrap_or(0),
        })
    };
    Some(v1::MemoryStat {
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

fn legacy_blkio(folder: &Path) -> v1::BlkIoStat {
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
    let throttle = |name: &str, generic: Vec<v1::BlkIoEntry>| match generic.is_empty() {
        true => {
            let file = folder.join(format!("blkio.throttle.{name}"));
            blkio_entries(&std::fs::read_to_string(file).unwrap_or_default())
        }
        false => generic,
    };
    v1::BlkIoStat {
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
fn blkio_entries(text: &str) -> Vec<v1::BlkIoEntry> {
    let parse = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        // The only word after the device is the value; the operation is then empty.
        let (op, value) = match (words.next()?, words.next()) {
            (op, Some(value)) => (op, value),
            (value, None) => ("", value),
        };
        Some(v1::BlkIoEntry {
            op: op.to_owned(),
            device: String::new(),
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            value: value.parse().ok()?,
        })
    };
    text.lines().filter_map(parse).collect()
}

fn legacy_hugetlb(folder: &Path) -> Vec<v1::HugetlbStat> {
    page_sizes(folder, ".usage_in_bytes")
        .into_iter()
        .map(|size| {
            let file =
                |key: &str| number(&folder.join(format!("hugetlb.{size}.{key}"))).unwrap_or(0);
            v1::HugetlbStat {
                usage: file("usage_in_bytes"),
                max: file("max_usage_in_bytes"),
                failcnt: file("failcnt"),
                pagesize: size,
            }
        })
        .collect()
}

/// Page sizes that have a file `hugetlb.SIZE` with this end.
fn page_sizes(folder: &Path, end: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut sizes: Vec<String> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let size = name.strip_prefix("hugetlb.")?.strip_suffix(end)?;
            (!size.contains('.')).then(|| size.to_owned())
        })
        .collect();
    sizes.sort_unstable();
    sizes
}

fn unified(folder: &Path) -> v2::Metrics {
    let file = |name: &str| folder.join(name);
    v2::Metrics {
        pids: number(&file("pids.current")).map(|current| v2::PidsStat {
            current,
            limit: number(&file("pids.max"))
                .filter(|n| *n != u64::MAX)
                .unwrap_or(0),
        }),
        cpu: unified_cpu(&file("cpu.stat")),
        memory: unified_memory(folder),
        memory_events: Some(Table::read(&file("memory.events")))
            .filter(|t| !t.is_empty())
            .map(|t| v2::MemoryEvents {
                low: t.get("low"),
                high: t.get("high"),
                max: t.get("max"),
                oom: t.get("oom"),
                oom_kill: t.get("oom_kill"),
                oom_group_kill: t.get("oom_group_kill"),
            }),
        io: Some(unified_io(
            &std::fs::read_to_string(file("io.stat")).unwrap_or_default(),
        )),
        hugetlb: page_sizes(folder, ".current")
            .into_iter()
            .map(|size| {
                let value =
                    |key: &str| number(&file(&format!("hugetlb.{size}.{key}"))).unwrap_or(0);
                v2::HugeTlbStat {
                    current: value("current"),
                    max: value("max"),
                    failcnt: keyed(&file(&format!("hugetlb.{size}.events")), "max").unwrap_or(0),
                    pagesize: size.clone(),
                }
            })
            .collect(),
        ..v2::Metrics::default()
    }
}

fn unified_cpu(file: &Path) -> Option<v2::CpuStat> {
    let t = Table::read(file);
    (!t.is_empty()).then(|| v2::CpuStat {
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

fn unified_memory(folder: &Path) -> Option<v2::MemoryStat> {
    let t = Table::read(&folder.join("memory.stat"));
    if t.is_empty() {
        return None;
    }
    let value = |name: &str| number(&folder.join(name)).unwrap_or(0);
    Some(v2::MemoryStat {
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
fn unified_io(text: &str) -> v2::IoStat {
    let parse = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let mut entry = v2::IoEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            ..v2::IoEntry::default()
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
    v2::IoStat {
        usage: text.lines().filter_map(parse).collect(),
        psi: None,
    }
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
        let metrics = legacy(&cgroup);
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
            Some(v1::PidsStat {
                current: 2,
                limit: 0
            })
        );
        let usage = metrics.cpu.unwrap().usage.unwrap();
        assert_eq!(
            (usage.total, usage.kernel, usage.per_cpu),
            (77, 40_000_000, vec![40, 37])
        );
        assert!(collect(&cgroup).type_url.ends_with("cgroups.v1.Metrics"));
    }

    #[test]
    fn reads_block_io_of_both_versions() {
        let entries = blkio_entries("254:0 Read 4096\n254:0 Total 4096\nTotal 4096\n8:1 9\n");
        assert_eq!(entries.len(), 3);
        assert_eq!(
            (entries[0].op.as_str(), entries[0].major, entries[0].value),
            ("Read", 254, 4096)
        );
        assert_eq!((entries[2].op.as_str(), entries[2].value), ("", 9));
        let io = unified_io("254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0\nnonsense\n");
        assert_eq!(io.usage.len(), 1);
        assert_eq!((io.usage[0].wbytes, io.usage[0].rios), (2, 3));
    }
}
