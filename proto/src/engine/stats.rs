//! What a container uses: one message of `GET /containers/ID/stats`.

use std::collections::BTreeMap;

use super::wire::wire;

wire! {
    /// One reading, with the processor part of the reading before.
    pub struct StatsResponse {
        "id" [omitempty] id: String,
        "name" [omitempty] name: String,
        "os_type" [omitempty] os_type: String,
        "read" read: String,
        "cpu_stats" cpu_stats: CpuStats,
        "memory_stats" memory_stats: MemoryStats,
        "networks" [omitempty] networks: Option<BTreeMap<String, NetworkStats>>,
        "pids_stats" pids_stats: PidsStats,
        "blkio_stats" blkio_stats: BlkioStats,
        "num_procs" num_procs: u32,
        "storage_stats" storage_stats: StorageStats,
        "preread" preread: String,
        "precpu_stats" precpu_stats: CpuStats,
    }

    /// Processor time, in nanoseconds.
    pub struct CpuStats {
        "cpu_usage" cpu_usage: CpuUsage,
        "system_cpu_usage" [omitempty] system_cpu_usage: u64,
        "online_cpus" [omitempty] online_cpus: u32,
        "throttling_data" throttling_data: ThrottlingData,
    }

    /// Processor time of the container.
    pub struct CpuUsage {
        "total_usage" total_usage: u64,
        "percpu_usage" [omitempty] percpu_usage: Vec<u64>,
        "usage_in_kernelmode" usage_in_kernelmode: u64,
        "usage_in_usermode" usage_in_usermode: u64,
    }

    /// How often the processor limit held the container back.
    pub struct ThrottlingData {
        "periods" periods: u64,
        "throttled_periods" throttled_periods: u64,
        "throttled_time" throttled_time: u64,
    }

    /// Memory, in bytes; `stats` has the lines of the cgroup's memory.stat.
    pub struct MemoryStats {
        "usage" [omitempty] usage: u64,
        "max_usage" [omitempty] max_usage: u64,
        "stats" [omitempty] stats: BTreeMap<String, u64>,
        "failcnt" [omitempty] failcnt: u64,
        "limit" [omitempty] limit: u64,
    }

    /// The number of processes and its limit.
    pub struct PidsStats {
        "current" [omitempty] current: u64,
        "limit" [omitempty] limit: u64,
    }

    /// Disk counters by device and operation.
    pub struct BlkioStats {
        "io_service_bytes_recursive" io_service_bytes_recursive: Option<Vec<BlkioEntry>>,
        "io_serviced_recursive" io_serviced_recursive: Option<Vec<BlkioEntry>>,
        "io_queue_recursive" io_queue_recursive: Option<Vec<BlkioEntry>>,
        "io_service_time_recursive" io_service_time_recursive: Option<Vec<BlkioEntry>>,
        "io_wait_time_recursive" io_wait_time_recursive: Option<Vec<BlkioEntry>>,
        "io_merged_recursive" io_merged_recursive: Option<Vec<BlkioEntry>>,
        "io_time_recursive" io_time_recursive: Option<Vec<BlkioEntry>>,
        "sectors_recursive" sectors_recursive: Option<Vec<BlkioEntry>>,
    }

    /// One disk counter.
    pub struct BlkioEntry {
        "major" major: u64,
        "minor" minor: u64,
        "op" op: String,
        "value" value: u64,
    }

    /// Counters of one network interface.
    pub struct NetworkStats {
        "rx_bytes" rx_bytes: u64,
        "rx_packets" rx_packets: u64,
        "rx_errors" rx_errors: u64,
        "rx_dropped" rx_dropped: u64,
        "tx_bytes" tx_bytes: u64,
        "tx_packets" tx_packets: u64,
        "tx_errors" tx_errors: u64,
        "tx_dropped" tx_dropped: u64,
    }

    /// Always empty on Linux.
    pub struct StorageStats {
        "read_count_normalized" [omitempty] read_count_normalized: u64,
        "read_size_bytes" [omitempty] read_size_bytes: u64,
        "write_count_normalized" [omitempty] write_count_normalized: u64,
        "write_size_bytes" [omitempty] write_size_bytes: u64,
    }
}
