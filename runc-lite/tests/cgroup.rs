//! Limits and processes, seen from outside in the files of cgroup v1.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::container::Container;
use support::{eventually, hierarchies, possible, skip};

fn no_v1() -> bool {
    !possible()
        || (Path::new("/sys/fs/cgroup/cgroup.controllers").exists() && skip("needs cgroup v1"))
}

fn limits(resources: Value) -> impl FnOnce(&mut Value) {
    move |config| config["linux"]["resources"] = resources
}

#[test]
fn every_limit_lands_in_its_file_and_goes_with_the_container() {
    if no_v1() {
        return;
    }
    let c = Container::new(
        "sleep 100",
        limits(json!({
            "memory": {"limit": 64 << 20, "swap": 128 << 20, "reservation": 32 << 20, "swappiness": 7},
            "cpu": {"shares": 512, "quota": 20000, "period": 50000, "burst": 1000, "cpus": "0"},
            "pids": {"limit": 33},
            "blockIO": {"throttleReadBpsDevice": [{"major": 254, "minor": 0, "rate": 1048576}]},
        })),
    );
    c.start();
    for (controller, file, value) in [
        ("memory", "memory.limit_in_bytes", "67108864"),
        ("memory", "memory.memsw.limit_in_bytes", "134217728"),
        ("memory", "memory.soft_limit_in_bytes", "33554432"),
        ("memory", "memory.swappiness", "7"),
        ("cpu", "cpu.shares", "512"),
        ("cpu", "cpu.cfs_quota_us", "20000"),
        ("cpu", "cpu.cfs_period_us", "50000"),
        ("cpu", "cpu.cfs_burst_us", "1000"),
        ("cpuset", "cpuset.cpus", "0"),
        ("pids", "pids.max", "33"),
        ("blkio", "blkio.throttle.read_bps_device", "254:0 1048576"),
    ] {
        assert_eq!(c.cgroup_file(controller, file), value, "{file}");
    }
    for hierarchy in hierarchies() {
        let procs = fs::read_to_string(hierarchy.join(&c.cgroup).join("cgroup.procs")).unwrap();
        assert_eq!(
            procs.lines().next().unwrap(),
            c.pid().to_string(),
            "{}",
            hierarchy.display()
        );
    }
    c.ok(&["delete", "--force", &c.id]);
    assert_eq!(c.cgroups_left(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn no_tasks_means_one_and_less_means_any_number() {
    if no_v1() {
        return;
    }
    for (limit, file) in [(0, "1"), (-1, "max")] {
        let c = Container::new("true", limits(json!({"pids": {"limit": limit}})));
        c.ok(&["create", "--pid-file", "pid", &c.id]);
        assert_eq!(c.cgroup_file("pids", "pids.max"), file);
    }
}

#[test]
fn a_fork_above_the_limit_fails() {
    if no_v1() {
        return;
    }
    let c = Container::new(
        "for n in 1 2 3 4 5; do sleep 1 & done; wait",
        limits(json!({"pids": {"limit": 3}})),
    );
    let (text, code) = c.run();
    assert!(text.contains("can't fork"), "{text}");
    assert_ne!(code, Some(0));
}

#[test]
fn memory_above_the_limit_kills_and_is_counted() {
    if no_v1() {
        return;
    }
    let c = Container::new(
        "dd if=/dev/zero of=/dev/null bs=64M count=1; sleep 100",
        limits(json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}})),
    );
    c.start();
    eventually(|| {
        let told = c.cgroup_file("memory", "memory.oom_control");
        match told.contains("oom_kill 1") {
            true => Ok(()),
            false => Err(told),
        }
    });
    assert_eq!(c.status(), "running");
}

#[test]
fn a_relative_path_starts_in_the_callers_own_group() {
    if no_v1() {
        return;
    }
    let c = Container::new("cat /proc/self/cgroup", |config| {
        config["linux"]["cgroupsPath"] = json!(
            config["linux"]["cgroupsPath"]
                .as_str()
                .unwrap()
                .trim_start_matches('/')
        );
    });
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let (text, code) = c.run();
    assert_eq!(code, Some(0), "{text}");
    for line in own.lines() {
        let base = line.splitn(3, ':').nth(2).unwrap().trim_end_matches('/');
        let prefix = &line[..line.len() - line.splitn(3, ':').nth(2).unwrap().len()];
        let expected = format!("{prefix}{base}/{}", c.cgroup);
        assert!(text.contains(&expected), "{expected} is not in {text}");
    }
}

#[test]
fn device_rules_are_the_defaults_and_what_was_asked_for_in_order() {
    if no_v1() {
        return;
    }
    let c = Container::new(
        "mknod /tmp/fuse c 10 229; mknod /tmp/mem c 1 1; cat /tmp/mem; sleep 100",
        limits(json!({"devices": [
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"},
            {"allow": true, "type": "b", "major": 8, "minor": 0, "access": "rwm"},
            {"allow": false, "type": "b", "major": 8, "minor": 0, "access": "wm"},
        ]})),
    );
    c.start();
    let list = c.cgroup_file("devices", "devices.list");
    let mut list: Vec<&str> = list.lines().collect();
    list.sort_unstable();
    let mut expected = vec![
        "b *:* m",
        "b 8:0 r",
        "c *:* m",
        "c 10:200 rwm",
        "c 10:229 rw",
        "c 136:* rwm",
        "c 1:3 rwm",
        "c 1:5 rwm",
        "c 1:7 rwm",
        "c 1:8 rwm",
        "c 1:9 rwm",
        "c 5:0 rwm",
        "c 5:2 rwm",
    ];
    expected.sort_unstable();
    assert_eq!(list, expected);
    c.ok(&["update", "--pids-limit", "9", &c.id]);
    assert_eq!(
        c.cgroup_file("devices", "devices.list").lines().count(),
        expected.len()
    );
    c.ok(&["delete", "--force", &c.id]);
    let c = Container::new("mknod /tmp/mem c 1 1 && cat /tmp/mem", |_| {});
    let (text, code) = c.run();
    assert!(text.contains("Operation not permitted"), "{text}");
    assert_eq!(code, Some(1));
}

#[test]
fn a_paused_container_stands_and_can_be_deleted() {
    if no_v1() {
        return;
    }
    let c = Container::new("while true; do :; done", |_| {});
    c.start();
    c.ok(&["pause", &c.id]);
    assert_eq!(c.status(), "paused");
    assert_eq!(c.cgroup_file("freezer", "freezer.state"), "FROZEN");
    assert!(
        c.fails(&["exec", &c.id, "true"])
            .contains("cannot exec in a paused container")
    );
    c.ok(&["resume", &c.id]);
    assert_eq!(c.status(), "running");
    c.ok(&["exec", &c.id, "true"]);
    c.ok(&["pause", &c.id]);
    c.ok(&["delete", "--force", &c.id]);
    assert!(c.cgroups_left().is_empty());
    // A kill reaches one that stands, too.
    for kill in [
        &["kill", c.id.as_str(), "KILL"][..],
        &["kill", "--all", &c.id, "KILL"],
    ] {
        c.start();
        c.ok(&["pause", &c.id]);
        c.ok(kill);
        eventually(|| match c.status().as_str() {
            "stopped" => Ok(()),
            other => Err(other.to_owned()),
        });
        c.ok(&["delete", &c.id]);
    }
}

#[test]
fn update_changes_what_it_names_and_nothing_else() {
    if no_v1() {
        return;
    }
    let c = Container::new(
        "sleep 100",
        limits(
            json!({"memory": {"limit": 32 << 20, "swap": 64 << 20}, "pids": {"limit": 20}, "cpu": {"shares": 100}}),
        ),
    );
    c.start();
    c.ok(&[
        "update",
        "--cpu-share",
        "200",
        "--cpu-period",
        "100000",
        "--cpu-quota",
        "50000",
        "--cpuset-cpus",
        "0",
        &c.id,
    ]);
    assert_eq!(c.cgroup_file("cpu", "cpu.shares"), "200");
    assert_eq!(c.cgroup_file("cpu", "cpu.cfs_quota_us"), "50000");
    assert_eq!(c.cgroup_file("cpuset", "cpuset.cpus"), "0");
    assert_eq!(c.cgroup_file("pids", "pids.max"), "20");
    // A shorter period than the quota in force, and back: the order has to be found.
    c.ok(&[
        "update",
        "--cpu-period",
        "10000",
        "--cpu-quota",
        "5000",
        &c.id,
    ]);
    c.ok(&[
        "update",
        "--cpu-period",
        "200000",
        "--cpu-quota",
        "150000",
        &c.id,
    ]);
    assert_eq!(c.cgroup_file("cpu", "cpu.cfs_period_us"), "200000");
    // Both limits beyond where memory and swap stood, and below again.
    c.ok(&["update", "--memory", "128M", "--memory-swap", "256M", &c.id]);
    assert_eq!(
        c.cgroup_file("memory", "memory.limit_in_bytes"),
        (128 << 20).to_string()
    );
    fs::write(
        c.bundle().join("limits.json"),
        r#"{"memory":{"limit":16777216,"swap":16777216},"pids":{"limit":-1}}"#,
    )
    .unwrap();
    c.ok(&["update", "-r", "limits.json", &c.id]);
    assert_eq!(
        c.cgroup_file("memory", "memory.memsw.limit_in_bytes"),
        (16 << 20).to_string()
    );
    assert_eq!(c.cgroup_file("pids", "pids.max"), "max");
    let text = c.fails(&["update", "--memory", "4096", &c.id]);
    assert!(
        text.contains("unable to set memory limit to 4096 (current usage: "),
        "{text}"
    );
}

#[test]
fn somebody_elses_group_is_refused_and_left_alone() {
    if no_v1() {
        return;
    }
    let c = Container::new("true", |_| {});
    for hierarchy in hierarchies().iter().filter(|h| !h.ends_with("cpuset")) {
        fs::create_dir_all(hierarchy.join(&c.cgroup)).unwrap();
    }
    let mut tenant = Command::new("sleep")
        .arg("100")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    fs::write(
        c.cgroup_dir("devices").join("cgroup.procs"),
        tenant.id().to_string(),
    )
    .unwrap();
    let text = c.fails(&["run", &c.id]);
    assert!(
        text.contains("container's cgroup is not empty: 1 process(es) found"),
        "{text}"
    );
    c.runtime(&["delete", "--force", &c.id]);
    assert!(
        tenant.try_wait().unwrap().is_none(),
        "the tenant was killed"
    );
    tenant.kill().unwrap();
    tenant.wait().unwrap();
    // Standing still is as bad.
    let freezer = c.cgroup_dir("freezer").join("freezer.state");
    fs::create_dir_all(c.cgroup_dir("freezer")).unwrap();
    fs::write(&freezer, "FROZEN").unwrap();
    let text = c.fails(&["run", &c.id]);
    assert!(
        text.contains("container's cgroup unexpectedly frozen"),
        "{text}"
    );
    fs::create_dir_all(c.cgroup_dir("freezer")).unwrap();
    fs::write(&freezer, "THAWED").unwrap();
    // An empty one will do.
    assert_eq!(c.run().1, Some(0));
    assert!(c.cgroups_left().is_empty());
}

#[test]
fn what_the_machine_lacks_is_refused_by_name_and_leaves_nothing() {
    if no_v1() {
        return;
    }
    let mut cases = vec![
        (json!({"unified": {"memory.high": "1"}}), "memory.high"),
        (json!({"cpu": {"cpus": "4000"}}), "cpuset.cpus"),
        (json!({"cpu": {"shares": 1}}), "minimum allowed cpu-shares"),
        (json!({"memory": {"swappiness": 101}}), "swappiness"),
        (
            json!({"memory": {"limit": 200, "swap": 100}}),
            "memory.swap",
        ),
        (
            json!({"devices": [{"allow": true, "type": "q"}]}),
            "device type",
        ),
    ];
    if !Path::new("/sys/fs/cgroup/hugetlb").exists() {
        cases.push((
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}),
            "hugetlb",
        ));
    }
    if !Path::new("/sys/fs/cgroup/net_cls").exists() {
        cases.push((json!({"network": {"classID": 1}}), "net_cls"));
    }
    for (resources, word) in cases {
        let c = Container::new("true", limits(resources.clone()));
        let text = c.fails(&["run", &c.id]);
        assert!(text.contains(word), "{resources}: {text}");
        assert!(c.cgroups_left().is_empty(), "{resources}");
        assert!(c.fails(&["state", &c.id]).contains("does not exist"));
    }
}

#[test]
fn groups_that_the_container_made_are_counted_and_removed() {
    if no_v1() {
        return;
    }
    let c = Container::new("sleep 100", |_| {});
    c.start();
    for hierarchy in hierarchies() {
        let below = hierarchy.join(&c.cgroup).join("a/b");
        fs::create_dir_all(&below).unwrap();
    }
    c.ok(&[
        "exec",
        "--detach",
        "--pid-file",
        "exec-pid",
        &c.id,
        "sleep",
        "100",
    ]);
    let pid = fs::read_to_string(c.bundle().join("exec-pid")).unwrap();
    fs::write(c.cgroup_dir("devices").join("a/b/cgroup.procs"), &pid).unwrap();
    let listed: Vec<u32> = serde_json::from_str(&c.ok(&["ps", "--format", "json", &c.id])).unwrap();
    assert!(listed.contains(&pid.trim().parse().unwrap()), "{listed:?}");
    c.ok(&["delete", "--force", &c.id]);
    assert!(c.cgroups_left().is_empty());
}

#[test]
fn stats_have_the_shape_that_callers_read() {
    if no_v1() {
        return;
    }
    let c = Container::new(
        "sleep 100",
        limits(json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 5}})),
    );
    c.start();
    let event: Value = serde_json::from_str(&c.ok(&["events", "--stats", &c.id])).unwrap();
    assert_eq!(
        (event["type"].as_str(), event["id"].as_str()),
        (Some("stats"), Some(c.id.as_str()))
    );
    let data = &event["data"];
    assert!(data["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
    assert_eq!(data["memory"]["usage"]["limit"], 64 << 20);
    assert!(
        data["memory"]["raw"]["rss"].is_u64()
            && data["memory"]["usage"]["usage"].as_u64().unwrap() > 0
    );
    assert_eq!(
        (&data["pids"]["current"], &data["pids"]["limit"]),
        (&json!(1), &json!(5))
    );
    assert!(
        data["cpuset"]["cpus"].is_array()
            && data["blkio"].is_object()
            && data["hugetlb"].is_object()
    );
}

/// As others that are created at the same moment leave it for an instant.
#[test]
fn a_cpuset_group_that_nobody_opened_yet_is_opened() {
    let cpuset = Path::new("/sys/fs/cgroup/cpuset");
    if no_v1() || (!cpuset.join("cpuset.cpus").exists() && skip("needs the cpuset controller")) {
        return;
    }
    let above = cpuset.join(format!("lite-unopened-{}", std::process::id()));
    fs::create_dir_all(above.join("deep")).unwrap();
    let name = above.file_name().unwrap().to_str().unwrap();
    let c = Container::new("cat /proc/self/cpuset", |config| {
        config["linux"]["cgroupsPath"] = json!(format!("/{name}/deep/c"));
    });
    let (out, code) = c.run();
    let opened = ["cpuset.cpus", "cpuset.mems"].map(|f| fs::read_to_string(above.join(f)).unwrap());
    drop(c);
    // Those that were there before stay; the others are of hierarchies in which they were not.
    for hierarchy in hierarchies() {
        for group in [hierarchy.join(name).join("deep"), hierarchy.join(name)] {
            let _ = fs::remove_dir(group);
        }
    }
    assert_eq!(code, Some(0), "{out}");
    assert!(
        opened.iter().all(|text| !text.trim().is_empty()),
        "{opened:?}"
    );
}
