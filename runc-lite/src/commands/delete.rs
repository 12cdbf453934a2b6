//! `delete`: everything a container left, from whatever point it was left at.

use std::time::{Duration, Instant};

use super::{CommandError, Container, Context, refuse};
use crate::args::Parsed;
use crate::cgroup::Cgroup;
use crate::error::Doing as _;
use crate::hooks;
use crate::process::LiveProcess;
use crate::state::{StateError, Status};
use crate::sys::process::pidfd_kill;

pub(super) fn run(context: &Context, parsed: &Parsed) -> Result<(), CommandError> {
    let force = parsed.switch("force");
    let dir = context.dir(parsed)?;
    let lock = match dir.lock() {
        Err(StateError::NotFound) if force => return Ok(()),
        other => other?,
    };
    let container = match Container::load(dir.clone()) {
        // A create that was killed before its first record made nothing else.
        Err(StateError::NotFound) => {
            dir.remove()?;
            return if force {
                Ok(())
            } else {
                Err(StateError::NotFound.into())
            };
        }
        other => other?,
    };
    match container.status() {
        Status::Stopped | Status::Created | Status::Creating => {}
        _ if force => {}
        other => {
            let id = &container.state.id;
            return refuse(format!(
                "cannot delete container {id} that is not stopped: {}",
                other.as_str()
            ));
        }
    }
    let done = destroy(&container);
    drop(lock);
    done
}

/// Kills what lives, removes cgroup and directory, runs the poststop hooks.
/// Goes on after a failure and reports the first; what could not be removed stays
/// recorded for the next try.
pub(super) fn destroy(container: &Container) -> Result<(), CommandError> {
    let state = &container.state;
    let cgroup = state.cgroup.as_ref().map(Cgroup::load).transpose()?;
    if let Some(process) = state.process() {
        kill_and_wait(&process, cgroup.as_ref())?;
    }
    if let Some(cgroup) = &cgroup {
        // Also where a private pid namespace has died with its first process:
        // a shared one has not.
        cgroup.remove()?;
    }
    if let Some(group) = &state.resctrl {
        group.trusted()?.remove()?;
    }
    let hooks = if state.has_poststop {
        container.spec()?.hooks.poststop
    } else {
        Vec::new()
    };
    container.dir.remove()?;
    let json = state.to_spec_json(Status::Stopped);
    Ok(hooks::run("poststop", &hooks, &json, &[])?)
}

fn kill_and_wait(process: &LiveProcess, cgroup: Option<&Cgroup>) -> Result<(), CommandError> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    match pidfd_kill(&process.pidfd, libc::SIGKILL) {
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
        other => other.doing(|| format!("kill process {}", process.pid))?,
    }
    // One that stands in a frozen cgroup dies when it goes on.
    if let Some(cgroup) = cgroup
        && cgroup.frozen()?
    {
        cgroup.thaw()?;
    }
    // The pidfd tells the end even where nobody has waited for it yet.
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut patience = Duration::from_millis(100);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = left.min(patience);
        let limit = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = [PollFd::new(&process.pidfd, PollFlags::IN)];
        match poll(&mut fds, Some(&limit)) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) if Instant::now() >= deadline => return refuse("container init still running"),
            Ok(0) => {
                // It may have been stopped in a group below.
                patience *= 2;
                cgroup.map_or(Ok(()), Cgroup::thaw_all)?;
            }
            other => {
                return Ok(other
                    .map(drop)
                    .doing(|| "wait for the container's process")?);
            }
        }
    }
}
