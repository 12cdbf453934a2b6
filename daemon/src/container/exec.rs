//! Execs: further processes in a running container.
//!
//! ```text
//!  Created ──start──▶ Running{pid} ──exit──▶ Ended{code}
//!      └───start failed (126, 127)──────────▶ Ended{code}
//! ```
//!
//! An exec is not the owner's business: it neither changes the record nor waits for the container's own commands. Its state
//! is a watch; the exit comes from containerd's events, which may overtake the answer to Start. A small file below exec-root
//! keeps what a fresh daemon needs to go on answering for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use proto::containerd::services::tasks::v1 as tasks;
use proto::engine::{ExecConfig, ExecInspect, ExecProcess};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Handle;
use super::attach::{Connection, Files};
use super::record::Record;
use super::state::State;
use crate::App;
use crate::backend::{QUICK, SLOW, within};
use crate::error::{During, Error, Result};

/// How many ended execs of one container are remembered for good, and how many at most while their ends are fresh.
const REMEMBERED: usize = 64;
const AT_MOST: usize = 1024;

/// How long an end is fresh: its client may still ask for the exit code.
const FRESH: Duration = Duration::from_secs(60);

/// What an exec is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub(crate) enum Stage {
    Created,
    /// Start has been asked for.
    Starting,
    Running {
        pid: u32,
    },
    Ended {
        code: i64,
        pid: u32,
    },
}

/// One exec.
#[derive(Debug)]
pub(crate) struct Exec {
    pub(crate) id: String,
    pub(crate) config: ExecConfig,
    pub(super) stage: watch::Sender<Stage>,
    pub(super) ended_at: OnceLock<Instant>,
    /// Held while its file is written, since start and exit may both be at it; true once the file shall not come back.
    pub(super) dropped: Mutex<bool>,
    /// A health check: nobody but its monitor asks for it.
    pub(super) probe: bool,
    /// It was made by a former daemon: nobody here is starting it.
    pub(super) inherited: bool,
}

impl Exec {
    pub(crate) fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Follows it.
    pub(crate) fn watch(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    /// Takes over how it ended; whatever is told twice counts once.
    fn ended(&self, code: i64, pid: u32) -> bool {
        self.stage.send_if_modified(|stage| {
            let news = !matches!(stage, Stage::Ended { .. });
            if news {
                // Set once: the first end is the end.
                let _ = self.ended_at.set(Instant::now());
                *stage = Stage::Ended { code, pid };
            }
            news
        })
    }

    /// The exec as inspect shows it.
    pub(crate) fn inspect(&self, container: &str) -> ExecInspect {
        let (running, code, pid) = match self.stage() {
            Stage::Created | Stage::Starting => (false, None, 0),
            Stage::Running { pid } => (true, None, pid),
            Stage::Ended { code, pid } => (false, Some(code), pid),
        };
        let words = self.config.cmd.clone().unwrap_or_default();
        ExecInspect {
            id: self.id.clone(),
            running,
            exit_code: code,
            process_config: ExecProcess {
                tty: self.config.tty,
                entrypoint: words.first().cloned().unwrap_or_default(),
                arguments: words.into_iter().skip(1).collect(),
                privileged: Some(self.config.privileged),
                user: self.config.user.clone(),
            },
            open_stdin: self.config.attach_stdin,
            open_stderr: self.config.attach_stderr,
            open_stdout: self.config.attach_stdout,
            can_remove: matches!(self.stage(), Stage::Ended { .. }),
            container_id: container.to_owned(),
            detach_keys: self.config.detach_keys.clone(),
            pid: pid.into(),
        }
    }
}

/// Makes an exec in a running container; nothing runs yet.
pub(crate) fn create(app: &App, handle: &Handle, config: ExecConfig) -> Result<Arc<Exec>> {
    make(app, handle, config, false)
}

/// Makes the exec of a health check. It is forgotten when it ends.
pub(super) fn create_probe(app: &App, handle: &Handle, config: ExecConfig) -> Result<Arc<Exec>> {
    make(app, handle, config, true)
}

/// Forgets the exec of a health check.
pub(super) fn drop_probe(app: &App, handle: &Handle, exec: &Exec) {
    handle.execs().remove(&exec.id);
    exec.drop_file(app);
}

fn make(app: &App, handle: &Handle, config: ExecConfig, probe: bool) -> Result<Arc<Exec>> {
    if config.cmd.as_ref().is_none_or(Vec::is_empty) {
        return Err(Error::invalid("No exec command specified"));
    }
    let record = handle.record();
    check_running(&record)?;
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(Error::invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        )));
    }
    let exec = Arc::new(Exec {
        id: crate::random::id(),
        config,
        stage: watch::channel(Stage::Created).0,
        ended_at: OnceLock::new(),
        dropped: Mutex::default(),
        probe,
        inherited: false,
    });
    let mut execs = handle.execs();
    forget_old(app, &mut execs);
    execs.insert(exec.id.clone(), exec.clone());
    drop(execs);
    emit(app, &record, "exec_create", &exec, None);
    Ok(exec)
}

/// Forgets the execs that ended longest ago, if there are many.
fn forget_old(app: &App, execs: &mut BTreeMap<String, Arc<Exec>>) {
    let mut ended: Vec<(Option<Instant>, String)> = execs
        .values()
        .filter(|exec| matches!(exec.stage(), Stage::Ended { .. }))
        .map(|exec| (exec.ended_at.get().copied(), exec.id.clone()))
        .collect();
    let count = ended.len();
    if count <= REMEMBERED {
        return;
    }
    // Those that a former daemon saw ending have no moment, and come first.
    ended.sort();
    for (at, (moment, id)) in ended.into_iter().take(count - REMEMBERED).enumerate() {
        let fresh = moment.is_some_and(|moment| moment.elapsed() < FRESH);
        if fresh && count - at <= AT_MOST {
            break;
        }
        if let Some(exec) = execs.remove(&id) {
            exec.drop_file(app);
        }
    }
}

fn check_running(record: &Record) -> Result<()> {
    match &record.state {
        State::Running(running) if running.paused => Err(Error::conflict(format!(
            "Container {} is paused, unpause the container before exec",
            record.id
        ))),
        State::Running(_) => Ok(()),
        State::Restarting(_) => Err(Error::conflict(format!(
            "Container {} is restarting, wait until the container is running",
            record.id
        ))),
        _ => Err(Error::conflict(format!(
            "container {} is not running",
            record.id
        ))),
    }
}

fn emit(app: &App, record: &Record, action: &str, exec: &Exec, code: Option<i64>) {
    let words = exec.config.cmd.as_deref().unwrap_or_default().join(" ");
    let action = match action {
        "exec_die" => action.to_owned(),
        _ => format!("{action}: {words}"),
    };
    let mut attributes = record.attributes();
    attributes.insert("execID".into(), exec.id.clone());
    if let Some(code) = code {
        attributes.insert("exitCode".into(), code.to_string());
    }
    app.events
        .emit("container", &action, &record.id, attributes);
}

/// Starts an exec and gives the connection to it, unless nobody wants one.
pub(crate) async fn start(
    app: &App,
    handle: &Handle,
    exec: &Arc<Exec>,
    attach: bool,
    console: Option<[u32; 2]>,
) -> Result<Option<Connection>> {
    let record = handle.record();
    check_running(&record)?;
    let claimed = exec.stage.send_if_modified(|stage| {
        let free = *stage == Stage::Created;
        if free {
            *stage = Stage::Starting;
        }
        free
    });
    if !claimed {
        return Err(Error::conflict(format!("exec {} has already run", exec.id)));
    }
    let files = Files::of(&app.config, &exec.id);
    match attempt(app, &record, exec, &files, attach, console).await {
        Ok(connection) => {
            emit(app, &record, "exec_start", exec, None);
            Ok(connection)
        }
        Err(e) => {
            let error = classify(e);
            let code = error.0;
            exec.ended(code, 0);
            super::foreign::end(&files).await;
            files.remove();
            forget(app, handle.id(), &exec.id).await;
            Err(error.1)
        }
    }
}

/// Docker's exit code and status for an exec that could not be started.
fn classify(error: Error) -> (i64, Error) {
    let text = error.message().to_owned();
    let has = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    let missing = has(&["executable file not found", "no such file or directory"]);
    let refused = has(&["permission denied", "is a directory"]);
    let kind = proto::error::ErrorKind::InvalidArgument;
    match () {
        () if missing => (127, error.with_kind(kind)),
        () if refused => (126, error.with_kind(kind)),
        () => (128, error),
    }
}

async fn attempt(
    app: &App,
    record: &Record,
    exec: &Exec,
    files: &Files,
    attach: bool,
    console: Option<[u32; 2]>,
) -> Result<Option<Connection>> {
    let input = attach && exec.config.attach_stdin;
    let output = attach && (exec.config.attach_stdout || exec.config.attach_stderr || input);
    let talks = output || exec.config.tty;
    if talks {
        files.prepare(input)?;
    }
    let process = super::exec_spec::describe(app, record, &exec.config, console).await?;
    let mut request = tasks::ExecProcessRequest {
        container_id: record.id.clone(),
        exec_id: exec.id.clone(),
        stdin: match input {
            true => files.stdin.to_string_lossy().into_owned(),
            false => String::new(),
        },
        stdout: match talks {
            true => format!("attach://{}", files.socket.display()),
            false => String::new(),
        },
        stderr: String::new(),
        terminal: exec.config.tty,
        spec: Some(proto::any::json(proto::any::PROCESS, process)),
    };
    if talks && super::foreign::is_relayed(&Files::of(&app.config, &record.id)) {
        let streams = super::foreign::begin(files, &request.stdout, request.terminal).await?;
        request.stdout = streams.stdout;
        request.stderr = streams.stderr;
    }
    let mut client = app.backend.tasks();
    within(SLOW, client.exec(request))
        .await
        .during(|| "OCI runtime exec failed")?;
    let connection = match output {
        true => Some(files.connect(input).await?),
        false => None,
    };
    exec.keep(app, &record.id)?;
    let request = tasks::StartRequest {
        container_id: record.id.clone(),
        exec_id: exec.id.clone(),
    };
    let reply = within(SLOW, client.start(request)).await?;
    exec.stage.send_if_modified(|stage| {
        // Its end may have been told already.
        let first = *stage == Stage::Starting;
        if first {
            *stage = Stage::Running { pid: reply.pid };
        }
        first
    });
    // It runs: a file that could not be written makes a later daemon ask containerd, nothing more.
    if let Err(e) = exec.keep(app, &record.id) {
        tracing::warn!("exec {}: {e}", exec.id);
    }
    Ok(connection)
}

/// An exec has ended: its state and an event say so at once; containerd and the disk forget it afterwards.
pub(crate) fn exited(app: &Arc<App>, handle: &Handle, id: &str, pid: u32, code: u32) {
    let exec = handle.execs().get(id).cloned();
    if let Some(exec) = &exec
        && exec.ended(code.into(), pid)
    {
        emit(app, &handle.record(), "exec_die", exec, Some(code.into()));
        if exec.probe {
            drop_probe(app, handle, exec);
        } else if let Err(e) = exec.keep(app, handle.id()) {
            tracing::warn!("exec {id}: {e}");
        }
    }
    let (app, container, id) = (app.clone(), handle.id().to_owned(), id.to_owned());
    tokio::spawn(async move {
        forget(&app, &container, &id).await;
        let files = Files::of(&app.config, &id);
        super::foreign::end(&files).await;
        files.remove();
    });
}

/// Lets containerd forget an ended exec.
async fn forget(app: &App, container: &str, id: &str) {
    let request = tasks::DeleteProcessRequest {
        container_id: container.to_owned(),
        exec_id: id.to_owned(),
    };
    match within(QUICK, app.backend.tasks().delete_process(request)).await {
        Ok(_) => {}
        Err(e) if e.is_not_found() => {}
        Err(e) => tracing::debug!("delete exec {id} of container {container}: {e}"),
    }
}
