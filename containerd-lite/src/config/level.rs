//! How much the daemon logs, and how a line of it looks.

use std::str::FromStr;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Everything.
    Trace,
    /// What helps to find a fault.
    Debug,
    /// What an operator wants to know.
    Info,
    /// What may be wrong.
    Warn,
    /// What is wrong.
    Error,
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "trace" => Self::Trace,
            "debug" => Self::Debug,
            "info" => Self::Info,
            "warn" | "warning" => Self::Warn,
            "error" | "fatal" | "panic" => Self::Error,
            _ => return Err(format!("{text:?} is no log level")),
        })
    }
}

impl Level {
    /// As the file has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    /// Whether shims are started with their debug flag.
    pub(crate) fn is_debug(self) -> bool {
        matches!(self, Self::Trace | Self::Debug)
    }

    /// Sends the log of this process to standard error from now on.
    pub(crate) fn install(self, format: Format) {
        let level = match self {
            Self::Trace => tracing::Level::TRACE,
            Self::Debug => tracing::Level::DEBUG,
            Self::Info => tracing::Level::INFO,
            Self::Warn => tracing::Level::WARN,
            Self::Error => tracing::Level::ERROR,
        };
        // Levels by program part, no directives: those would bring the regex engine into every process. The parts below
        // us (HTTP/2 frames) are of interest to nobody who looks for a fault of ours.
        let filter = Targets::new()
            .with_default(level.min(tracing::Level::INFO))
            .with_target(env!("CARGO_CRATE_NAME"), level);
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(false);
        let base = tracing_subscriber::registry().with(filter);
        match format {
            Format::Text => base.with(lines.with_target(self.is_debug())).init(),
            Format::Json => base.with(lines.json()).init(),
        }
    }
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For eyes.
    Text,
    /// For machines.
    Json,
}

impl Format {
    /// As the file has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}
