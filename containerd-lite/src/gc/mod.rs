//! Garbage collection: what no root reaches goes.
//!
//! ```text
//!  roots                      references
//!  lease ─▶ its resources     image ─▶ target blob          label gc.ref.content*       ─▶ blob
//!  image (not expired)        snapshot ─▶ parent            label gc.ref.snapshot.NAME* ─▶ snapshot
//!  container ─▶ snapshot      ingest ─▶ expected blob       label gc.ref.image*         ─▶ image
//!  label gc.root                                            label gc.bref.* : the same, backwards
//!  ingest with a writer or younger than a day
//! ```
//!
//! All within one namespace. [`graph`] reads rows into a graph, [`mark`] is pure, and the rows that were not reached are
//! deleted, all in one job of the database's writer: no mutation comes between. The files follow, by the sweeps of the
//! content store and the snapshotters, each under a lock of its own.
//!
//! One task collects: soon after a deletion, at once when a client waits for it (`sync`), at start and every hour
//! (leases expire). Deletions that come close together share one collection.

mod graph;
mod mark;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proto::error::ErrorKind;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::content::{Blobs, ContentError};
use crate::metadata::{MetadataError, Store};
use crate::snapshots::{SnapshotError, Snapshotter};

/// How long deletions are gathered before a collection that nobody waits for.
const GATHER: Duration = Duration::from_millis(300);
/// The first collection after the start.
const AT_START: Duration = Duration::from_millis(100);
/// A collection without any cause.
const HOURLY: Duration = Duration::from_secs(3600);
/// Callers that may wait for a collection; further ones wait to be counted.
const QUEUE: usize = 64;

/// Why a collection did not finish; the next one tries again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GcError {
    #[error("collect garbage")]
    Metadata(#[from] MetadataError),
    #[error("collect garbage")]
    Content(#[from] ContentError),
    #[error("collect garbage")]
    Snapshots(#[from] SnapshotError),
    #[error("collect garbage: the collector is gone")]
    Closed,
    #[error("collect garbage: {0}")]
    Failed(String),
}

impl crate::error::Kind for GcError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Closed => ErrorKind::Unavailable,
            _ => ErrorKind::Internal,
        }
    }
}

/// Asks the collector to run.
#[derive(Debug, Clone)]
pub(crate) struct Collector(mpsc::Sender<Request>);

type Answer = oneshot::Sender<Result<(), String>>;

#[derive(Debug)]
enum Request {
    Soon,
    Now(Answer),
}

/// What a collection works on.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) blobs: Arc<Blobs>,
    pub(crate) snapshotters: Arc<HashMap<&'static str, Arc<Snapshotter>>>,
}

impl Collector {
    /// Starts the task that collects; it ends with `stop`.
    pub(crate) fn spawn(
        parts: Parts,
        stop: CancellationToken,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let task = tokio::spawn(async move {
            tokio::select! {
                () = run(parts, receiver) => {}
                () = stop.cancelled() => {}
            }
        });
        (Self(sender), task)
    }

    /// Something was deleted: collect before long.
    pub(crate) fn soon(&self) {
        // A full queue means that a collection is about to begin anyway.
        let _ = self.0.try_send(Request::Soon);
    }

    /// Something was deleted: collect soon, or, with `sync`, now and return when it is done.
    pub(crate) async fn after_delete(&self, sync: bool) -> Result<(), GcError> {
        if !sync {
            self.soon();
            return Ok(());
        }
        let (sender, receiver) = oneshot::channel();
        self.0
            .send(Request::Now(sender))
            .await
            .map_err(|_| GcError::Closed)?;
        receiver
            .await
            .map_err(|_| GcError::Closed)?
            .map_err(GcError::Failed)
    }
}

async fn run(parts: Parts, mut requests: mpsc::Receiver<Request>) {
    let mut idle = AT_START;
    let mut pause = Duration::ZERO;
    loop {
        let mut waiting = Vec::new();
        tokio::select! {
            () = tokio::time::sleep(idle) => {}
            request = requests.recv() => match request {
                None => return,
                Some(Request::Now(answer)) => waiting.push(answer),
                Some(Request::Soon) => {
                    let Some(found) = gather(&mut requests, GATHER.max(pause)).await else { return };
                    waiting.extend(found);
                }
            },
        }
        while let Ok(request) = requests.try_recv() {
            if let Request::Now(answer) = request {
                waiting.push(answer);
            }
        }
        let begun = std::time::Instant::now();
        let outcome = collect(&parts).await.map_err(|e| crate::error::chain(&e));
        // At most a fiftieth of the time, unless clients wait.
        pause = (begun.elapsed() * 49).min(Duration::from_secs(5));
        if let Err(error) = &outcome {
            tracing::error!("{error}");
        }
        for answer in waiting {
            let _ = answer.send(outcome.clone());
        }
        idle = HOURLY;
    }
}

/// Waits for `time`, or until a client waits for the collection. None: nobody can ask any more.
async fn gather(requests: &mut mpsc::Receiver<Request>, time: Duration) -> Option<Option<Answer>> {
    let until = tokio::time::sleep(time);
    tokio::pin!(until);
    loop {
        tokio::select! {
            () = &mut until => return Some(None),
            request = requests.recv() => match request? {
                Request::Soon => {}
                Request::Now(answer) => return Some(Some(answer)),
            },
        }
    }
}

/// One collection.
async fn collect(parts: &Parts) -> Result<(), GcError> {
    let writing = parts.blobs.active();
    let removed = parts
        .store
        .write(move |c| graph::collect(c, &writing, crate::time::now()))
        .await?;
    if removed > 0 {
        tracing::debug!(removed, "collected garbage");
    }
    let parts = parts.clone();
    let sweep = tokio::task::spawn_blocking(move || {
        parts.blobs.sweep()?;
        for snapshotter in parts.snapshotters.values() {
            snapshotter.cleanup()?;
        }
        Ok(())
    });
    sweep
        .await
        .unwrap_or_else(|e| Err(GcError::Failed(e.to_string())))
}

#[cfg(test)]
mod tests;
