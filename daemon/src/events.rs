//! What happens, told to everybody who listens, and the last of it to those who come late.
//!
//! A sender never waits. A listener that does not keep up loses the oldest and is told so by the channel; the API then ends
//! its stream rather than leave a silent gap.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use proto::engine::{EventActor, EventMessage};
use tokio::sync::broadcast;

/// How many events of the past are kept for `since`.
const KEPT: usize = 256;

/// How many events a listener may be behind.
const BEHIND: usize = 1024;

/// The bus.
#[derive(Debug)]
pub(crate) struct Events {
    past: Mutex<VecDeque<EventMessage>>,
    live: broadcast::Sender<EventMessage>,
    told: AtomicU64,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self {
            past: Mutex::new(VecDeque::new()),
            live: broadcast::channel(BEHIND).0,
            told: AtomicU64::new(0),
        }
    }

    /// Tells what happened: `kind` is container, image, volume, network or daemon.
    pub(crate) fn emit(
        &self,
        kind: &str,
        action: &str,
        id: &str,
        attributes: BTreeMap<String, String>,
    ) {
        let now = time::OffsetDateTime::now_utc();
        let mut message = EventMessage {
            kind: kind.into(),
            action: action.into(),
            scope: "local".into(),
            time: now.unix_timestamp(),
            time_nano: now.unix_timestamp_nanos() as i64,
            ..EventMessage::default()
        };
        // The fields of old that clients below API 1.51 read.
        if kind == "container" || kind == "image" {
            message.status = action.into();
            message.id = id.into();
            message.from = match kind {
                "container" => attributes.get("image").cloned().unwrap_or_default(),
                _ => String::new(),
            };
        }
        message.actor = EventActor {
            id: id.into(),
            attributes,
        };
        self.told.fetch_add(1, Ordering::Relaxed);
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        if past.len() == KEPT {
            past.pop_front();
        }
        past.push_back(message.clone());
        // Nobody listening is no error. Sent under the lock, so that a listener sees each event once.
        let _ = self.live.send(message);
    }

    /// The past that is kept, and all that follows it, without a gap between.
    pub(crate) fn listen(&self) -> (Vec<EventMessage>, broadcast::Receiver<EventMessage>) {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        (past.iter().cloned().collect(), self.live.subscribe())
    }

    /// How many were told.
    pub(crate) fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }

    /// How many listen.
    pub(crate) fn listeners(&self) -> usize {
        self.live.receiver_count()
    }
}
