//! `pause` and `resume`: the freezer of the container's cgroup.

use super::{CommandError, Context, refuse};
use crate::args::Parsed;
use crate::state::Status;

pub(super) fn pause(context: &Context, parsed: &Parsed) -> Result<(), CommandError> {
    let container = context.container(parsed)?;
    match container.status() {
        Status::Running | Status::Created => Ok(container.cgroup()?.freeze()?),
        _ => refuse("container not running"),
    }
}

pub(super) fn resume(context: &Context, parsed: &Parsed) -> Result<(), CommandError> {
    let container = context.container(parsed)?;
    match container.status() {
        Status::Paused => Ok(container.cgroup()?.thaw()?),
        _ => refuse("container not paused"),
    }
}
