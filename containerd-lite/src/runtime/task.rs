//! One task: what we know of it, and how to reach it.
//!
//! ```text
//!                create                       delete
//!  (nothing) ───────────▶ Creating ──▶ Live ─────────▶ Gone
//!  bundle at start ─────▶ Adopting ──▶  │                ▲
//!                             │         │ shim died      │
//!                             └─────────┴──────▶ Dead ───┘ delete
//! ```
//!
//! The shim is the authority on a live task and is asked; what is remembered here is only what must be told when it cannot
//! be: pids, execs and exits. A dead shim's task lives on as stopped, from its exit record, until the client deletes it.
//!
//! The state sits behind a lock that is held for a few assignments. `lifecycle` is held across create, adoption, burial and
//! delete, so these exclude each other for this task; calls to the shim need neither.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use proto::containerd::task::v2::StateResponse;
use proto::containerd::v1::types::Status as Phase;
use tokio::sync::Notify;

use super::answer::Answer;
use super::bundle::Bundle;
use super::record;
use super::shim_client::ShimClient;
use crate::events::ExitKey;
use crate::time::Nanos;

/// Which process of a task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ProcessRef {
    /// The init process.
    Init,
    /// An exec by its id.
    Exec(String),
}

impl ProcessRef {
    /// As requests name it: an empty text is the init process.
    pub(crate) fn from_wire(exec_id: &str) -> Self {
        if exec_id.is_empty() {
            Self::Init
        } else {
            Self::Exec(exec_id.to_owned())
        }
    }

    /// As requests name it.
    pub(crate) fn wire(&self) -> &str {
        match self {
            Self::Init => "",
            Self::Exec(id) => id,
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessExit {
    /// Its pid.
    pub(crate) pid: u32,
    /// Exit code, or 128 and the signal.
    pub(crate) status: u32,
    /// When it was reaped.
    pub(crate) exited_at: Nanos,
    /// What killed it, if that is known.
    pub(crate) reason: String,
}

/// What is known of one process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Process {
    /// Its pid, once it has been started.
    pub(crate) pid: Option<u32>,
    /// How it ended, once it has.
    pub(crate) exit: Option<ProcessExit>,
}

/// Where a task stands.
#[derive(Debug, Clone)]
pub(crate) enum Life {
    /// Create has not been answered.
    Creating,
    /// Found in the state directory; its shim has not been reached yet.
    Adopting,
    /// It has a shim.
    Live(Shim),
    /// Its shim died; the exits are known.
    Dead,
    /// It has been deleted.
    Gone,
}

/// The shim of a live task.
#[derive(Debug, Clone)]
pub(crate) struct Shim {
    /// The connection.
    pub(crate) client: ShimClient,
    /// Where it listens.
    pub(crate) answer: Answer,
    /// Whether it has left a question unanswered and has not answered one since.
    pub(crate) silent: bool,
}

#[derive(Debug)]
struct State {
    life: Life,
    processes: BTreeMap<ProcessRef, Process>,
}

/// One task.
#[derive(Debug)]
pub(crate) struct Task {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its id, which is the container's.
    pub(crate) id: String,
    /// Its folder.
    pub(crate) bundle: Bundle,
    /// Held across what changes its life.
    pub(crate) lifecycle: tokio::sync::Mutex<()>,
    program: Mutex<Option<PathBuf>>,
    state: Mutex<State>,
    changed: Notify,
}

impl Task {
    /// A task at the begin of its life here.
    pub(crate) fn new(namespace: &str, id: &str, bundle: Bundle, life: Life) -> Self {
        Self {
            namespace: namespace.to_owned(),
            id: id.to_owned(),
            bundle,
            lifecycle: tokio::sync::Mutex::default(),
            program: Mutex::default(),
            state: Mutex::new(State {
                life,
                processes: BTreeMap::from([(ProcessRef::Init, Process::default())]),
            }),
            changed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under this lock")
    }

    /// Where it stands.
    pub(crate) fn life(&self) -> Life {
        self.state().life.clone()
    }

    /// Moves it on and wakes who waits for that.
    pub(crate) fn set_life(&self, life: Life) {
        self.state().life = life;
        self.changed.notify_waiters();
    }

    /// The program of its shim, once that is known.
    pub(crate) fn program(&self) -> Option<PathBuf> {
        let program = self.program.lock().expect("no panic under this lock");
        program.clone()
    }

    /// Remembers the program of its shim.
    pub(crate) fn set_program(&self, program: PathBuf) {
        *self.program.lock().expect("no panic under this lock") = Some(program);
    }

    /// Marks whether the shim behind `client` answers. True if the mark has changed.
    pub(crate) fn set_silent(&self, client: &ShimClient, silent: bool) -> bool {
        match &mut self.state().life {
            Life::Live(shim) if shim.client.is_same(client) && shim.silent != silent => {
                shim.silent = silent;
                true
            }
            _ => false,
        }
    }

    /// What is known of a process; none if there is no such exec.
    pub(crate) fn process(&self, process: &ProcessRef) -> Option<Process> {
        self.state().processes.get(process).cloned()
    }

    /// All processes that are known.
    pub(crate) fn processes(&self) -> Vec<(ProcessRef, Process)> {
        let state = self.state();
        let all = state.processes.iter();
        all.map(|(r, p)| (r.clone(), p.clone())).collect()
    }

    /// Notes that a process exists, and its pid if it has one.
    pub(crate) fn note_process(&self, process: &ProcessRef, pid: u32) {
        let mut state = self.state();
        let entry = state.processes.entry(process.clone()).or_default();
        if pid != 0 {
            entry.pid = Some(pid);
        }
    }

    /// Notes how a process ended. False if it is not ours: another pid of an earlier task of this name, or an unknown exec
    /// of one.
    pub(crate) fn note_exit(&self, process: &ProcessRef, exit: ProcessExit) -> bool {
        let mut state = self.state();
        let ours = match (process, state.processes.get(process)) {
            // One that is restored has no pid before its start is answered, and may be gone by then.
            (ProcessRef::Init, Some(known)) => match known.pid {
                Some(pid) => pid == exit.pid,
                None => matches!(state.life, Life::Live(_)),
            },
            (ProcessRef::Exec(_), Some(known)) => known.pid.is_none_or(|pid| pid == exit.pid),
            (_, None) => false,
        };
        if ours {
            state.processes.entry(process.clone()).or_default().exit = Some(exit);
            drop(state);
            self.changed.notify_waiters();
        }
        ours
    }

    /// Notes what the shim told of a process. True if it says that the process has ended.
    pub(crate) fn note_state(&self, process: &ProcessRef, told: &StateResponse) -> bool {
        self.note_process(process, told.pid);
        let stopped = told.status() == Phase::Stopped;
        if stopped {
            let exited_at = told.exited_at.as_ref().map_or(0, crate::time::from_wire);
            let exit = ProcessExit {
                pid: told.pid,
                status: told.exit_status,
                exited_at,
                reason: self.reason(process).unwrap_or_else(|| {
                    record::reason(&self.bundle, process, (told.pid, told.exit_status))
                }),
            };
            self.note_exit(process, exit);
        }
        stopped
    }

    /// Why a process ended, if it has and that is known.
    pub(crate) fn reason(&self, process: &ProcessRef) -> Option<String> {
        let exit = self.process(process)?.exit?;
        Some(exit.reason).filter(|reason| !reason.is_empty())
    }

    /// Forgets a deleted exec.
    pub(crate) fn forget_process(&self, process: &ProcessRef) {
        self.state().processes.remove(process);
    }

    /// The key of a process's exit in the exchange and the database.
    pub(crate) fn exit_key(&self, process: &ProcessRef) -> ExitKey {
        ExitKey {
            namespace: self.namespace.clone(),
            container: self.id.clone(),
            exec: process.wire().to_owned(),
        }
    }

    /// Waits until `look` finds something, for at most `limit`.
    pub(crate) async fn until<T>(
        &self,
        limit: Option<Duration>,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> Option<T> {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                // Registers before looking, so a change in between is not missed.
                changed.as_mut().enable();
                if let Some(found) = look(self) {
                    return found;
                }
                changed.await;
            }
        };
        match limit {
            None => Some(wait.await),
            Some(limit) => tokio::time::timeout(limit, wait).await.ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::bundle::Places;

    fn task() -> Task {
        let places = Places::new("/state".as_ref(), "/root".as_ref());
        Task::new("ns", "a", places.bundle("ns", "a"), Life::Creating)
    }

    fn exit(pid: u32) -> ProcessExit {
        ProcessExit {
            pid,
            status: 7,
            exited_at: 1,
            reason: String::new(),
        }
    }

    #[test]
    fn an_exit_of_an_earlier_task_of_the_name_is_not_ours() {
        let task = task();
        let exec = ProcessRef::Exec("e".into());
        assert!(!task.note_exit(&ProcessRef::Init, exit(5)));
        assert!(!task.note_exit(&exec, exit(6)));
        task.note_process(&ProcessRef::Init, 7);
        assert!(!task.note_exit(&ProcessRef::Init, exit(5)));
        assert!(task.note_exit(&ProcessRef::Init, exit(7)));
        // An exec that dies before its start is answered has no pid here yet.
        task.note_process(&exec, 0);
        assert!(task.note_exit(&exec, exit(6)));
        task.forget_process(&exec);
        assert!(task.process(&exec).is_none());
    }

    #[tokio::test]
    async fn waiting_ends_with_the_change_or_the_limit() {
        let task = task();
        let ended = |task: &Task| task.process(&ProcessRef::Init).and_then(|p| p.exit);
        let limit = Some(Duration::from_millis(1));
        assert_eq!(task.until(limit, ended).await, None);
        task.note_process(&ProcessRef::Init, 7);
        let wait = task.until(None, ended);
        let note = async { task.note_exit(&ProcessRef::Init, exit(7)) };
        let (seen, _) = tokio::join!(wait, note);
        assert_eq!(seen, Some(exit(7)));
    }
}
