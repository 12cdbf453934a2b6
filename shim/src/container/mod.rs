//! One container: an owner task that holds its processes and answers for them.
//!
//! ```text
//!  service ── Request + reply ──▶ ┌───────┐
//!  reaper ─── Exited ───────────▶ │ owner │ ── spawns ──▶ work (runtime calls, mounts, draining)
//!  oom ────── Oom ──────────────▶ │       │ ◀── Done ─────┘
//!                                 └───────┘ ──▶ exit record, then event, then replies
//! ```
//!
//! The owner never waits: what takes time is work beside it that reports back through the same inbox, so that State, Wait
//! and Kill are answered while a runtime call hangs. All changes of state happen here, in the order of the inbox.
//!
//! Order that an observer sees: create, start, exit, delete; exits of execs before the exit of init.

mod checkpoint;
mod error;
mod exits;
mod outcomes;
mod requests;
mod work;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use proto::containerd::task::v2;
use proto::ttrpc::Status;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub(crate) use checkpoint::Checkpoint;
pub(crate) use error::TaskError;
pub(crate) use work::{NewTask, SHIM_RECORD, ShimRecord};

use crate::cgroup::Cgroup;
use crate::io::{Hub, ProcessIo, Stdio};
use crate::options::RuntimeOptions;
use crate::process::{Live, Pause, ProcessState};
use crate::publish::Publisher;
use crate::reaper::{Exit, Reaper};
use crate::runc::Runc;

/// Most messages that wait for an owner; senders beyond it wait.
const INBOX: usize = 256;

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Status>>;

/// Init or an exec of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProcessRef {
    Init,
    Exec(String),
}

impl ProcessRef {
    /// As requests name it: empty is init.
    pub(crate) fn from_wire(exec_id: String) -> Self {
        if exec_id.is_empty() {
            Self::Init
        } else {
            Self::Exec(exec_id)
        }
    }

    fn exec_id(&self) -> Option<&str> {
        match self {
            Self::Init => None,
            Self::Exec(id) => Some(id),
        }
    }
}

/// What a container may be asked.
#[derive(Debug)]
pub(crate) enum Request {
    State(ProcessRef, Reply<v2::StateResponse>),
    Start(ProcessRef, Option<String>, Reply<u32>),
    Wait(ProcessRef, Reply<v2::WaitResponse>),
    Kill {
        process: ProcessRef,
        signal: u32,
        all: bool,
        reply: Reply<()>,
    },
    Exec {
        id: String,
        spec: Vec<u8>,
        stdio: Stdio,
        reply: Reply<()>,
    },
    Resize {
        process: ProcessRef,
        width: u16,
        height: u16,
        reply: Reply<()>,
    },
    CloseIo(ProcessRef, Reply<()>),
    Pids(Reply<v2::PidsResponse>),
    Pause(Reply<()>),
    Resume(Reply<()>),
    Update(Vec<u8>, Reply<()>),
    Stats(Reply<prost_types::Any>),
    Checkpoint(Checkpoint, Reply<()>),
    Delete(ProcessRef, Reply<v2::DeleteResponse>),
    /// Pid of init, 0 before it exists.
    Pid(Reply<u32>),
}

/// What reaches an owner.
#[derive(Debug)]
enum Message {
    Request(Request),
    Exited(ProcessRef, Live, Exit),
    Oom,
    Created(Box<Result<work::Made, TaskError>>),
    Started(
        ProcessRef,
        Box<Result<work::Started, TaskError>>,
        Reply<u32>,
    ),
    Paused(Pause, Result<(), TaskError>, Reply<()>),
    /// The rest of the container was killed after init ended.
    RestKilled,
    /// Execs had their time to end after init.
    EndOverdue,
    Deleted(ProcessRef, Result<(), TaskError>),
}

/// What everything of a container shares.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) namespace: String,
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) options: RuntimeOptions,
    pub(crate) runtime: Runc,
    pub(crate) reaper: Reaper,
    pub(crate) publisher: Publisher,
    /// Its processes have a pid namespace of their own, so that they end with init.
    pub(crate) private_pids: bool,
}

/// The containers of this shim; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Containers(Arc<Mutex<HashMap<String, mpsc::Sender<Message>>>>);

impl Containers {
    fn map(&self) -> MutexGuard<'_, HashMap<String, mpsc::Sender<Message>>> {
        self.0.lock().expect("no holder of the containers panics")
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.map().len()
    }

    /// Makes a container; the answer is the pid of its init.
    pub(crate) async fn create(&self, context: Context, new: NewTask) -> Result<u32, Status> {
        let (sender, inbox) = mpsc::channel(INBOX);
        {
            let mut map = self.map();
            if map.contains_key(&context.id) {
                return Err(TaskError::ContainerExists(context.id).into());
            }
            map.insert(context.id.clone(), sender.clone());
        }
        let (reply, answer) = oneshot::channel();
        let owner = Owner::new(context, new, sender, self.clone(), reply);
        tokio::spawn(owner.run(inbox));
        answer.await.unwrap_or_else(|_| Err(TaskError::Gone.into()))
    }

    /// Asks container `id`.
    pub(crate) async fn ask<T>(
        &self,
        id: &str,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<T, Status> {
        let inbox = self.map().get(id).cloned();
        let inbox = inbox.ok_or_else(|| Status::from(TaskError::NotCreated))?;
        let (reply, answer) = oneshot::channel();
        let gone = || Status::from(TaskError::Gone);
        inbox
            .send(Message::Request(request(reply)))
            .await
            .map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// One process as its owner knows it.
#[derive(Debug)]
struct Process {
    state: ProcessState,
    stdio: Stdio,
    hub: Option<Arc<Hub>>,
    io: Option<ProcessIo>,
    waiters: Vec<Reply<v2::WaitResponse>>,
    /// The last signal an API call sent.
    requested: Option<u32>,
    stdin_closed: bool,
    /// Exec: its OCI process as JSON.
    spec: Vec<u8>,
    /// Delete is at work (or waits for the exit), and these want to know.
    deletes: Option<Vec<Reply<v2::DeleteResponse>>>,
}

impl Process {
    fn new(state: ProcessState, stdio: Stdio, spec: Vec<u8>) -> Self {
        Self {
            state,
            stdio,
            hub: None,
            io: None,
            waiters: Vec::new(),
            requested: None,
            stdin_closed: false,
            spec,
            deletes: None,
        }
    }

    /// Takes over what the process came with.
    fn set_io(&mut self, mut io: ProcessIo) {
        if self.stdin_closed {
            io.close_stdin();
        }
        self.io = Some(io);
    }
}

/// Init has ended and its exit waits for those of the execs.
#[derive(Debug)]
struct Ending {
    live: Live,
    exit: Exit,
    rest_killed: bool,
}

/// The owner task's own state.
#[derive(Debug)]
struct Owner {
    context: Arc<Context>,
    inbox: mpsc::Sender<Message>,
    containers: Containers,
    init: Process,
    execs: BTreeMap<String, Process>,
    cgroup: Cgroup,
    pause: Pause,
    ending: Option<Ending>,
    oom_watch: Option<JoinHandle<()>>,
    create_reply: Option<Reply<u32>>,
    rootfs: Vec<proto::containerd::types::Mount>,
    /// Where init is restored from by its start.
    checkpoint: Option<PathBuf>,
    /// Nothing is left of the container.
    over: bool,
}

impl Owner {
    fn new(
        context: Context,
        new: NewTask,
        inbox: mpsc::Sender<Message>,
        containers: Containers,
        reply: Reply<u32>,
    ) -> Self {
        let context = Arc::new(context);
        let owner = Self {
            context: context.clone(),
            inbox,
            containers,
            init: Process::new(ProcessState::Creating, new.stdio.clone(), Vec::new()),
            execs: BTreeMap::new(),
            cgroup: Cgroup::default(),
            pause: Pause::No,
            ending: None,
            oom_watch: None,
            create_reply: Some(reply),
            rootfs: new.rootfs.clone(),
            checkpoint: new.checkpoint.clone(),
            over: false,
        };
        owner.spawn(async move { Message::Created(Box::new(work::create(&context, new).await)) });
        owner
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        while !self.over
            && let Some(message) = inbox.recv().await
        {
            self.handle(message);
        }
        if let Some(watch) = self.oom_watch.take() {
            watch.abort();
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Request(request) => self.request(request),
            Message::Exited(process, live, exit) => self.exited(process, live, exit),
            Message::Oom => self.out_of_memory(),
            Message::Created(result) => self.created(*result),
            Message::Started(process, result, reply) => self.started(process, *result, reply),
            Message::Paused(pause, result, reply) => self.paused(pause, result, reply),
            Message::RestKilled => {
                if let Some(ending) = &mut self.ending {
                    ending.rest_killed = true;
                }
                self.end_if_last();
            }
            Message::EndOverdue => self.end_init(),
            Message::Deleted(process, result) => self.deleted(process, result),
        }
    }

    /// Runs work beside the owner; its message comes back through the inbox.
    fn spawn(&self, work: impl Future<Output = Message> + Send + 'static) {
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            let message = work.await;
            // An owner that is over has nothing left to be told about.
            let _ = inbox.send(message).await;
        });
    }

    fn process(&mut self, process: &ProcessRef) -> Result<&mut Process, TaskError> {
        match process {
            ProcessRef::Init => Ok(&mut self.init),
            ProcessRef::Exec(id) => self
                .execs
                .get_mut(id)
                .ok_or_else(|| TaskError::NoProcess(id.clone())),
        }
    }

    /// The container is gone: nothing finds it any more.
    fn finish(&mut self) {
        self.over = true;
        self.containers.map().remove(&self.context.id);
    }
}

/// Answers; a client that left does not want it.
fn answer<T>(reply: Reply<T>, result: Result<T, TaskError>) {
    let _ = reply.send(result.map_err(Status::from));
}
