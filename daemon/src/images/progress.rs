//! Progress of pull, push, load and import: one JSON object a line, and how it becomes an answer.
//!
//! The status line of HTTP goes out with the first bytes. So the answer waits for the first message: an error that comes
//! before it is an ordinary error with its status; one that comes after is a last line in the stream.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use proto::engine::{ErrorDetail, JsonProgress, ProgressDetail};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use crate::error::{Error, Result};

/// Messages that may wait for a slow client.
const QUEUE: usize = 64;

/// Shortest time between two updates of one bar.
const INTERVAL: Duration = Duration::from_millis(100);

/// Where the messages go. A client that has gone away is not waited for, and the work goes on or is dropped by its owner.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    lines: mpsc::Sender<JsonProgress>,
}

impl Progress {
    /// One message.
    pub(crate) async fn send(&self, message: JsonProgress) {
        // The receiver goes with the client's connection.
        let _ = self.lines.send(message).await;
    }

    /// A status of the whole.
    pub(crate) async fn status(&self, status: impl Into<String>) {
        self.send(JsonProgress {
            status: status.into(),
            ..JsonProgress::default()
        })
        .await;
    }

    /// A status of one part.
    pub(crate) async fn part(&self, id: &str, status: &str) {
        self.send(JsonProgress {
            status: status.into(),
            progress_detail: Some(ProgressDetail::default()),
            id: id.into(),
            ..JsonProgress::default()
        })
        .await;
    }

    /// Text as it is.
    pub(crate) async fn text(&self, text: impl Into<String>) {
        self.send(JsonProgress {
            stream: text.into(),
            ..JsonProgress::default()
        })
        .await;
    }

    /// A bar of one part.
    pub(crate) fn bar(&self, id: &str, action: &'static str, total: u64) -> Bar {
        Bar {
            progress: self.clone(),
            id: id.to_owned(),
            action,
            total,
            last: None,
        }
    }

    /// Whether the client has gone away.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.lines.is_closed()
    }
}

/// One bar that moves.
#[derive(Debug)]
pub(crate) struct Bar {
    progress: Progress,
    id: String,
    action: &'static str,
    total: u64,
    last: Option<Instant>,
}

impl Bar {
    /// Tells how far it is, at most ten times a second.
    pub(crate) async fn at(&mut self, current: u64) {
        let now = Instant::now();
        let soon = self.last.is_some_and(|last| now - last < INTERVAL);
        if soon && current < self.total {
            return;
        }
        self.last = Some(now);
        let message = JsonProgress {
            status: self.action.into(),
            progress_detail: Some(ProgressDetail {
                current: i64::try_from(current).unwrap_or(i64::MAX),
                total: i64::try_from(self.total).unwrap_or(i64::MAX),
                ..ProgressDetail::default()
            }),
            progress: drawing(current, self.total),
            id: self.id.clone(),
            ..JsonProgress::default()
        };
        self.progress.send(message).await;
    }
}

/// The bar in text, for clients that only print it.
fn drawing(current: u64, total: u64) -> String {
    const WIDTH: u64 = 50;
    if total == 0 {
        return size(current);
    }
    let filled = (current.min(total) * WIDTH / total) as usize;
    let mut bar = "=".repeat(filled);
    if filled < WIDTH as usize {
        bar.push('>');
    }
    format!("[{bar:<50}]  {}/{}", size(current), size(total))
}

/// A size with four significant digits, in powers of a thousand.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = match value {
        v if unit == 0 || v >= 1000.0 => 0,
        v if v >= 100.0 => 1,
        v if v >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text}{}", UNITS[unit])
}

/// Runs `work` and answers with its progress. The work is dropped, and so cancelled, when the client goes away and
/// `cancel` says so; else it runs to its end.
pub(crate) async fn answer<F, Fut>(cancel: bool, work: F) -> Response
where
    F: FnOnce(Progress) -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let (lines, mut receiver) = mpsc::channel(QUEUE);
    let gone = lines.clone();
    let work = work(Progress { lines });
    let trace = crate::backend::TRACE
        .try_with(String::clone)
        .unwrap_or_default();
    let task = tokio::spawn(crate::backend::TRACE.scope(trace, async move {
        if cancel {
            tokio::select! {
                outcome = work => outcome,
                () = gone.closed() => Err(Error::new(proto::error::ErrorKind::Cancelled, "the client has gone away")),
            }
        } else {
            // The sender held here would keep the stream open for ever.
            drop(gone);
            work.await
        }
    }));
    let first = receiver.recv().await;
    let Some(first) = first else {
        return match outcome(task).await {
            Ok(()) => stream(tokio_stream::empty()),
            Err(e) => e.into_response(),
        };
    };
    let head = tokio_stream::once(line(&first));
    let body = ReceiverStream::new(receiver).map(|message| line(&message));
    let tail = futures_util::stream::once(async move {
        match outcome(task).await {
            Ok(()) => Bytes::new(),
            Err(e) => line(&failure(&e)),
        }
    });
    stream(
        head.chain(body)
            .chain(tail)
            .filter(|bytes| !bytes.is_empty()),
    )
}

async fn outcome(task: tokio::task::JoinHandle<Result<()>>) -> Result<()> {
    match task.await {
        Ok(outcome) => outcome,
        Err(e) => Err(Error::internal(format!("the work has ended early: {e}"))),
    }
}

fn failure(error: &Error) -> JsonProgress {
    JsonProgress {
        error_detail: Some(ErrorDetail {
            code: error.code(),
            message: error.message().to_owned(),
        }),
        error: error.message().to_owned(),
        ..JsonProgress::default()
    }
}

fn line(message: &JsonProgress) -> Bytes {
    let mut bytes = serde_json::to_vec(message).expect("a progress message is plain data");
    bytes.extend_from_slice(b"\r\n");
    bytes.into()
}

fn stream(lines: impl tokio_stream::Stream<Item = Bytes> + Send + 'static) -> Response {
    let body = Body::from_stream(lines.map(Ok::<_, Infallible>));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_and_sizes() {
        assert_eq!(size(0), "0B");
        assert_eq!(size(999), "999B");
        assert_eq!(size(1_234_567), "1.235MB");
        assert_eq!(size(12_000), "12kB");
        let half = drawing(50, 100);
        assert!(half.starts_with(&format!("[{}>", "=".repeat(25))), "{half}");
        assert!(half.ends_with("  50B/100B"));
        assert!(!drawing(100, 100).contains('>'));
    }

    #[tokio::test]
    async fn an_early_error_has_a_status_and_a_late_one_a_line() {
        let early = answer(false, |_| async { Err(Error::not_found("x")) }).await;
        assert_eq!(early.status(), 404);
        let late = answer(false, |p| async move {
            p.status("a").await;
            Err(Error::not_found("x"))
        })
        .await;
        assert_eq!(late.status(), 200);
        let body = axum::body::to_bytes(late.into_body(), 1000).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert_eq!(
            text,
            "{\"status\":\"a\"}\r\n{\"errorDetail\":{\"message\":\"x\"},\"error\":\"x\"}\r\n"
        );
    }
}
