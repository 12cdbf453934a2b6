//! Events to the daemon above, over ttrpc `Forward`.
//!
//! They are hints; the exit record is the truth. Order is kept: one call at a time, the first in the queue is retried with
//! growing pauses for as long as the shim lives. The queue is bounded: when full, what says least goes first, and of one
//! process only the latest word stays; an exit or a delete is never dropped.
//!
//! Async.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use prost::Name;
use proto::containerd::services::events::ttrpc::v1::ForwardRequest;
use proto::containerd::services::events::ttrpc::v1::events_ttrpc::EventsClient;
use proto::containerd::types::Envelope;
use proto::ttrpc::{Call, Client};
use tokio::net::UnixStream;
use tokio::sync::Notify;

use crate::{clock, diag};

/// Most events kept while the daemon is away.
const CAPACITY: usize = 2048;
/// Longest wait for the daemon's answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Longest pause between tries.
const PAUSE: Duration = Duration::from_secs(2);

/// Handle on the queue; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Publisher(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    namespace: String,
    queue: Mutex<Queue>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Event>,
    /// The daemon did not answer the last try.
    away: bool,
}

#[derive(Debug, Clone)]
struct Event {
    topic: &'static str,
    envelope: Envelope,
}

impl Publisher {
    /// Starts forwarding to the socket at `address` (a path); without one, events are dropped.
    pub(crate) fn start(namespace: &str, address: Option<String>) -> Self {
        let publisher = Self(Arc::new(Shared {
            namespace: namespace.to_owned(),
            queue: Mutex::default(),
            changed: Notify::new(),
        }));
        match address {
            Some(address) => drop(tokio::spawn(publisher.clone().forward_all(address))),
            None => diag::warn(format_args!("no event address given: events go nowhere")),
        }
        publisher
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().expect("no holder of the queue panics")
    }

    /// Queues an event.
    pub(crate) fn publish<M: Name>(&self, topic: &'static str, message: &M) {
        let envelope = Envelope {
            timestamp: Some(clock::timestamp(SystemTime::now())),
            namespace: self.0.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(proto::any::pack(message)),
        };
        let mut queue = self.queue();
        if queue.events.len() >= CAPACITY {
            make_room(&mut queue.events);
        }
        queue.events.push_back(Event { topic, envelope });
        drop(queue);
        self.0.changed.notify_one();
    }

    /// Waits until all events are told, the daemon proves to be away, or the time is over.
    pub(crate) async fn flush(&self, limit: Duration) {
        let told = async {
            loop {
                {
                    let queue = self.queue();
                    if queue.events.is_empty() || queue.away {
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        // What is left after the limit is in the exit records.
        let _ = tokio::time::timeout(limit, told).await;
    }

    async fn forward_all(self, address: String) {
        let mut client = None;
        let mut pause = Duration::from_millis(50);
        loop {
            let Some(event) = self.queue().events.front().cloned() else {
                self.0.changed.notified().await;
                continue;
            };
            match self
                .forward(&mut client, &address, event.envelope.clone())
                .await
            {
                Ok(()) => {
                    pause = Duration::from_millis(50);
                    let mut queue = self.queue();
                    queue.away = false;
                    // Coalescing may have taken it away meanwhile.
                    if queue
                        .events
                        .front()
                        .is_some_and(|e| e.envelope == event.envelope)
                    {
                        queue.events.pop_front();
                    }
                }
                Err(error) => {
                    client = None;
                    self.queue().away = true;
                    diag::debug(format_args!(
                        "forward {} to {address}: {error}",
                        event.topic
                    ));
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE);
                }
            }
        }
    }

    async fn forward(
        &self,
        client: &mut Option<EventsClient>,
        address: &str,
        envelope: Envelope,
    ) -> Result<(), String> {
        let connected = match client.take() {
            Some(connected) => connected,
            None => {
                let path = address.strip_prefix("unix://").unwrap_or(address);
                let stream = UnixStream::connect(path).await.map_err(|e| e.to_string())?;
                EventsClient(Client::new(stream.into()))
            }
        };
        let request = ForwardRequest {
            envelope: Some(envelope),
        };
        let call = Call::in_namespace(self.0.namespace.clone());
        connected
            .forward(&call, Some(ANSWER), &request)
            .await
            .map_err(|e| e.to_string())?;
        *client = Some(connected);
        Ok(())
    }
}

/// How little an event says: those with the smallest number go first. None: never dropped.
fn expendable(topic: &str) -> Option<u8> {
    match topic {
        "/tasks/exec-added" => Some(0),
        "/tasks/paused" | "/tasks/resumed" | "/tasks/checkpointed" => Some(1),
        "/tasks/exec-started" => Some(2),
        "/tasks/oom" => Some(3),
        "/tasks/create" | "/tasks/start" => Some(4),
        _ => None,
    }
}

/// Drops the oldest of the least telling events; a queue of nothing but exits grows.
fn make_room(events: &mut VecDeque<Event>) {
    let least = events
        .iter()
        .enumerate()
        .filter_map(|(at, event)| expendable(event.topic).map(|rank| (rank, at)))
        .min();
    if let Some((_, at)) = least {
        events.remove(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(topic: &'static str) -> Event {
        Event {
            topic,
            envelope: Envelope::default(),
        }
    }

    #[test]
    fn exits_outlive_everything() {
        let mut events: VecDeque<_> = [
            "/tasks/create",
            "/tasks/exec-added",
            "/tasks/exit",
            "/tasks/exec-added",
        ]
        .into_iter()
        .map(event)
        .collect();
        for left in [3, 2, 1, 1] {
            make_room(&mut events);
            assert_eq!(events.len(), left);
        }
        assert_eq!(events[0].topic, "/tasks/exit");
    }
}
