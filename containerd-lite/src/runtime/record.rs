//! How a process ended, on disk and on its way to subscribers.
//!
//! The shim leaves `exit.json` and `exit-EXECID.json` in the bundle (`{version, pid, start_time, status, exited_at, reason}`);
//! before a bundle goes they are copied into the database, where they stay until the client deletes the task.

use std::sync::Arc;
use std::time::Duration;

use proto::containerd::events::TaskExit;
use proto::containerd::types::Envelope;
use proto::layout;
use serde::{Deserialize, Serialize};

use super::bundle::Bundle;
use super::task::{Life, ProcessExit, ProcessRef, Task};
use super::{Result, Runtime};
use crate::metadata::Exit;

/// An exit record is a few dozen bytes.
const RECORD_LIMIT: u64 = 64 * 1024;
/// How long the shim's own event of an exit is waited for before it is published here.
const EVENT: Duration = Duration::from_millis(500);

/// Our own note of the init's exit in the bundle, for shims that leave none.
const NOTED: &str = "noted-exit.json";
/// Format of the record.
const VERSION: u32 = 1;

/// The part of an exit record that we read. Unknown fields are the shim's own.
#[derive(Debug, Deserialize, Serialize)]
struct Record {
    version: u32,
    pid: u32,
    status: u32,
    exited_at: String,
    #[serde(default)]
    reason: String,
}

/// The exit record of a process in the bundle; none if there is none, or it is malformed. For the init, ours is as good as
/// the shim's.
pub(super) fn read(bundle: &Bundle, process: &ProcessRef) -> Option<ProcessExit> {
    match process {
        ProcessRef::Init => read_file(bundle, layout::EXIT).or_else(|| read_file(bundle, NOTED)),
        ProcessRef::Exec(id) => read_file(bundle, &layout::exec_exit(id)),
    }
}

/// Why a process ended, by its record in the bundle; empty if that does not say, or tells of another exit.
pub(super) fn reason(bundle: &Bundle, process: &ProcessRef, (pid, status): (u32, u32)) -> String {
    read(bundle, process)
        .filter(|record| (record.pid, record.status) == (pid, status))
        .map(|record| record.reason)
        .unwrap_or_default()
}

/// Notes how the init ended in the bundle, in the shim's form, unless the shim has.
pub(super) fn note(bundle: &Bundle, exit: &ProcessExit) -> Result<()> {
    if read_file(bundle, layout::EXIT).is_some() {
        return Ok(());
    }
    let record = Record {
        version: VERSION,
        pid: exit.pid,
        status: exit.status,
        exited_at: rfc3339(exit.exited_at),
        reason: exit.reason.clone(),
    };
    let bytes = serde_json::to_vec(&record).expect("a record is plain JSON");
    Ok(bundle.write(NOTED, &bytes)?)
}

fn read_file(bundle: &Bundle, name: &str) -> Option<ProcessExit> {
    let bytes = bundle.read(name, RECORD_LIMIT)?;
    let parsed = parse(&bytes);
    if parsed.is_none() {
        tracing::warn!(bundle = %bundle.path().display(), name, "an exit record is malformed");
    }
    parsed
}

fn parse(bytes: &[u8]) -> Option<ProcessExit> {
    let record: Record = serde_json::from_slice(bytes).ok()?;
    Some(ProcessExit {
        pid: record.pid,
        status: record.status,
        exited_at: crate::time::from_rfc3339(&record.exited_at)?,
        reason: record.reason,
    })
}

fn rfc3339(at: crate::time::Nanos) -> String {
    use time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::from_unix_timestamp_nanos(at.into())
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned())
}

/// Execs of which the bundle holds an exit record.
pub(super) fn recorded_execs(bundle: &Bundle) -> Vec<ProcessRef> {
    bundle
        .files()
        .iter()
        .filter_map(|name| name.strip_prefix("exit-")?.strip_suffix(".json"))
        .filter(|id| proto::ids::validate(id).is_ok())
        .map(|id| ProcessRef::Exec(id.to_owned()))
        .collect()
}

impl Runtime {
    /// Keeps how a process ended, durably.
    pub(super) async fn keep(
        &self,
        task: &Task,
        process: &ProcessRef,
        exit: &ProcessExit,
    ) -> Result<()> {
        let row = Exit {
            container: task.id.clone(),
            exec: process.wire().to_owned(),
            pid: exit.pid,
            status: exit.status,
            exited_at: exit.exited_at,
            reason: exit.reason.clone(),
        };
        Ok(self.store.exits().put(&task.namespace, row).await?)
    }

    /// Publishes how a process ended, unless that has been done.
    pub(super) fn publish_exit(&self, task: &Task, process: &ProcessRef, exit: &ProcessExit) {
        let exited_at = crate::time::wire(exit.exited_at).unwrap_or_default();
        let event = TaskExit {
            container_id: task.id.clone(),
            id: match process {
                ProcessRef::Init => task.id.clone(),
                ProcessRef::Exec(id) => id.clone(),
            },
            pid: exit.pid,
            exit_status: exit.status,
            exited_at: Some(exited_at),
        };
        let envelope = Envelope {
            timestamp: crate::time::wire(crate::time::now()),
            namespace: task.namespace.clone(),
            topic: "/tasks/exit".to_owned(),
            event: Some(proto::any::pack(&event)),
        };
        let key = task.exit_key(process);
        if let Err(error) = self.events.publish_exit(key, exited_at, envelope) {
            tracing::error!(id = task.id, %error, "an exit event of our own is malformed");
        }
    }

    /// Gives the shim's own exit event a moment, which keeps the order of its events, then publishes the exit here.
    pub(super) async fn ensure_published(
        self: &Arc<Self>,
        task: &Arc<Task>,
        process: &ProcessRef,
        exit: &ProcessExit,
    ) {
        if matches!(task.life(), Life::Gone) {
            return;
        }
        let key = task.exit_key(process);
        let deadline = tokio::time::Instant::now() + EVENT;
        let mut pause = Duration::from_millis(2);
        while !self.events.has_exit(&key) && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        self.publish_exit(task, process, exit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_a_later_version_is_read() {
        let exit = parse(
            br#"{"version":9,"pid":12,"start_time":5,"status":137,"exited_at":"1970-01-01T00:00:01.5Z","reason":"oom","new":{}}"#,
        );
        let wanted = ProcessExit {
            pid: 12,
            status: 137,
            exited_at: 1_500_000_000,
            reason: "oom".into(),
        };
        assert_eq!(exit, Some(wanted));
        for bad in ["", "{}", r#"{"pid":1,"status":-1,"exited_at":"x"}"#] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
