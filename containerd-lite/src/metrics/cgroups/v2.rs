//! cgroup v2: one directory for all controllers.

use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::{Cgroup, Controller as _, Subsystem};

use super::{Sheet, block, keyed, v1};

/// Lines of `memory.stat` that are shown under their own names.
const MEMORY: [&str; 27] = [
    "file_mapped",
    "file_dirty",
    "file_writeback",
    "pgactivate",
    "pgdeactivate",
    "pgfault",
    "pgmajfault",
    "pglazyfree",
    "pgrefill",
    "pglazyfreed",
    "pgscan",
    "pgsteal",
    "inactive_anon",
    "active_anon",
    "inactive_file",
    "active_file",
    "unevictable",
    "anon",
    "file",
    "kernel_stack",
    "slab",
    "sock",
    "shmem",
    "anon_thp",
    "slab_reclaimable",
    "slab_unreclaimable",
    "workingset_nodereclaim",
];

/// Lines of `cpu.stat`: name, unit, help.
const CPU: [(&str, &str, &str); 6] = [
    ("usage_usec", "microseconds", "Total cpu usage (cgroup v2)"),
    (
        "user_usec",
        "microseconds",
        "Current cpu usage in user space (cgroup v2)",
    ),
    (
        "system_usec",
        "microseconds",
        "Current cpu usage in kernel space (cgroup v2)",
    ),
    ("nr_periods", "total", "Current cpu number of periods"),
    (
        "nr_throttled",
        "total",
        "Total number of times tasks have been throttled",
    ),
    (
        "throttled_usec",
        "microseconds",
        "Total time duration for which tasks have been throttled",
    ),
];

/// Puts all figures of a cgroup on the sheet.
pub(super) fn show(sheet: &mut Sheet<'_>, cgroup: &Cgroup) {
    for subsystem in cgroup.subsystems() {
        match subsystem {
            Subsystem::Pid(pids) => v1::show_pids(sheet, pids),
            Subsystem::Mem(memory) => show_memory(sheet, memory),
            Subsystem::Cpu(cpu) => {
                let stat = cpu.cpu().stat;
                for (key, unit, help) in CPU {
                    if let Some(value) = keyed(&stat, key) {
                        sheet.put(&format!("cpu_{key}"), unit, help, value);
                    }
                }
            }
            Subsystem::BlkIo(io) => {
                let text = std::fs::read_to_string(io.path().join("io.stat")).unwrap_or_default();
                show_io(sheet, &text);
            }
            _ => {}
        }
    }
}

fn show_memory(sheet: &mut Sheet<'_>, memory: &MemController) {
    // The files of a cgroup that has just gone read as zeros; nothing alive uses no memory.
    let read = memory.memory_stat();
    if read.usage_in_bytes == 0 && read.stat.raw.is_empty() {
        return;
    }
    for key in MEMORY {
        if let Some(value) = read.stat.raw.get(key) {
            let help = format!("The {key} amount");
            sheet.put(&format!("memory_{key}"), "bytes", &help, *value);
        }
    }
    let swap = memory.memswap();
    let limit = |limit: i64| u64::try_from(limit).unwrap_or(u64::MAX);
    for (name, help, value) in [
        ("usage", "Current memory usage", read.usage_in_bytes),
        (
            "usage_limit",
            "Current memory usage limit",
            limit(read.limit_in_bytes),
        ),
        ("swap_usage", "Current swap usage", swap.usage_in_bytes),
        (
            "swap_limit",
            "Current swap usage limit",
            limit(swap.limit_in_bytes),
        ),
    ] {
        let help = format!("{help} (cgroup v2)");
        sheet.put(&format!("memory_{name}"), "bytes", &help, value);
    }
    if let Ok(events) = std::fs::read_to_string(memory.path().join("memory.events"))
        && let Some(value) = keyed(&events, "oom")
    {
        sheet.put(
            "memory_oom",
            "total",
            "The number of times a container has received an oom event",
            value,
        );
    }
}

fn show_io(sheet: &mut Sheet<'_>, text: &str) {
    for traffic in block::v2(text) {
        let (unit, help) = match traffic.operation.as_str() {
            "rbytes" => ("bytes", "IO bytes read"),
            "wbytes" => ("bytes", "IO bytes written"),
            "rios" => ("total", "Number of read IOs"),
            "wios" => ("total", "Number of write IOs"),
            _ => continue,
        };
        let (major, minor) = (traffic.major.to_string(), traffic.minor.to_string());
        sheet.put_with(
            &format!("io_{}", traffic.operation),
            unit,
            help,
            &[("major", &major), ("minor", &minor)],
            traffic.value,
        );
    }
}
