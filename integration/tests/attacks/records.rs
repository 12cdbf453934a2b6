//! Records of containers that somebody else wrote, and pids that are somebody else's by now.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};
use integration::require;
use serde_json::{Value, json};

use super::harness::Victim;

#[test]
fn hostile_records_harm_nobody() -> Result<()> {
    let victim = Victim::new("true")?;
    let dir = victim.state().join(&victim.id);
    fs::create_dir_all(&dir)?;
    let me = std::process::id();
    let record = |change: Value| {
        let mut state = json!({"version": 1, "ociVersion": "1.2.0", "id": victim.id, "pid": me, "init_process_start": 1,
            "bundle": "/", "rootfs": "/", "created": "", "namespaces": 0});
        if let (Some(state), Some(change)) = (state.as_object_mut(), change.as_object()) {
            state.extend(change.clone());
        }
        state.to_string()
    };
    let outside = victim.outside();
    let empty = outside.join("empty");
    let records = [
        record(json!({})),
        record(json!({"pid": 1})),
        record(json!({"pid": -1})),
        record(json!({"pid": i32::MIN})),
        record(
            json!({"pid": 0, "cgroup": {"hierarchy": 1, "owned": true, "paths": {"pids": empty}}}),
        ),
        record(
            json!({"pid": 0, "cgroup": {"hierarchy": 2, "owned": true, "paths": {"": outside}}}),
        ),
        record(json!({"pid": 0, "cgroup": {"hierarchy": 2, "owned": true}})),
        record(
            json!({"pid": 0, "cgroup": {"hierarchy": 1, "owned": true, "paths": {"pids": "/sys/fs/cgroup/pids"}}}),
        ),
        record(json!({"pid": 0, "resctrl": {"path": empty, "own": true, "monitor": empty}})),
        record(json!({"version": 4_000_000_000_u64})),
        record(json!({"namespaces": u32::MAX})),
        "[".repeat(100_000),
        String::new(),
        "\u{0}".repeat(100),
        "{\"version\":1}".into(),
    ];
    for text in records {
        fs::write(dir.join("state.json"), &text)?;
        for command in [
            &["state"][..],
            &["start"],
            &["kill"],
            &["kill", "--all"],
            &["pause"],
            &["resume"],
            &["ps"],
            &["update", "--memory", "9m"],
            &["events", "--stats"],
            &["exec"],
            &["delete"],
            &["delete", "--force"],
        ] {
            let mut args = command.to_vec();
            args.insert(1, &victim.id);
            if command == ["exec"] {
                args.push("true");
            }
            victim.call(&args)?;
            fs::create_dir_all(&dir)?;
            fs::write(dir.join("state.json"), &text)?;
        }
        victim.call(&["list"])?.exits(0)?;
        victim.unharmed()?;
    }
    fs::remove_dir_all(&dir)?;
    // The directory and its files by way of links.
    symlink(&outside, &dir)?;
    for command in ["state", "kill", "delete", "start"] {
        ensure!(
            victim.call(&[command, &victim.id])?.code == 1,
            "{command} of a link"
        );
    }
    victim.unharmed()?;
    fs::remove_file(&dir)?;
    fs::create_dir(&dir)?;
    for name in ["state.json", "config.json", "exec.fifo", "result.fifo"] {
        symlink(outside.join("file"), dir.join(name))?;
    }
    for command in ["state", "kill", "start"] {
        ensure!(
            victim.call(&[command, &victim.id])?.code == 1,
            "{command} of links"
        );
    }
    victim.unharmed()?;
    fs::remove_dir_all(&dir)?;
    Ok(())
}

/// A pid that is another's by now is not the container's, in a pid namespace where the next one can be chosen.
#[test]
fn a_pid_that_was_used_again_is_not_signalled() -> Result<()> {
    let victim = Victim::new("sleep 1000")?;
    victim.write_config()?;
    let script = r#"
        $RUN create --pid-file pid $ID </dev/null >/dev/null 2>&1; $RUN start $ID
        pid=$(cat pid); kill -9 $pid
        while kill -0 $pid 2>/dev/null; do wait 2>/dev/null; sleep 0.01; done
        for try in 1 2 3 4 5 6 7 8 9; do
            echo $((pid - 1)) >/proc/sys/kernel/ns_last_pid || { echo SKIPPED; exit 0; }
            sleep 1000 & other=$!
            [ $other = $pid ] && break
            kill $other
        done
        [ $other = $pid ] || { echo SKIPPED; exit 0; }
        $RUN kill $ID KILL; $RUN kill --all $ID KILL; $RUN exec $ID true; $RUN delete --force $ID
        kill -0 $other && echo alive; kill -9 $other"#;
    fs::write(victim.bundle().join("reuse"), script)?;
    // Its first process waits for orphans, as the container becomes one.
    let busybox = require::peer("busybox")?;
    let out = victim.shell(&format!(
        "unshare --pid --fork --mount-proc {} sh ./reuse",
        busybox.display()
    ))?;
    if out.stdout.contains("SKIPPED") {
        println!(
            "SKIPPED a_pid_that_was_used_again_is_not_signalled: the next pid cannot be chosen here"
        );
        return Ok(());
    }
    ensure!(
        out.stdout.contains("alive"),
        "{} {}",
        out.stdout,
        out.stderr
    );
    victim.unharmed()
}
