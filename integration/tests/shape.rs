//! The shape of answers: every field that a real dockerd's answer has is in ours, with the same kind of value, nulls and empty
//! lists included. Both daemons hold the same things when they are asked.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use integration::peers::Dockerd;
use integration::programs::{self, run};
use integration::stack::Stack;
use integration::{http, images, require};
use serde_json::Value;

/// What is asked, at API 1.41.
const PATHS: &[&str] = &[
    "/version",
    "/info",
    "/containers/json?all=1&size=1",
    "/containers/up/json?size=1",
    "/containers/done/json",
    "/containers/made/json",
    "/containers/up/top",
    "/containers/up/changes",
    "/containers/made/changes",
    "/containers/up/stats?stream=0",
    "/containers/done/stats?stream=0",
    "/images/json",
    "/images/busybox/json",
    "/images/busybox/history",
    "/volumes",
    "/volumes/vol",
    "/networks/bridge",
    "/networks/host",
    "/networks/none",
    "/plugins",
    "/system/df",
];

/// Fields that differ, and why; `*` at the end stands for all that begins so.
const KNOWN: &[(&str, &str)] = &[
    (
        "/info SecurityOptions",
        "depends on the host as each sees it",
    ),
    ("/info Warnings", "each warns of its own"),
    (
        "/volumes Volumes[].Options",
        "no options are null, also for clients that send an empty object",
    ),
    (
        "/volumes/vol Options",
        "no options are null, also for clients that send an empty object",
    ),
    (
        "/system/df Volumes[].Options",
        "no options are null, also for clients that send an empty object",
    ),
    ("/info DriverStatus", "another storage driver"),
    ("/info KernelMemory", "kernels dropped the limit"),
    ("/info KernelMemoryTCP", "kernels dropped the limit"),
    ("/info Runtimes*", "another set of runtimes"),
    ("/info Plugins.Network*", "drivers of swarm"),
    ("/info RegistryConfig.Allow*", "dropped by Docker 28"),
    ("/info BridgeNfIp*", "dropped by Docker 28"),
    ("/info ContainerdCommit.Expected", "dropped by Docker 28"),
    ("/info RuncCommit.Expected", "dropped by Docker 28"),
    ("/info InitCommit*", "no version of its own"),
    ("/version Components*", "each has its own"),
    ("/version BuildTime", "builds can be repeated"),
    ("/version GoVersion", "it is not Go"),
    (
        "/containers/up/json GraphDriver.Data",
        "the directories belong to containerd",
    ),
    (
        "/containers/done/json GraphDriver.Data",
        "the directories belong to containerd",
    ),
    (
        "/containers/made/json GraphDriver.Data",
        "the directories belong to containerd",
    ),
    (
        "/containers/up/json HostConfig.Kernel*",
        "kernels dropped the limit",
    ),
    (
        "/containers/done/json HostConfig.Kernel*",
        "kernels dropped the limit",
    ),
    (
        "/containers/made/json HostConfig.Kernel*",
        "kernels dropped the limit",
    ),
    (
        "/containers/up/json NetworkSettings.Secondary*",
        "dropped by Docker 29",
    ),
    (
        "/containers/done/json NetworkSettings*",
        "what a container without an endpoint has, dropped by Docker 29",
    ),
    (
        "/containers/made/json NetworkSettings*",
        "what a container without an endpoint has, dropped by Docker 29",
    ),
    (
        "/containers/up/stats blkio_stats*",
        "as many devices as had input or output",
    ),
    (
        "/images/json[] RepoDigests",
        "Docker's containerd store has them too",
    ),
    ("/images/json[] VirtualSize", "dropped by API 1.44"),
    (
        "/images/busybox/json Config.*",
        "fields that mean nothing for an image, dropped by API 1.50",
    ),
    (
        "/images/busybox/json Container*",
        "of the classic builder, dropped by API 1.45",
    ),
    (
        "/images/busybox/json DockerVersion",
        "not known of an image that others made",
    ),
    ("/images/busybox/json Parent", "of the classic builder"),
    (
        "/images/busybox/json RepoDigests*",
        "Docker's containerd store has them too",
    ),
    (
        "/images/busybox/json GraphDriver*",
        "the directories belong to containerd",
    ),
    ("/images/busybox/json VirtualSize", "dropped by API 1.44"),
    (
        "/networks/*",
        "ids of endpoints; the networks have a test of their own",
    ),
    ("/system/df BuildCache", "an empty list, as since API 1.42"),
    ("/system/df BuilderSize", "dropped by API 1.42"),
    (
        "/system/df Images[].RepoDigests",
        "Docker's containerd store has them too",
    ),
    ("/system/df Images[].VirtualSize", "dropped by API 1.44"),
];

fn is_known(place: &str) -> bool {
    KNOWN
        .iter()
        .any(|(known, _)| match known.strip_suffix('*') {
            Some(beginning) => place.starts_with(beginning),
            None => place == *known,
        })
}

fn word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Names what of `theirs` is not in `ours`.
fn compare(place: &str, theirs: &Value, ours: &Value, wrong: &mut Vec<String>) {
    if is_known(place) {
        return;
    }
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            for (key, value) in theirs {
                let below = match place.contains(' ') {
                    true => format!("{place}.{key}"),
                    false => format!("{place} {key}"),
                };
                match ours.get(key) {
                    Some(other) => compare(&below, value, other, wrong),
                    None if is_known(&below) => {}
                    // A map of names, not of fields.
                    None if key.contains(['/', '.', ':']) => {}
                    None => wrong.push(format!("{below}: missing, there it is {value}")),
                }
            }
        }
        (Value::Array(theirs), Value::Array(ours)) => match (theirs.first(), ours.first()) {
            (Some(theirs), Some(ours)) => compare(&format!("{place}[]"), theirs, ours, wrong),
            (Some(theirs), None) => wrong.push(format!("{place}: empty, there it has {theirs}")),
            (None, _) => {}
        },
        (theirs, ours) if word(theirs) != word(ours) => wrong.push(format!(
            "{place}: {} ({ours}), there {} ({theirs})",
            word(ours),
            word(theirs)
        )),
        _ => {}
    }
}

fn json(socket: &std::path::Path, path: &str) -> Result<Value> {
    let answer = http::raw(socket, "GET", &format!("/v1.41{path}"), "", b"")?;
    ensure!(
        answer.status == 200,
        "{path}: {} {}",
        answer.status,
        answer.text()
    );
    serde_json::from_slice(&answer.body).with_context(|| format!("{path}: {}", answer.text()))
}

#[test]
fn answers_have_the_fields_of_dockerds() -> Result<()> {
    let stack = Stack::start()?;
    let real = Dockerd::start(&[])?;
    if !real.is_measure("shape")? {
        drop(real);
        return stack.stop();
    }
    let tar = images::rootfs_tar(stack.dir())?;
    let docker = require::peer("docker")?;
    for host in [stack.host(), real.host()] {
        let tar = tar.to_string_lossy();
        for args in [
            vec!["import", "-c", "CMD [\"sh\"]", &tar, "busybox"],
            vec!["volume", "create", "--label", "a=b", "vol"],
            vec![
                "run",
                "-d",
                "--name",
                "up",
                "-l",
                "a=b",
                "-v",
                "vol:/v",
                "-m",
                "64m",
                "--health-cmd",
                "true",
                "busybox",
                "sh",
                "-c",
                "touch /made; exec sleep 1000",
            ],
            vec!["run", "--name", "done", "busybox", "sh", "-c", "exit 3"],
            vec![
                "create",
                "--name",
                "made",
                "--restart",
                "on-failure:2",
                "busybox",
                "true",
            ],
        ] {
            let mut command = programs::command(&docker, &args);
            command
                .env("DOCKER_HOST", &host)
                .env("DOCKER_CONFIG", stack.path("config"))
                .env_remove("DOCKER_CONTEXT");
            let out = run(&mut command, b"", Duration::from_secs(60))?;
            ensure!([0, 3].contains(&out.code), "{args:?} on {host}: {out:?}");
        }
    }
    let socket = |host: &str| PathBuf::from(host.trim_start_matches("unix://"));
    let (ours, theirs) = (socket(&stack.host()), socket(&real.host()));
    let mut wrong = Vec::new();
    for path in PATHS {
        let name = path.split('?').next().unwrap_or(path);
        compare(name, &json(&theirs, path)?, &json(&ours, path)?, &mut wrong);
    }
    println!("{} answers compared", PATHS.len());
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    drop(real);
    stack.stop()
}
