//! Where the five programs are, and how a command is run to its end.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// What a finished command printed.
#[derive(Debug, Clone)]
pub struct Output {
    /// The exit code; -1 for a signal.
    pub code: i32,
    /// Standard output, lossy.
    pub stdout: String,
    /// Standard error, lossy.
    pub stderr: String,
}

impl Output {
    /// Fails unless the command exited with `code`.
    pub fn exits(self, code: i32) -> Result<Self> {
        ensure!(
            self.code == code,
            "exit code {}, wanted {code}: stdout {:?}, stderr {:?}",
            self.code,
            self.stdout,
            self.stderr
        );
        Ok(self)
    }
}

/// The folder of the five programs: `LITE_BIN_DIR`, or the one this test was built into.
pub fn folder() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("LITE_BIN_DIR") {
        return Ok(PathBuf::from(dir));
    }
    let test = std::env::current_exe().context("path of this test")?;
    let dir = test
        .parent()
        .and_then(Path::parent)
        .context("folder of this test")?;
    Ok(dir.to_owned())
}

/// The path of one of our programs.
pub fn path(name: &str) -> Result<PathBuf> {
    let path = folder()?.join(name);
    ensure!(
        path.is_file(),
        "no {}: build the five programs first (make build), or set LITE_BIN_DIR",
        path.display()
    );
    Ok(path)
}

/// The path of a program of this machine: on PATH, then in the administrator's folders.
pub fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// Runs a command to its end, at most for `limit`, with `input` on its standard input.
pub fn run(command: &mut Command, input: &[u8], limit: Duration) -> Result<Output> {
    let what = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {what}"))?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let input = input.to_owned();
    let feed = std::thread::spawn(move || {
        // a command that does not read its input closes the pipe: not an error of the test
        let _ = stdin.write_all(&input);
    });
    let out = drain(child.stdout.take().expect("stdout is piped"));
    let err = drain(child.stderr.take().expect("stderr is piped"));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            bail!("{what}: still running after {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    feed.join().expect("the feeding thread does not panic");
    Ok(Output {
        code: status.code().unwrap_or(-1),
        stdout: out.join().expect("the reading thread does not panic"),
        stderr: err.join().expect("the reading thread does not panic"),
    })
}

fn drain(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // what was read before an error is still worth showing
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A command with arguments.
pub fn command<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}
