//! Connections to the shim's attach socket.
//!
//! Each connection is one attacher of its own and gets, from then on, Docker's 8-byte frames (raw bytes for a tty) until the
//! end of output. One made between Tasks.Create and Tasks.Start misses nothing. Stdin goes another way, by the fifo that the
//! shim keeps open; closing ours does not end it, CloseIO does.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use tokio::net::UnixStream;
use tokio::net::unix::pipe;

use crate::config::Config;
use crate::error::{During, Error, Result};

/// Longest path of a unix socket.
const LONGEST: usize = 106;

/// An attacher's two ends.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The output.
    pub(crate) output: UnixStream,
    /// The input, where the process has one.
    pub(crate) input: Option<pipe::Sender>,
}

/// The files by which one process talks: below exec-root, short names.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) socket: PathBuf,
    pub(crate) stdin: PathBuf,
    /// Fifos of a process whose shim is not ours.
    pub(super) stdout: PathBuf,
    pub(super) stderr: PathBuf,
    /// There once a start was asked for: what containerd then has may have run. Gone with the boot, as the task is.
    asked: PathBuf,
}

impl Files {
    /// Of the process with this id (a container's or an exec's).
    pub(crate) fn of(config: &Config, id: &str) -> Self {
        let dir = config.exec_root.join("io");
        let short = id.get(..24).unwrap_or(id);
        Self {
            socket: dir.join(format!("{short}.sock")),
            stdin: dir.join(format!("{short}.in")),
            stdout: dir.join(format!("{short}.out")),
            stderr: dir.join(format!("{short}.err")),
            asked: dir.join(format!("{short}.asked")),
        }
    }

    /// Makes the directory and, where there is input, the fifo; takes away what a former life left.
    pub(crate) fn prepare(&self, input: bool) -> Result<()> {
        if self.socket.as_os_str().len() > LONGEST {
            return Err(Error::invalid(format!(
                "exec-root is too long: {} has more than {LONGEST} characters",
                self.socket.display()
            )));
        }
        if let Some(dir) = self.socket.parent() {
            crate::make_private(dir)?;
        }
        self.remove();
        if input {
            let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
            nix::unistd::mkfifo(&self.stdin, mode)
                .during(|| format!("make fifo {}", self.stdin.display()))?;
        }
        Ok(())
    }

    /// Notes that a start is about to be asked for.
    pub(super) fn note_asked(&self) -> Result<()> {
        std::fs::write(&self.asked, "").during(|| format!("make {}", self.asked.display()))
    }

    /// Takes the note back: the start was refused.
    pub(super) fn forget_asked(&self) {
        // Absent is what is wanted.
        let _ = std::fs::remove_file(&self.asked);
    }

    /// Whether a start was asked for since they were prepared.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.exists()
    }

    /// Takes them away.
    pub(crate) fn remove(&self) {
        for path in [
            &self.socket,
            &self.stdin,
            &self.stdout,
            &self.stderr,
            &self.asked,
        ] {
            // Absent is what is wanted.
            let _ = std::fs::remove_file(path);
        }
    }

    /// Connects an attacher; `input` opens the fifo as well.
    pub(crate) async fn connect(&self, input: bool) -> Result<Connection> {
        let output = UnixStream::connect(&self.socket)
            .await
            .during(|| format!("attach to {}", self.socket.display()))?;
        let input = if input {
            Some(open_fifo(&self.stdin)?)
        } else {
            None
        };
        Ok(Connection { output, input })
    }
}

fn open_fifo(path: &Path) -> Result<pipe::Sender> {
    let what = || format!("open stdin {}", path.display());
    let fifo = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_fifo());
    if !fifo {
        return Err(Error::internal("it is no fifo").during(what()));
    }
    // The shim opens an exec's fifo only when it starts it; a descriptor for both directions need not wait for that.
    pipe::OpenOptions::new()
        .read_write(true)
        .open_sender(path)
        .during(what)
}
