//! The exit record: the truth about how a process ended, in the bundle before anybody is told.
//!
//! `BUNDLE/exit.json` for init, `BUNDLE/exit-EXECID.json` for an exec. The reason says what killed it as far as the shim
//! knows; it is for people, programs read the status.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use proto::exit as words;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::file::{self, FileError};
use crate::process::Live;
use crate::reaper::Exit;

/// Format of the record.
const VERSION: u32 = 1;

/// The record as it is on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExitRecord {
    pub(crate) version: u32,
    pub(crate) pid: u32,
    pub(crate) start_time: u64,
    pub(crate) status: u32,
    pub(crate) exited_at: String,
    pub(crate) reason: String,
}

/// What is known about the cause of an exit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cause {
    /// The last signal sent to it by an API call.
    pub(crate) requested: Option<u32>,
    /// The kernel killed for memory in its cgroup.
    pub(crate) out_of_memory: bool,
    /// Init ended and took the rest with it.
    pub(crate) init_ended: bool,
}

impl Cause {
    /// The reason in words.
    pub(crate) fn reason(self, exit: &Exit) -> String {
        const KILL: u32 = 9;
        match (exit.signal, self.requested) {
            (Some(KILL), _) if self.out_of_memory => words::OUT_OF_MEMORY.to_owned(),
            (Some(signal), Some(requested)) if signal == requested => {
                format!("{}: signal {signal}", words::BY_REQUEST)
            }
            (Some(KILL), _) if self.init_ended => "killed: init of the container ended".to_owned(),
            (Some(signal), _) => format!("{} {signal} of unknown origin", words::BY_SIGNAL),
            (None, Some(requested)) => {
                format!(
                    "{} {} after API request: signal {requested}",
                    words::BY_ITSELF,
                    exit.status
                )
            }
            (None, None) => format!("{} {}", words::BY_ITSELF, exit.status),
        }
    }
}

impl ExitRecord {
    /// The record of an exit.
    pub(crate) fn new(live: Live, exit: &Exit, reason: String) -> Self {
        Self {
            version: VERSION,
            pid: live.pid,
            start_time: live.start_time,
            status: exit.status,
            exited_at: clock::rfc3339_nano(exit.at),
            reason,
        }
    }

    /// Writes the record of init (`exec` none) or an exec.
    pub(crate) fn store(&self, bundle: &Path, exec: Option<&str>) -> Result<(), FileError> {
        let json = serde_json::to_vec(self).expect("a struct of numbers and texts is always JSON");
        file::replace(&path(bundle, exec), &json)
    }

    /// Reads the record of init; none if there is none or it cannot be understood.
    pub(crate) fn load(bundle: &Path) -> Option<Self> {
        let json = file::read_optional(&path(bundle, None)).ok()??;
        serde_json::from_slice(&json).ok()
    }

    /// When it ended.
    pub(crate) fn time(&self) -> Option<SystemTime> {
        clock::parse(&self.exited_at)
    }
}

/// Where the record of init or an exec lies.
pub(crate) fn path(bundle: &Path, exec: Option<&str>) -> PathBuf {
    match exec {
        None => bundle.join(proto::layout::EXIT),
        Some(id) => bundle.join(proto::layout::exec_exit(id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(status: u32, signal: Option<u32>) -> Exit {
        Exit {
            status,
            signal,
            at: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_record_comes_back() {
        let bundle = tempfile::tempdir().unwrap();
        let live = Live {
            pid: 12,
            start_time: 34,
        };
        let record = ExitRecord::new(live, &exit(7, None), "exited with code 7".into());
        record.store(bundle.path(), None).unwrap();
        assert_eq!(ExitRecord::load(bundle.path()), Some(record.clone()));
        assert_eq!(record.time(), Some(SystemTime::UNIX_EPOCH));
        record.store(bundle.path(), Some("e1")).unwrap();
        assert!(bundle.path().join("exit-e1.json").exists());
    }

    #[test]
    fn a_newer_record_is_understood() {
        let bundle = tempfile::tempdir().unwrap();
        let json = r#"{"version":2,"pid":1,"start_time":2,"status":3,"exited_at":"1970-01-01T00:00:00Z","reason":"x","new":{}}"#;
        std::fs::write(bundle.path().join("exit.json"), json).unwrap();
        assert_eq!(ExitRecord::load(bundle.path()).unwrap().status, 3);
        std::fs::write(bundle.path().join("exit.json"), "{").unwrap();
        assert_eq!(ExitRecord::load(bundle.path()), None);
    }

    #[test]
    fn the_reason_names_what_killed() {
        let oom = Cause {
            out_of_memory: true,
            ..Cause::default()
        };
        let api = Cause {
            requested: Some(9),
            ..Cause::default()
        };
        let term = Cause {
            requested: Some(15),
            ..Cause::default()
        };
        assert_eq!(oom.reason(&exit(137, Some(9))), "out of memory");
        assert_eq!(oom.reason(&exit(1, None)), "exited with code 1");
        assert_eq!(
            api.reason(&exit(137, Some(9))),
            "killed by API request: signal 9"
        );
        assert_eq!(
            term.reason(&exit(0, None)),
            "exited with code 0 after API request: signal 15"
        );
        assert_eq!(
            term.reason(&exit(139, Some(11))),
            "killed by signal 11 of unknown origin"
        );
    }
}
