//! Which files get which values, over a plain directory instead of a cgroup
//! file system.

use super::super::locate::clean;
use super::*;
use crate::spec::resources::*;

/// A group under a fake root, with the given files in it.
fn fake(files: &[&str]) -> (tempfile::TempDir, V2) {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("a/b");
    std::fs::create_dir_all(&dir).unwrap();
    for file in files {
        std::fs::write(dir.join(file), "").unwrap();
    }
    let v2 = V2 {
        root: root.path().to_owned(),
        dir: Dir::new(dir),
        without: false,
    };
    (root, v2)
}

fn content(v2: &V2, file: &str) -> String {
    std::fs::read_to_string(v2.dir.path().join(file)).unwrap()
}

fn memory(limit: i64, swap: i64) -> LinuxResources {
    LinuxResources {
        memory: Some(LinuxMemory {
            limit: Some(limit),
            swap: Some(swap),
            ..LinuxMemory::default()
        }),
        ..LinuxResources::default()
    }
}

#[test]
fn swap_is_what_is_above_memory() {
    let (_root, v2) = fake(&["memory.max", "memory.swap.max"]);
    v2.set_limits(&memory(100, 300)).unwrap();
    assert_eq!(
        (
            content(&v2, "memory.max").as_str(),
            content(&v2, "memory.swap.max").as_str()
        ),
        ("100", "200")
    );
    assert!(v2.set_limits(&memory(300, 100)).is_err());
    let (_root, v2) = fake(&["memory.max", "memory.swap.max"]);
    v2.set_limits(&memory(100, -1)).unwrap();
    assert_eq!(content(&v2, "memory.swap.max"), "max");
}

#[test]
fn controllers_are_handed_down_level_by_level() {
    let (root, v2) = fake(&[]);
    std::fs::write(root.path().join("cgroup.controllers"), "cpu memory pids\n").unwrap();
    std::fs::write(v2.dir.path().join("cgroup.controllers"), "memory\n").unwrap();
    for dir in ["", "a"] {
        std::fs::write(root.path().join(dir).join("cgroup.subtree_control"), "").unwrap();
    }
    v2.hand_down().unwrap();
    for dir in ["", "a"] {
        let text =
            std::fs::read_to_string(root.path().join(dir).join("cgroup.subtree_control")).unwrap();
        assert_eq!(text, "+cpu +pids", "{dir:?}");
    }
}

#[test]
fn a_limit_without_its_file_is_refused_by_name() {
    let (_root, v2) = fake(&[]);
    let limits = LinuxResources {
        pids: Some(LinuxPids { limit: Some(5) }),
        ..LinuxResources::default()
    };
    let text = v2.set_limits(&limits).unwrap_err().to_string();
    assert_eq!(
        text,
        "cannot set linux.resources.pids.limit: pids.max is not available on this machine"
    );
}

#[test]
fn unified_names_stay_in_the_directory() {
    let (_root, v2) = fake(&["memory.high", "cgroup.procs"]);
    for bad in [
        "../a.b",
        "/etc/x.y",
        "",
        ".",
        "nodot",
        "cgroup.procs",
        "a.b/../c",
    ] {
        let limits = LinuxResources {
            unified: [(bad.to_owned(), "1".to_owned())].into(),
            ..LinuxResources::default()
        };
        assert!(v2.set_limits(&limits).is_err(), "{bad:?}");
    }
    let good = LinuxResources {
        unified: [("memory.high".to_owned(), "7".to_owned())].into(),
        ..LinuxResources::default()
    };
    v2.set_limits(&good).unwrap();
    assert_eq!(content(&v2, "memory.high"), "7");
}

#[test]
fn everything_else_lands_in_its_file() {
    let files = [
        "cpu.weight",
        "cpu.max",
        "cpu.max.burst",
        "io.max",
        "io.weight",
        "pids.max",
        "memory.low",
        "rdma.max",
        "cpuset.cpus",
        "cpuset.mems",
    ];
    let (_root, v2) = fake(&files);
    let limits = LinuxResources {
        cpu: Some(LinuxCpu {
            shares: Some(1024),
            quota: Some(5000),
            burst: Some(10),
            cpus: Some("0-1".into()),
            mems: Some("0".into()),
            ..LinuxCpu::default()
        }),
        memory: Some(LinuxMemory {
            reservation: Some(64),
            ..LinuxMemory::default()
        }),
        pids: Some(LinuxPids { limit: Some(0) }),
        block_io: Some(LinuxBlockIo {
            weight: Some(500),
            throttle_read_bps_device: vec![LinuxThrottleDevice {
                major: 8,
                minor: 0,
                rate: 0,
            }],
            ..LinuxBlockIo::default()
        }),
        rdma: [(
            "mlx".to_owned(),
            LinuxRdma {
                hca_handles: Some(2),
                hca_objects: Some(3),
            },
        )]
        .into(),
        ..LinuxResources::default()
    };
    v2.update(&limits).unwrap();
    let all: Vec<String> = files.iter().map(|f| content(&v2, f)).collect();
    assert_eq!(
        all,
        [
            "100",
            "5000 100000",
            "10",
            "8:0 rbps=max",
            "4950",
            "1",
            "64",
            "mlx hca_handle=2 hca_object=3",
            "0-1",
            "0"
        ]
    );
}

#[test]
fn the_oom_count_and_the_kill_file_are_used() {
    let (_root, v2) = fake(&["cgroup.kill"]);
    std::fs::write(
        v2.dir.path().join("memory.events"),
        "low 0\noom 2\noom_kill 3\n",
    )
    .unwrap();
    assert_eq!(v2.oom_kills().unwrap(), Some(3));
    v2.kill_all().unwrap();
    assert_eq!(content(&v2, "cgroup.kill"), "1");
    assert_eq!(clean("a//b"), Path::new("a/b"));
}

#[test]
fn every_throttle_and_weight_has_its_key() {
    let (_root, v2) = fake(&["io.max", "io.bfq.weight", "hugetlb.2MB.max", "cpu.idle"]);
    let device = |rate| {
        vec![LinuxThrottleDevice {
            major: 8,
            minor: 16,
            rate,
        }]
    };
    let throttles: [(LinuxBlockIo, &str); 4] = [
        (
            LinuxBlockIo {
                throttle_read_bps_device: device(1),
                ..LinuxBlockIo::default()
            },
            "8:16 rbps=1",
        ),
        (
            LinuxBlockIo {
                throttle_write_bps_device: device(2),
                ..LinuxBlockIo::default()
            },
            "8:16 wbps=2",
        ),
        (
            LinuxBlockIo {
                throttle_read_iops_device: device(3),
                ..LinuxBlockIo::default()
            },
            "8:16 riops=3",
        ),
        (
            LinuxBlockIo {
                throttle_write_iops_device: device(4),
                ..LinuxBlockIo::default()
            },
            "8:16 wiops=4",
        ),
    ];
    for (io, line) in throttles {
        let limits = LinuxResources {
            block_io: Some(io),
            ..LinuxResources::default()
        };
        std::fs::write(v2.dir.path().join("io.max"), "").unwrap();
        v2.set_limits(&limits).unwrap();
        assert_eq!(content(&v2, "io.max"), line);
    }
    let limits = LinuxResources {
        block_io: Some(LinuxBlockIo {
            weight_device: vec![LinuxWeightDevice {
                major: 8,
                minor: 16,
                weight: Some(300),
                leaf_weight: None,
            }],
            ..LinuxBlockIo::default()
        }),
        hugepage_limits: vec![LinuxHugepageLimit {
            page_size: "2MB".into(),
            limit: 4096,
        }],
        cpu: Some(LinuxCpu {
            idle: Some(1),
            ..LinuxCpu::default()
        }),
        ..LinuxResources::default()
    };
    v2.set_limits(&limits).unwrap();
    assert_eq!(content(&v2, "io.bfq.weight"), "8:16 300");
    assert_eq!(content(&v2, "hugetlb.2MB.max"), "4096");
    assert_eq!(content(&v2, "cpu.idle"), "1");
}

#[test]
fn what_has_no_counterpart_is_passed_over_or_refused() {
    let (_root, v2) = fake(&["memory.max"]);
    // As other runtimes do: these have no meaning here.
    let limits = LinuxResources {
        memory: Some(LinuxMemory {
            limit: Some(100),
            swappiness: Some(7),
            disable_oom_killer: Some(true),
            use_hierarchy: Some(true),
            kernel: Some(1),
            kernel_tcp: Some(1),
            ..LinuxMemory::default()
        }),
        cpu: Some(LinuxCpu {
            realtime_period: Some(1000),
            ..LinuxCpu::default()
        }),
        ..LinuxResources::default()
    };
    v2.set_limits(&limits).unwrap();
    assert_eq!(content(&v2, "memory.max"), "100");
    let refused = |limits: LinuxResources, text: &str| {
        let told = v2.set_limits(&limits).unwrap_err().to_string();
        assert!(told.contains(text), "{told}");
    };
    refused(
        LinuxResources {
            network: Some(LinuxNetwork {
                class_id: Some(1),
                priorities: Vec::new(),
            }),
            ..LinuxResources::default()
        },
        "a network controller on cgroup v2",
    );
    refused(
        LinuxResources {
            cpu: Some(LinuxCpu {
                realtime_runtime: Some(100),
                ..LinuxCpu::default()
            }),
            ..LinuxResources::default()
        },
        "no realtime groups",
    );
    refused(
        LinuxResources {
            block_io: Some(LinuxBlockIo {
                leaf_weight: Some(100),
                ..LinuxBlockIo::default()
            }),
            ..LinuxResources::default()
        },
        "a leaf weight on cgroup v2",
    );
}

#[test]
fn a_limit_below_what_is_used_is_refused_where_that_is_asked_for() {
    let (_root, v2) = fake(&["memory.max"]);
    std::fs::write(v2.dir.path().join("memory.current"), "5000\n").unwrap();
    let limits = LinuxResources {
        memory: Some(LinuxMemory {
            limit: Some(4096),
            check_before_update: Some(true),
            ..LinuxMemory::default()
        }),
        ..LinuxResources::default()
    };
    let told = v2.set_limits(&limits).unwrap_err().to_string();
    assert!(
        told.contains("unable to set memory limit to 4096"),
        "{told}"
    );
    assert_eq!(content(&v2, "memory.max"), "");
}
