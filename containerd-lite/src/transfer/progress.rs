//! What a transfer tells of itself on its client's stream. Hints, never waited for.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prost_types::Any;
use proto::containerd::types as wire;
use proto::containerd::types::transfer::Progress as Message;
use tokio::sync::mpsc;
use tonic::Status;

use super::image::Descriptor;
use crate::streams::Stream;

/// Shortest time between two messages about the bytes of one blob.
const EVERY: Duration = Duration::from_millis(100);

/// Where progress is told, if anywhere.
#[derive(Debug, Clone)]
pub(super) struct Progress(Option<Arc<Told>>);

#[derive(Debug)]
struct Told {
    outgoing: mpsc::Sender<Result<Any, Status>>,
    /// Kept so that the client's side stays open.
    _incoming: Mutex<mpsc::Receiver<Any>>,
}

impl Progress {
    /// Nobody listens.
    pub(super) fn silent() -> Self {
        Self(None)
    }

    /// Told on a stream.
    pub(super) fn on(stream: Stream) -> Self {
        Self(Some(Arc::new(Told {
            outgoing: stream.outgoing,
            _incoming: Mutex::new(stream.incoming),
        })))
    }

    fn send(&self, message: &Message) {
        if let Some(told) = &self.0 {
            // A client that is too slow gets fewer of them.
            let _ = told.outgoing.try_send(Ok(proto::any::pack(message)));
        }
    }

    /// Something about the transfer as a whole.
    pub(super) fn event(&self, event: impl Into<String>) {
        self.send(&Message {
            event: event.into(),
            ..Message::default()
        });
    }

    /// Something about an image or an object that it points at.
    pub(super) fn about(&self, event: &str, name: &str, what: &Descriptor) {
        self.send(&Message {
            event: event.to_owned(),
            name: name.to_owned(),
            desc: Some(descriptor(what)),
            ..Message::default()
        });
    }

    /// The progress of one blob below `parent`, in the words of the transfer: downloading, uploading.
    pub(super) fn blob(&self, what: &Descriptor, parent: &str, verb: &'static str) -> BlobProgress {
        let blob = BlobProgress(Arc::new(Blob {
            progress: self.clone(),
            name: what.key(),
            parent: parent.to_owned(),
            verb,
            what: what.clone(),
            last: Mutex::new(None),
        }));
        blob.tell("waiting", 0);
        blob
    }
}

/// The progress of one blob.
#[derive(Debug, Clone)]
pub(super) struct BlobProgress(Arc<Blob>);

#[derive(Debug)]
struct Blob {
    progress: Progress,
    name: String,
    parent: String,
    verb: &'static str,
    what: Descriptor,
    last: Mutex<Option<Instant>>,
}

impl BlobProgress {
    fn tell(&self, event: &str, done: u64) {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.0.progress.send(&Message {
            event: event.to_owned(),
            name: self.0.name.clone(),
            parents: vec![self.0.parent.clone()],
            progress: number(done),
            total: number(self.0.what.size),
            desc: Some(descriptor(&self.0.what)),
        });
    }

    /// So much of it is done.
    pub(super) fn at(&self, done: u64) {
        let mut last = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| last.elapsed() < EVERY) {
            return;
        }
        *last = Some(Instant::now());
        drop(last);
        self.tell(self.0.verb, done);
    }

    /// It is where it should be.
    pub(super) fn complete(&self) {
        self.tell("complete", self.0.what.size);
    }

    /// It was there before.
    pub(super) fn exists(&self) {
        self.tell("already exists", self.0.what.size);
    }

    /// It is being unpacked, and then it is.
    pub(super) fn unpacking(&self, done: bool) {
        if done {
            self.tell("extracted", self.0.what.size);
        } else {
            self.tell("extracting", 0);
        }
    }
}

fn descriptor(what: &Descriptor) -> wire::Descriptor {
    wire::Descriptor {
        media_type: what.media_type.clone(),
        digest: what.digest.to_string(),
        size: i64::try_from(what.size).unwrap_or(i64::MAX),
        annotations: what.annotations.clone().into_iter().collect(),
    }
}
