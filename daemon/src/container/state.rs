//! What a container is doing, as a value that holds only what is true.
//!
//! ```text
//!            start ok                    exit, no restart
//!  Created ───────────▶ Running ───────────────────────────▶ Exited
//!     │ start failed      ▲  │ exit, policy says again          │ start
//!     └─▶ Created with    │  ▼                                  │
//!         a failure       Restarting ── cancelled by stop ──▶ Exited
//!                                     any ── rm ──▶ Removing ──▶ no record
//! ```

use serde::{Deserialize, Serialize};

use crate::clock;

/// The state, as the record keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub(crate) enum State {
    /// Never ran.
    Created {
        /// Why the last try to start it failed.
        #[serde(default)]
        failure: Option<Failure>,
    },
    /// A task runs.
    Running(Running),
    /// The task ended; the policy starts another soon.
    Restarting(Exited),
    /// The task ended.
    Exited(Exited),
    /// On its way out; whatever it was before does not matter any more.
    Removing {
        /// The last exit code.
        #[serde(default)]
        code: i64,
    },
}

/// A failed start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// The exit code that stands for it: 127, 126 or 128.
    pub(crate) code: i64,
    /// The error.
    pub(crate) error: String,
}

/// A running task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Running {
    /// Pid of the init process on the host.
    pub(crate) pid: u32,
    /// When it was started.
    pub(crate) started_at: String,
    /// The freezer holds it.
    #[serde(default)]
    pub(crate) paused: bool,
    /// A process of it was killed for memory.
    #[serde(default)]
    pub(crate) oom: bool,
    /// The boot it was started in.
    #[serde(default)]
    pub(crate) boot_id: String,
}

/// An ended task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Exited {
    /// When it was started.
    pub(crate) started_at: String,
    /// When it ended.
    pub(crate) finished_at: String,
    /// Its exit code; 255 when nobody can know it.
    pub(crate) code: i64,
    /// A process of it was killed for memory.
    #[serde(default)]
    pub(crate) oom: bool,
    /// What went wrong, for people.
    #[serde(default)]
    pub(crate) error: String,
    /// Why it ended, for people; empty when nobody knows more than the code.
    #[serde(default)]
    pub(crate) reason: String,
}

impl State {
    /// Docker's word for it.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Created { .. } => "created",
            Self::Running(running) if running.paused => "paused",
            Self::Running(_) => "running",
            Self::Restarting(_) => "restarting",
            Self::Exited(_) => "exited",
            Self::Removing { .. } => "removing",
        }
    }

    /// The running task, if there is one.
    pub(crate) fn running(&self) -> Option<&Running> {
        match self {
            Self::Running(running) => Some(running),
            _ => None,
        }
    }

    /// The exit code as inspect shows it.
    pub(crate) fn code(&self) -> i64 {
        match self {
            Self::Created { failure } => failure.as_ref().map_or(0, |f| f.code),
            Self::Running(_) => 0,
            Self::Restarting(exited) | Self::Exited(exited) => exited.code,
            Self::Removing { code } => *code,
        }
    }

    /// The state as inspect shows it.
    pub(crate) fn inspect(&self) -> proto::engine::State {
        let mut shown = proto::engine::State {
            status: self.word().into(),
            exit_code: self.code(),
            started_at: clock::NEVER.into(),
            finished_at: clock::NEVER.into(),
            ..Default::default()
        };
        match self {
            Self::Created { failure } => {
                shown.error = failure.as_ref().map_or(String::new(), |f| f.error.clone());
            }
            Self::Running(running) => {
                shown.running = true;
                shown.paused = running.paused;
                shown.pid = running.pid.into();
                shown.oom_killed = running.oom;
                shown.started_at = running.started_at.clone();
            }
            Self::Restarting(exited) | Self::Exited(exited) => {
                shown.restarting = matches!(self, Self::Restarting(_));
                // Docker calls a container that waits for its restart running, too.
                shown.running = shown.restarting;
                shown.oom_killed = exited.oom;
                shown.error = exited.error.clone();
                shown.exit_reason = exited.reason.clone();
                shown.started_at = exited.started_at.clone();
                shown.finished_at = exited.finished_at.clone();
            }
            Self::Removing { .. } => shown.dead = false,
        }
        shown
    }

    /// The state in a list: `Up 3 minutes`, `Exited (0) 2 hours ago`.
    pub(crate) fn sentence(&self, now: i64) -> String {
        let since = |moment: &str| clock::human((now - clock::unix(moment)).max(0));
        match self {
            Self::Created { .. } => "Created".into(),
            Self::Running(running) => {
                let paused = if running.paused { " (Paused)" } else { "" };
                format!("Up {}{paused}", since(&running.started_at))
            }
            Self::Restarting(exited) | Self::Exited(exited) => {
                let word = match self {
                    Self::Restarting(_) => "Restarting",
                    _ => "Exited",
                };
                let ago = since(&exited.finished_at);
                let why = match super::why::short(&exited.reason) {
                    "" => String::new(),
                    why => format!(" ({why})"),
                };
                format!("{word} ({}) {ago} ago{why}", exited.code)
            }
            Self::Removing { .. } => "Removal In Progress".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_dockers() {
        let exited = Exited {
            started_at: "2020-01-01T00:00:00Z".into(),
            finished_at: "2020-01-01T00:01:00Z".into(),
            code: 7,
            oom: false,
            error: String::new(),
            reason: String::new(),
        };
        let now = clock::unix("2020-01-01T01:01:00Z");
        let state = State::Exited(exited.clone());
        assert_eq!(state.sentence(now), "Exited (7) About an hour ago");
        assert_eq!(state.inspect().status, "exited");
        let again = State::Restarting(exited).inspect();
        assert!(again.running && again.restarting);
    }

    #[test]
    fn a_record_comes_back() {
        let state = State::Running(Running {
            pid: 5,
            started_at: clock::NEVER.into(),
            paused: true,
            oom: false,
            boot_id: "b".into(),
        });
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
    }
}
