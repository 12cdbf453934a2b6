//! The conformance table of docs/runc-lite.md: no field of the specification is missing,
//! no row is empty, and every proof it names exists. The same of the advisories in
//! docs/security-runtime.md.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::{Bundle, command, possible, run};

/// The fields of config.json (Linux), nested ones by their path.
const FIELDS: &str = "
ociVersion root.path root.readonly
mounts.destination mounts.source mounts.type mounts.options mounts.uidMappings mounts.gidMappings
process.terminal process.consoleSize.height process.consoleSize.width
process.user.uid process.user.gid process.user.umask process.user.additionalGids
process.args process.env process.cwd
process.capabilities.bounding process.capabilities.effective process.capabilities.inheritable
process.capabilities.permitted process.capabilities.ambient
process.rlimits.type process.rlimits.soft process.rlimits.hard
process.noNewPrivileges process.apparmorProfile process.selinuxLabel process.oomScoreAdj
process.ioPriority.class process.ioPriority.priority
process.scheduler.policy process.scheduler.nice process.scheduler.priority process.scheduler.flags
process.scheduler.runtime process.scheduler.deadline process.scheduler.period
process.execCPUAffinity.initial process.execCPUAffinity.final
hostname domainname annotations
hooks.prestart hooks.createRuntime hooks.createContainer hooks.startContainer hooks.poststart hooks.poststop
hooks.*.path hooks.*.args hooks.*.env hooks.*.timeout
linux.uidMappings linux.gidMappings linux.sysctl linux.namespaces.type linux.namespaces.path
linux.timeOffsets.*.secs linux.timeOffsets.*.nanosecs
linux.devices.type linux.devices.path linux.devices.major linux.devices.minor linux.devices.fileMode
linux.devices.uid linux.devices.gid linux.netDevices.*.name linux.cgroupsPath
linux.resources.devices.allow linux.resources.devices.type linux.resources.devices.major
linux.resources.devices.minor linux.resources.devices.access
linux.resources.memory.limit linux.resources.memory.reservation linux.resources.memory.swap
linux.resources.memory.kernel linux.resources.memory.kernelTCP linux.resources.memory.swappiness
linux.resources.memory.disableOOMKiller linux.resources.memory.useHierarchy
linux.resources.memory.checkBeforeUpdate
linux.resources.cpu.shares linux.resources.cpu.quota linux.resources.cpu.burst linux.resources.cpu.period
linux.resources.cpu.realtimeRuntime linux.resources.cpu.realtimePeriod linux.resources.cpu.cpus
linux.resources.cpu.mems linux.resources.cpu.idle linux.resources.pids.limit
linux.resources.blockIO.weight linux.resources.blockIO.leafWeight
linux.resources.blockIO.weightDevice.major linux.resources.blockIO.weightDevice.minor
linux.resources.blockIO.weightDevice.weight linux.resources.blockIO.weightDevice.leafWeight
linux.resources.blockIO.throttleReadBpsDevice linux.resources.blockIO.throttleWriteBpsDevice
linux.resources.blockIO.throttleReadIOPSDevice linux.resources.blockIO.throttleWriteIOPSDevice
linux.resources.hugepageLimits.pageSize linux.resources.hugepageLimits.limit
linux.resources.network.classID linux.resources.network.priorities.name
linux.resources.network.priorities.priority
linux.resources.rdma.*.hcaHandles linux.resources.rdma.*.hcaObjects linux.resources.unified
linux.seccomp.defaultAction linux.seccomp.defaultErrnoRet linux.seccomp.architectures linux.seccomp.flags
linux.seccomp.listenerPath linux.seccomp.listenerMetadata linux.seccomp.syscalls.names
linux.seccomp.syscalls.action linux.seccomp.syscalls.errnoRet linux.seccomp.syscalls.args.index
linux.seccomp.syscalls.args.value linux.seccomp.syscalls.args.valueTwo linux.seccomp.syscalls.args.op
linux.rootfsPropagation linux.maskedPaths linux.readonlyPaths linux.mountLabel
linux.intelRdt.closID linux.intelRdt.schemata linux.intelRdt.l3CacheSchema linux.intelRdt.memBwSchema
linux.intelRdt.enableMonitoring linux.intelRdt.enableCMT linux.intelRdt.enableMBM
linux.personality.domain linux.personality.flags
linux.memoryPolicy.mode linux.memoryPolicy.nodes linux.memoryPolicy.flags
solaris windows vm zos
";

fn above() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// What stands between backquotes.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Whether a proof is where its name says.
fn exists(proof: &str) -> bool {
    let (place, name) = proof.split_once("::").unwrap_or((proof, ""));
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let test = |path: PathBuf| read(path).contains(&format!("fn {name}("));
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let in_source = |module: &str| {
        let file = here.join(format!("src/{module}.rs"));
        test(file) || test(here.join("src").join(module).join("mod.rs"))
    };
    let check = |list: &str| {
        let text = read(above().join("integration/vm").join(list));
        text.contains(&format!("\"{name}\""))
    };
    match place {
        "vm" => check("checks"),
        "vm-systemd" => check("checks-systemd"),
        _ => match (
            place.strip_prefix("src/"),
            place.strip_prefix("integration/"),
        ) {
            (Some(module), _) => in_source(module),
            (_, Some(file)) => {
                let tests = above().join("integration/tests");
                test(tests.join(format!("{file}.rs"))) || test(tests.join(file).join("main.rs"))
            }
            _ => test(here.join(format!("tests/{place}.rs"))),
        },
    }
}

#[test]
fn the_table_is_whole_and_its_proofs_exist() {
    let text = std::fs::read_to_string(above().join("docs/runc-lite.md")).unwrap();
    let (_, section) = text.split_once("\n## Conformance\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows: Vec<Vec<&str>> = section
        .lines()
        .filter(|line| line.starts_with("| `") || line.starts_with("| state"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let mut wrong = Vec::new();
    for row in &rows {
        let [fields, v1, v2, _] = row.as_slice() else {
            panic!("a row of {} cells: {row:?}", row.len());
        };
        if quoted(v1).is_empty() || (quoted(v2).is_empty() && *v2 != "=") {
            wrong.push(format!("no proof of {fields}"));
        }
        for proof in quoted(v1).into_iter().chain(quoted(v2)) {
            if !exists(proof) {
                wrong.push(format!("{fields}: no {proof}"));
            }
        }
    }
    let told: Vec<&str> = rows.iter().flat_map(|row| quoted(row[0])).collect();
    for field in FIELDS.split_whitespace() {
        match told.iter().filter(|t| **t == field).count() {
            0 => wrong.push(format!("no row of {field}")),
            1 => {}
            _ if ["ociVersion", "annotations"].contains(&field) => {}
            n => wrong.push(format!("{n} rows of {field}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_advisory_has_a_proof_that_exists() {
    let text = std::fs::read_to_string(above().join("docs/security-runtime.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| CVE-"));
    let mut wrong = Vec::new();
    let mut count = 0;
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [id, _, why, proofs] = cells.as_slice() else {
            panic!("a row of {} cells: {row}", cells.len());
        };
        count += 1;
        if why.is_empty() || (quoted(proofs).is_empty() && !proofs.starts_with("does not apply")) {
            wrong.push(format!("no proof of {id}"));
        }
        let absent = quoted(proofs).into_iter().filter(|proof| !exists(proof));
        wrong.extend(absent.map(|proof| format!("{id}: no {proof}")));
    }
    assert!(count >= 24, "{count} advisories");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn other_platforms_parts_are_passed_over() {
    if !possible() {
        return;
    }
    let mut b = Bundle::new("echo fine");
    b.config["windows"] = json!({"layerFolders": ["C:\\x"]});
    b.config["solaris"] = json!({"milestone": "x"});
    b.config["vm"] = json!({"hypervisor": {"path": "/nowhere"}});
    b.config["zos"] = json!({});
    b.config["not of the specification"] = json!([1, {"a": null}]);
    assert_eq!(b.run().code(0).out, "fine\n");
}

#[test]
fn features_are_told_in_the_specifications_form() {
    let text = run(command(&["features"])).code(0).out;
    let features: Value = serde_json::from_str(&text).unwrap();
    let count = |pointer: &str| {
        features
            .pointer(pointer)
            .and_then(Value::as_array)
            .map(Vec::len)
    };
    assert_eq!(count("/hooks"), Some(6));
    assert_eq!(count("/linux/namespaces"), Some(8));
    assert!(count("/linux/capabilities") >= Some(41));
    assert!(count("/mountOptions") >= Some(60));
    assert!(count("/linux/seccomp/actions") >= Some(8));
    assert!(count("/linux/seccomp/operators") == Some(7));
    for (pointer, value) in [
        ("/ociVersionMax", json!("1.2.0")),
        ("/linux/cgroup/v1", json!(true)),
        ("/linux/cgroup/v2", json!(true)),
        ("/linux/mountExtensions/idmap/enabled", json!(true)),
        // what validation refuses
        ("/linux/selinux/enabled", json!(false)),
        ("/linux/cgroup/systemdUser", json!(false)),
    ] {
        assert_eq!(features.pointer(pointer), Some(&value), "{pointer}");
    }
}
