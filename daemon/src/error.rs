//! The error that crosses module borders in this crate: a kind, from which the HTTP status follows, and a text that names
//! object, operation and cause.
//!
//! Modules whose callers tell cases apart have an enum of their own and convert it into this one at their border.

use proto::error::ErrorKind;

/// What failed, and of which kind it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Error {
    kind: ErrorKind,
    message: String,
    code: i64,
}

/// Result with the crate's error.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            code: 0,
        }
    }
    /// 404
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }
    /// 400
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }
    /// 409
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::FailedPrecondition, message)
    }
    /// 403
    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::PermissionDenied, message)
    }
    /// 501
    pub(crate) fn unimplemented(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unimplemented, message)
    }
    /// 503
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }
    /// 500
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }
    /// 304
    pub(crate) fn not_modified() -> Self {
        Self::new(ErrorKind::NotModified, "not modified")
    }
    pub(crate) fn kind(&self) -> ErrorKind {
        self.kind
    }
    pub(crate) fn message(&self) -> &str {
        &self.message
    }
    pub(crate) fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }
    pub(crate) fn is_exists(&self) -> bool {
        self.kind == ErrorKind::AlreadyExists
    }
    /// The exit code of a program whose failure this is; 0 where no program has failed.
    pub(crate) fn code(&self) -> i64 {
        self.code
    }
    /// The failure of a program with this exit code.
    pub(crate) fn with_code(mut self, code: i64) -> Self {
        self.code = code;
        self
    }
    /// The same text under another kind.
    pub(crate) fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }
    /// The same kind, the text led by what was attempted.
    pub(crate) fn during(mut self, what: impl std::fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        // A status with a cause was made on this side: the other one could not be reached, or went away in the middle.
        match std::error::Error::source(&status) {
            Some(_) => {
                Self::unavailable(format!("containerd does not answer: {}", status.message()))
            }
            None => Self::new(ErrorKind::of(&status), status.message()),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::StorageFull | Io::QuotaExceeded => ErrorKind::ResourceExhausted,
            _ => ErrorKind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(errno: rustix::io::Errno) -> Self {
        std::io::Error::from(errno).into()
    }
}

impl From<nix::errno::Errno> for Error {
    fn from(errno: nix::errno::Errno) -> Self {
        std::io::Error::from(errno).into()
    }
}

/// Says what was attempted when it failed.
pub(crate) trait During<T> {
    /// Leads the error's text by `what`.
    fn during<D: std::fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: Into<Error>> During<T> for std::result::Result<T, E> {
    fn during<D: std::fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| error.into().during(what()))
    }
}
