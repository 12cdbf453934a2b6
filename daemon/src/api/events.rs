//! The event stream.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use proto::engine::EventMessage;
use time::OffsetDateTime;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::request::Filters;
use super::{Params, Version};
use crate::App;
use crate::clock;
use crate::error::{Error, Result};

/// The routes of this noun.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new().route("/events", get(events))
}

const FILTERS: &[&str] = &[
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

async fn events(State(app): State<Arc<App>>, version: Version, params: Params) -> Result<Response> {
    let filters = params.filters(FILTERS)?;
    let moment = |key: &str| match params.text(key) {
        "" => Ok(None),
        text => clock::from_client(text)
            .map(Some)
            .ok_or_else(|| Error::invalid(format!("invalid value for \"{key}\": {text}"))),
    };
    let (since, until) = (moment("since")?, moment("until")?);
    let (past, live) = app.events.listen();
    let nanos = |moment: OffsetDateTime| moment.unix_timestamp_nanos() as i64;
    let past = past.into_iter().filter(|message| {
        // Without since or until nobody asked for the past.
        let asked = since.is_some() || until.is_some();
        asked
            && since.is_none_or(|since| message.time_nano >= nanos(since))
            && until.is_none_or(|until| message.time_nano <= nanos(until))
    });
    let wanted = Wanted {
        filters,
        old_fields: version < Version(52),
    };
    let past: Vec<EventMessage> = past.filter(|message| wanted.has(message)).collect();
    let (sink, body) = mpsc::channel(16);
    tokio::spawn(send(past, live, until, wanted, sink));
    let kind = [(header::CONTENT_TYPE, "application/json")];
    Ok((kind, Body::from_stream(ReceiverStream::new(body))).into_response())
}

type Sink = mpsc::Sender<Result<Bytes, io::Error>>;

async fn send(
    past: Vec<EventMessage>,
    mut live: broadcast::Receiver<EventMessage>,
    until: Option<OffsetDateTime>,
    wanted: Wanted,
    sink: Sink,
) {
    for message in past {
        if sink.send(Ok(wanted.line(message))).await.is_err() {
            return;
        }
    }
    let left = until.map(|until| until - OffsetDateTime::now_utc());
    let over = async {
        match left {
            Some(left) => tokio::time::sleep(left.try_into().unwrap_or_default()).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(over);
    loop {
        let message = tokio::select! {
            () = &mut over => return,
            () = sink.closed() => return,
            message = live.recv() => message,
        };
        match message {
            Ok(message) if wanted.has(&message) => {
                if sink.send(Ok(wanted.line(message))).await.is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(lost)) => {
                // A stream with a hole would lie; a broken one makes the client look again.
                let text = format!("{lost} events were lost: the client reads too slowly");
                let _ = sink.send(Err(io::Error::other(text))).await;
                return;
            }
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

struct Wanted {
    filters: Filters,
    old_fields: bool,
}

impl Wanted {
    fn line(&self, mut message: EventMessage) -> Bytes {
        if !self.old_fields {
            message.status.clear();
            message.id.clear();
            message.from.clear();
        }
        let mut line = serde_json::to_vec(&message).unwrap_or_default();
        line.push(b'\n');
        line.into()
    }

    fn has(&self, message: &EventMessage) -> bool {
        let attributes = &message.actor.attributes;
        let object = |kind: &str| {
            self.filters.any(kind, |wanted| {
                let named = |key: &str| attributes.get(key).is_some_and(|name| name == wanted);
                let own = message.kind == kind
                    && (message.actor.id == wanted
                        || !wanted.is_empty() && message.actor.id.starts_with(wanted)
                        || named("name"));
                // Other objects tell of a container or an image that they concern.
                own || named(kind) || kind == "image" && image_is(attributes.get("image"), wanted)
            })
        };
        // `exec_start: cmd` is the event exec_start.
        let action = message.action.split(':').next().unwrap_or("");
        self.filters.any("event", |wanted| {
            wanted == action || wanted == message.action
        }) && self.filters.any("type", |wanted| wanted == message.kind)
            && self.filters.any("scope", |wanted| wanted == message.scope)
            && self.filters.labels("label", attributes)
            && ["container", "image", "network", "volume", "daemon"]
                .iter()
                .all(|kind| object(kind))
            && ["config", "node", "plugin", "secret", "service"]
                .iter()
                .all(|kind| !self.filters.has(kind))
    }
}

/// Whether an image's name is the wanted one, with or without its tag.
fn image_is(name: Option<&String>, wanted: &str) -> bool {
    name.is_some_and(|name| {
        let bare = match name.rsplit_once(':') {
            Some((bare, tag)) if !tag.contains('/') => bare,
            _ => name,
        };
        name == wanted || bare == wanted
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn wanted(filters: &str) -> Wanted {
        Wanted {
            filters: Filters::parse(filters).unwrap(),
            old_fields: true,
        }
    }

    #[test]
    fn filters() {
        let bus = crate::events::Events::new();
        let attributes = [("name", "web"), ("image", "busybox:1"), ("a", "b")];
        let attributes: BTreeMap<String, String> = attributes
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect();
        bus.emit("container", "exec_start: sh", "0123", attributes);
        let message = bus.listen().0.remove(0);
        for (filter, good) in [
            ("{}", true),
            (r#"{"type":["container"]}"#, true),
            (r#"{"type":["image"]}"#, false),
            (r#"{"event":["exec_start"]}"#, true),
            (r#"{"event":["die"]}"#, false),
            (r#"{"container":["web"]}"#, true),
            (r#"{"container":["01"]}"#, true),
            (r#"{"container":["other"]}"#, false),
            (r#"{"image":["busybox"]}"#, true),
            (r#"{"label":["a=b"]}"#, true),
            (r#"{"label":["a=c"]}"#, false),
            (r#"{"plugin":["x"]}"#, false),
        ] {
            assert_eq!(wanted(filter).has(&message), good, "{filter}");
        }
    }
}
