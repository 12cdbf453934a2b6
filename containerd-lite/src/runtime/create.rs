//! Creating a task: bundle, shim, and the Create call, in this order, each undone if a later one fails.
//!
//! ```text
//!  enter the table ─ make the bundle ─ open its log ─ shim `start` ─ record the address ─ connect ─ Create ─ watch
//! ```
//!
//! Runs to its end even if the client leaves: half of it would be a leak.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proto::containerd::runc::v1::Options;
use proto::containerd::services::tasks::v1::CreateTaskRequest;
use proto::containerd::task::v2 as shim;
use proto::layout;

use super::bundle::Bundle;
use super::shim_client::{ACTION, LIFECYCLE, Method, ShimClient, is_broken};
use super::task::{Life, ProcessRef, Shim, Task};
use super::{Origin, Result, Runtime, RuntimeError, oom};
use crate::error::chain;
use crate::fault;
use crate::metadata::Container;

/// How long a create waits for what is left of an earlier one of its name.
const UNFINISHED: Duration = Duration::from_secs(30);

impl Runtime {
    /// Creates the task of a container; its init waits to be started. The pid of the init, which is 0 until the start if it
    /// is to be restored from the checkpoint in the folder `restored`.
    pub(crate) async fn create(
        self: &Arc<Self>,
        origin: Origin,
        request: CreateTaskRequest,
        restored: Option<PathBuf>,
    ) -> Result<u32> {
        let id = &request.container_id;
        proto::ids::validate(id).map_err(|e| RuntimeError::Invalid(e.to_string()))?;
        let container = self.store.containers().get(&origin.namespace, id)?;
        let bundle = self.places.bundle(&origin.namespace, id);
        let task = Arc::new(Task::new(&origin.namespace, id, bundle, Life::Creating));
        while !self.enter(&task) {
            self.wait_for_end(&task).await?;
        }
        let runtime = self.clone();
        let work = tokio::spawn(async move {
            let _alone = task.lifecycle.lock().await;
            let created = runtime
                .create_alone(&task, &origin, &container, request, restored)
                .await;
            if let Err(error) = &created {
                tracing::debug!(id = task.id, error = chain(error), "create failed");
                runtime.leave(&task);
            }
            created
        });
        work.await.expect("creating a task does not panic")
    }

    /// Waits until the name is free, if that is to be expected: what is left of a create that an earlier life of this
    /// program did not finish is cleaned up, and a delete that has begun ends.
    async fn wait_for_end(&self, task: &Task) -> Result<()> {
        let exists = || RuntimeError::Exists(task.id.clone());
        let Some(other) = self.find(&task.namespace, &task.id) else {
            return Ok(());
        };
        match other.life() {
            Life::Adopting => {
                let adopted = other.until(Some(UNFINISHED), |other| {
                    (!matches!(other.life(), Life::Adopting)).then_some(())
                });
                adopted.await.ok_or_else(exists)
            }
            Life::Gone => {
                let ended = tokio::time::timeout(UNFINISHED, other.lifecycle.lock()).await;
                ended.map(drop).map_err(|_| exists())?;
                // The one who held it takes the task off the table before or just after.
                tokio::task::yield_now().await;
                Ok(())
            }
            Life::Creating | Life::Live(_) | Life::Dead => Err(exists()),
        }
    }

    async fn create_alone(
        self: &Arc<Self>,
        task: &Arc<Task>,
        origin: &Origin,
        container: &Container,
        request: CreateTaskRequest,
        restored: Option<PathBuf>,
    ) -> Result<u32> {
        let name = match (
            request.runtime_path.as_str(),
            container.runtime.name.as_str(),
        ) {
            ("", "") => layout::RUNTIME_TYPE,
            ("", name) => name,
            (path, _) => path,
        };
        let program = self.launcher.resolve(name)?;
        task.set_program(program.clone());
        let spec = container
            .spec
            .as_ref()
            .map_or(&[][..], |spec| spec.value.as_slice());
        if spec.is_empty() {
            return Err(RuntimeError::Invalid(format!(
                "container {} has no spec",
                task.id
            )));
        }
        fault::point("create.begun")?;
        task.bundle.create(&oom::clamp_spec(spec, oom::floor()))?;
        let checkpoint = match restored {
            Some(folder) => Some(task.bundle.take_checkpoint(&folder)),
            None => image_path(&request, container).map(Ok),
        };
        let started = match checkpoint.transpose() {
            Ok(checkpoint) => {
                let from = checkpoint.as_deref();
                self.start_shim(task, origin, container, &request, from)
                    .await
            }
            Err(error) => Err(error.into()),
        };
        let (live, pid) = match started {
            Ok(started) => started,
            Err(error) => {
                self.undo_create(task, &program).await;
                return Err(error);
            }
        };
        task.note_process(&ProcessRef::Init, pid);
        let told = fault::point("create.told");
        if let Err(error) = told.and_then(|()| task.bundle.record_created(pid)) {
            // A shim that holds a container does not end.
            let request = shim::DeleteRequest {
                id: task.id.clone(),
                exec_id: String::new(),
            };
            let deleted = live.client.call::<_, shim::DeleteResponse>(
                Method::Delete,
                Some(ACTION),
                origin.traceparent.as_deref(),
                &request,
            );
            if let Err(status) = deleted.await {
                tracing::warn!(id = task.id, error = %status, "take back a create");
            }
            self.undo_create(task, &program).await;
            return Err(error.into());
        }
        task.set_life(Life::Live(live));
        self.watch(task);
        fault::pass("create.recorded");
        Ok(pid)
    }

    async fn start_shim(
        &self,
        task: &Arc<Task>,
        origin: &Origin,
        container: &Container,
        request: &CreateTaskRequest,
        checkpoint: Option<&Path>,
    ) -> Result<(Shim, u32)> {
        fault::point("create.bundle")?;
        copy_task_log(task)?;
        let program = task.program().expect("the program was resolved");
        let options = request
            .options
            .as_ref()
            .filter(|options| !options.type_url.is_empty())
            .or(container.runtime.options.as_ref());
        let name = (task.namespace.as_str(), task.id.as_str());
        let traceparent = origin.traceparent.as_deref();
        let answer = match container.sandbox.as_str() {
            "" => {
                let started =
                    self.launcher
                        .start(&program, name, &task.bundle, options, traceparent);
                started.await?
            }
            // The sandbox has a shim, which takes this task as well.
            sandbox => {
                let answer = self.sandbox_answer(&task.namespace, sandbox)?;
                task.bundle.record_shim(&program, &answer)?;
                answer
            }
        };
        let client = ShimClient::connect(&answer, &task.namespace).await?;
        fault::point("create.connected")?;
        let create = shim::CreateTaskRequest {
            id: task.id.clone(),
            bundle: task.bundle.path().to_string_lossy().into_owned(),
            rootfs: request.rootfs.clone(),
            terminal: request.terminal,
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            options: options.cloned(),
            checkpoint: checkpoint
                .map(|path| path.to_string_lossy().into_owned())
                .unwrap_or_default(),
            ..shim::CreateTaskRequest::default()
        };
        let created = client
            .call::<_, shim::CreateTaskResponse>(
                Method::Create,
                Some(LIFECYCLE),
                traceparent,
                &create,
            )
            .await;
        match created {
            Ok(created) => {
                let silent = false;
                Ok((
                    Shim {
                        client,
                        answer,
                        silent,
                    },
                    created.pid,
                ))
            }
            Err(status) if is_broken(&status) => Err(RuntimeError::ShimDied {
                operation: "create",
                id: task.id.clone(),
            }),
            Err(status) => Err(RuntimeError::Create(status)),
        }
    }

    /// Cleans up after a create that failed at whichever step. What cannot be cleaned now is left to the next start.
    async fn undo_create(&self, task: &Arc<Task>, program: &Path) {
        let name = (task.namespace.as_str(), task.id.as_str());
        // A shim that serves is not ended by its `delete`.
        if let Some(answer) = task.bundle.answer()
            && let Ok(client) = ShimClient::connect(&answer, &task.namespace).await
        {
            self.end_shim(task, &client, &answer).await;
        }
        // The engine may have got some way; nobody else knows how to undo that.
        if task.bundle.answer().is_some()
            && let Err(error) = self.launcher.delete(program, name, &task.bundle).await
        {
            tracing::warn!(
                id = task.id,
                error = chain(&error),
                "clean up after a failed create"
            );
        }
        if let Err(error) = remove(&task.bundle).await {
            tracing::warn!(
                id = task.id,
                error = chain(&error),
                "remove the bundle of a failed create"
            );
        }
    }
}

/// The folder of a checkpoint that the runtime's options name.
fn image_path(request: &CreateTaskRequest, container: &Container) -> Option<PathBuf> {
    let given = request.options.as_ref();
    let options = given
        .filter(|options| !options.type_url.is_empty())
        .or(container.runtime.options.as_ref())?;
    let options: Options = proto::any::unpack(options)?.ok()?;
    Some(PathBuf::from(options.criu_image_path)).filter(|path| !path.as_os_str().is_empty())
}

/// Removes a bundle on a blocking thread: it may hold many files.
pub(super) async fn remove(bundle: &Bundle) -> Result<()> {
    let bundle = bundle.clone();
    let removed = tokio::task::spawn_blocking(move || bundle.remove()).await;
    Ok(removed.expect("removing a bundle does not panic")?)
}

/// Copies a task's log until it is gone.
pub(super) fn copy_task_log(task: &Arc<Task>) -> Result<()> {
    let log = task.bundle.open_log()?;
    let task = task.clone();
    tokio::spawn(async move {
        let over = task.until(None, |task| {
            matches!(task.life(), Life::Gone | Life::Dead).then_some(())
        });
        copy_log(log, async { over.await.unwrap_or(()) }).await;
    });
    Ok(())
}

/// Copies a shim's log to our standard error until something is over.
pub(super) async fn copy_log(
    log: tokio::net::unix::pipe::Receiver,
    over: impl Future<Output = ()>,
) {
    let copy = async {
        while log.readable().await.is_ok() {
            let mut buffer = [0; 4096];
            match log.try_read(&mut buffer) {
                Ok(n) => {
                    // A log that cannot be written is no reason to stop.
                    let _ = std::io::Write::write_all(&mut std::io::stderr(), &buffer[..n]);
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    tokio::select! {
        () = copy => {}
        () = over => {}
    }
}
