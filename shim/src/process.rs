//! One process of a container, init or exec: its states and what `/proc` says of it. Pure but for the reader of `/proc`.
//!
//! ```text
//!  init:  Creating ──▶ Created ──▶ Starting ──▶ Running ──▶ Stopped
//!                          └────────────┴──────────────────────▲
//!  exec:  Registered ──▶ Starting ──▶ Running ──▶ Stopped
//!              ▲─────────────┘ (the runtime refused)
//! ```
//!
//! An exit that is reaped while the process is Starting is held until the start has been told (event and reply), so that an
//! observer always sees start before exit.

use crate::reaper::Exit;
use proto::containerd::v1::types::Status as WireStatus;

/// A process that exists: its pid, and when it started so that the number cannot lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) pid: u32,
    /// Clock ticks since boot, field 22 of `/proc/PID/stat`; 0 if it was gone already.
    pub(crate) start_time: u64,
}

impl Live {
    /// A process that a runtime has just told us of.
    pub(crate) fn of(pid: u32) -> Self {
        Self {
            pid,
            start_time: stat(pid).map_or(0, |stat| stat.start_time),
        }
    }
}

/// Where a process is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProcessState {
    /// Init: the runtime's `create` is running.
    Creating,
    /// Exec: announced, not started.
    Registered,
    /// Init: built, waits for `start`.
    Created(Live),
    /// The runtime's `start` or `exec` is running; an exit reaped meanwhile is held.
    Starting {
        live: Option<Live>,
        held: Option<Exit>,
    },
    /// The program runs.
    Running(Live),
    /// It has ended and was reaped.
    Stopped { live: Live, exit: Exit },
}

impl ProcessState {
    /// The pid if there is or was one.
    pub(crate) fn pid(&self) -> u32 {
        match self {
            Self::Creating | Self::Registered | Self::Starting { live: None, .. } => 0,
            Self::Created(live)
            | Self::Running(live)
            | Self::Starting {
                live: Some(live), ..
            }
            | Self::Stopped { live, .. } => live.pid,
        }
    }

    /// The exit if it has ended.
    pub(crate) fn exit(&self) -> Option<(Live, Exit)> {
        match self {
            Self::Stopped { live, exit } => Some((*live, *exit)),
            _ => None,
        }
    }

    /// Whether an exit of it is still to come (or is held).
    pub(crate) fn is_alive(&self) -> bool {
        matches!(
            self,
            Self::Created(_) | Self::Starting { .. } | Self::Running(_)
        )
    }

    /// The status on the wire.
    pub(crate) fn wire(&self, pause: Pause) -> WireStatus {
        match (self, pause) {
            (Self::Creating, _) => WireStatus::Unknown,
            (Self::Registered | Self::Created(_) | Self::Starting { .. }, _) => WireStatus::Created,
            (Self::Running(_), Pause::No) => WireStatus::Running,
            (Self::Running(_), Pause::Pausing) => WireStatus::Pausing,
            (Self::Running(_), Pause::Paused) => WireStatus::Paused,
            (Self::Stopped { .. }, _) => WireStatus::Stopped,
        }
    }
}

/// Whether a container is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pause {
    /// It runs.
    No,
    /// The runtime is freezing it.
    Pausing,
    /// It is frozen.
    Paused,
}

/// What is needed of `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) parent: u32,
    pub(crate) start_time: u64,
    pub(crate) zombie: bool,
    /// Held by a signal or a tracer.
    pub(crate) stopped: bool,
}

/// Reads `/proc/PID/stat`; none if there is no such process.
pub(crate) fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name in the second field may hold anything, so fields are counted from its last parenthesis.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let word = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let start_time = fields.nth(17)?.parse().ok()?;
    Some(Stat {
        parent,
        start_time,
        zombie: matches!(word, "Z" | "X"),
        stopped: matches!(word, "T" | "t"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_its_own_stat() {
        let stat = stat(std::process::id()).unwrap();
        assert!(stat.start_time > 0 && !stat.zombie && stat.parent > 0);
        assert_eq!(super::stat(0x7fff_fff0), None);
    }

    #[test]
    fn the_status_on_the_wire_follows_state_and_pause() {
        let live = Live {
            pid: 5,
            start_time: 1,
        };
        let table = [
            (ProcessState::Creating, Pause::No, WireStatus::Unknown),
            (ProcessState::Registered, Pause::No, WireStatus::Created),
            (ProcessState::Created(live), Pause::No, WireStatus::Created),
            (ProcessState::Running(live), Pause::No, WireStatus::Running),
            (
                ProcessState::Running(live),
                Pause::Pausing,
                WireStatus::Pausing,
            ),
            (
                ProcessState::Running(live),
                Pause::Paused,
                WireStatus::Paused,
            ),
        ];
        for (state, pause, want) in table {
            assert_eq!(state.wire(pause), want, "{state:?}");
        }
    }

    proptest! {
        #[test]
        fn a_strange_name_does_not_move_the_fields(name in "[ -~]{0,15}") {
            let line = format!("7 ({name}) Z 42 1 1 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 99 1000 10");
            prop_assert_eq!(parse_stat(&line), Some(Stat { parent: 42, start_time: 99, zombie: true, stopped: false }));
        }

        #[test]
        fn any_text_is_survived(text in any::<String>()) {
            let _ = parse_stat(&text);
        }
    }
}
