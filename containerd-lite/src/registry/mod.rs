//! Registries, as far as a transfer needs them: resolve, fetch, push.
//!
//! ```text
//!  reference ─▶ hosts (hosts.toml: mirrors, then the server itself) ─▶ session
//!                    401 ─▶ challenge ─▶ credentials of the client ─▶ token ─▶ again
//!                    connection lost ─▶ again, from the byte where it broke off
//! ```
//!
//! Only the transfer service comes here; a client that does its own registry work never does. Nothing is kept between two
//! transfers: tokens and connections live as long as a [`Session`]. Async throughout; the bytes of a blob are handed to the
//! caller chunk by chunk.

mod answers;
mod auth;
mod hosts;
mod place;
mod push;
mod reference;
mod session;

use std::path::PathBuf;

use proto::error::ErrorKind;

pub(crate) use auth::Helper;
pub(crate) use push::Pushed;
pub(crate) use reference::Reference;
pub(crate) use session::{Options, Session};

/// Why a registry did not give what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    #[error("{0}")]
    Invalid(String),
    #[error("registry configuration {path}: {what}", path = .path.display())]
    Config { path: PathBuf, what: String },
    #[error("{0}: not found")]
    NotFound(String),
    #[error("{what}: {status}{message}")]
    Status {
        what: String,
        status: u16,
        message: String,
    },
    #[error("{what}")]
    Request {
        what: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{0}")]
    Answer(String),
    #[error("{what}: size is {found}, expected {expected}")]
    Size {
        what: String,
        found: u64,
        expected: u64,
    },
}

impl crate::error::Kind for RegistryError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) | Self::Config { .. } => ErrorKind::InvalidArgument,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Status { status, .. } => match status {
                401 => ErrorKind::Unauthenticated,
                403 => ErrorKind::PermissionDenied,
                404 => ErrorKind::NotFound,
                429 => ErrorKind::ResourceExhausted,
                500.. => ErrorKind::Unavailable,
                _ => ErrorKind::Unknown,
            },
            Self::Request { .. } => ErrorKind::Unavailable,
            Self::Answer(_) | Self::Size { .. } => ErrorKind::FailedPrecondition,
        }
    }
}

type Result<T> = std::result::Result<T, RegistryError>;
