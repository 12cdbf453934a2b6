//! The clone: straight into the namespaces, or by a process in between.

use std::os::fd::OwnedFd;

use rustix::process::{PidfdFlags, pidfd_open};

use super::CreateError;
use crate::channel::{self, ChannelError, InitFailure, ParentEnd, Stage};
use crate::error::{Doing as _, StepError};
use crate::init::{self, InitJob};
use crate::sys::clone::{Forked, fork_into};

/// Makes the process.
pub(super) fn spawn(
    job: InitJob<'_>,
    parent_end: &ParentEnd,
    child_end: channel::ChildEnd,
) -> Result<(i32, OwnedFd, bool), CreateError> {
    let mut flags = u64::from(job.plan.clone_flags);
    if job.apart.is_some() {
        // The child makes it, from another one than ours.
        flags &= !(libc::CLONE_NEWNS as u64);
    }
    if !job.plan.needs_intermediate() {
        return match fork_into(flags, false, job.entry.clone_into())
            .doing(|| "clone into new namespaces")?
        {
            Forked::Child => init::run(job, child_end),
            Forked::Parent {
                pid,
                pidfd,
                in_cgroup,
            } => Ok((pid, pidfd, in_cgroup)),
        };
    }
    match fork_into(0, false, job.entry.clone_into()).doing(|| "clone")? {
        Forked::Child => {
            let failed = |e: &StepError| -> ! {
                child_end.failed(&InitFailure::new(Stage::Namespaces, e));
                crate::sys::exec::exit_now(1)
            };
            if let Err(e) = job.plan.join_all() {
                failed(&e);
            }
            match fork_into(flags, true, None).doing(|| "clone into new namespaces") {
                Err(e) => failed(&e),
                Ok(Forked::Child) => init::run(job, child_end),
                Ok(Forked::Parent { pid, .. }) => {
                    // If the parent is gone, the new process finds out as well.
                    let _ = child_end.sibling(pid);
                    crate::sys::exec::exit_now(0)
                }
            }
        }
        Forked::Parent {
            pidfd, in_cgroup, ..
        } => {
            drop(child_end);
            let pid = parent_end.sibling_made_by(&pidfd).map_err(|e| match e {
                ChannelError::Init(failure) => CreateError::Init(failure),
                other => CreateError::Channel(other),
            })?;
            // It is our child and not waited for, so the pid is still its own.
            let pidfd =
                pidfd_open(pid, PidfdFlags::empty()).doing(|| "open the container's process")?;
            Ok((pid.as_raw_nonzero().get(), pidfd, in_cgroup))
        }
    }
}
