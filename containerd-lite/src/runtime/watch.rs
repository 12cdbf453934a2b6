//! What happens when the connection to a shim closes: it is dialled again, and if nobody listens the task is buried.
//!
//! ```text
//!  closed ─┬─ deleted meanwhile ─▶ done
//!          ├─ dial ok ──────────▶ go on with the new connection (the old one broke on our side)
//!          └─ nobody listens ───▶ bury: shim's `delete` ─ exit records to the database ─ Dead ─ exits published ─ bundle gone
//! ```
//!
//! A stopped shim still has a listening socket, so it is never taken for dead.

use std::os::unix::fs::FileTypeExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::containerd::task::v2::DeleteResponse;

use super::create::remove;
use super::launch::LaunchError;
use super::shim_client::{ConnectError, ShimClient};
use super::task::{Life, ProcessExit, ProcessRef, Shim, Task};
use super::{Runtime, record};
use crate::error::chain;
use crate::fault;
use crate::metadata::MetadataError;

/// Pauses between dials that lead to nothing.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// Status of a process that was killed because its shim had died.
const KILLED: u32 = 137;
/// Status of a process of which nothing is known but that it is gone.
const UNKNOWN: u32 = 255;

impl Runtime {
    /// Watches the connection of a live task until the task is dead or gone.
    pub(super) fn watch(self: &Arc<Self>, task: &Arc<Task>) {
        let (runtime, task) = (self.clone(), task.clone());
        tokio::spawn(async move {
            let mut pause = PAUSES.0;
            while let Life::Live(shim) = task.life() {
                let since = Instant::now();
                shim.client.closed().await;
                if since.elapsed() > PAUSES.1 {
                    pause = PAUSES.0;
                }
                // Whoever holds this may be the one who ended the shim.
                let _alone = task.lifecycle.lock().await;
                if !matches!(task.life(), Life::Live(_)) {
                    return;
                }
                match ShimClient::connect(&shim.answer, &task.namespace).await {
                    Ok(client) => task.set_life(Life::Live(Shim { client, ..shim })),
                    Err(ConnectError::Dead(_)) => {
                        tracing::warn!(namespace = task.namespace, id = task.id, "a shim has died");
                        runtime.bury(&task).await;
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(id = task.id, error = chain(&error), "reach a shim again");
                    }
                }
                drop(_alone);
                // A dying shim may accept once more; the pause keeps this from spinning.
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
            }
        });
    }

    /// Ends what is left of a task whose shim is dead, and keeps how it ended. The caller holds `lifecycle`.
    pub(super) async fn bury(self: &Arc<Self>, task: &Arc<Task>) {
        fault::pass("bury.begun");
        // Read before the shim's `delete` runs, which may clear them away.
        let recorded = record::read(&task.bundle, &ProcessRef::Init);
        let execs = exec_exits(task);
        let deleted = self.run_delete(task).await;
        if let Err(error) = &deleted {
            tracing::error!(
                id = task.id,
                error = chain(error),
                "clean up after a dead shim"
            );
        }
        fault::pass("bury.cleaned");
        let known = task.process(&ProcessRef::Init).unwrap_or_default();
        // Nobody was told of a task whose Create was not answered.
        let never_told = known.pid.is_none() && task.bundle.created().is_none();
        let container = self.store.containers().get(&task.namespace, &task.id);
        let orphan = matches!(container, Err(MetadataError::NotFound(_)));
        self.remove_socket(task).await;
        if never_told || orphan {
            self.drop_remains(task).await;
            return;
        }
        let pid = known.pid.or_else(|| task.bundle.created());
        let init = init_exit(pid, known.exit.or(recorded), &deleted);
        let cleaned = deleted.is_ok();
        self.lay_down(task, init, execs, cleaned).await;
    }

    /// Makes a dead task of a bundle: exits into the database, then to subscribers, then the bundle goes.
    pub(super) async fn lay_down(
        self: &Arc<Self>,
        task: &Arc<Task>,
        init: ProcessExit,
        mut exits: Vec<(ProcessRef, ProcessExit)>,
        cleaned: bool,
    ) {
        // The init's exit comes last.
        exits.push((ProcessRef::Init, init));
        let mut kept = true;
        for (process, exit) in &exits {
            task.note_process(process, exit.pid);
            task.note_exit(process, exit.clone());
            if let Err(error) = self.keep(task, process, exit).await {
                tracing::error!(id = task.id, error = chain(&error), "keep an exit record");
                kept = false;
            }
        }
        fault::pass("bury.kept");
        task.set_life(Life::Dead);
        for (process, exit) in &exits {
            self.publish_exit(task, process, exit);
        }
        fault::pass("bury.told");
        // The bundle is the only other place that knows the exit, and the only way to clean up once more.
        if kept
            && cleaned
            && let Err(error) = remove(&task.bundle).await
        {
            tracing::error!(
                id = task.id,
                error = chain(&error),
                "remove the bundle of a dead shim"
            );
        }
        fault::pass("bury.removed");
    }

    /// Removes the bundle of a task that nobody knows of.
    pub(super) async fn drop_remains(&self, task: &Arc<Task>) {
        if let Err(error) = remove(&task.bundle).await {
            tracing::error!(
                id = task.id,
                error = chain(&error),
                "remove the bundle of an unknown task"
            );
        }
        self.leave(task);
    }

    /// Removes the socket that a dead shim left, unless another shim has taken its place.
    pub(super) async fn remove_socket(&self, task: &Task) {
        let Some(answer) = task.bundle.answer() else {
            return;
        };
        let there = |path: &&str| {
            std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
        };
        let Some(path) = answer.path().filter(there) else {
            return;
        };
        let dead = ShimClient::connect(&answer, &task.namespace).await;
        if matches!(dead, Err(ConnectError::Dead(_)))
            && let Err(error) = std::fs::remove_file(path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(id = task.id, path, %error, "remove the socket of a dead shim");
        }
    }

    async fn run_delete(&self, task: &Task) -> Result<DeleteResponse, LaunchError> {
        let program = match task.program().or_else(|| task.bundle.shim_binary()) {
            Some(program) => program,
            None => {
                let container = self.store.containers().get(&task.namespace, &task.id);
                let name = container.map(|c| c.runtime.name).unwrap_or_default();
                self.launcher.resolve(&name)?
            }
        };
        task.set_program(program.clone());
        let name = (task.namespace.as_str(), task.id.as_str());
        self.launcher.delete(&program, name, &task.bundle).await
    }
}

/// How the execs ended: as known or recorded, else killed with the task. One that was never started has no end.
pub(super) fn exec_exits(task: &Task) -> Vec<(ProcessRef, ProcessExit)> {
    for process in record::recorded_execs(&task.bundle) {
        task.note_process(&process, 0);
    }
    let mut exits = Vec::new();
    for (process, known) in task.processes() {
        if process == ProcessRef::Init {
            continue;
        }
        let killed = known.pid.map(|pid| killed(pid, KILLED));
        let recorded = record::read(&task.bundle, &process);
        if let Some(exit) = known.exit.or(recorded).or(killed) {
            exits.push((process, exit));
        }
    }
    exits
}

fn killed(pid: u32, status: u32) -> ProcessExit {
    ProcessExit {
        pid,
        status,
        exited_at: crate::time::now(),
        reason: proto::exit::SHIM_DIED.to_owned(),
    }
}

fn init_exit(
    pid: Option<u32>,
    known: Option<ProcessExit>,
    deleted: &Result<DeleteResponse, LaunchError>,
) -> ProcessExit {
    if let Some(exit) = known {
        return exit;
    }
    match deleted {
        Ok(told) => {
            let pid = pid.unwrap_or(told.pid);
            let exited_at = told.exited_at.as_ref().map(crate::time::from_wire);
            ProcessExit {
                exited_at: exited_at
                    .filter(|at| *at > 0)
                    .unwrap_or_else(crate::time::now),
                ..killed(pid, told.exit_status)
            }
        }
        Err(error) => ProcessExit {
            reason: format!(
                "{} and could not be cleaned up after: {error}",
                proto::exit::SHIM_DIED
            ),
            ..killed(pid.unwrap_or(0), UNKNOWN)
        },
    }
}
