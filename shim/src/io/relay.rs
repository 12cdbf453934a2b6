//! The mode `relay`: what this shim does with a process's output, for a process that has another shim.
//!
//! ```text
//!  process ──▶ foreign shim ──fifos──▶ relay ──▶ json-file log, then attachers
//! ```
//!
//! A daemon above a foreign shim runs one for each process, before the task is created: it opens the fifos, says `ready` on its
//! standard output, and ends once every fifo has ended, which is when the foreign shim has closed it. Like the shim it
//! outlives the daemon. Whoever wants it to end for a task that never came opens the fifos for writing and closes them.
//! Async, one thread.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use tokio::io::unix::AsyncFd;

use super::open::sinks;
use super::pump::{Sink, pump_out};
use super::{Hub, IoError, Stdio, watch};

/// How long attachers may take to read the end.
const TAKE: Duration = Duration::from_secs(10);
/// How often an unused relay looks whether its fifos are still there.
const LOOK: Duration = Duration::from_secs(5);

/// An opened relay.
#[derive(Debug)]
pub(crate) struct Relay {
    streams: Vec<(PathBuf, AsyncFd<OwnedFd>, Sink)>,
    hub: Option<Arc<Hub>>,
}

impl Relay {
    /// Opens what `uri` names and the fifos: of stdout, and of stderr unless the process has a terminal.
    pub(crate) fn open(uri: &str, fifos: &[PathBuf]) -> Result<Self, IoError> {
        let stdio = Stdio {
            stdout: uri.to_owned(),
            terminal: fifos.len() == 1,
            ..Stdio::default()
        };
        let hub = stdio.hub()?;
        let sinks = sinks(&stdio, hub.as_ref())?;
        let open = |path: &PathBuf| {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty()).map_err(|e| IoError::Path {
                attempt: "open fifo",
                path: path.clone(),
                source: e.into(),
            })
        };
        let mut streams = Vec::new();
        for (path, sink) in fifos.iter().zip(sinks) {
            streams.push((path.clone(), watch(open(path)?)?, sink));
        }
        if let Some(hub) = &hub {
            hub.expect_streams(streams.len());
        }
        Ok(Self { streams, hub })
    }

    /// Copies until all streams have ended and attachers have read that.
    pub(crate) async fn run(self) {
        let mut pumps = Vec::new();
        for (path, source, sink) in self.streams {
            let hub = self.hub.clone();
            pumps.push(tokio::spawn(async move {
                first_word(&path, &source).await;
                // Those that connected before the process said anything miss nothing.
                if let Some(hub) = hub {
                    hub.accept_pending();
                }
                pump_out(Arc::new(source), sink).await;
            }));
        }
        for pump in pumps {
            // A pump that panicked has ended as well.
            let _ = pump.await;
        }
        if let Some(hub) = &self.hub {
            // Who does not read in this time has left.
            let _ = tokio::time::timeout(TAKE, hub.taken()).await;
            hub.close();
        }
    }
}

/// Waits for output, for the end of the stream, or until the fifo has been removed without anybody ever writing to it.
async fn first_word(path: &Path, source: &AsyncFd<OwnedFd>) {
    loop {
        tokio::select! {
            ready = source.readable() => {
                // The readiness stays for the pump.
                drop(ready);
                return;
            }
            () = tokio::time::sleep(LOOK) => {
                // Open for both, then closed: the pump sees the end, unless a writer has it open as well.
                if !path.exists() {
                    hang_up(source);
                }
            }
        }
    }
}

/// Makes a fifo that has no writer end.
fn hang_up(source: &AsyncFd<OwnedFd>) {
    use std::os::fd::AsRawFd as _;
    let own = format!("/proc/self/fd/{}", source.get_ref().as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    // Opening is all that is needed; closing it is the end of the stream.
    drop(rustix::fs::open(own, flags, Mode::empty()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use tokio::io::AsyncReadExt as _;

    fn fifo(folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        path
    }

    #[tokio::test]
    async fn both_streams_reach_the_log_and_an_attacher() {
        let folder = tempfile::tempdir().unwrap();
        let fifos = [fifo(folder.path(), "out"), fifo(folder.path(), "err")];
        let (log, socket) = (folder.path().join("log"), folder.path().join("s"));
        let uri = format!("json-file://{}?attach={}", log.display(), socket.display());
        let relay = Relay::open(&uri, &fifos).unwrap();
        let mut attacher = tokio::net::UnixStream::connect(&socket).await.unwrap();
        let running = tokio::spawn(relay.run());
        for (path, text) in fifos.iter().zip(["one\n", "two\n"]) {
            let mut fifo = std::fs::File::options().write(true).open(path).unwrap();
            fifo.write_all(text.as_bytes()).unwrap();
        }
        let mut got = Vec::new();
        attacher.read_to_end(&mut got).await.unwrap();
        let got = String::from_utf8_lossy(&got);
        assert!(got.contains("one\n") && got.contains("two\n"), "{got:?}");
        running.await.unwrap();
        let text = std::fs::read_to_string(&log).unwrap();
        assert!(
            text.contains(r#""log":"one\n","stream":"stdout""#),
            "{text}"
        );
        assert!(
            text.contains(r#""log":"two\n","stream":"stderr""#),
            "{text}"
        );
        assert!(!socket.exists());
    }
}
