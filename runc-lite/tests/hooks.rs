//! Hooks: when each kind runs, in which namespaces, with what, and what its failure
//! does.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::PathBuf;

use serde_json::{Value, json};
use support::Bundle;

/// A hook that runs a script in the host's shell.
fn shell(script: &str) -> Value {
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
}

/// The kinds whose programs are the host's.
const OUTSIDE: [&str; 5] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "poststart",
    "poststop",
];

/// A directory that both sides write to, in the container at `/log`.
fn log_of(b: &mut Bundle) -> PathBuf {
    let log = b.dir.path().join("log");
    std::fs::create_dir(&log).unwrap();
    b.mount("/log", "bind", log.to_str().unwrap(), &["bind"]);
    log
}

#[test]
fn hooks_run_in_order_with_the_state_on_their_input() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new("echo program >> /log/log");
    let log = log_of(&mut b);
    let mut hooks = serde_json::Map::new();
    for kind in OUTSIDE {
        let script = format!(
            "read s; case $s in *'\"id\":\"{}\"'*) echo {kind} >> {}/log;; esac",
            b.id,
            log.display()
        );
        hooks.insert(kind.into(), shell(&script));
    }
    hooks.insert(
        "startContainer".into(),
        shell("echo startContainer >> /log/log"),
    );
    b.config["hooks"] = hooks.into();
    b.run().code(0);
    let seen = std::fs::read_to_string(log.join("log")).unwrap();
    let mut lines: Vec<_> = seen.lines().collect();
    // The program and the hook after its start race, as they should.
    lines.retain(|l| *l != "program");
    assert_eq!(
        lines,
        [
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop"
        ]
    );
}

#[test]
fn a_failing_hook_fails_the_create() {
    if !support::possible() {
        return;
    }
    for kind in [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
    ] {
        let mut b = Bundle::new("true");
        b.config["hooks"] = json!({kind: shell("echo no >&2; exit 3")});
        b.run()
            .code(1)
            .says(&format!("error running {kind} hook #0"))
            .says("exit status 3");
        b.assert_gone();
    }
}

#[test]
fn each_kind_runs_in_its_namespaces_with_its_status() {
    if !support::possible() {
        return;
    }
    let own = std::fs::read_link("/proc/self/ns/mnt").unwrap();
    let own = own.to_string_lossy();
    let mut b = Bundle::new("readlink /proc/self/ns/mnt > /log/program; exec sleep 60");
    let log = log_of(&mut b);
    let mut hooks = serde_json::Map::new();
    for kind in OUTSIDE {
        let to = log.join(kind).display().to_string();
        let script = format!("readlink /proc/self/ns/mnt > {to}; cat >> {to}");
        hooks.insert(kind.into(), shell(&script));
    }
    hooks.insert(
        "startContainer".into(),
        shell("readlink /proc/self/ns/mnt > /log/startContainer; cat >> /log/startContainer"),
    );
    b.config["hooks"] = hooks.into();
    b.config["annotations"] = json!({"a.b": "c"});
    b.start();
    let pid = b.state()["pid"].clone();
    support::eventually(|| match log.join("program").exists() {
        true => Ok(()),
        false => Err("the program has not run".into()),
    });
    b.call(&["delete", "--force", &b.id]).code(0);
    let program = std::fs::read_to_string(log.join("program")).unwrap();
    for (kind, status, host) in [
        ("prestart", "creating", true),
        ("createRuntime", "creating", true),
        ("createContainer", "creating", false),
        ("startContainer", "created", false),
        ("poststart", "running", true),
        ("poststop", "stopped", true),
    ] {
        let seen = std::fs::read_to_string(log.join(kind)).unwrap();
        let (namespace, state) = seen.split_once('\n').unwrap();
        assert_eq!(namespace == own, host, "{kind}: {namespace}");
        assert_eq!(namespace == program.trim(), !host, "{kind}: {namespace}");
        let state = state.lines().next().unwrap();
        let state: Value = serde_json::from_str(state).unwrap();
        assert_eq!(state["status"], status, "{kind}");
        assert_eq!(state["id"], b.id.as_str());
        assert_eq!(state["bundle"], b.dir.path().to_str().unwrap());
        assert_eq!(state["annotations"]["a.b"], "c");
        assert!(state["ociVersion"].is_string());
        match kind {
            "poststop" => assert!(state.get("pid").is_none()),
            // In its own pid namespace it is the first.
            "startContainer" => assert_eq!(state["pid"], 1),
            _ => assert_eq!(state["pid"], pid, "{kind}"),
        }
    }
}

#[test]
fn arguments_and_environment_are_the_hooks_own() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new("true");
    let to = b.dir.path().join("seen");
    b.config["hooks"] = json!({"createRuntime": [{
        "path": "/bin/sh",
        "args": ["a name", "-c", format!("echo \"$0|$A|$HOME|$PATH\" > {}", to.display()), "zero"],
        "env": ["A=1=2", "PATH=/bin"],
    }]});
    b.run().code(0);
    assert_eq!(std::fs::read_to_string(&to).unwrap(), "zero|1=2||/bin\n");
    // That of startContainer is the process's, where it has none of its own.
    let mut b = Bundle::new("cat /tmp/env");
    b.mount("/tmp", "tmpfs", "tmpfs", &[]);
    b.config["process"]["env"] = json!(["PATH=/bin", "OF=process"]);
    b.config["hooks"] = json!({"startContainer": shell("env > /tmp/env")});
    let out = b.run().code(0).out;
    assert!(out.contains("OF=process\n"), "{out}");
}

#[test]
fn a_hook_past_its_timeout_is_killed_and_fails_the_create() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new("true");
    b.config["hooks"] = json!({"createRuntime": [
        {"path": "/bin/sleep", "args": ["sleep", "600"], "timeout": 1}
    ]});
    b.run().code(1).says("ran past its timeout of 1 s");
    b.assert_gone();
}

#[test]
fn the_first_failure_keeps_later_hooks_from_running() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new("true");
    let mark = b.dir.path().join("mark");
    let hook = |script: String| json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
    b.config["hooks"] = json!({
        "prestart": [hook("true".into()), hook("exit 4".into()), hook(format!("touch {}", mark.display()))],
        "createRuntime": [hook(format!("touch {}", mark.display()))],
    });
    b.run()
        .code(1)
        .says("error running prestart hook #1")
        .says("exit status 4");
    assert!(!mark.exists());
    b.assert_gone();
}

#[test]
fn a_failing_poststart_hook_stops_the_container() {
    if !support::possible() {
        return;
    }
    let failing = json!({"poststart": shell("exit 5")});
    let mut b = Bundle::new("exec sleep 60");
    b.config["hooks"] = failing.clone();
    b.create().code(0);
    b.call(&["start", &b.id])
        .code(1)
        .says("error running poststart hook #0");
    b.wait_for("stopped");
    b.call(&["delete", &b.id]).code(0);
    for options in [&["run"][..], &["run", "--detach"]] {
        let mut b = Bundle::new("exec sleep 60");
        b.config["hooks"] = failing.clone();
        b.write_config();
        let mut args = options.to_vec();
        args.push(&b.id);
        b.call(&args)
            .code(1)
            .says("error running poststart hook #0");
        b.assert_gone();
    }
}

#[test]
fn a_failing_poststop_hook_fails_the_delete_of_what_is_gone() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new("true");
    b.config["hooks"] = json!({"poststop": shell("exit 6")});
    b.start();
    b.wait_for("stopped");
    b.call(&["delete", &b.id])
        .code(1)
        .says("error running poststop hook #0");
    b.assert_gone();
}
