//! `exec`: one more process in a container that runs.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use super::foreground::{Signals, serve};
use super::{CommandError, Container, Context, refuse};
use crate::args::Parsed;
use crate::cgroup::{Cgroup, Entry};
use crate::channel::{self, ChannelError, InitFailure, ParentEnd, Said, Stage};
use crate::create::{CreateError, console_ends, dumpable, listener, set_oom_score};
use crate::error::Doing as _;
use crate::init::exec::{self as child, ExecJob};
use crate::process::LiveProcess;
use crate::security::seccomp::{self, Program};
use crate::spec::{Capabilities, Process, Spec};
use crate::state::Status;
use crate::sys::clone::{Forked, fork_into};
use crate::validate;

pub(super) fn run(context: &Context, parsed: &Parsed) -> Result<u8, CommandError> {
    let preserve = super::create::seal(parsed)?;
    let container = context.container(parsed)?;
    let target = running(&container, parsed.switch("ignore-paused"))?;
    let spec = container.spec()?;
    let mut process = process_to_run(parsed, &spec)?;
    super::tell_activation(&mut process);
    validate::check_process(&process)?;
    let program = spec
        .linux
        .seccomp
        .as_ref()
        .map(seccomp::compile)
        .transpose()?;
    let detach = parsed.switch("detach");
    let socket = parsed.value("console-socket").filter(|s| !s.is_empty());
    let (console, terminal) = console_ends(process.terminal, socket, !detach)?;
    let signals = if detach {
        None
    } else {
        Some(Signals::block()?)
    };

    let below = parsed.value("cgroup").filter(|b| !b.is_empty());
    let cgroup = container.cgroup()?;
    let entry = match below {
        None => cgroup.entry()?,
        Some(_) => Entry::default(),
    };
    dumpable(false)?;
    let (parent_end, child_end) = channel::pair().doing(|| "make a socket pair")?;
    let job = ExecJob {
        target: &target.pidfd,
        namespaces: container.state.namespaces,
        privileged: rustix::process::geteuid().is_root(),
        entry,
        parents: vec![parent_end.number()],
        process: &process,
        linux: &spec.linux,
        seccomp: program.as_ref(),
        console,
        first_private_fd: 3 + preserve,
    };
    let (pid, pidfd, in_cgroup) = spawn(&job, &parent_end, child_end)?;
    drop(job);
    let attended = attach(&cgroup, pid, container.state.pid, below, in_cgroup).and_then(|()| {
        attend(
            &parent_end,
            pid,
            &pidfd,
            &container,
            parsed,
            &process,
            &spec,
            program.as_ref(),
        )
    });
    if let Err(e) = attended {
        // It ends by itself when we do, but must not be left as a zombie.
        let _ = crate::sys::process::pidfd_kill(&pidfd, libc::SIGKILL);
        let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
        // A child that has failed makes our own calls on it fail too.
        return Err(match parent_end.last_words() {
            Some(failure) => CreateError::Init(failure).into(),
            None => e,
        });
    }
    match signals {
        Some(signals) => serve(&signals, pid, &pidfd, terminal),
        None => Ok(0),
    }
}

/// The container's first process, if `exec` may join it.
fn running(container: &Container, ignore_paused: bool) -> Result<LiveProcess, CommandError> {
    match container.status() {
        Status::Stopped | Status::Creating => refuse("cannot exec in a stopped container"),
        Status::Paused if !ignore_paused => {
            refuse("cannot exec in a paused container (use --ignore-paused to override)")
        }
        _ => container.process(),
    }
}

/// From `--process`, or the container's own process with the options' changes.
fn process_to_run(parsed: &Parsed, spec: &Spec) -> Result<Process, CommandError> {
    if let Some(path) = parsed.value("process") {
        let text = crate::files::read_named(path).doing(|| format!("read process file {path}"))?;
        let process: Process = serde_json::from_slice(&text)
            .map_err(std::io::Error::from)
            .doing(|| format!("parse process file {path}"))?;
        return Ok(process);
    }
    let mut process = spec.process.clone().unwrap_or_default();
    process.args = parsed.positionals.get(1..).unwrap_or_default().to_vec();
    if process.args.is_empty() {
        return refuse("process args cannot be empty");
    }
    if let Some(cwd) = parsed.value("cwd") {
        process.cwd = cwd.to_owned();
    }
    if let Some(profile) = parsed.value("apparmor") {
        process.apparmor_profile = profile.to_owned();
    }
    if let Some(label) = parsed.value("process-label") {
        process.selinux_label = label.to_owned();
    }
    let added: Vec<String> = parsed.values("cap").map(str::to_owned).collect();
    if !added.is_empty() {
        let caps = process
            .capabilities
            .get_or_insert_with(Capabilities::default);
        for set in [&mut caps.bounding, &mut caps.effective, &mut caps.permitted] {
            set.extend(added.iter().cloned());
        }
        // Never inheritable: a file in the container could turn that into more than
        // was asked for. Only what is inheritable can be ambient, so that set is
        // extended only where the configuration has inheritable ones, as runc does.
        if !caps.inheritable.is_empty() {
            caps.ambient.extend(added);
        }
    }
    process.env.extend(parsed.values("env").map(str::to_owned));
    process.terminal = parsed.switch("tty");
    process.console_size = None;
    if parsed.value("no-new-privs").is_some() {
        process.no_new_privileges = parsed.switch("no-new-privs");
    }
    if let Some(user) = parsed.value("user") {
        let (uid, gid) = user
            .split_once(':')
            .map_or((user, None), |(u, g)| (u, Some(g)));
        let number = |text: &str| {
            text.parse::<u32>().map_err(|_| {
                CommandError::Refused(format!("parsing {text} as int for user failed"))
            })
        };
        process.user.uid = number(uid)?;
        if let Some(gid) = gid {
            process.user.gid = number(gid)?;
        }
    }
    for gid in parsed.values("additional-gids") {
        let gid = gid
            .parse()
            .map_err(|_| CommandError::Refused(format!("invalid group {gid}")))?;
        process.user.additional_gids.push(gid);
    }
    Ok(process)
}

/// Makes the process, by one in between that enters the namespaces first: see
/// [`ExecJob::enter`].
fn spawn(
    job: &ExecJob<'_>,
    parent_end: &ParentEnd,
    child_end: channel::ChildEnd,
) -> Result<(i32, OwnedFd, bool), CommandError> {
    match fork_into(0, false, job.entry.clone_into()).doing(|| "clone")? {
        Forked::Child => {
            let cloned = job.enter().and_then(|()| {
                let forked = fork_into(0, true, None).doing(|| "clone");
                forked.map_err(|e| InitFailure::new(Stage::Namespaces, &e))
            });
            match cloned {
                Ok(Forked::Child) => child::run(job, &child_end),
                Ok(Forked::Parent { pid, .. }) => {
                    // If the parent is gone, the new process finds out as well.
                    let _ = child_end.sibling(pid);
                }
                Err(failure) => child_end.failed(&failure),
            }
            crate::sys::exec::exit_now(0)
        }
        Forked::Parent {
            pidfd, in_cgroup, ..
        } => {
            drop(child_end);
            let pid = parent_end.sibling_made_by(&pidfd).map_err(failure)?;
            let pidfd = pidfd_open(pid, PidfdFlags::empty()).doing(|| "open the new process")?;
            Ok((pid.as_raw_nonzero().get(), pidfd, in_cgroup))
        }
    }
}

/// Does for the child what it cannot do itself, until it is the program.
#[expect(
    clippy::too_many_arguments,
    reason = "one call site; they are all of run's locals"
)]
fn attend(
    channel: &ParentEnd,
    pid: i32,
    pidfd: &OwnedFd,
    container: &Container,
    parsed: &Parsed,
    process: &Process,
    spec: &Spec,
    program: Option<&Program>,
) -> Result<(), CommandError> {
    if let Some(group) = &container.state.resctrl {
        group.trusted()?.enter(pid)?;
    }
    set_oom_score(pid, process.oom_score_adj)?;
    channel.attached(pid).map_err(failure)?;
    loop {
        match channel.next().map_err(failure)? {
            Said::Ready => break,
            Said::Listener(number) => {
                listener::forward(pidfd, number, spec, &container.state, program)?;
                channel.fetched().map_err(failure)?;
            }
            Said::Mounted => return refuse("the process talks out of turn"),
        }
    }
    if let Some(path) = parsed.value("pid-file").filter(|p| !p.is_empty()) {
        crate::files::write_atomically(path.as_ref(), pid.to_string().as_bytes(), 0o644)
            .doing(|| format!("write pid file {path}"))?;
    }
    if let Some(socket) = parsed.value("pidfd-socket").filter(|p| !p.is_empty()) {
        let socket = crate::console::connect(socket)?;
        crate::console::send_fd(socket.as_fd(), b"pidfd", pidfd.as_fd())
            .doing(|| "send the pidfd")?;
    }
    channel.go().map_err(failure)?;
    channel.executed().map_err(failure)
}

/// Into what is left of the container's cgroup to go into, or into one below it
/// (`[controllers:]path`).
fn attach(
    cgroup: &Cgroup,
    pid: i32,
    init: i32,
    below: Option<&str>,
    in_cgroup: bool,
) -> Result<(), CommandError> {
    let pid = Pid::from_raw(pid).ok_or_else(|| failure(ChannelError::Gone))?;
    match below {
        None if in_cgroup => Ok(()),
        None => Ok(cgroup.join(pid, init)?),
        Some(below) => {
            let (controllers, path) = below.split_once(':').unwrap_or(("", below));
            let controllers: Vec<&str> = controllers.split(',').filter(|c| !c.is_empty()).collect();
            Ok(cgroup.add_below(pid, &controllers, path)?)
        }
    }
}

fn failure(e: ChannelError) -> CommandError {
    match e {
        ChannelError::Init(failure) => CreateError::Init(failure).into(),
        ChannelError::Gone => CreateError::Gone("ended unexpectedly".into()).into(),
        other => CreateError::Channel(other).into(),
    }
}
