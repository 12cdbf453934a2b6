//! A session's bytes carried over a websocket.

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use crate::frames::Unframer;

/// Longest message that goes out.
const BUFFER: usize = 32 * 1024;

/// Carries both ways until the session has ended or the client has gone. `framed` takes the output out of its frames, which a
/// websocket has no use for.
pub(super) async fn carry(socket: WebSocket, session: DuplexStream, framed: bool) {
    let (mut to, mut from) = socket.split();
    let (mut output, mut input) = tokio::io::split(session);
    let out = async {
        let mut frames = Unframer::default();
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = match output.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(read) => &buffer[..read],
            };
            let mut payload = Vec::with_capacity(read.len());
            match framed {
                true => frames.push(read, |part| payload.extend_from_slice(part)),
                false => payload.extend_from_slice(read),
            }
            if !payload.is_empty()
                && to
                    .send(Message::Binary(Bytes::from(payload)))
                    .await
                    .is_err()
            {
                return;
            }
        }
        // The client may be gone already.
        let _ = to.send(Message::Close(None)).await;
    };
    let back = async {
        while let Some(Ok(message)) = from.next().await {
            let written = match &message {
                Message::Binary(bytes) => input.write_all(bytes).await,
                Message::Text(text) => input.write_all(text.as_bytes()).await,
                Message::Close(_) => break,
                // Answered below us.
                Message::Ping(_) | Message::Pong(_) => Ok(()),
            };
            if written.is_err() {
                break;
            }
        }
        // End of input; a process without one does not mind.
        let _ = input.shutdown().await;
    };
    tokio::pin!(out, back);
    tokio::select! {
        () = &mut out => {}
        () = &mut back => out.await,
    }
}
