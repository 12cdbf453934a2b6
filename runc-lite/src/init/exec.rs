//! The child of `exec`: into the namespaces of a container that runs, then the
//! same last steps as its first process.

use std::os::fd::{AsFd as _, OwnedFd};

use super::{At as _, affinity, privileges, process};
use crate::cgroup::Entry;
use crate::channel::{ChildEnd, InitFailure, Stage};
use crate::error::Doing as _;
use crate::namespaces::enter;
use crate::security::seccomp::Program;
use crate::spec::{Linux, Process};
use crate::sys;

const USER: u32 = libc::CLONE_NEWUSER as u32;

/// All the child needs to know.
#[derive(Debug)]
pub(crate) struct ExecJob<'a> {
    /// The container's first process.
    pub(crate) target: &'a OwnedFd,
    /// Namespaces in which the container differs from us.
    pub(crate) namespaces: u32,
    /// Whether we are root where we come from.
    pub(crate) privileged: bool,
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
    /// Enters cgroup and namespaces, in the process in between: only its child is
    /// in the pid namespace, and so the container sees no process of ours that
    /// still has the host's files for its root. One with CAP_SYS_PTRACE in the
    /// container would find them below /proc/PID/root.
    pub(crate) fn enter(&self) -> Result<(), InitFailure> {
        let cpus = self.process.exec_cpu_affinity.as_ref();
        affinity::apply(cpus.map_or("", |c| &c.initial)).at(Stage::Process)?;
        self.entry.enter().at(Stage::Process)?;
        let (user, rest) = (self.namespaces & USER, self.namespaces & !USER);
        // The others may belong to the host, where the user namespace has no say;
        // without privileges it is the user namespace that grants them.
        let order = match self.privileged {
            true => [rest, user],
            false => [user, rest],
        };
        for flags in order.into_iter().filter(|f| *f != 0) {
            enter(self.target, flags)
                .doing(|| "join the container's namespaces")
                .at(Stage::Namespaces)?;
        }
        if user != 0 {
            process::become_namespace_root().at(Stage::Namespaces)?;
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
    super::close(&job.parents);
    let cpus = job.process.exec_cpu_affinity.as_ref();
    sys::process::reset_signals().at(Stage::Process)?;
    sys::process::umask(0o022);
    channel.wait_attached().at(Stage::Channel)?;
    // Joining a cpuset has set the CPUs anew.
    affinity::apply(cpus.map_or("", |c| &c.last)).at(Stage::Process)?;
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
    let filter = privileges::Filter {
        program: job.seccomp,
        privileged: job.privileged,
    };
    let program = privileges::take(filter, job.process, None, job.linux, channel)?;
    sys::exec::cloexec_from(job.first_private_fd).at(Stage::Process)?;
    channel.ready().at(Stage::Channel)?;
    let cause = sys::exec::execve(&program.path, &program.args, &program.env);
    Err(InitFailure {
        stage: Stage::Exec,
        detail: format!("exec {}", program.path.to_string_lossy()),
        errno: cause.raw_os_error().unwrap_or(0),
    })
}
