//! What goes wrong leaves nothing behind: refusals, kills in the middle, hostile
//! and broken input.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use support::Bundle;

/// Runs with one change to the configuration and expects a refusal that says
/// why and leaves nothing.
fn refused(change: impl FnOnce(&mut Bundle), text: &str) {
    let mut b = Bundle::new("true");
    change(&mut b);
    b.run().code(1).says(text);
    b.assert_gone();
    b.create().code(1).says(text);
    b.assert_gone();
}

#[test]
fn refusals_name_object_and_cause() {
    if !support::possible() {
        return;
    }
    refused(
        |b| b.mount("/x", "bind", "/nonexistent", &["bind"]),
        "/nonexistent",
    );
    refused(
        |b| b.mount("/x", "nofs", "x", &[]),
        "open file system nofs: no such device",
    );
    refused(
        |b| b.mount("/x", "tmpfs", "tmpfs", &["size=banana"]),
        "option size=banana",
    );
    refused(
        |b| b.mount("/bin/sh", "tmpfs", "tmpfs", &[]),
        "not a directory",
    );
    refused(
        |b| b.config["root"]["path"] = "nope".into(),
        "invalid rootfs",
    );
    refused(
        |b| b.config["process"]["args"] = json!([]),
        "args must not be empty",
    );
    refused(
        |b| b.config["process"]["args"] = json!(["nope"]),
        "executable file not found in $PATH",
    );
    refused(
        |b| b.config["process"]["cwd"] = "/etc/passwd".into(),
        "not a directory",
    );
    refused(
        |b| b.config["process"]["selinuxLabel"] = "a:b:c".into(),
        "selinux",
    );
    refused(
        |b| b.config["process"]["apparmorProfile"] = "x".into(),
        "apparmor",
    );
    refused(
        |b| b.config["linux"]["intelRdt"] = json!({"closID": "x"}),
        "intelRdt is specified in config, but the kernel's resource control",
    );
    refused(
        |b| b.config["linux"]["mountLabel"] = "a:b:c".into(),
        "linux.mountLabel is not supported",
    );
    refused(
        |b| b.config["linux"]["rootfsPropagation"] = "sideways".into(),
        "rootfsPropagation=sideways",
    );
    refused(
        |b| b.config["linux"]["personality"] = json!({"domain": "MOON"}),
        "invalid personality domain",
    );
    refused(
        |b| b.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_NOPE"}),
        "SCMP_ACT_NOPE",
    );
    refused(
        |b| b.config["linux"]["devices"] = json!([{"path": "/dev/..", "type": "c"}]),
        "not a file name",
    );
}

#[test]
fn a_broken_configuration_is_named() {
    if !support::possible() {
        return;
    }
    let b = Bundle::new("true");
    let config = b.dir.path().join("config.json");
    for text in [
        "",
        "{",
        "[]",
        "{\"process\": 7}",
        "{\"linux\": {\"namespaces\": {}}}",
    ] {
        std::fs::write(&config, text).unwrap();
        let said = b.call(&["create", &b.id]);
        assert_eq!(said.code, 1);
        assert!(
            said.err.contains("config.json") || said.err.contains("ociVersion"),
            "{text}: {}",
            said.err
        );
        assert!(!said.err.contains("panicked"), "{text}: {}", said.err);
    }
    std::fs::remove_file(&config).unwrap();
    b.call(&["create", &b.id])
        .code(1)
        .says("config.json not found");
    b.assert_gone();
}

#[test]
fn a_hostile_state_file_does_no_harm() {
    if !support::possible() {
        return;
    }
    let b = Bundle::new("true");
    let dir = b.state_root().join(&b.id);
    std::fs::create_dir_all(&dir).unwrap();
    let me = std::process::id();
    for text in [
        "",
        "{}",
        "[]",
        "null",
        "\u{0}",
        "{\"version\":1,\"pid\":-1}",
    ] {
        std::fs::write(dir.join("state.json"), text).unwrap();
        for command in ["state", "kill", "start", "pause", "ps"] {
            let said = b.call(&[command, &b.id]);
            assert_eq!(said.code, 1, "{command} on {text}");
            assert!(!said.err.contains("panicked"), "{}", said.err);
        }
    }
    // The pid of somebody else: ours, with another start time.
    let state = json!({"version": 1, "ociVersion": "1.2.0", "id": b.id, "pid": me, "init_process_start": 1,
        "bundle": "/", "rootfs": "/", "created": "", "namespaces": 0});
    std::fs::write(dir.join("state.json"), state.to_string()).unwrap();
    assert_eq!(b.state()["status"], "stopped");
    b.call(&["kill", &b.id, "KILL"])
        .code(1)
        .says("container not running");
    b.call(&["delete", "--force", &b.id]).code(0);
    b.assert_gone();
}

#[test]
fn killed_at_any_moment_it_is_deleted_without_a_trace() {
    if !support::possible() {
        return;
    }
    let b = Bundle::new("sleep 100");
    b.create().code(0);
    b.call(&["delete", "--force", &b.id]).code(0);
    for step in 0..60_u64 {
        let mut command = b.command(&["create", &b.id]);
        // Without the wrapper, so that the kill hits the runtime.
        let args: Vec<_> = command
            .get_args()
            .skip(3)
            .map(std::ffi::OsStr::to_owned)
            .collect();
        command = std::process::Command::new(&args[0]);
        command.args(&args[1..]).current_dir(b.dir.path());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(Duration::from_micros(step * 700));
        child.kill().unwrap();
        child.wait().unwrap();
        b.call(&["delete", "--force", &b.id]).code(0);
        b.assert_gone();
    }
}

#[test]
fn a_killed_start_leaves_a_container_that_can_be_deleted() {
    if !support::possible() {
        return;
    }
    for step in 0..20_u64 {
        let b = Bundle::new("sleep 100");
        b.create().code(0);
        let root = b.state_root();
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_runc-lite"))
            .args(["--root", root.to_str().unwrap(), "start", &b.id])
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(step * 200));
        child.kill().unwrap();
        child.wait().unwrap();
        let status = b.state()["status"].as_str().unwrap().to_owned();
        assert!(status == "created" || status == "running", "{status}");
        if status == "created" {
            // Nothing is lost: start works as if the other had not been. Unless
            // the byte was on its way already.
            let said = b.call(&["start", &b.id]);
            assert!(
                said.code == 0 || said.err.contains("already running"),
                "{}",
                said.err
            );
        }
        b.wait_for("running");
    }
}

#[test]
fn the_log_has_the_error_in_json_and_the_trace() {
    if !support::possible() {
        return;
    }
    let b = Bundle::new("true");
    let mut command = b.command(&[
        "--log",
        "log.json",
        "--log-format",
        "json",
        "state",
        "absent",
    ]);
    command.env(
        "TRACEPARENT",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    );
    support::run(command)
        .code(1)
        .says("container does not exist");
    let text = std::fs::read_to_string(b.dir.path().join("log.json")).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!(line["level"], "error");
    assert_eq!(line["msg"], "container does not exist");
    assert!(
        line["traceparent"]
            .as_str()
            .unwrap()
            .contains("0af7651916cd43dd8448eb211c80319c")
    );
    assert!(line["time"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn a_killed_exec_leaves_no_process_that_never_became_the_program() {
    if !support::possible() {
        return;
    }
    let b = Bundle::new("sleep 100");
    b.start();
    let root = b.state_root();
    for step in 0..30_u64 {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_runc-lite"))
            .args(["--root", root.to_str().unwrap(), "exec", &b.id, "true"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(step * 300));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // What had become `true` ends by itself, and what had not with its parent.
    support::eventually(|| {
        let pids = b.call(&["ps", "-f", "json", &b.id]).out;
        match pids.matches(',').count() {
            0 => Ok(()),
            _ => Err(pids),
        }
    });
    b.exec("true").code(0);
}
