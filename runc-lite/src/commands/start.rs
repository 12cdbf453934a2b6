//! `start`: opens the gate of a created container.

use super::{CommandError, Context, refuse};
use crate::args::Parsed;
use crate::hooks;
use crate::init::gate;
use crate::state::Status;

pub(super) fn run(context: &Context, parsed: &Parsed) -> Result<(), CommandError> {
    let dir = context.dir(parsed)?;
    let _lock = dir.lock()?;
    let container = super::Container::load(dir)?;
    match container.status() {
        Status::Created => {}
        Status::Stopped => return refuse("cannot start a container that has stopped"),
        Status::Creating => return refuse("cannot start a container that is not created yet"),
        Status::Running => return refuse("cannot start an already running container"),
        Status::Paused => return refuse("cannot start a container in the paused state"),
    }
    gate::release(&container.dir)?.map_err(CommandError::Start)?;
    gate::remove(&container.dir);
    let hooks = container.spec()?.hooks.poststart;
    if hooks.is_empty() {
        return Ok(());
    }
    poststart(&container, &hooks)
}

/// A failing hook takes the container with it.
fn poststart(
    container: &super::Container,
    hooks: &[crate::spec::Hook],
) -> Result<(), CommandError> {
    let json = container.state.to_spec_json(Status::Running);
    let done = hooks::run("poststart", hooks, &json, &[]);
    if done.is_err() {
        // It may have ended already.
        let _ = container
            .process()
            .map(|p| crate::sys::process::pidfd_kill(p.pidfd, libc::SIGKILL));
    }
    Ok(done?)
}
