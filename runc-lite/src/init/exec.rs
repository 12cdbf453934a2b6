//! The child of `exec`: into the namespaces of a container that runs, then the
//! same last steps as its first process.

use std::os::fd::{AsFd as _, OwnedFd};

use super::{At as _, affinity, privileges, process};
use crate::cgroup::Entry;
use crate::channel::{ChildEnd, InitFailure, Stage};
use crate::error::{Doing as _, StepError};
use crate::namespaces::enter;
use crate::security::seccomp::Program;
use crate::spec::{Linux, Process};
use crate::sys;

const PID: u32 = libc::CLONE_NEWPID as u32;
const USER: u32 = libc::CLONE_NEWUSER as u32;

/// All the child needs to know.
#[derive(Debug)]
pub(crate) struct ExecJob<'a> {
    /// The container's first process.
    pub(crate) target: &'a OwnedFd,
    /// Namespaces in which the container differs from us.
    pub(crate) namespaces: u32,
    /// Whether the process in between has entered the user namespace.
    pub(crate) user_entered: bool,
    /// The way into the container's cgroup; empty if the parent sees to that.
    pub(crate) entry: Entry,
    /// Descriptors that are the parent's alone: its end of the channel.
    pub(crate) parents: Vec<i32>,
    /// The process to become.
    pub(crate) process: &'a Process,
    /// What the container's processes have in common.
    pub(crate) linux: &'a Linux,
    /// The container's filter.
    pub(crate) seccomp: Option<&'a Program>,
    /// Where the terminal goes.
    pub(crate) console: Option<OwnedFd>,
    /// First descriptor that must not reach the program.
    pub(crate) first_private_fd: u32,
}

impl ExecJob<'_> {
    /// Enters what a process has to enter before it clones: its children are
    /// in the pid namespace, not itself.
    pub(crate) fn enter_before_clone(&self) -> Result<(), StepError> {
        if self.namespaces & PID == 0 {
            return Ok(());
        }
        enter(self.target, PID).doing(|| "join the container's pid namespace")
    }

    /// Without privileges: the user namespace, which grants them, and then the
    /// pid namespace, for the children.
    pub(crate) fn enter_user_and_pid(&self) -> Result<(), StepError> {
        let flags = self.namespaces & (USER | PID);
        if flags == 0 {
            return Ok(());
        }
        enter(self.target, flags).doing(|| "join the container's user and pid namespace")
    }

    /// Enters the rest. The user namespace comes last, since the others may
    /// belong to the host; without privileges it was entered before.
    pub(crate) fn enter_all(&self) -> Result<(), StepError> {
        let what = || "join the container's namespaces";
        let rest = self.namespaces & !(PID | USER);
        if rest != 0 {
            enter(self.target, rest).doing(what)?;
        }
        if self.namespaces & USER != 0 {
            if !self.user_entered {
                enter(self.target, USER).doing(what)?;
            }
            process::become_namespace_root()?;
        }
        Ok(())
    }
}

/// Runs the child; never returns.
pub(crate) fn run(job: &ExecJob<'_>, channel: &ChildEnd) -> ! {
    let failure = match steps(job, channel) {
        Err(failure) => failure,
        Ok(never) => match never {},
    };
    channel.failed(&failure);
    sys::exec::exit_now(1)
}

fn steps(job: &ExecJob<'_>, channel: &ChildEnd) -> Result<std::convert::Infallible, InitFailure> {
    super::close_parents(&job.parents);
    let cpus = job.process.exec_cpu_affinity.as_ref();
    affinity::apply(cpus.map_or("", |c| &c.initial)).at(Stage::Process)?;
    job.entry.enter().at(Stage::Process)?;
    sys::process::reset_signals().at(Stage::Process)?;
    sys::process::umask(0o022);
    // The cgroup namespace's root does not move, but limits should hold early.
    channel.wait_attached().at(Stage::Channel)?;
    // Joining a cpuset has set the CPUs anew.
    affinity::apply(cpus.map_or("", |c| &c.last)).at(Stage::Process)?;
    job.enter_all().at(Stage::Namespaces)?;
    rustix::process::setsid().at(Stage::Process)?;
    if let Some(socket) = &job.console {
        let root = rustix::fs::open(
            "/",
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .at(Stage::Console)?;
        let size = job.process.console_size;
        crate::console::take(root.as_fd(), socket.as_fd(), size, false).at(Stage::Console)?;
    }
    let program = privileges::take(job.seccomp, job.process, None, job.linux, channel)?;
    sys::exec::cloexec_from(job.first_private_fd).at(Stage::Process)?;
    channel.ready().at(Stage::Channel)?;
    let cause = sys::exec::execve(&program.path, &program.args, &program.env);
    Err(InitFailure {
        stage: Stage::Exec,
        detail: format!("exec {}", program.path.to_string_lossy()),
        errno: cause.raw_os_error().unwrap_or(0),
    })
}
