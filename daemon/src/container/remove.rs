//! Remove: everything that a container has, then its record.

use std::time::Duration;

use proto::containerd::services::containers::v1::DeleteContainerRequest;
use proto::containerd::services::snapshots::v1::RemoveSnapshotRequest;
use proto::containerd::services::tasks::v1 as tasks;

use super::actor::{Actor, Exit};
use super::record;
use super::state::State;
use crate::backend::{QUICK, SLOW, within};
use crate::clock;
use crate::error::{During, Error, Result};
use crate::metrics::Action;

/// How long a killed container may take to be gone.
const AFTER_KILL: Duration = Duration::from_secs(10);

impl Actor {
    /// Removes the container. From the moment the record says Removing there is no way back: what fails is tried again by
    /// the next remove or the next start of the daemon.
    pub(super) async fn remove(&mut self, force: bool, volumes: bool) -> Result<()> {
        let began = std::time::Instant::now();
        if let State::Running(running) = &self.record.state {
            let (word, advice) = match running.paused {
                true => ("paused", "unpause and then stop"),
                false => ("running", "stop"),
            };
            if !force {
                return Err(Error::conflict(format!(
                    "cannot remove container \"/{}\": container is {word}: {advice} the container before removing or force remove",
                    self.record.name
                )));
            }
            self.kill_now().await?;
        }
        // An auto-removed container has gone with its exit.
        if self.removed {
            return Ok(());
        }
        if matches!(self.record.state, State::Restarting(_)) && !force {
            return Err(Error::conflict(format!(
                "cannot remove container \"/{}\": container is restarting: stop the container before removing or force remove",
                self.record.name
            )));
        }
        if !matches!(self.record.state, State::Removing { .. }) {
            self.record.state = State::Removing {
                code: self.record.state.code(),
            };
            self.persist().await?;
            self.publish();
        }
        self.take_apart(volumes).await?;
        self.app.db.delete(record::KIND, &self.record.id).await?;
        self.app
            .containers
            .forget(&self.record.id, &self.record.name);
        self.removed = true;
        self.publish();
        self.app.counters.took(Action::Delete, began.elapsed());
        self.emit("destroy", &[]);
        Ok(())
    }

    /// Kills the task and takes over its exit, which would otherwise wait in our own queue.
    async fn kill_now(&mut self) -> Result<()> {
        let id = self.record.id.clone();
        let mut client = self.app.backend.tasks();
        let what = || format!("cannot kill container {id}");
        self.record.stopped_by_user = true;
        let request = tasks::KillRequest {
            container_id: id.clone(),
            signal: 9,
            ..Default::default()
        };
        match within(QUICK, client.kill(request)).await {
            Ok(()) => self.emit("kill", &[("signal", "9".into())]),
            Err(e) if e.is_not_found() => {}
            Err(e) if e.message().contains("process already finished") => {}
            Err(e) => return Err(e.during(what())),
        }
        if self.record.state.running().is_some_and(|r| r.paused) {
            let request = tasks::ResumeTaskRequest {
                container_id: id.clone(),
            };
            // A task that cannot be thawed shows itself by not ending.
            let _ = within(SLOW, client.resume(request)).await;
        }
        let request = tasks::WaitRequest {
            container_id: id.clone(),
            exec_id: String::new(),
        };
        let pid = self.record.state.running().map_or(0, |running| running.pid);
        let exit = match within(AFTER_KILL, client.wait(request)).await {
            Ok(reply) => Exit {
                pid,
                code: reply.exit_status,
                at: clock::from_wire(reply.exited_at.as_ref()),
            },
            Err(e) if e.is_not_found() => Exit {
                pid,
                code: 137,
                at: clock::now(),
            },
            Err(e) => return Err(e.during(what())),
        };
        self.exited(exit).await;
        Ok(())
    }

    /// Removes what the record stands for. Each step takes absence for success, so that all of it can be repeated.
    async fn take_apart(&mut self, volumes: bool) -> Result<()> {
        let id = self.record.id.clone();
        super::stop::clear(self).await;
        let request = DeleteContainerRequest { id: id.clone() };
        gone(within(QUICK, self.app.backend.containers().delete(request)).await)
            .during(|| format!("delete container {id} in containerd"))?;
        let request = RemoveSnapshotRequest {
            snapshotter: self.record.snapshotter.clone(),
            key: id.clone(),
        };
        gone(within(SLOW, self.app.backend.snapshots().remove(request)).await)
            .during(|| format!("remove the snapshot of container {id}"))?;
        super::plumbing::release_volumes(&self.app, &self.record, volumes).await?;
        super::exec_kept::drop_kept(&self.app, &super::Handle(self.shared.clone()));
        super::health::forget(&self.app, &id);
        let dir = self.app.config.container_dir(&id);
        match std::fs::remove_dir_all(&dir) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::from(e).during(format!("remove {}", dir.display()))),
        }
        Ok(())
    }
}

/// Takes absence for success.
fn gone<T>(outcome: Result<T>) -> Result<()> {
    match outcome {
        Ok(_) => Ok(()),
        Err(e) if e.is_not_found() => Ok(()),
        Err(e) => Err(e),
    }
}
