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
mod pump;
mod uri;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{Gid, Mode, OFlags, Uid};
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

pub(crate) use attach::Hub;
use log::{JsonFile, Lines};
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

/// Opens what `stdio` names. `hub` is its attach socket, bound earlier by [`Stdio::hub`].
pub(crate) async fn prepare(
    stdio: &Stdio,
    hub: Option<Arc<Hub>>,
    owner: &Owner,
) -> Result<Prepared, IoError> {
    let mut prepared = Prepared {
        child: [None, None, None],
        outputs: Vec::new(),
        stdin: None,
        logger: None,
        hub: hub.clone(),
    };
    let output = Output::parse(&stdio.stdout)?;
    if stdio.terminal {
        let sink = match output {
            Output::Null => Sink::Null,
            output => open_sink(output, Stream::Stdout, &mut None, hub)?,
        };
        prepared.outputs.push((None, sink));
    } else if let Output::Binary {
        program,
        args,
        needs_byte,
    } = output
    {
        let (out_read, out_write) = owned_pipe(owner)?;
        let (err_read, err_write) = owned_pipe(owner)?;
        prepared.child[1] = Some(out_write);
        prepared.child[2] = Some(err_write);
        let logger =
            logger::Logger::start(program, args, needs_byte, [out_read, err_read], owner).await?;
        prepared.logger = Some(logger);
    } else {
        let mut shared = None;
        let both = !matches!(output, Output::Null | Output::Path(_));
        let stderr = match both {
            true => Some(output.clone()),
            false => Some(Output::parse(&stdio.stderr)?),
        };
        for (number, stream, output) in [
            (1, Stream::Stdout, Some(output)),
            (2, Stream::Stderr, stderr),
        ] {
            let Some(output) = output.filter(|o| *o != Output::Null) else {
                continue;
            };
            let sink = open_sink(output, stream, &mut shared, hub.clone())?;
            let (read, write) = owned_pipe(owner)?;
            prepared.child[number] = Some(write);
            prepared.outputs.push((Some(read), sink));
        }
    }
    open_stdin(stdio, owner, &mut prepared)?;
    Ok(prepared)
}

fn open_stdin(stdio: &Stdio, owner: &Owner, prepared: &mut Prepared) -> Result<(), IoError> {
    if stdio.stdin.is_empty() {
        return Ok(());
    }
    let path = Path::new(&stdio.stdin);
    let from = open(path, OFlags::RDONLY | OFlags::NONBLOCK, "open stdin")?;
    if !is_fifo(path) {
        if !stdio.terminal {
            prepared.child[0] = Some(from);
        }
        return Ok(());
    }
    let keep = Some(open(path, OFlags::WRONLY | OFlags::NONBLOCK, "open stdin")?);
    let to = if stdio.terminal {
        None
    } else {
        let (read, write) = owned_pipe(owner)?;
        prepared.child[0] = Some(read);
        Some(write)
    };
    prepared.stdin = Some(Input { from, keep, to });
    Ok(())
}

fn open_sink(
    output: Output,
    stream: Stream,
    shared: &mut Option<Arc<Mutex<JsonFile>>>,
    hub: Option<Arc<Hub>>,
) -> Result<Sink, IoError> {
    Ok(match output {
        Output::Null => Sink::Null,
        Output::Path(path) if is_fifo(&path) => {
            // Both ends: as long as we live the fifo neither ends nor breaks when its reader leaves and returns.
            let fd = open(&path, OFlags::RDWR | OFlags::NONBLOCK, "open fifo")?;
            let fd = sys::watch(fd).map_err(|source| IoError::Path {
                attempt: "watch fifo",
                path,
                source,
            })?;
            Sink::fifo(fd)
        }
        Output::Path(path) => Sink::File(append(&path, false)?),
        Output::File(path) => Sink::File(append(&path, true)?),
        Output::Attach(_) => Sink::Journal {
            stream,
            log: None,
            lines: Lines::default(),
            hub,
        },
        Output::JsonFile(config) => {
            let log = match shared {
                Some(log) => log.clone(),
                None => {
                    let log = JsonFile::open(&config).map_err(|source| IoError::Path {
                        attempt: "open log",
                        path: config.path.clone(),
                        source,
                    })?;
                    shared.insert(Arc::new(Mutex::new(log))).clone()
                }
            };
            Sink::Journal {
                stream,
                log: Some(log),
                lines: Lines::default(),
                hub,
            }
        }
        Output::Binary { program, .. } => {
            return Err(IoError::Uri(format!(
                "logger {} cannot serve a terminal",
                program.display()
            )));
        }
    })
}

fn append(path: &Path, create: bool) -> Result<File, IoError> {
    std::fs::OpenOptions::new()
        .append(true)
        .create(create)
        .mode(0o644)
        .open(path)
        .map_err(|source| IoError::Path {
            attempt: "open",
            path: path.to_owned(),
            source,
        })
}

fn open(path: &Path, flags: OFlags, attempt: &'static str) -> Result<OwnedFd, IoError> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).map_err(|e| IoError::Path {
        attempt,
        path: path.to_owned(),
        source: e.into(),
    })
}

fn is_fifo(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.file_type().is_fifo())
}

/// A pipe that belongs to the container's root user, who may open it again through `/proc/self/fd`.
fn owned_pipe(owner: &Owner) -> Result<(OwnedFd, OwnedFd), IoError> {
    let (read, write) = sys::pipe().map_err(IoError::Pipe)?;
    if (owner.uid, owner.gid) != (0, 0) {
        for end in [&read, &write] {
            rustix::fs::fchown(
                end,
                Some(Uid::from_raw(owner.uid)),
                Some(Gid::from_raw(owner.gid)),
            )
            .map_err(|e| IoError::Pipe(e.into()))?;
        }
    }
    Ok((read, write))
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
