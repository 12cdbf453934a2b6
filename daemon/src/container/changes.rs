//! What a user changes of a container: signals, attachers, the freezer, its name, its limits.

use proto::containerd::services::tasks::v1 as tasks;

use super::actor::{Actor, Reply};
use super::attach::{Connection, Files};
use super::restart;
use super::state::State;
use super::why::Asked;
use crate::backend::{QUICK, SLOW, within};
use crate::error::{During, Error, Result};

impl Actor {
    pub(super) async fn kill(&mut self, signal: u32, stops: bool, asked: Asked) -> Result<()> {
        if let State::Restarting(exited) = &self.record.state {
            if !stops {
                return Err(self.not_running());
            }
            // Nothing to kill; the pause before the next start is what is stopped.
            self.timer = None;
            self.record.state = State::Exited(exited.clone());
            self.record.stopped_by_user |= !self.app.stopping();
            self.exits += 1;
            self.publish();
            return self.persist().await;
        }
        let Some(running) = self.record.state.running().cloned() else {
            return Err(self.not_running());
        };
        if stops && !self.record.stopped_by_user && !self.app.stopping() {
            self.record.stopped_by_user = true;
            self.publish();
            self.persist().await?;
        }
        let request = tasks::KillRequest {
            container_id: self.record.id.clone(),
            exec_id: String::new(),
            signal,
            all: false,
        };
        let asked = match self.app.stopping() {
            true => Asked::Shutdown,
            false => asked,
        };
        let before = self.asked.replace((signal, asked));
        let sent = within(QUICK, self.app.backend.tasks().kill(request)).await;
        match sent {
            Ok(()) => {}
            // It has ended by itself; the news of that is on its way.
            Err(e) if e.is_not_found() => return Ok(()),
            Err(e) if e.message().contains("process already finished") => return Ok(()),
            Err(e) => {
                self.asked = before;
                return Err(e.during(format!("Cannot kill container: {}", self.record.id)));
            }
        }
        if running.paused && (stops || signal == 9) {
            // A frozen process dies only when it thaws.
            self.freeze(false).await?;
        }
        self.emit("kill", &[("signal", signal.to_string())]);
        Ok(())
    }

    pub(super) fn not_running(&self) -> Error {
        Error::conflict(format!("container {} is not running", self.record.id))
    }

    pub(super) async fn attach(&mut self, input: bool, reply: Reply<Connection>) {
        self.waiting.retain(|(_, reply)| !reply.is_closed());
        match &self.record.state {
            State::Running(running) if running.paused => {
                drop(reply.send(Err(Error::conflict(format!(
                    "container {} is paused, unpause the container before attach",
                    self.record.id
                )))))
            }
            State::Running(_) => {
                let files = Files::of(&self.app.config, &self.record.id);
                drop(reply.send(files.connect(input).await));
            }
            State::Removing { .. } => {
                drop(reply.send(Err(super::no_such(&self.record.id))));
            }
            _ => self.waiting.push((input, reply)),
        }
    }

    pub(super) async fn freeze(&mut self, on: bool) -> Result<()> {
        let id = self.record.id.clone();
        let State::Running(running) = &mut self.record.state else {
            return Err(Error::conflict(format!("Container {id} is not running")));
        };
        match (on, running.paused) {
            (true, true) => {
                return Err(Error::conflict(format!("Container {id} is already paused")));
            }
            (false, false) => return Err(Error::internal(format!("Container {id} is not paused"))),
            _ => {}
        }
        let mut client = self.app.backend.tasks();
        let container_id = id.clone();
        if on {
            let request = tasks::PauseTaskRequest { container_id };
            within(SLOW, client.pause(request)).await
        } else {
            let request = tasks::ResumeTaskRequest { container_id };
            within(SLOW, client.resume(request)).await
        }
        .during(|| format!("{} container {id}", if on { "pause" } else { "unpause" }))?;
        running.paused = on;
        self.publish();
        self.persist().await?;
        self.emit(if on { "pause" } else { "unpause" }, &[]);
        Ok(())
    }

    pub(super) async fn rename(&mut self, name: String) -> Result<()> {
        let old = std::mem::replace(&mut self.record.name, name);
        if let Err(e) = self.persist().await {
            self.record.name = old;
            return Err(e);
        }
        self.publish();
        self.app.containers.release(&old, &self.record.id);
        let (app, id, new) = (&self.app, &self.record.id, &self.record.name);
        app.network.rename(id, &old, new).await?;
        self.emit("rename", &[("oldName", format!("/{old}"))]);
        Ok(())
    }

    pub(super) async fn update(&mut self, body: proto::engine::UpdateBody) -> Result<()> {
        use crate::spec::resources;
        if matches!(self.record.state, State::Removing { .. }) {
            return Err(Error::conflict(
                "container is marked for removal and cannot be \"update\"",
            ));
        }
        let limits = resources::updated(&self.record.host.resources, &body.resources);
        resources::check(&limits)?;
        resources::check_sets(&limits)?;
        if !body.restart_policy.name.is_empty() {
            restart::check(&body.restart_policy)?;
            if self.record.auto_remove() && body.restart_policy.name != "no" {
                return Err(Error::conflict(
                    "Restart policy cannot be updated because AutoRemove is enabled for the container",
                ));
            }
        }
        self.republish(&body.publish_add, &body.publish_remove)
            .await?;
        if self.record.state.running().is_some() {
            let spec = serde_json::to_vec(&resources::limits(&limits)?)
                .map_err(|e| Error::internal(format!("encode limits: {e}")))?;
            let request = tasks::UpdateTaskRequest {
                container_id: self.record.id.clone(),
                resources: Some(proto::any::json(proto::any::RESOURCES, spec)),
                ..Default::default()
            };
            within(SLOW, self.app.backend.tasks().update(request))
                .await
                .during(|| format!("Cannot update container {}", self.record.id))?;
        }
        self.record.host.resources = limits;
        if !body.restart_policy.name.is_empty() {
            self.record.host.restart_policy = body.restart_policy;
        }
        self.publish();
        self.persist().await?;
        self.emit("update", &[]);
        Ok(())
    }
}
