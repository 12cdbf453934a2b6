//! From module errors to gRPC status: the whole chain of causes as text, the kind as code.

use proto::error::ErrorKind;
use tonic::Status;

/// An error of a module here that knows its kind.
pub(crate) trait Kind: std::error::Error {
    /// What kind of error.
    fn kind(&self) -> ErrorKind;
}

/// The status of an error: every cause, joined by colons, since clients show this text.
pub(crate) fn status<E: Kind>(error: E) -> Status {
    let kind = error.kind();
    if kind == ErrorKind::Internal {
        tracing::error!("{}", chain(&error));
    }
    kind.status(chain(&error))
}

/// The error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let part = next.to_string();
        // A transparent wrapper repeats its source.
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = next.source();
    }
    text
}

/// The kind of an I/O error.
pub(crate) fn io_kind(error: &std::io::Error) -> ErrorKind {
    use std::io::ErrorKind as Io;
    match error.kind() {
        Io::NotFound => ErrorKind::NotFound,
        Io::PermissionDenied => ErrorKind::PermissionDenied,
        Io::StorageFull | Io::QuotaExceeded | Io::OutOfMemory => ErrorKind::ResourceExhausted,
        Io::ReadOnlyFilesystem => ErrorKind::FailedPrecondition,
        _ => ErrorKind::Internal,
    }
}
