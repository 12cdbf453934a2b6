//! `kill`: a signal to the first process, or to all of them.

use super::{CommandError, Context, refuse, signals};
use crate::args::Parsed;
use crate::error::Doing as _;
use crate::state::Status;
use crate::sys::process::{kill, pidfd_kill};

pub(super) fn run(context: &Context, parsed: &Parsed) -> Result<(), CommandError> {
    let container = context.container(parsed)?;
    let word = parsed.positionals.get(1).map_or("SIGTERM", String::as_str);
    let Some(signal) = signals::parse(word) else {
        return refuse(format!("unknown signal \"{word}\""));
    };
    let status = container.status();
    if parsed.switch("all") {
        return all(&container, signal);
    }
    if status == Status::Stopped || status == Status::Creating {
        return refuse("container not running");
    }
    let process = container.process()?;
    match pidfd_kill(&process.pidfd, signal) {
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => return refuse("container not running"),
        other => other.doing(|| format!("send signal {signal} to process {}", process.pid))?,
    }
    if signal == libc::SIGKILL
        && let Ok(cgroup) = container.cgroup()
        && (status == Status::Paused || !cgroup.unified())
    {
        // In a frozen cgroup v1, be it one below, it is seen only when the process
        // goes on; and the first process does not end before those it takes along.
        cgroup.thaw_all()?;
    }
    Ok(())
}

/// All processes of the cgroup. They are frozen meanwhile, so that none can
/// fork away, and so that each pid is still the one that was listed.
fn all(container: &super::Container, signal: i32) -> Result<(), CommandError> {
    let cgroup = container.cgroup()?;
    if signal == libc::SIGKILL {
        return Ok(cgroup.kill_all()?);
    }
    let was_frozen = cgroup.frozen()?;
    let frozen = was_frozen || cgroup.freeze().is_ok();
    let mut failed = None;
    for pid in cgroup.pids(true)? {
        match kill(pid.as_raw_nonzero().get(), signal) {
            Err(e) if e.raw_os_error() != Some(libc::ESRCH) => failed = Some(e),
            _ => {}
        }
    }
    if frozen && !was_frozen {
        cgroup.thaw()?;
    }
    match failed {
        None => Ok(()),
        Some(e) => Err(e).doing(|| format!("send signal {signal} to all processes"))?,
    }
}
