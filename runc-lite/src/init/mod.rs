//! The child's side: from clone to execve, as a list in time.
//!
//! This code runs in a copy of the parent's memory, inside the container's
//! namespaces, as the only thread. It leaves by execve, or by telling what failed
//! and ending at once: never through the exit handlers that belong to the parent.
//! Each step of [`steps`] that could be misplaced says why it stands where it does.

pub(crate) mod affinity;
pub(crate) mod exec;
pub(crate) mod gate;
pub(crate) mod privileges;
pub(crate) mod process;
pub(crate) mod scheduling;

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use crate::cgroup::{Entry, HierarchyMount};
use crate::channel::{ChildEnd, InitFailure, Stage};
use crate::hooks;
use crate::namespaces::{self, Plan};
use crate::rootfs::apart::Apart;
use crate::rootfs::{Rootfs, masks, sysctl};
use crate::security::seccomp::Program;
use crate::spec::Spec;
use crate::state::{State, Status};
use crate::sys;

/// All the child needs to know; made by the parent before the clone.
#[derive(Debug)]
pub(crate) struct InitJob<'a> {
    /// The configuration.
    pub(crate) spec: &'a Spec,
    /// Namespaces to make and join.
    pub(crate) plan: &'a Plan,
    /// The root file system on the host.
    pub(crate) rootfs: &'a Path,
    /// The bundle directory.
    pub(crate) bundle: &'a Path,
    /// The record, for hooks.
    pub(crate) state: &'a State,
    /// The compiled filter, and whether its listener goes to somebody.
    pub(crate) seccomp: Option<&'a Program>,
    /// Whether we are root where we come from.
    pub(crate) privileged: bool,
    /// What cgroup mounts are made of.
    pub(crate) hierarchies: &'a [HierarchyMount],
    /// The way into the cgroup.
    pub(crate) entry: &'a Entry,
    /// Id-mapped mounts, made by the parent: index of the mount, detached tree.
    pub(crate) idmaps: &'a [(usize, OwnedFd)],
    /// Everything from the host, where the mount namespace is not a copy of its.
    pub(crate) apart: Option<&'a Apart>,
    /// Where the terminal goes.
    pub(crate) console: Option<OwnedFd>,
    /// Descriptors that are the parent's alone: its lock, which our copy would
    /// hold, and its end of the channel, whose end of file we would never see.
    pub(crate) parents: Vec<i32>,
    /// What `start` opens; absent where the program runs at once.
    pub(crate) gate: Option<gate::Gate>,
    /// First descriptor that must not reach the program.
    pub(crate) first_private_fd: u32,
    /// Whether to move the root instead of pivot_root.
    pub(crate) no_pivot: bool,
    /// Whether to make a session keyring.
    pub(crate) new_keyring: bool,
}

/// Turns any error into a failure at a stage.
trait At<T> {
    fn at(self, stage: Stage) -> Result<T, InitFailure>;
}

impl<T, E: std::error::Error + 'static> At<T> for Result<T, E> {
    fn at(self, stage: Stage) -> Result<T, InitFailure> {
        self.map_err(|e| InitFailure::new(stage, &e))
    }
}

/// Runs the child; never returns.
pub(crate) fn run(job: InitJob<'_>, channel: ChildEnd) -> ! {
    let failure = match steps(&job, channel) {
        Err(failure) => failure,
        Ok(never) => match never {},
    };
    // After Go the channel is closed and the gate has the listener.
    if let Some(gate) = &job.gate {
        gate.failed(&failure);
    }
    sys::exec::exit_now(1)
}

/// Lets go of our copies of descriptors that belong to the job.
fn close(numbers: &[i32]) {
    for number in numbers {
        // Taking it over drops it; one that is closed already is fine.
        drop(sys::exec::inherited(*number));
    }
}

/// The list. Before `Go` a failure is told on the channel, and this process ends.
fn steps(job: &InitJob<'_>, channel: ChildEnd) -> Result<std::convert::Infallible, InitFailure> {
    match prepare(job, &channel) {
        Ok(program) => finish(job, channel, program),
        Err(failure) => {
            channel.failed(&failure);
            sys::exec::exit_now(1)
        }
    }
}

/// What execve gets.
struct Prepared {
    path: std::ffi::CString,
    args: sys::exec::ExecArrays,
    env: sys::exec::ExecArrays,
    plain_env: Vec<String>,
}

fn prepare(job: &InitJob<'_>, channel: &ChildEnd) -> Result<Prepared, InitFailure> {
    close(&job.parents);
    let spec = job.spec;
    let process = spec
        .process
        .as_ref()
        .expect("validated: there is a process");
    // Before any process of ours can multiply: the cgroup holds all of them.
    job.entry.enter().at(Stage::Process)?;
    sys::process::reset_signals().at(Stage::Process)?;
    // Modes given in the configuration are exact.
    sys::process::umask(0);

    // Identity first: without it a new user namespace grants nothing.
    if job.plan.makes(libc::CLONE_NEWUSER) {
        channel.wait_mapped().at(Stage::Channel)?;
        // Only who joins namespaces of others has anybody there to hide from, and
        // an unprivileged parent has more to set by /proc.
        if !job.plan.join.is_empty() {
            crate::create::dumpable(false).at(Stage::Process)?;
        }
    }
    if !job.plan.needs_intermediate() {
        job.plan.join_all().at(Stage::Namespaces)?;
    }
    let enters = job.plan.makes(libc::CLONE_NEWUSER) || job.plan.joins(libc::CLONE_NEWUSER);
    if enters {
        process::become_namespace_root().at(Stage::Namespaces)?;
    }
    // Ours, or one that we were started in: neither may make device nodes.
    let in_userns = enters || crate::cgroup::in_user_namespace();
    // A session of our own: signals of the caller's terminal do not reach us,
    // and a terminal of our own can be taken.
    rustix::process::setsid().at(Stage::Process)?;
    if namespaces::has_time(job.plan.late) {
        namespaces::new_time_namespace(&spec.linux.time_offsets).at(Stage::Namespaces)?;
    }
    set_up_namespaces(job).at(Stage::Namespaces)?;

    let rootfs =
        Rootfs::open(spec, job.rootfs, job.bundle, in_userns, job.apart).at(Stage::Rootfs)?;
    let pid = mounts(job, &rootfs, channel)?;
    // A directory that is open could be made the working directory by its number.
    if let Some(apart) = job.apart {
        close(&apart.numbers());
    }
    // With devices in place, as the hooks may want to change them.
    rootfs.populate_dev(spec).at(Stage::Rootfs)?;
    // Before pivot_root: in a user namespace a procfs can only be made where
    // another one is fully visible.
    sysctl::apply(&spec.linux.sysctl, rootfs.take_proc()).at(Stage::Rootfs)?;

    let mut state = job.state.clone();
    state.pid = pid;
    if !(spec.hooks.prestart.is_empty() && spec.hooks.create_runtime.is_empty()) {
        channel.mounted().at(Stage::Channel)?;
    }
    let json = state.to_spec_json(Status::Creating);
    hooks::run("createContainer", &spec.hooks.create_container, &json, &[]).at(Stage::Hook)?;

    if job.no_pivot {
        rootfs.move_root()
    } else {
        rootfs.pivot()
    }
    .at(Stage::Rootfs)?;
    // Nothing of the host is reachable by a path from here on.
    masks::make_readonly(rootfs.fd(), &spec.linux.readonly_paths).at(Stage::Rootfs)?;
    masks::mask(rootfs.fd(), &spec.linux.masked_paths).at(Stage::Rootfs)?;
    // The terminal needs /dev/console to be made, so before the root is read-only.
    if let Some(socket) = &job.console {
        let root = rootfs.fd();
        crate::console::take(root, socket.as_fd(), process.console_size, true)
            .at(Stage::Console)?;
    }
    // As others do, a missing working directory is made; if that cannot be,
    // entering it will say so.
    let _ = crate::rootfs::path::make_dirs(rootfs.fd(), &process.cwd, 0o755);
    rootfs.seal(spec).at(Stage::Rootfs)?;

    let filter = privileges::Filter {
        program: job.seccomp,
        privileged: job.privileged,
    };
    let program = privileges::take(
        filter,
        process,
        job.new_keyring.then_some(job.state.id.as_str()),
        &spec.linux,
        channel,
    )?;
    // Last of all, as every descriptor is still of use until here.
    sys::exec::cloexec_from(job.first_private_fd).at(Stage::Process)?;
    channel.ready().at(Stage::Channel)?;
    Ok(program)
}

/// Loopback and names.
fn set_up_namespaces(job: &InitJob<'_>) -> Result<(), crate::error::StepError> {
    use crate::error::Doing as _;
    if job.plan.makes(libc::CLONE_NEWNET) {
        sys::process::loopback_up().doing(|| "bring up the loopback interface")?;
    }
    if !job.spec.hostname.is_empty() {
        rustix::system::sethostname(job.spec.hostname.as_bytes())
            .doing(|| format!("set hostname {}", job.spec.hostname))?;
    }
    if !job.spec.domainname.is_empty() {
        rustix::system::setdomainname(job.spec.domainname.as_bytes())
            .doing(|| format!("set domainname {}", job.spec.domainname))?;
    }
    Ok(())
}

/// The mounts in order. The parent puts us into the cgroup meanwhile, which can
/// take long, so that is waited for only where a mount shows cgroups. Gives our
/// pid as the host sees it.
fn mounts(job: &InitJob<'_>, rootfs: &Rootfs, channel: &ChildEnd) -> Result<i32, InitFailure> {
    let mut pid = None;
    let fresh = job.plan.makes(libc::CLONE_NEWCGROUP) || job.plan.joins(libc::CLONE_NEWCGROUP);
    let attach = |pid: &mut Option<i32>| -> Result<i32, InitFailure> {
        if let Some(pid) = *pid {
            return Ok(pid);
        }
        let told = channel.wait_attached().at(Stage::Channel)?;
        if job.plan.makes(libc::CLONE_NEWCGROUP) {
            namespaces::new_cgroup_namespace().at(Stage::Namespaces)?;
        }
        *pid = Some(told);
        Ok(told)
    };
    let groups = job.apart.map_or(&[][..], Apart::groups);
    for (index, mount) in job.spec.mounts.iter().enumerate() {
        if mount.kind == "cgroup" {
            attach(&mut pid)?;
            rootfs
                .mount_cgroups(mount, job.hierarchies, fresh, groups)
                .at(Stage::Rootfs)?;
        } else {
            let mapped = job.idmaps.iter().find(|(i, _)| *i == index);
            let prepared = mapped
                .map(|(_, tree)| tree)
                .or_else(|| job.apart.and_then(|a| a.bind(index)));
            rootfs.mount(mount, prepared).at(Stage::Rootfs)?;
        }
    }
    attach(&mut pid)
}

/// After Go: wait at the gate, run the last hooks, become the program.
fn finish(
    job: &InitJob<'_>,
    channel: ChildEnd,
    program: Prepared,
) -> Result<std::convert::Infallible, InitFailure> {
    // Where nobody waits at a gate, the channel stays for the outcome: it
    // closes on execve.
    let channel = match &job.gate {
        Some(gate) => {
            drop(channel);
            gate.wait()
                .map_err(std::io::Error::from)
                .at(Stage::Channel)?;
            None
        }
        None => Some(channel),
    };
    let result = last_steps(job, &program);
    if let (Err(failure), Some(channel)) = (&result, &channel) {
        channel.failed(failure);
    }
    result
}

fn last_steps(
    job: &InitJob<'_>,
    program: &Prepared,
) -> Result<std::convert::Infallible, InitFailure> {
    let hooks = &job.spec.hooks.start_container;
    if !hooks.is_empty() {
        let mut state = job.state.clone();
        state.pid = std::process::id() as i32;
        let json = state.to_spec_json(Status::Created);
        hooks::run("startContainer", hooks, &json, &program.plain_env).at(Stage::Hook)?;
    }
    let cause = sys::exec::execve(&program.path, &program.args, &program.env);
    Err(InitFailure {
        stage: Stage::Exec,
        detail: format!("exec {}", program.path.to_string_lossy()),
        errno: cause.raw_os_error().unwrap_or(0),
    })
}
