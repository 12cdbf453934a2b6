//! A daemon that knows its answers by heart: HTTP on a unix socket, one thread a connection.
//!
//! It also remembers what it was asked, so that a test can look at the order of requests.

#![allow(dead_code, reason = "no test needs all of it")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

/// One answer.
#[derive(Clone)]
pub(crate) struct Reply {
    status: &'static str,
    headers: String,
    body: Vec<u8>,
    held: bool,
}

/// A JSON answer.
pub(crate) fn json(status: &'static str, body: &str) -> Reply {
    Reply {
        status,
        headers: "Content-Type: application/json\r\n".into(),
        body: body.into(),
        held: false,
    }
}

/// The connection changes hands; these bytes follow.
pub(crate) fn hijacked(body: &[u8]) -> Reply {
    let headers = "Connection: Upgrade\r\nUpgrade: tcp\r\n".into();
    Reply {
        status: "101 UPGRADED",
        headers,
        body: body.into(),
        held: false,
    }
}

/// The connection changes hands and stays open until the client closes its side.
pub(crate) fn held(body: &[u8]) -> Reply {
    Reply {
        held: true,
        ..hijacked(body)
    }
}

/// The answer begins at once and never ends.
pub(crate) fn endless() -> Reply {
    let headers = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n".into();
    Reply {
        status: "200 OK",
        headers,
        body: Vec::new(),
        held: true,
    }
}

/// A frame of standard output (1) or standard error (2).
pub(crate) fn frame(stream: u8, text: &str) -> Vec<u8> {
    let mut out = vec![stream, 0, 0, 0];
    out.extend((text.len() as u32).to_be_bytes());
    out.extend(text.as_bytes());
    out
}

/// A running fake daemon.
pub(crate) struct FakeDaemon {
    dir: tempfile::TempDir,
    asked: Arc<Mutex<Vec<String>>>,
}

impl FakeDaemon {
    /// Starts a daemon that answers these requests, written "GET /containers/json".
    pub(crate) fn start(replies: Vec<(&str, Reply)>) -> FakeDaemon {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("sock")).unwrap();
        let replies: Arc<HashMap<String, Reply>> = Arc::new(
            replies
                .into_iter()
                .map(|(request, reply)| (request.to_string(), reply))
                .collect(),
        );
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (replies, log) = (Arc::clone(&replies), Arc::clone(&log));
                std::thread::spawn(move || serve(stream.unwrap(), &replies, &log));
            }
        });
        FakeDaemon { dir, asked }
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.dir.path().join("sock").display())
    }

    /// The requests so far, in order of arrival.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// A docker-lite for this daemon, not started yet.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_docker-lite"));
        command
            .args(["-H", &self.host()])
            .args(args)
            .env_clear()
            .env("HOME", self.dir.path())
            .env("DOCKER_CONFIG", self.dir.path().join("config"));
        command
    }

    /// Runs docker-lite against this daemon.
    pub(crate) fn run(&self, args: &[&str], stdin: &str) -> Output {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that does not read its input closes the pipe, which is no failure of the test.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        child.wait_with_output().unwrap()
    }
}

fn serve(stream: UnixStream, replies: &HashMap<String, Reply>, log: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    let mut words = first.split_whitespace();
    let (method, target) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let (mut length, mut chunked) = (0, false);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim().to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        chunked |= line == "transfer-encoding: chunked";
    }
    if chunked {
        skip_chunks(&mut reader);
    } else {
        reader.read_exact(&mut vec![0; length]).unwrap();
    }
    // The version goes, so that tests need not name it.
    let target = match target.strip_prefix("/v1.") {
        Some(rest) => &rest[rest.find('/').unwrap()..],
        None => target,
    };
    log.lock().unwrap().push(format!("{method} {target}"));
    let path = target.split('?').next().unwrap_or_default();
    let reply = match replies
        .get(&format!("{method} {target}"))
        .or(replies.get(&format!("{method} {path}")))
    {
        Some(reply) => reply.clone(),
        None if path == "/_ping" => Reply {
            status: "200 OK",
            headers: "Api-Version: 1.53\r\n".into(),
            body: Vec::new(),
            held: false,
        },
        None => json("404 Not Found", r#"{"message":"page not found"}"#),
    };
    let mut out = format!("HTTP/1.1 {}\r\n{}", reply.status, reply.headers).into_bytes();
    if !reply.held && !reply.status.starts_with("101") && !reply.status.starts_with("204") {
        out.extend(format!("Content-Length: {}\r\n", reply.body.len()).into_bytes());
    }
    out.extend(b"\r\n");
    if method != "HEAD" {
        out.extend(reply.body);
    }
    let mut stream = stream;
    // A client that has gone is the test's business, not the daemon's.
    let _ = stream.write_all(&out);
    if reply.held {
        let _ = std::io::copy(&mut reader, &mut std::io::sink());
    }
    let _ = stream.shutdown(std::net::Shutdown::Write);
}

fn skip_chunks(reader: &mut impl BufRead) {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let size = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
        reader.read_exact(&mut vec![0; size + 2]).unwrap();
        if size == 0 {
            return;
        }
    }
}
