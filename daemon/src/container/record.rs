//! A container as the database keeps it.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use proto::engine::{Config, EndpointSettings, HostConfig};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::state::State;
use crate::volumes::request::Mount;

/// Kind of these records in the database.
pub(crate) const KIND: &str = "container";

/// Version of the record's form.
pub(crate) const VERSION: u32 = 1;

/// The record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) version: u32,
    /// 64 hex digits.
    pub(crate) id: String,
    /// Without the slash.
    pub(crate) name: String,
    /// When it was created.
    pub(crate) created: String,
    /// Digest of the image's config; `config.image` is what the user called it.
    pub(crate) image: String,
    /// Name of the image's topmost snapshot; empty for an image without layers.
    pub(crate) chain: String,
    /// The program.
    pub(crate) path: String,
    /// Its arguments.
    pub(crate) args: Vec<String>,
    pub(crate) config: Config,
    pub(crate) host: HostConfig,
    /// The networks asked for, by name.
    #[serde(default)]
    pub(crate) networks: BTreeMap<String, EndpointSettings>,
    /// What is mounted.
    #[serde(default)]
    pub(crate) mounts: Vec<Mount>,
    /// Name of the runtime.
    pub(crate) runtime: String,
    pub(crate) snapshotter: String,
    pub(crate) state: State,
    /// How often the policy started it again since a user did.
    #[serde(default)]
    pub(crate) restarts: u32,
    /// A user stopped it; `unless-stopped` then leaves it down at boot.
    #[serde(default)]
    pub(crate) stopped_by_user: bool,
    /// What a newer program wrote.
    #[serde(flatten)]
    pub(crate) other: BTreeMap<String, Value>,
}

impl Record {
    /// The first twelve digits.
    pub(crate) fn short(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }

    /// Whether `--rm` was given.
    pub(crate) fn auto_remove(&self) -> bool {
        self.host.auto_remove
    }

    /// What events tell about it: image, name and the labels.
    pub(crate) fn attributes(&self) -> BTreeMap<String, String> {
        let mut attributes: BTreeMap<String, String> = self.config.labels.clone();
        attributes.insert("image".into(), self.config.image.clone());
        attributes.insert("name".into(), self.name.clone());
        attributes
    }

    /// The signal that stops it.
    pub(crate) fn stop_signal(&self) -> u32 {
        super::signal::parse(&self.config.stop_signal).unwrap_or(15)
    }
}

/// The owner's hold on a record. It reads and changes like the record itself; a change copies it when somebody still looks at
/// the former state, so that a container at rest is in memory once.
#[derive(Debug, Clone)]
pub(super) struct Held(Arc<Record>);

impl Held {
    pub(super) fn new(record: Record) -> Self {
        Self(Arc::new(record))
    }
    /// The record as it is now, for others.
    pub(super) fn share(&self) -> Arc<Record> {
        self.0.clone()
    }
}

impl Deref for Held {
    type Target = Record;
    fn deref(&self) -> &Record {
        &self.0
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut Record {
        Arc::make_mut(&mut self.0)
    }
}
