//! Finding the tasks of an earlier life of this program.
//!
//! ```text
//!  exit records in the database ─▶ Dead
//!  each bundle ─▶ Adopting ─┬─ shim answers ──────────────▶ Live; its exit, if it ended meanwhile, is published
//!                           ├─ shim does not answer ──────▶ Live and silent: asked again and again, holding up nobody
//!                           ├─ shim knows no such task ───▶ ended; Dead if the bundle holds an exit, else forgotten
//!                           └─ nobody listens ────────────▶ buried (watch)
//! ```
//!
//! The table is complete before serving starts, so nothing is NotFound that only has not been reached; reaching the shims
//! goes on beside serving, all at once, bounded where it starts programs.

use std::sync::Arc;
use std::time::Duration;

use proto::containerd::runc::v1::ProcessDetails;
use proto::containerd::task::v2 as shim;
use proto::error::ErrorKind;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::answer::Answer;
use super::calls::ProcessState;
use super::create::{copy_task_log, remove};
use super::record;
use super::shim_client::{ConnectError, Method, QUERY, ShimClient, is_broken};
use super::task::{Life, ProcessExit, ProcessRef, Shim, Task};
use super::watch::exec_exits;
use super::{Result, Runtime};
use crate::error::chain;

/// Shims that are asked at one time.
const DIALS: usize = 512;
/// Burials at one time; each runs a program.
const BURIALS: usize = 4;
/// A `start` command of an earlier life is waited for this long.
const STARTING: Duration = Duration::from_secs(15);
/// Pause between dials of a shim that does not accept.
const BUSY: Duration = Duration::from_millis(500);

/// How long a Create may go on after its asker has died, and how often the shim is asked meanwhile.
const UNFINISHED: Duration = Duration::from_secs(60);
const UNFINISHED_PAUSE: Duration = Duration::from_millis(20);

/// What bounds the recovery.
struct Bounds {
    dials: Semaphore,
    burials: Semaphore,
}

/// What came of reaching for a shim.
enum Reached {
    /// It knows the task.
    Task(Shim, ProcessState),
    /// It does not answer.
    Silent(Shim),
    /// It knows no such task.
    Empty(Shim),
    /// Nobody listens.
    Dead,
}

impl Runtime {
    /// Enters all that is left of an earlier life, then reaches for the shims beside the caller.
    pub(crate) async fn recover(self: &Arc<Self>) -> Result<()> {
        self.enter_dead()?;
        self.recover_sandboxes()?;
        let bundles = self.places.list()?;
        let bounds = Arc::new(Bounds {
            dials: Semaphore::new(DIALS),
            burials: Semaphore::new(BURIALS),
        });
        let mut adoptions = tokio::task::JoinSet::new();
        for (namespace, id) in bundles {
            let bundle = self.places.bundle(&namespace, &id);
            let task = Arc::new(Task::new(&namespace, &id, bundle, Life::Adopting));
            if self.enter(&task) {
                let (runtime, bounds) = (self.clone(), bounds.clone());
                adoptions.spawn(async move { runtime.adopt(&task, &bounds).await });
            } else {
                // Its exit is in the database, only the removal of its bundle is left to do.
                adoptions.spawn(async move {
                    if let Err(error) = remove(&task.bundle).await {
                        tracing::error!(
                            id = task.id,
                            error = chain(&error),
                            "remove the bundle of a dead shim"
                        );
                    }
                });
            }
        }
        let runtime = self.clone();
        tokio::spawn(async move {
            while adoptions.join_next().await.is_some() {}
            let swept = tokio::task::spawn_blocking(move || runtime.places.sweep_work()).await;
            if let Ok(Err(error)) = swept {
                tracing::warn!(error = chain(&error), "sweep the work folders");
            }
        });
        Ok(())
    }

    /// Tasks of which only the exits are left. The init's record is written last, so without one there is still a bundle,
    /// which tells all again.
    fn enter_dead(&self) -> Result<()> {
        let (inits, execs): (Vec<_>, Vec<_>) = self
            .store
            .exits()
            .all()?
            .into_iter()
            .partition(|(_, exit)| exit.exec.is_empty());
        for (namespace, exit) in &inits {
            let bundle = self.places.bundle(namespace, &exit.container);
            let task = Task::new(namespace, &exit.container, bundle, Life::Dead);
            self.enter(&Arc::new(task));
        }
        for (namespace, exit) in execs.into_iter().chain(inits) {
            let Some(task) = self.find(&namespace, &exit.container) else {
                continue;
            };
            let process = ProcessRef::from_wire(&exit.exec);
            let exit = ProcessExit {
                pid: exit.pid,
                status: exit.status,
                exited_at: exit.exited_at,
                reason: exit.reason,
            };
            task.note_process(&process, exit.pid);
            task.note_exit(&process, exit.clone());
            self.publish_exit(&task, &process, &exit);
        }
        Ok(())
    }

    async fn adopt(self: &Arc<Self>, task: &Arc<Task>, bounds: &Bounds) {
        let _alone = task.lifecycle.lock().await;
        wait_for_start(task).await;
        if let Some(program) = task.bundle.shim_binary() {
            task.set_program(program);
        }
        if let Err(error) = copy_task_log(task) {
            tracing::warn!(
                id = task.id,
                error = chain(&error),
                "read the log of a shim"
            );
        }
        match self.reach(task, bounds).await {
            Reached::Dead => {
                let _turn = bounds.burials.acquire().await;
                self.bury(task).await;
            }
            Reached::Task(shim, state) => self.take_over(task, shim, &state).await,
            Reached::Silent(shim) => {
                let client = shim.client.clone();
                task.set_life(Life::Live(shim));
                self.watch(task);
                self.probe(task, &client);
            }
            Reached::Empty(shim) => self.end_empty(task, &shim).await,
        }
    }

    /// Dials the shim and asks for the task.
    async fn reach(&self, task: &Task, bounds: &Bounds) -> Reached {
        let derived = || self.launcher.derived_address(&task.namespace, &task.id);
        let answer: Answer = task.bundle.answer().unwrap_or_else(derived);
        let request = shim::StateRequest {
            id: task.id.clone(),
            exec_id: String::new(),
        };
        let unfinished = Instant::now() + UNFINISHED;
        loop {
            let turn = bounds.dials.acquire().await;
            let client = match ShimClient::connect(&answer, &task.namespace).await {
                Ok(client) => client,
                Err(ConnectError::Dead(_)) => return Reached::Dead,
                Err(error) => {
                    tracing::warn!(
                        id = task.id,
                        error = chain(&error),
                        "a shim does not accept"
                    );
                    drop(turn);
                    tokio::time::sleep(BUSY).await;
                    continue;
                }
            };
            let told = client
                .call::<_, ProcessState>(Method::State, Some(QUERY), None, &request)
                .await;
            let shim = Shim {
                client,
                answer: answer.clone(),
                silent: false,
            };
            match told {
                // A Create goes on that an earlier life of this program asked for.
                Ok(state) if state.pid == 0 && Instant::now() < unfinished => {
                    tokio::time::sleep(UNFINISHED_PAUSE).await;
                }
                Ok(state) => return Reached::Task(shim, state),
                Err(status) if status.kind == ErrorKind::NotFound => return Reached::Empty(shim),
                // It was about to die; the next dial will tell.
                Err(status) if is_broken(&status) => tokio::time::sleep(BUSY / 50).await,
                Err(status) => {
                    tracing::warn!(id = task.id, error = %status, "a shim does not tell of its task");
                    let silent = true;
                    return Reached::Silent(Shim { silent, ..shim });
                }
            }
        }
    }

    /// The shim lives and knows the task.
    async fn take_over(self: &Arc<Self>, task: &Arc<Task>, shim: Shim, state: &ProcessState) {
        let client = shim.client.clone();
        if task.bundle.read(proto::layout::BOOTSTRAP, 1).is_none()
            && let Err(error) = task.bundle.record_answer(&shim.answer)
        {
            tracing::warn!(
                id = task.id,
                error = chain(&error),
                "record the address of a shim"
            );
        }
        if task.bundle.created().is_none()
            && let Err(error) = task.bundle.record_created(state.pid)
        {
            tracing::warn!(id = task.id, error = chain(&error), "record a task");
        }
        let ended = task.note_state(&ProcessRef::Init, state);
        let mut exits = Vec::new();
        for process in record::recorded_execs(&task.bundle) {
            if let Some(exit) = record::read(&task.bundle, &process) {
                task.note_process(&process, exit.pid);
                task.note_exit(&process, exit.clone());
                exits.push((process, exit));
            }
        }
        if ended && let Some(exit) = task.process(&ProcessRef::Init).and_then(|p| p.exit) {
            exits.push((ProcessRef::Init, exit));
        }
        task.set_life(Life::Live(shim));
        for (process, exit) in exits {
            self.publish_exit(task, &process, &exit);
        }
        self.watch(task);
        if !ended {
            self.learn_execs(task, &client).await;
        }
    }

    /// Asks for the execs that run, which the shim names among its pids.
    async fn learn_execs(self: &Arc<Self>, task: &Arc<Task>, client: &ShimClient) {
        let request = shim::PidsRequest {
            id: task.id.clone(),
        };
        let told = client.call(Method::Pids, Some(QUERY), None, &request).await;
        let processes = match told {
            Ok(shim::PidsResponse { processes }) => processes,
            Err(status) => {
                tracing::warn!(id = task.id, error = %status, "ask a shim for its execs");
                return;
            }
        };
        for process in processes {
            let details = process
                .info
                .as_ref()
                .and_then(proto::any::unpack::<ProcessDetails>);
            if let Some(Ok(details)) = details
                && proto::ids::validate(&details.exec_id).is_ok()
            {
                task.note_process(&ProcessRef::Exec(details.exec_id), process.pid);
            }
        }
    }

    /// The shim lives and knows no such task: its Create never finished, or its Delete did.
    async fn end_empty(self: &Arc<Self>, task: &Arc<Task>, shim: &Shim) {
        tracing::info!(
            namespace = task.namespace,
            id = task.id,
            "end a shim without a task"
        );
        let ended = record::read(&task.bundle, &ProcessRef::Init);
        self.end_shim(task, &shim.client, &shim.answer).await;
        match ended {
            Some(exit) => self.lay_down(task, exit, exec_exits(task), true).await,
            None => self.bury(task).await,
        }
    }
}

/// Waits until no `start` command of an earlier life can bring a shim up any more.
async fn wait_for_start(task: &Task) {
    let deadline = tokio::time::Instant::now() + STARTING;
    while task.bundle.is_starting() {
        if tokio::time::Instant::now() > deadline {
            tracing::warn!(id = task.id, "a shim has been starting for {STARTING:?}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
