//! Why a container did not do what it was asked, and which code that is on the wire.

use proto::error::ErrorKind;
use proto::ttrpc::Status;

use crate::file::FileError;
use crate::io::IoError;
use crate::options::OptionsError;
use crate::rootfs::RootfsError;
use crate::runc::RuntimeError;
use crate::spec::SpecError;

/// A request of the task service failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    #[error("container not created")]
    NotCreated,
    #[error("container {0} already exists")]
    ContainerExists(String),
    #[error("process {0} does not exist")]
    NoProcess(String),
    #[error("id {0} already exists")]
    ProcessExists(String),
    #[error("process already finished")]
    Finished,
    #[error("cannot delete a {0} process")]
    DeleteAlive(&'static str),
    #[error("cannot {attempt} a {state} {object}")]
    State {
        attempt: &'static str,
        object: &'static str,
        state: &'static str,
    },
    #[error("{0}")]
    Invalid(String),
    #[error("exec id: {0}")]
    Id(proto::ids::IdError),
    #[error(transparent)]
    Options(#[from] OptionsError),
    #[error("prepare root file system")]
    Rootfs(#[from] RootfsError),
    #[error("set up stdio")]
    Io(#[from] IoError),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("OCI runtime {verb} failed: {source}")]
    Runtime {
        verb: &'static str,
        source: RuntimeError,
    },
    #[error("{attempt}: {source}")]
    System {
        attempt: &'static str,
        source: std::io::Error,
    },
    #[error("read pid of the new process from {path:?}")]
    Pid { path: std::path::PathBuf },
    #[error("process {0} was not left to the shim by the runtime, so its exit cannot be seen")]
    NotOurs(u32),
    #[error("container is gone")]
    Gone,
}

impl TaskError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotCreated | Self::NoProcess(_) | Self::Finished | Self::Gone => {
                ErrorKind::NotFound
            }
            Self::ContainerExists(_) | Self::ProcessExists(_) => ErrorKind::AlreadyExists,
            Self::State { .. } => ErrorKind::FailedPrecondition,
            Self::Invalid(_)
            | Self::Id(_)
            | Self::Spec(SpecError::Parse { .. })
            | Self::Options(OptionsError::Type(_) | OptionsError::Decode(_)) => {
                ErrorKind::InvalidArgument
            }
            Self::Io(error) if error.is_request() => ErrorKind::InvalidArgument,
            Self::Rootfs(RootfsError::Option(_)) => ErrorKind::Unimplemented,
            Self::Runtime {
                source: RuntimeError::Deadline { .. },
                ..
            } => ErrorKind::DeadlineExceeded,
            _ => ErrorKind::Unknown,
        }
    }

    /// A failed kill: what the runtimes say of processes that have ended is not an error of theirs.
    pub(super) fn of_kill(source: RuntimeError) -> Self {
        let text = source.to_string();
        let finished = [
            "process already finished",
            "container not running",
            "is not running",
        ];
        if finished.iter().any(|t| text.contains(t))
            || text.to_lowercase().contains("no such process")
        {
            return Self::Finished;
        }
        if text.contains("does not exist") {
            return Self::NotCreated;
        }
        Self::Runtime {
            verb: "kill",
            source,
        }
    }
}

impl From<TaskError> for Status {
    fn from(error: TaskError) -> Self {
        let message = match &error {
            // Its source is in its text already.
            TaskError::Runtime { .. } | TaskError::System { .. } | TaskError::Id(_) => {
                error.to_string()
            }
            other => crate::chain(other),
        };
        Self::new(error.kind(), message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_codes_are_what_clients_look_for() {
        let failed = |text: &str| RuntimeError::Failed {
            text: text.to_owned(),
        };
        let status = Status::from(TaskError::Runtime {
            verb: "create",
            source: failed("exec: not found"),
        });
        assert_eq!(status.message, "OCI runtime create failed: exec: not found");
        assert_eq!(status.kind, ErrorKind::Unknown);
        assert_eq!(
            Status::from(TaskError::NotCreated).message,
            "container not created"
        );
        assert_eq!(
            Status::from(TaskError::DeleteAlive("running")).message,
            "cannot delete a running process"
        );
        for text in [
            "os: process already finished",
            "container not running",
            "No such process",
        ] {
            assert_eq!(
                Status::from(TaskError::of_kill(failed(text))).kind,
                ErrorKind::NotFound,
                "{text}"
            );
        }
        let other = Status::from(TaskError::of_kill(failed("permission denied")));
        assert_eq!(
            (other.kind, other.message.as_str()),
            (
                ErrorKind::Unknown,
                "OCI runtime kill failed: permission denied"
            )
        );
    }
}
