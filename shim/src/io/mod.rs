//! Where the output of a process goes and its input comes from.
//!
//! ```text
//!  process ──pipe or pty──▶ pump ──▶ sink: fifo | plain file | json-file log, then attachers | nothing
//!          ◀─pipe or pty── pump ◀── stdin fifo
//!  process ──pipe──▶ binary logger (a child of ours; no pump)
//! ```
//!
//! [`prepare`] opens everything before the runtime is called, so that a bad path fails the call; [`Prepared::start`] begins
//! to copy once the runtime has succeeded, so that what the runtime itself prints on failure is not taken for output.
//! A pump reads only when its sink has taken what came before: that is the back-pressure.
//!
//! Async; one thread, so all pumps share one read buffer.

mod attach;
pub(crate) mod console;
mod log;
mod logger;
mod open;
mod pump;
pub(crate) mod relay;
mod uri;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

pub(crate) use attach::Hub;
pub(crate) use open::prepare;
use pump::{Sink, pump_in, pump_out};
pub(crate) use uri::Output;

use crate::reaper::Reaper;
use crate::sys;

/// The stdio of a process could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IoError {
    #[error("{attempt} {}", path.display())]
    Path {
        attempt: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("make a pipe for the process")]
    Pipe(#[source] std::io::Error),
    #[error("{0}")]
    Uri(String),
    #[error("logger {}: {problem}", path.display())]
    Logger { path: PathBuf, problem: String },
}

impl IoError {
    /// Whether the request itself is at fault.
    pub(crate) fn is_request(&self) -> bool {
        matches!(self, Self::Uri(_))
    }
}

/// Which output a byte came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// What a request says about stdio.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stdio {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

impl Stdio {
    /// The attach socket it names, listening from now on.
    pub(crate) fn hub(&self) -> Result<Option<Arc<Hub>>, IoError> {
        let socket = match Output::parse(&self.stdout)? {
            Output::Attach(socket) => Some(socket),
            Output::JsonFile(config) => config.attach,
            _ => None,
        };
        socket
            .map(|path| Hub::listen(&path, self.terminal))
            .transpose()
    }
}

/// Who the stdio is for.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    pub(crate) namespace: String,
    pub(crate) id: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) reaper: Reaper,
}

/// Opened ends, before the process exists.
#[derive(Debug)]
pub(crate) struct Prepared {
    child: [Option<OwnedFd>; 3],
    outputs: Vec<(Option<OwnedFd>, Sink)>,
    stdin: Option<Input>,
    logger: Option<logger::Logger>,
    hub: Option<Arc<Hub>>,
}

#[derive(Debug)]
struct Input {
    from: OwnedFd,
    /// Keeps the fifo from ending while clients come and go; CloseIO drops it.
    keep: Option<OwnedFd>,
    /// The process's end of a pipe; none for a tty.
    to: Option<OwnedFd>,
}

/// Running stdio of a process.
#[derive(Debug, Default)]
pub(crate) struct ProcessIo {
    outputs: Vec<JoinHandle<()>>,
    stdin: Option<JoinHandle<()>>,
    keep: Option<OwnedFd>,
    console: Option<Arc<AsyncFd<OwnedFd>>>,
    logger: Option<logger::Logger>,
    hub: Option<Arc<Hub>>,
}

impl Prepared {
    /// The ends for the process; they are given away once.
    pub(crate) fn take_child(&mut self) -> [Option<OwnedFd>; 3] {
        std::mem::take(&mut self.child)
    }

    /// Begins to copy. `console` is the master of the process's tty, if it has one.
    pub(crate) fn start(self, console: Option<OwnedFd>) -> Result<ProcessIo, IoError> {
        let console = console.map(watch).transpose()?.map(Arc::new);
        let mut io = ProcessIo::default();
        io.console.clone_from(&console);
        io.logger = self.logger;
        io.hub = self.hub;
        let mut sources = Vec::new();
        for (read, sink) in self.outputs {
            let source = match read {
                Some(fd) => Arc::new(watch(fd)?),
                None => match &console {
                    Some(console) => console.clone(),
                    None => continue,
                },
            };
            sources.push((source, sink));
        }
        if let Some(hub) = &io.hub {
            hub.expect_streams(sources.len());
        }
        io.outputs = sources
            .into_iter()
            .map(|(source, sink)| tokio::spawn(pump_out(source, sink)))
            .collect();
        if let Some(input) = self.stdin {
            let to = match input.to {
                Some(fd) => Some(Arc::new(watch(fd)?)),
                None => console,
            };
            if let Some(to) = to {
                io.stdin = Some(tokio::spawn(pump_in(watch(input.from)?, to)));
                io.keep = input.keep;
            }
        }
        Ok(io)
    }
}

fn watch(fd: OwnedFd) -> Result<AsyncFd<OwnedFd>, IoError> {
    sys::set_nonblocking(&fd).map_err(IoError::Pipe)?;
    sys::watch(fd).map_err(IoError::Pipe)
}

impl ProcessIo {
    /// Lets stdin end once its clients have left.
    pub(crate) fn close_stdin(&mut self) {
        self.keep = None;
    }

    /// The process has ended; what it left in its pipes is taken in at once.
    pub(crate) fn process_left(&self) {
        if let Some(hub) = &self.hub {
            hub.process_left();
        }
    }

    /// Tells a tty its size.
    pub(crate) fn resize(&self, width: u16, height: u16) -> std::io::Result<()> {
        let Some(console) = &self.console else {
            return Ok(());
        };
        let size = rustix::termios::Winsize {
            ws_row: height,
            ws_col: width,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        Ok(rustix::termios::tcsetwinsize(console.get_ref(), size)?)
    }

    /// Waits until all output has gone where it belongs, at most `limit`; then lets attachers that do not read go, and
    /// gives up on what still has not ended.
    pub(crate) async fn drain(mut self, limit: Duration) {
        let mut outputs = std::mem::take(&mut self.outputs);
        let hub = self.hub.clone();
        let all = async {
            join(&mut outputs).await;
            if let Some(hub) = hub {
                hub.taken().await;
            }
        };
        if tokio::time::timeout(limit, all).await.is_err() {
            if let Some(hub) = &self.hub {
                hub.drop_all();
            }
            // What is still open then is held by a process outside of the container's life.
            let _ = tokio::time::timeout(Duration::from_millis(500), join(&mut outputs)).await;
        }
        for output in outputs {
            output.abort();
        }
        if let Some(logger) = self.logger.take() {
            logger.stop().await;
        }
    }
}

async fn join(handles: &mut Vec<JoinHandle<()>>) {
    while let Some(handle) = handles.last_mut() {
        // A pump that was aborted or panicked has ended as well.
        let _ = handle.await;
        handles.pop();
    }
}

impl Drop for ProcessIo {
    fn drop(&mut self) {
        if let Some(stdin) = &self.stdin {
            stdin.abort();
        }
        for output in &self.outputs {
            output.abort();
        }
        if let Some(hub) = &self.hub {
            hub.close();
        }
    }
}
