//! The real daemon over a small containerd of this file: what every answer owes a client, without any container.
//!
//! The fake knows no image and no task; it answers subscriptions and lists. Each test has its own roots and socket.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use proto::containerd::services::events::v1 as events;
use proto::containerd::services::images::v1 as images;
use proto::containerd::services::tasks::v1 as tasks;
use proto::lite::control::v1::control_client::ControlClient;
use proto::lite::control::v1::{State, StatusRequest};
use tonic::{Request, Response, Status};

mod endpoints;
mod fake;

/// A daemon with its fake, both gone when this is dropped.
struct Daemon {
    child: Child,
    dir: tempfile::TempDir,
    _fake: tokio::runtime::Runtime,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    fn start() -> Self {
        Self::on(tempfile::tempdir().unwrap())
    }

    fn on(dir: tempfile::TempDir) -> Self {
        let fake = fake::serve(&dir.path().join("ctd.sock"));
        let child = command(dir.path()).spawn().unwrap();
        let daemon = Self {
            child,
            dir,
            _fake: fake,
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while UnixStream::connect(daemon.socket()).is_err() {
            assert!(Instant::now() < deadline, "the daemon does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        daemon
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("d.sock")
    }

    /// Sends one request and returns status, headers and body.
    fn ask(&self, method: &str, path: &str, more: &str, body: &str) -> (u16, String, String) {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        let length = match body.is_empty() {
            true => String::new(),
            false => format!("Content-Length: {}\r\n", body.len()),
        };
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n{more}{length}\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_ascii_lowercase(), body.to_owned())
    }

    fn get(&self, path: &str) -> (u16, String) {
        let (status, _, body) = self.ask("GET", path, "", "");
        (status, body)
    }
}

fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dockerd-lite"));
    std::fs::write(dir.join("daemon.json"), "{}").unwrap();
    command
        .arg("--config-file")
        .arg(dir.join("daemon.json"))
        .arg("--data-root")
        .arg(dir.join("data"))
        .arg("--exec-root")
        .arg(dir.join("exec"))
        .arg("--containerd")
        .arg(dir.join("ctd.sock"))
        .arg("--bridge=none")
        .arg("-H")
        .arg(format!("unix://{}", dir.join("d.sock").display()))
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    command
}

#[test]
fn versions_errors_and_headers() {
    let daemon = Daemon::start();
    let (status, head, body) = daemon.ask("GET", "/_ping", "", "");
    assert_eq!((status, body.as_str()), (200, "OK"));
    for header in ["api-version: 1.53", "ostype: linux", "server: docker/"] {
        assert!(head.contains(header), "{head}");
    }
    let (status, head, body) = daemon.ask("HEAD", "/_ping", "", "");
    assert_eq!((status, body.as_str()), (200, ""), "{head}");
    assert_eq!(daemon.get("/v1.24/version").0, 200);
    assert_eq!(daemon.get("/v1.99/version").0, 400);
    assert_eq!(daemon.get("/v1.23/version").0, 400);
    for (method, path) in [("GET", "/nosuch"), ("PATCH", "/info"), ("DELETE", "/_ping")] {
        let (status, _, body) = daemon.ask(method, path, "", "");
        assert_eq!(
            (status, body.as_str()),
            (404, "{\"message\":\"page not found\"}\n")
        );
    }
    assert_eq!(daemon.ask("OPTIONS", "/info", "", "").0, 200);
}

#[test]
fn bodies_filters_and_missing_things() {
    let daemon = Daemon::start();
    let json = "Content-Type: application/json\r\n";
    let create = |more: &str, body: &str| daemon.ask("POST", "/containers/create", more, body);
    assert_eq!(create(json, "{bad").0, 400);
    assert_eq!(create(json, "{\"Image\":\"x\"} {}").0, 400);
    assert_eq!(
        create("Content-Type: text/plain\r\n", "{\"Image\":\"x\"}").0,
        400
    );
    assert_eq!(create(json, "{}").0, 400);
    let (status, _, body) = create(json, "{\"Image\":\"nosuch\",\"Cmd\":[\"x\"]}");
    assert_eq!(status, 404, "{body}");
    assert!(body.contains("No such image: nosuch:latest"), "{body}");
    assert_eq!(daemon.get("/containers/nosuch/json").0, 404);
    assert_eq!(daemon.get("/exec/nosuch/json").0, 404);
    assert_eq!(daemon.get("/containers/json"), (200, "[]\n".into()));
    let (status, body) = daemon.get("/containers/json?filters=%7B%22no%22%3A%5B%22x%22%5D%7D");
    assert_eq!(
        (status, body.as_str()),
        (400, "{\"message\":\"invalid filter 'no'\"}\n")
    );
    assert_eq!(daemon.get("/services").0, 503);
    assert_eq!(daemon.get("/plugins"), (200, "[]\n".into()));
    let (status, body) = daemon.get("/info");
    assert_eq!(status, 200);
    let info: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(info["LiveRestoreEnabled"], true, "{info}");
}

/// A client that still writes its body gets the answer, and keeps its connection, though nobody wants the body.
#[test]
fn an_unwanted_body_is_read_before_the_answer() {
    let daemon = Daemon::start();
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    for _ in 0..2 {
        write!(
            stream,
            "POST /swarm/init HTTP/1.1\r\nHost: d\r\nContent-Length: 200000\r\n\r\n"
        )
        .unwrap();
        for _ in 0..200 {
            stream.write_all(&[b' '; 1000]).unwrap();
            std::thread::sleep(Duration::from_micros(100));
        }
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 503");
        // the rest of the answer, up to the end of its JSON object
        let mut byte = [0];
        while byte != *b"}" {
            stream.read_exact(&mut byte).unwrap();
        }
        // the new line after the object, if there is one, is not waited for
        stream.set_nonblocking(true).unwrap();
        let _ = stream.read(&mut byte);
        stream.set_nonblocking(false).unwrap();
    }
}

#[test]
fn the_control_service_shares_the_socket() {
    let daemon = Daemon::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let socket = daemon.socket();
    let status = runtime.block_on(async {
        let uri = format!("unix://{}", socket.display());
        let channel = tonic::transport::Endpoint::from_shared(uri).unwrap();
        let mut client = ControlClient::new(channel.connect().await.unwrap());
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let status = client.status(StatusRequest {}).await.unwrap().into_inner();
            if status.state() == State::Ready || Instant::now() > deadline {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert_eq!(status.state(), State::Ready);
    assert_eq!(status.component, "dockerd-lite");
    assert_eq!(status.pid, daemon.child.id());
    assert_eq!(status.listen, [format!("unix://{}", socket.display())]);
}

#[test]
fn nothing_of_another_daemon_is_taken() {
    let daemon = Daemon::start();
    let same_root = command(daemon.dir.path())
        .arg("-H")
        .arg("unix:///nonexistent/never")
        .output()
        .unwrap();
    assert!(!same_root.status.success());
    let other = tempfile::tempdir().unwrap();
    let taken = format!("unix://{}", daemon.socket().display());
    let same_socket = command(other.path()).arg("-H").arg(taken).output().unwrap();
    assert!(!same_socket.status.success());
    assert_eq!(daemon.get("/_ping").0, 200);
}

#[test]
fn a_killed_daemon_comes_back_on_its_own_files() {
    let mut daemon = Daemon::start();
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    assert!(daemon.socket().exists(), "a killed daemon cannot clean up");
    daemon.child = command(daemon.dir.path()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while UnixStream::connect(daemon.socket()).is_err() {
        assert!(Instant::now() < deadline, "the daemon does not come back");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(daemon.get("/containers/json").0, 200);
}

/// Puts a frozen state of a former release in place, with fields in it that a later one may have added.
fn unpack(release: &Path, dir: &Path) {
    let records = std::fs::read_to_string(release.join("records.sql")).unwrap();
    std::fs::create_dir_all(dir.join("data")).unwrap();
    let db = rusqlite::Connection::open(dir.join("data/records.db")).unwrap();
    db.execute_batch(&records).unwrap();
    db.execute_batch("UPDATE records SET body = json_set(body, '$.later', json('{\"a\":[1]}'))")
        .unwrap();
    // the machine that made it may run still, and this may be it
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    db.execute(
        "UPDATE records SET body = replace(body, ?1, 'another boot')",
        [boot.trim()],
    )
    .unwrap();
    std::fs::create_dir_all(dir.join("exec/exec")).unwrap();
    let exec = std::fs::read(release.join("exec.json")).unwrap();
    let read: serde_json::Value = serde_json::from_slice(&exec).unwrap();
    let id = read["id"].as_str().unwrap();
    std::fs::write(dir.join("exec/exec").join(id), exec).unwrap();
}

#[test]
fn the_frozen_states_of_all_releases_are_adopted() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    for release in std::fs::read_dir(fixtures).unwrap() {
        let dir = tempfile::tempdir().unwrap();
        unpack(&release.unwrap().path(), dir.path());
        let daemon = Daemon::on(dir);
        let read = |path: &str| -> serde_json::Value {
            let (status, body) = daemon.get(path);
            assert_eq!(status, 200, "{path}: {body}");
            serde_json::from_str(&body).unwrap()
        };
        // What ran has no task any more.
        let deadline = Instant::now() + Duration::from_secs(20);
        while read("/containers/web/json")["State"]["Status"] != "exited" {
            assert!(
                Instant::now() < deadline,
                "{}",
                read("/containers/web/json")
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        let web = read("/containers/web/json");
        assert_eq!(web["State"]["ExitCode"], 255);
        // It ran in another boot, and whoever asks learns that.
        assert_eq!(web["State"]["ExitReason"], "the host was restarted");
        let list = read("/containers/json?all=1&filters=%7B%22name%22%3A%5B%22web%22%5D%7D");
        let shown = list[0]["Status"].as_str().unwrap();
        assert!(shown.ends_with(" (host restarted)"), "{shown}");
        assert_eq!(web["HostConfig"]["Memory"], 64 << 20);
        assert_eq!(web["Mounts"].as_array().unwrap().len(), 2);
        assert_eq!(web["Config"]["Labels"]["app"], "web");
        assert_eq!(read("/containers/done/json")["State"]["ExitCode"], 7);
        let new = read("/containers/new/json");
        assert_eq!(new["State"]["Status"], "created");
        assert_eq!(new["HostConfig"]["RestartPolicy"]["MaximumRetryCount"], 3);
        assert_eq!(new["Config"]["Hostname"], "box");
        assert_eq!(read("/containers/bad/json")["State"]["ExitCode"], 127);
        assert_eq!(read("/containers/json?all=1").as_array().unwrap().len(), 4);
        assert_eq!(read("/volumes/data")["Labels"]["kind"], "kept");
        assert_eq!(read("/volumes")["Volumes"].as_array().unwrap().len(), 2);
        assert_eq!(read("/networks").as_array().unwrap().len(), 2);
        let exec =
            read("/exec/6738dc8d8735757d13208f4a494d4dbeae00724ce18e2d8f62f6dc59e01acc68/json");
        assert_eq!(exec["ContainerID"], web["Id"]);
        // The record was written anew; what this version does not know is still in it.
        let db = rusqlite::Connection::open(daemon.dir.path().join("data/records.db")).unwrap();
        let kept: i64 = db
            .query_row(
                "SELECT count(*) FROM records WHERE json_extract(body, '$.later.a[0]') = 1",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(kept, 7 + 1);
    }
}

/// Each endpoint of the table in docs/compatibility.md is what the table says, and the router has no other.
#[test]
fn the_table_of_endpoints_is_true() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rows = endpoints::read(&root.join("../docs/compatibility.md"));
    assert!(rows.len() > 70, "{} endpoints", rows.len());
    let daemon = Daemon::start();
    for row in &rows {
        let path = endpoints::example(&row.path);
        let (status, _, body) = daemon.ask(&row.method, &path, "", "");
        let known = !body.contains("page not found");
        let as_told = match row.state.split([' ', ',', ':']).next() {
            Some("501") => known && [404, 501].contains(&status),
            Some("503") => status == 503,
            Some("no") => !known,
            // the fake below does not have everything
            _ => known && status != 503 && (status != 501 || body.contains("/containerd.services")),
        };
        assert!(as_told, "{row:?}: {status} {body}");
        for test in row.tests() {
            let (file, function) = test.split_once("::").unwrap_or((test, ""));
            let text = std::fs::read_to_string(root.join("..").join(file)).unwrap_or_default();
            assert!(
                text.contains(&format!("fn {function}(")),
                "{row:?}: no test {test}"
            );
        }
    }
    for route in endpoints::of_the_source(&root.join("src/api")) {
        let told = rows.iter().any(|row| match route.split_once("{*") {
            Some((beginning, _)) => row.path.starts_with(beginning),
            None => row.path == route,
        });
        assert!(told, "docs/compatibility.md says nothing of {route}");
    }
}
