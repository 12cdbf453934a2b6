//! The runtime's command line as typed calls: the shim's whole view of an OCI runtime.
//!
//! A call is a child of ours that dies with us; the reaper waits for it, and a deadline bounds it, after which it is
//! killed. Its error text is the last error of its log file, else what it wrote to standard error.

use std::ffi::OsString;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::oneshot;

use crate::options::RuntimeOptions;
use crate::reaper::{Exit, Reaper};
use crate::sys::{self, Program};

/// Longest `create`, `start`, `exec` and `restore`: hooks of users run in it.
pub(crate) const LONG: Duration = Duration::from_secs(300);
/// Longest call that only touches the kernel.
pub(crate) const SHORT: Duration = Duration::from_secs(30);

/// A call of the runtime failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuntimeError {
    #[error("{}", not_started(binary, source))]
    Spawn {
        binary: PathBuf,
        source: std::io::Error,
    },
    #[error("{text}")]
    Failed { text: String },
    /// Somebody else killed it: how far it got is not known.
    #[error("runtime {verb} was killed by signal {signal}")]
    Killed { verb: &'static str, signal: u32 },
    #[error("runtime {verb} did not end within {limit:?} and was killed")]
    Deadline { verb: &'static str, limit: Duration },
}

impl RuntimeError {
    /// Whether the call ended without saying what it did.
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(self, Self::Killed { .. } | Self::Deadline { .. })
    }
}

/// Clients look for Go's words to tell 126 and 127 from other errors.
fn not_started(binary: &Path, source: &std::io::Error) -> String {
    match source.kind() {
        std::io::ErrorKind::NotFound if binary.components().count() == 1 => {
            format!("exec: {binary:?}: executable file not found in $PATH")
        }
        _ => format!("exec: {binary:?}: {source}"),
    }
}

/// The runtime of one container.
#[derive(Debug, Clone)]
pub(crate) struct Runc {
    pub(crate) binary: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) directory: PathBuf,
    pub(crate) systemd_cgroup: bool,
    pub(crate) reaper: Reaper,
}

/// One call: the words after the global options, and what the child gets.
#[derive(Debug, Default)]
pub(crate) struct Call {
    pub(crate) verb: &'static str,
    pub(crate) args: Vec<OsString>,
    /// The container's stdio for the calls that hand it over; none captures standard error.
    pub(crate) stdio: Option<[Option<OwnedFd>; 3]>,
    pub(crate) traceparent: Option<String>,
    /// Log file of this call, if not the container's.
    pub(crate) log: Option<PathBuf>,
}

impl Call {
    /// A call of `verb` with `args`.
    pub(crate) fn new<A: Into<OsString>>(
        verb: &'static str,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        Self {
            verb,
            args: args.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }
}

/// A runtime call under way.
#[derive(Debug)]
pub(crate) struct Running {
    verb: &'static str,
    pid: u32,
    exit: oneshot::Receiver<Exit>,
    log: PathBuf,
    log_start: u64,
    stderr: Option<std::fs::File>,
}

impl Runc {
    /// The runtime that `options` name for the container in `bundle`.
    pub(crate) fn new(
        options: &RuntimeOptions,
        bundle: &Path,
        address: &str,
        namespace: &str,
        reaper: Reaper,
    ) -> Self {
        Self {
            binary: options.binary(),
            root: options.root(address, namespace),
            log: bundle.join(proto::layout::RUNTIME_LOG),
            directory: bundle.to_owned(),
            systemd_cgroup: options.systemd_cgroup,
            reaper,
        }
    }

    /// Runs a call to its end.
    pub(crate) async fn run(&self, call: Call, limit: Duration) -> Result<(), RuntimeError> {
        self.spawn(call)?.finish(limit).await
    }

    /// What the runtime says that the container is doing (`created`, `running`, ...); none if it does not tell.
    pub(crate) async fn status(&self, id: &str) -> Option<String> {
        #[derive(Deserialize)]
        struct State {
            status: String,
        }
        let mut told = memory_file().ok()?;
        let stdout = told.try_clone().ok()?;
        let call = Call {
            stdio: Some([None, Some(stdout.into()), None]),
            ..Call::new("state", [id])
        };
        self.run(call, SHORT).await.ok()?;
        let mut bytes = Vec::new();
        told.seek(SeekFrom::Start(0)).ok()?;
        told.take(1 << 20).read_to_end(&mut bytes).ok()?;
        let state: State = serde_json::from_slice(&bytes).ok()?;
        Some(state.status)
    }

    /// Starts a call.
    pub(crate) fn spawn(&self, call: Call) -> Result<Running, RuntimeError> {
        let failed = |source| RuntimeError::Spawn {
            binary: self.binary.clone(),
            source,
        };
        let log = call.log.unwrap_or_else(|| self.log.clone());
        let log_start = std::fs::metadata(&log).map_or(0, |m| m.len());
        let (stdio, stderr) = match call.stdio {
            Some(stdio) => (stdio, None),
            None => {
                let file = memory_file().map_err(failed)?;
                let own = file.try_clone().map_err(failed)?;
                ([None, None, Some(file.into())], Some(own))
            }
        };
        let mut args: Vec<OsString> = vec![
            "--root".into(),
            self.root.clone().into(),
            "--log".into(),
            log.clone().into(),
            "--log-format".into(),
            "json".into(),
        ];
        if self.systemd_cgroup {
            args.push("--systemd-cgroup".into());
        }
        args.push(call.verb.into());
        args.extend(call.args);
        let env = call
            .traceparent
            .map(|trace| (proto::trace::TRACEPARENT_ENV.into(), trace.into()));
        let pid = Program {
            path: self.binary.clone().into(),
            args,
            env: env.into_iter().collect(),
            directory: Some(self.directory.clone()),
            stdio,
            die_with_parent: true,
            ..Program::default()
        }
        .spawn()
        .map_err(failed)?;
        Ok(Running {
            verb: call.verb,
            pid,
            exit: self.reaper.claim(pid),
            log,
            log_start,
            stderr,
        })
    }
}

impl Running {
    /// Waits for the end of the call; past the limit it is killed.
    pub(crate) async fn finish(mut self, limit: Duration) -> Result<(), RuntimeError> {
        let Ok(result) = tokio::time::timeout(limit, &mut self.exit).await else {
            // It may have ended this moment; then there is nothing to kill.
            let _ = sys::signal(self.pid, 9);
            let _ = (&mut self.exit).await;
            return Err(RuntimeError::Deadline {
                verb: self.verb,
                limit,
            });
        };
        match result {
            Ok(Exit {
                status: 0,
                signal: None,
                ..
            }) => Ok(()),
            Ok(Exit {
                signal: Some(signal),
                ..
            }) => Err(RuntimeError::Killed {
                verb: self.verb,
                signal,
            }),
            Ok(exit) => Err(RuntimeError::Failed {
                text: self.error_text(exit.status),
            }),
            Err(_) => Err(RuntimeError::Failed {
                text: format!("runtime {}: its exit was lost", self.verb),
            }),
        }
    }

    fn error_text(&mut self, status: u32) -> String {
        if let Some(text) = last_error(&self.log, self.log_start) {
            return text;
        }
        let mut text = String::new();
        if let Some(file) = &mut self.stderr {
            let mut bytes = Vec::new();
            // An unreadable memory file only costs the text.
            let _ = file.seek(SeekFrom::Start(0));
            let _ = file.take(4096).read_to_end(&mut bytes);
            text = String::from_utf8_lossy(&bytes).trim().to_owned();
        }
        match text.is_empty() {
            false => text,
            true => format!("runtime {} exited with code {status}", self.verb),
        }
    }
}

/// A file in memory for what a call prints: it takes everything, however much, without anybody reading along.
pub(crate) fn memory_file() -> std::io::Result<std::fs::File> {
    let fd = rustix::fs::memfd_create("runtime-output", rustix::fs::MemfdFlags::CLOEXEC)?;
    Ok(fd.into())
}

#[derive(Deserialize)]
struct LogLine {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
}

/// The last error-level message of a runtime log behind `start`.
fn last_error(log: &Path, start: u64) -> Option<String> {
    let mut file = std::fs::File::open(log).ok()?;
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut bytes = Vec::new();
    file.take(1 << 20).read_to_end(&mut bytes).ok()?;
    bytes
        .split(|b| *b == b'\n')
        .filter_map(|line| serde_json::from_slice::<LogLine>(line).ok())
        .rfind(|line| matches!(line.level.as_str(), "error" | "fatal" | "panic"))
        .map(|line| line.msg.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_this_call_counts() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log.json");
        let old = "{\"level\":\"error\",\"msg\":\"old\"}\n";
        std::fs::write(&log, old).unwrap();
        assert_eq!(last_error(&log, old.len() as u64), None);
        let more = format!(
            "{old}{{\"level\":\"error\",\"msg\":\"first\"}}\n{{\"level\":\"error\",\"msg\":\"exec: \\\"x\\\": not found\"}}\nnoise\n{{\"level\":\"warning\",\"msg\":\"w\"}}\n"
        );
        std::fs::write(&log, more).unwrap();
        assert_eq!(
            last_error(&log, old.len() as u64).unwrap(),
            "exec: \"x\": not found"
        );
        assert_eq!(last_error(Path::new("/nonexistent"), 0), None);
    }
}
