//! `pause` and `resume`: the freezer of the container's cgroup.

use super::{CommandError, Context, refuse};
use crate::args::Parsed;
use crate::state::Status;

pub(super) fn pause(context: &Context, parsed: &Parsed) -> Result<(), CommandError> {
    let container = context.container(parsed)?;
    match container.status() {
        Status::Running | Status::Created => Ok(container.cgroup()?.freeze()?),
        other => refuse(format!(
            "container not running or created: {}",
            other.as_str()
        )),
    }
}

pub(super) fn resume(context: &Context, parsed: &Parsed) -> Result<(), CommandError> {
    let container = context.container(parsed)?;
    let cgroup = container.cgroup()?;
    // A created container that is frozen still shows as created.
    match container.status() {
        Status::Paused => Ok(cgroup.thaw()?),
        Status::Created if cgroup.frozen()? => Ok(cgroup.thaw()?),
        _ => refuse("container not paused"),
    }
}
