//! Programs that the configuration wants run at points of a container's life.
//!
//! Each gets the container's state as JSON on its standard input, its own
//! environment and nothing else, and is killed after its timeout. What it
//! prints is kept (the first few kilobytes) for the error, should it fail.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::spec::Hook;

/// A hook that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HookError {
    /// It could not be run.
    #[error("error running {kind} hook #{index}: run {path}")]
    Run {
        kind: &'static str,
        index: usize,
        path: String,
        source: io::Error,
    },
    /// It took too long.
    #[error("error running {kind} hook #{index}: {path} ran past its timeout of {seconds} s")]
    Timeout {
        kind: &'static str,
        index: usize,
        path: String,
        seconds: u64,
    },
    /// It said no.
    #[error("error running {kind} hook #{index}: {path}: {status}, output: {output}")]
    Failed {
        kind: &'static str,
        index: usize,
        path: String,
        status: String,
        output: String,
    },
}

/// Runs hooks in order; the first failure ends it.
pub(crate) fn run(
    kind: &'static str,
    hooks: &[Hook],
    state: &serde_json::Value,
    default_env: &[String],
) -> Result<(), HookError> {
    let input = state.to_string();
    for (index, hook) in hooks.iter().enumerate() {
        run_one(kind, index, hook, &input, default_env)?;
    }
    Ok(())
}

fn run_one(
    kind: &'static str,
    index: usize,
    hook: &Hook,
    input: &str,
    default_env: &[String],
) -> Result<(), HookError> {
    let path = || hook.path.clone();
    let fail = |source| HookError::Run {
        kind,
        index,
        path: path(),
        source,
    };
    let mut output = memory_file("hook-output").map_err(fail)?;
    let mut stdin = memory_file("hook-state").map_err(fail)?;
    stdin.write_all(input.as_bytes()).map_err(fail)?;
    stdin.seek(SeekFrom::Start(0)).map_err(fail)?;

    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear();
    let env = if hook.env.is_empty() {
        default_env
    } else {
        &hook.env
    };
    command.envs(env.iter().filter_map(|e| e.split_once('=')));
    command.stdin(Stdio::from(stdin));
    command.stdout(Stdio::from(output.try_clone().map_err(fail)?));
    command.stderr(Stdio::from(output.try_clone().map_err(fail)?));
    let mut child = command.spawn().map_err(fail)?;
    let Some(status) = wait(&mut child, hook.timeout).map_err(fail)? else {
        return Err(HookError::Timeout {
            kind,
            index,
            path: path(),
            seconds: hook.timeout.unwrap_or(0),
        });
    };
    if status.success() {
        return Ok(());
    }
    let mut text = Vec::new();
    // The output only decorates the error.
    let _ = output
        .seek(SeekFrom::Start(0))
        .and_then(|_| output.take(2048).read_to_end(&mut text));
    Err(HookError::Failed {
        kind,
        index,
        path: path(),
        status: status_text(status),
        output: String::from_utf8_lossy(&text).trim_end().to_owned(),
    })
}

/// Waits for the end; kills and gives none after the timeout.
fn wait(child: &mut Child, timeout: Option<u64>) -> io::Result<Option<ExitStatus>> {
    let Some(seconds) = timeout.filter(|s| *s > 0) else {
        return child.wait().map(Some);
    };
    let pid = Pid::from_raw(child.id() as i32).expect("a child has a pid");
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let limit = Timespec {
        tv_sec: seconds.try_into().unwrap_or(i64::MAX),
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let ended = loop {
        match poll(&mut fds, Some(&limit)) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other? != 0,
        }
    };
    if ended {
        return child.wait().map(Some);
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

fn status_text(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown status".into(),
    }
}

fn memory_file(name: &str) -> io::Result<File> {
    let fd = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)?;
    Ok(File::from(fd))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Option<u64>) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            args: vec!["hook".into(), "-c".into(), script.into()],
            env: vec!["A=1".into()],
            timeout,
        }
    }

    #[test]
    fn a_hook_reads_the_state_and_sees_its_environment_only() {
        let hook = shell(
            "test \"$(cat)\" = '{\"id\":\"x\"}' && test \"$A\" = 1 && test -z \"$HOME\"",
            None,
        );
        run("prestart", &[hook], &serde_json::json!({"id": "x"}), &[]).unwrap();
    }

    #[test]
    fn failure_carries_status_and_output() {
        let hook = shell("echo oh; echo no >&2; exit 3", None);
        let e = run("poststop", &[hook], &serde_json::json!({}), &[]).unwrap_err();
        assert_eq!(
            e.to_string(),
            "error running poststop hook #0: /bin/sh: exit status 3, output: oh\nno"
        );
    }

    #[test]
    fn a_slow_hook_is_killed() {
        let hook = shell("sleep 60", Some(1));
        let e = run("prestart", &[hook], &serde_json::json!({}), &[]).unwrap_err();
        assert!(matches!(e, HookError::Timeout { .. }));
    }
}
