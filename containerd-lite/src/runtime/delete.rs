//! Deleting a task or an exec: the shim lets go, then we do.
//!
//! ```text
//!  live:  note the exit in the bundle ─ shim Delete ─ exit published ─ shim Shutdown ─ bundle removed ─ forgotten
//!  dead:  bundle removed ─ /tasks/delete published ─ exit record removed from the database
//! ```
//!
//! A kill after the shim's Delete leaves a bundle whose shim knows no task: recovery finds the noted exit in it and keeps the
//! task as stopped, so a client that never saw the answer can ask again. After a clean Shutdown nothing is left that the
//! shim's `delete` command could clean, so it is not run. Runs to its end even if the client leaves.

use std::sync::Arc;
use std::time::Duration;

use proto::containerd::events::TaskDelete;
use proto::containerd::task::v2 as shim;
use proto::error::ErrorKind;

use super::answer::Answer;
use super::bundle::BundleError;
use super::calls::{Asked, settled};
use super::shim_client::{ACTION, Method, ShimClient, is_broken};
use super::task::{Life, ProcessExit, ProcessRef, Shim, Task};
use super::{Origin, Result, Runtime, RuntimeError, record};
use crate::error::chain;
use crate::fault;

/// How long a shim may take to answer Shutdown, and then to be gone.
const SHUTDOWN: Duration = Duration::from_secs(3);

impl Runtime {
    /// Deletes a stopped task.
    pub(crate) async fn delete(self: &Arc<Self>, origin: Origin, id: &str) -> Result<ProcessExit> {
        let task = self.task(&origin.namespace, id).await?;
        let runtime = self.clone();
        let work = tokio::spawn(async move {
            loop {
                let alone = task.lifecycle.lock().await;
                match task.life() {
                    Life::Dead => return runtime.delete_dead(&task).await,
                    Life::Live(shim) => match runtime.delete_live(&task, &shim, &origin).await {
                        Err(RuntimeError::Shim(status)) if is_broken(&status) => {
                            drop(alone);
                            if !settled(&task, &shim.client).await {
                                return Err(RuntimeError::Shim(status));
                            }
                        }
                        deleted => return deleted,
                    },
                    _ => return Err(RuntimeError::NotFound(task.id.clone())),
                }
            }
        });
        work.await.expect("deleting a task does not panic")
    }

    async fn delete_live(
        self: &Arc<Self>,
        task: &Arc<Task>,
        shim: &Shim,
        origin: &Origin,
    ) -> Result<ProcessExit> {
        let known = task.process(&ProcessRef::Init).and_then(|p| p.exit);
        let reason = reason(task, &ProcessRef::Init);
        fault::point("delete.begun")?;
        if let Some(exit) = &known {
            record::note(&task.bundle, exit)?;
        }
        fault::point("delete.noted")?;
        let request = shim::DeleteRequest {
            id: task.id.clone(),
            exec_id: String::new(),
        };
        let traceparent = origin.traceparent.as_deref();
        let deleted = shim
            .client
            .call(Method::Delete, Some(ACTION), traceparent, &request)
            .await;
        let exit = match deleted {
            Ok(told) => told_exit(&told, reason),
            // An earlier Delete got through without its answer.
            Err(status) if status.kind == ErrorKind::NotFound => {
                known.ok_or_else(|| RuntimeError::NotFound(task.id.clone()))?
            }
            Err(status) => {
                if status.kind == ErrorKind::DeadlineExceeded {
                    self.mark_silent(task, &shim.client);
                }
                return Err(RuntimeError::Shim(status));
            }
        };
        fault::point("delete.told")?;
        if exit.pid != 0 {
            self.ensure_published(task, &ProcessRef::Init, &exit).await;
        }
        fault::point("delete.published")?;
        // From here on its connection may close without that being a death.
        task.set_life(Life::Gone);
        self.end_shim(task, &shim.client, &shim.answer).await;
        // A shim that was killed on its last steps leaves it.
        self.remove_socket(task).await;
        fault::pass("delete.shim-ended");
        self.let_go(task).await;
        Ok(exit)
    }

    async fn delete_dead(self: &Arc<Self>, task: &Arc<Task>) -> Result<ProcessExit> {
        let exit = task
            .process(&ProcessRef::Init)
            .and_then(|p| p.exit)
            .ok_or_else(|| RuntimeError::NotFound(task.id.clone()))?;
        // A cleanup that failed at the shim's death gets a second try; what fails now is in the log and stays on disk.
        let name = (task.namespace.as_str(), task.id.as_str());
        if task.bundle.path().exists()
            && let Some(program) = task.program()
            && let Err(error) = self.launcher.delete(&program, name, &task.bundle).await
        {
            tracing::warn!(
                id = task.id,
                error = chain(&error),
                "clean up after a dead shim"
            );
        }
        fault::point("delete-dead.cleaned")?;
        self.store
            .exits()
            .delete_all(&task.namespace, &task.id)
            .await?;
        fault::pass("delete-dead.forgotten");
        let event = TaskDelete {
            container_id: task.id.clone(),
            pid: exit.pid,
            exit_status: exit.status,
            exited_at: crate::time::wire(exit.exited_at),
            id: String::new(),
        };
        self.events
            .publish(&task.namespace, "/tasks/delete", proto::any::pack(&event));
        self.let_go(task).await;
        Ok(exit)
    }

    /// Takes the bundle away and forgets the task. The client need not wait until the last file is gone.
    async fn let_go(&self, task: &Arc<Task>) {
        let bundle = task.bundle.clone();
        let aside = tokio::task::spawn_blocking(move || {
            let remains = bundle.set_aside()?;
            tokio::task::spawn_blocking(move || {
                if let Err(error) = remains.remove() {
                    tracing::warn!(
                        error = chain(&error),
                        "remove what is left of a deleted task"
                    );
                }
            });
            Ok::<(), BundleError>(())
        });
        if let Err(error) = aside.await.expect("removing a bundle does not panic") {
            tracing::error!(
                id = task.id,
                error = chain(&error),
                "remove the bundle of a deleted task"
            );
        }
        fault::pass("delete.aside");
        self.events.forget_task(&task.namespace, &task.id);
        self.leave(task);
    }

    /// Asks the shim to end and waits until it has, unless it has other containers as well or belongs to a sandbox.
    pub(super) async fn end_shim(&self, task: &Arc<Task>, client: &ShimClient, answer: &Answer) {
        if self.is_sandbox(&task.namespace, answer) {
            return;
        }
        let request = shim::ShutdownRequest {
            id: task.id.clone(),
            now: false,
        };
        let told = client
            .call::<_, ()>(Method::Shutdown, Some(SHUTDOWN), None, &request)
            .await;
        match told {
            // It may be gone before it has answered.
            Ok(()) => {}
            Err(status) if is_broken(&status) => {}
            Err(status) => {
                tracing::warn!(id = task.id, error = %status, "shut a shim down");
                return;
            }
        }
        let closed = tokio::time::timeout(SHUTDOWN, client.closed());
        if !self.is_shared(task, answer) && closed.await.is_err() {
            tracing::warn!(
                id = task.id,
                address = answer.address,
                "a shim goes on after its shutdown"
            );
        }
    }

    /// Whether another task has the same shim.
    fn is_shared(&self, task: &Arc<Task>, answer: &Answer) -> bool {
        self.tasks().values().any(|other| {
            !Arc::ptr_eq(task, other)
                && matches!(other.life(), Life::Live(shim) if shim.answer.address == answer.address)
        })
    }

    /// Deletes a stopped exec.
    pub(crate) async fn delete_exec(
        self: &Arc<Self>,
        origin: &Origin,
        id: &str,
        exec_id: &str,
    ) -> Result<ProcessExit> {
        proto::ids::validate(exec_id)
            .map_err(|e| RuntimeError::Invalid(format!("exec id: {e}")))?;
        let task = self.task(&origin.namespace, id).await?;
        let process = ProcessRef::Exec(exec_id.to_owned());
        let request = shim::DeleteRequest {
            id: id.to_owned(),
            exec_id: exec_id.to_owned(),
        };
        let known = task.process(&process).and_then(|p| p.exit);
        let reason = reason(&task, &process);
        let traceparent = origin.traceparent.as_deref();
        let exit = match self
            .ask(&task, Method::Delete, ACTION, traceparent, &request)
            .await?
        {
            Asked::Answer(told) => {
                let exit = told_exit(&told, reason);
                // One that was never started has not ended either.
                if exit.pid != 0 {
                    self.ensure_published(&task, &process, &exit).await;
                }
                exit
            }
            Asked::Dead => {
                let gone = || RuntimeError::NoProcess(format!("{exec_id} not found"));
                let exit = known.ok_or_else(gone)?;
                self.store
                    .exits()
                    .delete(&task.namespace, id, exec_id)
                    .await?;
                exit
            }
        };
        self.events.forget(&task.exit_key(&process));
        task.forget_process(&process);
        Ok(exit)
    }
}

/// Why a process ended, read before its record goes; empty if nobody knows.
fn reason(task: &Task, process: &ProcessRef) -> String {
    let recorded = || record::read(&task.bundle, process).map(|exit| exit.reason);
    task.reason(process).or_else(recorded).unwrap_or_default()
}

fn told_exit(told: &shim::DeleteResponse, reason: String) -> ProcessExit {
    ProcessExit {
        pid: told.pid,
        status: told.exit_status,
        exited_at: told.exited_at.as_ref().map_or(0, crate::time::from_wire),
        reason,
    }
}
