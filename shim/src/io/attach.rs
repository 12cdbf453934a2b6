//! The attach socket: every connection is one independent attacher of a process's output.
//!
//! An attacher gets what is said from its connection on: Docker's 8-byte frames (kind 1 stdout, 2 stderr, then the length,
//! big-endian), or the raw bytes of a tty, and end of stream after the last byte, at once if that is past. One that does
//! not read holds the process up, as Docker's does; one that is gone is dropped. It never writes; if it only closes its
//! sending side it stays.
//!
//! Each attacher has a task that flushes what could not go at once and watches for its leaving. Async.

use std::collections::VecDeque;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::{IoError, Stream};
use crate::{diag, sys, transport};

/// How often an attacher that closed its sending side is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Most kept for an attacher once the process has ended: more than its pipes can hold.
const LEFT: usize = 256 * 1024;

/// The attachers of one process.
#[derive(Debug)]
pub(crate) struct Hub {
    path: PathBuf,
    listener: Arc<AsyncFd<StdListener>>,
    /// A tty: no frames.
    raw: bool,
    inner: Mutex<Inner>,
    /// Some attacher has taken what was kept for it, or left.
    taken: Notify,
    acceptor: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Inner {
    attachers: Vec<Arc<Attacher>>,
    /// Streams that have not ended; unknown before the process starts.
    streams: Option<usize>,
    /// The process has ended: what it left is taken in without waiting for attachers.
    left: bool,
}

impl Inner {
    fn ended(&self) -> bool {
        self.streams == Some(0)
    }
}

#[derive(Debug)]
struct Attacher {
    socket: UnixStream,
    state: Mutex<AttacherState>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct AttacherState {
    pending: VecDeque<u8>,
    ended: bool,
    gone: bool,
}

impl Attacher {
    fn state(&self) -> MutexGuard<'_, AttacherState> {
        self.state.lock().expect("no holder of an attacher panics")
    }

    /// Whether at most `bytes` wait for it.
    fn has_at_most(&self, bytes: usize) -> bool {
        let state = self.state();
        state.gone || state.pending.len() <= bytes
    }

    /// Sends, keeping what does not go at once.
    fn send(&self, parts: [&[u8]; 2]) {
        let mut state = self.state();
        if state.gone || state.ended {
            return;
        }
        let mut sent = 0;
        if state.pending.is_empty() {
            let slices = parts.map(std::io::IoSlice::new);
            match self.socket.try_write_vectored(&slices) {
                Ok(n) => sent = n,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => state.gone = true,
            }
        }
        for part in parts {
            let skip = sent.min(part.len());
            sent -= skip;
            state.pending.extend(&part[skip..]);
        }
        if state.gone || !state.pending.is_empty() {
            self.changed.notify_one();
        }
    }

    /// Sends what was kept; whether all of it went.
    fn flush(&self) {
        let mut state = self.state();
        while !state.pending.is_empty() {
            match self.socket.try_write(state.pending.as_slices().0) {
                Ok(n) => drop(state.pending.drain(..n)),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    state.gone = true;
                    return;
                }
            }
        }
        state.pending = VecDeque::new();
    }
}

impl Hub {
    /// Listens at `path`, mode 0600; a socket left there by a dead shim is replaced.
    pub(crate) fn listen(path: &Path, raw: bool) -> Result<Arc<Self>, IoError> {
        let failed = |attempt| {
            move |source| IoError::Path {
                attempt,
                path: path.to_owned(),
                source,
            }
        };
        let listener = bind_private(path).map_err(failed("listen for attachers at"))?;
        let listener = sys::watch(listener).map_err(failed("watch attach socket"))?;
        let hub = Arc::new(Self {
            path: path.to_owned(),
            listener: Arc::new(listener),
            raw,
            inner: Mutex::default(),
            taken: Notify::new(),
            acceptor: Mutex::default(),
        });
        let task = tokio::spawn(accept_all(hub.listener.clone(), Arc::downgrade(&hub)));
        *hub.acceptor.lock().expect("nobody else has it yet") = Some(task);
        Ok(hub)
    }

    /// Where attachers connect.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of a hub panics")
    }

    /// Takes in every attacher that has connected by now.
    pub(crate) fn accept_pending(self: &Arc<Self>) {
        while let Ok((stream, _)) = self.listener.get_ref().accept() {
            self.take_in(stream);
        }
    }

    fn take_in(self: &Arc<Self>, stream: std::os::unix::net::UnixStream) {
        let socket = match stream
            .set_nonblocking(true)
            .and_then(|()| UnixStream::from_std(stream))
        {
            Ok(socket) => socket,
            Err(error) => return diag::warn(format_args!("take in attacher: {error}")),
        };
        if !transport::may_speak(&socket) {
            return;
        }
        let mut inner = self.inner();
        if inner.ended() {
            return; // dropping the socket is the end of its stream
        }
        let attacher = Arc::new(Attacher {
            socket,
            state: Mutex::default(),
            changed: Notify::new(),
        });
        inner.attachers.push(attacher.clone());
        tokio::spawn(attend(attacher, Arc::downgrade(self)));
    }

    /// How many streams the process has.
    pub(super) fn expect_streams(&self, count: usize) {
        self.inner().streams = Some(count);
    }

    /// Gives `bytes` to all attachers.
    pub(super) fn send(&self, stream: Stream, bytes: &[u8]) {
        let kind = match stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        };
        let [a, b, c, d] = u32::try_from(bytes.len())
            .expect("a read is at most a chunk")
            .to_be_bytes();
        let frame = [kind, 0, 0, 0, a, b, c, d];
        let header: &[u8] = if self.raw { &[] } else { &frame };
        for attacher in &self.inner().attachers {
            attacher.send([header, bytes]);
        }
    }

    /// Waits until no attacher has anything kept for it. Of a process that has ended some may be kept: its log must not wait
    /// for a client that does not read.
    pub(super) async fn drained(&self) {
        self.kept_at_most(|inner| if inner.left { LEFT } else { 0 })
            .await;
    }

    /// Waits until all attachers have taken everything.
    pub(super) async fn taken(&self) {
        self.kept_at_most(|_| 0).await;
    }

    async fn kept_at_most(&self, bytes: impl Fn(&Inner) -> usize) {
        loop {
            let taken = self.taken.notified();
            {
                let inner = self.inner();
                let bytes = bytes(&inner);
                if inner.attachers.iter().all(|a| a.has_at_most(bytes)) {
                    return;
                }
            }
            taken.await;
        }
    }

    /// The process has ended.
    pub(crate) fn process_left(&self) {
        self.inner().left = true;
        self.taken.notify_waiters();
    }

    /// One stream has ended; after the last one attachers get their end.
    pub(super) fn end_stream(&self) {
        let mut inner = self.inner();
        inner.streams = inner.streams.map(|n| n.saturating_sub(1));
        if inner.ended() {
            end(&mut inner);
        }
    }

    /// Lets all attachers go, whether they have read or not.
    pub(super) fn drop_all(&self) {
        for attacher in self.inner().attachers.drain(..) {
            attacher.state().gone = true;
            attacher.changed.notify_one();
        }
        self.taken.notify_waiters();
    }

    /// Stops listening; attachers get what was kept for them and their end.
    pub(crate) fn close(&self) {
        let acceptor = self
            .acceptor
            .lock()
            .expect("no holder of the acceptor panics")
            .take();
        let Some(acceptor) = acceptor else {
            return;
        };
        acceptor.abort();
        crate::file::remove(&self.path);
        let mut inner = self.inner();
        inner.streams = Some(0);
        end(&mut inner);
    }

    fn left(&self, attacher: &Arc<Attacher>) {
        self.inner().attachers.retain(|a| !Arc::ptr_eq(a, attacher));
        self.taken.notify_waiters();
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.close();
    }
}

fn end(inner: &mut Inner) {
    for attacher in &inner.attachers {
        attacher.state().ended = true;
        attacher.changed.notify_one();
    }
}

fn bind_private(path: &Path) -> std::io::Result<StdListener> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    // One thread: nobody else makes a file under this mask.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = StdListener::bind(path);
    rustix::process::umask(before);
    let listener = listener?;
    listener.set_nonblocking(true)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn accept_all(listener: Arc<AsyncFd<StdListener>>, hub: Weak<Hub>) {
    loop {
        let Ok(mut guard) = listener.readable().await else {
            return;
        };
        let Some(hub) = hub.upgrade() else {
            return;
        };
        match guard.try_io(|l| l.get_ref().accept()) {
            Ok(Ok((stream, _))) => hub.take_in(stream),
            Ok(Err(error)) => {
                diag::warn(format_args!("accept attacher: {error}"));
                // Out of descriptors, most likely; others must get their turn.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(_would_block) => {}
        }
    }
}

/// Serves one attacher until it has got its end or is gone.
async fn attend(attacher: Arc<Attacher>, hub: Weak<Hub>) {
    let mut sending = true;
    loop {
        let (waiting, over) = {
            let state = attacher.state();
            let waiting = !state.pending.is_empty();
            (waiting, state.gone || state.ended && !waiting)
        };
        if over {
            break;
        }
        tokio::select! {
            () = attacher.changed.notified() => {}
            Ok(()) = attacher.socket.writable(), if waiting => {
                attacher.flush();
                if let Some(hub) = hub.upgrade() {
                    hub.taken.notify_waiters();
                }
            }
            Ok(()) = attacher.socket.readable(), if sending => sending = listen(&attacher),
            () = tokio::time::sleep(LOOK), if !sending => {}
        }
        if !sending && is_hung_up(&attacher.socket) {
            attacher.state().gone = true;
        }
    }
    if let Some(hub) = hub.upgrade() {
        hub.left(&attacher);
    }
}

/// Throws away what an attacher says; whether it can still say something.
fn listen(attacher: &Attacher) -> bool {
    let mut buffer = [0; 512];
    loop {
        match attacher.socket.try_read(&mut buffer) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return true,
            Err(_) => {
                attacher.state().gone = true;
                return false;
            }
        }
    }
}

/// Whether the peer has closed both directions.
fn is_hung_up(socket: &UnixStream) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    let now = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let polled = rustix::event::poll(&mut fds, Some(&now));
    polled.is_ok() && fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn an_attacher_gets_frames_then_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let hub = Hub::listen(&path, false).unwrap();
        let mut client = UnixStream::connect(&path).await.unwrap();
        hub.accept_pending();
        hub.expect_streams(2);
        hub.send(Stream::Stdout, b"hi");
        hub.send(Stream::Stderr, b"x");
        hub.end_stream();
        hub.end_stream();
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"\x01\0\0\0\0\0\0\x02hi\x02\0\0\0\0\0\0\x01x");
        let mut late = UnixStream::connect(&path).await.unwrap();
        assert_eq!(late.read_to_end(&mut got).await.unwrap(), 0);
        hub.close();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_a_process_left_does_not_wait_for_attachers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let hub = Hub::listen(&path, true).unwrap();
        let mut client = UnixStream::connect(&path).await.unwrap();
        hub.accept_pending();
        hub.expect_streams(1);
        let mut sent = 0;
        while tokio::time::timeout(Duration::from_millis(30), hub.drained())
            .await
            .is_ok()
        {
            hub.send(Stream::Stdout, &[1; 4096]);
            sent += 4096;
        }
        hub.process_left();
        hub.drained().await;
        hub.send(Stream::Stdout, &[1; 65_536]);
        hub.drained().await;
        hub.end_stream();
        hub.close();
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got.len(), sent + 65_536);
    }

    #[tokio::test]
    async fn a_slow_attacher_holds_up_and_a_gone_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let hub = Hub::listen(&path, true).unwrap();
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.shutdown().await.unwrap(); // closes only its sending side
        hub.accept_pending();
        hub.expect_streams(1);
        let chunk = vec![7; 65_536];
        let mut sent = 0;
        while tokio::time::timeout(Duration::from_millis(30), hub.drained())
            .await
            .is_ok()
        {
            hub.send(Stream::Stdout, &chunk);
            sent += chunk.len();
        }
        let mut got = vec![0; sent];
        client.read_exact(&mut got).await.unwrap();
        hub.drained().await;
        hub.send(Stream::Stdout, &vec![7; 8 << 20]);
        drop(client);
        hub.drained().await;
        assert!(hub.inner().attachers.iter().all(|a| a.has_at_most(0)));
    }
}
