//! Configuration: file and flags in, one validated value out, once. Nothing else reads them.
//!
//! The file is the real daemon's `config.toml` (version 2 or 3). The keys that we have work; every other key is named in a
//! warning and does nothing.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use toml::{Table, Value};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Where the configuration is looked for unless a flag names it.
const DEFAULT_FILE: &str = "/etc/containerd-lite/config.toml";

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("read configuration {path}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("parse configuration {path}")]
    Parse {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    #[error("configuration {path}: {key} must be {wanted}")]
    Type {
        path: PathBuf,
        key: String,
        wanted: &'static str,
    },
    #[error("configuration {path}: version {version} is not supported, only 2 and 3 are")]
    Version { path: PathBuf, version: i64 },
    #[error("{what} {path} must be an absolute path")]
    Relative { what: &'static str, path: PathBuf },
}

/// What the command line gave.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    pub(crate) config: Option<PathBuf>,
    pub(crate) log_level: Option<Level>,
    pub(crate) address: Option<PathBuf>,
    pub(crate) root: Option<PathBuf>,
    pub(crate) state: Option<PathBuf>,
}

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
    fn name(self) -> &'static str {
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

/// The configuration in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// What is kept over a reboot.
    pub(crate) root: PathBuf,
    /// What is lost at a reboot.
    pub(crate) state: PathBuf,
    /// The gRPC socket.
    pub(crate) address: PathBuf,
    /// Owner of the gRPC socket: uid, gid.
    pub(crate) owner: (u32, u32),
    /// The socket on which shims publish events.
    pub(crate) ttrpc_address: PathBuf,
    /// Owner of that socket: uid, gid.
    pub(crate) ttrpc_owner: (u32, u32),
    /// Largest message in bytes, in and out.
    pub(crate) max_message: usize,
    /// What transfers may do.
    pub(crate) transfer: crate::transfer::Settings,
    /// How much is logged.
    pub(crate) level: Level,
    /// How it looks.
    pub(crate) format: Format,
}

impl Default for Config {
    fn default() -> Self {
        let state = PathBuf::from("/run/containerd-lite");
        Self {
            root: PathBuf::from("/var/lib/containerd-lite"),
            address: state.join("containerd.sock"),
            owner: (0, 0),
            ttrpc_address: state.join("containerd.sock.ttrpc"),
            ttrpc_owner: (0, 0),
            state,
            max_message: 16 << 20,
            transfer: crate::transfer::Settings::default(),
            level: Level::Info,
            format: Format::Text,
        }
    }
}

impl Config {
    /// Reads the file and lays the flags over it. The second value names the keys that do nothing.
    pub(crate) fn load(flags: &Flags) -> Result<(Self, Vec<String>), ConfigError> {
        let path = flags.config.clone().unwrap_or_else(|| DEFAULT_FILE.into());
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error)
                if error.kind() == std::io::ErrorKind::NotFound && flags.config.is_none() =>
            {
                String::new()
            }
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        Self::parse(&text, &path, flags)
    }

    fn parse(text: &str, path: &Path, flags: &Flags) -> Result<(Self, Vec<String>), ConfigError> {
        let table = text.parse::<Table>().map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        let mut file = File { path, table };
        if let Some(version) = file.integer("version")?
            && !(2..=3).contains(&version)
        {
            return Err(ConfigError::Version {
                path: path.to_owned(),
                version,
            });
        }
        let mut config = Self::default();
        let set = |slot: &mut PathBuf, flag: &Option<PathBuf>, given: Option<String>| {
            let chosen = flag
                .clone()
                .or(given.filter(|g| !g.is_empty()).map(PathBuf::from));
            let changed = chosen.is_some();
            if let Some(value) = chosen {
                *slot = value;
            }
            changed
        };
        set(&mut config.root, &flags.root, file.text("root")?);
        let moved = set(&mut config.state, &flags.state, file.text("state")?);
        let named = set(
            &mut config.address,
            &flags.address,
            file.text("grpc.address")?,
        );
        if moved && !named {
            config.address = config.state.join("containerd.sock");
        }
        config.ttrpc_address = format!("{}.ttrpc", config.address.display()).into();
        set(
            &mut config.ttrpc_address,
            &None,
            file.text("ttrpc.address")?,
        );
        config.owner = (
            file.number("grpc.uid")?.unwrap_or(0),
            file.number("grpc.gid")?.unwrap_or(0),
        );
        config.ttrpc_owner = (
            file.number("ttrpc.uid")?.unwrap_or(0),
            file.number("ttrpc.gid")?.unwrap_or(0),
        );
        let received = file.number("grpc.max_recv_message_size")?.unwrap_or(0);
        let sent = file.number("grpc.max_send_message_size")?.unwrap_or(0);
        config.max_message = config.max_message.max(received.max(sent) as usize);
        if let Some(level) = file.text("debug.level")?.filter(|l| !l.is_empty()) {
            config.level = level
                .parse()
                .map_err(|_| file.wrong("debug.level", "a log level"))?;
        }
        if let Some(level) = flags.log_level {
            config.level = level;
        }
        match file.text("debug.format")?.as_deref() {
            None | Some("" | "text") => {}
            Some("json") => config.format = Format::Json,
            Some(_) => return Err(file.wrong("debug.format", "\"text\" or \"json\"")),
        }
        for (what, path) in [
            ("root", &config.root),
            ("state", &config.state),
            ("address", &config.address),
        ] {
            if !path.is_absolute() {
                return Err(ConfigError::Relative {
                    what,
                    path: path.clone(),
                });
            }
        }
        Ok((config, file.rest()))
    }

    /// As a file that [`Config::load`] reads back.
    pub(crate) fn to_toml(&self) -> String {
        let mut out = String::new();
        let text = |p: &Path| Value::String(p.display().to_string()).to_string();
        let _ = write!(
            out,
            "version = 3\nroot = {}\nstate = {}\n\n[grpc]\naddress = {}\nuid = {}\ngid = {}\nmax_recv_message_size = {}\nmax_send_message_size = {}\n\n[ttrpc]\naddress = {}\nuid = {}\ngid = {}\n\n[debug]\nlevel = \"{}\"\nformat = \"{}\"\n",
            text(&self.root),
            text(&self.state),
            text(&self.address),
            self.owner.0,
            self.owner.1,
            self.max_message,
            self.max_message,
            text(&self.ttrpc_address),
            self.ttrpc_owner.0,
            self.ttrpc_owner.1,
            self.level.name(),
            match self.format {
                Format::Text => "text",
                Format::Json => "json",
            },
        );
        out
    }
}

/// The parsed file. Keys are taken out as they are read, so what stays is unknown.
struct File<'a> {
    path: &'a Path,
    table: Table,
}

impl File<'_> {
    fn wrong(&self, key: &str, wanted: &'static str) -> ConfigError {
        ConfigError::Type {
            path: self.path.to_owned(),
            key: key.to_owned(),
            wanted,
        }
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        match key.split_once('.') {
            None => self.table.remove(key),
            Some((section, key)) => self.table.get_mut(section)?.as_table_mut()?.remove(key),
        }
    }

    fn text(&mut self, key: &str) -> Result<Option<String>, ConfigError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "a string")),
        }
    }

    fn integer(&mut self, key: &str) -> Result<Option<i64>, ConfigError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Integer(number)) => Ok(Some(number)),
            Some(_) => Err(self.wrong(key, "an integer")),
        }
    }

    fn number(&mut self, key: &str) -> Result<Option<u32>, ConfigError> {
        self.integer(key)?
            .map(|n| u32::try_from(n).map_err(|_| self.wrong(key, "a number from 0 to 4294967295")))
            .transpose()
    }

    /// A warning for each key that nobody took.
    fn rest(self) -> Vec<String> {
        let mut out = Vec::new();
        let path = self.path.display();
        for (key, value) in self.table {
            match value {
                Value::Table(section) => {
                    out.extend(section.keys().map(|inner| {
                        format!("configuration {path}: key {key}.{inner:?} has no effect")
                    }));
                }
                _ => out.push(format!("configuration {path}: key {key} has no effect")),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, flags: &Flags) -> Result<(Config, Vec<String>), ConfigError> {
        Config::parse(text, Path::new("c.toml"), flags)
    }

    #[test]
    fn flags_win_over_the_file_and_sockets_follow_the_state() {
        let flags = Flags {
            state: Some("/s".into()),
            ..Flags::default()
        };
        let (config, warnings) = parse(
            "root = \"/r\"\nstate = \"/x\"\n[debug]\nlevel = \"debug\"",
            &flags,
        )
        .unwrap();
        assert_eq!(config.root, Path::new("/r"));
        assert_eq!(config.address, Path::new("/s/containerd.sock"));
        assert_eq!(config.ttrpc_address, Path::new("/s/containerd.sock.ttrpc"));
        assert_eq!(config.level, Level::Debug);
        assert!(warnings.is_empty());
    }

    #[test]
    fn unknown_keys_are_named_and_wrong_values_refused() {
        let (_, warnings) = parse(
            "oom_score = 1\n[plugins.\"io.x\"]\na = 1\n[grpc]\nnope = 2",
            &Flags::default(),
        )
        .unwrap();
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        for bad in [
            "root = 1",
            "version = 1",
            "root = \"rel\"",
            "[debug]\nlevel = \"loud\"",
            "x =",
        ] {
            assert!(parse(bad, &Flags::default()).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_dumped_loads_as_the_same() {
        let flags = Flags {
            root: Some("/a\"b".into()),
            ..Flags::default()
        };
        let (config, _) = parse("", &flags).unwrap();
        assert_eq!(
            parse(&config.to_toml(), &Flags::default()).unwrap(),
            (config, Vec::new())
        );
    }
}
