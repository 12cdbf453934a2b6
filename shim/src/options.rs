//! Runtime options: how a request carries them, how the bundle keeps them, and which binary and root they lead to.

use std::path::{Path, PathBuf};

use proto::containerd::runc::v1::Options;
use proto::layout::{self, program};
use serde::{Deserialize, Serialize};

use crate::file;

/// The runtime options cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OptionsError {
    #[error("runtime options: unsupported type {0:?}")]
    Type(String),
    #[error("decode runtime options")]
    Decode(#[source] prost::DecodeError),
    #[error("parse {}", path.display())]
    Parse {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error(transparent)]
    File(#[from] file::FileError),
}

/// The options of one container in the names of `options.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RuntimeOptions {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) no_pivot_root: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) no_new_keyring: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) shim_cgroup: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) io_uid: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) io_gid: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) binary_name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) root: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) systemd_cgroup: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) criu_image_path: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) criu_work_path: String,
    /// What other programs keep in the file.
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl RuntimeOptions {
    /// Reads what a request carries; none means defaults.
    pub(crate) fn from_any(any: Option<&prost_types::Any>) -> Result<Self, OptionsError> {
        let Some(any) = any.filter(|any| !any.type_url.is_empty()) else {
            return Ok(Self::default());
        };
        let options = proto::any::unpack::<Options>(any)
            .ok_or_else(|| OptionsError::Type(any.type_url.clone()))?
            .map_err(OptionsError::Decode)?;
        Ok(Self {
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            shim_cgroup: options.shim_cgroup,
            io_uid: options.io_uid,
            io_gid: options.io_gid,
            binary_name: options.binary_name,
            root: options.root,
            systemd_cgroup: options.systemd_cgroup,
            criu_image_path: options.criu_image_path,
            criu_work_path: options.criu_work_path,
            rest: serde_json::Map::new(),
        })
    }

    /// Writes `options.json` and `runtime` for the mode `delete`.
    pub(crate) fn store(&self, bundle: &Path) -> Result<(), OptionsError> {
        let path = bundle.join(layout::OPTIONS);
        let json = serde_json::to_vec(self).map_err(|source| OptionsError::Parse {
            path: path.clone(),
            source,
        })?;
        file::replace(&path, &json)?;
        file::replace(&bundle.join(layout::RUNTIME), self.binary_name.as_bytes())?;
        Ok(())
    }

    /// Reads them back; missing files mean defaults.
    pub(crate) fn load(bundle: &Path) -> Result<Self, OptionsError> {
        let path = bundle.join(layout::OPTIONS);
        let mut options: Self = match file::read_optional(&path)? {
            None => Self::default(),
            Some(json) => serde_json::from_slice(&json)
                .map_err(|source| OptionsError::Parse { path, source })?,
        };
        if options.binary_name.is_empty()
            && let Some(name) = file::read_optional(&bundle.join(layout::RUNTIME))?
        {
            options.binary_name = String::from_utf8_lossy(&name).trim().to_owned();
        }
        Ok(options)
    }

    /// The runtime to call: the one named, else `runc-lite` beside this program, else on PATH, else `runc`.
    pub(crate) fn binary(&self) -> PathBuf {
        if !self.binary_name.is_empty() {
            return PathBuf::from(&self.binary_name);
        }
        if let Ok(own) = std::env::current_exe() {
            let beside = own.with_file_name(program::RUNTIME);
            if beside.is_file() {
                return beside;
            }
        }
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&paths).any(|dir| dir.join(program::RUNTIME).is_file());
        PathBuf::from(if found { program::RUNTIME } else { "runc" })
    }

    /// The runtime's `--root`: as given, else beside the daemon's socket, so that two daemons with equal ids never meet.
    pub(crate) fn root(&self, address: &str, namespace: &str) -> PathBuf {
        let base = if self.root.is_empty() {
            state_directory(address).join("runc")
        } else {
            PathBuf::from(&self.root)
        };
        base.join(namespace)
    }
}

/// Folder of the daemon's socket; containerd's own if the address says nothing.
pub(crate) fn state_directory(address: &str) -> PathBuf {
    let path = Path::new(address.strip_prefix("unix://").unwrap_or(address));
    match path.parent() {
        Some(parent) if path.is_absolute() => parent.to_owned(),
        _ => PathBuf::from("/run/containerd"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_back_from_the_bundle() {
        let wire = proto::any::pack(&Options {
            binary_name: "runc".into(),
            root: "/run/docker/runtime-runc".into(),
            systemd_cgroup: true,
            ..Options::default()
        });
        let options = RuntimeOptions::from_any(Some(&wire)).unwrap();
        let bundle = tempfile::tempdir().unwrap();
        options.store(bundle.path()).unwrap();
        assert_eq!(RuntimeOptions::load(bundle.path()).unwrap(), options);
        assert_eq!(
            options.root("/run/c/c.sock", "moby"),
            Path::new("/run/docker/runtime-runc/moby")
        );
        assert_eq!(
            RuntimeOptions::load(Path::new("/nonexistent")).unwrap(),
            RuntimeOptions::default()
        );
    }

    #[test]
    fn unnamed_root_lies_beside_the_socket() {
        let options = RuntimeOptions::default();
        assert_eq!(
            options.root("/run/containerd/containerd.sock", "k8s.io"),
            Path::new("/run/containerd/runc/k8s.io")
        );
        assert_eq!(options.root("", "n"), Path::new("/run/containerd/runc/n"));
    }

    #[test]
    fn a_foreign_type_is_refused() {
        let any = proto::any::json("io.example.Options", Vec::new());
        assert!(matches!(
            RuntimeOptions::from_any(Some(&any)),
            Err(OptionsError::Type(_))
        ));
        let bad = proto::any::json("containerd.runc.v1.Options", vec![0xff]);
        assert!(matches!(
            RuntimeOptions::from_any(Some(&bad)),
            Err(OptionsError::Decode(_))
        ));
    }
}
