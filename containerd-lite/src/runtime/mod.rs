//! Tasks: the running side of containers, one shim each.
//!
//! ```text
//!  services/tasks ──▶ Runtime ──▶ Task (one per container) ──▶ ShimClient ── ttrpc ──▶ shim ──▶ engine ──▶ process
//!                        │  ▲                                                            │
//!                        │  └──────────── exits and other events (shim_events) ◀─────────┘
//!                        ├── launch, spawn, answer    the shim's `start` and `delete` commands
//!                        ├── bundle                   the folder that lets us find it again
//!                        ├── create, calls, wait, delete   what clients ask for
//!                        ├── silent                   shims that do not answer
//!                        ├── watch                    a connection closed: redial, or bury the task of a dead shim
//!                        └── recover                  at start: every bundle is adopted or buried
//! ```
//!
//! **Who blocks whom.** No lock is held across a call to a shim but the task's own `lifecycle`. A shim that does not answer
//! costs its callers their deadline, and nobody else anything. **What is on disk first.** The bundle is made before the shim
//! is started, its address is recorded before Create is sent, and an exit record is in the database before a bundle goes.
//! So a kill between any two steps leaves a bundle that recovery adopts or cleans.

mod answer;
mod bundle;
mod calls;
mod create;
mod delete;
mod dump;
mod info;
mod launch;
mod oom;
mod record;
mod recover;
mod sandbox;
mod shim_client;
mod shim_events;
mod silent;
mod spawn;
mod task;
mod wait;
mod watch;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::error::ErrorKind;

pub(crate) use bundle::BundleError;
pub(crate) use calls::ProcessState;
pub(crate) use launch::Identity;
pub(crate) use shim_client::{ACTION, LIFECYCLE, QUERY};
pub(crate) use shim_events::serve as serve_shim_events;
pub(crate) use task::{ProcessExit, ProcessRef};

use crate::events::Exchange;
use crate::metadata::{MetadataError, Store};
use bundle::Places;
use launch::{LaunchError, Launcher};
use task::{Life, Task};

/// How long a call waits for the adoption of its own task.
const ADOPTION: Duration = Duration::from_secs(1);

/// Why an operation on a task failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuntimeError {
    /// There is no such task.
    #[error("task {0} not found")]
    NotFound(String),
    /// The task has no such process, or it has ended.
    #[error("process {0}")]
    NoProcess(String),
    /// There is one already.
    #[error("task {0} already exists")]
    Exists(String),
    /// The request is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The task's shim has died.
    #[error("{operation} task {id}: its shim has died")]
    ShimDied {
        /// What was attempted.
        operation: &'static str,
        /// Of which task.
        id: String,
    },
    /// The task was found in the state directory and its shim does not answer.
    #[error("task {0}: its shim has not answered since containerd-lite was started")]
    Unreached(String),
    /// The shim said no, or nothing in time. Its own words are what clients look for, so they go first or alone.
    #[error("{}", .0.message)]
    Shim(proto::ttrpc::Status),
    /// The shim refused to create.
    #[error("failed to create shim task: {}", .0.message)]
    Create(proto::ttrpc::Status),
    /// The shim that just started cannot be reached.
    #[error(transparent)]
    Connect(#[from] shim_client::ConnectError),
    /// The shim's commands failed.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// A shim does not tell of its runtime.
    #[error("ask {} for its runtime", program.display())]
    Info {
        /// The shim.
        program: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The bundle failed.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The database failed.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}

impl crate::error::Kind for RuntimeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) | Self::NoProcess(_) => ErrorKind::NotFound,
            Self::Exists(_) => ErrorKind::AlreadyExists,
            Self::Invalid(_) => ErrorKind::InvalidArgument,
            Self::ShimDied { .. } => ErrorKind::FailedPrecondition,
            Self::Unreached(_) | Self::Connect(_) => ErrorKind::Unavailable,
            Self::Shim(status) | Self::Create(status) => status.kind,
            Self::Launch(LaunchError::NotInstalled { .. }) => ErrorKind::NotFound,
            Self::Launch(LaunchError::Name(_)) => ErrorKind::InvalidArgument,
            Self::Info { .. } => ErrorKind::Unimplemented,
            Self::Launch(_) => ErrorKind::Unknown,
            Self::Bundle(BundleError::Exists(_)) => ErrorKind::AlreadyExists,
            Self::Bundle(BundleError::Io { source, .. }) => {
                match crate::error::io_kind(source) {
                    // A missing path of ours is no missing task.
                    ErrorKind::NotFound => ErrorKind::Internal,
                    kind => kind,
                }
            }
            Self::Metadata(error) => error.kind(),
        }
    }
}

/// Result of this module.
pub(crate) type Result<T> = std::result::Result<T, RuntimeError>;

/// Where a request comes from.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// The namespace that it is about.
    pub(crate) namespace: String,
    /// Its trace.
    pub(crate) traceparent: Option<String>,
}

/// A task that runs, for those who only look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Running {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its id.
    pub(crate) id: String,
    /// Pid of its init.
    pub(crate) pid: u32,
}

/// All tasks of this daemon.
#[derive(Debug)]
pub(crate) struct Runtime {
    places: Places,
    sandboxes: Places,
    launcher: Launcher,
    store: Store,
    events: Arc<Exchange>,
    tasks: Mutex<HashMap<(String, String), Arc<Task>>>,
}

impl Runtime {
    /// A runtime without tasks; [`Runtime::recover`] finds those of an earlier life.
    pub(crate) fn new(
        state: &Path,
        root: &Path,
        identity: Identity,
        store: Store,
        events: Arc<Exchange>,
    ) -> Arc<Self> {
        Arc::new(Self {
            places: Places::new(state, root),
            sandboxes: sandbox::places(state, root),
            launcher: Launcher::new(identity),
            store,
            events,
            tasks: Mutex::default(),
        })
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Arc<Task>>> {
        self.tasks.lock().expect("no panic under this lock")
    }

    /// The task as it stands, adopted or not.
    fn find(&self, namespace: &str, id: &str) -> Option<Arc<Task>> {
        let key = (namespace.to_owned(), id.to_owned());
        self.tasks().get(&key).cloned()
    }

    /// Enters a new task; false if there is one of that name.
    fn enter(&self, task: &Arc<Task>) -> bool {
        let key = (task.namespace.clone(), task.id.clone());
        match self.tasks().entry(key) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(task.clone());
                true
            }
        }
    }

    /// Takes a task off the table, unless the name has passed to another one.
    fn leave(&self, task: &Arc<Task>) {
        task.set_life(Life::Gone);
        let key = (task.namespace.clone(), task.id.clone());
        let mut tasks = self.tasks();
        if tasks.get(&key).is_some_and(|t| Arc::ptr_eq(t, task)) {
            tasks.remove(&key);
        }
    }

    /// All tasks of a namespace that a client may see.
    fn in_namespace(&self, namespace: &str) -> Vec<Arc<Task>> {
        let tasks = self.tasks();
        let mut found: Vec<Arc<Task>> = tasks
            .iter()
            .filter(|((ns, _), _)| ns == namespace)
            .map(|(_, task)| task.clone())
            .filter(|task| !matches!(task.life(), Life::Creating | Life::Gone))
            .collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found
    }

    /// All tasks of all namespaces whose init runs, as far as we know; in order.
    pub(crate) fn running(&self) -> Vec<Running> {
        let tasks: Vec<Arc<Task>> = self.tasks().values().cloned().collect();
        let mut running: Vec<Running> = tasks
            .into_iter()
            .filter(|task| matches!(task.life(), Life::Live(_) | Life::Adopting))
            .filter_map(|task| {
                let init = task.process(&ProcessRef::Init)?;
                Some(Running {
                    namespace: task.namespace.clone(),
                    id: task.id.clone(),
                    pid: init.pid.filter(|_| init.exit.is_none())?,
                })
            })
            .collect();
        running.sort_by(|a, b| (&a.namespace, &a.id).cmp(&(&b.namespace, &b.id)));
        running
    }

    /// Why a process ended, if it has and that is known.
    pub(crate) fn reason(&self, namespace: &str, id: &str, process: &ProcessRef) -> Option<String> {
        self.find(namespace, id)?.reason(process)
    }

    /// The task that a client asks for. One that is being adopted is waited for shortly.
    async fn task(&self, namespace: &str, id: &str) -> Result<Arc<Task>> {
        let not_found = || RuntimeError::NotFound(id.to_owned());
        let task = self.find(namespace, id).ok_or_else(not_found)?;
        let life = task
            .until(Some(ADOPTION), |task| match task.life() {
                Life::Adopting => None,
                life => Some(life),
            })
            .await;
        match life {
            None => Err(RuntimeError::Unreached(id.to_owned())),
            Some(Life::Creating | Life::Gone) => Err(not_found()),
            Some(_) => Ok(task),
        }
    }
}
