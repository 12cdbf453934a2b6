//! The fields of events that filters can name, as `event.FIELD`: texts, labels and nested texts; numbers have none.

use std::collections::HashMap;

use prost_types::Any;
use proto::containerd::events as wire;
use proto::containerd::services::images::v1 as images;
use proto::prost::Message;

/// The value of a text field of an event; none if it has no such field, or is of a type that we do not know.
pub(super) fn of_event(event: &Any, path: &[&str]) -> Option<String> {
    /// Decodes the event as `$message` and picks one of its plain text fields by name.
    macro_rules! texts {
        ($message:ty: $($field:ident),+) => {{
            let message = decode::<$message>(event)?;
            match path {
                $([name] if *name == stringify!($field) => Some(message.$field),)+
                _ => None,
            }
        }};
    }
    /// The same for a message with labels.
    macro_rules! texts_and_labels {
        ($message:ty: $($field:ident),+) => {
            match path {
                ["labels", key @ ..] => label(&decode::<$message>(event)?.labels, key),
                _ => texts!($message: $($field),+),
            }
        };
    }
    match event.type_url.rsplit('/').next().unwrap_or_default() {
        "containerd.events.TaskCreate" => match path {
            ["io", stream] => stdio(decode(event)?, stream),
            _ => texts!(wire::TaskCreate: container_id, bundle, checkpoint),
        },
        "containerd.events.TaskStart" => texts!(wire::TaskStart: container_id),
        "containerd.events.TaskExit" => texts!(wire::TaskExit: container_id, id),
        "containerd.events.TaskDelete" => texts!(wire::TaskDelete: container_id, id),
        "containerd.events.TaskOOM" => texts!(wire::TaskOom: container_id),
        "containerd.events.TaskExecAdded" => texts!(wire::TaskExecAdded: container_id, exec_id),
        "containerd.events.TaskExecStarted" => texts!(wire::TaskExecStarted: container_id, exec_id),
        "containerd.events.TaskPaused" => texts!(wire::TaskPaused: container_id),
        "containerd.events.TaskResumed" => texts!(wire::TaskResumed: container_id),
        "containerd.events.TaskCheckpointed" => {
            texts!(wire::TaskCheckpointed: container_id, checkpoint)
        }
        "containerd.events.ContainerCreate" => match path {
            ["runtime", "name"] => Some(decode::<wire::ContainerCreate>(event)?.runtime?.name),
            _ => texts!(wire::ContainerCreate: id, image),
        },
        "containerd.events.ContainerUpdate" => {
            texts_and_labels!(wire::ContainerUpdate: id, image, snapshot_key)
        }
        "containerd.events.ContainerDelete" => texts!(wire::ContainerDelete: id),
        "containerd.events.ContentCreate" => texts!(wire::ContentCreate: digest),
        "containerd.events.ContentDelete" => texts!(wire::ContentDelete: digest),
        "containerd.events.NamespaceCreate" => texts_and_labels!(wire::NamespaceCreate: name),
        "containerd.events.NamespaceUpdate" => texts_and_labels!(wire::NamespaceUpdate: name),
        "containerd.events.NamespaceDelete" => texts!(wire::NamespaceDelete: name),
        "containerd.events.SnapshotPrepare" => {
            texts!(wire::SnapshotPrepare: key, parent, snapshotter)
        }
        "containerd.events.SnapshotCommit" => texts!(wire::SnapshotCommit: key, name, snapshotter),
        "containerd.events.SnapshotRemove" => texts!(wire::SnapshotRemove: key, snapshotter),
        "containerd.services.images.v1.ImageCreate" => texts_and_labels!(images::ImageCreate: name),
        "containerd.services.images.v1.ImageUpdate" => texts_and_labels!(images::ImageUpdate: name),
        "containerd.services.images.v1.ImageDelete" => texts!(images::ImageDelete: name),
        _ => None,
    }
}

fn decode<M: Message + Default>(event: &Any) -> Option<M> {
    M::decode(event.value.as_slice()).ok()
}

fn label(labels: &HashMap<String, String>, key: &[&str]) -> Option<String> {
    labels.get(&key.join(".")).cloned()
}

fn stdio(event: wire::TaskCreate, stream: &str) -> Option<String> {
    let io = event.io?;
    match stream {
        "stdin" => Some(io.stdin),
        "stdout" => Some(io.stdout),
        "stderr" => Some(io.stderr),
        _ => None,
    }
}
