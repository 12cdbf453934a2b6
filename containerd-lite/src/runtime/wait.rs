//! Waiting for the end of a process, across broken connections and dying shims.

use std::sync::Arc;

use proto::containerd::task::v2 as shim;

use super::calls::{is_live_with, settled};
use super::shim_client::{Method, is_broken};
use super::task::{Life, ProcessExit, ProcessRef, Task};
use super::{Origin, Result, Runtime, RuntimeError, record};

impl Runtime {
    /// Waits for the end of a process.
    pub(crate) async fn wait(
        self: &Arc<Self>,
        origin: &Origin,
        id: &str,
        process: ProcessRef,
    ) -> Result<ProcessExit> {
        let task = self.task(&origin.namespace, id).await?;
        let exit_of = |task: &Task| task.process(&process).and_then(|p| p.exit);
        let request = shim::WaitRequest {
            id: id.to_owned(),
            exec_id: process.wire().to_owned(),
        };
        loop {
            if let Some(exit) = exit_of(&task) {
                return Ok(exit);
            }
            let shim = match task.life() {
                Life::Live(shim) => shim,
                Life::Dead => {
                    return Err(RuntimeError::NoProcess(format!(
                        "{} not found",
                        process.wire()
                    )));
                }
                _ => return Err(RuntimeError::NotFound(id.to_owned())),
            };
            let traceparent = origin.traceparent.as_deref();
            let told = shim.client.call::<_, shim::WaitResponse>(
                Method::Wait,
                None,
                traceparent,
                &request,
            );
            let changed = task.until(None, |task| {
                (exit_of(task).is_some() || !is_live_with(task, &shim.client)).then_some(())
            });
            tokio::select! {
                told = told => match told {
                    Ok(told) => return Ok(self.waited(&task, &process, &told)),
                    Err(status) if is_broken(&status) => {
                        settled(&task, &shim.client).await;
                    }
                    Err(status) => return Err(RuntimeError::Shim(status)),
                },
                _ = changed => {}
            }
        }
    }

    /// The shim has told of an exit by its answer; the event should have come as well, but must come.
    fn waited(
        self: &Arc<Self>,
        task: &Arc<Task>,
        process: &ProcessRef,
        told: &shim::WaitResponse,
    ) -> ProcessExit {
        let known = task.process(process).unwrap_or_default();
        let pid = known.pid.unwrap_or(0);
        let exit = ProcessExit {
            pid,
            status: told.exit_status,
            exited_at: told.exited_at.as_ref().map_or(0, crate::time::from_wire),
            reason: record::reason(&task.bundle, process, (pid, told.exit_status)),
        };
        task.note_exit(process, exit.clone());
        let (runtime, task, process) = (self.clone(), task.clone(), process.clone());
        let published = exit.clone();
        tokio::spawn(async move { runtime.ensure_published(&task, &process, &published).await });
        exit
    }
}
