//! What outlives the daemon of an exec: a small file below exec-root, so that a fresh daemon can go on answering for it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use proto::containerd::services::tasks::v1 as tasks;
use proto::engine::ExecConfig;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::exec::{Exec, Stage, exited};
use super::{Containers, Handle};
use crate::App;
use crate::backend::{QUICK, within};
use crate::error::{During, Error, Result};

/// What is kept of it below exec-root.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    version: u32,
    id: String,
    container: String,
    config: ExecConfig,
    stage: Stage,
    #[serde(default)]
    probe: bool,
    #[serde(flatten)]
    other: BTreeMap<String, serde_json::Value>,
}

impl Exec {
    fn file(&self, app: &App) -> PathBuf {
        app.config.exec_root.join("exec").join(&self.id)
    }

    pub(super) fn keep(&self, app: &App, container: &str) -> Result<()> {
        let path = self.file(app);
        let what = || format!("write {}", path.display());
        // The stage is read under the lock, so that the file never goes back to an earlier one.
        let dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        if *dropped {
            return Ok(());
        }
        let kept = Kept {
            version: 1,
            id: self.id.clone(),
            container: container.to_owned(),
            config: self.config.clone(),
            stage: self.stage(),
            probe: self.probe,
            other: BTreeMap::new(),
        };
        let body =
            serde_json::to_vec(&kept).map_err(|e| Error::internal(e.to_string()).during(what()))?;
        if let Some(dir) = path.parent() {
            crate::make_private(dir)?;
        }
        crate::replace(&path, body).during(what)
    }

    /// Takes the file away, for good.
    pub(super) fn drop_file(&self, app: &App) {
        let mut dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        *dropped = true;
        // Absent is what is wanted.
        let _ = std::fs::remove_file(self.file(app));
    }
}

/// Reads what a former daemon kept about execs. Those of containers that are no more are dropped.
pub(crate) fn load(app: &App, containers: &Containers) {
    let dir = app.config.exec_root.join("exec");
    let Ok(entries) = std::fs::read_dir(&dir) else {
        return;
    };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let read = std::fs::read(&path).ok();
        let kept = read.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
        let handle = kept
            .as_ref()
            .and_then(|kept| containers.find(&kept.container).ok());
        match (kept, handle) {
            (Some(kept), Some(handle)) => {
                let exec = Exec {
                    id: kept.id.clone(),
                    config: kept.config,
                    stage: watch::channel(kept.stage).0,
                    ended_at: OnceLock::new(),
                    dropped: Mutex::default(),
                    probe: kept.probe,
                    inherited: true,
                };
                handle.execs().insert(kept.id, Arc::new(exec));
            }
            // Half-written, or nobody's.
            _ => drop(std::fs::remove_file(&path)),
        }
    }
}

/// Drops what is kept of a removed container's execs.
pub(super) fn drop_kept(app: &App, handle: &Handle) {
    for exec in handle.execs().values() {
        exec.drop_file(app);
    }
}

/// Asks containerd about the execs that were running; what it does not know has ended with a code that nobody knows.
pub(crate) async fn reconcile(app: &Arc<App>, handle: &Handle) {
    let open: Vec<Arc<Exec>> = handle
        .execs()
        .values()
        .filter(|exec| match exec.stage() {
            Stage::Running { .. } => true,
            // Whoever starts it here will tell; containerd may not know of it yet.
            Stage::Starting => exec.inherited,
            Stage::Created | Stage::Ended { .. } => false,
        })
        .cloned()
        .collect();
    for exec in open {
        let request = tasks::GetRequest {
            container_id: handle.id().to_owned(),
            exec_id: exec.id.clone(),
        };
        match within(QUICK, app.backend.tasks().get(request)).await {
            Ok(reply) => {
                if let Some(process) = reply.process
                    && process.status() == proto::containerd::v1::types::Status::Stopped
                {
                    exited(app, handle, &exec.id, process.pid, process.exit_status);
                }
            }
            // A daemon that died starting it may have left it in this stage for good.
            Err(e) if e.is_not_found() => exited(app, handle, &exec.id, 0, 255),
            Err(e) => tracing::warn!("look up exec {}: {e}", exec.id),
        }
    }
}
