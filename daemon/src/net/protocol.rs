//! What the daemon and `dockerd-lite net` say to each other.
//!
//! One packet of a SEQPACKET socket is one [`Message`], in JSON, with the sockets it hands over; the helper answers each with
//! one [`Answer`]. The daemon says differences of [`Table`]s; after either has been started anew it asks what is held, and
//! says what differs. Fields that the other side does not know are ignored.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The version of this form. A helper of another one is not spoken to: the daemon says so and leaves it to the operator.
pub(crate) const VERSION: u32 = 1;

/// How many objects, and so sockets, go into a packet.
pub(crate) const AT_ONCE: usize = 100;

/// Longest packet.
pub(crate) const PACKET: usize = 128 << 10;

/// A published port of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Port {
    pub(crate) container: String,
    pub(crate) protocol: String,
    pub(crate) listen: SocketAddr,
    /// Where connections are led; none only keeps the port.
    pub(crate) target: Option<SocketAddr>,
}

/// The names of a container on one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Names {
    pub(crate) network: String,
    /// The first is the one that an address leads back to.
    pub(crate) names: Vec<String>,
    /// The network's name, under which all names are found as well.
    pub(crate) domain: String,
    pub(crate) addresses: Vec<IpAddr>,
}

/// How names are looked up for one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resolver {
    /// Who is asked for other names.
    pub(crate) servers: Vec<IpAddr>,
    /// The networks that it is on.
    pub(crate) networks: Vec<String>,
    /// Names of its own for others.
    #[serde(default)]
    pub(crate) links: BTreeMap<String, String>,
    /// The namespace of its sockets.
    pub(crate) netns: PathBuf,
}

/// All that a helper holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Table {
    /// By address and protocol of the host.
    #[serde(default)]
    pub(crate) ports: BTreeMap<String, Port>,
    /// By endpoint.
    #[serde(default)]
    pub(crate) names: BTreeMap<String, Names>,
    /// By container.
    #[serde(default)]
    pub(crate) resolvers: BTreeMap<String, Resolver>,
}

/// The keys of what is to go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gone {
    #[serde(default)]
    pub(crate) ports: Vec<String>,
    #[serde(default)]
    pub(crate) names: Vec<String>,
    #[serde(default)]
    pub(crate) resolvers: Vec<String>,
}

/// A packet of the daemon.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Message {
    /// What goes, first.
    #[serde(default)]
    pub(crate) gone: Gone,
    /// What comes or changes.
    #[serde(default)]
    pub(crate) come: Table,
    /// The ports whose sockets are the first of those handed over, in order.
    #[serde(default)]
    pub(crate) port_sockets: Vec<String>,
    /// The containers whose two resolver sockets each are the others, in order.
    #[serde(default)]
    pub(crate) resolver_sockets: Vec<String>,
    /// Tell the part of what is held that follows this key; see [`Answer::held`].
    #[serde(default)]
    pub(crate) tell_after: Option<String>,
}

/// A packet of the helper.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) version: u32,
    /// Why it was not done.
    #[serde(default)]
    pub(crate) error: Option<String>,
    /// A part of what is held.
    #[serde(default)]
    pub(crate) held: Table,
    /// The key to go on after; none if that was the last part.
    #[serde(default)]
    pub(crate) more_after: Option<String>,
}

/// What leads from one table to another, in packets' worths.
pub(crate) fn difference(from: &Table, to: &Table) -> Vec<Message> {
    let mut messages = vec![Message::default()];
    let mut count = 0;
    let mut at = |messages: &mut Vec<Message>| {
        if count == AT_ONCE {
            messages.push(Message::default());
            count = 0;
        }
        count += 1;
        messages.len() - 1
    };
    for key in from.ports.keys().filter(|k| !to.ports.contains_key(*k)) {
        let n = at(&mut messages);
        messages[n].gone.ports.push(key.clone());
    }
    for key in from.names.keys().filter(|k| !to.names.contains_key(*k)) {
        let n = at(&mut messages);
        messages[n].gone.names.push(key.clone());
    }
    let gone = |key: &&String| !to.resolvers.contains_key(*key);
    for key in from.resolvers.keys().filter(gone) {
        let n = at(&mut messages);
        messages[n].gone.resolvers.push(key.clone());
    }
    for (key, port) in &to.ports {
        if from.ports.get(key) != Some(port) {
            let n = at(&mut messages);
            messages[n].come.ports.insert(key.clone(), port.clone());
        }
    }
    for (key, names) in &to.names {
        if from.names.get(key) != Some(names) {
            let n = at(&mut messages);
            messages[n].come.names.insert(key.clone(), names.clone());
        }
    }
    for (key, resolver) in &to.resolvers {
        if from.resolvers.get(key) != Some(resolver) {
            let n = at(&mut messages);
            messages[n]
                .come
                .resolvers
                .insert(key.clone(), resolver.clone());
        }
    }
    messages.retain(|m| m.gone != Gone::default() || m.come != Table::default());
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_lead_from_one_table_to_the_other() {
        let port = |n: u16| Port {
            container: "c".into(),
            protocol: "tcp".into(),
            listen: ([0, 0, 0, 0], n).into(),
            target: Some(([10, 0, 0, 2], 80).into()),
        };
        let table = |range: std::ops::Range<u16>| Table {
            ports: range.map(|n| (format!("{n}/tcp"), port(n))).collect(),
            ..Table::default()
        };
        assert!(difference(&table(0..3), &table(0..3)).is_empty());
        let messages = difference(&table(0..3), &table(2..252));
        assert_eq!(messages.len(), 3);
        let mut held = table(0..3);
        for message in messages {
            for key in message.gone.ports {
                held.ports.remove(&key);
            }
            held.ports.extend(message.come.ports);
        }
        assert_eq!(held, table(2..252));
    }
}
