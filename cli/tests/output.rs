//! What docker-lite prints, to the byte, and what it asks, in order, against a fake daemon.
//!
//! The texts are in `golden/`; `UPDATE_GOLDEN=1 cargo test -p cli` writes them anew, and the
//! difference is to be read before it is kept.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fake_daemon;

use std::path::Path;
use std::process::Output;

use fake_daemon::{FakeDaemon, frame, hijacked, json};

const CONTAINERS: &str = r#"[
 {"Id":"1111111111111111111111111111111111111111111111111111111111111111","Names":["/web"],"Image":"busybox:latest",
  "ImageID":"sha256:aa","Command":"sh -c 'while true; do sleep 1; done'","Created":NOW,
  "Ports":[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},{"PrivatePort":443,"Type":"tcp"}],
  "Labels":{"tier":"front"},"State":"running","Status":"Up 3 hours","HostConfig":{"NetworkMode":"bridge"},
  "NetworkSettings":{"Networks":{"bridge":{}}},"Mounts":[{"Type":"volume","Name":"data","Source":"/x","Destination":"/data","Driver":"local","RW":true}]},
 {"Id":"2222222222222222222222222222222222222222222222222222222222222222","Names":["/done"],"Image":"sha256:bbbbbbbbbbbbbbbbbbbb",
  "ImageID":"sha256:bbbbbbbbbbbbbbbbbbbb","Command":"false","Created":NOW,"Ports":[],"Labels":{},"State":"exited",
  "Status":"Exited (1) 2 hours ago","HostConfig":{"NetworkMode":"none"},"NetworkSettings":{"Networks":{"none":{}}},"Mounts":[]}]"#;

/// Lists with times, three hours old.
fn listed(text: &str) -> fake_daemon::Reply {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    json(
        "200 OK",
        &text.replace("NOW", &(now - 3 * 3600 - 60).to_string()),
    )
}

/// Compares what a command did with the golden file of that name.
fn golden(name: &str, daemon: &FakeDaemon, args: &[&str]) {
    let out = daemon.run(args, "");
    let text = format!(
        "$ docker-lite {}\n{}--- stderr\n{}--- exit code {}\n",
        args.join(" "),
        without_plugins(&text(&out.stdout)),
        text(&out.stderr).replace(&daemon.host(), "unix:///fake.sock"),
        code(&out),
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, want, "the output differs from {}", path.display());
}

/// Plugins that this machine happens to have.
fn without_plugins(text: &str) -> String {
    let plugin = |line: &&str| {
        line.starts_with("  ")
            && line
                .trim()
                .split(' ')
                .next()
                .is_some_and(|name| name.ends_with('*'))
    };
    text.split_inclusive('\n')
        .filter(|line| !plugin(line))
        .collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn code(out: &Output) -> i32 {
    out.status.code().unwrap_or(-1)
}

#[test]
fn containers_are_listed() {
    let daemon = FakeDaemon::start(vec![("GET /containers/json", listed(CONTAINERS))]);
    golden("ps", &daemon, &["ps", "-a"]);
    golden("ps-quiet", &daemon, &["ps", "-aq", "--no-trunc"]);
    golden(
        "ps-template",
        &daemon,
        &[
            "ps",
            "--format",
            "table {{.Names}}\\t{{.Label \"tier\"}}\\t{{.Ports}}",
        ],
    );
    golden("ps-wrong-field", &daemon, &["ps", "--format", "{{.Nope}}"]);
    assert!(
        daemon
            .asked()
            .contains(&"GET /containers/json?all=1".to_string())
    );
}

#[test]
fn images_networks_and_volumes_are_listed() {
    let images = r#"[{"Containers":-1,"Created":NOW,"Id":"sha256:cccccccccccccccccccccccc","Labels":null,"ParentId":"",
        "RepoDigests":["busybox@sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"],
        "RepoTags":["busybox:latest","reg.example:5000/box:1"],"SharedSize":-1,"Size":4261550}]"#;
    let daemon = FakeDaemon::start(vec![
        ("GET /images/json", listed(images)),
        (
            "GET /networks",
            json(
                "200 OK",
                r#"[{"Name":"web","Id":"eeeeeeeeeeeeeeeeee","Driver":"bridge","Scope":"local"},{"Name":"host","Id":"ffffffffffffffff","Driver":"host","Scope":"local"}]"#,
            ),
        ),
        (
            "GET /volumes",
            json(
                "200 OK",
                r#"{"Volumes":[{"Driver":"local","Name":"data","Mountpoint":"/m","Labels":null,"Options":null,"Scope":"local"}],"Warnings":null}"#,
            ),
        ),
    ]);
    golden("images", &daemon, &["images"]);
    golden("images-digests", &daemon, &["image", "ls", "--digests"]);
    golden("network-ls", &daemon, &["network", "ls"]);
    golden("volume-ls", &daemon, &["volume", "ls", "--format", "json"]);
}

#[test]
fn inspect_prints_what_came() {
    let body = r#"{"Id":"abc","Zeta":1,"Alpha":{"n":null,"e":{},"l":[1,2.50]},"Text":"a\u003cb"}"#;
    let daemon = FakeDaemon::start(vec![("GET /containers/web/json", json("200 OK", body))]);
    golden("inspect", &daemon, &["inspect", "web"]);
    golden(
        "inspect-json-field",
        &daemon,
        &["inspect", "-f", "{{json .Alpha}} {{.Zeta}}", "web"],
    );
    golden("inspect-missing", &daemon, &["inspect", "web", "nope"]);
}

#[test]
fn wrong_command_lines_are_told() {
    let daemon = FakeDaemon::start(vec![]);
    golden("unknown-flag", &daemon, &["run", "--foo", "busybox"]);
    golden("too-few", &daemon, &["rm"]);
    golden("exactly-two", &daemon, &["cp", "a"]);
    golden("unknown-command", &daemon, &["pss"]);
    golden("bad-size", &daemon, &["run", "-m", "x", "busybox"]);
    golden(
        "bad-mount",
        &daemon,
        &["run", "--mount", "type=bind,src=/a", "busybox"],
    );
    assert!(
        daemon.asked().is_empty(),
        "nothing is asked for a wrong command line"
    );
}

#[test]
fn helps_are_complete() {
    let daemon = FakeDaemon::start(vec![]);
    golden("help", &daemon, &["--help"]);
    golden("help-run", &daemon, &["run", "--help"]);
    golden("help-container", &daemon, &["container", "--help"]);
}

#[test]
fn run_attaches_and_waits_before_it_starts() {
    let id = "9999999999999999999999999999999999999999999999999999999999999999";
    let mut output = frame(1, "out\n");
    output.extend(frame(2, "err\n"));
    let daemon = FakeDaemon::start(vec![
        (
            "POST /containers/create",
            json(
                "201 Created",
                &format!(r#"{{"Id":"{id}","Warnings":["mind this"]}}"#),
            ),
        ),
        (&format!("POST /containers/{id}/attach"), hijacked(&output)),
        (
            &format!("POST /containers/{id}/wait"),
            json("200 OK", r#"{"StatusCode":7}"#),
        ),
        (
            &format!("POST /containers/{id}/start"),
            json("204 No Content", ""),
        ),
    ]);
    golden(
        "run",
        &daemon,
        &["run", "--rm", "--name", "x", "busybox", "sh"],
    );
    assert_eq!(
        daemon.asked(),
        [
            "HEAD /_ping".to_string(),
            "POST /containers/create?name=x".to_string(),
            format!("POST /containers/{id}/attach?stderr=1&stdout=1&stream=1"),
            format!("POST /containers/{id}/wait?condition=removed"),
            format!("POST /containers/{id}/start"),
        ]
    );
}

#[test]
fn a_failed_start_gives_its_own_code() {
    let daemon = FakeDaemon::start(vec![
        (
            "POST /containers/create",
            json("201 Created", r#"{"Id":"ab","Warnings":[]}"#),
        ),
        ("POST /containers/ab/attach", hijacked(b"")),
        (
            "POST /containers/ab/wait",
            json("200 OK", r#"{"StatusCode":127}"#),
        ),
        (
            "POST /containers/ab/start",
            json(
                "400 Bad Request",
                r#"{"message":"exec: \"x\": executable file not found in $PATH"}"#,
            ),
        ),
    ]);
    golden("run-not-found", &daemon, &["run", "busybox", "x"]);
    golden(
        "run-refused",
        &FakeDaemon::start(vec![]),
        &["run", "--pull", "never", "busybox"],
    );
}

#[test]
fn exec_tells_the_code_of_its_process() {
    let daemon = FakeDaemon::start(vec![
        (
            "GET /containers/web/json",
            json("200 OK", r#"{"Id":"web"}"#),
        ),
        (
            "POST /containers/web/exec",
            json("201 Created", r#"{"Id":"e1"}"#),
        ),
        ("POST /exec/e1/start", hijacked(&frame(1, "hello\n"))),
        (
            "GET /exec/e1/json",
            json("200 OK", r#"{"ID":"e1","Running":false,"ExitCode":5}"#),
        ),
    ]);
    golden("exec", &daemon, &["exec", "web", "echo", "hello"]);
}

#[test]
fn a_pull_shows_steps_and_fails_with_the_reason() {
    let lines = "{\"status\":\"Pulling from library/busybox\",\"id\":\"latest\"}\r\n\
        {\"status\":\"Pulling fs layer\",\"progressDetail\":{},\"id\":\"abc\"}\r\n\
        {\"status\":\"Downloading\",\"progressDetail\":{\"current\":1,\"total\":2},\"id\":\"abc\"}\r\n\
        {\"status\":\"Pull complete\",\"progressDetail\":{},\"id\":\"abc\"}\r\n\
        {\"status\":\"Digest: sha256:12\"}\r\n";
    let daemon = FakeDaemon::start(vec![("POST /images/create", json("200 OK", lines))]);
    golden("pull", &daemon, &["pull", "busybox"]);
    let lines = "{\"errorDetail\":{\"message\":\"no room\"},\"error\":\"no room\"}\n";
    let daemon = FakeDaemon::start(vec![("POST /images/create", json("200 OK", lines))]);
    golden("pull-fails", &daemon, &["pull", "busybox:1"]);
}

#[test]
fn failures_of_many_names_come_at_the_end() {
    let daemon = FakeDaemon::start(vec![
        ("DELETE /containers/a", json("204 No Content", "")),
        (
            "DELETE /containers/b",
            json("404 Not Found", r#"{"message":"No such container: b"}"#),
        ),
        ("DELETE /containers/c", json("204 No Content", "")),
    ]);
    golden("rm-some", &daemon, &["rm", "a", "b", "c"]);
}

#[test]
fn without_a_daemon_the_reason_is_told() {
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_docker-lite"))
        .args(["-H", "unix:///nonexistent/sock", "ps"])
        .output()
        .unwrap();
    assert_eq!(
        text(&out.stderr),
        "Cannot connect to the Docker daemon at unix:///nonexistent/sock. Is the docker daemon running?\n"
    );
    assert_eq!(code(&out), 1);
}
