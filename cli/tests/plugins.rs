//! Plugins run as commands of their own, and shells learn what may stand at the end of a line.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fake_daemon;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use fake_daemon::{FakeDaemon, json};

const PLUGIN: &str = r#"#!/bin/sh
if [ "$1" = docker-cli-plugin-metadata ]; then
  echo '{"SchemaVersion":"0.1.0","Vendor":"me","Version":"v1","ShortDescription":"Does things"}'
  exit 0
fi
echo "words $*"
[ -x "$DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND" ] && echo called
read line && echo "typed $line"
exit 7
"#;

fn daemon() -> FakeDaemon {
    let list = r#"[{"Id":"1","Names":["/web"]},{"Id":"2","Names":["/worker"]},{"Id":"3","Names":["/db"]}]"#;
    FakeDaemon::start(vec![("GET /containers/json", json("200 OK", list))])
}

fn install(daemon: &FakeDaemon) {
    let config = daemon.command(&[]);
    let dir = config
        .get_envs()
        .find(|(name, _)| *name == "DOCKER_CONFIG")
        .and_then(|(_, value)| value)
        .unwrap();
    let folder = Path::new(dir).join("cli-plugins");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("docker-things");
    std::fs::write(&path, PLUGIN).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_plugin_takes_over_with_all_words() {
    let daemon = daemon();
    let before = daemon.run(&["things"], "");
    assert_eq!(before.status.code(), Some(1));
    install(&daemon);
    let out = daemon.run(&["things", "-x", "up"], "keys\n");
    let want = format!(
        "words -H {} things -x up\ncalled\ntyped keys\n",
        daemon.host()
    );
    assert_eq!(String::from_utf8(out.stdout).unwrap(), want);
    assert_eq!(out.status.code(), Some(7));
    let help = String::from_utf8(daemon.run(&["--help"], "").stdout).unwrap();
    assert!(help.contains("\n  things*     Does things\n"), "{help}");
    let nope = String::from_utf8(daemon.run(&["nothings"], "").stderr).unwrap();
    assert!(
        nope.contains("unknown command: docker-lite nothings"),
        "{nope}"
    );
}

#[test]
fn bash_completes_words_and_names() {
    let daemon = daemon();
    install(&daemon);
    let script = daemon.run(&["completion", "bash"], "").stdout;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &script).unwrap();
    let complete = |line: &str| {
        let own = daemon.command(&[]);
        let mut bash = Command::new("bash");
        bash.env_clear();
        for (name, value) in own.get_envs() {
            bash.env(name, value.unwrap());
        }
        bash.env("DOCKER_HOST", daemon.host());
        let program = own.get_program().to_string_lossy().into_owned();
        let line = format!("{program} {line}");
        bash.args([
            "--norc",
            "-c",
            "source \"$0\"; COMP_LINE=$1 COMP_POINT=${#1}; _docker_lite; printf '%s\\n' \"${COMPREPLY[@]}\"",
        ]);
        let out = bash.arg(file.path()).arg(line).output().unwrap();
        assert!(out.status.success(), "{out:?}");
        String::from_utf8(out.stdout).unwrap()
    };
    assert_eq!(complete("thi"), "things\n");
    assert_eq!(complete("container l"), "logs\nls\n");
    assert_eq!(complete("rm w"), "web\nworker\n");
    assert_eq!(complete("rm web d"), "db\n");
    assert_eq!(complete("run --rm --netw"), "--network\n--network-alias\n");
    assert!(
        daemon
            .asked()
            .contains(&"GET /containers/json?all=1".to_string())
    );
}
