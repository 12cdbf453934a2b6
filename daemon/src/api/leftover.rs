//! What a handler left unread of a request's body is read to its end before the answer goes out, as Go's HTTP server does.
//!
//! hyper closes a connection whose request was not read whole. A client that is still writing then sees a broken pipe
//! instead of the answer, and docker's CLI tells that.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Frame, SizeHint};

/// Most that is read in vain; a longer body ends the connection. The limit of Go's server (net/http, `maxPostHandlerReadBytes`).
const LIMIT: usize = 256 << 10;
/// How long a client may take for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a body comes back to when its reader drops it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Leftover(Arc<Mutex<Option<Body>>>);

impl Leftover {
    /// A body to give to the handler: what remains of it returns here.
    pub(crate) fn lend(&self, body: Body) -> Body {
        Body::new(Lent {
            body,
            home: self.clone(),
        })
    }

    /// Reads what came back. A body that is still being read, beside an answer that streams, is left to its reader.
    pub(crate) async fn drain(self) {
        let back = self.slot().take();
        if let Some(body) = back
            && !body.is_end_stream()
        {
            let whole = Limited::new(body, LIMIT).collect();
            // the answer goes out in any case
            let _ = tokio::time::timeout(PATIENCE, whole).await;
        }
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Body>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body on loan to a handler.
#[derive(Debug)]
struct Lent {
    body: Body,
    home: Leftover,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let rest = std::mem::replace(&mut self.body, Body::empty());
        *self.home.slot() = Some(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(read: &Arc<Mutex<usize>>, chunks: usize) -> Body {
        let read = Arc::clone(read);
        Body::from_stream(futures_util::stream::iter((0..chunks).map(move |_| {
            *read.lock().expect("no test panics with it") += 1;
            Ok::<_, std::io::Error>(Bytes::from_static(&[0; 1024]))
        })))
    }

    #[tokio::test]
    async fn an_unread_body_is_read_up_to_the_limit() {
        for (chunks, expected) in [(0, 0), (3, 3), (1000, LIMIT / 1024 + 1)] {
            let read = Arc::default();
            let leftover = Leftover::default();
            drop(leftover.lend(counted(&read, chunks)));
            leftover.drain().await;
            assert_eq!(*read.lock().expect("no test panics with it"), expected);
        }
    }

    #[tokio::test]
    async fn a_body_that_is_still_read_is_left_alone() {
        let read = Arc::default();
        let leftover = Leftover::default();
        let reader = leftover.lend(counted(&read, 3));
        leftover.drain().await;
        assert_eq!(*read.lock().expect("no test panics with it"), 0);
        assert_eq!(
            reader
                .collect()
                .await
                .expect("a whole body")
                .to_bytes()
                .len(),
            3072
        );
    }
}
