//! The parent's part of the conversation with the child: what the child cannot do
//! itself, and the words for an end before its time.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::{CreateError, id_maps, listener, net_devices, set_oom_score};
use crate::cgroup::Cgroup;
use crate::channel::{ChannelError, ParentEnd, Said};
use crate::hooks;
use crate::namespaces::Plan;
use crate::process::ProcStat;
use crate::security::seccomp::Program;
use crate::spec::{LinuxResources, Spec};
use crate::state::{State, Status};

/// Why the conversation with the child ended.
#[derive(Debug)]
pub(super) enum AttendError {
    Channel(ChannelError),
    Ours(CreateError),
}

impl From<ChannelError> for AttendError {
    fn from(e: ChannelError) -> Self {
        Self::Channel(e)
    }
}

impl<E: Into<CreateError>> From<E> for AttendError {
    fn from(e: E) -> Self {
        Self::Ours(e.into())
    }
}

/// Does for the child what it cannot do itself, until it is ready.
#[expect(
    clippy::too_many_arguments,
    reason = "one call site; they are all of create's locals"
)]
pub(super) fn attend(
    channel: &ParentEnd,
    pid: i32,
    spec: &Spec,
    plan: &Plan,
    cgroup: &Cgroup,
    limits: &LinuxResources,
    state: &mut State,
    program: Option<&Program>,
    pidfd: &OwnedFd,
) -> Result<(), AttendError> {
    state.pid = pid;
    state.init_process_start = ProcStat::read(pid).map_or(0, |s| s.start_time);
    // Before the child knows its ids, as it may then hide from an unprivileged parent.
    set_oom_score(pid, spec.process.as_ref().and_then(|p| p.oom_score_adj))?;
    if plan.makes(libc::CLONE_NEWUSER) {
        id_maps::write(pid, &spec.linux.uid_mappings, &spec.linux.gid_mappings)?;
        channel.mapped()?;
    }
    net_devices::hand_over(spec, pid, plan.joined(libc::CLONE_NEWNET))?;
    if let Some(group) = &state.resctrl {
        group.enter(pid)?;
    }
    // The child has gone in by itself; it goes no further without the limits.
    cgroup.apply(limits)?;
    channel.attached(pid)?;
    state.cgroup = Some(cgroup.state());
    loop {
        match channel.next()? {
            Said::Ready => return Ok(()),
            Said::Listener(number) => {
                listener::forward(pidfd, number, spec, state, program)?;
                channel.fetched()?;
            }
            Said::Mounted => {
                let json = state.to_spec_json(Status::Creating);
                hooks::run("prestart", &spec.hooks.prestart, &json, &[])?;
                hooks::run("createRuntime", &spec.hooks.create_runtime, &json, &[])?;
                channel.hooks_done()?;
            }
        }
    }
}

/// Puts the child's end into words, looking at how it ended where it said none.
pub(super) fn explain(
    error: AttendError,
    channel: &ParentEnd,
    pidfd: &OwnedFd,
    cgroup: &Cgroup,
) -> CreateError {
    // A child that has failed makes our own calls on it fail too.
    if !matches!(error, AttendError::Channel(ChannelError::Init(_)))
        && let Some(failure) = channel.last_words()
    {
        return CreateError::Init(failure);
    }
    match error {
        AttendError::Ours(e) => e,
        AttendError::Channel(ChannelError::Init(failure)) => CreateError::Init(failure),
        AttendError::Channel(ChannelError::Gone) => {
            if cgroup.oom_kills().ok().flatten().is_some_and(|n| n > 0) {
                return CreateError::Gone("was OOM-killed (memory limit too low?)".into());
            }
            // NOWAIT leaves it to be reaped by the clean-up.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
            let status = waitid(WaitId::PidFd(pidfd.as_fd()), options).ok().flatten();
            CreateError::Gone(match status.and_then(|s| s.terminating_signal()) {
                Some(signal) => format!("was killed by signal {signal}"),
                None => "ended unexpectedly".into(),
            })
        }
        AttendError::Channel(other) => CreateError::Channel(other),
    }
}
