//! cgroup v1: one directory for each controller.

use std::collections::HashMap;

use cgroups_rs::fs::blkio::BlkIoController;
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::cpuacct::CpuAcctController;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;
use cgroups_rs::fs::{Cgroup, Controller as _, MaxValue, Subsystem};

use super::{Sheet, block, keyed};

/// Lines of `memory.stat` that are shown under their own names.
const MEMORY: [&str; 32] = [
    "cache",
    "rss",
    "rss_huge",
    "mapped_file",
    "dirty",
    "writeback",
    "pgpgin",
    "pgpgout",
    "pgfault",
    "pgmajfault",
    "inactive_anon",
    "active_anon",
    "inactive_file",
    "active_file",
    "unevictable",
    "hierarchical_memory_limit",
    "hierarchical_memsw_limit",
    "total_cache",
    "total_rss",
    "total_rss_huge",
    "total_mapped_file",
    "total_dirty",
    "total_writeback",
    "total_pgpgin",
    "total_pgpgout",
    "total_pgfault",
    "total_pgmajfault",
    "total_inactive_anon",
    "total_active_anon",
    "total_inactive_file",
    "total_active_file",
    "total_unevictable",
];

/// Files of the block controller by what they count: bytes and operations, with descendants where the kernel has that.
const BLOCK: [(&str, &str, [&str; 2]); 2] = [
    (
        "io_service_bytes_recursive",
        "bytes",
        [
            "blkio.throttle.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes",
        ],
    ),
    (
        "io_serviced_recursive",
        "total",
        [
            "blkio.throttle.io_serviced_recursive",
            "blkio.throttle.io_serviced",
        ],
    ),
];

/// Puts all figures of a cgroup on the sheet, those of the controllers that it has a place under.
pub(super) fn show(
    sheet: &mut Sheet<'_>,
    cgroup: &Cgroup,
    places: &HashMap<String, String>,
    devices: &mut block::Names,
) {
    for subsystem in cgroup.subsystems() {
        if !places.contains_key(&subsystem.controller_name()) {
            continue;
        }
        match subsystem {
            Subsystem::Pid(pids) => show_pids(sheet, pids),
            Subsystem::Cpu(cpu) => show_throttling(sheet, cpu),
            Subsystem::CpuAcct(cpu) => show_cpu(sheet, cpu),
            Subsystem::Mem(memory) => show_memory(sheet, memory),
            Subsystem::BlkIo(block) => show_block(sheet, block, devices),
            _ => {}
        }
    }
}

/// The number of processes and its limit, 0 for none; the same in both versions.
pub(super) fn show_pids(sheet: &mut Sheet<'_>, pids: &PidController) {
    let Ok(current) = pids.get_pid_current() else {
        return;
    };
    let limit = match pids.get_pid_max() {
        Ok(MaxValue::Value(limit)) => u64::try_from(limit).unwrap_or(0),
        _ => 0,
    };
    sheet.put("pids", "current", "The current number of pids", current);
    sheet.put(
        "pids",
        "limit",
        "The limit to the number of pids allowed",
        limit,
    );
}

fn show_throttling(sheet: &mut Sheet<'_>, cpu: &CpuController) {
    let stat = cpu.cpu().stat;
    for (key, name, unit, help) in [
        (
            "nr_periods",
            "cpu_throttle_periods",
            "total",
            "The total cpu throttle periods",
        ),
        (
            "nr_throttled",
            "cpu_throttled_periods",
            "total",
            "The total cpu throttled periods",
        ),
        (
            "throttled_time",
            "cpu_throttled_time",
            "nanoseconds",
            "The total cpu throttled time",
        ),
    ] {
        if let Some(value) = keyed(&stat, key) {
            sheet.put(name, unit, help, value);
        }
    }
}

fn show_cpu(sheet: &mut Sheet<'_>, cpu: &CpuAcctController) {
    let used = cpu.cpuacct();
    for (name, help, value) in [
        ("cpu_total", "The total cpu time", used.usage),
        ("cpu_kernel", "The total kernel cpu time", used.usage_sys),
        ("cpu_user", "The total user cpu time", used.usage_user),
    ] {
        sheet.put(name, "nanoseconds", help, value);
    }
    for (number, time) in used.usage_percpu.split_whitespace().enumerate() {
        if let Ok(time) = time.parse() {
            let label = number.to_string();
            sheet.put_with(
                "per_cpu",
                "nanoseconds",
                "The total cpu time per cpu",
                &[("cpu", &label)],
                time,
            );
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
    let (swap, kernel, tcp) = (memory.memswap(), memory.kmem_stat(), memory.kmem_tcp_stat());
    let limit = |limit: i64| u64::try_from(limit).unwrap_or(u64::MAX);
    for (what, usage, max, limit, failures) in [
        (
            "usage",
            read.usage_in_bytes,
            read.max_usage_in_bytes,
            limit(read.limit_in_bytes),
            read.fail_cnt,
        ),
        (
            "swap",
            swap.usage_in_bytes,
            swap.max_usage_in_bytes,
            limit(swap.limit_in_bytes),
            swap.fail_cnt,
        ),
        (
            "kernel",
            kernel.usage_in_bytes,
            kernel.max_usage_in_bytes,
            limit(kernel.limit_in_bytes),
            kernel.fail_cnt,
        ),
        (
            "kerneltcp",
            tcp.usage_in_bytes,
            tcp.max_usage_in_bytes,
            limit(tcp.limit_in_bytes),
            tcp.fail_cnt,
        ),
    ] {
        for (part, value) in [("usage", usage), ("max", max), ("limit", limit)] {
            let help = format!("The memory {what} {part}");
            sheet.put(&format!("memory_{what}_{part}"), "bytes", &help, value);
        }
        let help = format!("The {what} failcnt");
        sheet.put(&format!("memory_{what}_failcnt"), "total", &help, failures);
    }
}

fn show_block(sheet: &mut Sheet<'_>, controller: &BlkIoController, devices: &mut block::Names) {
    for (name, unit, files) in BLOCK {
        let read = |file: &&str| std::fs::read_to_string(controller.path().join(file)).ok();
        let text = files.iter().find_map(read).unwrap_or_default();
        for traffic in block::v1(&text) {
            let (major, minor) = (traffic.major.to_string(), traffic.minor.to_string());
            let device = devices.of(traffic.major, traffic.minor);
            sheet.put_with(
                &format!("blkio_{name}"),
                unit,
                &format!("The blkio {}", name.replace('_', " ")),
                &[
                    ("op", &traffic.operation),
                    ("device", device),
                    ("major", &major),
                    ("minor", &minor),
                ],
                traffic.value,
            );
        }
    }
}
