//! The user's terminal: raw while a container's terminal is attached, as it was afterwards, however it ends.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fake_daemon;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use fake_daemon::{FakeDaemon, endless, held, hijacked, json};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// A docker-lite whose standard streams are a terminal.
struct AtTerminal {
    master: std::fs::File,
    slave: OwnedFd,
    child: Child,
}

impl AtTerminal {
    fn start(daemon: &FakeDaemon, args: &[&str]) -> AtTerminal {
        let pty = openpty(None, None).unwrap();
        tcsetwinsize(
            &pty.master,
            Winsize {
                ws_row: 30,
                ws_col: 100,
                ws_xpixel: 0,
                ws_ypixel: 0,
            },
        )
        .unwrap();
        let end = || pty.slave.try_clone().unwrap();
        let child = daemon
            .command(args)
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        AtTerminal {
            master: pty.master.into(),
            slave: pty.slave,
            child,
        }
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.slave)
            .unwrap()
            .local_modes
            .contains(LocalModes::ICANON)
    }

    fn send(&mut self, keys: &[u8]) {
        self.master.write_all(keys).unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap()),
            signal,
        )
        .unwrap();
    }

    fn finish(&mut self) -> ExitStatus {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > end {
                self.child.kill().unwrap();
                panic!("docker-lite did not end");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What is on the screen so far.
    fn screen(&mut self) -> String {
        let mut bytes = vec![0; 65536];
        let got = self.master.read(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..got]).into_owned()
    }
}

impl Drop for AtTerminal {
    fn drop(&mut self) {
        // Gone already, if the test came to its end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn running() -> FakeDaemon {
    FakeDaemon::start(vec![
        (
            "POST /containers/create",
            json("201 Created", r#"{"Id":"ab","Warnings":[]}"#),
        ),
        ("POST /containers/ab/attach", held(b"prompt> ")),
        ("POST /containers/ab/wait", endless()),
        ("POST /containers/ab/start", json("204 No Content", "")),
        ("POST /containers/ab/resize", json("200 OK", "")),
        ("POST /containers/ab/kill", json("204 No Content", "")),
    ])
}

#[test]
fn detach_keys_leave_and_restore() {
    let daemon = running();
    let mut here = AtTerminal::start(&daemon, &["run", "-it", "busybox"]);
    eventually("the terminal is raw", || here.is_raw());
    eventually("the size was told", || {
        daemon
            .asked()
            .contains(&"POST /containers/ab/resize?h=30&w=100".to_string())
    });
    here.send(b"\x10\x11");
    assert_eq!(here.finish().code(), Some(0));
    assert!(!here.is_raw());
    assert!(here.screen().contains("prompt> "));
}

#[test]
fn a_signal_restores_before_it_ends_us() {
    let daemon = running();
    let mut here = AtTerminal::start(&daemon, &["run", "-it", "--sig-proxy=false", "busybox"]);
    eventually("the terminal is raw", || here.is_raw());
    here.signal(Signal::SIGTERM);
    assert_eq!(here.finish().code(), Some(143));
    assert!(!here.is_raw());
}

#[test]
fn signals_go_to_the_container() {
    let daemon = running();
    let mut here = AtTerminal::start(&daemon, &["run", "-it", "busybox"]);
    eventually("the container was started", || {
        daemon
            .asked()
            .contains(&"POST /containers/ab/resize?h=30&w=100".to_string())
    });
    here.signal(Signal::SIGTERM);
    eventually("the signal was sent on", || {
        daemon
            .asked()
            .contains(&"POST /containers/ab/kill?signal=TERM".to_string())
    });
    assert!(here.is_raw(), "it goes on until the container ends");
    here.send(b"\x10\x11");
    here.finish();
}

#[test]
fn a_daemon_that_goes_away_leaves_no_raw_terminal() {
    let daemon = FakeDaemon::start(vec![
        (
            "GET /containers/web/json",
            json("200 OK", r#"{"Id":"web"}"#),
        ),
        (
            "POST /containers/web/exec",
            json("201 Created", r#"{"Id":"e"}"#),
        ),
        ("POST /exec/e/start", hijacked(b"")),
        (
            "GET /exec/e/json",
            json("500 Internal Server Error", r#"{"message":"gone"}"#),
        ),
    ]);
    let mut here = AtTerminal::start(&daemon, &["exec", "-it", "web", "sh"]);
    assert_eq!(here.finish().code(), Some(1));
    assert!(!here.is_raw());
    assert!(here.screen().contains("Error response from daemon: gone"));
}

#[test]
fn a_failed_start_leaves_no_raw_terminal() {
    let daemon = FakeDaemon::start(vec![
        (
            "POST /containers/create",
            json("201 Created", r#"{"Id":"ab","Warnings":[]}"#),
        ),
        ("POST /containers/ab/attach", held(b"")),
        ("POST /containers/ab/wait", endless()),
        (
            "POST /containers/ab/start",
            json("400 Bad Request", r#"{"message":"x: permission denied"}"#),
        ),
    ]);
    let mut here = AtTerminal::start(&daemon, &["run", "-it", "busybox", "x"]);
    assert_eq!(here.finish().code(), Some(126));
    assert!(!here.is_raw());
}
