//! The copying: one task per stream. Async.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use super::Stream;
use super::attach::Hub;
use super::log::{JsonFile, Lines};
use crate::diag;

/// Most read at once: what a pipe holds.
const CHUNK: usize = 64 * 1024;
/// A writer whose reads are smaller than this and closer together than [`BUSY`] is let to collect for [`COLLECT`]: one
/// wake-up then takes many of its writes.
const SMALL: usize = 8 * 1024;
const BUSY: Duration = Duration::from_millis(3);
const COLLECT: Duration = Duration::from_millis(1);

thread_local! {
    /// One buffer for all pumps of the thread; its pages exist once something was read.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(CHUNK));
}

/// Where a pump puts what it read.
#[derive(Debug)]
pub(super) enum Sink {
    Null,
    Fifo {
        fd: AsyncFd<OwnedFd>,
        pending: Vec<u8>,
    },
    File(File),
    /// The log first, then the attachers.
    Journal {
        stream: Stream,
        log: Option<Arc<Mutex<JsonFile>>>,
        lines: Lines,
        hub: Option<Arc<Hub>>,
    },
}

impl Sink {
    pub(super) fn fifo(fd: AsyncFd<OwnedFd>) -> Self {
        Self::Fifo {
            fd,
            pending: Vec::new(),
        }
    }

    /// Takes all of `bytes`; what cannot go at once is kept.
    fn put(&mut self, bytes: &[u8]) {
        match self {
            Self::Null => {}
            Self::Fifo { fd, pending } => match rustix::io::write(&*fd, bytes) {
                Ok(n) => pending.extend_from_slice(&bytes[n..]),
                Err(_) => pending.extend_from_slice(bytes),
            },
            Self::File(file) => {
                if let Err(error) = file.write_all(bytes) {
                    diag::warn(format_args!(
                        "write output file: {error}; {} bytes lost",
                        bytes.len()
                    ));
                }
            }
            Self::Journal {
                stream,
                log,
                lines,
                hub,
            } => {
                if let Some(log) = log {
                    let mut log = log.lock().expect("no holder of a log panics");
                    log.append(*stream, lines, bytes, SystemTime::now());
                }
                if let Some(hub) = hub {
                    hub.send(*stream, bytes);
                }
            }
        }
    }

    /// Waits until what was kept is gone.
    async fn ready(&mut self) {
        match self {
            Self::Fifo { fd, pending } if !pending.is_empty() => {
                if let Err(error) = write_all(fd, pending).await {
                    diag::warn(format_args!(
                        "write output fifo: {error}; {} bytes lost",
                        pending.len()
                    ));
                }
                *pending = Vec::new();
            }
            Self::Journal { hub: Some(hub), .. } => hub.drained().await,
            _ => {}
        }
    }

    fn end(&mut self) {
        if let Self::Journal {
            stream,
            log,
            lines,
            hub,
        } = self
        {
            if let Some(log) = log {
                let mut log = log.lock().expect("no holder of a log panics");
                log.finish(*stream, lines, SystemTime::now());
            }
            if let Some(hub) = hub {
                hub.end_stream();
            }
        }
    }
}

/// Copies a process's output until it ends.
pub(super) async fn pump_out(source: Arc<AsyncFd<OwnedFd>>, mut sink: Sink) {
    let mut last: Option<Instant> = None;
    loop {
        sink.ready().await;
        let Ok(mut guard) = source.readable().await else {
            break;
        };
        let result = guard.try_io(|fd| {
            BUFFER.with_borrow_mut(|buffer| {
                buffer.clear();
                let n = read(fd.get_ref(), buffer)?;
                sink.put(buffer);
                Ok(n)
            })
        });
        match result {
            Ok(Ok(0)) => break,
            Ok(Ok(n)) => {
                let now = Instant::now();
                let close = last.is_some_and(|last| now.duration_since(last) < BUSY);
                last = Some(now);
                if n < SMALL && close {
                    tokio::time::sleep(COLLECT).await;
                } else {
                    // A pipe that never runs dry must not keep the one thread from answering requests.
                    tokio::task::yield_now().await;
                }
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(error)) => {
                diag::warn(format_args!("read output: {error}"));
                break;
            }
            Err(_would_block) => {}
        }
    }
    sink.ready().await;
    sink.end();
}

/// Reads into the spare room of `buffer`. A tty that everybody has closed is at its end.
fn read(fd: &OwnedFd, buffer: &mut Vec<u8>) -> io::Result<usize> {
    match rustix::io::read(fd, rustix::buffer::spare_capacity(buffer)) {
        Ok(n) => Ok(n),
        Err(Errno::IO) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Copies a client's input to the process until the input ends or the process does not want more.
pub(super) async fn pump_in(source: AsyncFd<OwnedFd>, target: Arc<AsyncFd<OwnedFd>>) {
    let mut chunk = Vec::new();
    loop {
        let Ok(mut guard) = source.readable().await else {
            return;
        };
        chunk.clear();
        chunk.reserve(4096);
        match guard.try_io(|fd| read(fd.get_ref(), &mut chunk)) {
            Ok(Ok(0)) => return,
            Ok(Ok(_)) => {
                if let Err(error) = write_all(&target, &chunk).await {
                    diag::debug(format_args!("write stdin: {error}"));
                    return;
                }
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(error)) => {
                diag::warn(format_args!("read stdin: {error}"));
                return;
            }
            Err(_would_block) => {}
        }
    }
}

async fn write_all(fd: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut guard = fd.writable().await?;
        match guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
            Ok(Ok(n)) => bytes = &bytes[n..],
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(error)) => return Err(error),
            Err(_would_block) => {}
        }
    }
    Ok(())
}
