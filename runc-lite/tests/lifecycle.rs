//! create, start, state, kill, delete, run, list, pause: the life of a container.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::{Bundle, command, run};

#[test]
fn a_life_in_all_its_states() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new("trap 'exit 3' TERM; while :; do sleep 0.1; done");
    b.config["annotations"] = serde_json::json!({"org.example.a": "b", "other": ""});
    b.create().code(0);
    let state = b.state();
    assert_eq!(state["annotations"], b.config["annotations"]);
    assert_eq!(state["ociVersion"], b.config["ociVersion"]);
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], b.id.as_str());
    assert_eq!(
        state["bundle"],
        b.dir.path().canonicalize().unwrap().to_str().unwrap()
    );
    assert!(state["pid"].as_i64().unwrap() > 1);
    b.call(&["create", &b.id])
        .code(1)
        .says("container with given ID already exists");
    b.call(&["start", &b.id]).code(0);
    assert_eq!(b.state()["status"], "running");
    b.call(&["start", &b.id])
        .code(1)
        .says("cannot start an already running container");
    b.call(&["delete", &b.id])
        .code(1)
        .says("that is not stopped: running");
    b.call(&["pause", &b.id]).code(0);
    assert_eq!(b.state()["status"], "paused");
    b.exec("true")
        .code(255)
        .says("cannot exec in a paused container");
    b.call(&["resume", &b.id]).code(0);
    b.call(&["resume", &b.id])
        .code(1)
        .says("container not paused");
    b.call(&["kill", &b.id, "TERM"]).code(0);
    b.wait_for("stopped");
    assert_eq!(b.state()["pid"], 0);
    b.call(&["kill", &b.id])
        .code(1)
        .says("container not running");
    b.exec("true")
        .code(255)
        .says("cannot exec in a stopped container");
    b.call(&["delete", &b.id]).code(0);
    b.assert_gone();
    b.call(&["state", &b.id])
        .code(1)
        .says("container does not exist");
    b.call(&["delete", &b.id])
        .code(1)
        .says("container does not exist");
}

#[test]
fn run_gives_the_exit_code_and_leaves_nothing() {
    if !support::possible() {
        return;
    }
    let b = Bundle::new("echo out; echo err >&2; exit 42");
    let said = b.run().code(42);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("out\n", "err\n"));
    b.assert_gone();
    let b = Bundle::new("kill -KILL $$");
    // The first process of a pid namespace is immune to its own signals.
    b.run().code(0);
}

#[test]
fn a_hundred_runs_do_not_hang() {
    if !support::possible() {
        return;
    }
    let b = Bundle::new("true");
    for _ in 0..100 {
        b.run().code(0);
    }
}

#[test]
fn keep_and_detach() {
    if !support::possible() {
        return;
    }
    let b = Bundle::new("exit 0");
    b.run().code(0);
    let said = b.call(&["run", "--keep", &b.id]).code(0);
    assert_eq!(said.err, "");
    assert_eq!(b.state()["status"], "stopped");
    b.call(&["delete", &b.id]).code(0);

    let b = Bundle::new("sleep 100");
    b.create().code(0);
    b.call(&["delete", &b.id]).code(0);
    b.assert_gone();
}

#[test]
fn the_pid_file_and_the_list_agree_with_the_state() {
    if !support::possible() {
        return;
    }
    let b = Bundle::new("sleep 100");
    b.create_with(&["--pid-file", "pid"]).code(0);
    let pid = std::fs::read_to_string(b.dir.path().join("pid")).unwrap();
    assert_eq!(b.state()["pid"].to_string(), pid);
    assert_eq!(b.call(&["list", "-q"]).code(0).out, format!("{}\n", b.id));
    let list: serde_json::Value =
        serde_json::from_str(&b.call(&["list", "-f", "json"]).code(0).out).unwrap();
    assert_eq!(list[0]["pid"].to_string(), pid);
    assert!(b.call(&["list"]).code(0).out.starts_with("ID "));
    assert_eq!(
        b.call(&["ps", "-f", "json", &b.id]).code(0).out,
        format!("[{pid}]\n")
    );
    assert!(b.call(&["ps", &b.id]).code(0).out.contains(&pid));
}

#[test]
fn an_edit_after_create_has_no_effect() {
    if !support::possible() {
        return;
    }
    let b = Bundle::new("echo first > /dev/shm/x; sleep 100");
    b.create().code(0);
    std::fs::write(b.dir.path().join("config.json"), "{}").unwrap();
    b.call(&["start", &b.id]).code(0);
    support::eventually(|| match b.exec("cat /dev/shm/x").out.as_str() {
        "first\n" => Ok(()),
        other => Err(other.to_owned()),
    });
}

#[test]
fn bad_ids_and_bad_options() {
    if !support::possible() {
        return;
    }
    let b = Bundle::new("true");
    for id in ["a/b", "..", "a b"] {
        b.call(&["create", id])
            .code(1)
            .says("invalid container ID format");
    }
    b.call(&["create", ""])
        .code(1)
        .says("container id cannot be empty");
    b.call(&["create"])
        .code(1)
        .says("requires exactly 1 argument");
    b.call(&["create", "--nope", "x"])
        .code(1)
        .says("flag provided but not defined: -nope");
    b.call(&["foo"]).code(3).says("No help topic for 'foo'");
    assert!(
        b.call(&["kill", "-h"])
            .code(0)
            .out
            .starts_with("NAME:\n   runc-lite kill")
    );
    let version = run(command(&["--version"])).code(0).out;
    assert!(
        version.starts_with("runc-lite version ")
            && version.contains("\ncommit: ")
            && version.contains("\nspec: 1.2.0")
    );
    for command in ["checkpoint", "update", "ps", "pause"] {
        b.call(&[command, "x"]).code(1).says("does not exist");
    }
    b.call(&["delete", "--force", "never-was"]).code(0);
}

#[test]
fn kill_all_reaches_every_process() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new("sleep 100 & sleep 100");
    b.without_namespace("pid");
    b.start();
    support::eventually(|| {
        match b
            .call(&["ps", "-f", "json", &b.id])
            .out
            .matches(',')
            .count()
        {
            n if n >= 1 => Ok(()),
            n => Err(n.to_string()),
        }
    });
    b.call(&["kill", "--all", &b.id, "KILL"]).code(0);
    b.wait_for("stopped");
    assert_eq!(b.call(&["ps", "-f", "json", &b.id]).out, "null\n");
}
