//! Configuration: file and flags in, one validated value out, once. Nothing else reads them.
//!
//! The file is the real daemon's `config.toml` (version 2 or 3). The keys that we have work; every other key is named in a
//! warning and does nothing.

mod file;
mod level;
mod proxy;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use file::File;
pub(crate) use level::{Format, Level};

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
    #[error("configuration {path}: proxy_plugins.{name}: {what}")]
    Proxy {
        path: PathBuf,
        name: String,
        what: String,
    },
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
    /// The socket that tells of our state; none: nowhere.
    pub(crate) debug_address: Option<PathBuf>,
    /// Owner of that socket: uid, gid.
    pub(crate) debug_owner: (u32, u32),
    /// Largest message in bytes, in and out.
    pub(crate) max_message: usize,
    /// What transfers may do.
    pub(crate) transfer: crate::transfer::Settings,
    /// Parts that are other programs.
    pub(crate) proxies: Vec<Proxy>,
    /// Who applies and makes layers, in the order in which they are asked.
    pub(crate) differs: Vec<String>,
    /// What is told of ourselves.
    pub(crate) metrics: Metrics,
    /// How much is logged.
    pub(crate) level: Level,
    /// How it looks.
    pub(crate) format: Format,
}

/// A part of the daemon that is another program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    /// Its name among the parts of its kind.
    pub(crate) name: String,
    /// Which part it is.
    pub(crate) kind: ProxyKind,
    /// Its gRPC socket.
    pub(crate) address: PathBuf,
    /// What it can do, for clients that ask.
    pub(crate) capabilities: Vec<String>,
    /// What it tells of itself, for clients that ask.
    pub(crate) exports: BTreeMap<String, String>,
}

/// Parts that can be another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProxyKind {
    /// A snapshotter.
    Snapshot,
    /// Who applies and makes layers.
    Diff,
}

/// Where metrics are served, and how many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Metrics {
    /// `HOST:PORT`; none: nowhere.
    pub(crate) address: Option<String>,
    /// Whether the time of each call is counted as well.
    pub(crate) histogram: bool,
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
            debug_address: None,
            debug_owner: (0, 0),
            max_message: 16 << 20,
            transfer: crate::transfer::Settings::default(),
            proxies: Vec::new(),
            differs: vec![WALKING.to_owned()],
            metrics: Metrics::default(),
            level: Level::Info,
            format: Format::Text,
        }
    }
}

/// Plugin of transfers, from version 2 of the file on.
const TRANSFER: &str = "io.containerd.transfer.v1.local";
/// Plugin that keeps the order of differs.
const DIFF: &str = "io.containerd.service.v1.diff-service";
/// The key with that order.
const DIFFERS: [&str; 3] = ["plugins", DIFF, "default"];
/// Name of our own differ.
pub(crate) const WALKING: &str = "walking";
/// Where the file keeps the folder with the configuration of registries, by version: as kubelets' users know it.
const REGISTRIES: [&[&str]; 3] = [
    &["plugins", TRANSFER, "config_path"],
    &[
        "plugins",
        "io.containerd.cri.v1.images",
        "registry",
        "config_path",
    ],
    &[
        "plugins",
        "io.containerd.grpc.v1.cri",
        "registry",
        "config_path",
    ],
];

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

    /// The file in the form of version 3, with the keys that moved in their new places and all others as they are.
    pub(crate) fn migrated(flags: &Flags) -> Result<String, ConfigError> {
        let path = flags.config.clone().unwrap_or_else(|| DEFAULT_FILE.into());
        let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Read {
            path: path.clone(),
            source,
        })?;
        let mut file = File::parse(&text, &path)?;
        if let [_, new, old] = REGISTRIES
            && let Some(folder) = file.take(old)
        {
            file.put(new, folder);
        }
        file.put(&["version"], Value::Integer(3));
        Ok(file.into_text())
    }

    fn parse(text: &str, path: &Path, flags: &Flags) -> Result<(Self, Vec<String>), ConfigError> {
        let mut file = File::parse(text, path)?;
        let mut config = Self::default();
        config.set_places(&mut file, flags)?;
        config.set_sockets(&mut file)?;
        config.set_log(&mut file, flags)?;
        config.set_transfer(&mut file)?;
        config.proxies = proxy::read(&mut file)?;
        if let Some(names) = file.texts(&DIFFERS)? {
            config.differs = names;
        }
        config.metrics = Metrics {
            address: file.filled(&["metrics", "address"])?,
            histogram: file.flag(&["metrics", "grpc_histogram"])?.unwrap_or(false),
        };
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

    /// Directories and the gRPC socket: what both flags and the file name.
    fn set_places(&mut self, file: &mut File<'_>, flags: &Flags) -> Result<(), ConfigError> {
        let chosen = |flag: &Option<PathBuf>, given: Option<String>| {
            flag.clone().or(given.map(PathBuf::from))
        };
        if let Some(root) = chosen(&flags.root, file.filled(&["root"])?) {
            self.root = root;
        }
        if let Some(state) = chosen(&flags.state, file.filled(&["state"])?) {
            self.address = state.join("containerd.sock");
            self.state = state;
        }
        if let Some(address) = chosen(&flags.address, file.filled(&["grpc", "address"])?) {
            self.address = address;
        }
        self.ttrpc_address = match file.filled(&["ttrpc", "address"])? {
            Some(address) => address.into(),
            None => format!("{}.ttrpc", self.address.display()).into(),
        };
        Ok(())
    }

    fn set_sockets(&mut self, file: &mut File<'_>) -> Result<(), ConfigError> {
        let mut owner = |section: &str| -> Result<(u32, u32), ConfigError> {
            Ok((
                file.number(&[section, "uid"])?.unwrap_or(0),
                file.number(&[section, "gid"])?.unwrap_or(0),
            ))
        };
        self.owner = owner("grpc")?;
        self.ttrpc_owner = owner("ttrpc")?;
        self.debug_owner = owner("debug")?;
        self.debug_address = file.filled(&["debug", "address"])?.map(PathBuf::from);
        for key in ["max_recv_message_size", "max_send_message_size"] {
            let size = file.number(&["grpc", key])?.unwrap_or(0);
            self.max_message = self.max_message.max(size as usize);
        }
        Ok(())
    }

    fn set_log(&mut self, file: &mut File<'_>, flags: &Flags) -> Result<(), ConfigError> {
        if let Some(level) = file.filled(&["debug", "level"])? {
            self.level = level
                .parse()
                .map_err(|_| file.wrong(&["debug", "level"], "a log level"))?;
        }
        if let Some(level) = flags.log_level {
            self.level = level;
        }
        match file.filled(&["debug", "format"])?.as_deref() {
            None | Some("text") => {}
            Some("json") => self.format = Format::Json,
            Some(_) => return Err(file.wrong(&["debug", "format"], "\"text\" or \"json\"")),
        }
        Ok(())
    }

    fn set_transfer(&mut self, file: &mut File<'_>) -> Result<(), ConfigError> {
        for (key, slot) in [
            ("max_concurrent_downloads", &mut self.transfer.downloads),
            ("max_concurrent_uploaded_layers", &mut self.transfer.uploads),
        ] {
            let path = ["plugins", TRANSFER, key];
            match file.number(&path)? {
                None => {}
                Some(number) if (1..=64).contains(&number) => *slot = number as usize,
                Some(_) => return Err(file.wrong(&path, "a number from 1 to 64")),
            }
        }
        for path in REGISTRIES {
            if let Some(folder) = file.filled(path)? {
                let folders = folder.split(':').filter(|f| !f.is_empty());
                self.transfer.hosts.extend(folders.map(PathBuf::from));
            }
        }
        Ok(())
    }

    /// As a file that [`Config::load`] reads back.
    pub(crate) fn to_toml(&self) -> String {
        let path = |p: &Path| Value::String(p.display().to_string());
        let number = |n: usize| Value::Integer(i64::try_from(n).unwrap_or(i64::MAX));
        let text = |t: &str| Value::String(t.to_owned());
        let list = |texts: &[String]| Value::Array(texts.iter().map(|t| text(t)).collect());
        let table = |pairs: Vec<(&str, Value)>| -> Value {
            let pairs = pairs
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value));
            Value::Table(pairs.collect())
        };
        let folders: Vec<String> = self
            .transfer
            .hosts
            .iter()
            .map(|f| f.display().to_string())
            .collect();
        let all = table(vec![
            ("version", Value::Integer(3)),
            ("root", path(&self.root)),
            ("state", path(&self.state)),
            (
                "grpc",
                table(vec![
                    ("address", path(&self.address)),
                    ("uid", Value::Integer(self.owner.0.into())),
                    ("gid", Value::Integer(self.owner.1.into())),
                    ("max_recv_message_size", number(self.max_message)),
                    ("max_send_message_size", number(self.max_message)),
                ]),
            ),
            (
                "ttrpc",
                table(vec![
                    ("address", path(&self.ttrpc_address)),
                    ("uid", Value::Integer(self.ttrpc_owner.0.into())),
                    ("gid", Value::Integer(self.ttrpc_owner.1.into())),
                ]),
            ),
            (
                "debug",
                table(vec![
                    (
                        "address",
                        path(self.debug_address.as_deref().unwrap_or(Path::new(""))),
                    ),
                    ("uid", Value::Integer(self.debug_owner.0.into())),
                    ("gid", Value::Integer(self.debug_owner.1.into())),
                    ("level", text(self.level.name())),
                    ("format", text(self.format.name())),
                ]),
            ),
            (
                "metrics",
                table(vec![
                    (
                        "address",
                        text(self.metrics.address.as_deref().unwrap_or_default()),
                    ),
                    ("grpc_histogram", Value::Boolean(self.metrics.histogram)),
                ]),
            ),
            (
                "plugins",
                table(vec![
                    (DIFF, table(vec![("default", list(&self.differs))])),
                    (
                        TRANSFER,
                        table(vec![
                            ("max_concurrent_downloads", number(self.transfer.downloads)),
                            (
                                "max_concurrent_uploaded_layers",
                                number(self.transfer.uploads),
                            ),
                            ("config_path", text(&folders.join(":"))),
                        ]),
                    ),
                ]),
            ),
            ("proxy_plugins", proxy::to_toml(&self.proxies)),
        ]);
        let Value::Table(all) = all else {
            unreachable!("a table was made")
        };
        all.to_string()
    }
}

#[cfg(test)]
mod tests;
