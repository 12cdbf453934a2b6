//! Clients that vanish in the middle of a stream, thousands of them: memory, descriptors and threads stay as they were.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::http::ask;
use integration::stack::Stack;
use integration::{eventually, images};

use crate::{full, meter};

/// What a program holds.
#[derive(Debug)]
struct Held {
    kib: u64,
    descriptors: usize,
    threads: usize,
}

fn held(pid: u32) -> Result<Held> {
    Ok(Held {
        kib: meter::pss(pid)?,
        descriptors: std::fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
        threads: meter::threads(pid)?,
    })
}

#[test]
fn clients_that_vanish_leave_nothing() -> Result<()> {
    let (warm, count) = if full() { (500, 10_000) } else { (30, 60) };
    let stack = Stack::start()?;
    images::busybox(&stack)?;
    let socket = stack.path("docker.sock");
    let command = "while :; do echo line; usleep 20000; done";
    stack
        .lite([
            "run", "-d", "-i", "--name", "box", "busybox", "sh", "-c", command,
        ])?
        .exits(0)?;
    vanish(&socket, warm)?;
    let mut pids = vec![stack.daemon_pid().context("the daemon runs")?];
    pids.extend(stack.pids_of("containerd-lite")?);
    pids.extend(stack.pids_of("containerd-shim-lite-v2")?);
    // What a burst needed goes back after a while.
    std::thread::sleep(Duration::from_secs(3));
    let before: Vec<_> = pids.iter().map(|pid| held(*pid)).collect::<Result<_>>()?;
    vanish(&socket, count)?;
    eventually::within(Duration::from_secs(60), "all is as before", || {
        for (pid, before) in pids.iter().zip(&before) {
            let now = held(*pid)?;
            let flat = now.kib <= before.kib + 3 * 1024
                && now.descriptors <= before.descriptors + 8
                && now.threads <= before.threads + 8;
            ensure!(flat, "process {pid} held {before:?} and holds {now:?}");
        }
        Ok(())
    })?;
    for (pid, before) in pids.iter().zip(&before) {
        println!(
            "{count} clients of each kind: {before:?} became {:?}",
            held(*pid)?
        );
    }
    let running = stack.lite(["exec", "box", "echo", "here"])?.exits(0)?;
    ensure!(running.stdout == "here\n", "{running:?}");
    stack.stop()
}

/// So many clients of each kind, eight at a time.
fn vanish(socket: &Path, count: usize) -> Result<()> {
    std::thread::scope(|scope| {
        let some = || -> Result<()> {
            for _ in 0..count.div_ceil(8) {
                one(socket)?;
            }
            Ok(())
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(some)).collect();
        let mut ends = threads.into_iter().map(|thread| thread.join());
        ends.try_for_each(|end| end.expect("a client does not panic"))
    })
}

/// One that attaches, one that follows the log, and one that runs a command; each goes without a word.
fn one(socket: &Path) -> Result<()> {
    let upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n";
    begun(
        socket,
        "POST",
        "/containers/box/attach?stream=1&stdin=1&stdout=1&stderr=1",
        upgrade,
        "",
    )?;
    begun(
        socket,
        "GET",
        "/containers/box/logs?stdout=1&follow=1&tail=1",
        "",
        "",
    )?;
    let body = r#"{"AttachStdin":true,"AttachStdout":true,"Cmd":["sh","-c","echo begun; cat"]}"#;
    let made = ask(socket, "POST", "/containers/box/exec", body)?;
    let made = made.json();
    let id = made["Id"].as_str().context("an exec's id")?;
    let headers = format!("{upgrade}Content-Type: application/json\r\n");
    begun(socket, "POST", &format!("/exec/{id}/start"), &headers, "{}")
}

/// Asks, reads until the stream has begun, and vanishes.
fn begun(socket: &Path, method: &str, path: &str, headers: &str, body: &str) -> Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: d\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut seen = Vec::new();
    let mut part = [0; 512];
    let has_begun = |seen: &[u8]| {
        let end = seen.windows(4).position(|w| w == b"\r\n\r\n");
        end.is_some_and(|end| seen.len() > end + 4)
    };
    while !has_begun(&seen) {
        match stream.read(&mut part)? {
            0 => anyhow::bail!("{path}: {:?}", String::from_utf8_lossy(&seen)),
            n => seen.extend_from_slice(&part[..n]),
        }
    }
    Ok(())
}
