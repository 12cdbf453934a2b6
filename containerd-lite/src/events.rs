//! The exchange: every event of this daemon and of its shims, to whoever subscribed.
//!
//! ```text
//!  nouns ── publish ──────────┐
//!  shims ── forward ──────────┼──▶ one lock, one order ──▶ a bounded queue per subscriber ──▶ gRPC stream
//!  runtime ─ publish_exit ────┘            │
//!                                 exits not yet forgotten ──▶ replayed to a new subscriber
//! ```
//!
//! **Nothing waits for a subscriber.** Whose queue is full is cut off: the stream gives what is queued, then an error; the
//! client subscribes again and is told of the exits that it missed.
//!
//! **Exits are more than hints.** The exit of a task or exec that nobody has deleted is kept here, with a note for whom it
//! has been written to a stream. A subscriber is known by its filters: a stream that opens with filters whose streams have
//! not been given an exit gets it first of all, with its own time. Who published it (the shim by event, the runtime by
//! asking the shim, or from an exit record) makes no difference, and a second report of the same exit is dropped.
//!
//! Locks are held for the length of a few pushes. Sync to publish, async to receive.

mod fields;

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::SystemTime;

use prost_types::{Any, Timestamp};
use proto::containerd::types::Envelope;
use tokio::sync::mpsc;

/// Events that wait for one subscriber; the next one cuts it off.
const QUEUE: usize = 4096;
/// Filter sets that one exit remembers having been written to.
const WRITTEN: usize = 16;
/// Exits of deleted processes that are remembered so that a late second report is dropped.
const RECENT: usize = 512;

/// Why an event was not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum PublishError {
    /// The topic is malformed.
    #[error("topic {0:?} must be identifiers, each after a slash")]
    Topic(String),
    /// The namespace is malformed.
    #[error("namespace {0:?} of the event is no identifier")]
    Namespace(String),
    /// There is nothing in it.
    #[error("an envelope without {0}")]
    Missing(&'static str),
}

/// Which process an exit is of. `exec` is empty for the init process, as it is in the database.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ExitKey {
    /// The task's namespace.
    pub(crate) namespace: String,
    /// The task's id.
    pub(crate) container: String,
    /// The exec's id.
    pub(crate) exec: String,
}

/// The exchange.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    subscribers: Vec<Subscriber>,
    exits: HashMap<ExitKey, KeptExit>,
    recent: VecDeque<(ExitKey, Timestamp)>,
}

#[derive(Debug)]
struct KeptExit {
    order: u64,
    exited_at: Timestamp,
    envelope: Arc<Envelope>,
    /// Filters to whose streams it has been written.
    written: VecDeque<Filters>,
}

/// The filter texts of a subscription, which are its identity.
type Filters = Arc<[String]>;

struct Subscriber {
    id: u64,
    filters: Filters,
    wanted: Box<dyn Fn(&Envelope) -> bool + Send>,
    queue: mpsc::Sender<Item>,
    cut_off: Arc<AtomicBool>,
}

impl std::fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscriber")
            .field("id", &self.id)
            .field("filters", &self.filters)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Item {
    envelope: Arc<Envelope>,
    exit: Option<ExitKey>,
}

impl Exchange {
    /// An exchange without subscribers.
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic under this lock")
    }

    /// Publishes an event of this daemon's own. A malformed topic is a fault of ours, so it is only logged.
    pub(crate) fn publish(&self, namespace: &str, topic: &str, event: Any) {
        let envelope = Envelope {
            timestamp: Some(Timestamp::from(SystemTime::now())),
            namespace: namespace.to_owned(),
            topic: topic.to_owned(),
            event: Some(event),
        };
        if let Err(error) = self.forward(envelope) {
            tracing::error!(topic, %error, "an event of our own is malformed");
        }
    }

    /// Publishes an event that another process made.
    pub(crate) fn forward(&self, envelope: Envelope) -> Result<(), PublishError> {
        check(&envelope)?;
        self.lock().send(Arc::new(envelope), None);
        Ok(())
    }

    /// Publishes the exit of a process and keeps it until [`Exchange::forget`]. A second report of it is dropped.
    pub(crate) fn publish_exit(
        &self,
        key: ExitKey,
        exited_at: Timestamp,
        envelope: Envelope,
    ) -> Result<(), PublishError> {
        check(&envelope)?;
        let mut inner = self.lock();
        let known = inner.exits.get(&key);
        if known.is_some_and(|exit| exit.exited_at == exited_at)
            || inner
                .recent
                .iter()
                .any(|(k, at)| *k == key && *at == exited_at)
        {
            return Ok(());
        }
        inner.next += 1;
        let envelope = Arc::new(envelope);
        let kept = KeptExit {
            order: inner.next,
            exited_at,
            envelope: envelope.clone(),
            written: VecDeque::new(),
        };
        inner.exits.insert(key.clone(), kept);
        inner.send(envelope, Some(&key));
        Ok(())
    }

    /// Whether the exit of a process has been published and not been forgotten.
    pub(crate) fn has_exit(&self, key: &ExitKey) -> bool {
        self.lock().exits.contains_key(key)
    }

    /// Ends the keeping of a process's exit: it has been deleted.
    pub(crate) fn forget(&self, key: &ExitKey) {
        self.lock().forget(key);
    }

    /// The same for a task with all its execs.
    pub(crate) fn forget_task(&self, namespace: &str, container: &str) {
        let mut inner = self.lock();
        let gone: Vec<ExitKey> = inner
            .exits
            .keys()
            .filter(|key| key.namespace == namespace && key.container == container)
            .cloned()
            .collect();
        for key in gone {
            inner.forget(&key);
        }
    }

    /// Subscribes to the events that `wanted` takes. `filters` is the subscription's text and its identity.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        filters: Vec<String>,
        wanted: impl Fn(&Envelope) -> bool + Send + 'static,
    ) -> Subscription {
        let filters: Filters = filters.into();
        let mut inner = self.lock();
        let mut missed: Vec<(&ExitKey, &KeptExit)> = inner
            .exits
            .iter()
            .filter(|(_, exit)| !exit.written.contains(&filters) && wanted(&exit.envelope))
            .collect();
        missed.sort_by_key(|(_, exit)| exit.order);
        let (queue, events) = mpsc::channel(QUEUE + missed.len());
        for (key, exit) in missed {
            let item = Item {
                envelope: exit.envelope.clone(),
                exit: Some(key.clone()),
            };
            queue
                .try_send(item)
                .expect("the queue has room for all missed exits");
        }
        inner.next += 1;
        let id = inner.next;
        let cut_off = Arc::new(AtomicBool::new(false));
        inner.subscribers.push(Subscriber {
            id,
            filters: filters.clone(),
            wanted: Box::new(wanted),
            queue,
            cut_off: cut_off.clone(),
        });
        drop(inner);
        Subscription {
            exchange: self.clone(),
            id,
            filters,
            events,
            cut_off,
        }
    }

    fn note_written(&self, key: &ExitKey, filters: &Filters) {
        if let Some(exit) = self.lock().exits.get_mut(key)
            && !exit.written.contains(filters)
        {
            if exit.written.len() == WRITTEN {
                exit.written.pop_front();
            }
            exit.written.push_back(filters.clone());
        }
    }
}

impl Inner {
    fn send(&mut self, envelope: Arc<Envelope>, exit: Option<&ExitKey>) {
        self.subscribers.retain(|subscriber| {
            if !(subscriber.wanted)(&envelope) {
                return true;
            }
            let item = Item {
                envelope: envelope.clone(),
                exit: exit.cloned(),
            };
            match subscriber.queue.try_send(item) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Closed(_)) => false,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    tracing::warn!(filters = ?subscriber.filters, "a subscriber is too slow and is cut off");
                    subscriber.cut_off.store(true, Ordering::Relaxed);
                    false
                }
            }
        });
    }

    fn forget(&mut self, key: &ExitKey) {
        if let Some(exit) = self.exits.remove(key) {
            if self.recent.len() == RECENT {
                self.recent.pop_front();
            }
            self.recent.push_back((key.clone(), exit.exited_at));
        }
    }
}

fn check(envelope: &Envelope) -> Result<(), PublishError> {
    if proto::ids::validate(&envelope.namespace).is_err() {
        return Err(PublishError::Namespace(envelope.namespace.clone()));
    }
    let parts = envelope.topic.strip_prefix('/');
    if !parts.is_some_and(|parts| parts.split('/').all(|p| proto::ids::validate(p).is_ok())) {
        return Err(PublishError::Topic(envelope.topic.clone()));
    }
    if envelope.timestamp.is_none() {
        return Err(PublishError::Missing("timestamp"));
    }
    if envelope.event.is_none() {
        return Err(PublishError::Missing("event"));
    }
    Ok(())
}

/// The value of a field that event filters know: `namespace`, `topic` or `event.FIELD`.
pub(crate) fn field(envelope: &Envelope, path: &[&str]) -> Option<String> {
    match path {
        ["namespace"] => Some(envelope.namespace.clone()),
        ["topic"] => Some(envelope.topic.clone()),
        ["event", rest @ ..] => fields::of_event(envelope.event.as_ref()?, rest),
        _ => None,
    }
    .filter(|value| !value.is_empty())
}

/// A subscriber was cut off.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("more than {QUEUE} events wait for this subscriber: it is too slow")]
pub(crate) struct CutOff;

/// The events of one subscriber, in order. Dropping it ends the subscription.
#[derive(Debug)]
pub(crate) struct Subscription {
    exchange: Arc<Exchange>,
    id: u64,
    filters: Filters,
    events: mpsc::Receiver<Item>,
    cut_off: Arc<AtomicBool>,
}

impl futures_util::Stream for Subscription {
    type Item = Result<Envelope, CutOff>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(item) = std::task::ready!(self.events.poll_recv(cx)) else {
            // Told once, then the stream has ended.
            return Poll::Ready(
                self.cut_off
                    .swap(false, Ordering::Relaxed)
                    .then_some(Err(CutOff)),
            );
        };
        if let Some(key) = &item.exit {
            self.exchange.note_written(key, &self.filters);
        }
        Poll::Ready(Some(Ok(Arc::unwrap_or_clone(item.envelope))))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let id = self.id;
        self.exchange.lock().subscribers.retain(|s| s.id != id);
    }
}

#[cfg(test)]
mod tests;
