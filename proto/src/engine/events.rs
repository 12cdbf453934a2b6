//! What happens in a daemon: one message of `GET /events`.

use std::collections::BTreeMap;

use super::wire::wire;

wire! {
    /// One event; the first three fields ended with API 1.51.
    pub struct EventMessage {
        "status" [omitempty] status: String,
        "id" [omitempty] id: String,
        "from" [omitempty] from: String,
        "Type" kind: String,
        "Action" action: String,
        "Actor" actor: EventActor,
        "scope" [omitempty] scope: String,
        "time" [omitempty] time: i64,
        "timeNano" [omitempty] time_nano: i64,
    }

    /// The object that an event is about.
    pub struct EventActor {
        "ID" id: String,
        "Attributes" attributes: BTreeMap<String, String>,
    }
}
