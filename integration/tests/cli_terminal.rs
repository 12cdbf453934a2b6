//! docker-lite at a terminal, on the whole stack: sizes, keys, signals, and a terminal that is never left raw.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use integration::stack::{Stack, send};
use integration::{eventually, images, programs};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::Signal;
use nix::sys::termios::{LocalFlags, tcgetattr};

const PATIENCE: Duration = Duration::from_secs(30);

/// A docker-lite whose standard streams are a terminal.
struct AtTerminal {
    master: std::fs::File,
    slave: OwnedFd,
    child: Child,
    screen: Arc<Mutex<String>>,
}

impl AtTerminal {
    fn start(stack: &Stack, args: &[&str]) -> Result<AtTerminal> {
        let size = Winsize {
            ws_row: 30,
            ws_col: 100,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(Some(&size), None)?;
        let end = || pty.slave.try_clone();
        let child = stack
            .client_command(&programs::path("docker-lite")?, args)
            .stdin(end()?)
            .stdout(end()?)
            .stderr(end()?)
            .spawn()?;
        let master = std::fs::File::from(pty.master);
        let screen = Arc::new(Mutex::new(String::new()));
        let (mut from, to) = (master.try_clone()?, screen.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(got) = from.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..got]).into_owned();
                to.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push_str(&text);
            }
        });
        Ok(AtTerminal {
            master,
            slave: pty.slave,
            child,
            screen,
        })
    }

    fn screen(&self) -> String {
        self.screen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn is_raw(&self) -> Result<bool> {
        Ok(!tcgetattr(self.slave.as_fd())?
            .local_flags
            .contains(LocalFlags::ICANON))
    }

    fn is_raw_soon(&self, raw: bool) -> Result<()> {
        eventually::within(PATIENCE, &format!("raw: {raw}"), || {
            ensure!(self.is_raw()? == raw, "screen {:?}", self.screen());
            Ok(())
        })
    }

    fn keys(&mut self, keys: &str) -> Result<()> {
        self.master.write_all(keys.as_bytes()).context("type")
    }

    fn shows(&self, what: &str) -> Result<()> {
        eventually::within(PATIENCE, &format!("{what:?} is on the screen"), || {
            ensure!(self.screen().contains(what), "{:?}", self.screen());
            Ok(())
        })
    }

    fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        // the slave is not its controlling terminal, so the kernel does not tell it
        let out = std::process::Command::new("stty")
            .args(["rows", &rows.to_string(), "cols", &columns.to_string()])
            .stdin(self.slave.try_clone()?)
            .status()?;
        ensure!(out.success(), "stty {out}");
        send(self.child.id(), Signal::SIGWINCH)
    }

    fn ends(&mut self) -> Result<ExitStatus> {
        let status = eventually::within(PATIENCE, "docker-lite ends", || {
            match self.child.try_wait()? {
                Some(status) => Ok(status),
                None => bail!(
                    "screen {:?}",
                    self.screen.lock().unwrap_or_else(PoisonError::into_inner)
                ),
            }
        })?;
        ensure!(!self.is_raw()?, "the terminal was left raw");
        Ok(status)
    }
}

impl Drop for AtTerminal {
    fn drop(&mut self) {
        // gone already, if the test came to its end
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The container's terminal has these rows and columns.
fn has_size(stack: &Stack, size: &str) -> Result<()> {
    eventually::within(PATIENCE, &format!("the size is {size}"), || {
        let out = stack.lite(["exec", "tty", "stty", "-F", "/dev/pts/0", "size"])?;
        ensure!(out.stdout.contains(size), "{out:?}");
        Ok(())
    })
}

#[test]
fn at_a_terminal() -> Result<()> {
    let mut stack = Stack::start()?;
    images::busybox(&stack)?;

    let mut here = AtTerminal::start(&stack, &["run", "-it", "--name", "tty", "busybox", "sh"])?;
    here.is_raw_soon(true)?;
    here.keys("echo fir''st\r")?;
    here.shows("first")?;
    has_size(&stack, "30 100")?;
    here.resize(41, 120)?;
    has_size(&stack, "41 120")?;
    // ctrl-c is the program's
    here.keys("sleep 1000\r")?;
    eventually::within(PATIENCE, "it sleeps", || {
        ensure!(
            stack.lite(["top", "tty"])?.stdout.contains("sleep 1000"),
            "not yet"
        );
        Ok(())
    })?;
    here.keys("\x03")?;
    here.keys("echo aft''er $?\r")?;
    here.shows("after 130")?;
    // detach leaves it running
    here.keys("\x10\x11")?;
    ensure!(here.ends()?.code() == Some(0), "detached");
    let running = stack
        .lite(["inspect", "-f", "{{.State.Running}}", "tty"])?
        .exits(0)?;
    ensure!(running.stdout == "true\n", "after detaching: {running:?}");

    // a killed daemon: cooked while it is away, raw again with it, and the same shell
    let mut again = AtTerminal::start(&stack, &["attach", "--detach-keys", "ctrl-x", "tty"])?;
    again.is_raw_soon(true)?;
    again.keys("echo be''fore\r")?;
    again.shows("before")?;
    stack.kill_daemon()?;
    again.is_raw_soon(false)?;
    stack.start_daemon()?;
    again.is_raw_soon(true)?;
    again.keys("echo back; exit 6\r")?;
    again.shows("back")?;
    ensure!(
        again.ends()?.code() == Some(6),
        "the shell's own code: {:?}",
        again.screen()
    );

    // an exec, and a signal that ends us
    stack
        .lite(["run", "-d", "--name", "up", "busybox", "sleep", "1000"])?
        .exits(0)?;
    let mut exec = AtTerminal::start(&stack, &["exec", "-it", "up", "sh"])?;
    exec.is_raw_soon(true)?;
    send(exec.child.id(), Signal::SIGTERM)?;
    ensure!(exec.ends()?.code() == Some(143), "SIGTERM");
    let mut refused = AtTerminal::start(&stack, &["run", "-it", "--rm", "busybox", "/nope"])?;
    ensure!(refused.ends()?.code() == Some(127), "no such command");
    drop((here, again, exec, refused));
    stack.stop()
}

#[test]
fn a_reader_that_goes_is_no_failure_to_speak_of() -> Result<()> {
    let stack = Stack::start()?;
    images::busybox(&stack)?;
    let lite = programs::path("docker-lite")?;
    let script = format!(
        "'{0}' run --rm busybox yes | head -n 1; echo ${{PIPESTATUS[0]}}",
        lite.display()
    );
    let mut bash = stack.client_command(std::path::Path::new("/bin/bash"), ["-c", &script]);
    let out = programs::run(&mut bash, b"", Duration::from_secs(60))?.exits(0)?;
    ensure!(out.stdout == "y\n141\n" && out.stderr.is_empty(), "{out:?}");
    let names = stack.lite(["ps", "-q"])?.exits(0)?.stdout;
    for id in names.split_whitespace() {
        stack.lite(["rm", "-f", id])?.exits(0)?;
    }
    stack.stop()
}
