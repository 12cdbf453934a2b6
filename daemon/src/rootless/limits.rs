//! Limits that a rootless daemon cannot set: each that is asked for is left out with a warning, never silently.

use proto::engine::Resources;

/// Takes out what nobody could enforce, and says so.
pub(crate) fn take_out(r: &mut Resources, warnings: &mut Vec<String>) {
    let memory = r.memory > 0
        || r.memory_reservation > 0
        || r.memory_swap > 0
        || r.memory_swappiness.is_some_and(|value| value >= 0)
        || r.oom_kill_disable == Some(true);
    let cpu = r.nano_cpus != 0
        || r.cpu_shares != 0
        || r.cpu_period != 0
        || r.cpu_quota != 0
        || r.cpu_realtime_period != 0
        || r.cpu_realtime_runtime != 0;
    let io = r.blkio_weight != 0
        || some(&r.blkio_weight_device)
        || some(&r.blkio_device_read_bps)
        || some(&r.blkio_device_write_bps)
        || some(&r.blkio_device_read_iops)
        || some(&r.blkio_device_write_iops);
    for (asked, what) in [
        (memory, "memory limit"),
        (cpu, "CPU limit"),
        (
            !r.cpuset_cpus.is_empty() || !r.cpuset_mems.is_empty(),
            "cpuset",
        ),
        (r.pids_limit.is_some_and(|limit| limit > 0), "pids limit"),
        (io, "block I/O limit"),
        (some(&r.device_cgroup_rules), "device rules"),
    ] {
        if asked {
            warnings.push(format!(
                "Rootless without a delegated cgroup has no {what}. Limitation discarded."
            ));
        }
    }
    let none = Resources::default();
    macro_rules! forget {
        ($($field:ident),+) => { $( r.$field = none.$field.clone(); )+ };
    }
    forget!(
        memory,
        memory_reservation,
        memory_swap,
        memory_swappiness,
        oom_kill_disable,
        nano_cpus,
        cpu_shares,
        cpu_period,
        cpu_quota,
        cpu_realtime_period,
        cpu_realtime_runtime,
        cpuset_cpus,
        cpuset_mems,
        pids_limit,
        blkio_weight,
        blkio_weight_device,
        blkio_device_read_bps,
        blkio_device_write_bps,
        blkio_device_read_iops,
        blkio_device_write_iops,
        device_cgroup_rules
    );
}

fn some<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_out_is_told() {
        let mut resources = Resources {
            memory: 1 << 20,
            pids_limit: Some(5),
            memory_swappiness: Some(-1),
            device_cgroup_rules: Some(Vec::new()),
            ..Resources::default()
        };
        let mut warnings = Vec::new();
        take_out(&mut resources, &mut warnings);
        assert_eq!(resources, Resources::default());
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        take_out(&mut resources, &mut warnings);
        assert_eq!(warnings.len(), 2);
    }
}
