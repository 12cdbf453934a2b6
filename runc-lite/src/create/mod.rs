//! The parent's side of making a container.
//!
//! ```text
//!  read and refuse        bundle, namespaces, validation, filter: nothing exists yet
//!  record                 ROOT/ID, config.json, state.json without a pid
//!  cgroup                 directories
//!  clone                  the child begins; from here on it dies if we do
//!  maps, attach           while the child mounts
//!  hooks                  when the child has mounted
//!  record the pid         state.json, pid file
//!  go
//! ```
//!
//! Everything made is in [`Undo`], which takes it back in reverse order on any
//! failure. What a kill leaves behind, `delete --force` finds from the record.

mod attend;
pub(crate) mod id_maps;
pub(crate) mod listener;
pub(crate) mod net_devices;
pub(crate) mod restore;
mod spawn;

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::bundle::{Bundle, BundleError};
use crate::cgroup::{Cgroup, CgroupError, Placement};
use crate::channel::{self, ChannelError, InitFailure, Stage};
use crate::criu::CriuError;
use crate::error::{Doing as _, StepError};
use crate::hooks::HookError;
use crate::init::{InitJob, gate::Gate};
use crate::log;
use crate::namespaces::{NamespaceError, Plan};
use crate::resctrl;
use crate::rootfs::apart::{Apart, Sources};
use crate::security::seccomp::{self, SeccompError};
use crate::spec::{LinuxResources, Spec};
use crate::state::{LockGuard, State, StateDir, StateError};
use crate::validate::{self, ValidateError};
use attend::{attend, explain};
use spawn::spawn;

/// What `create` and `run` ask for.
#[derive(Debug, Default)]
pub(crate) struct Request<'a> {
    /// Directory of all states.
    pub(crate) root: PathBuf,
    /// Name of the container.
    pub(crate) id: &'a str,
    /// Bundle directory, or the current one.
    pub(crate) bundle: Option<&'a str>,
    /// Socket that takes the terminal.
    pub(crate) console_socket: Option<&'a str>,
    /// Whether the caller stays and serves the terminal itself.
    pub(crate) foreground: bool,
    /// Where the first pid is written.
    pub(crate) pid_file: Option<&'a str>,
    /// Where a pidfd of the first process goes.
    pub(crate) pidfd_socket: Option<&'a str>,
    /// Move the root instead of pivot_root.
    pub(crate) no_pivot: bool,
    /// Keep the caller's keyring.
    pub(crate) no_new_keyring: bool,
    /// Descriptors passed on after stdio.
    pub(crate) preserve_fds: u32,
    /// Let systemd make the cgroups.
    pub(crate) systemd_cgroup: bool,
    /// Leave out hierarchies that we may not write.
    pub(crate) rootless: bool,
    /// Wait for `start` (create), or go on at once (run).
    pub(crate) gate: bool,
}

/// Why a container could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateError {
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Namespaces(#[from] NamespaceError),
    #[error(transparent)]
    Validate(#[from] ValidateError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("unable to apply cgroup configuration")]
    Cgroup(#[from] CgroupError),
    #[error("unable to compile the seccomp profile")]
    Seccomp(#[from] SeccompError),
    #[error(transparent)]
    Criu(#[from] CriuError),
    #[error(transparent)]
    Hook(#[from] HookError),
    #[error(transparent)]
    Step(#[from] StepError),
    /// The child said why.
    #[error("unable to start container process: {}", worded(.0))]
    Init(InitFailure),
    /// The child is gone without a word.
    #[error("unable to start container process: container init {0}")]
    Gone(String),
    #[error("unable to start container process")]
    Channel(#[source] ChannelError),
}

fn worded(failure: &InitFailure) -> String {
    match failure.stage {
        Stage::Exec => failure.to_string(),
        _ => format!("error during container init: {failure}"),
    }
}

/// A container whose process is ready.
#[derive(Debug)]
pub(crate) struct Created {
    /// Its record.
    pub(crate) state: State,
    /// Its directory.
    pub(crate) dir: StateDir,
    /// Its configuration.
    pub(crate) spec: Spec,
    /// Its first process.
    pub(crate) pidfd: OwnedFd,
    /// Gives the master side of the terminal, in the foreground.
    pub(crate) terminal: Option<OwnedFd>,
    /// Held until dropped.
    pub(crate) lock: LockGuard,
}

/// What exists so far; taken back on drop unless [`Undo::keep`] was called.
#[derive(Debug)]
struct Undo {
    dir: StateDir,
    lock: Option<LockGuard>,
    cgroup: Option<Cgroup>,
    resctrl: Option<resctrl::Group>,
    child: Option<OwnedFd>,
}

impl Undo {
    fn keep(mut self) -> LockGuard {
        self.child = None;
        self.cgroup = None;
        self.resctrl = None;
        self.lock.take().expect("the lock is taken once, here")
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if self.lock.is_none() {
            return;
        }
        if let Some(pidfd) = &self.child {
            // It may have ended by itself.
            let _ = crate::sys::process::pidfd_kill(pidfd, libc::SIGKILL);
            let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
        }
        if let Some(cgroup) = &self.cgroup
            && let Err(e) = cgroup.remove()
        {
            log::warn(&format!(
                "clean up after a failed create: {}",
                crate::error::chain(&e)
            ));
        }
        if let Some(group) = &self.resctrl
            && let Err(e) = group.remove()
        {
            log::warn(&format!(
                "clean up after a failed create: {}",
                crate::error::chain(&e)
            ));
        }
        if let Err(e) = self.dir.remove() {
            log::warn(&format!(
                "clean up after a failed create: {}",
                crate::error::chain(&e)
            ));
        }
    }
}

/// Makes a container up to the point where only the program is missing. With a
/// gate the child waits there; without one it is told to go, and whether the
/// program runs is known on return.
pub(crate) fn create(request: Request<'_>) -> Result<Created, CreateError> {
    let dir = StateDir::new(&request.root, request.id)?;
    let mut bundle = Bundle::load(request.bundle)?;
    if let Some(process) = &mut bundle.spec.process {
        crate::commands::tell_activation(process);
    }
    let spec = &bundle.spec;
    let plan = Plan::from_spec(spec)?;
    validate::check(spec, &plan)?;
    let program = spec
        .linux
        .seccomp
        .as_ref()
        .map(seccomp::compile)
        .transpose()?;
    let rootfs = bundle.rootfs()?;
    let default_limits = LinuxResources::default();
    let limits = spec.linux.resources.as_ref().unwrap_or(&default_limits);
    let placement = placement(&request, spec, &plan);
    let group = Cgroup::locate(&placement)?;
    let mut state = first_record(&request, &bundle, &rootfs, &plan);
    if let Some(rdt) = &spec.linux.intel_rdt {
        state.resctrl = Some(resctrl::Group::locate(rdt, request.id)?);
    }
    let mut undo = make(&dir, &mut state, &bundle, group, (&placement, limits))?;
    let cgroup = undo.cgroup.as_mut().expect("made with the record");
    let hierarchies = cgroup.mounts_for_container();
    let entry = cgroup.entry()?;
    let terminal = spec.process.as_ref().is_some_and(|p| p.terminal);
    let (console, terminal) = console_ends(terminal, request.console_socket, request.foreground)?;
    let gate = request.gate.then(|| Gate::make(&dir)).transpose()?;
    let idmaps = id_maps::for_mounts(spec, &plan, &bundle.path)?;
    let apart = match request.no_pivot {
        true => None,
        false => Apart::prepare(
            Sources {
                spec,
                plan: &plan,
                rootfs: &rootfs,
                bundle: &bundle.path,
                hierarchies: &hierarchies,
            },
            &idmaps,
        ),
    };
    let (parent_end, child_end) = channel::pair().doing(|| "make a socket pair")?;
    // No process of the container may look into the runtime's. Who is not root
    // could then not write the maps of a new user namespace, so there the child does
    // it afterwards.
    let privileged = rustix::process::geteuid().is_root();
    if !plan.makes(libc::CLONE_NEWUSER) || privileged {
        dumpable(false)?;
    }
    let job = InitJob {
        spec,
        plan: &plan,
        rootfs: &rootfs,
        bundle: &bundle.path,
        state: &state,
        seccomp: program.as_ref(),
        privileged,
        hierarchies: &hierarchies,
        entry: &entry,
        idmaps: &idmaps,
        apart: apart.as_ref(),
        console,
        parents: undo
            .lock
            .as_ref()
            .map(LockGuard::number)
            .into_iter()
            .chain([parent_end.number()])
            .collect(),
        gate,
        first_private_fd: 3 + request.preserve_fds,
        no_pivot: request.no_pivot,
        new_keyring: !request.no_new_keyring,
    };
    let (pid, pidfd, in_cgroup) = spawn(job, &parent_end, child_end)?;
    let pidfd = undo.child.insert(pidfd);
    if !in_cgroup {
        let raw = Pid::from_raw(pid).ok_or(CreateError::Channel(ChannelError::Gone))?;
        cgroup.adopt(raw, &placement, limits)?;
    }
    drop(entry);

    let result = attend(
        &parent_end,
        pid,
        spec,
        &plan,
        cgroup,
        limits,
        &mut state,
        program.as_ref(),
        pidfd,
    );
    result.map_err(|e| explain(e, &parent_end, pidfd, cgroup))?;
    dir.store(&state)?;
    hand_out(&request, pid, pidfd)?;
    let told = parent_end.go().and_then(|()| match request.gate {
        true => Ok(()),
        false => parent_end.executed(),
    });
    told.map_err(|e| explain(e.into(), &parent_end, pidfd, cgroup))?;
    let pidfd = undo.child.take().expect("put in above");
    Ok(Created {
        state,
        dir,
        pidfd,
        terminal,
        lock: undo.keep(),
        spec: bundle.spec,
    })
}

/// Where the container's groups are to be.
fn placement<'a>(request: &Request<'a>, spec: &'a Spec, plan: &Plan) -> Placement<'a> {
    Placement {
        cgroups_path: Some(spec.linux.cgroups_path.as_str()).filter(|p| !p.is_empty()),
        id: request.id,
        systemd: request.systemd_cgroup,
        rootless: request.rootless,
        annotations: Some(&spec.annotations),
        owner: crate::cgroup::owner(spec, plan),
    }
}

/// The record of a container that has no process yet.
fn first_record(request: &Request<'_>, bundle: &Bundle, rootfs: &Path, plan: &Plan) -> State {
    let spec = &bundle.spec;
    let mut state = State::new(request.id);
    state.oci_version.clone_from(&spec.version);
    state.bundle.clone_from(&bundle.path);
    state.rootfs = rootfs.to_owned();
    state.created = log::rfc3339(log::now(), true);
    state.annotations.clone_from(&spec.annotations);
    state.namespaces = plan.differing();
    state.systemd_cgroup = request.systemd_cgroup;
    state.has_poststop = !spec.hooks.poststop.is_empty();
    state
}

/// Puts the record on disk and makes the groups. Where they will be is recorded
/// first; that they are ours, before there is a process, so that one that outlives us
/// for a moment is found: whoever is in them may be killed from then on.
fn make(
    dir: &StateDir,
    state: &mut State,
    bundle: &Bundle,
    mut cgroup: Cgroup,
    (placement, limits): (&Placement<'_>, &LinuxResources),
) -> Result<Undo, CreateError> {
    let lock = dir.make()?;
    let mut undo = Undo {
        dir: dir.clone(),
        lock: Some(lock),
        cgroup: None,
        resctrl: None,
        child: None,
    };
    state.cgroup = Some(cgroup.state());
    dir.store(state)?;
    dir.write("config.json", &bundle.text)?;
    if let (Some(rdt), Some(group)) = (&bundle.spec.linux.intel_rdt, &state.resctrl) {
        undo.resctrl.insert(group.clone()).make(rdt)?;
    }
    cgroup.create(placement, limits)?;
    state.cgroup = Some(cgroup.state());
    undo.cgroup = Some(cgroup);
    dir.store(state)?;
    Ok(undo)
}

/// Tells the caller who the first process is, where it was asked.
fn hand_out(request: &Request<'_>, pid: i32, pidfd: &OwnedFd) -> Result<(), StepError> {
    if let Some(path) = request.pid_file {
        let path = Path::new(path);
        crate::files::write_atomically(path, pid.to_string().as_bytes(), 0o644)
            .doing(|| format!("write pid file {}", path.display()))?;
    }
    if let Some(socket) = request.pidfd_socket {
        let socket = crate::console::connect(socket)?;
        crate::console::send_fd(socket.as_fd(), b"pidfd", pidfd.as_fd())
            .doing(|| "send the pidfd")?;
    }
    Ok(())
}

/// The end that the child sends its terminal into, and in the foreground the
/// end it comes out of.
pub(crate) fn console_ends(
    terminal: bool,
    socket: Option<&str>,
    foreground: bool,
) -> Result<(Option<OwnedFd>, Option<OwnedFd>), StepError> {
    let refused = |why: &str| Err(StepError::refused("set up the terminal", why));
    match (terminal, socket, foreground) {
        (false, None, _) => Ok((None, None)),
        (true, None, true) => {
            let (ours, childs) = std::os::unix::net::UnixStream::pair()
                .doing(|| "make a socket for the terminal")?;
            Ok((Some(childs.into()), Some(ours.into())))
        }
        (true, Some(socket), false) => Ok((Some(crate::console::connect(socket)?), None)),
        (true, None, false) => {
            refused("cannot allocate tty if runc-lite will detach without setting console socket")
        }
        (_, Some(_), _) => {
            refused("cannot use console socket if runc-lite will not detach or allocate tty")
        }
    }
}

/// Sets the adjustment of the out-of-memory score. Without CAP_SYS_RESOURCE it
/// cannot be lowered: then it stays, and the log says so.
pub(crate) fn set_oom_score(pid: i32, adjustment: Option<i32>) -> Result<(), StepError> {
    let Some(value) = adjustment else {
        return Ok(());
    };
    let path = format!("/proc/{pid}/oom_score_adj");
    match std::fs::write(&path, value.to_string()) {
        Err(e)
            if e.raw_os_error() == Some(libc::EACCES) || e.raw_os_error() == Some(libc::EPERM) =>
        {
            let current = std::fs::read_to_string(&path).unwrap_or_default();
            log::warn(&format!(
                "oom_score_adj {value} is not permitted, it stays {}",
                current.trim()
            ));
            Ok(())
        }
        other => other.doing(|| format!("set oom_score_adj {value}")),
    }
}

/// Whether other processes may look into this one and what it clones.
pub(crate) fn dumpable(may: bool) -> Result<(), StepError> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    let (behavior, what) = match may {
        true => (DumpableBehavior::Dumpable, "let the runtime be looked into"),
        false => (DumpableBehavior::NotDumpable, "make the runtime undumpable"),
    };
    set_dumpable_behavior(behavior).doing(|| what)
}
