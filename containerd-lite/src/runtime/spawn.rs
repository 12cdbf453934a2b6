//! Runs a shim's short-lived commands (`start`, `delete`) to their end.
//!
//! ```text
//!  caller ── run() ──▶ thread of its own: leaves the shared umask, spawns, reads, waits ── oneshot ──▶ caller
//! ```
//!
//! Why a thread: this program works under umask 077, but what a shim starts inherits its umask down to the container,
//! which must see 022. A umask belongs to a thread that has left the shared file system state, so the spawning thread
//! leaves it first. Ends with the command, at the latest with the deadline: then the command's process group is killed.
//! Sync inside, async outside.

use std::ffi::OsString;
use std::fs::File;
use std::io::{PipeReader, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};

/// Most of a command's output that is kept.
const OUTPUT_LIMIT: usize = 1 << 20;
/// What the umask of a shim and of all below it is.
const UMASK: u32 = 0o022;
/// The thread only spawns, polls and reads.
const STACK: usize = 256 * 1024;

/// One command to run.
#[derive(Debug)]
pub(super) struct Invocation {
    /// Absolute path of the program.
    pub(super) program: PathBuf,
    /// Arguments without the program's name.
    pub(super) args: Vec<OsString>,
    /// Variables set on top of the own environment.
    pub(super) env: Vec<(&'static str, OsString)>,
    /// Working directory.
    pub(super) cwd: PathBuf,
    /// Standard input; none is the null device.
    pub(super) stdin: Option<File>,
    /// Whether standard error joins standard output; else it goes to our own.
    pub(super) combined: bool,
}

/// How a command ended.
#[derive(Debug)]
pub(super) struct Output {
    /// Its exit status.
    pub(super) status: ExitStatus,
    /// What it printed.
    pub(super) bytes: Vec<u8>,
}

/// Why a command has no output.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    /// A system call failed.
    #[error("{attempt} {}", program.display())]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// With which program.
        program: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The command did not end.
    #[error("{} did not end within {limit:?} and was killed", program.display())]
    Timeout {
        /// The command.
        program: PathBuf,
        /// The time it had.
        limit: Duration,
    },
}

/// Runs `command` for at most `limit`.
pub(super) async fn run(command: Invocation, limit: Duration) -> Result<Output, SpawnError> {
    let (reply, answer) = tokio::sync::oneshot::channel();
    let program = command.program.clone();
    let failed = |source| SpawnError::Io {
        attempt: "start a thread for",
        program: program.clone(),
        source,
    };
    std::thread::Builder::new()
        .name("shim-command".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            // The caller may be gone; the command has run all the same.
            let _ = reply.send(run_here(command, limit));
        })
        .map_err(failed)?;
    answer
        .await
        .map_err(|_| failed(std::io::Error::other("it ended without an answer")))?
}

fn run_here(command: Invocation, limit: Duration) -> Result<Output, SpawnError> {
    let program = command.program.clone();
    let io = |attempt| {
        let program = program.clone();
        move |source| SpawnError::Io {
            attempt,
            program,
            source,
        }
    };
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS)
        .map_err(|e| io("set the umask for")(e.into()))?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(UMASK));

    let (reader, mut child) = spawn(command).map_err(io("execute"))?;
    let pidfd = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap_or(0))
        .ok_or(rustix::io::Errno::SRCH)
        .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()))
        .map_err(|e| io("watch")(e.into()))?;
    let deadline = Instant::now() + limit;
    let collected = collect(reader, &pidfd, deadline).map_err(io("read the output of"))?;
    let Some(bytes) = collected else {
        kill_group(&mut child);
        return Err(SpawnError::Timeout { program, limit });
    };
    let status = child.wait().map_err(io("wait for"))?;
    Ok(Output { status, bytes })
}

fn spawn(command: Invocation) -> std::io::Result<(PipeReader, Child)> {
    let (reader, writer) = std::io::pipe()?;
    let mut builder = Command::new(&command.program);
    builder
        .args(&command.args)
        .envs(command.env)
        .current_dir(&command.cwd)
        .process_group(0)
        .stdin(command.stdin.map_or_else(Stdio::null, Stdio::from));
    // Ours alone: a shim must not speak to our service manager nor take our listeners.
    for name in [
        crate::upgrade::handover::VARIABLE,
        "NOTIFY_SOCKET",
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_FDNAMES",
    ] {
        builder.env_remove(name);
    }
    for (name, value) in crate::allocator::SETTINGS {
        if std::env::var(name).is_ok_and(|given| given == value) {
            builder.env_remove(name);
        }
    }
    if command.combined {
        builder.stderr(writer.try_clone()?);
    }
    builder.stdout(writer);
    let child = builder.spawn()?;
    // The builder holds the pipe's write ends; without it the end of the output is seen.
    drop(builder);
    Ok((reader, child))
}

/// Reads until the command has ended, though something it left behind may hold the pipe open. None on the deadline.
fn collect(
    mut reader: PipeReader,
    pidfd: &OwnedFd,
    deadline: Instant,
) -> std::io::Result<Option<Vec<u8>>> {
    rustix::io::ioctl_fionbio(&reader, true)?;
    let mut bytes = Vec::new();
    let mut open = true;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = vec![PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        if open {
            fds.push(PollFd::new(reader.as_fd(), PollFlags::POLLIN));
        }
        match nix::poll::poll(&mut fds, timeout) {
            Ok(0) => return Ok(None),
            Err(nix::errno::Errno::EINTR) => continue,
            other => other?,
        };
        let ended = fds[0].any().unwrap_or(false);
        open = open && drain(&mut reader, &mut bytes)?;
        if ended {
            return Ok(Some(bytes));
        }
    }
}

/// Takes what is there; false at the end of the output.
fn drain(reader: &mut PipeReader, bytes: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut buffer = [0; 4096];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(n) => {
                let room = OUTPUT_LIMIT.saturating_sub(bytes.len());
                bytes.extend_from_slice(&buffer[..n.min(room)]);
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(true),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn kill_group(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    {
        // It is unreaped, so the id is still its own; a group that is gone needs no signal.
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
    // Reaps it; that it was killed is what the caller reports.
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Invocation {
        Invocation {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec![("ANSWER", "42".into())],
            cwd: "/".into(),
            stdin: None,
            combined: true,
        }
    }

    #[tokio::test]
    async fn output_is_combined_and_the_umask_is_a_containers() {
        let output = run(
            shell("echo $ANSWER; umask >&2; exit 3"),
            Duration::from_secs(10),
        )
        .await
        .expect("output");
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(String::from_utf8_lossy(&output.bytes), "42\n0022\n");
    }

    #[tokio::test]
    async fn what_it_leaves_behind_does_not_hold_us() {
        let output = run(shell("sleep 5 & echo x"), Duration::from_secs(4))
            .await
            .expect("output");
        assert_eq!(output.bytes, b"x\n");
    }

    #[tokio::test]
    async fn a_hanging_command_is_killed() {
        let error = run(shell("sleep 60"), Duration::from_millis(50)).await;
        assert!(
            matches!(error, Err(SpawnError::Timeout { .. })),
            "{error:?}"
        );
    }
}
