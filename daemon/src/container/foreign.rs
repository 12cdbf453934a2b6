//! Containers whose shim is not ours: it knows fifos only, so a relay of ours turns them into the log and the attach socket.
//!
//! ```text
//!  process ──▶ foreign shim ──SHORT.out, SHORT.err──▶ containerd-shim-lite-v2 relay ──▶ log, SHORT.sock
//! ```
//!
//! That is the case on a containerd that does not find our shim, and for runtimes whose type is another one. Everything above
//! the socket stays as it is, and the relay outlives this daemon as a shim does. The fifo beside a container's socket tells
//! a later daemon that there is one. A relay ends when its fifos do; what is left of one is ended by opening and closing them.

use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use proto::containerd::runc::v1::Options;
use proto::containerd::services::containers::v1::container;
use proto::layout;
use rustix::fs::{Mode, OFlags};
use tokio::io::AsyncReadExt as _;

use super::attach::Files;
use crate::App;
use crate::config::Runtime;
use crate::error::{During, Error, Result};

/// How long a relay may take to get ready.
const READY: Duration = Duration::from_secs(10);
/// How long one may take to write what is left once its fifos have ended.
const END: Duration = Duration::from_secs(3);

/// The streams of a process under a foreign shim.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Whether a runtime's shim understands our log and attach addresses.
pub(super) fn is_ours(runtime: &Runtime) -> bool {
    [layout::RUNTIME_TYPE, layout::RUNTIME_TYPE_ALIAS].contains(&runtime.kind.as_str())
}

/// Whether a create failed because containerd has no shim of ours.
pub(super) fn is_missing(error: &Error) -> bool {
    error.message().contains("binary not installed")
}

/// The runtime of a container as containerd shall know it; `foreign` puts containerd's own in the place of ours.
pub(super) fn runtime(app: &App, given: &Runtime, foreign: bool) -> container::Runtime {
    let instead = foreign && is_ours(given);
    let own = || {
        let path = beside(layout::program::RUNTIME)?;
        Some(path.to_string_lossy().into_owned())
    };
    let path = match (&given.path, instead) {
        (None, true) => own(),
        (path, _) => path.clone(),
    };
    let root = app.config.exec_root.join("runc");
    let options = Options {
        binary_name: path.clone().unwrap_or_default(),
        root: match instead {
            true => root.to_string_lossy().into_owned(),
            false => String::new(),
        },
        ..Options::default()
    };
    container::Runtime {
        name: match instead {
            true => layout::RUNTIME_TYPE_RUNC.to_owned(),
            false => given.kind.clone(),
        },
        options: (instead || path.is_some()).then(|| proto::any::pack(&options)),
    }
}

/// A program of ours that lies beside this one.
pub(super) fn beside(name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    Some(own.with_file_name(name)).filter(|path| path.is_file())
}

/// Whether the process that these files belong to has a relay.
pub(super) fn is_relayed(files: &Files) -> bool {
    files.stdout.exists()
}

/// Makes the fifos and starts a relay from them to `uri`; it is ready when this returns.
pub(super) async fn begin(files: &Files, uri: &str, terminal: bool) -> Result<Streams> {
    let mut fifos = vec![&files.stdout];
    if !terminal {
        fifos.push(&files.stderr);
    }
    for fifo in &fifos {
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
        nix::unistd::mkfifo(fifo.as_path(), mode)
            .during(|| format!("make fifo {}", fifo.display()))?;
    }
    let program = beside(layout::program::SHIM).unwrap_or_else(|| layout::program::SHIM.into());
    let mut command = std::process::Command::new(&program);
    // A group of its own, so that signals for this daemon's do not reach it.
    command
        .args(["-namespace", "relay", "-id", "relay", "relay", uri])
        .args(&fifos)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .process_group(0);
    let what = || format!("start {} for foreign output", program.display());
    let mut child = tokio::process::Command::from(command)
        .spawn()
        .during(what)?;
    let mut word = [0; 6];
    let mut out = child.stdout.take().ok_or_else(|| Error::internal(what()))?;
    match tokio::time::timeout(READY, out.read_exact(&mut word)).await {
        Ok(Ok(_)) => {}
        _ => {
            // It may have ended by itself, having said why in our log.
            let _ = child.start_kill();
            return Err(Error::internal("it does not get ready").during(what()));
        }
    }
    let text = |path: &Path| path.to_string_lossy().into_owned();
    Ok(Streams {
        stdout: text(&files.stdout),
        stderr: fifos.get(1).map(|path| text(path)).unwrap_or_default(),
    })
}

/// Ends the relay of a process that is over, if it has one: after this its log is complete.
pub(super) async fn end(files: &Files) {
    if !is_relayed(files) {
        return;
    }
    for fifo in [&files.stdout, &files.stderr] {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        // One whose writer never came sees its end by this. No reader means no relay, and that is what is wanted.
        drop(rustix::fs::open(fifo, flags, Mode::empty()));
    }
    let gone = async {
        while UnixStream::connect(&files.socket).is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(END, gone).await.is_err() {
        tracing::warn!("the relay of {} does not end", files.socket.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_shim_makes_a_container_foreign() {
        let missing = "failed to start shim: failed to resolve runtime path: runtime \"io.containerd.runc.lite.v2\" binary not installed \"containerd-shim-lite-v2\": file does not exist";
        assert!(is_missing(&Error::internal(missing)));
        assert!(!is_missing(&Error::internal(
            "OCI runtime create failed: exec: \"x\": file does not exist"
        )));
    }
}
