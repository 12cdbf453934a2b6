//! What a container uses: one reading, or one a second.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proto::any;
use proto::containerd::services::tasks::v1::MetricsRequest;
use proto::engine::{
    BlkioEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats,
    StatsResponse, ThrottlingData,
};
use proto::io::containerd::cgroups::{v1, v2};
use tokio::sync::mpsc;

use super::state::State;
use super::{Handle, Record};
use crate::App;
use crate::backend::{QUICK, within};
use crate::clock;
use crate::error::{During, Error, Result};

/// The time between two readings.
const INTERVAL: Duration = Duration::from_secs(1);

/// One reading; `pair` takes an earlier one as well, so that a client can tell the processor's load.
pub(crate) async fn once(app: &App, handle: &Handle, pair: bool) -> Result<StatsResponse> {
    let mut first = reading(app, handle).await?;
    if !pair || handle.record().state.running().is_none() {
        first.preread = clock::NEVER.into();
        return Ok(first);
    }
    tokio::time::sleep(INTERVAL).await;
    Ok(after(reading(app, handle).await?, first))
}

/// Puts the earlier reading into the later one.
fn after(mut later: StatsResponse, earlier: StatsResponse) -> StatsResponse {
    later.preread = earlier.read;
    later.precpu_stats = earlier.cpu_stats;
    later
}

/// A reading a second, until the client or the container has gone.
pub(crate) async fn stream(
    app: Arc<App>,
    handle: Handle,
    sink: mpsc::Sender<Result<Bytes, io::Error>>,
) {
    let mut ticks = tokio::time::interval(INTERVAL);
    let mut earlier: Option<StatsResponse> = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = sink.closed() => return,
        }
        if handle.view().gone {
            return;
        }
        let now = match reading(&app, &handle).await {
            Ok(now) => now,
            Err(e) => {
                tracing::debug!("stats: {e}");
                continue;
            }
        };
        let shown = match earlier.replace(now.clone()) {
            Some(earlier) => after(now, earlier),
            None => StatsResponse {
                preread: clock::NEVER.into(),
                ..now
            },
        };
        let Ok(mut line) = serde_json::to_vec(&shown) else {
            return;
        };
        line.push(b'\n');
        if sink.send(Ok(line.into())).await.is_err() {
            return;
        }
    }
}

/// The counters now; zeros for a container that does not run.
async fn reading(app: &App, handle: &Handle) -> Result<StatsResponse> {
    let record = handle.record();
    let mut stats = StatsResponse {
        id: record.id.clone(),
        name: format!("/{}", record.name),
        os_type: "linux".into(),
        read: clock::NEVER.into(),
        preread: clock::NEVER.into(),
        ..StatsResponse::default()
    };
    let State::Running(running) = &record.state else {
        return Ok(stats);
    };
    if !app.config.has_cgroups() {
        // It has no cgroup of its own, and what it is in tells of much else.
        stats.read = clock::now();
        stats.networks = networks(&record, running.pid);
        return Ok(stats);
    }
    let request = MetricsRequest {
        filters: vec![format!("id=={}", record.id)],
    };
    let reply = within(QUICK, app.backend.tasks().metrics(request))
        .await
        .during(|| format!("read the metrics of container {}", record.id))?;
    let Some(data) = reply.metrics.into_iter().find_map(|metric| metric.data) else {
        return Ok(stats);
    };
    stats.read = clock::now();
    let malformed =
        |e| Error::internal(format!("read the metrics of container {}: {e}", record.id));
    if let Some(metrics) = any::unpack::<v1::Metrics>(&data) {
        of_v1(&mut stats, metrics.map_err(malformed)?);
    } else if let Some(metrics) = any::unpack::<v2::Metrics>(&data) {
        of_v2(&mut stats, metrics.map_err(malformed)?);
    }
    stats.cpu_stats.system_cpu_usage = system_time();
    stats.cpu_stats.online_cpus =
        std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    if stats.memory_stats.limit == 0 || stats.memory_stats.limit > memory_total() {
        stats.memory_stats.limit = memory_total();
    }
    stats.networks = networks(&record, running.pid);
    Ok(stats)
}

fn of_v1(stats: &mut StatsResponse, metrics: v1::Metrics) {
    if let Some(pids) = metrics.pids {
        stats.pids_stats = PidsStats {
            current: pids.current,
            limit: pids.limit,
        };
    }
    if let Some(cpu) = metrics.cpu {
        let usage = cpu.usage.unwrap_or_default();
        let throttling = cpu.throttling.unwrap_or_default();
        stats.cpu_stats = CpuStats {
            cpu_usage: CpuUsage {
                total_usage: usage.total,
                percpu_usage: usage.per_cpu,
                usage_in_kernelmode: usage.kernel,
                usage_in_usermode: usage.user,
            },
            throttling_data: ThrottlingData {
                periods: throttling.periods,
                throttled_periods: throttling.throttled_periods,
                throttled_time: throttling.throttled_time,
            },
            ..CpuStats::default()
        };
    }
    if let Some(memory) = metrics.memory {
        let usage = memory.usage.unwrap_or_default();
        let pairs = [
            ("cache", memory.cache),
            ("rss", memory.rss),
            ("rss_huge", memory.rss_huge),
            ("mapped_file", memory.mapped_file),
            ("dirty", memory.dirty),
            ("writeback", memory.writeback),
            ("pgpgin", memory.pg_pg_in),
            ("pgpgout", memory.pg_pg_out),
            ("pgfault", memory.pg_fault),
            ("pgmajfault", memory.pg_maj_fault),
            ("inactive_anon", memory.inactive_anon),
            ("active_anon", memory.active_anon),
            ("inactive_file", memory.inactive_file),
            ("active_file", memory.active_file),
            ("unevictable", memory.unevictable),
            (
                "hierarchical_memory_limit",
                memory.hierarchical_memory_limit,
            ),
            ("total_cache", memory.total_cache),
            ("total_rss", memory.total_rss),
            ("hierarchical_memsw_limit", memory.hierarchical_swap_limit),
            ("total_rss_huge", memory.total_rss_huge),
            ("total_mapped_file", memory.total_mapped_file),
            ("total_dirty", memory.total_dirty),
            ("total_writeback", memory.total_writeback),
            ("total_pgpgin", memory.total_pg_pg_in),
            ("total_pgpgout", memory.total_pg_pg_out),
            ("total_pgfault", memory.total_pg_fault),
            ("total_pgmajfault", memory.total_pg_maj_fault),
            ("total_inactive_anon", memory.total_inactive_anon),
            ("total_active_anon", memory.total_active_anon),
            ("total_inactive_file", memory.total_inactive_file),
            ("total_active_file", memory.total_active_file),
            ("total_unevictable", memory.total_unevictable),
        ];
        stats.memory_stats = MemoryStats {
            usage: usage.usage,
            max_usage: usage.max,
            stats: named(&pairs),
            failcnt: usage.failcnt,
            limit: usage.limit,
        };
    }
    if let Some(io) = metrics.blkio {
        let entries = |list: Vec<v1::BlkIoEntry>| {
            let list = list.into_iter().map(|e| BlkioEntry {
                major: e.major,
                minor: e.minor,
                op: e.op.to_lowercase(),
                value: e.value,
            });
            Some(list.collect::<Vec<_>>())
        };
        stats.blkio_stats = BlkioStats {
            io_service_bytes_recursive: entries(io.io_service_bytes_recursive),
            io_serviced_recursive: entries(io.io_serviced_recursive),
            io_queue_recursive: entries(io.io_queued_recursive),
            io_service_time_recursive: entries(io.io_service_time_recursive),
            io_wait_time_recursive: entries(io.io_wait_time_recursive),
            io_merged_recursive: entries(io.io_merged_recursive),
            io_time_recursive: entries(io.io_time_recursive),
            sectors_recursive: entries(io.sectors_recursive),
        };
    }
}

fn of_v2(stats: &mut StatsResponse, metrics: v2::Metrics) {
    if let Some(pids) = metrics.pids {
        stats.pids_stats = PidsStats {
            current: pids.current,
            limit: pids.limit,
        };
    }
    if let Some(cpu) = metrics.cpu {
        stats.cpu_stats = CpuStats {
            cpu_usage: CpuUsage {
                total_usage: cpu.usage_usec.saturating_mul(1000),
                usage_in_kernelmode: cpu.system_usec.saturating_mul(1000),
                usage_in_usermode: cpu.user_usec.saturating_mul(1000),
                ..CpuUsage::default()
            },
            throttling_data: ThrottlingData {
                periods: cpu.nr_periods,
                throttled_periods: cpu.nr_throttled,
                throttled_time: cpu.throttled_usec.saturating_mul(1000),
            },
            ..CpuStats::default()
        };
    }
    if let Some(memory) = metrics.memory {
        let pairs = [
            ("anon", memory.anon),
            ("file", memory.file),
            ("kernel_stack", memory.kernel_stack),
            ("slab", memory.slab),
            ("sock", memory.sock),
            ("shmem", memory.shmem),
            ("file_mapped", memory.file_mapped),
            ("file_dirty", memory.file_dirty),
            ("file_writeback", memory.file_writeback),
            ("inactive_anon", memory.inactive_anon),
            ("active_anon", memory.active_anon),
            ("inactive_file", memory.inactive_file),
            ("active_file", memory.active_file),
            ("unevictable", memory.unevictable),
            ("pgfault", memory.pgfault),
            ("pgmajfault", memory.pgmajfault),
        ];
        stats.memory_stats = MemoryStats {
            usage: memory.usage,
            limit: memory.usage_limit,
            stats: named(&pairs),
            ..MemoryStats::default()
        };
    }
    if let Some(io) = metrics.io {
        let mut bytes = Vec::new();
        for entry in io.usage {
            for (op, value) in [("read", entry.rbytes), ("write", entry.wbytes)] {
                bytes.push(BlkioEntry {
                    major: entry.major,
                    minor: entry.minor,
                    op: op.into(),
                    value,
                });
            }
        }
        stats.blkio_stats.io_service_bytes_recursive = Some(bytes);
    }
}

fn named(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), *value))
        .collect()
}

/// The processor time of the whole host, in nanoseconds.
fn system_time() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or("");
    let ticks: u64 = line
        .split_whitespace()
        .skip(1)
        .take(7)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    ticks.saturating_mul(10_000_000)
}

/// The memory of the host, in bytes.
pub(crate) fn memory_total() -> u64 {
    rustix::system::sysinfo().totalram as u64 * u64::from(rustix::system::sysinfo().mem_unit)
}

/// The counters of the interfaces in the container's network namespace; none where that is the host's.
fn networks(record: &Record, pid: u32) -> Option<BTreeMap<String, NetworkStats>> {
    if record.host.network_mode == "host" {
        return None;
    }
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?;
    Some(interfaces(&table))
}

fn interfaces(table: &str) -> BTreeMap<String, NetworkStats> {
    let lines = table.lines().skip(2).filter_map(|line| {
        let (name, counters) = line.split_once(':')?;
        let counters: Vec<u64> = counters
            .split_whitespace()
            .filter_map(|field| field.parse().ok())
            .collect();
        let at = |index: usize| counters.get(index).copied().unwrap_or(0);
        let stats = NetworkStats {
            rx_bytes: at(0),
            rx_packets: at(1),
            rx_errors: at(2),
            rx_dropped: at(3),
            tx_bytes: at(8),
            tx_packets: at(9),
            tx_errors: at(10),
            tx_dropped: at(11),
        };
        let name = name.trim();
        (name != "lo").then(|| (name.to_owned(), stats))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_counters() {
        let table = "Inter-| Receive | Transmit\n face |bytes |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 2 0 1 0 0 0 0 20 3 0 0 0 0 0 0\n";
        let got = interfaces(table);
        assert_eq!(got.len(), 1);
        assert_eq!((got["eth0"].rx_bytes, got["eth0"].tx_packets), (10, 3));
    }

    #[test]
    fn the_host_has_memory_and_has_worked() {
        assert!(memory_total() > 1 << 20 && system_time() > 0);
    }
}
