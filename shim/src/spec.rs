//! The few things the shim reads of a container's OCI spec. The rest is the runtime's business.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::file::{self, FileError};

/// The spec cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpecError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("parse {}", path.display())]
    Parse {
        path: PathBuf,
        source: serde_json::Error,
    },
}

/// What is read of `config.json`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Spec {
    #[serde(default)]
    annotations: Option<HashMap<String, String>>,
    #[serde(default)]
    linux: Option<Linux>,
}

#[derive(Debug, Default, Deserialize)]
struct Linux {
    #[serde(default)]
    namespaces: Option<Vec<Namespace>>,
}

#[derive(Debug, Deserialize)]
struct Namespace {
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    path: String,
}

impl Spec {
    /// Reads the spec in `bundle`.
    pub(crate) fn load(bundle: &Path) -> Result<Self, SpecError> {
        let path = bundle.join(proto::layout::CONFIG);
        let json = file::read(&path)?;
        Self::parse(path, &json)
    }

    /// Reads the spec in `bundle` if there is one.
    pub(crate) fn load_optional(bundle: &Path) -> Result<Self, SpecError> {
        let path = bundle.join(proto::layout::CONFIG);
        match file::read_optional(&path)? {
            None => Ok(Self::default()),
            Some(json) => Self::parse(path, &json),
        }
    }

    fn parse(path: PathBuf, json: &[u8]) -> Result<Self, SpecError> {
        serde_json::from_slice(json).map_err(|source| SpecError::Parse { path, source })
    }

    /// The group of containers that share a shim, as annotations name it.
    pub(crate) fn group(self) -> Option<String> {
        let mut annotations = self.annotations.unwrap_or_default();
        [
            "io.containerd.runc.v2.group",
            "io.kubernetes.cri.sandbox-id",
        ]
        .iter()
        .find_map(|key| annotations.remove(*key))
        .filter(|group| !group.is_empty())
    }

    /// Whether the container gets a new pid namespace.
    pub(crate) fn has_private_pids(&self) -> bool {
        let linux = self.linux.as_ref();
        let mut namespaces = linux
            .and_then(|l| l.namespaces.as_ref())
            .into_iter()
            .flatten();
        namespaces.any(|n| n.r#type == "pid" && n.path.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Spec, SpecError> {
        let bundle = tempfile::tempdir().unwrap();
        std::fs::write(bundle.path().join("config.json"), json).unwrap();
        Spec::load(bundle.path())
    }

    #[test]
    fn annotations_name_the_group() {
        let group = |json: &str| parse(json).unwrap().group();
        let pod = r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}"#;
        assert_eq!(group(pod).as_deref(), Some("pod"));
        assert_eq!(group(r#"{"annotations":null}"#), None);
        assert!(parse("{").is_err());
        let none = Spec::load_optional(Path::new("/nonexistent")).unwrap();
        assert_eq!(none.group(), None);
    }

    #[test]
    fn a_pid_namespace_is_private_if_it_is_new() {
        let private = |json: &str| parse(json).unwrap().has_private_pids();
        assert!(private(
            r#"{"linux":{"namespaces":[{"type":"mount"},{"type":"pid"}]}}"#
        ));
        assert!(!private(
            r#"{"linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"}]}}"#
        ));
        assert!(!private(r#"{"linux":{"namespaces":null}}"#));
        assert!(!private("{}"));
    }
}
