//! Limits that few ask for, on cgroup v1: each lands in its file, or is refused by its
//! name where the machine has no such file.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod support;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::container::Container;
use support::{possible, skip};

fn no_v1() -> bool {
    !possible()
        || (Path::new("/sys/fs/cgroup/cgroup.controllers").exists() && skip("needs cgroup v1"))
}

/// A container with these limits, created, or what the runtime said.
fn created(resources: &Value) -> (Container, Result<(), String>) {
    let limits = resources.clone();
    let c = Container::new("sleep 100", |config| {
        config["linux"]["resources"] = limits;
    });
    let output = c.runtime(&["create", "--pid-file", "pid", &c.id]);
    let said = match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    };
    (c, said)
}

/// Whether the kernel makes that file in a new group of the hierarchy.
fn has(controller: &str, file: &str) -> bool {
    let top = Path::new("/sys/fs/cgroup").join(controller);
    let name = format!("runc-lite-probe-{}", std::process::id());
    let probe: PathBuf = top.join(name);
    if std::fs::create_dir(&probe).is_err() {
        return false;
    }
    let there = probe.join(file).exists();
    let _ = std::fs::remove_dir(&probe);
    there
}

#[test]
fn rare_limits_land_in_their_files_or_are_refused_by_name() {
    if no_v1() {
        return;
    }
    let device = |rate: u64| json!([{"major": 254, "minor": 0, "rate": rate}]);
    for (field, controller, file, resources, content) in [
        (
            "cpu.mems",
            "cpuset",
            "cpuset.mems",
            json!({"cpu": {"mems": "0"}}),
            "0",
        ),
        (
            "cpu.idle",
            "cpu",
            "cpu.idle",
            json!({"cpu": {"idle": 1}}),
            "1",
        ),
        (
            "cpu.realtimePeriod",
            "cpu",
            "cpu.rt_period_us",
            json!({"cpu": {"realtimePeriod": 900_000}}),
            "900000",
        ),
        (
            "memory.disableOOMKiller",
            "memory",
            "memory.oom_control",
            json!({"memory": {"disableOOMKiller": true}}),
            "oom_kill_disable 1",
        ),
        (
            "blockIO.throttleWriteBpsDevice",
            "blkio",
            "blkio.throttle.write_bps_device",
            json!({"blockIO": {"throttleWriteBpsDevice": device(1001)}}),
            "254:0 1001",
        ),
        (
            "blockIO.throttleReadIOPSDevice",
            "blkio",
            "blkio.throttle.read_iops_device",
            json!({"blockIO": {"throttleReadIOPSDevice": device(12)}}),
            "254:0 12",
        ),
        (
            "blockIO.throttleWriteIOPSDevice",
            "blkio",
            "blkio.throttle.write_iops_device",
            json!({"blockIO": {"throttleWriteIOPSDevice": device(13)}}),
            "254:0 13",
        ),
        (
            "blockIO.leafWeight",
            "blkio",
            "blkio.leaf_weight",
            json!({"blockIO": {"leafWeight": 300}}),
            "300",
        ),
        (
            "network.classID",
            "net_cls",
            "net_cls.classid",
            json!({"network": {"classID": 1_048_577}}),
            "1048577",
        ),
        (
            "network.priorities",
            "net_prio",
            "net_prio.ifpriomap",
            json!({"network": {"priorities": [{"name": "lo", "priority": 3}]}}),
            "lo 3",
        ),
        (
            "hugepageLimits",
            "hugetlb",
            "hugetlb.2MB.limit_in_bytes",
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]}),
            "4194304",
        ),
        (
            "rdma",
            "rdma",
            "rdma.max",
            json!({"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}}}),
            "",
        ),
    ] {
        let (c, said) = created(&resources);
        match (has(controller, file), said) {
            // Of a device that is not there no machine can speak.
            (true, Ok(())) => assert!(
                c.cgroup_file(controller, file).contains(content),
                "{field}: {}",
                c.cgroup_file(controller, file)
            ),
            (_, Err(text)) => {
                assert!(text.contains(field), "{field}: {text}");
                assert!(c.cgroups_left().is_empty(), "{field}");
                let rdma = field == "rdma";
                assert!(rdma || !has(controller, file), "{field}: {text}");
            }
            (false, Ok(())) => panic!("{field} was taken and has no file"),
        }
    }
}

#[test]
fn weights_of_devices_land_with_the_scheduler_that_has_them() {
    if no_v1() {
        return;
    }
    for (resources, field, files) in [
        (
            json!({"blockIO": {"weight": 300}}),
            "blockIO.weight",
            ["blkio.weight", "blkio.bfq.weight"],
        ),
        (
            json!({"blockIO": {"weightDevice": [{"major": 254, "minor": 0, "weight": 300}]}}),
            "blockIO.weightDevice",
            ["blkio.weight_device", "blkio.bfq.weight_device"],
        ),
    ] {
        let (c, said) = created(&resources);
        match (files.iter().find(|f| has("blkio", f)), said) {
            (Some(file), Ok(())) => assert!(c.cgroup_file("blkio", file).contains("300")),
            (None, Err(text)) => assert!(text.contains(field), "{text}"),
            // bfq takes a weight for a device only where it serves that device
            (Some(_), Err(text)) => assert!(text.contains("254:0 300"), "{text}"),
            (None, Ok(())) => panic!("{field} was taken and has no file"),
        }
    }
}

#[test]
fn limits_of_kernel_memory_are_taken_with_a_warning() {
    if no_v1() {
        return;
    }
    for field in ["kernel", "kernelTCP"] {
        let c = Container::new("true", |config| {
            config["linux"]["resources"] =
                json!({"memory": {field: 1 << 30, "useHierarchy": true}});
        });
        let (text, code) = c.run();
        let wanted = format!("linux.resources.memory.{field} has no effect");
        assert!(text.contains(&wanted), "{text}");
        assert_eq!(code, Some(0));
    }
}

#[test]
fn a_limit_below_what_is_used_is_refused_where_that_is_asked_for() {
    if no_v1() {
        return;
    }
    let (c, said) = created(&json!({"memory": {"limit": 64 << 20}}));
    said.unwrap();
    let file = c.bundle().join("limits.json");
    let limits = json!({"memory": {"limit": 4096, "checkBeforeUpdate": true}});
    std::fs::write(&file, limits.to_string()).unwrap();
    let text = c.fails(&["update", "-r", "limits.json", &c.id]);
    assert!(
        text.contains("unable to set memory limit to 4096 (current usage: "),
        "{text}"
    );
    let kept = c.cgroup_file("memory", "memory.limit_in_bytes");
    assert_eq!(kept, (64 << 20).to_string());
}
