//! What takes time: runtime calls, mounts, draining. Runs beside the owner and changes nothing but the outside world.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proto::containerd::types::Mount;
use proto::layout;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{Context, TaskError};
use crate::cgroup::Cgroup;
use crate::io::console::ConsoleSocket;
use crate::io::{self, Hub, Owner, ProcessIo, Stdio};
use crate::process::Live;
use crate::reaper::Exit;
use crate::runc::{Call, LONG, RuntimeError, SHORT};
use crate::{diag, exit, file, rootfs, sys};

/// How long output may take to end after its process.
const DRAIN: Duration = Duration::from_secs(10);

/// How long the init may take from the word to begin to its program.
const BEGIN: Duration = Duration::from_secs(1);

/// What a new container starts from.
#[derive(Debug, Clone)]
pub(crate) struct NewTask {
    pub(crate) rootfs: Vec<Mount>,
    pub(crate) stdio: Stdio,
    pub(crate) trace: Option<String>,
    /// Folder of a checkpoint: the container is restored from it by its start.
    pub(crate) checkpoint: Option<PathBuf>,
}

/// What a create came to.
#[derive(Debug)]
pub(super) enum Made {
    /// Its init waits for the start.
    Created(Created),
    /// All is prepared; there is no process before the start. Attachers come to the hub.
    Checkpointed(Option<Arc<Hub>>),
}

/// A container whose init waits for its start.
#[derive(Debug)]
pub(super) struct Created {
    pub(super) live: Live,
    pub(super) exit: oneshot::Receiver<Exit>,
    pub(super) io: ProcessIo,
    pub(super) hub: Option<Arc<Hub>>,
    pub(super) cgroup: Cgroup,
}

/// A process that was started.
#[derive(Debug)]
pub(super) enum Started {
    Init,
    /// Init, out of a checkpoint.
    Restored(Created),
    Exec {
        live: Live,
        exit: oneshot::Receiver<Exit>,
        io: ProcessIo,
    },
}

/// An exec to be run.
#[derive(Debug)]
pub(super) struct NewExec {
    pub(super) id: String,
    pub(super) spec: Vec<u8>,
    pub(super) stdio: Stdio,
    pub(super) hub: Option<Arc<Hub>>,
    pub(super) trace: Option<String>,
}

/// `BUNDLE/shim.json`: what the mode `delete` needs to find what is left of a container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ShimRecord {
    pub(crate) version: u32,
    pub(crate) pid: u32,
    pub(crate) start_time: u64,
    pub(crate) cgroup: Cgroup,
    /// Attach socket of init.
    #[serde(default)]
    pub(crate) attach: Option<PathBuf>,
    /// The shim itself.
    #[serde(default)]
    pub(crate) shim_pid: u32,
    #[serde(default)]
    pub(crate) shim_start_time: u64,
}

/// Name of [`ShimRecord`] in the bundle.
pub(crate) const SHIM_RECORD: &str = "shim.json";

/// Makes the container: options, mounts, stdio, the runtime's `create`. On failure nothing is left.
pub(super) async fn create(context: &Context, new: NewTask) -> Result<Made, TaskError> {
    context.options.store(&context.bundle)?;
    let root = context.bundle.join(layout::ROOTFS);
    rootfs::mount_all(&new.rootfs, &root)?;
    let result = match &new.checkpoint {
        Some(_) => new.stdio.hub().map(Made::Checkpointed).map_err(Into::into),
        None => create_mounted(context, &new).await.map(Made::Created),
    };
    if result.is_err()
        && !new.rootfs.is_empty()
        && let Err(error) = rootfs::unmount_all(&root)
    {
        diag::warn(format_args!(
            "after a failed create: {}",
            crate::chain(&error)
        ));
    }
    result
}

async fn create_mounted(context: &Context, new: &NewTask) -> Result<Created, TaskError> {
    let hub = new.stdio.hub()?;
    run_init(context, "create", Vec::new(), new, hub).await
}

/// Restores the container from its checkpoint; its processes run when this returns.
pub(super) async fn restore(
    context: &Context,
    new: NewTask,
    hub: Option<Arc<Hub>>,
) -> Result<Started, TaskError> {
    let image = new.checkpoint.clone().unwrap_or_default();
    let work = context.bundle.join(layout::WORK).join("criu-work");
    let args: Vec<OsString> = vec![
        "--image-path".into(),
        image.into(),
        "--work-path".into(),
        work.clone().into(),
        "--detach".into(),
        "--no-subreaper".into(),
    ];
    let restored = run_init(context, "restore", args, &new, hub).await;
    if restored.is_err() {
        // The log of criu says more than the runtime; keep it where people look.
        let _ = std::fs::copy(
            work.join("restore.log"),
            context.bundle.join("criu-restore.log"),
        );
    }
    // It may not exist, or go with the bundle.
    let _ = std::fs::remove_dir_all(&work);
    restored.map(Started::Restored)
}

/// The runtime call that makes init, and the note of what it left.
async fn run_init(
    context: &Context,
    verb: &'static str,
    mut args: Vec<OsString>,
    new: &NewTask,
    hub: Option<Arc<Hub>>,
) -> Result<Created, TaskError> {
    let pid_file = context.bundle.join(layout::INIT_PID);
    file::remove(&pid_file);
    args.extend([
        "--bundle".into(),
        context.bundle.clone().into(),
        "--pid-file".into(),
        pid_file.clone().into(),
    ]);
    if context.options.no_pivot_root {
        args.push("--no-pivot".into());
    }
    if context.options.no_new_keyring && verb == "create" {
        args.push("--no-new-keyring".into());
    }
    let request = Launch {
        call: Call {
            traceparent: new.trace.clone(),
            ..Call::new(verb, args)
        },
        name: "init",
        stdio: &new.stdio,
        hub: hub.clone(),
        pid_file: &pid_file,
    };
    let (live, exit, io) = match launch(context, request).await {
        Ok(launched) => launched,
        Err(error) => {
            undo_create(context, &error).await;
            return Err(error);
        }
    };
    let cgroup = Cgroup::of(live.pid);
    let own = Live::of(std::process::id());
    let record = ShimRecord {
        version: 1,
        pid: live.pid,
        start_time: live.start_time,
        cgroup: cgroup.clone(),
        attach: hub.as_ref().map(|hub| hub.path().to_owned()),
        shim_pid: own.pid,
        shim_start_time: own.start_time,
    };
    let json = serde_json::to_vec(&record).expect("a struct of numbers and texts is always JSON");
    file::replace(&context.bundle.join(SHIM_RECORD), &json)?;
    Ok(Created {
        live,
        exit,
        io,
        hub,
        cgroup,
    })
}

/// A runtime that said no has cleaned up behind itself; one that was killed, or whose success we could not use, has not.
async fn undo_create(context: &Context, error: &TaskError) {
    let refused = matches!(
        error,
        TaskError::Runtime {
            source: RuntimeError::Failed { .. } | RuntimeError::Spawn { .. },
            ..
        }
    );
    if refused {
        return;
    }
    let call = Call::new("delete", ["--force", context.id.as_str()]);
    if let Err(error) = context.runtime.run(call, SHORT).await {
        diag::debug(format_args!("undo create of {}: {error}", context.id));
    }
}

/// A runtime call that leaves a process behind.
struct Launch<'a> {
    call: Call,
    name: &'a str,
    stdio: &'a Stdio,
    hub: Option<Arc<Hub>>,
    pid_file: &'a Path,
}

/// Runs `create` or `exec` and takes over the process it leaves.
async fn launch(
    context: &Context,
    request: Launch<'_>,
) -> Result<(Live, oneshot::Receiver<Exit>, ProcessIo), TaskError> {
    let verb = request.call.verb;
    let failed = |source| TaskError::Runtime { verb, source };
    let owner = Owner {
        namespace: context.namespace.clone(),
        id: context.id.clone(),
        uid: context.options.io_uid,
        gid: context.options.io_gid,
        reaper: context.reaper.clone(),
    };
    let mut prepared = io::prepare(request.stdio, request.hub, &owner).await?;
    let mut call = request.call;
    let console = match request.stdio.terminal {
        false => None,
        true => {
            let socket =
                ConsoleSocket::listen(&context.bundle, request.name).map_err(|source| {
                    TaskError::System {
                        attempt: "listen for the terminal",
                        source,
                    }
                })?;
            call.args.push("--console-socket".into());
            call.args.push(socket.path().into());
            Some(socket)
        }
    };
    call.args.push(context.id.clone().into());
    call.stdio = Some(prepared.take_child());
    let expecting = context.reaper.expect();
    let running = context.runtime.spawn(call).map_err(failed)?;
    let master = match console {
        None => {
            running.finish(LONG).await.map_err(failed)?;
            None
        }
        Some(console) => Some(with_console(running, &console, failed).await?),
    };
    let pid = read_pid(request.pid_file)?;
    let exit = context.reaper.adopt(pid).ok_or(TaskError::NotOurs(pid))?;
    drop(expecting);
    let live = Live::of(pid);
    let io = prepared.start(master)?;
    Ok((live, exit, io))
}

/// Takes the terminal while the call runs: some runtimes wait until it is taken.
async fn with_console(
    running: crate::runc::Running,
    console: &ConsoleSocket,
    failed: impl Fn(RuntimeError) -> TaskError,
) -> Result<std::os::fd::OwnedFd, TaskError> {
    let no_terminal = |source| TaskError::System {
        attempt: "receive the terminal",
        source,
    };
    let end = running.finish(LONG);
    tokio::pin!(end);
    tokio::select! {
        biased;
        master = console.master() => {
            let master = master.map_err(no_terminal)?;
            end.await.map_err(failed)?;
            Ok(master)
        }
        result = &mut end => {
            result.map_err(failed)?;
            console.master().await.map_err(no_terminal)
        }
    }
}

fn read_pid(path: &Path) -> Result<u32, TaskError> {
    let text = file::read(path)?;
    let text = String::from_utf8_lossy(&text);
    let pid = text.trim().parse().ok().filter(|pid| *pid > 1);
    pid.ok_or_else(|| TaskError::Pid {
        path: path.to_owned(),
    })
}

/// The runtime's `start`.
pub(super) async fn start_init(
    context: &Context,
    trace: Option<String>,
) -> Result<Started, TaskError> {
    let call = Call {
        traceparent: trace,
        ..Call::new("start", [context.id.as_str()])
    };
    match context.runtime.run(call, LONG).await {
        Ok(()) => Ok(Started::Init),
        Err(error) if error.is_unknown() && has_begun(context).await => {
            diag::warn(format_args!(
                "start container {}: {error}; it runs all the same",
                context.id
            ));
            Ok(Started::Init)
        }
        Err(source) => Err(TaskError::Runtime {
            verb: "start",
            source,
        }),
    }
}

/// Whether the program of a container was begun by a `start` that did not say so. A container is told started once: a client
/// that tries again after an error must not make it run twice.
async fn has_begun(context: &Context) -> bool {
    let deadline = tokio::time::Instant::now() + BEGIN;
    loop {
        match context.runtime.status(&context.id).await.as_deref() {
            Some("running" | "paused" | "stopped") => return true,
            // The word to begin may be on its way to the init.
            _ if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            _ => return false,
        }
    }
}

/// The runtime's `exec`.
pub(super) async fn start_exec(context: &Context, exec: NewExec) -> Result<Started, TaskError> {
    let in_bundle = |name: String| context.bundle.join(name);
    let spec = in_bundle(format!("process-{}.json", exec.id));
    let pid_file = in_bundle(format!("{}.pid", exec.id));
    let log = in_bundle(format!("log-{}.json", exec.id));
    file::remove(&pid_file);
    file::replace(&spec, &exec.spec)?;
    let args: Vec<OsString> = vec![
        "--detach".into(),
        "--pid-file".into(),
        pid_file.clone().into(),
        "--process".into(),
        spec.clone().into(),
    ];
    let request = Launch {
        call: Call {
            traceparent: exec.trace,
            log: Some(log.clone()),
            ..Call::new("exec", args)
        },
        name: &exec.id,
        stdio: &exec.stdio,
        hub: exec.hub,
        pid_file: &pid_file,
    };
    let result = launch(context, request).await;
    if let Err(TaskError::Runtime { source, .. }) = &result
        && source.is_unknown()
    {
        end_half_started(context, &pid_file);
    }
    for leftover in [spec, log, pid_file] {
        file::remove(&leftover);
    }
    let (live, exit, io) = result?;
    Ok(Started::Exec { live, exit, io })
}

/// An exec whose runtime call did not say what it did is refused, so its process must not stay.
fn end_half_started(context: &Context, pid_file: &Path) {
    if let Ok(pid) = read_pid(pid_file)
        && context.reaper.adopt(pid).is_some()
        && let Err(error) = sys::signal(pid, 9)
    {
        diag::debug(format_args!("end half-started exec {pid}: {error}"));
    }
}

/// The runtime's `kill`.
pub(super) async fn kill(context: &Context, signal: u32, all: bool) -> Result<(), TaskError> {
    let mut args: Vec<OsString> = Vec::new();
    if all {
        args.push("--all".into());
    }
    args.push(context.id.clone().into());
    args.push(signal.to_string().into());
    context
        .runtime
        .run(Call::new("kill", args), SHORT)
        .await
        .map_err(TaskError::of_kill)
}

/// Init ended but shares its pid namespace: whatever else is in the container must not stay.
pub(super) async fn kill_rest(context: &Context) {
    match kill(context, 9, true).await {
        Ok(()) | Err(TaskError::Finished | TaskError::NotCreated) => {}
        Err(error) => diag::warn(format_args!(
            "kill the rest of container {}: {error}",
            context.id
        )),
    }
}

/// The runtime's `update`, with the resources (JSON) in a file.
pub(super) async fn update(context: &Context, resources: &[u8]) -> Result<(), TaskError> {
    let path = context.bundle.join("resources.json");
    file::replace(&path, resources)?;
    let args: Vec<OsString> = vec![
        "--resources".into(),
        path.clone().into(),
        context.id.clone().into(),
    ];
    let result = context.runtime.run(Call::new("update", args), SHORT).await;
    file::remove(&path);
    result.map_err(|source| TaskError::Runtime {
        verb: "update",
        source,
    })
}

/// After init's exit: output to its end, the runtime's `delete`, the mounts.
pub(super) async fn delete_init(context: &Context, io: Option<ProcessIo>) -> Result<(), TaskError> {
    if let Some(io) = io {
        io.drain(DRAIN).await;
    }
    match context
        .runtime
        .run(Call::new("delete", [context.id.as_str()]), SHORT)
        .await
    {
        Ok(()) => {}
        Err(error) if error.to_string().contains("does not exist") => {}
        Err(source) => {
            return Err(TaskError::Runtime {
                verb: "delete",
                source,
            });
        }
    }
    rootfs::unmount_all(&context.bundle.join(layout::ROOTFS))?;
    Ok(())
}

/// After an exec's exit: output to its end, its record.
pub(super) async fn delete_exec(context: &Context, id: &str, io: Option<ProcessIo>) {
    if let Some(io) = io {
        io.drain(DRAIN).await;
    }
    file::remove(&exit::path(&context.bundle, Some(id)));
}
