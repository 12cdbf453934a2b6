//! Another program file in this one's place: same process, same sockets and locks, nobody refused.
//!
//! ```text
//!  Control.Upgrade(path), SIGUSR2 ─▶ candidate: opened once, its owner looked at, run as a child that reads the state
//!        │ refused: FAILED_PRECONDITION, nothing has changed
//!        ▼
//!  a moment without calls under way (or QUIET has passed) ─▶ waits and event streams end UNAVAILABLE, calls end, GOAWAY
//!        ▼
//!  execve of the checked descriptor ─▶ handover: listeners and locks by number ─▶ the normal start, which adopts every task
//!        │ it cannot get ready in time
//!        ▼
//!  execve of the old program by the descriptor that it left: it serves again
//! ```
//!
//! Connections that wait in the backlog meanwhile are taken by whoever serves next. A shim that finds its event
//! unanswered sends it again; connections to shims are dialled anew by the start.

mod candidate;
pub(crate) mod handover;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proto::error::ErrorKind;
use rustix::process::{Pid, WaitOptions, waitpid};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(crate) use candidate::Candidate;

use crate::metrics::Calls;
use crate::{ServeError, config::Config};

/// How long a moment without calls under way is waited for.
const QUIET: Duration = Duration::from_secs(10);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(2);
/// How long calls under way may then take to end.
const DRAIN: Duration = Duration::from_secs(3);
/// How often children that were left are looked at.
const REAP: Duration = Duration::from_millis(200);
/// Calls that end when their client has heard enough; they are told to come back.
const OPEN_ENDED: [&str; 5] = [
    "containerd.services.tasks.v1.Tasks/Wait",
    "containerd.services.events.v1.Events/Subscribe",
    "containerd.services.streaming.v1.Streaming/Stream",
    "grpc.health.v1.Health/Watch",
    "lite.control.v1.Control/Upgrade",
];

/// Why a program does not take over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpgradeError {
    /// The path is of no use.
    #[error("upgrade to {}: the path must be absolute", .0.display())]
    Relative(PathBuf),
    /// The file cannot be had.
    #[error("{attempt} {}", path.display())]
    Open {
        /// What was attempted.
        attempt: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Others than us may have written the file.
    #[error("refuse to run {}: {problem}", path.display())]
    Untrusted {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// It does not prove itself.
    #[error("{} does not take over: {problem}", path.display())]
    Unfit {
        /// Which program.
        path: PathBuf,
        /// What it did.
        problem: String,
    },
    /// One at a time.
    #[error("another upgrade is under way")]
    Busy,
}

impl crate::error::Kind for UpgradeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Relative(_) => ErrorKind::InvalidArgument,
            Self::Untrusted { .. } | Self::Unfit { .. } | Self::Open { .. } => {
                ErrorKind::FailedPrecondition
            }
            Self::Busy => ErrorKind::Aborted,
        }
    }
}

/// Where upgrades are asked for. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Upgrades {
    own: PathBuf,
    chosen: mpsc::Sender<Candidate>,
    /// Told when this program is about to be replaced, or ends.
    pub(crate) leaving: CancellationToken,
    alone: Arc<tokio::sync::Mutex<()>>,
}

impl Upgrades {
    /// The asking side, and where a checked program comes out.
    pub(crate) fn new(
        own: PathBuf,
        leaving: CancellationToken,
    ) -> (Self, mpsc::Receiver<Candidate>) {
        let (chosen, comes) = mpsc::channel(1);
        let upgrades = Self {
            own,
            chosen,
            leaving,
            alone: Arc::default(),
        };
        (upgrades, comes)
    }

    /// Checks the program at `path` and has it take over soon after the answer, which is its version.
    pub(crate) async fn upgrade(&self, path: &Path) -> Result<String, UpgradeError> {
        let _alone = self.alone.try_lock().map_err(|_| UpgradeError::Busy)?;
        let candidate = Candidate::check(path).await?;
        let version = candidate.version.clone();
        tracing::info!(path = %path.display(), version, "another program takes over");
        // Full: one has been chosen a moment ago.
        self.chosen
            .try_send(candidate)
            .map_err(|_| UpgradeError::Busy)?;
        Ok(version)
    }

    /// Upgrades to whatever lies at our own path on SIGUSR2.
    pub(crate) fn on_signal(&self) -> Result<(), ServeError> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut asked = signal(SignalKind::user_defined2()).map_err(ServeError::Signals)?;
        let upgrades = self.clone();
        tokio::spawn(async move {
            while asked.recv().await.is_some() {
                if let Err(error) = upgrades.upgrade(&upgrades.own).await {
                    tracing::error!(error = crate::error::chain(&error), "upgrade on SIGUSR2");
                }
            }
        });
        Ok(())
    }
}

/// Waits for a moment in which no call is under way that would have to be broken off, for a while.
pub(crate) async fn quiet(calls: &Calls) {
    let busy = || {
        let open = calls.under_way();
        open.keys().any(|call| !OPEN_ENDED.contains(&call.as_str()))
    };
    let look = async {
        while busy() {
            tokio::time::sleep(LOOK).await;
        }
    };
    // Over: then calls are given their time while new ones wait in the backlog.
    let _ = tokio::time::timeout(QUIET, look).await;
}

/// How long the rest of the calls may take.
pub(crate) async fn drained() {
    tokio::time::sleep(DRAIN).await;
}

/// The children that the program before this one in our process has left. Before there are others.
pub(crate) fn left_children() -> Vec<Pid> {
    let path = format!("/proc/self/task/{}/children", std::process::id());
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let pids = text.split_ascii_whitespace();
    pids.filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
        .collect()
}

/// Waits for them, as whoever has started them is gone.
pub(crate) async fn reap(mut children: Vec<Pid>) {
    let ended = |pid: &Pid| !matches!(waitpid(Some(*pid), WaitOptions::NOHANG), Ok(None));
    loop {
        children.retain(|pid| !ended(pid));
        if children.is_empty() {
            return;
        }
        tokio::time::sleep(REAP).await;
    }
}

/// What a candidate does when it is asked whether it could take over: reads what it would read at its start, changing nothing.
pub(crate) fn prove(config: &Config, handover: u32) -> Result<String, ServeError> {
    if handover != handover::VERSION {
        return Err(ServeError::Handover(handover::HandoverError::Version(
            handover,
        )));
    }
    crate::metadata::Store::check(&config.root.join(crate::DATABASE))?;
    Ok(candidate::ready_line())
}
