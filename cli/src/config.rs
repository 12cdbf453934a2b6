//! Which daemon to talk to, and how: flags, environment, docker's config file and contexts.
//!
//! The folder is docker's own (`DOCKER_CONFIG` or `~/.docker`), shared with docker's CLI:
//! `config.json`, and the contexts ([`crate::contexts`]).
//! The first of these that is set names the daemon: `--context`, `-H`, `DOCKER_HOST`,
//! `DOCKER_CONTEXT`, `currentContext` of the file, the context `default`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::args::Global;
use crate::contexts::{ContextError, Contexts, TlsMaterial};
use crate::error::Failure;

/// Where a daemon is when nobody says otherwise.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// Why the daemon could not be named.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("conflicting options: cannot specify both --host and --context")]
    HostAndContext,
    #[error("specify only one -H")]
    ManyHosts,
    #[error("invalid DOCKER_LITE_RECONNECT {0:?}: must be a number of seconds")]
    Reconnect(String),
    #[error(transparent)]
    Context(#[from] ContextError),
    #[error("could not read {what} {path:?}: {source}")]
    Certificate {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
}

/// The settings of one run of the program.
#[derive(Debug)]
pub(crate) struct Config {
    /// The folder of the configuration.
    pub(crate) dir: PathBuf,
    /// What config.json says.
    pub(crate) file: ConfigFile,
    /// Name of the context in use.
    pub(crate) context: String,
    /// The daemon, such as `unix:///var/run/docker.sock`.
    pub(crate) host: String,
    /// The version of the API that `DOCKER_API_VERSION` pins.
    pub(crate) api_version: Option<String>,
    /// How to speak TLS with the daemon, if at all.
    pub(crate) tls: Option<Tls>,
    /// The platform of `DOCKER_DEFAULT_PLATFORM`, for images of which none is said.
    pub(crate) platform: String,
    /// How long a daemon that goes away is waited for: `DOCKER_LITE_RECONNECT`.
    pub(crate) reconnect: Duration,
}

/// The part of config.json that this program uses.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ConfigFile {
    pub(crate) current_context: Option<String>,
    pub(crate) auths: BTreeMap<String, StoredAuth>,
    #[serde(rename = "HttpHeaders")]
    pub(crate) http_headers: BTreeMap<String, String>,
    pub(crate) ps_format: String,
    pub(crate) images_format: String,
    pub(crate) networks_format: String,
    pub(crate) volumes_format: String,
    pub(crate) plugins_format: String,
    pub(crate) stats_format: String,
    pub(crate) detach_keys: String,
    pub(crate) creds_store: String,
    pub(crate) cred_helpers: BTreeMap<String, String>,
    #[serde(rename = "cliPluginsExtraDirs")]
    pub(crate) cli_plugins_extra_dirs: Vec<String>,
}

/// One entry of `auths`.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct StoredAuth {
    pub(crate) auth: String,
    pub(crate) identitytoken: String,
}

/// TLS with a daemon that is reached by TCP.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Tls {
    pub(crate) material: TlsMaterial,
    /// Whether the daemon's certificate is checked.
    pub(crate) verify: bool,
}

impl Config {
    /// Settles the settings from the flags, the environment and the files.
    pub(crate) fn load(global: &Global) -> Result<Config, ConfigError> {
        Config::settle(global, |name| {
            std::env::var(name).ok().filter(|value| !value.is_empty())
        })
    }

    fn settle(
        global: &Global,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Config, ConfigError> {
        let dir = folder(global.config.clone(), &env);
        let file = read_file(&dir);
        if global.host.len() > 1 {
            return Err(ConfigError::ManyHosts);
        }
        let flag = global.host.first().cloned();
        if flag.is_some() && global.context.is_some() {
            return Err(ConfigError::HostAndContext);
        }
        let context = match (&global.context, &flag, env("DOCKER_HOST")) {
            (Some(context), _, _) => context.clone(),
            (None, Some(_), _) | (None, None, Some(_)) => "default".to_string(),
            (None, None, None) => env("DOCKER_CONTEXT")
                .or_else(|| file.current_context.clone())
                .unwrap_or_else(|| "default".to_string()),
        };
        let (host, tls) = match (context.as_str(), flag) {
            ("default", flag) => {
                let host = flag.or_else(|| env("DOCKER_HOST"));
                (
                    host.unwrap_or_else(|| DEFAULT_HOST.to_string()),
                    tls_of_flags(global, &dir, &env)?,
                )
            }
            (name, _) => of_context(&Contexts::new(&dir), name)?,
        };
        Ok(Config {
            host: full(&host),
            dir,
            file,
            context,
            api_version: env("DOCKER_API_VERSION"),
            platform: env("DOCKER_DEFAULT_PLATFORM").unwrap_or_default(),
            reconnect: reconnect(env("DOCKER_LITE_RECONNECT"))?,
            tls,
        })
    }
}

/// The folder of the configuration and what its file says, for those who need no daemon.
pub(crate) fn folder_and_file(flag: Option<String>) -> (PathBuf, ConfigFile) {
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let dir = folder(flag, &env);
    let file = read_file(&dir);
    (dir, file)
}

fn folder(flag: Option<String>, env: &impl Fn(&str) -> Option<String>) -> PathBuf {
    match flag.or_else(|| env("DOCKER_CONFIG")) {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(env("HOME").unwrap_or_else(|| "/".to_string())).join(".docker"),
    }
}

fn reconnect(text: Option<String>) -> Result<Duration, ConfigError> {
    let Some(text) = text else {
        return Ok(crate::client::RECONNECT);
    };
    match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => Err(ConfigError::Reconnect(text)),
    }
}

/// Completes a host as a user writes it: `/run/x.sock`, `:2375`, `tcp://box`.
fn full(host: &str) -> String {
    let host = host.trim();
    if host.is_empty() {
        DEFAULT_HOST.to_string()
    } else if host.contains("://") {
        host.to_string()
    } else if host.starts_with('/') {
        format!("unix://{host}")
    } else if host.starts_with(':') {
        format!("tcp://127.0.0.1{host}")
    } else {
        format!("tcp://{host}")
    }
}

/// Reads config.json. A broken file is told and passed over, as docker does: it must not bar every command.
fn read_file(dir: &Path) -> ConfigFile {
    let path = dir.join("config.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        return ConfigFile::default();
    };
    serde_json::from_str(&text).unwrap_or_else(|cause| {
        crate::format::tell(&format!(
            "WARNING: Error loading config file: {}: {cause}\n",
            path.display()
        ));
        ConfigFile::default()
    })
}

/// Changes config.json, leaving everything else there as it is.
pub(crate) fn edit(
    dir: &Path,
    change: impl FnOnce(&mut Map<String, Value>),
) -> Result<(), Failure> {
    let path = dir.join("config.json");
    let failed = |what: &str, cause: &dyn std::fmt::Display| {
        Failure::new(format!("{what} {}: {cause}", path.display()))
    };
    let mut file: Map<String, Value> = match std::fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).map_err(|cause| failed("parse", &cause))?,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Map::new(),
        Err(cause) => return Err(failed("read", &cause)),
    };
    change(&mut file);
    let text = serde_json::to_vec(&file).map_err(|cause| failed("write", &cause))?;
    crate::contexts::replace(&path, &indent_tabs(&text), 0o600)
        .map_err(|cause| failed("write", &cause))
}

/// docker writes config.json with tabs.
fn indent_tabs(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(&crate::format::indent(text, "")).into_owned();
    text.lines()
        .map(|line| {
            let spaces = line.len() - line.trim_start_matches(' ').len();
            format!(
                "{}{}",
                "\t".repeat(spaces / 4),
                line.trim_start_matches(' ')
            )
        })
        .collect::<Vec<_>>()
        .join("\n")
        .into_bytes()
}

fn of_context(contexts: &Contexts, name: &str) -> Result<(String, Option<Tls>), ConfigError> {
    let context = contexts.read(name)?;
    let endpoint = context.endpoint()?;
    let material = contexts.read_tls(name)?;
    let verify = !endpoint.skip_tls_verify;
    let tls = (!material.is_empty() || !verify).then_some(Tls { material, verify });
    Ok((endpoint.host.clone(), tls))
}

/// TLS as flags and environment ask for it, with the files of `DOCKER_CERT_PATH` or the configuration where none are named.
fn tls_of_flags(
    global: &Global,
    dir: &Path,
    env: &impl Fn(&str) -> Option<String>,
) -> Result<Option<Tls>, ConfigError> {
    let verify = global.tlsverify || env("DOCKER_TLS_VERIFY").is_some();
    if !verify && !global.tls && env("DOCKER_TLS").is_none() {
        return Ok(None);
    }
    let folder = env("DOCKER_CERT_PATH").map_or_else(|| dir.to_path_buf(), PathBuf::from);
    let read = |what: &'static str, named: &Option<String>, usual: &str| {
        let path = named
            .as_ref()
            .map_or_else(|| folder.join(usual), PathBuf::from);
        match std::fs::read(&path) {
            Ok(text) => Ok(Some(text)),
            Err(cause) if named.is_none() && cause.kind() == std::io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(source) => Err(ConfigError::Certificate { what, path, source }),
        }
    };
    let material = TlsMaterial {
        ca: match verify {
            true => read("CA certificate", &global.tlscacert, "ca.pem")?,
            false => None,
        },
        cert: read("certificate", &global.tlscert, "cert.pem")?,
        key: read("key", &global.tlskey, "key.pem")?,
    };
    Ok(Some(Tls { material, verify }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(global: &Global, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::settle(global, |name| {
            env.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.to_string())
        })
    }

    fn store(dir: &Path, name: &str, host: &str) {
        let endpoint = crate::contexts::Endpoint::new(host.to_string(), false);
        let context = crate::contexts::Context::new(name, "", endpoint);
        Contexts::new(dir).write(&context).unwrap();
    }

    #[test]
    fn tls_comes_from_flags_environment_or_context() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        let config = ("DOCKER_CONFIG", home);
        assert_eq!(settle(&Global::default(), &[config]).unwrap().tls, None);
        std::fs::write(dir.path().join("ca.pem"), "A").unwrap();
        let verified = settle(&Global::default(), &[config, ("DOCKER_TLS_VERIFY", "1")]);
        let tls = verified.unwrap().tls.unwrap();
        assert!(tls.verify && tls.material.ca == Some(b"A".to_vec()));
        let flag = Global {
            tls: true,
            ..Global::default()
        };
        assert_eq!(settle(&flag, &[config]).unwrap().tls, Some(Tls::default()));
        let missing = Global {
            tlsverify: true,
            tlscert: Some("/no/such/file".into()),
            ..Global::default()
        };
        assert!(matches!(
            settle(&missing, &[config]),
            Err(ConfigError::Certificate { .. })
        ));
        store(dir.path(), "a1", "tcp://a:1");
        let contexts = Contexts::new(dir.path());
        contexts.write_tls("a1", &tls.material).unwrap();
        let in_context = [config, ("DOCKER_CONTEXT", "a1")];
        let got = settle(&Global::default(), &in_context).unwrap();
        assert_eq!(got.tls, Some(tls));
    }

    #[test]
    fn the_first_that_is_set_names_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        store(dir.path(), "a", "unix:///a");
        store(dir.path(), "b", "tcp://b:1");
        let config = [("DOCKER_CONFIG", home)];
        let plain = Global::default();
        assert_eq!(settle(&plain, &config).unwrap().host, DEFAULT_HOST);
        std::fs::write(
            dir.path().join("config.json"),
            r#"{"currentContext":"a","zzz":1}"#,
        )
        .unwrap();
        assert_eq!(settle(&plain, &config).unwrap().host, "unix:///a");
        let with_context = [config[0], ("DOCKER_CONTEXT", "b")];
        assert_eq!(settle(&plain, &with_context).unwrap().host, "tcp://b:1");
        let with_host = [
            config[0],
            ("DOCKER_CONTEXT", "b"),
            ("DOCKER_HOST", "unix:///h"),
        ];
        let got = settle(&plain, &with_host).unwrap();
        assert_eq!(
            (got.host.as_str(), got.context.as_str()),
            ("unix:///h", "default")
        );
        let flag = Global {
            host: vec!["/sock".into()],
            ..Global::default()
        };
        assert_eq!(settle(&flag, &with_host).unwrap().host, "unix:///sock");
        let context = Global {
            context: Some("a".into()),
            ..Global::default()
        };
        assert_eq!(settle(&context, &with_host).unwrap().host, "unix:///a");
    }

    #[test]
    fn contradictions_and_missing_contexts_are_told() {
        let both = Global {
            host: vec!["x".into()],
            context: Some("a".into()),
            ..Global::default()
        };
        assert!(matches!(
            settle(&both, &[]),
            Err(ConfigError::HostAndContext)
        ));
        let dir = tempfile::tempdir().unwrap();
        let missing = Global {
            context: Some("nope".into()),
            ..Global::default()
        };
        let error = settle(&missing, &[("DOCKER_CONFIG", dir.path().to_str().unwrap())])
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("context \"nope\": context not found: open "),
            "{error}"
        );
        assert!(
            error.contains("ca3704aa0b06f5954c79ee837faa152d84d6b2d42838f0637a15eda8337dbdce"),
            "{error}"
        );
    }

    #[test]
    fn hosts_may_be_written_short() {
        assert_eq!(full(":2375"), "tcp://127.0.0.1:2375");
        assert_eq!(full("box:2375"), "tcp://box:2375");
        assert_eq!(full("/x"), "unix:///x");
    }
}
