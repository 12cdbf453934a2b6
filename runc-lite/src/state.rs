//! What is kept about a container between two calls of the runtime.
//!
//! ```text
//!  ROOT                 0700
//!  └─ ID/               0700; flock on the directory is the container's lock
//!     ├─ state.json     written before anything else is made, then replaced by rename
//!     ├─ config.json    the configuration as it was at create: later edits have no effect
//!     ├─ exec.fifo      the child waits here for `start`
//!     └─ result.fifo    and says here why it could not execute
//! ```
//!
//! The status is never stored: it is worked out from the process each time
//! ([`Status`]). Fields that a newer version wrote are kept when the file is
//! written again.
//!
//! The root lies on a file system that a reboot empties, so files are replaced
//! atomically but not synced.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::process::{LiveProcess, ProcStat};

/// Format of state.json.
const FORMAT: u32 = 1;

/// What went wrong with the state of a container.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// An id that is no file name.
    #[error("invalid container ID format: \"{0}\"")]
    BadId(String),
    /// An id of no characters.
    #[error("container id cannot be empty")]
    NoId,
    /// There is no such container.
    #[error("container does not exist")]
    NotFound,
    /// There is one already.
    #[error("container with given ID already exists")]
    Exists,
    /// A newer runtime wrote it.
    #[error("state of container {id} has format {found}, this runtime knows up to {FORMAT}")]
    Format { id: String, found: u32 },
    /// state.json cannot be understood.
    #[error("read state of container {id}")]
    Parse {
        id: String,
        source: serde_json::Error,
    },
    /// The directory may have been filled by somebody else.
    #[error("refuse state directory {}: {why}", path.display())]
    Untrusted { path: PathBuf, why: String },
    /// A file could not be read or written.
    #[error("{doing} {}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// `create` is at work.
    Creating,
    /// The process waits for `start`.
    Created,
    /// The program runs.
    Running,
    /// The process is frozen, before or after the program began.
    Paused,
    /// The process is gone.
    Stopped,
}

impl Status {
    /// The word of the runtime specification.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// state.json.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct State {
    /// Format of this file.
    pub(crate) version: u32,
    /// Version of the specification the configuration was written for.
    #[serde(rename = "ociVersion")]
    pub(crate) oci_version: String,
    /// Name of the container.
    pub(crate) id: String,
    /// First process; 0 until it exists.
    pub(crate) pid: i32,
    /// Its start time in ticks, which tells it from a later owner of the pid.
    #[serde(default)]
    pub(crate) init_process_start: u64,
    /// The bundle directory.
    pub(crate) bundle: PathBuf,
    /// The root file system on the host.
    pub(crate) rootfs: PathBuf,
    /// When, RFC 3339.
    pub(crate) created: String,
    /// Annotations of the configuration.
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
    /// CLONE_NEW* of the namespaces that are not the runtime's own.
    #[serde(default)]
    pub(crate) namespaces: u32,
    /// Where the cgroups are; absent while they are not made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cgroup: Option<crate::cgroup::CgroupState>,
    /// Its place in the kernel's resource control, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resctrl: Option<crate::resctrl::Group>,
    /// Whether systemd made the cgroups.
    #[serde(default)]
    pub(crate) systemd_cgroup: bool,
    /// Whether it comes from a checkpoint: its process never executed anything.
    #[serde(default)]
    pub(crate) restored: bool,
    /// Whether there are poststop hooks to run.
    #[serde(default)]
    pub(crate) has_poststop: bool,
    /// What a newer version wrote.
    #[serde(flatten)]
    pub(crate) unknown: serde_json::Map<String, serde_json::Value>,
}

impl State {
    /// A state of the current format.
    pub(crate) fn new(id: &str) -> Self {
        Self {
            version: FORMAT,
            id: id.to_owned(),
            ..Self::default()
        }
    }

    /// The first process, if it lives.
    pub(crate) fn process(&self) -> Option<LiveProcess> {
        LiveProcess::find(self.pid, self.init_process_start)
    }

    /// What hooks get on stdin and `state` prints, as far as the spec says.
    pub(crate) fn to_spec_json(&self, status: Status) -> serde_json::Value {
        let mut json = serde_json::json!({
            "ociVersion": crate::spec::VERSION,
            "id": self.id,
            "status": status.as_str(),
            "bundle": self.bundle,
        });
        // A stopped container has no process.
        if status != Status::Stopped {
            json["pid"] = self.pid.into();
        }
        if !self.annotations.is_empty() {
            json["annotations"] = serde_json::json!(self.annotations);
        }
        json
    }
}

/// The directory of one container.
#[derive(Debug, Clone)]
pub(crate) struct StateDir {
    path: PathBuf,
    id: String,
}

/// The container's lock, held until dropped.
#[derive(Debug)]
pub(crate) struct LockGuard(File);

impl LockGuard {
    /// The descriptor's number. A forked child must close its copy, or the lock
    /// would be held for as long as the child lives.
    pub(crate) fn number(&self) -> i32 {
        use std::os::fd::AsRawFd as _;
        self.0.as_raw_fd()
    }
}

impl StateDir {
    /// Names it without looking whether it exists.
    pub(crate) fn new(root: &Path, id: &str) -> Result<Self, StateError> {
        check_id(id)?;
        Ok(Self {
            path: root.join(id),
            id: id.to_owned(),
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes it and locks it; fails if it exists.
    pub(crate) fn make(&self) -> Result<LockGuard, StateError> {
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        let make = |builder: &DirBuilder| builder.create(&self.path);
        let made = match make(&builder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let root = self.path.parent().unwrap_or(Path::new("/"));
                let mut parents = DirBuilder::new();
                parents.mode(0o700).recursive(true);
                parents
                    .create(root)
                    .map_err(|e| self.io("make directory", root, e))?;
                make(&builder)
            }
            other => other,
        };
        match made {
            Ok(()) => self.lock(),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(StateError::Exists),
            Err(e) => Err(self.io("make directory", &self.path, e)),
        }
    }

    /// Takes the lock, waiting for it.
    pub(crate) fn lock(&self) -> Result<LockGuard, StateError> {
        let dir = self.open()?;
        rustix::fs::flock(&dir, FlockOperation::LockExclusive)
            .map_err(|e| self.io("lock", &self.path, e.into()))?;
        // Whoever held it may have removed the container.
        if !self.path.exists() {
            return Err(StateError::NotFound);
        }
        Ok(LockGuard(dir))
    }

    /// Whether somebody holds the lock.
    fn is_locked(&self) -> bool {
        let Ok(dir) = self.open() else { return false };
        rustix::fs::flock(&dir, FlockOperation::NonBlockingLockShared).is_err()
    }

    /// Opens it. What is in it decides whom we kill and what we remove, so it must
    /// be a directory of our own that nobody else can write to.
    fn open(&self) -> Result<File, StateError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&self.path, flags, Mode::empty()).map_err(|e| match e {
            rustix::io::Errno::NOENT => StateError::NotFound,
            _ => self.io("open", &self.path, e.into()),
        })?;
        let found =
            rustix::fs::fstat(&dir).map_err(|e| self.io("look at", &self.path, e.into()))?;
        let me = rustix::process::geteuid().as_raw();
        let why = match found.st_mode & 0o022 {
            0 if found.st_uid == me => return Ok(dir.into()),
            0 => format!("it belongs to user {}, not {me}", found.st_uid),
            _ => format!("others can write to it (mode {:o})", found.st_mode & 0o7777),
        };
        let path = self.path.clone();
        Err(StateError::Untrusted { path, why })
    }

    /// Reads a file of the directory, which is one of our own making.
    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>, StateError> {
        let dir = self.open()?;
        files::read_in(&dir, Path::new(name), OFlags::NOFOLLOW).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => StateError::NotFound,
            _ => self.io("read", &self.file(name), e),
        })
    }

    /// Reads the state.
    pub(crate) fn load(&self) -> Result<State, StateError> {
        let bytes = self.read("state.json")?;
        let state: State = serde_json::from_slice(&bytes).map_err(|source| StateError::Parse {
            id: self.id.clone(),
            source,
        })?;
        if state.version > FORMAT {
            return Err(StateError::Format {
                id: self.id.clone(),
                found: state.version,
            });
        }
        Ok(state)
    }

    /// Replaces the state.
    pub(crate) fn store(&self, state: &State) -> Result<(), StateError> {
        let bytes = serde_json::to_vec(state).map_err(|source| StateError::Parse {
            id: self.id.clone(),
            source,
        })?;
        self.write("state.json", &bytes)
    }

    /// Writes a file of the directory atomically.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let path = self.file(name);
        files::write_atomically(&path, bytes, 0o600).map_err(|e| self.io("write", &path, e))
    }

    /// What the container is doing.
    pub(crate) fn status(&self, state: &State) -> Status {
        let stat = match state.pid {
            0 if self.is_locked() => return Status::Creating,
            0 => None,
            pid => ProcStat::read(pid).filter(|s| s.start_time == state.init_process_start),
        };
        match stat {
            None => Status::Stopped,
            Some(s) if s.is_dead() => Status::Stopped,
            Some(_) if self.is_frozen(state) => Status::Paused,
            Some(s) if s.not_executed() && !state.restored => Status::Created,
            Some(_) => Status::Running,
        }
    }

    fn is_frozen(&self, state: &State) -> bool {
        let Some(saved) = &state.cgroup else {
            return false;
        };
        let cgroup = crate::cgroup::Cgroup::load(saved);
        cgroup.and_then(|c| c.frozen()).unwrap_or(false)
    }

    /// Removes the directory and all in it; absent is fine.
    pub(crate) fn remove(&self) -> Result<(), StateError> {
        match fs::remove_dir_all(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.io("remove", &self.path, e)),
            _ => Ok(()),
        }
    }

    fn io(&self, doing: &'static str, path: &Path, source: io::Error) -> StateError {
        StateError::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}

/// Refuses ids that are not plain names.
fn check_id(id: &str) -> Result<(), StateError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if id.is_empty() {
        return Err(StateError::NoId);
    }
    if id.len() > 1024 || id == "." || id == ".." || !id.chars().all(plain) {
        return Err(StateError::BadId(id.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
