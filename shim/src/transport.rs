//! Accepted connections: who may speak, and what has been asked and not yet answered.
//!
//! Every accepted socket passes through one wrapper. It lets a peer in only if it runs under our user and group, and it
//! follows the ttrpc frames in both directions, so that at any time the set of unanswered requests is known, with their
//! stream ids. A shim that replaces its own binary answers them later on the same socket; a shim that shuts down knows when
//! its last reply is on the wire.
//!
//! Async.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Sleep;

use crate::diag;

const HEADER: usize = 10;
/// Longest payload of the protocol; a longer one is refused by the server and not kept here.
const PAYLOAD: usize = 4 << 20;
/// Pause after a failed accept.
const AFTER_FAILURE: Duration = Duration::from_millis(100);
const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;

/// A request without its answer yet, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unanswered {
    /// The encoded `ttrpc.Request`.
    pub(crate) request: Vec<u8>,
}

/// The unanswered requests of all connections, by connection and stream id; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    next_connection: u64,
    open: BTreeMap<(u64, u32), Unanswered>,
}

impl Ledger {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().expect("no holder of the ledger panics")
    }

    fn connection(&self) -> u64 {
        let mut entries = self.entries();
        entries.next_connection += 1;
        entries.next_connection
    }

    /// Whether a request whose encoding contains `method` waits for its answer.
    pub(crate) fn holds(&self, method: &str) -> bool {
        let method = method.as_bytes();
        let entries = self.entries();
        entries
            .open
            .values()
            .any(|open| open.request.windows(method.len()).any(|w| w == method))
    }

    fn forget(&self, connection: u64) {
        self.entries().open.retain(|(c, _), _| *c != connection);
    }
}

/// Connections accepted from a listener and let in.
#[derive(Debug)]
pub(crate) struct Accepted {
    listener: UnixListener,
    ledger: Ledger,
    /// After a failure: out of descriptors, most likely, and the one thread must not spin on it.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Accepted {
    /// Follows `listener`, noting requests in `ledger`.
    pub(crate) fn new(listener: UnixListener, ledger: Ledger) -> Self {
        Self {
            listener,
            ledger,
            pause: None,
        }
    }
}

impl Stream for Accepted {
    type Item = io::Result<Connection>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(pause) = &mut this.pause {
                ready!(pause.as_mut().poll(cx));
                this.pause = None;
            }
            match ready!(this.listener.poll_accept(cx)) {
                Ok((stream, _)) => {
                    if may_speak(&stream) {
                        let connection = Connection::new(stream, this.ledger.clone());
                        return Poll::Ready(Some(Ok(connection)));
                    }
                }
                Err(error) => {
                    diag::warn(format_args!("accept connection: {error}"));
                    this.pause = Some(Box::pin(tokio::time::sleep(AFTER_FAILURE)));
                }
            }
        }
    }
}

/// Whether the peer runs under our own user and group.
pub(crate) fn may_speak(stream: &UnixStream) -> bool {
    let own = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    match stream.peer_cred() {
        Ok(peer) if (peer.uid(), peer.gid()) == own => true,
        Ok(peer) => {
            diag::warn(format_args!(
                "connection from pid {:?} refused: user {} group {}, want {} {}",
                peer.pid(),
                peer.uid(),
                peer.gid(),
                own.0,
                own.1
            ));
            false
        }
        Err(error) => {
            diag::warn(format_args!(
                "connection refused: ask for its peer: {error}"
            ));
            false
        }
    }
}

/// One connection with its frames followed.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    number: u64,
    ledger: Ledger,
    inbound: Follower,
    outbound: Follower,
}

impl Connection {
    fn new(stream: UnixStream, ledger: Ledger) -> Self {
        Self {
            stream,
            number: ledger.connection(),
            ledger,
            inbound: Follower::keeping(REQUEST),
            outbound: Follower::keeping(0),
        }
    }

    fn sent(&mut self, bytes: &[u8]) {
        let (ledger, number) = (&self.ledger, self.number);
        self.outbound.follow(bytes, |frame| {
            if frame.kind == RESPONSE {
                ledger.entries().open.remove(&(number, frame.stream));
            }
        });
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.ledger.forget(self.number);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        let (ledger, number) = (&this.ledger, this.number);
        this.inbound.follow(&buf.filled()[before..], |frame| {
            if frame.kind == REQUEST {
                let entry = Unanswered {
                    request: frame.payload.to_vec(),
                };
                ledger.entries().open.insert((number, frame.stream), entry);
            }
        });
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let n = ready!(Pin::new(&mut this.stream).poll_write(cx, buf))?;
        this.sent(&buf[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let n = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, bufs))?;
        let mut left = n;
        for part in bufs {
            let take = left.min(part.len());
            this.sent(&part[..take]);
            left -= take;
        }
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// A whole frame that went by.
struct Frame<'a> {
    stream: u32,
    kind: u8,
    /// Empty unless frames of this kind are kept.
    payload: &'a [u8],
}

/// Finds the frames in one direction of a byte stream, however it is cut.
#[derive(Debug)]
struct Follower {
    keep: u8,
    header: [u8; HEADER],
    have: usize,
    left: usize,
    payload: Vec<u8>,
}

impl Follower {
    /// Keeps the payload of frames of kind `keep`.
    fn keeping(keep: u8) -> Self {
        Self {
            keep,
            header: [0; HEADER],
            have: 0,
            left: 0,
            payload: Vec::new(),
        }
    }

    fn follow(&mut self, mut bytes: &[u8], mut whole: impl FnMut(Frame<'_>)) {
        while !bytes.is_empty() {
            if self.have < HEADER {
                let take = bytes.len().min(HEADER - self.have);
                self.header[self.have..self.have + take].copy_from_slice(&bytes[..take]);
                self.have += take;
                bytes = &bytes[take..];
                if self.have < HEADER {
                    return;
                }
                let [a, b, c, d, ..] = self.header;
                self.left = u32::from_be_bytes([a, b, c, d]) as usize;
            }
            let take = bytes.len().min(self.left);
            let kind = self.header[8];
            if kind == self.keep && self.payload.len() + take <= PAYLOAD {
                self.payload.extend_from_slice(&bytes[..take]);
            }
            self.left -= take;
            bytes = &bytes[take..];
            if self.left == 0 {
                let [_, _, _, _, a, b, c, d, ..] = self.header;
                whole(Frame {
                    stream: u32::from_be_bytes([a, b, c, d]),
                    kind,
                    payload: &self.payload,
                });
                self.payload = Vec::new();
                self.have = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(stream: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = u32::try_from(payload.len()).unwrap().to_be_bytes().to_vec();
        out.extend(stream.to_be_bytes());
        out.extend([kind, 0]);
        out.extend(payload);
        out
    }

    proptest! {
        #[test]
        fn frames_are_found_however_they_are_cut(
            frames in proptest::collection::vec((any::<u32>(), 0u8..4, proptest::collection::vec(any::<u8>(), 0..40)), 0..12),
            cuts in proptest::collection::vec(1usize..30, 1..40),
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(s, k, p)| frame(*s, *k, p)).collect();
            let mut follower = Follower::keeping(REQUEST);
            let mut found = Vec::new();
            let (mut at, mut cut) = (0, cuts.iter().cycle());
            while at < bytes.len() {
                let end = (at + cut.next().unwrap()).min(bytes.len());
                follower.follow(&bytes[at..end], |f| found.push((f.stream, f.kind, f.payload.to_vec())));
                at = end;
            }
            let want: Vec<_> = frames
                .into_iter()
                .map(|(s, k, p)| (s, k, if k == REQUEST { p } else { Vec::new() }))
                .collect();
            prop_assert_eq!(found, want);
        }
    }

    #[tokio::test]
    async fn a_request_is_open_until_its_answer_is_written() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (here, mut there) = UnixStream::pair().unwrap();
        let ledger = Ledger::default();
        let mut connection = Connection::new(here, ledger.clone());
        there
            .write_all(&frame(1, REQUEST, b"..Wait.."))
            .await
            .unwrap();
        there
            .write_all(&frame(3, REQUEST, b"..Kill.."))
            .await
            .unwrap();
        let mut bytes = [0; 36];
        connection.read_exact(&mut bytes).await.unwrap();
        assert!(ledger.holds("Wait") && ledger.holds("Kill"));
        connection
            .write_all(&frame(3, RESPONSE, b""))
            .await
            .unwrap();
        assert!(ledger.holds("Wait") && !ledger.holds("Kill"));
        drop(connection);
        assert!(!ledger.holds("Wait"));
    }
}
