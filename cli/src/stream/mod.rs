//! The streams of `run`, `attach` and `exec`: what a hijacked connection carries.
//!
//! ```text
//! standard input  --> [detach keys] --> connection --> container
//! standard output <-- [frames apart] <-- connection <-- container     (raw when it has a terminal)
//! ```
//!
//! Both directions run at once and end apart: end of input closes our writing side only, and the
//! output goes on until the daemon closes its own. The output's end is the end of the whole.
//! With a terminal on both sides, ours is raw for as long as [`copy`] runs, dropped future included.

mod demux;
mod detach;
mod messages;
mod place;
mod resize;
mod signals;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

pub(crate) use demux::Frames;
pub(crate) use detach::{DetachKeys, check_keys};
pub(crate) use messages::{Message, Messages};
pub(crate) use place::{Place, Rest, joint};
pub(crate) use resize::{Resize, follow_size, redraw};
pub(crate) use signals::{forward, terminated};

use crate::client::Hijacked;
use crate::terminal::{RawGuard, stdin_is_terminal};

/// How long the daemon may take to end a stream that was detached from.
const AFTER_DETACH: Duration = Duration::from_secs(1);

/// What of the connection is connected to what of ours.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    /// The container has a terminal: no frames, and detach keys count.
    pub(crate) tty: bool,
    /// The detach keys as the user wrote them; empty means the default.
    pub(crate) detach_keys: String,
}

/// Why the copying ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The daemon closed the stream.
    Closed,
    /// The stream broke off in the middle of a frame.
    Cut,
    /// The user typed the detach keys.
    Detached,
}

/// Our own side of the streams, which outlives a connection.
#[derive(Debug)]
pub(crate) struct Ours {
    /// One reader for the whole run, since what it has read ahead must not be lost with a connection.
    input: tokio::sync::Mutex<tokio::io::Stdin>,
    place: std::sync::Mutex<Place>,
}

impl Ours {
    pub(crate) fn new() -> Arc<Ours> {
        Arc::new(Ours {
            input: tokio::sync::Mutex::new(tokio::io::stdin()),
            place: std::sync::Mutex::new(Place::default()),
        })
    }

    /// How far the output has come.
    pub(crate) fn place(&self) -> Place {
        self.locked().clone()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Place> {
        self.place
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Prints output of the container, and counts it.
    pub(crate) async fn print(&self, stream: u8, bytes: &[u8]) -> io::Result<()> {
        if stream == demux::STDERR {
            let mut stderr = tokio::io::stderr();
            stderr.write_all(bytes).await?;
            stderr.flush().await?;
        } else {
            let mut stdout = tokio::io::stdout();
            stdout.write_all(bytes).await?;
            stdout.flush().await?;
        }
        self.locked().add(stream, bytes);
        Ok(())
    }
}

/// Copies both ways until the output ends or the user detaches.
pub(crate) async fn copy(connection: Hijacked, plan: Plan, ours: Arc<Ours>) -> io::Result<End> {
    let _raw = match plan.stdin && plan.tty && stdin_is_terminal() {
        true => Some(RawGuard::enter()?),
        false => None,
    };
    let (reader, mut writer) = tokio::io::split(connection.io);
    let output = copy_output(reader, &plan, &ours);
    let input = async {
        let end = if plan.stdin {
            copy_input(&mut *ours.input.lock().await, &mut writer, &plan).await
        } else {
            Ok(End::Closed)
        };
        if !matches!(end, Ok(End::Detached)) {
            // The daemon may be gone already; its side tells how it ended.
            let _ = writer.shutdown().await;
        }
        end
    };
    tokio::pin!(output, input);
    let wants_output = plan.stdout || plan.stderr;
    tokio::select! {
        done = &mut output, if wants_output => done,
        end = &mut input => match end {
            Ok(End::Detached) => {
                // It ends the stream; one that does not is left all the same.
                let _ = tokio::time::timeout(AFTER_DETACH, output).await;
                Ok(End::Detached)
            }
            _ if wants_output => output.await,
            other => other,
        },
    }
}

async fn copy_input<R, W>(from: &mut R, to: &mut W, plan: &Plan) -> io::Result<End>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut keys = plan.tty.then(|| DetachKeys::parse(&plan.detach_keys));
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let got = from.read(&mut buffer).await?;
        if got == 0 {
            return Ok(End::Closed);
        }
        match &mut keys {
            None => to.write_all(&buffer[..got]).await?,
            Some(keys) => {
                let (pass, detached) = keys.feed(&buffer[..got]);
                to.write_all(&pass).await?;
                if detached {
                    // The daemon knows them too. A connection that just ends would be the end of the container's input.
                    to.write_all(keys.sequence()).await?;
                    to.flush().await?;
                    return Ok(End::Detached);
                }
            }
        }
        to.flush().await?;
    }
}

async fn copy_output<R: AsyncRead + Unpin>(
    mut from: R,
    plan: &Plan,
    ours: &Ours,
) -> io::Result<End> {
    let mut frames = Frames::default();
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let got = match from.read(&mut buffer).await {
            // A daemon that is killed resets the connection, or ends it without a word of TLS: that is an end too.
            Err(error) if !is_cut(&error) => return Err(error),
            Ok(0) | Err(_) => {
                return Ok(match frames.finish() {
                    Ok(()) => End::Closed,
                    Err(_) => End::Cut,
                });
            }
            Ok(got) => got,
        };
        if plan.tty {
            ours.print(1, &buffer[..got]).await?;
            continue;
        }
        for (stream, bytes) in frames.feed(&buffer[..got])? {
            ours.print(stream, &bytes).await?;
        }
    }
}

fn is_cut(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut | UnexpectedEof
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn input_ends_with_its_source_or_with_the_detach_keys() {
        let plan = Plan {
            stdin: true,
            stdout: true,
            stderr: true,
            tty: true,
            detach_keys: String::new(),
        };
        let mut got = Vec::new();
        let end = copy_input(&mut &b"ab\x10\x11cd"[..], &mut got, &plan)
            .await
            .unwrap();
        assert_eq!((end, got.as_slice()), (End::Detached, &b"ab\x10\x11"[..]));
        let mut got = Vec::new();
        let end = copy_input(
            &mut &b"ab\x10\x11cd"[..],
            &mut got,
            &Plan { tty: false, ..plan },
        )
        .await
        .unwrap();
        assert_eq!((end, got.as_slice()), (End::Closed, &b"ab\x10\x11cd"[..]));
    }
}
