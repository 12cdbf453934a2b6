//! Health checks and the small init, seen from outside: states, results, events, filters, actions, and that they outlive the daemon.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::stack::Stack;
use integration::{eventually, http, images};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

fn state(stack: &Stack, name: &str) -> Result<Value> {
    let path = format!("/v1.53/containers/{name}/json");
    let answer = http::ask(&stack.path("docker.sock"), "GET", &path, "")?;
    ensure!(answer.status == 200, "{}", answer.text());
    let value = answer.json();
    Ok(value["State"].clone())
}

/// Waits for a state of health and gives the whole state.
fn until(stack: &Stack, name: &str, wanted: &str) -> Result<Value> {
    eventually::within(LIMIT, &format!("{name} is {wanted}"), || {
        let state = state(stack, name)?;
        ensure!(state["Health"]["Status"] == wanted, "{}", state["Health"]);
        Ok(state)
    })
}

fn lite(stack: &Stack, args: &[&str]) -> Result<String> {
    Ok(stack.lite(args)?.exits(0)?.stdout)
}

#[test]
fn a_container_becomes_healthy_unhealthy_and_healthy_again() -> Result<()> {
    let mut stack = Stack::start()?;
    images::busybox(&stack)?;
    lite(
        &stack,
        &[
            "run",
            "-d",
            "--name",
            "web",
            "--label",
            "app=x",
            "--health-cmd",
            "echo probed; test -e /tmp/good",
            "--health-interval",
            "100ms",
            "--health-retries",
            "2",
            "--health-start-period",
            "1s",
            "--health-start-interval",
            "50ms",
            "busybox",
            "sleep",
            "1000",
        ],
    )?;
    ensure!(state(&stack, "web")?["Health"]["Status"] == "starting");
    ensure!(lite(&stack, &["ps"])?.contains("(health: starting)"));
    lite(&stack, &["exec", "web", "touch", "/tmp/good"])?;
    let healthy = until(&stack, "web", "healthy")?;
    let last = healthy["Health"]["Log"]
        .as_array()
        .and_then(|log| log.last().cloned());
    let last = last.context("no result")?;
    ensure!(
        last["Output"] == "probed\n" && last["ExitCode"] == 0,
        "{last}"
    );
    ensure!(healthy["Health"]["FailingStreak"] == 0);
    ensure!(lite(&stack, &["ps", "--filter", "health=healthy"])?.contains("(healthy)"));
    ensure!(
        !lite(&stack, &["ps", "--filter", "health=unhealthy", "-q"])?
            .contains(|c: char| c.is_ascii_hexdigit())
    );

    // What is known is known to the next daemon at once, and it goes on probing.
    stack.kill_daemon()?;
    stack.start_daemon()?;
    ensure!(state(&stack, "web")?["Health"]["Status"] == "healthy");
    lite(&stack, &["exec", "web", "rm", "/tmp/good"])?;
    let unhealthy = until(&stack, "web", "unhealthy")?;
    let streak = unhealthy["Health"]["FailingStreak"].as_i64();
    ensure!(streak >= Some(2), "{unhealthy}");
    let log = unhealthy["Health"]["Log"].as_array().map_or(0, Vec::len);
    ensure!((1..=5).contains(&log), "{log} results");
    lite(&stack, &["exec", "web", "touch", "/tmp/good"])?;
    until(&stack, "web", "healthy")?;

    // No probe is left in the list of execs, and the events are docker's.
    let events = lite(
        &stack,
        &[
            "events",
            "--since",
            "10m",
            "--until",
            "0s",
            "--filter",
            "label=app=x",
            "--format",
            "{{.Action}}",
        ],
    )?;
    for wanted in [
        "health_status: unhealthy",
        "health_status: healthy",
        "exec_die",
        "exec_create: /bin/sh -c echo probed",
    ] {
        ensure!(events.contains(wanted), "no {wanted} in {events}");
    }
    lite(&stack, &["stop", "-t", "0", "web"])?;
    ensure!(state(&stack, "web")?["Health"]["Status"] == "unhealthy");
    let file = stack.path("exec/health");
    ensure!(std::fs::read_dir(&file)?.count() == 1);
    lite(&stack, &["rm", "web"])?;
    ensure!(std::fs::read_dir(&file)?.count() == 0);
    stack.stop()
}

#[test]
fn slow_missing_and_switched_off_probes() -> Result<()> {
    let stack = Stack::start()?;
    images::busybox(&stack)?;
    let run = |name: &str, more: &[&str]| {
        let args = [
            &[
                "run",
                "-d",
                "--name",
                name,
                "--health-interval",
                "50ms",
                "--health-retries",
                "1",
            ],
            more,
        ]
        .concat();
        lite(
            &stack,
            &[args.as_slice(), &["busybox", "sleep", "1000"]].concat(),
        )
    };
    run(
        "slow",
        &[
            "--health-cmd",
            "echo before; sleep 321",
            "--health-timeout",
            "300ms",
        ],
    )?;
    let state_of = until(&stack, "slow", "unhealthy")?;
    let result = &state_of["Health"]["Log"][0];
    ensure!(result["ExitCode"] == -1, "{result}");
    ensure!(
        result["Output"] == "Health check exceeded timeout (300ms): before\n",
        "{result}"
    );
    lite(&stack, &["pause", "slow"])?;
    eventually::within(LIMIT, "one probe at most", || {
        let top = lite(&stack, &["top", "slow"])?;
        ensure!(top.matches("sleep 321").count() <= 2, "{top}");
        Ok(())
    })?;
    lite(&stack, &["unpause", "slow"])?;

    let body = r#"{"Image":"busybox","Cmd":["sleep","1000"],"Healthcheck":{"Test":["CMD","/no/such"],"Interval":50000000,"Retries":1}}"#;
    let socket = stack.path("docker.sock");
    let made = http::ask(
        &socket,
        "POST",
        "/v1.41/containers/create?name=missing",
        body,
    )?;
    ensure!(made.status == 201, "{}", made.text());
    lite(&stack, &["start", "missing"])?;
    let state_of = until(&stack, "missing", "unhealthy")?;
    let output = state_of["Health"]["Log"][0]["Output"].to_string();
    ensure!(output.contains("no such file"), "{output}");

    lite(
        &stack,
        &[
            "run",
            "-d",
            "--name",
            "off",
            "--no-healthcheck",
            "busybox",
            "sleep",
            "1000",
        ],
    )?;
    ensure!(state(&stack, "off")?.get("Health").is_none());
    ensure!(
        lite(
            &stack,
            &["ps", "--filter", "health=none", "--format", "{{.Names}}"]
        )? == "off\n"
    );
    for bad in [
        r#"{"Test":["CMD","x"],"Interval":10}"#,
        r#"{"Test":["CMD","x"],"Retries":-1}"#,
        r#"{"Test":["NO","x"]}"#,
    ] {
        let body = format!(r#"{{"Image":"busybox","Healthcheck":{bad}}}"#);
        let answer = http::ask(&socket, "POST", "/v1.41/containers/create", &body)?;
        ensure!(answer.status == 400, "{bad}: {}", answer.text());
    }
    stack.stop()
}

#[test]
fn an_unhealthy_container_is_killed_restarted_or_stopped() -> Result<()> {
    let stack = Stack::start()?;
    images::busybox(&stack)?;
    let run = |action: &str, more: &[&str]| {
        let args = [
            "run",
            "-d",
            "--name",
            action,
            "--health-on-failure",
            action,
            "--health-cmd",
            "test -e /tmp/again",
            "--health-interval",
            "50ms",
            "--health-retries",
            "1",
        ];
        let command = [
            "busybox",
            "sh",
            "-c",
            "trap 'exit 3' TERM; while :; do sleep 0.05; done",
        ];
        lite(&stack, &[args.as_slice(), more, &command].concat())
    };
    run("stop", &["--restart", "always"])?;
    eventually::within(LIMIT, "it is stopped for good", || {
        let state = state(&stack, "stop")?;
        ensure!(
            state["Status"] == "exited" && state["ExitCode"] == 3,
            "{state}"
        );
        Ok(())
    })?;
    run("kill", &[])?;
    eventually::within(LIMIT, "it is killed", || {
        let state = state(&stack, "kill")?;
        ensure!(
            state["Status"] == "exited" && state["ExitCode"] == 137,
            "{state}"
        );
        Ok(())
    })?;
    run("restart", &[])?;
    let first = state(&stack, "restart")?["StartedAt"].clone();
    eventually::within(LIMIT, "it is restarted", || {
        let state = state(&stack, "restart")?;
        ensure!(
            state["Running"] == true && state["StartedAt"] != first,
            "{state}"
        );
        Ok(())
    })?;
    // A label does the same for clients that have no flag.
    lite(
        &stack,
        &[
            "run",
            "-d",
            "--name",
            "label",
            "--label",
            "io.docker-lite.health-on-failure=kill",
            "--health-cmd",
            "false",
            "--health-interval",
            "50ms",
            "--health-retries",
            "1",
            "busybox",
            "sleep",
            "1000",
        ],
    )?;
    eventually::within(LIMIT, "it is killed by its label", || {
        let state = state(&stack, "label")?;
        ensure!(state["ExitCode"] == 137, "{state}");
        Ok(())
    })?;
    stack.stop()
}

#[test]
fn an_init_reaps_and_passes_signals_on() -> Result<()> {
    let runtime = integration::programs::path("runc-lite")?;
    let headers = std::process::Command::new("readelf")
        .arg("-l")
        .arg(&runtime)
        .output();
    if headers.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains("INTERP")) {
        println!("SKIPPED an_init_reaps_and_passes_signals_on: runc-lite is not linked statically");
        return Ok(());
    }
    let stack = Stack::start()?;
    images::busybox(&stack)?;
    lite(
        &stack,
        &[
            "run",
            "-d",
            "--name",
            "first",
            "--init",
            "busybox",
            "sh",
            "-c",
            "trap 'exit 5' TERM; while :; do sleep 0.05; done",
        ],
    )?;
    let first = lite(&stack, &["exec", "first", "cat", "/proc/1/cmdline"])?;
    ensure!(
        first.starts_with("/sbin/docker-init\0--\0sh\0"),
        "{first:?}"
    );
    // An orphan becomes a child of the init, which waits for it.
    lite(&stack, &["exec", "first", "sh", "-c", "(sleep 0.1 &) ; :"])?;
    eventually::within(LIMIT, "no zombie is left", || {
        let stats = lite(
            &stack,
            &["exec", "first", "sh", "-c", "cat /proc/[0-9]*/stat"],
        )?;
        ensure!(!stats.contains(") Z "), "{stats}");
        Ok(())
    })?;
    let written = stack.lite(["exec", "first", "sh", "-c", "echo x >/sbin/docker-init"])?;
    ensure!(written.code != 0, "the init can be written to");
    lite(&stack, &["stop", "first"])?;
    ensure!(state(&stack, "first")?["ExitCode"] == 5);
    lite(&stack, &["run", "--rm", "--init", "busybox", "true"])?;
    stack
        .lite(["run", "--rm", "--init", "busybox", "sh", "-c", "exit 9"])?
        .exits(9)?;
    stack
        .lite(["run", "--rm", "--init", "busybox", "nosuch"])?
        .exits(127)?;
    let plain = lite(&stack, &["run", "--rm", "busybox", "cat", "/proc/1/comm"])?;
    ensure!(plain == "cat\n", "{plain}");
    stack.stop()
}
