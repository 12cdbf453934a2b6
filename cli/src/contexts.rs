//! Named daemons, in the files that docker's own CLI shares.
//!
//! ```text
//! contexts/meta/<sha256 of the name>/meta.json           0644  name, description, the daemon's address
//! contexts/tls/<sha256 of the name>/docker/{ca,cert,key}.pem  0600  what TLS needs
//! ```
//!
//! A context is written as a whole: the new file replaces the old one. What this program does not know in a file stays in it.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::archive::plain;

/// The kind of endpoint that this program uses.
const DOCKER: &str = "docker";

/// Why a context could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContextError {
    #[error("context {name:?}: context not found: open {}: no such file or directory", path.display())]
    NotFound { name: String, path: PathBuf },
    #[error("context {name:?}: {what} {}: {}", path.display(), plain(source))]
    File {
        name: String,
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("context {name:?}: parse {}: {source}", path.display())]
    Parse {
        name: String,
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("context {name:?} has no endpoint of kind docker")]
    NoEndpoint { name: String },
    #[error("invalid context file: {0}")]
    Archive(String),
}

/// A context as it lies on disk.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Context {
    pub(crate) name: String,
    pub(crate) metadata: Map<String, Value>,
    pub(crate) endpoints: BTreeMap<String, Endpoint>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// How a context reaches its daemon.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Endpoint {
    #[serde(rename = "Host")]
    pub(crate) host: String,
    #[serde(rename = "SkipTLSVerify")]
    pub(crate) skip_tls_verify: bool,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl Endpoint {
    pub(crate) fn new(host: String, skip_tls_verify: bool) -> Endpoint {
        Endpoint {
            host,
            skip_tls_verify,
            unknown: Map::new(),
        }
    }
}

impl Context {
    pub(crate) fn new(name: &str, description: &str, endpoint: Endpoint) -> Context {
        let mut context = Context {
            name: name.to_string(),
            ..Context::default()
        };
        context.describe(description);
        context.endpoints.insert(DOCKER.to_string(), endpoint);
        context
    }

    pub(crate) fn description(&self) -> &str {
        let text = self.metadata.get("Description").and_then(Value::as_str);
        text.unwrap_or_default()
    }

    /// Sets the description, or leaves it if there is nothing to say.
    pub(crate) fn describe(&mut self, text: &str) {
        if !text.is_empty() {
            self.metadata.insert("Description".to_string(), text.into());
        }
    }

    pub(crate) fn endpoint(&self) -> Result<&Endpoint, ContextError> {
        self.endpoints
            .get(DOCKER)
            .ok_or_else(|| ContextError::NoEndpoint {
                name: self.name.clone(),
            })
    }

    pub(crate) fn set_endpoint(&mut self, endpoint: Endpoint) {
        self.endpoints.insert(DOCKER.to_string(), endpoint);
    }
}

/// The PEM texts that TLS needs, each optional.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct TlsMaterial {
    pub(crate) ca: Option<Vec<u8>>,
    pub(crate) cert: Option<Vec<u8>>,
    pub(crate) key: Option<Vec<u8>>,
}

impl TlsMaterial {
    pub(crate) fn is_empty(&self) -> bool {
        *self == TlsMaterial::default()
    }

    /// Those that are there, with the names of their files, sorted.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&'static str, &Vec<u8>)> {
        [
            ("ca.pem", &self.ca),
            ("cert.pem", &self.cert),
            ("key.pem", &self.key),
        ]
        .into_iter()
        .filter_map(|(name, text)| Some((name, text.as_ref()?)))
    }

    fn slot(&mut self, name: &str) -> Option<&mut Option<Vec<u8>>> {
        match name {
            "ca.pem" => Some(&mut self.ca),
            "cert.pem" => Some(&mut self.cert),
            "key.pem" => Some(&mut self.key),
            _ => None,
        }
    }
}

/// All contexts of one configuration folder.
#[derive(Debug, Clone)]
pub(crate) struct Contexts {
    dir: PathBuf,
}

impl Contexts {
    pub(crate) fn new(config: &Path) -> Contexts {
        Contexts {
            dir: config.join("contexts"),
        }
    }

    /// The folder of a context's description.
    pub(crate) fn meta(&self, name: &str) -> PathBuf {
        self.dir.join("meta").join(digest(name))
    }

    /// The folder of a context's secrets.
    pub(crate) fn tls(&self, name: &str) -> PathBuf {
        self.dir.join("tls").join(digest(name))
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.meta(name).join("meta.json").exists()
    }

    pub(crate) fn read(&self, name: &str) -> Result<Context, ContextError> {
        let path = self.meta(name).join("meta.json");
        let text = std::fs::read_to_string(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ContextError::NotFound {
                name: name.to_string(),
                path: path.clone(),
            },
            _ => failed(name, "read", &path)(source),
        })?;
        parse(name, &path, &text)
    }

    /// What lies on disk, by name; each that cannot be read as the reason.
    pub(crate) fn all(&self) -> Vec<Result<Context, ContextError>> {
        let entries = std::fs::read_dir(self.dir.join("meta"));
        let mut out: Vec<Result<Context, ContextError>> = entries
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                let path = entry.path().join("meta.json");
                let text = std::fs::read_to_string(&path).map_err(failed(&name, "read", &path))?;
                parse(&name, &path, &text)
            })
            .collect();
        out.sort_by_key(|found| found.as_ref().map_or(String::new(), |c| c.name.clone()));
        out
    }

    /// Writes a context, new or changed.
    pub(crate) fn write(&self, context: &Context) -> Result<(), ContextError> {
        let name = &context.name;
        let dir = self.meta(name);
        let path = dir.join("meta.json");
        std::fs::create_dir_all(&dir).map_err(failed(name, "make", &dir))?;
        let text = serde_json::to_vec(context).expect("keys are strings");
        replace(&path, &text, 0o644).map_err(failed(name, "write", &path))
    }

    pub(crate) fn read_tls(&self, name: &str) -> Result<TlsMaterial, ContextError> {
        let mut out = TlsMaterial::default();
        for file in ["ca.pem", "cert.pem", "key.pem"] {
            let path = self.tls(name).join(DOCKER).join(file);
            match std::fs::read(&path) {
                Ok(text) => *out.slot(file).expect("one of the three") = Some(text),
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                Err(cause) => return Err(failed(name, "read", &path)(cause)),
            }
        }
        Ok(out)
    }

    /// Replaces the secrets of a context.
    pub(crate) fn write_tls(&self, name: &str, tls: &TlsMaterial) -> Result<(), ContextError> {
        let dir = self.tls(name).join(DOCKER);
        remove(name, &dir)?;
        if tls.is_empty() {
            return Ok(());
        }
        private_dir(&dir).map_err(failed(name, "make", &dir))?;
        for (file, text) in tls.files() {
            let path = dir.join(file);
            replace(&path, text, 0o600).map_err(failed(name, "write", &path))?;
        }
        Ok(())
    }

    /// Removes a context with its secrets.
    pub(crate) fn remove(&self, name: &str) -> Result<(), ContextError> {
        remove(name, &self.tls(name))?;
        remove(name, &self.meta(name))
    }

    /// A context as the tar that `import` takes.
    pub(crate) fn export(&self, name: &str) -> Result<Vec<u8>, ContextError> {
        let context = self.read(name)?;
        let tls = self.read_tls(name)?;
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |path: &str, mode: u32, kind: tar::EntryType, text: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(text.len() as u64);
            tar.append_data(&mut header, path, text)
        };
        let text = serde_json::to_vec(&context).expect("keys are strings");
        let file = tar::EntryType::Regular;
        let folder = tar::EntryType::Directory;
        add("meta.json", 0o644, file, &text)
            .and_then(|()| add("tls", 0o700, folder, &[]))
            .and_then(|()| match tls.is_empty() {
                true => Ok(()),
                false => add("tls/docker", 0o700, folder, &[]),
            })
            .and_then(|()| {
                tls.files().try_for_each(|(name, text)| {
                    add(&format!("tls/docker/{name}"), 0o600, file, text)
                })
            })
            .and_then(|()| tar.into_inner())
            .map_err(|cause| ContextError::Archive(cause.to_string()))
    }

    /// Takes an exported context in under a name.
    pub(crate) fn import(&self, name: &str, from: impl Read) -> Result<(), ContextError> {
        /// More than any context has; an archive cannot fill the memory.
        const MOST: u64 = 10 << 20;
        let wrong = |cause: io::Error| ContextError::Archive(cause.to_string());
        let (mut context, mut tls) = (None, TlsMaterial::default());
        let mut archive = tar::Archive::new(from.take(MOST));
        for entry in archive.entries().map_err(wrong)? {
            let mut entry = entry.map_err(wrong)?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let path = entry.path().map_err(wrong)?.to_string_lossy().into_owned();
            let mut text = Vec::new();
            entry.read_to_end(&mut text).map_err(wrong)?;
            if path == "meta.json" {
                let parsed: Context = serde_json::from_slice(&text)
                    .map_err(|cause| ContextError::Archive(format!("meta.json: {cause}")))?;
                context = Some(parsed);
            } else if let Some(slot) = path
                .strip_prefix("tls/docker/")
                .and_then(|file| tls.slot(file))
            {
                *slot = Some(text);
            }
        }
        let mut context =
            context.ok_or_else(|| ContextError::Archive("no meta.json in it".to_string()))?;
        context.name = name.to_string();
        self.write_tls(name, &tls)?;
        self.write(&context)
    }
}

fn parse(name: &str, path: &Path, text: &str) -> Result<Context, ContextError> {
    serde_json::from_str(text).map_err(|source| ContextError::Parse {
        name: name.to_string(),
        path: path.to_path_buf(),
        source,
    })
}

/// Removes a folder with all in it; one that is not there is no error.
fn remove(name: &str, dir: &Path) -> Result<(), ContextError> {
    match std::fs::remove_dir_all(dir) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(failed(name, "remove", dir)(cause))
        }
        _ => Ok(()),
    }
}

fn failed<'a>(
    name: &'a str,
    what: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> ContextError + 'a {
    move |source| ContextError::File {
        name: name.to_string(),
        what,
        path: path.to_path_buf(),
        source,
    }
}

fn digest(name: &str) -> String {
    Sha256::digest(name.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Makes a folder, and those above it that are missing, for the owner only.
fn private_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Replaces a file as a whole.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let partial = path.with_extension(format!("new{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&partial)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&partial, path));
    if written.is_err() {
        // The first failure is what matters.
        let _ = std::fs::remove_file(&partial);
    }
    written
}

/// Whether a context may have this name: `^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$`, as docker has it.
pub(crate) fn valid_name(name: &str) -> bool {
    name.len() > 1
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.+-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_exported_can_be_imported() {
        let dir = tempfile::tempdir().unwrap();
        let contexts = Contexts::new(dir.path());
        let endpoint = Endpoint::new("tcp://x:1".to_string(), true);
        contexts
            .write(&Context::new("one", "first", endpoint.clone()))
            .unwrap();
        let tls = TlsMaterial {
            ca: Some(b"ca".to_vec()),
            ..TlsMaterial::default()
        };
        contexts.write_tls("one", &tls).unwrap();
        let tar = contexts.export("one").unwrap();
        contexts.import("two", &tar[..]).unwrap();
        let two = contexts.read("two").unwrap();
        assert_eq!((two.name.as_str(), two.description()), ("two", "first"));
        assert_eq!(two.endpoint().unwrap(), &endpoint);
        assert_eq!(contexts.read_tls("two").unwrap(), tls);
        // docker's CLI leaves the end-of-archive blocks out.
        contexts.import("three", &tar[..tar.len() - 1024]).unwrap();
        assert_eq!(contexts.all().len(), 3);
        contexts.remove("two").unwrap();
        assert!(!contexts.exists("two") && !contexts.tls("two").exists());
        assert!(contexts.import("bad", &b"nothing"[..]).is_err());
    }

    #[test]
    fn what_others_wrote_stays() {
        let dir = tempfile::tempdir().unwrap();
        let contexts = Contexts::new(dir.path());
        let path = contexts.meta("a1").join("meta.json");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = r#"{"Name":"a1","Metadata":{"Stack":1},"Endpoints":{"docker":{"Host":"x","SkipTLSVerify":false,"More":2},"kubernetes":{"Host":"","SkipTLSVerify":false}},"Later":3}"#;
        std::fs::write(&path, text).unwrap();
        let mut read = contexts.read("a1").unwrap();
        read.describe("");
        contexts.write(&read).unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), text);
    }

    #[test]
    fn names_are_dockers() {
        assert!(valid_name("a1") && valid_name("box.example+x_y-z"));
        for bad in ["a", "", "-a", "a b", "ä1"] {
            assert!(!valid_name(bad), "{bad}");
        }
    }
}
