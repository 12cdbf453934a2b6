//! New namespaces, joined ones, user namespaces, names and kernel parameters.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::json;
use support::Bundle;

fn ns(kind: &str) -> String {
    std::fs::read_link(format!("/proc/self/ns/{kind}"))
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}

#[test]
fn all_kinds_are_new() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new(
        "cd /proc/self/ns; for n in pid net ipc uts mnt cgroup time user; do readlink $n; done",
    );
    b.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "time"}));
    b.with_user_namespace();
    let out = b.run().code(0).out;
    for (kind, inside) in ["pid", "net", "ipc", "uts", "mnt", "cgroup", "time", "user"]
        .iter()
        .zip(out.lines())
    {
        assert_ne!(ns(kind), inside, "{kind}");
    }
}

#[test]
fn kinds_that_are_not_named_are_shared() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new("cd /proc/self/ns; for n in pid net ipc uts; do readlink $n; done");
    b.config["linux"]["namespaces"] = json!([{"type": "mount"}]);
    b.config["hostname"] = "".into();
    b.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|m| m["type"] != "sysfs");
    let out = b.run().code(0).out;
    let shared: Vec<String> = ["pid", "net", "ipc", "uts"].map(ns).to_vec();
    assert_eq!(out.lines().collect::<Vec<_>>(), shared);
}

#[test]
fn another_containers_namespaces_are_joined() {
    if !support::possible() {
        return;
    }
    let a = Bundle::new("hostname joined; sleep 100");
    a.start();
    let pid = a.state()["pid"].to_string();
    let mut b = Bundle::new(
        "cd /proc/self/ns; for n in pid net ipc uts; do readlink $n; done; ls /proc | grep -c '^1$'",
    );
    b.config["hostname"] = "".into();
    for namespace in b.config["linux"]["namespaces"].as_array_mut().unwrap() {
        let file = match namespace["type"].as_str().unwrap() {
            "network" => "net",
            kind @ ("pid" | "ipc" | "uts") => kind,
            _ => continue,
        };
        namespace["path"] = format!("/proc/{pid}/ns/{file}").into();
    }
    let out = b.run().code(0).out;
    let theirs = a
        .exec("cd /proc/self/ns; for n in pid net ipc uts; do readlink $n; done; echo 1")
        .out;
    assert_eq!(out, theirs);
}

#[test]
fn a_joined_user_namespace_owns_the_new_ones() {
    if !support::possible() {
        return;
    }
    let mut a = Bundle::new("sleep 100");
    a.with_user_namespace();
    a.start();
    let pid = a.state()["pid"].to_string();
    let mut b = Bundle::new("readlink /proc/self/ns/user; id -u; cat /proc/self/uid_map");
    let list = b.config["linux"]["namespaces"].as_array_mut().unwrap();
    list.push(json!({"type": "user", "path": format!("/proc/{pid}/ns/user")}));
    let out = b.run().code(0).out;
    assert_eq!(
        out,
        a.exec("readlink /proc/self/ns/user; id -u; cat /proc/self/uid_map")
            .out
    );
    assert!(out.contains("100000"), "{out}");
}

#[test]
fn a_user_namespace_has_working_devices() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new("id -u; echo x > /dev/null && echo null; cat /proc/self/gid_map");
    b.with_user_namespace();
    let out = b.run().code(0).out;
    assert!(
        out.starts_with("0\nnull\n") && out.contains("100000"),
        "{out}"
    );
}

#[test]
fn names_and_parameters() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new(
        "hostname; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni",
    );
    b.config["hostname"] = "here".into();
    b.config["domainname"] = "there".into();
    b.config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.shmmni": "77"});
    assert_eq!(b.run().code(0).out, "here\nthere\n1\n77\n");
    // The container's procfs does not take them: then another one does.
    let mounts = b.config["mounts"].as_array_mut().unwrap();
    let proc = mounts.iter_mut().find(|m| m["type"] == "proc").unwrap();
    proc["options"] = json!(["ro"]);
    assert_eq!(b.run().code(0).out, "here\nthere\n1\n77\n");
    b.config["linux"]["sysctl"] = json!({"vm.swappiness": "1"});
    b.run()
        .code(1)
        .says("is not in a separate kernel namespace");
}

#[test]
fn clocks_have_offsets() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new("cut -d. -f1 /proc/uptime");
    b.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "time"}));
    b.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000_000}});
    let uptime: u64 = b.run().code(0).out.trim().parse().unwrap();
    assert!(uptime > 1_000_000_000, "{uptime}");
}

#[test]
fn clocks_of_another_container_are_joined() {
    if !support::possible() {
        return;
    }
    let mut a = Bundle::new("exec sleep 100");
    let time = |path: Option<String>| match path {
        None => json!({"type": "time"}),
        Some(path) => json!({"type": "time", "path": path}),
    };
    let list = |b: &mut Bundle, entry: serde_json::Value| {
        let all = b.config["linux"]["namespaces"].as_array_mut().unwrap();
        all.push(entry);
    };
    list(&mut a, time(None));
    a.config["linux"]["timeOffsets"] =
        json!({"boottime": {"secs": 1_000_000_000, "nanosecs": 5}, "monotonic": {"secs": 77}});
    a.start();
    let pid = a.state()["pid"].to_string();
    let look =
        "readlink /proc/self/ns/time; cut -d. -f1 /proc/uptime; cat /proc/self/timens_offsets";
    let mut b = Bundle::new(look);
    list(&mut b, time(Some(format!("/proc/{pid}/ns/time"))));
    let out = b.run().code(0).out;
    let mut lines = out.lines();
    let theirs = a.exec(look).code(0).out;
    assert_eq!(lines.next(), theirs.lines().next(), "{out} {theirs}");
    let uptime: u64 = lines.next().unwrap().parse().unwrap();
    assert!(uptime > 1_000_000_000, "{uptime}");
    let rest: Vec<_> = lines
        .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(rest, ["monotonic 77 0", "boottime 1000000000 5"]);
    // Offsets belong to who makes the namespace.
    let mut b = Bundle::new("true");
    list(&mut b, time(None));
    b.config["linux"]["timeOffsets"] = json!({"realtime": {"secs": 1}});
    b.run().code(1).says("unknown clock \\\"realtime\\\"");
}

#[test]
fn a_cgroup_namespace_is_joined() {
    if !support::possible() {
        return;
    }
    let a = Bundle::new("exec sleep 100");
    a.start();
    let pid = a.state()["pid"].to_string();
    let mut b = Bundle::new("readlink /proc/self/ns/cgroup");
    b.without_namespace("cgroup");
    b.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "cgroup", "path": format!("/proc/{pid}/ns/cgroup")}));
    let there = std::fs::read_link(format!("/proc/{pid}/ns/cgroup")).unwrap();
    assert_eq!(b.run().code(0).out.trim(), there.to_str().unwrap());
}

#[test]
fn mistakes_in_the_list() {
    if !support::possible() {
        return;
    }
    let refused = |list: serde_json::Value, text: &str| {
        let mut b = Bundle::new("true");
        b.config["linux"]["namespaces"] = list;
        b.config["hostname"] = "".into();
        b.run().code(1).says(text);
        b.assert_gone();
    };
    refused(
        json!([{"type": "mount"}, {"type": "moon"}]),
        "does not exist",
    );
    refused(
        json!([{"type": "mount"}, {"type": "mount"}]),
        "duplicated ns",
    );
    refused(
        json!([{"type": "mount"}, {"type": "ipc", "path": "/nope"}]),
        "no such file or directory",
    );
    refused(
        json!([{"type": "mount"}, {"type": "ipc", "path": "/proc/self/ns/uts"}]),
        "join ipc namespace: invalid argument",
    );
    refused(json!([{"type": "pid"}]), "a mount namespace is required");
    refused(
        json!([{"type": "mount"}, {"type": "user"}]),
        "no user and group mappings",
    );
}

#[test]
fn an_ordinary_user_runs_a_container() {
    use std::os::unix::process::CommandExt as _;
    const NOBODY: u32 = 65534;
    if !support::possible() {
        return;
    }
    let b = Bundle::new("true");
    let said = b.call(&[
        "spec",
        "--rootless",
        "--bundle",
        b.rootfs().join("tmp").to_str().unwrap(),
    ]);
    said.code(0);
    let path = b.rootfs().join("tmp/config.json");
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = json!([
        "sh",
        "-c",
        "id -u; cat /proc/self/uid_map; echo x > /dev/null && echo null"
    ]);
    for field in ["uidMappings", "gidMappings"] {
        config["linux"][field] = json!([{"containerID": 0, "hostID": NOBODY, "size": 1}]);
    }
    std::fs::write(b.dir.path().join("config.json"), config.to_string()).unwrap();
    // The binary may lie where only root comes.
    let binary = b.dir.path().join("runc-lite");
    std::fs::copy(env!("CARGO_BIN_EXE_runc-lite"), &binary).unwrap();
    std::os::unix::fs::chown(b.dir.path().join("config.json"), Some(NOBODY), Some(NOBODY)).unwrap();
    std::os::unix::fs::chown(b.dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new("timeout");
        command
            .arg("20")
            .arg(&binary)
            .arg("--root")
            .arg(b.dir.path().join("own"))
            .args(args);
        command.current_dir(b.dir.path()).uid(NOBODY).gid(NOBODY);
        support::run(command)
    };
    let said = run(&["run", "rootless"]).code(0);
    assert!(
        said.out.starts_with("0\n") && said.out.contains("65534") && said.out.ends_with("null\n"),
        "{}",
        said.out
    );
    assert!(run(&["list", "-q"]).code(0).out.is_empty());
}
