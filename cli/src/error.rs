//! How a command ends when it does not end well.

use std::io;

use crate::client::ClientError;
use crate::config::ConfigError;
use crate::contexts::ContextError;

/// A failed command: what to tell the user, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Printed on standard error, with a line end; nothing is printed when empty.
    pub(crate) text: String,
    /// The exit code of the program.
    pub(crate) code: u8,
}

/// What a command returns: its exit code, or why it failed.
pub(crate) type Outcome = Result<u8, Failure>;

/// The exit code of a command that wrote into a closed pipe, as if SIGPIPE had ended it.
const BROKEN_PIPE: u8 = 141;

/// The exit code of a command that listened to a daemon which went away for good.
const DAEMON_GONE: u8 = 125;

impl Failure {
    /// A failure with the common exit code 1.
    pub(crate) fn new(text: impl Into<String>) -> Failure {
        Failure {
            text: text.into(),
            code: 1,
        }
    }

    /// A failure with its own exit code.
    pub(crate) fn with_code(code: u8, text: impl Into<String>) -> Failure {
        Failure {
            text: text.into(),
            code,
        }
    }

    /// A failure that has been told already.
    pub(crate) fn silent(code: u8) -> Failure {
        Failure {
            text: String::new(),
            code,
        }
    }

    /// The form in which `run` and `create` tell a failure: with the program's name and a pointer to the help.
    pub(crate) fn of_command(text: &str, code: u8, command: &str) -> Failure {
        Failure {
            text: format!(
                "docker-lite: {text}\n\nRun 'docker-lite {command} --help' for more information"
            ),
            code,
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        match error {
            ClientError::Gone { .. } => {
                Failure::with_code(DAEMON_GONE, format!("docker-lite: {error}"))
            }
            error => Failure::new(error.to_string()),
        }
    }
}

impl From<ContextError> for Failure {
    fn from(error: ContextError) -> Failure {
        Failure::new(error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::new(error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::silent(BROKEN_PIPE),
            _ => Failure::new(error.to_string()),
        }
    }
}

impl From<crate::format::FormatError> for Failure {
    fn from(error: crate::format::FormatError) -> Failure {
        match error {
            crate::format::FormatError::Parse(_) => Failure::with_code(64, error.to_string()),
            crate::format::FormatError::Write(cause) => cause.into(),
            error => Failure::new(error.to_string()),
        }
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Failure {
        Failure::new(text)
    }
}
