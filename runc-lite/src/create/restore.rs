//! Makes a container whose processes come out of a checkpoint.
//!
//! The record, the cgroup and the root are made as for any container; criu then makes
//! the processes, inside the cgroup, as children of ours. The image is not trusted
//! beyond what is in memory: what is mounted where is the configuration's to say, and
//! is compared before the first process runs again ([`check`]).
//!
//! ```text
//!  record, cgroup             as in create
//!  fork, in the cgroup        criu-to-be: a mount namespace of its own, in which the
//!                             root lies on ROOT/ID/criu-root and has all mount points
//!  request                    notices: hooks, terminal, mounts checked, pid recorded
//!  answer                     the container runs
//! ```

mod check;

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::process::Pid;

use super::{CreateError, Created, Request, console_ends, first_record, hand_out, make, placement};
use crate::bundle::Bundle;
use crate::cgroup::{Cgroup, HierarchyMount};
use crate::criu::wire::{Fields, Message};
use crate::criu::{self, Criu, Directories, Kind, Next, Notice, Options, Session, field};
use crate::error::{Doing as _, StepError};
use crate::files::clean;
use crate::hooks;
use crate::log;
use crate::namespaces::Plan;
use crate::process::ProcStat;
use crate::rootfs::options::Options as MountOptions;
use crate::rootfs::{self, Rootfs, mounts};
use crate::spec::{LinuxResources, Spec};
use crate::state::{State, StateDir, Status};
use crate::validate;

/// Where the root lies for criu, in the state directory.
const ROOT: &str = "criu-root";

/// The checkpoint and what reads it.
#[derive(Debug)]
pub(crate) struct Image<'a> {
    /// The program.
    pub(crate) criu: &'a Criu,
    /// Where the files are.
    pub(crate) directories: &'a Directories,
    /// Options of the command line.
    pub(crate) opts: Message,
}

/// Makes the container; on return its processes run.
pub(crate) fn restore(request: &Request<'_>, image: Image<'_>) -> Result<Created, CreateError> {
    let dir = StateDir::new(&request.root, request.id)?;
    let bundle = Bundle::load(request.bundle)?;
    let spec = &bundle.spec;
    let plan = Plan::from_spec(spec)?;
    validate::check(spec, &plan)?;
    let rootfs = bundle.rootfs()?;
    let default_limits = LinuxResources::default();
    let limits = spec.linux.resources.as_ref().unwrap_or(&default_limits);
    let placement = placement(request, spec, &plan);
    let group = Cgroup::locate(&placement)?;
    let mut state = first_record(request, &bundle, &rootfs, &plan);
    state.restored = true;
    let mut undo = make(&dir, &mut state, &bundle, group, (&placement, limits))?;
    let cgroup = undo.cgroup.as_mut().expect("made with the record");
    let hierarchies = cgroup.mounts_for_container();
    let entry = cgroup.entry()?;

    let terminal = spec.process.as_ref().is_some_and(|p| p.terminal);
    let (console, terminal) = console_ends(terminal, request.console_socket, request.foreground)?;
    let root = dir.file(ROOT);
    std::fs::create_dir(&root).doing(|| format!("make {}", root.display()))?;
    let (mut opts, inherited) = options(
        spec,
        &bundle.path,
        &hierarchies,
        &root,
        image.directories,
        image.opts,
    )?;
    let prepare = || {
        prepare_root(spec, &rootfs, &bundle.path, &root)?;
        image.directories.reopen()
    };
    let session = Session::start_in(image.criu, &entry, &prepare)?;
    drop(inherited);
    if !session.in_cgroup {
        let pid = Pid::from_raw(session.pid).ok_or_else(|| {
            StepError::refused("put criu into the cgroup", "it has no process id")
        })?;
        cgroup.adopt(pid, &placement, limits)?;
    }
    drop(entry);
    cgroup.apply(limits)?;
    state.cgroup = Some(cgroup.state());
    cgroup_roots(session.pid, &mut opts)?;
    session.request(Kind::Restore, &opts)?;
    let mut watch = Watch {
        spec,
        bundle: &bundle.path,
        rootfs: &rootfs,
        dir: &dir,
        state: &mut state,
        console: console.as_ref(),
    };
    let pid = converse(session, &mut watch, &image.directories.log)?;
    let pidfd = open_process(pid)?;
    watch.record(pid)?;
    // Empty by now, where the host sees it.
    let _ = std::fs::remove_dir(&root);
    hand_out(request, pid, &pidfd)?;
    Ok(Created {
        state,
        dir,
        pidfd,
        terminal,
        lock: undo.keep(),
        spec: bundle.spec,
    })
}

/// Does what criu's notices ask for until it says that all run; the first process.
fn converse(session: Session, watch: &mut Watch<'_>, log: &Path) -> Result<i32, CreateError> {
    let answer = loop {
        match session.next(Kind::Restore, log) {
            Ok(Next::Answer(answer)) => break answer,
            Ok(Next::Notice(notice)) => {
                watch.notice(&notice)?;
                session.go_on()?;
            }
            Err(e) => {
                criu::log_errors(log);
                return Err(e.into());
            }
        }
    };
    session.finish();
    let told = Fields(Fields(&answer).bytes(4).unwrap_or_default()).number(1);
    Ok(told.and_then(|n| i32::try_from(n).ok()).unwrap_or(0))
}

/// The restored process: a child of ours and not waited for, so the pid is its own.
fn open_process(pid: i32) -> Result<OwnedFd, StepError> {
    let what = || format!("open the restored process {pid}");
    let raw = Pid::from_raw(pid).ok_or_else(|| StepError::refused(what(), "no such pid"))?;
    rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty()).doing(what)
}

/// The options of a restore, and the descriptors that criu has to inherit for them.
fn options(
    spec: &Spec,
    bundle: &Path,
    hierarchies: &[HierarchyMount],
    root: &Path,
    directories: &Directories,
    mut opts: Message,
) -> Result<(Message, Vec<OwnedFd>), StepError> {
    directories.tell(&mut opts);
    Options::config_file(&spec.annotations, &mut opts);
    opts.flag(field::EVASIVE_DEVICES, true);
    opts.flag(field::SIBLING, true);
    opts.text(field::ROOT, &root.to_string_lossy());
    for mount in &spec.mounts {
        let options = MountOptions::parse(&mount.options);
        if mount.kind == "cgroup" {
            let own = spec.linux.namespaces.iter().any(|n| n.kind == "cgroup");
            for hierarchy in hierarchies.iter().filter(|h| !own && !h.name.is_empty()) {
                let key = format!("{}/{}", mount.destination, hierarchy.name);
                Options::external_mount(&mut opts, &key, &hierarchy.source.to_string_lossy());
            }
        } else if mounts::bind_of(mount, &options).is_some() {
            let source = bundle.join(&mount.source);
            Options::external_mount(&mut opts, &mount.destination, &source.to_string_lossy());
        }
    }
    for device in &spec.linux.devices {
        Options::external_mount(&mut opts, &device.path, &device.path);
    }
    let mut inherited = Vec::new();
    for namespace in spec.linux.namespaces.iter().filter(|n| !n.path.is_empty()) {
        let path = namespace.path.as_str();
        match namespace.kind.as_str() {
            kind @ ("network" | "pid") => {
                let name = if kind == "network" { "net" } else { "pid" };
                let fd = open(path, OFlags::RDONLY, Mode::empty())
                    .doing(|| format!("open {kind} namespace {path}"))?;
                inherit(&mut opts, &crate::criu::external_key(name), fd.as_raw_fd());
                inherited.push(fd);
            }
            "cgroup" | "time" => {
                return Err(StepError::refused(
                    format!("restore in {} namespace {path}", namespace.kind),
                    "criu cannot join one",
                ));
            }
            kind => {
                let mut join = Message::default();
                let name = if kind == "mount" { "mnt" } else { kind };
                join.text(1, name).text(2, path);
                opts.message(field::JOIN_NS, &join);
            }
        }
    }
    for (number, stream) in streams(directories)?.iter().enumerate() {
        if stream.contains("pipe:") {
            inherit(&mut opts, stream, number as i32);
        }
    }
    Ok((opts, inherited))
}

fn inherit(opts: &mut Message, key: &str, fd: i32) {
    let mut message = Message::default();
    message.text(1, key).number(2, fd.into());
    opts.message(field::INHERIT_FD, &message);
}

/// What the standard streams were when the image was made.
fn streams(directories: &Directories) -> Result<Vec<String>, StepError> {
    let path = directories.path.join(criu::DESCRIPTORS);
    let text = crate::files::read(&path).doing(|| format!("read {}", path.display()))?;
    let streams: Vec<String> = serde_json::from_slice(&text)
        .map_err(std::io::Error::from)
        .doing(|| format!("parse {}", path.display()))?;
    match streams.len() {
        3 => Ok(streams),
        n => Err(StepError::refused(
            format!("use {}", path.display()),
            format!("it names {n} streams instead of 3"),
        )),
    }
}

/// In criu's process: a mount namespace in which the root is a mount of its own, with
/// a place for every mount. A place below another mount is made within that mount as
/// the container has it, so nothing is written to what the container may only read.
fn prepare_root(spec: &Spec, rootfs: &Path, bundle: &Path, at: &Path) -> Result<(), StepError> {
    crate::sys::process::unshare_namespace(libc::CLONE_NEWNS as u32)
        .doing(|| "make a mount namespace for criu")?;
    let host_root = rootfs::open_dir(Path::new("/"))?;
    rootfs::cut_propagation(&host_root, spec).doing(|| "cut mount propagation to the host")?;
    let attach = || {
        let what = || format!("bind rootfs {}", rootfs.display());
        let tree = rootfs::clone_mount(rootfs::open_dir(rootfs)?, true).doing(what)?;
        rootfs::attach(&tree, rootfs::open_dir(at)?).doing(what)?;
        Ok(tree)
    };
    let root = Rootfs::over(attach()?, bundle);
    let within_tmpfs = |dest: &str| {
        let mut all = spec
            .mounts
            .iter()
            .filter(|m| m.kind == "tmpfs" || m.kind == "cgroup");
        all.any(|m| {
            let (dest, above) = (clean(dest), clean(&m.destination));
            dest != above && dest.starts_with(above)
        })
    };
    for mount in &spec.mounts {
        // What is in a tmpfs comes with the image.
        if within_tmpfs(&mount.destination) {
            continue;
        }
        match mounts::bind_of(mount, &MountOptions::parse(&mount.options)) {
            Some(_) => root.mount(mount, None)?,
            None => drop(root.place(mount)?),
        }
    }
    // With everything on it the root served to make places; criu gets a bare one.
    rustix::mount::unmount(at, rustix::mount::UnmountFlags::DETACH)
        .doing(|| "detach the prepared root")?;
    attach().map(drop)
}

/// The container's cgroups in place of those in the image.
fn cgroup_roots(pid: i32, opts: &mut Message) -> Result<(), StepError> {
    let path = format!("/proc/{pid}/cgroup");
    let text = std::fs::read_to_string(&path).doing(|| format!("read {path}"))?;
    let mut roots = BTreeMap::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        if let (Some(controllers), Some(path)) = (parts.next(), parts.next()) {
            roots.extend(controllers.split(',').map(|c| (c, path)));
        }
    }
    for (controller, path) in roots {
        let mut root = Message::default();
        if !controller.is_empty() {
            root.text(1, controller);
        }
        root.text(2, path);
        opts.message(field::CGROUP_ROOT, &root);
    }
    Ok(())
}

/// What we do while criu works.
struct Watch<'a> {
    spec: &'a Spec,
    bundle: &'a Path,
    rootfs: &'a Path,
    dir: &'a StateDir,
    state: &'a mut State,
    console: Option<&'a OwnedFd>,
}

impl Watch<'_> {
    fn notice(&mut self, notice: &Notice) -> Result<(), CreateError> {
        log::debug(|| format!("criu: {} {}", notice.script, notice.pid));
        match notice.script.as_str() {
            "setup-namespaces" => {
                self.state.pid = notice.pid;
                let json = self.state.to_spec_json(Status::Creating);
                hooks::run("prestart", &self.spec.hooks.prestart, &json, &[])?;
                hooks::run("createRuntime", &self.spec.hooks.create_runtime, &json, &[])?;
            }
            // All processes stand still.
            "post-restore" => {
                check::mounts(self.spec, self.bundle, self.rootfs, notice.pid)?;
                self.record(notice.pid)?;
            }
            "orphan-pts-master" => match (&notice.fd, self.console) {
                (Some(master), Some(console)) => {
                    crate::console::send_fd(console.as_fd(), b"/dev/ptmx", master.as_fd())
                        .doing(|| "send the terminal to the console socket")?;
                }
                _ => log::warn("the image has a terminal that nobody asked for"),
            },
            _ => {}
        }
        Ok(())
    }

    fn record(&mut self, pid: i32) -> Result<(), CreateError> {
        self.state.pid = pid;
        self.state.init_process_start = ProcStat::read(pid).map_or(0, |s| s.start_time);
        Ok(self.dir.store(self.state)?)
    }
}
