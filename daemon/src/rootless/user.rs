//! Whose daemon it is, and where that user's files are.

use std::path::PathBuf;

use crate::error::{Error, Result};

/// The places of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) home: PathBuf,
    pub(crate) runtime_dir: PathBuf,
    pub(crate) data_home: PathBuf,
    pub(crate) config_home: PathBuf,
}

impl User {
    /// Reads the environment. Where no session manager has made a runtime directory, one below the home directory serves.
    pub(crate) fn of_environment() -> Result<Self> {
        Self::of(|name| std::env::var_os(name).map(PathBuf::from))
    }

    fn of(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<Self> {
        let absolute = |name: &str| variable(name).filter(|path| path.is_absolute());
        let home = absolute("HOME")
            .ok_or_else(|| Error::invalid("HOME is not set to an absolute path"))?;
        Ok(Self {
            runtime_dir: absolute("XDG_RUNTIME_DIR").unwrap_or_else(|| home.join(".docker/run")),
            data_home: absolute("XDG_DATA_HOME").unwrap_or_else(|| home.join(".local/share")),
            config_home: absolute("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config")),
            home,
        })
    }

    /// The socket on which this user's daemon listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.runtime_dir.join("docker.sock")
    }

    /// The state directory of the parent.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.runtime_dir.join("dockerd-lite-rootless")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_follow_from_home() {
        let user = User::of(|name| (name == "HOME").then(|| "/home/u".into())).unwrap();
        assert_eq!(
            user.socket().to_str(),
            Some("/home/u/.docker/run/docker.sock")
        );
        assert_eq!(user.data_home.to_str(), Some("/home/u/.local/share"));
        let user = User::of(|name| match name {
            "HOME" => Some("/home/u".into()),
            "XDG_RUNTIME_DIR" => Some("/run/user/7".into()),
            "XDG_DATA_HOME" => Some("relative".into()),
            _ => None,
        })
        .unwrap();
        assert_eq!(user.socket().to_str(), Some("/run/user/7/docker.sock"));
        assert_eq!(user.data_home.to_str(), Some("/home/u/.local/share"));
        assert!(User::of(|_| None).is_err());
    }
}
