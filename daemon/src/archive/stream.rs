//! A blocking writer whose bytes become the body of an answer.

use std::io::{self, Write};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::error::Result;

/// Size of one piece.
const PIECE: usize = 64 << 10;

/// Pieces that wait for a slow client.
const QUEUE: usize = 4;

/// The writing end.
#[derive(Debug)]
pub(crate) struct BodyWriter {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    pending: BytesMut,
}

impl Write for BodyWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(data);
        if self.pending.len() >= PIECE {
            self.flush()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let piece = self.pending.split().freeze();
        self.pieces
            .blocking_send(Ok(piece))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

/// Runs `work` on a thread; what it writes is the body. A failure in the middle breaks the connection off, so that no client
/// takes half an archive for a whole one.
pub(crate) fn body(work: impl FnOnce(&mut BodyWriter) -> Result<()> + Send + 'static) -> Body {
    let (pieces, receiver) = mpsc::channel(QUEUE);
    tokio::task::spawn_blocking(move || {
        let mut writer = BodyWriter {
            pieces,
            pending: BytesMut::with_capacity(PIECE),
        };
        let done = work(&mut writer).and_then(|()| Ok(writer.flush()?));
        if let Err(e) = done {
            let gone = writer.pieces.is_closed();
            if !gone {
                tracing::warn!("an archive breaks off: {e}");
                // A client that left in between does not hear it.
                let _ = writer
                    .pieces
                    .blocking_send(Err(io::Error::other(e.to_string())));
            }
        }
    });
    Body::from_stream(ReceiverStream::new(receiver))
}
