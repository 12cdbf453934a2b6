//! Streams that take over a connection: attach and exec start.
//!
//! A client that asks to upgrade gets 101 and the raw connection in both directions; one that does not gets the output as the
//! body of a 200 and has no input. What ends what:
//!
//! - the end of output ends the session, and with it the connection;
//! - a client's half-close ends its input only; the output goes on;
//! - a client that cannot be written to ends the session, never the process;
//! - the detach keys end the session.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

use super::Version;
use crate::container::Connection;
use crate::error::{Error, Result};

/// Frames or raw bytes, as Docker names them.
const RAW: &str = "application/vnd.docker.raw-stream";
const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";

/// Longest frame that is passed on whole when one stream is picked out of two.
const BUFFER: usize = 32 * 1024;

/// What the client's side of a session is.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) tty: bool,
    /// The key sequence that detaches.
    pub(crate) detach: Vec<u8>,
}

/// The media type of an upgraded answer.
pub(crate) fn content_type(version: Version, tty: bool, upgraded: bool) -> &'static str {
    match upgraded && !tty && version >= Version(42) {
        true => MULTIPLEXED,
        false => RAW,
    }
}

/// The connection to be taken over, if the client asked for that. Must be called before the body is read.
pub(crate) fn upgrade(request: &mut Request<Body>) -> Option<OnUpgrade> {
    let asked = |headers: &HeaderMap| {
        let connection = headers.get(header::CONNECTION)?.to_str().ok()?;
        let upgrade = headers.get(header::UPGRADE)?.to_str().ok()?;
        let listed = connection
            .split(',')
            .any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
        (listed && upgrade.eq_ignore_ascii_case("tcp")).then_some(())
    };
    asked(request.headers())?;
    Some(hyper::upgrade::on(request))
}

/// The 101.
pub(crate) fn switching(kind: &'static str) -> Response {
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::UPGRADE, HeaderValue::from_static("tcp")),
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// The 200 of a client that did not ask to upgrade: output only.
pub(crate) fn body(kind: &'static str, output: impl AsyncRead + Send + 'static) -> Response {
    let stream = tokio_util::io::ReaderStream::new(output);
    ([(header::CONTENT_TYPE, kind)], Body::from_stream(stream)).into_response()
}

/// An error in the form that attach has it: plain text.
pub(crate) fn plain_error(error: &Error) -> Response {
    let status = super::error::status(error.kind());
    let text = format!("{error}\r\n");
    (status, [(header::CONTENT_TYPE, RAW)], text).into_response()
}

/// How a session ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// No more output will come.
    Output,
    /// The client detached by keys.
    Detached,
    /// The client has gone.
    Gone,
}

/// The client's connection.
pub(crate) type Client = TokioIo<hyper::upgrade::Upgraded>;

/// Waits for the connection to become ours.
pub(crate) async fn taken(upgrade: OnUpgrade) -> Result<Client> {
    match upgrade.await {
        Ok(upgraded) => Ok(TokioIo::new(upgraded)),
        Err(e) => Err(Error::internal(format!("take over the connection: {e}"))),
    }
}

/// Runs a session. `closed` is called when the client's input has ended, `finished` after the last output, before the client
/// sees the end.
pub(crate) async fn session<C>(
    client: C,
    connection: Connection,
    wanted: &Wanted,
    closed: impl AsyncFnOnce(),
    finished: impl AsyncFnOnce(),
) -> End
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let (mut from, mut to) = tokio::io::split(client);
    let Connection { mut output, input } = connection;
    let has_input = input.is_some();
    let input = async {
        let mut input = input?;
        Some(feed(&mut from, &mut input, wanted).await)
    };
    let output = async {
        let end = pass(&mut output, &mut to, wanted).await;
        if end == End::Output {
            finished().await;
        }
        // The client may be gone already.
        let _ = to.shutdown().await;
        end
    };
    tokio::pin!(input, output);
    tokio::select! {
        fed = &mut input => match fed {
            Some(Fed::Detached) => End::Detached,
            Some(Fed::Closed) => {
                closed().await;
                output.await
            }
            Some(Fed::Refused) | None => output.await,
        },
        end = &mut output => {
            // One that has vanished has closed its side as well, whichever was seen first.
            if end == End::Gone && has_input {
                closed().await;
            }
            end
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Fed {
    /// The client has closed its side.
    Closed,
    Detached,
    /// The process does not read any more.
    Refused,
}

/// Copies the client's input, watching for the detach keys where there is a terminal.
async fn feed(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    wanted: &Wanted,
) -> Fed {
    let mut keys = Keys::new(if wanted.tty { &wanted.detach } else { &[] });
    let mut buffer = vec![0; 8 * 1024];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return Fed::Closed,
            Ok(read) => read,
        };
        let (bytes, detach) = keys.filter(&buffer[..read]);
        if to.write_all(&bytes).await.is_err() {
            return Fed::Refused;
        }
        if detach {
            return Fed::Detached;
        }
    }
}

/// Copies the output, all of it or one of its two streams.
async fn pass(output: &mut UnixStream, to: &mut (impl AsyncWrite + Unpin), wanted: &Wanted) -> End {
    let all = wanted.tty || wanted.stdout && wanted.stderr;
    if all {
        let mut buffer = vec![0; BUFFER];
        loop {
            match output.read(&mut buffer).await {
                Ok(0) | Err(_) => return End::Output,
                Ok(read) => {
                    if to.write_all(&buffer[..read]).await.is_err() || to.flush().await.is_err() {
                        return End::Gone;
                    }
                }
            }
        }
    }
    let mut header = [0; 8];
    let mut payload = Vec::new();
    loop {
        if output.read_exact(&mut header).await.is_err() {
            return End::Output;
        }
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        payload.resize(length as usize, 0);
        if output.read_exact(&mut payload).await.is_err() {
            return End::Output;
        }
        let picked = match header[0] {
            2 => wanted.stderr,
            _ => wanted.stdout,
        };
        if picked {
            let written = async {
                to.write_all(&header).await?;
                to.write_all(&payload).await?;
                to.flush().await
            };
            if written.await.is_err() {
                return End::Gone;
            }
        }
    }
}

/// Reads a key sequence such as `ctrl-p,ctrl-q`; empty means the default.
pub(crate) fn detach_keys(text: &str) -> Result<Vec<u8>> {
    if text.is_empty() {
        return Ok(vec![16, 17]);
    }
    text.split(',')
        .map(|key| {
            let bad = || Error::invalid(format!("Invalid escape keys ({text}) provided"));
            match key.strip_prefix("ctrl-") {
                Some(letter) => match letter.as_bytes() {
                    [letter @ b'a'..=b'z'] => Ok(letter - b'a' + 1),
                    [letter @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')] => Ok(letter - b'@'),
                    _ => Err(bad()),
                },
                None => match key.as_bytes() {
                    [one] => Ok(*one),
                    _ => Err(bad()),
                },
            }
        })
        .collect()
}

/// Watches for a key sequence. What could be its beginning is held back until it is clear.
#[derive(Debug)]
struct Keys<'a> {
    keys: &'a [u8],
    held: usize,
}

impl<'a> Keys<'a> {
    fn new(keys: &'a [u8]) -> Self {
        Self { keys, held: 0 }
    }

    /// The bytes to pass on, and whether the sequence is complete.
    fn filter(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(bytes.len() + self.held);
        for byte in bytes {
            if self.keys.get(self.held) == Some(byte) {
                self.held += 1;
                if self.held == self.keys.len() {
                    return (out, true);
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.held]);
            self.held = 0;
            if self.keys.first() == Some(byte) {
                self.held = 1;
                if self.keys.len() == 1 {
                    return (out, true);
                }
            } else {
                out.push(*byte);
            }
        }
        (out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn key_sequences() {
        assert_eq!(detach_keys("").unwrap(), [16, 17]);
        assert_eq!(detach_keys("ctrl-a,x,ctrl-_").unwrap(), [1, b'x', 31]);
        for bad in ["ctrl-", "ctrl-A", "xy", "a,"] {
            assert!(detach_keys(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_broken_off_sequence_is_passed_on() {
        let mut keys = Keys::new(&[16, 17]);
        assert_eq!(keys.filter(&[b'a', 16]), (vec![b'a'], false));
        assert_eq!(keys.filter(b"b"), (vec![16, b'b'], false));
        assert_eq!(keys.filter(&[16, 16, 17, b'z']), (vec![16], true));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_without_the_sequence(input in proptest::collection::vec(0u8..20, 0..200), cut in 1usize..20) {
            let mut keys = Keys::new(&[16, 17, 18]);
            let mut out = Vec::new();
            let mut detached = false;
            for part in input.chunks(cut) {
                let (bytes, end) = keys.filter(part);
                out.extend(bytes);
                if end { detached = true; break; }
            }
            if !detached {
                out.extend_from_slice(&[16, 17, 18][..keys.held]);
                prop_assert_eq!(out, input);
            }
        }
    }

    #[tokio::test]
    async fn the_input_of_a_client_that_vanished_has_ended() {
        let (mut shim, output) = UnixStream::pair().unwrap();
        let (client, seen) = UnixStream::pair().unwrap();
        drop(seen);
        shim.write_all(b"\x01\0\0\0\0\0\0\x02hi").await.unwrap();
        let (input, _held) = tokio::net::unix::pipe::pipe().unwrap();
        let wanted = Wanted {
            stdin: true,
            stdout: true,
            stderr: true,
            tty: false,
            detach: Vec::new(),
        };
        let mut ended = 0;
        let connection = Connection {
            output,
            input: Some(input),
        };
        let end = session(
            client,
            connection,
            &wanted,
            async || ended += 1,
            async || {},
        )
        .await;
        assert_eq!((end, ended), (End::Gone, 1));
    }

    #[tokio::test]
    async fn one_stream_of_two() {
        let (mut shim, output) = UnixStream::pair().unwrap();
        let (client, mut seen) = tokio::io::duplex(1024);
        shim.write_all(b"\x01\0\0\0\0\0\0\x02hi\x02\0\0\0\0\0\0\x03err")
            .await
            .unwrap();
        drop(shim);
        let wanted = Wanted {
            stdin: false,
            stdout: false,
            stderr: true,
            tty: false,
            detach: Vec::new(),
        };
        let connection = Connection {
            output,
            input: None,
        };
        assert_eq!(
            session(client, connection, &wanted, async || {}, async || {}).await,
            End::Output
        );
        let mut got = Vec::new();
        seen.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"\x02\0\0\0\0\0\0\x03err");
    }
}
