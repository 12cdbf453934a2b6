//! Side channels that clients open and then name in a call: progress, credentials, the bytes of an archive.
//!
//! ```text
//!  client ── Stream(StreamInit{id}) ──▶ Streams: id, parked ◀── take(id) ── the call that names it
//!         ◀── Empty: it is there
//!         ◀──────────── messages in both directions ─────────────▶
//! ```
//!
//! A stream belongs to a namespace and is taken once. It is parked for as long as its client keeps it open; a client that
//! leaves takes it along. Both directions are bounded: whoever sends waits for whoever receives.
//!
//! [`Received`] and [`Sending`] carry bytes: the receiver grants a window, the sender stays within it.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf as _, Bytes};
use prost_types::Any;
use proto::containerd::types::transfer::{Data, WindowUpdate};
use tokio::sync::mpsc;
use tonic::Status;

/// Messages that wait in one direction.
pub(crate) const QUEUE: usize = 64;
/// Streams that may be parked at one time.
const PARKED: usize = 1024;
/// Bytes in one message.
const CHUNK: usize = 32 << 10;
/// How far a sender may be ahead of its receiver.
const WINDOW: i32 = 256 << 10;

/// One side of an open stream. Dropping it ends the stream without an error.
#[derive(Debug)]
pub(crate) struct Stream {
    /// What the client sends.
    pub(crate) incoming: mpsc::Receiver<Any>,
    /// What the client gets.
    pub(crate) outgoing: mpsc::Sender<Result<Any, Status>>,
}

/// Why a stream cannot be parked or taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum StreamError {
    /// There is one of that name.
    #[error("stream {0:?}: already exists")]
    Exists(String),
    /// There is none, or somebody has it.
    #[error("stream {0:?}: not found")]
    NotFound(String),
    /// Too many.
    #[error("more than {PARKED} streams wait to be used")]
    Full,
}

impl crate::error::Kind for StreamError {
    fn kind(&self) -> proto::error::ErrorKind {
        use proto::error::ErrorKind;
        match self {
            Self::Exists(_) => ErrorKind::AlreadyExists,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Full => ErrorKind::ResourceExhausted,
        }
    }
}

type Key = (String, String);

/// The streams that nobody has taken yet.
#[derive(Debug, Default)]
pub(crate) struct Streams(Mutex<HashMap<Key, Stream>>);

impl Streams {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Stream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Parks a stream until somebody takes it; the guard takes it away again.
    pub(crate) fn park(
        self: &Arc<Self>,
        ns: &str,
        id: &str,
        stream: Stream,
    ) -> Result<ParkedGuard, StreamError> {
        let key = (ns.to_owned(), id.to_owned());
        let mut parked = self.lock();
        if parked.len() >= PARKED {
            return Err(StreamError::Full);
        }
        if parked.contains_key(&key) {
            return Err(StreamError::Exists(key.1));
        }
        parked.insert(key.clone(), stream);
        Ok(ParkedGuard {
            streams: self.clone(),
            key,
        })
    }

    /// Takes a stream that a request names.
    pub(crate) fn take(&self, ns: &str, id: &str) -> Result<Stream, StreamError> {
        self.lock()
            .remove(&(ns.to_owned(), id.to_owned()))
            .ok_or_else(|| StreamError::NotFound(id.to_owned()))
    }
}

/// Unparks a stream when its client is gone.
#[derive(Debug)]
pub(crate) struct ParkedGuard {
    streams: Arc<Streams>,
    key: Key,
}

impl Drop for ParkedGuard {
    fn drop(&mut self) {
        self.streams.lock().remove(&self.key);
    }
}

/// The bytes that a client sends, for blocking code.
#[derive(Debug)]
pub(crate) struct Received {
    stream: Stream,
    /// What the client may still send.
    window: i32,
    rest: Bytes,
}

impl Received {
    /// Nothing has been read.
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            window: 0,
            rest: Bytes::new(),
        }
    }

    /// Gets the next bytes; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        while self.rest.is_empty() {
            if self.window < WINDOW {
                let update = proto::any::pack(&WindowUpdate { update: WINDOW });
                // A client that is done with sending does not listen any more; what it sent is still there.
                if self.stream.outgoing.blocking_send(Ok(update)).is_ok() {
                    self.window = self.window.saturating_add(WINDOW);
                }
            }
            let Some(message) = self.stream.incoming.blocking_recv() else {
                return Ok(false);
            };
            match proto::any::unpack::<Data>(&message) {
                Some(Ok(data)) => {
                    let length = i32::try_from(data.data.len()).unwrap_or(i32::MAX);
                    self.window = self.window.saturating_sub(length);
                    self.rest = data.data.into();
                }
                Some(Err(error)) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
                // Whatever a newer client has to say beside its bytes.
                None => {}
            }
        }
        Ok(true)
    }
}

impl Read for Received {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || !self.fill()? {
            return Ok(0);
        }
        let length = self.rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.rest[..length]);
        self.rest.advance(length);
        Ok(length)
    }
}

/// The bytes that a client gets, from blocking code.
#[derive(Debug)]
pub(crate) struct Sending {
    stream: Stream,
    /// What we may still send.
    window: usize,
}

impl Sending {
    /// Nothing has been sent.
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, window: 0 }
    }
}

impl Write for Sending {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the client of the stream left");
        while self.window == 0 {
            let message = self.stream.incoming.blocking_recv().ok_or_else(gone)?;
            if let Some(Ok(window)) = proto::any::unpack::<WindowUpdate>(&message) {
                self.window += usize::try_from(window.update).unwrap_or(0);
            }
        }
        let length = data.len().min(CHUNK).min(self.window);
        let message = proto::any::pack(&Data {
            data: data[..length].to_vec(),
        });
        self.stream
            .outgoing
            .blocking_send(Ok(message))
            .map_err(|_| gone())?;
        self.window -= length;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Stream, Stream) {
        let (to_us, incoming) = mpsc::channel(QUEUE);
        let (outgoing, mut from_us) = mpsc::channel::<Result<Any, Status>>(QUEUE);
        let (relay, theirs) = mpsc::channel(QUEUE);
        let (back, mut backward) = mpsc::channel::<Result<Any, Status>>(QUEUE);
        std::thread::spawn(move || {
            while let Some(Ok(any)) = from_us.blocking_recv() {
                if relay.blocking_send(any).is_err() {
                    return;
                }
            }
        });
        std::thread::spawn(move || {
            while let Some(Ok(any)) = backward.blocking_recv() {
                if to_us.blocking_send(any).is_err() {
                    return;
                }
            }
        });
        let ours = Stream { incoming, outgoing };
        let theirs = Stream {
            incoming: theirs,
            outgoing: back,
        };
        (ours, theirs)
    }

    #[test]
    fn bytes_arrive_as_sent_within_the_window() {
        let (ours, theirs) = pair();
        let sent: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
        let copy = sent.clone();
        let sender = std::thread::spawn(move || Sending::new(theirs).write_all(&copy));
        let mut got = Vec::new();
        Received::new(ours).read_to_end(&mut got).unwrap();
        sender.join().unwrap().unwrap();
        assert!(got == sent);
    }

    #[test]
    fn a_stream_is_taken_once_and_goes_with_its_client() {
        let streams = Arc::new(Streams::default());
        let guard = streams.park("n", "a", pair().0).unwrap();
        assert!(matches!(
            streams.park("n", "a", pair().0),
            Err(StreamError::Exists(_))
        ));
        assert!(streams.take("m", "a").is_err());
        streams.take("n", "a").unwrap();
        assert!(streams.take("n", "a").is_err());
        drop(guard);
        let guard = streams.park("n", "b", pair().0).unwrap();
        drop(guard);
        assert!(streams.take("n", "b").is_err());
    }
}
