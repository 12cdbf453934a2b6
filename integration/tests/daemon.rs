//! The daemon itself from outside: TLS, metrics, reload, attach by websocket, and answers that are easily got wrong.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::stack::{Stack, send};
use integration::{eventually, http, images, programs, require};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(30);

fn lite(stack: &Stack, args: &[&str]) -> Result<String> {
    Ok(stack.lite(args)?.exits(0)?.stdout)
}

/// Runs a CLI in the stack's network namespace with certificates of a folder.
fn over_tls(stack: &Stack, cli: &Path, host: &str, certs: &Path) -> Result<programs::Output> {
    let mut command = stack.in_namespace(cli);
    command
        .args([
            "--tlsverify",
            "-H",
            host,
            "version",
            "--format",
            "{{.Server.Version}}",
        ])
        .env("DOCKER_CERT_PATH", certs)
        .env("DOCKER_CONFIG", stack.path("config"))
        .env_remove("DOCKER_CONTEXT");
    programs::run(&mut command, b"", Duration::from_secs(60))
}

#[test]
fn tls_lets_in_who_has_a_certificate_of_the_ca() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let daemon = programs::path("dockerd-lite")?;
    let make = |name: &str| {
        let to = dir.path().join(name);
        let mut command = programs::command(&daemon, ["certs"]);
        command.arg(&to);
        programs::run(&mut command, b"", LIMIT)?.exits(0)?;
        anyhow::Ok(to)
    };
    let (certs, foreign) = (make("own")?, make("foreign")?);
    let file = |name: &str| certs.join(name).display().to_string();
    let stack = Stack::with(&[
        "-H",
        "tcp://127.0.0.1:2376",
        "--tlsverify",
        "--tlscacert",
        &file("ca.pem"),
        "--tlscert",
        &file("server-cert.pem"),
        "--tlskey",
        &file("server-key.pem"),
    ])?;
    for cli in [programs::path("docker-lite")?, require::peer("docker")?] {
        let good = over_tls(&stack, &cli, "tcp://127.0.0.1:2376", &certs)?.exits(0)?;
        ensure!(
            good.stdout.starts_with(|c: char| c.is_ascii_digit()),
            "{good:?}"
        );
        // A client of another CA: neither side trusts the other.
        let bad = over_tls(&stack, &cli, "tcp://127.0.0.1:2376", &foreign)?;
        ensure!(
            bad.code != 0 && bad.stderr.contains("certificate"),
            "{bad:?}"
        );
        // The daemon's certificate is right, the client's is not.
        let mixed = dir.path().join("mixed");
        std::fs::create_dir_all(&mixed)?;
        for (from, name) in [
            (&certs, "ca.pem"),
            (&foreign, "cert.pem"),
            (&foreign, "key.pem"),
        ] {
            std::fs::copy(from.join(name), mixed.join(name))?;
        }
        let bad = over_tls(&stack, &cli, "tcp://127.0.0.1:2376", &mixed)?;
        ensure!(bad.code != 0, "{bad:?}");
    }
    // One who never shakes hands delays nobody.
    let mut silent = stack.in_namespace(Path::new("/bin/bash"));
    silent.args(["-c", "exec 3<>/dev/tcp/127.0.0.1/2376; sleep 100"]);
    let mut silent = silent.spawn()?;
    let good = over_tls(
        &stack,
        &programs::path("docker-lite")?,
        "tcp://127.0.0.1:2376",
        &certs,
    )?;
    silent.kill()?;
    silent.wait()?;
    good.exits(0)?;
    stack.stop()
}

#[test]
fn a_changed_configuration_is_taken_over_on_sighup() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("daemon.json");
    std::fs::write(
        &file,
        r#"{"labels": ["a=1"], "metrics-addr": "127.0.0.1:9323"}"#,
    )?;
    let path = file.display().to_string();
    let stack = Stack::with(&["--config-file", &path])?;
    images::busybox(&stack)?;
    let hup = || send(stack.daemon_pid().context("no daemon")?, Signal::SIGHUP);
    let info = |form: &str| lite(&stack, &["info", "--format", form]);
    ensure!(info("{{.Labels}} {{.Debug}}")? == "[a=1] false\n");
    std::fs::write(
        &file,
        r#"{"labels": ["b=2"], "debug": true, "insecure-registries": ["r:5000"], "runtimes": {"other": {"path": "/bin/other"}}}"#,
    )?;
    hup()?;
    eventually::within(LIMIT, "the new configuration is in effect", || {
        let now = info(
            "{{.Labels}} {{.Debug}} {{json .Runtimes}} {{json .RegistryConfig.IndexConfigs}}",
        )?;
        let all =
            now.starts_with("[b=2] true") && now.contains("/bin/other") && now.contains("r:5000");
        ensure!(all, "{now}");
        Ok(())
    })?;
    let told = lite(
        &stack,
        &[
            "events",
            "--since",
            "10m",
            "--until",
            "0s",
            "--filter",
            "type=daemon",
            "--format",
            "{{.Action}} {{json .Actor.Attributes}}",
        ],
    )?;
    ensure!(told.contains("reload") && told.contains("b=2"), "{told}");
    // A wrong one changes nothing.
    std::fs::write(&file, r#"{"labels": ["c=3"], "no-such-key": 1}"#)?;
    hup()?;
    let log = stack.path("dockerd.log");
    eventually::within(LIMIT, "the log names the key", || {
        ensure!(std::fs::read_to_string(&log)?.contains("no-such-key"));
        Ok(())
    })?;
    ensure!(info("{{.Labels}}")? == "[b=2]\n");

    let mut ask = stack.in_namespace(Path::new("/bin/bash"));
    ask.args([
        "-c",
        "exec 3<>/dev/tcp/127.0.0.1/9323; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3",
    ]);
    let metrics = programs::run(&mut ask, b"", LIMIT)?.exits(0)?.stdout;
    for line in [
        "engine_daemon_container_states_containers{state=\"running\"} 0",
        "engine_daemon_container_actions_seconds_count{action=\"start\"} 1",
        "# TYPE engine_daemon_events_total counter",
        "engine_daemon_engine_info{",
    ] {
        ensure!(metrics.contains(line), "no {line} in {metrics}");
    }
    stack.stop()
}

/// One message of a websocket that is not long, unmasked as a server sends it.
fn message(stream: &mut UnixStream) -> Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    ensure!(head[1] < 126, "a long message");
    let mut payload = vec![0; usize::from(head[1])];
    stream.read_exact(&mut payload)?;
    Ok((head[0] & 0x0f, payload))
}

#[test]
fn attach_over_a_websocket_carries_both_ways() -> Result<()> {
    let stack = Stack::start()?;
    images::busybox(&stack)?;
    lite(
        &stack,
        &[
            "create",
            "-i",
            "--name",
            "cat",
            "busybox",
            "sh",
            "-c",
            "echo err >&2; cat",
        ],
    )?;
    let mut stream = UnixStream::connect(stack.path("docker.sock"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    let path = "/v1.41/containers/cat/attach/ws?stream=1&stdin=1&stdout=1&stderr=1";
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    ensure!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    ensure!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
    lite(&stack, &["start", "cat"])?;
    ensure!(message(&mut stream)? == (2, b"err\n".to_vec()));
    // A masked text message, as clients send it; a mask of zeros changes nothing.
    stream.write_all(b"\x81\x86\0\0\0\0hello\n")?;
    ensure!(message(&mut stream)? == (2, b"hello\n".to_vec()));
    lite(&stack, &["kill", "cat"])?;
    ensure!(message(&mut stream)?.0 == 8, "no close");
    let socket = stack.path("docker.sock");
    let none = http::ask(&socket, "GET", "/v1.41/containers/none/attach/ws", "")?;
    ensure!(none.status == 400 || none.status == 404, "{none:?}");
    stack.stop()
}

#[test]
fn small_answers_are_dockers() -> Result<()> {
    let stack = Stack::start()?;
    images::busybox(&stack)?;
    let socket = stack.path("docker.sock");
    lite(&stack, &["create", "--name", "box", "busybox", "true"])?;
    let body = r#"{"Image":"busybox","Cmd":["true"],"HostConfig":{"CpusetCpus":"0,4000"}}"#;
    let made = http::ask(&socket, "POST", "/v1.41/containers/create", body)?;
    ensure!(
        made.status == 400 && made.text().contains("Requested CPUs are not available"),
        "{made:?}"
    );
    let ask = |method: &str, path: &str| http::ask(&socket, method, &format!("/v1.41{path}"), "");
    ensure!(
        ask("GET", "/containers/box/checkpoints")?
            .text()
            .contains("[]")
    );
    ensure!(ask("GET", "/containers/none/checkpoints")?.status == 404);
    ensure!(ask("DELETE", "/containers/box/checkpoints/c1")?.status == 404);
    ensure!(ask("POST", "/containers/box/start?checkpoint=c1")?.status == 501);
    for family in [
        "/swarm",
        "/services",
        "/nodes",
        "/tasks",
        "/secrets",
        "/configs",
    ] {
        ensure!(ask("GET", family)?.status == 503, "{family}");
    }
    ensure!(ask("GET", "/plugins").map(|a| a.text())?.contains("[]"));
    let saved = ask("GET", "/images/busybox/get")?;
    let tar = saved.status == 200 && saved.text().contains("manifest.json");
    ensure!(tar, "an image by its name is no tar: {}", saved.head);

    // Bytes that are no archive are not quoted in the error.
    let garbage: Vec<u8> = (0..2048u32)
        .map(|n| ((n * 7919) >> 3) as u8 | 0x80)
        .collect();
    let headers = format!(
        "Content-Type: application/x-tar\r\nContent-Length: {}\r\n",
        garbage.len()
    );
    for path in [
        "/v1.41/images/load",
        "/v1.41/containers/box/archive?path=/tmp",
    ] {
        let method = if path.contains("load") { "POST" } else { "PUT" };
        let answer = http::raw(&socket, method, path, &headers, &garbage)?;
        ensure!(answer.status >= 400, "{path}: {answer:?}");
        ensure!(
            !answer.text().contains('\u{fffd}') && answer.text().len() < 600,
            "{path}: {}",
            answer.text()
        );
    }
    stack.stop()
}

#[test]
fn a_registry_is_asked_without_a_pull() -> Result<()> {
    let stack = Stack::start()?;
    let registry = images::Registry::start(&stack)?;
    let socket = stack.path("docker.sock");
    let ask = |name: &str| {
        let path = format!("/v1.41/distribution/{}/{name}/json", registry.address());
        http::ask(&socket, "GET", &path, "")
    };
    let there = ask("test/busybox:latest")?;
    let digest = there.json()["Descriptor"]["digest"].to_string();
    ensure!(
        there.status == 200 && digest.contains("sha256:"),
        "{there:?}"
    );
    ensure!(
        there.json()["Platforms"][0]["os"] == "linux",
        "{}",
        there.text()
    );
    ensure!(ask("test/none")?.status == 404);
    ensure!(lite(&stack, &["images", "-q"])?.is_empty(), "it was pulled");
    // the search of the first version is a file here
    let folder = stack.path("index/v1");
    std::fs::create_dir_all(&folder)?;
    let results =
        r#"{"results": [{"name": "a", "star_count": 5, "is_official": true}, {"name": "b"}]}"#;
    std::fs::write(folder.join("search"), results)?;
    let index = images::Files::serve(&stack, &stack.path("index"), "127.0.0.1:5001")?;
    let search = |query: &str| {
        let path = format!("/v1.41/images/search?term=127.0.0.1:5001/x{query}");
        http::ask(&socket, "GET", &path, "")
    };
    let all = search("")?;
    ensure!(all.status == 200 && all.json()[1]["name"] == "b", "{all:?}");
    let few = search("&filters=%7B%22stars%22%3A%5B%223%22%5D%7D")?.json();
    ensure!(few[0]["name"] == "a" && few[1].is_null(), "{few}");
    ensure!(search("&limit=1000")?.status == 400);
    drop((registry, index));
    stack.stop()
}

/// Numbers that a container has said, as a syslog hears them until the last one.
fn heard(syslog: &std::os::unix::net::UnixDatagram, last: u32) -> Result<Vec<u32>> {
    let mut numbers = Vec::new();
    let mut datagram = [0; 2000];
    while numbers.last() != Some(&last) {
        let size = syslog.recv(&mut datagram).context("a line comes")?;
        let text = String::from_utf8_lossy(&datagram[..size]).into_owned();
        let parts = text
            .strip_prefix("<158>")
            .and_then(|rest| rest.rsplit_once("]: "));
        let (before, number) = parts.with_context(|| text.clone())?;
        ensure!(before.contains(" mine/talker["), "{text}");
        numbers.push(number.parse().with_context(|| text.clone())?);
    }
    Ok(numbers)
}

#[test]
fn a_syslog_hears_everything_though_the_daemon_was_killed() -> Result<()> {
    let mut stack = Stack::start()?;
    images::busybox(&stack)?;
    let place = stack.path("syslog");
    let syslog = std::os::unix::net::UnixDatagram::bind(&place)?;
    syslog.set_read_timeout(Some(LIMIT))?;
    let address = format!("syslog-address=unixgram://{}", place.display());
    let bad = [
        "run",
        "-d",
        "--log-driver",
        "syslog",
        "--log-opt",
        "syslog-facility=none",
        "busybox",
        "true",
    ];
    let refused = stack.lite(bad)?;
    ensure!(
        refused.stderr.contains("invalid syslog facility"),
        "{refused:?}"
    );
    let script = "i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo $i; usleep 10000; done";
    lite(
        &stack,
        &[
            "run",
            "-d",
            "--name",
            "talker",
            "--network",
            "none",
            "--log-driver",
            "syslog",
            "--log-opt",
            &address,
            "--log-opt",
            "tag=mine/{{.Name}}",
            "--log-opt",
            "syslog-facility=local3",
            "busybox",
            "sh",
            "-c",
            script,
        ],
    )?;
    let mut numbers = heard(&syslog, 20)?;
    stack.kill_daemon()?;
    std::thread::sleep(Duration::from_millis(500));
    stack.start_daemon()?;
    numbers.extend(heard(&syslog, 200)?);
    // the last chunk before the kill may have come twice
    numbers.dedup();
    let repeated = numbers.windows(2).position(|pair| pair[1] != pair[0] + 1);
    if let Some(at) = repeated {
        ensure!(numbers[at + 1] <= numbers[at], "lost after {}", numbers[at]);
        let again = numbers.split_off(at + 1);
        numbers.retain(|number| *number < again[0]);
        numbers.extend(again);
    }
    ensure!(numbers == (1..=200).collect::<Vec<_>>(), "{numbers:?}");
    let kept = lite(&stack, &["logs", "--tail", "1", "talker"])?;
    ensure!(kept == "200\n", "{kept}");
    stack.stop()
}

#[test]
fn a_device_by_name_brings_node_mount_and_variable() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().display().to_string();
    std::fs::write(dir.path().join("shown"), "from the host\n")?;
    let described = format!(
        r#"{{"cdiVersion": "0.6.0", "kind": "example.com/thing", "devices": [{{"name": "one", "containerEdits": {{
            "env": ["THING=one"], "deviceNodes": [{{"path": "/dev/thing", "hostPath": "/dev/zero", "permissions": "r"}}],
            "mounts": [{{"hostPath": "{path}/shown", "containerPath": "/shown", "options": ["ro"]}}]}}}}]}}"#
    );
    std::fs::write(dir.path().join("thing.json"), described)?;
    let stack = Stack::with(&["--cdi-spec-dir", &path])?;
    images::busybox(&stack)?;
    let socket = stack.path("docker.sock");
    let create = |name: &str, device: &str| {
        let script = "echo $THING; cat /shown; head -c 3 /dev/thing | wc -c";
        let body = format!(
            r#"{{"Image":"busybox","Cmd":["sh","-c","{script}"],"HostConfig":{{"DeviceRequests":[{{"Driver":"cdi","DeviceIDs":["{device}"]}}]}}}}"#
        );
        http::ask(
            &socket,
            "POST",
            &format!("/v1.45/containers/create?name={name}"),
            &body,
        )
    };
    let made = create("one", "example.com/thing=one")?;
    ensure!(made.status == 201, "{made:?}");
    let said = lite(&stack, &["start", "-a", "one"])?;
    ensure!(said == "one\nfrom the host\n3\n", "{said}");
    let missing = create("two", "example.com/thing=two")?;
    let told = missing.status == 400 && missing.text().contains("unresolvable CDI devices");
    ensure!(told, "{missing:?}");
    stack.stop()
}
