//! Which daemon to talk to, and how: flags, environment, docker's config file and contexts.
//!
//! The folder is docker's own (`DOCKER_CONFIG` or `~/.docker`), shared with docker's CLI:
//! `config.json`, and `contexts/meta/<sha256 of the name>/meta.json` for each context.
//! The first of these that is set names the daemon: `--context`, `-H`, `DOCKER_HOST`,
//! `DOCKER_CONTEXT`, `currentContext` of the file, the context `default`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::args::Global;

/// Where a daemon is when nobody says otherwise.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// Why the daemon could not be named.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("conflicting options: cannot specify both --host and --context")]
    HostAndContext,
    #[error("specify only one -H")]
    ManyHosts,
    #[error("context {name:?}: context not found: open {}: no such file or directory", path.display())]
    NoContext { name: String, path: PathBuf },
    #[error("read context {name:?} from {}", path.display())]
    ReadContext {
        name: String,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("parse context {name:?} in {}: {source}", path.display())]
    ParseContext {
        name: String,
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("context {name:?} has no endpoint of kind docker")]
    NoEndpoint { name: String },
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
    /// TLS was asked for by a flag or the environment.
    pub(crate) tls: bool,
    /// The platform of `DOCKER_DEFAULT_PLATFORM`, for images of which none is said.
    pub(crate) platform: String,
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
    pub(crate) stats_format: String,
    pub(crate) detach_keys: String,
    pub(crate) creds_store: String,
    pub(crate) cred_helpers: BTreeMap<String, String>,
}

/// One entry of `auths`.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct StoredAuth {
    pub(crate) auth: String,
    pub(crate) identitytoken: String,
}

/// A context as it lies on disk.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Context {
    pub(crate) name: String,
    pub(crate) metadata: serde_json::Map<String, serde_json::Value>,
    pub(crate) endpoints: BTreeMap<String, Endpoint>,
}

/// How a context reaches its daemon.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct Endpoint {
    #[serde(rename = "Host")]
    pub(crate) host: String,
    #[serde(rename = "SkipTLSVerify")]
    pub(crate) skip_tls_verify: bool,
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
        let dir = match global.config.clone().or_else(|| env("DOCKER_CONFIG")) {
            Some(dir) => PathBuf::from(dir),
            None => PathBuf::from(env("HOME").unwrap_or_else(|| "/".to_string())).join(".docker"),
        };
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
        let host = match (context.as_str(), flag) {
            ("default", Some(host)) => host,
            ("default", None) => env("DOCKER_HOST").unwrap_or_else(|| DEFAULT_HOST.to_string()),
            (name, _) => endpoint(&dir, name)?.host,
        };
        let tls = global.tls || global.tlsverify || env("DOCKER_TLS_VERIFY").is_some();
        Ok(Config {
            host: full(&host),
            dir,
            file,
            context,
            api_version: env("DOCKER_API_VERSION"),
            platform: env("DOCKER_DEFAULT_PLATFORM").unwrap_or_default(),
            tls,
        })
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

/// The file that holds a context.
pub(crate) fn context_path(dir: &Path, name: &str) -> PathBuf {
    let digest: String = Sha256::digest(name.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    dir.join("contexts/meta").join(digest).join("meta.json")
}

/// Reads a context by name.
pub(crate) fn context(dir: &Path, name: &str) -> Result<Context, ConfigError> {
    let path = context_path(dir, name);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            return Err(ConfigError::NoContext {
                name: name.to_string(),
                path,
            });
        }
        Err(source) => {
            return Err(ConfigError::ReadContext {
                name: name.to_string(),
                path,
                source,
            });
        }
    };
    serde_json::from_str(&text).map_err(|source| ConfigError::ParseContext {
        name: name.to_string(),
        path,
        source,
    })
}

fn endpoint(dir: &Path, name: &str) -> Result<Endpoint, ConfigError> {
    let context = context(dir, name)?;
    context
        .endpoints
        .get("docker")
        .cloned()
        .ok_or_else(|| ConfigError::NoEndpoint {
            name: name.to_string(),
        })
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
        let path = context_path(dir, name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = format!(
            r#"{{"Name":"{name}","Metadata":{{}},"Endpoints":{{"docker":{{"Host":"{host}","SkipTLSVerify":false}}}}}}"#
        );
        std::fs::write(path, text).unwrap();
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
