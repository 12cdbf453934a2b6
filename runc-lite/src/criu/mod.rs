//! Checkpoint and restore by criu, the program that knows how.
//!
//! criu is run as `criu swrk FD`: it serves one client, us, on a socket that it
//! inherits. One packet is one message ([`wire`]).
//!
//! ```text
//!  we                                   criu
//!  request (dump, restore) ---------->
//!                          <----------  notify SCRIPT, pid, perhaps a descriptor
//!  notify, success         ---------->  it goes on
//!                          <----------  the answer: success, or an error number
//! ```
//!
//! What criu did is in its log file in the work directory; the lines that name errors
//! are repeated in ours ([`log_errors`]).

mod options;
mod session;
pub(crate) mod wire;

use std::path::{Path, PathBuf};

pub(crate) use options::{DESCRIPTORS, Directories, Options, external_key, field};
pub(crate) use session::{Next, Notice, Session};

use crate::error::{StepError, errno_text};
use wire::{Fields, Message};

/// The oldest criu that speaks of its version.
const OLDEST: i64 = 30_000;

/// What can go wrong with criu.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CriuError {
    /// There is none.
    #[error("criu is not installed: {0}")]
    Missing(String),
    /// It is too old.
    #[error("CRIU version {found} must be {wanted} or higher")]
    Old { found: i64, wanted: i64 },
    /// It, or the kernel, cannot do what was asked for.
    #[error("criu is missing features: {0}")]
    Feature(&'static str),
    /// It said no.
    #[error("criu failed: type {what} errno {errno} ({}){text}\nlog file: {}", errno_text(*.errno), log.display())]
    Failed {
        what: &'static str,
        errno: i32,
        text: String,
        log: PathBuf,
    },
    /// It ended before its answer.
    #[error("criu ended without an answer, log file: {}", .0.display())]
    Gone(PathBuf),
    #[error(transparent)]
    Step(#[from] StepError),
}

/// What is asked of criu.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Dump,
    Restore,
    PreDump,
    Notify,
    Features,
    Version,
}

impl Kind {
    fn number(self) -> i64 {
        match self {
            Self::Dump => 1,
            Self::Restore => 2,
            Self::PreDump => 4,
            Self::Notify => 6,
            Self::Features => 9,
            Self::Version => 10,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Dump => "DUMP",
            Self::Restore => "RESTORE",
            Self::PreDump => "PRE_DUMP",
            Self::Notify => "NOTIFY",
            Self::Features => "FEATURE_CHECK",
            Self::Version => "VERSION",
        }
    }
}

/// The program.
#[derive(Debug)]
pub(crate) struct Criu {
    path: PathBuf,
    /// As 30171 for 3.17.1.
    version: i64,
}

impl Criu {
    /// Finds it: by path, or by name in $PATH and where administrators keep theirs.
    pub(crate) fn find(asked: Option<&str>) -> Result<Self, CriuError> {
        let name = asked.filter(|a| !a.is_empty()).unwrap_or("criu");
        let path = locate(name).ok_or_else(|| {
            CriuError::Missing(format!(
                "exec: {name:?}: executable file not found in $PATH (see --criu)"
            ))
        })?;
        let mut criu = Self { path, version: 0 };
        criu.version = criu.ask_version()?;
        criu.at_least(OLDEST)?;
        crate::log::debug(|| format!("criu {} at {}", criu.version, criu.path.display()));
        Ok(criu)
    }

    fn ask_version(&self) -> Result<i64, CriuError> {
        let session = Session::start(self)?;
        let answer = session.ask(Kind::Version, &Message::default(), Path::new(""))?;
        let version = Fields(Fields(&answer).bytes(10).unwrap_or_default());
        let part = |field| version.number(field).unwrap_or(0).clamp(0, 1000);
        Ok(part(1) * 10_000 + part(2) * 100 + part(4))
    }

    /// Refuses an older one.
    pub(crate) fn at_least(&self, wanted: i64) -> Result<(), CriuError> {
        match self.version >= wanted {
            true => Ok(()),
            false => Err(CriuError::Old {
                found: self.version,
                wanted,
            }),
        }
    }

    /// Refuses where criu or the kernel lacks something that can be asked for:
    /// memory tracking (1) or lazy pages (2).
    pub(crate) fn needs(&self, feature: u32, name: &'static str) -> Result<(), CriuError> {
        let mut asked = Message::default();
        asked.flag(feature, true);
        let session = Session::start(self)?;
        let mut request = Message::default();
        request.number(1, Kind::Features.number());
        request.message(5, &asked);
        session.send(&request)?;
        let answer = session.answer(Kind::Features, Path::new(""))?;
        let known = Fields(Fields(&answer).bytes(8).unwrap_or_default());
        match known.number(feature) {
            Some(1) => Ok(()),
            _ => Err(CriuError::Feature(name)),
        }
    }
}

fn locate(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|p| p.is_file());
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let usual = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
    path.split(':')
        .filter(|dir| dir.starts_with('/'))
        .chain(usual)
        .map(|dir| Path::new(dir).join(name))
        .find(|p| p.is_file())
}

/// Repeats the lines of criu's log that name errors as warnings of ours.
pub(crate) fn log_errors(log: &Path) {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let errors: Vec<&str> = text.lines().filter(|l| l.contains("Error")).collect();
    for line in &errors[errors.len().saturating_sub(8)..] {
        crate::log::warn(&format!("criu: {line}"));
    }
}
