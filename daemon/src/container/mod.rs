//! Containers: the records, who owns them, and how they are found.
//!
//! ```text
//!  API ──command──▶ actor (one task per container, owns the Record) ──▶ containerd
//!   ▲                 │ publishes a View after every change            │ exit, oom
//!   └──── reads ──────┴───────────────◀── recover ◀────────────────────┘
//! ```
//!
//! [`Containers`] is the index by id and name; a [`Handle`] reads the latest [`View`] without waiting for anybody and sends
//! commands to the owner. Verbs live in files of their own: `create`, `start`, `stop`, `remove`, `exec`. What a container's
//! life looks like is drawn in `state`.
//!
//! An error leaves nothing half-made: create undoes what it did, a failed start goes back to the state before, and what a
//! killed daemon left over is swept by `recover`.

mod actor;
mod attach;
mod changes;
pub(crate) mod create;
pub(crate) mod exec;
pub(crate) mod exec_kept;
mod exec_spec;
mod foreign;
pub(crate) mod health;
mod init;
pub(crate) mod inspect;
mod life;
pub(crate) mod list;
mod lost;
pub(crate) mod name;
mod networking;
mod plumbing;
mod reconcile;
pub(crate) mod record;
mod remove;
pub(crate) mod restart;
pub(crate) mod rootfs;
pub(crate) mod signal;
pub(crate) mod start;
pub(crate) mod state;
pub(crate) mod stats;
pub(crate) mod stop;
pub(crate) mod top;
pub(crate) mod why;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use actor::{Command, Exit};
pub(crate) use attach::Connection;
pub(crate) use record::Record;

use crate::App;
use crate::backend::TRACE;
use crate::db::Db;
use crate::error::{Error, Result};

/// How long a write waits for the truth about its container.
const CONFIRMATION: std::time::Duration = std::time::Duration::from_secs(10);

/// How many commands may wait for one container's owner.
const QUEUE: usize = 64;

/// What is known of a container at one moment.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) record: Arc<Record>,
    /// How many times its task has ended, or failed to start, since the daemon's start.
    pub(crate) exits: u64,
    /// Code of the last of them.
    pub(crate) code: i64,
    /// The record is no more.
    pub(crate) gone: bool,
    /// What the record says has been compared with containerd.
    pub(crate) confirmed: bool,
    /// The output of an ended task is complete.
    pub(crate) settled: bool,
}

/// One container, for everybody but its owner.
#[derive(Debug, Clone)]
pub(crate) struct Handle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    id: String,
    view: watch::Sender<View>,
    commands: mpsc::Sender<Order>,
    execs: Mutex<BTreeMap<String, Arc<exec::Exec>>>,
    health: health::Cell,
}

impl Handle {
    pub(crate) fn id(&self) -> &str {
        &self.0.id
    }

    /// What is known now.
    pub(crate) fn view(&self) -> View {
        self.0.view.borrow().clone()
    }

    /// The record as it is now.
    pub(crate) fn record(&self) -> Arc<Record> {
        self.0.view.borrow().record.clone()
    }

    /// Follows the changes.
    pub(crate) fn watch(&self) -> watch::Receiver<View> {
        self.0.view.subscribe()
    }

    /// Asks the owner and waits for its answer.
    pub(crate) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command,
    ) -> Result<T> {
        self.begin(command).await?.answer().await
    }

    /// Asks the owner; the question is in its queue when this returns, before whatever is asked later.
    pub(crate) async fn begin<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command,
    ) -> Result<Answer<T>> {
        let (reply, answer) = oneshot::channel();
        let order = Order::new(command(reply));
        match self.0.commands.send(order).await {
            Ok(()) => Ok(Answer {
                id: self.0.id.clone(),
                answer,
            }),
            Err(_) => Err(no_such(self.id())),
        }
    }

    /// Tells the owner something that it need not answer. A busy owner delays nobody.
    pub(crate) fn tell(&self, command: Command) {
        let sent = self.0.commands.try_send(Order::new(command));
        if let Err(mpsc::error::TrySendError::Full(order)) = sent {
            let commands = self.0.commands.clone();
            // An owner that has ended has removed its container.
            tokio::spawn(async move { drop(commands.send(order).await) });
        }
    }

    /// Waits until the record has been compared with containerd, so that a write acts on what is true.
    pub(crate) async fn confirmed(&self) -> Result<()> {
        let mut watch = self.watch();
        let known = watch.wait_for(|view| view.confirmed || view.gone);
        match tokio::time::timeout(CONFIRMATION, known).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::unavailable(format!(
                "container {}: containerd has not answered yet",
                self.id()
            ))),
        }
    }

    /// How it is, where it has a health check.
    pub(crate) fn health(&self) -> &health::Cell {
        &self.0.health
    }

    /// The execs of this container.
    pub(crate) fn execs(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<exec::Exec>>> {
        self.0.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A command and the trace of the request that gave it.
#[derive(Debug)]
struct Order {
    command: Command,
    trace: Option<String>,
}

impl Order {
    fn new(command: Command) -> Self {
        Self {
            command,
            trace: TRACE.try_with(Clone::clone).ok(),
        }
    }
}

/// An answer that is on its way.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    id: String,
    answer: oneshot::Receiver<Result<T>>,
}

impl<T> Answer<T> {
    /// Waits for it. An owner that ends without one has removed its container.
    pub(crate) async fn answer(self) -> Result<T> {
        self.answer.await.unwrap_or_else(|_| Err(no_such(&self.id)))
    }
}

/// The error for a container that is not there, in Docker's words.
pub(crate) fn no_such(reference: &str) -> Error {
    Error::not_found(format!("No such container: {reference}"))
}

#[derive(Debug, Default)]
struct Table {
    by_id: BTreeMap<String, Handle>,
    names: HashMap<String, String>,
}

/// All containers.
#[derive(Debug)]
pub(crate) struct Containers {
    table: RwLock<Table>,
    /// Records that were read at start and have no owner yet.
    loaded: Mutex<Vec<Record>>,
}

impl Containers {
    /// Reads the records. Owners are started by [`adopt`](Self::adopt), once the daemon's parts are there.
    pub(crate) async fn load(db: &Db) -> Result<Self> {
        let records: Vec<(String, Record)> = db.all(record::KIND).await?;
        Ok(Self {
            table: RwLock::default(),
            loaded: Mutex::new(records.into_iter().map(|(_, record)| record).collect()),
        })
    }

    /// Starts the owners of the records that were read.
    pub(crate) fn adopt(&self, app: &Arc<App>) {
        let loaded =
            std::mem::take(&mut *self.loaded.lock().unwrap_or_else(PoisonError::into_inner));
        for record in loaded {
            let (id, name) = (record.id.clone(), record.name.clone());
            let handle = actor::spawn(app.clone(), record, false);
            let mut table = self.write();
            table.names.insert(name, id.clone());
            table.by_id.insert(id, handle);
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.read().by_id.len()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Handle> {
        self.read().by_id.values().cloned().collect()
    }

    /// The ids of all, those being created included.
    pub(crate) fn ids(&self) -> BTreeSet<String> {
        let table = self.read();
        let known = table.by_id.keys().chain(table.names.values());
        known.cloned().collect()
    }

    /// Whether a container has this id, or is being created under it.
    pub(crate) fn knows(&self, id: &str) -> bool {
        let table = self.read();
        table.by_id.contains_key(id) || table.names.values().any(|owner| owner == id)
    }

    /// The one that a user means: by whole id, by name, or by the unique beginning of an id.
    pub(crate) fn find(&self, reference: &str) -> Result<Handle> {
        let bare = reference.strip_prefix('/').unwrap_or(reference);
        let table = self.read();
        if let Some(handle) = table.by_id.get(bare) {
            return Ok(handle.clone());
        }
        if let Some(handle) = table.names.get(bare).and_then(|id| table.by_id.get(id)) {
            return Ok(handle.clone());
        }
        if bare.is_empty() {
            return Err(no_such(reference));
        }
        let mut matching = table
            .by_id
            .range(bare.to_owned()..)
            .take_while(|(id, _)| id.starts_with(bare));
        match (matching.next(), matching.next()) {
            (Some((_, handle)), None) => Ok(handle.clone()),
            (Some(_), Some(_)) => Err(Error::invalid(format!(
                "Multiple IDs found with provided prefix: {bare}"
            ))),
            (None, _) => Err(no_such(reference)),
        }
    }

    /// Takes a name for a container to be; [`release`](Self::release) frees it.
    pub(crate) fn reserve(&self, name: &str, id: &str) -> Result<()> {
        let mut table = self.write();
        match table.names.get(name) {
            Some(other) if other == id => Ok(()),
            Some(other) => Err(Error::new(
                proto::error::ErrorKind::AlreadyExists,
                format!(
                    "Conflict. The container name \"/{name}\" is already in use by container \"{other}\". You have to remove (or rename) that container to be able to reuse that name."
                ),
            )),
            None => {
                table.names.insert(name.to_owned(), id.to_owned());
                Ok(())
            }
        }
    }

    /// Frees a name, if it is this container's.
    pub(crate) fn release(&self, name: &str, id: &str) {
        let mut table = self.write();
        if table.names.get(name).is_some_and(|owner| owner == id) {
            table.names.remove(name);
        }
    }

    fn insert(&self, handle: Handle) {
        self.write().by_id.insert(handle.id().to_owned(), handle);
    }

    fn forget(&self, id: &str, name: &str) {
        let mut table = self.write();
        table.by_id.remove(id);
        if table.names.get(name).is_some_and(|owner| owner == id) {
            table.names.remove(name);
        }
    }

    /// The containers, but for `except`, that use a volume.
    pub(crate) fn volume_users(&self, volume: &str, except: &str) -> Vec<String> {
        use crate::volumes::request::Source;
        let uses = |record: &Record| {
            record
                .mounts
                .iter()
                .any(|mount| matches!(&mount.source, Source::Volume { name, .. } if name == volume))
        };
        let all = self.all().into_iter();
        all.filter(|handle| handle.id() != except && uses(&handle.record()))
            .map(|handle| handle.id().to_owned())
            .collect()
    }

    /// The exec of that id, or of the unique beginning of one.
    pub(crate) fn exec(&self, id: &str) -> Result<(Handle, Arc<exec::Exec>)> {
        let missing = || Error::not_found(format!("No such exec instance: {id}"));
        let mut found = None;
        for handle in self.all() {
            let hit = handle
                .execs()
                .iter()
                .find(|(known, _)| !id.is_empty() && known.starts_with(id))
                .map(|(_, exec)| exec.clone());
            if let Some(exec) = hit {
                if exec.id == id {
                    return Ok((handle, exec));
                }
                if found.is_some() {
                    return Err(missing());
                }
                found = Some((handle, exec));
            }
        }
        found.ok_or_else(missing)
    }
}
