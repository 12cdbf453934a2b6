//! What the kernel keeps about a process besides its privileges: scheduling, memory,
//! execution domain, keyring. Seen from inside the container, for its first process
//! and for those of `exec`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::json;
use support::{Bundle, possible};

/// Fields of /proc/self/stat by their number in the manual.
fn stat(out: &str, number: usize) -> i64 {
    let (_, rest) = out.rsplit_once(") ").unwrap();
    rest.split_whitespace()
        .nth(number - 3)
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn cpu_scheduling_is_the_configurations() {
    if !possible() {
        return;
    }
    const POLICY: usize = 41;
    const NICE: usize = 19;
    const PRIORITY: usize = 40;
    let mut b = Bundle::new("cat /proc/self/stat; sleep 60");
    b.config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 7});
    b.start();
    // An exec has the scheduling of the container's process.
    let out = b.exec("exec cat /proc/self/stat").code(0).out;
    assert_eq!((stat(&out, POLICY), stat(&out, NICE)), (3, 7), "{out}");
    let mut b = Bundle::new("exec cat /proc/self/stat");
    b.config["process"]["scheduler"] =
        json!({"policy": "SCHED_RR", "priority": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]});
    if std::path::Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
        // A group has no real time of its own unless it is given some.
        b.config["linux"]["resources"]["cpu"] =
            json!({"realtimePeriod": 1_000_000, "realtimeRuntime": 1000});
    }
    let out = b.run().code(0).out;
    assert_eq!((stat(&out, POLICY), stat(&out, PRIORITY)), (2, 5), "{out}");
    b.config["process"]["args"] = json!(["sleep", "60"]);
    b.start();
    let group = std::path::Path::new("/sys/fs/cgroup/cpu").join(&b.id);
    for (file, value) in [("rt_period_us", "1000000"), ("rt_runtime_us", "1000")] {
        // Where groups have real time of their own.
        if let Ok(text) = std::fs::read_to_string(group.join(format!("cpu.{file}"))) {
            assert_eq!(text.trim(), value, "{file}");
        }
    }
}

#[test]
fn a_deadline_is_kept_or_refused_by_name() {
    if !possible() {
        return;
    }
    let mut b = Bundle::new("exec cat /proc/self/stat");
    b.config["process"]["scheduler"] = json!({
        "policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_RESET_ON_FORK"],
        "runtime": 1_000_000, "deadline": 10_000_000, "period": 20_000_000,
    });
    let said = b.run();
    match said.code {
        // What it asked for, as the kernel shows it: policy 6.
        0 => assert_eq!(stat(&said.out, 41), 6, "{}", said.out),
        // A kernel that has no room for it, or a cpuset that is not the whole machine.
        _ => assert!(said.err.contains("SCHED_DEADLINE"), "{}", said.err),
    }
    b.config["process"]["scheduler"]["runtime"] = 30_000_000.into();
    let said = b.run().code(1);
    assert!(said.err.contains("scheduler"), "{}", said.err);
}

#[test]
fn io_priority_is_the_configurations() {
    if !possible() {
        return;
    }
    for (class, level, shown) in [
        ("IOPRIO_CLASS_BE", 6, "best-effort: prio 6"),
        ("IOPRIO_CLASS_RT", 2, "realtime: prio 2"),
        ("IOPRIO_CLASS_IDLE", 0, "idle"),
    ] {
        let mut b = Bundle::new("busybox ionice -p $$");
        b.config["process"]["ioPriority"] = json!({"class": class, "priority": level});
        let out = b.run().code(0).out;
        assert!(out.starts_with(shown), "{class} {level}: {out}");
    }
}

#[test]
fn the_execution_domain_holds_for_execs_too() {
    if !possible() || !cfg!(target_arch = "x86_64") {
        return;
    }
    let mut b = Bundle::new("busybox uname -m > /tmp/machine; exec sleep 60");
    b.config["root"]["readonly"] = false.into();
    b.config["linux"]["personality"] = json!({"domain": "LINUX32"});
    b.start();
    assert_eq!(b.exec("busybox uname -m").code(0).out, "i686\n");
    support::eventually(|| {
        let seen = std::fs::read_to_string(b.rootfs().join("tmp/machine")).unwrap_or_default();
        if seen == "i686\n" { Ok(()) } else { Err(seen) }
    });
}

#[test]
fn memory_comes_from_the_nodes_asked_for() {
    if !possible() || !std::path::Path::new("/proc/self/numa_maps").exists() {
        return;
    }
    for (policy, shown) in [
        (json!({"mode": "MPOL_BIND", "nodes": "0"}), "bind:0"),
        (
            json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}),
            "interleave=static:0",
        ),
        (json!({"mode": "MPOL_LOCAL"}), "local"),
        (json!({"mode": "MPOL_DEFAULT"}), "default"),
    ] {
        let mut b = Bundle::new("sleep 60");
        b.config["linux"]["memoryPolicy"] = policy;
        b.start();
        let maps = b
            .exec("cat /proc/self/numa_maps; cat /proc/1/numa_maps")
            .code(0)
            .out;
        assert!(!maps.is_empty());
        for line in maps.lines() {
            let seen = line.split_whitespace().nth(1).unwrap_or_default();
            assert_eq!(seen, shown, "{line}");
        }
    }
    // What the kernel has no node for is the kernel's to refuse.
    let mut b = Bundle::new("true");
    b.config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "900"});
    b.run()
        .code(1)
        .says("set memory policy MPOL_BIND 900: invalid argument");
}

#[test]
fn the_out_of_memory_score_is_set_or_stays_with_a_warning() {
    if !possible() {
        return;
    }
    let mut b = Bundle::new("exec sleep 60");
    b.config["process"]["oomScoreAdj"] = 321.into();
    b.start();
    let pid = b.state()["pid"].to_string();
    let seen = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!(seen.trim(), "321");
    assert_eq!(b.exec("cat /proc/self/oom_score_adj").code(0).out, "321\n");
    // Lower than our own takes CAP_SYS_RESOURCE: without it the container runs.
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let mut b = Bundle::new("cat /proc/self/oom_score_adj");
    b.config["process"]["oomScoreAdj"] = (-999).into();
    let said = b.run().code(0);
    match said.out.trim() {
        "-999" => assert_eq!(said.err, ""),
        kept => {
            assert_eq!(kept, own.trim());
            assert!(said.err.contains("oom_score_adj -999 is not permitted"));
        }
    }
}

#[test]
fn the_session_keyring_is_the_containers_own() {
    if !possible() || !std::path::Path::new("/proc/keys").exists() {
        return;
    }
    let script = "grep -c \"_ses.$(hostname)\" /proc/keys";
    let mut b = Bundle::new(script);
    b.config["hostname"] = b.id.clone().into();
    // The default configuration hides /proc/keys.
    b.config["linux"]["maskedPaths"] = json!([]);
    assert_eq!(b.run().code(0).out, "1\n");
    let mut b = Bundle::new(&format!("{script} || true"));
    b.config["hostname"] = b.id.clone().into();
    b.config["linux"]["maskedPaths"] = json!([]);
    b.write_config();
    let said = b.call(&["run", "--no-new-keyring", &b.id]).code(0);
    assert_eq!(said.out, "0\n");
}

#[test]
fn umask_and_groups_are_the_configurations() {
    if !possible() {
        return;
    }
    let mut b = Bundle::new("id; umask; touch /tmp/f; stat -c %a /tmp/f");
    b.mount("/tmp", "tmpfs", "tmpfs", &["mode=1777"]);
    b.config["process"]["user"] =
        json!({"uid": 7, "gid": 8, "umask": 0o027, "additionalGids": [9, 10]});
    let out = b.run().code(0).out;
    assert_eq!(out, "uid=7 gid=8 groups=9,10\n0027\n640\n");
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_made() {
    if !possible() {
        return;
    }
    for (field, value, text) in [
        (
            "/process/scheduler",
            json!({"policy": "SCHED_FIFO", "priority": -1}),
            "invalid scheduler.priority: -1",
        ),
        (
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_BE", "priority": 8}),
            "invalid ioPriority.priority: 8",
        ),
        (
            "/process/execCPUAffinity",
            json!({"initial": "0-"}),
            "invalid execCPUAffinity.initial",
        ),
        (
            "/linux/personality",
            json!({"domain": "BSD"}),
            "invalid personality domain",
        ),
        (
            "/linux/personality",
            json!({"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}),
            "linux.personality.flags is not supported",
        ),
        (
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_NEAR"}),
            "invalid memory policy mode",
        ),
        (
            "/hooks",
            json!({"poststop": [{"path": "bin/true"}]}),
            "must be absolute",
        ),
    ] {
        let mut b = Bundle::new("true");
        let (parent, name) = field.rsplit_once('/').unwrap();
        b.config.pointer_mut(parent).unwrap()[name] = value;
        b.create().code(1).says(text);
        b.assert_gone();
    }
}
