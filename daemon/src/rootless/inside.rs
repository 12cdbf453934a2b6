//! What the daemon knows of being rootless: who its parent is, and what that does for it.
//!
//! The parent is our own or rootlesskit; both say where their state directory is by the same variable, and both serve the
//! same questions on a socket there.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The variable by which a parent names its state directory.
pub(crate) const STATE_DIR: &str = "ROOTLESSKIT_STATE_DIR";

/// The daemon's place below a parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rootless {
    /// The parent's state directory.
    pub(crate) state_dir: PathBuf,
    /// The network namespace that is kept apart from the one in which we were started.
    pub(crate) netns: Option<PathBuf>,
    /// Where the user's sockets go.
    pub(crate) runtime_dir: PathBuf,
    /// Where the user's data goes.
    pub(crate) data_home: PathBuf,
    /// Where the user's configuration is.
    pub(crate) config_home: PathBuf,
    /// Limits work.
    pub(crate) cgroups: bool,
}

impl Rootless {
    /// Reads the environment; none if no parent says anything.
    pub(crate) fn of_environment() -> Result<Option<Self>> {
        let Some(state_dir) = std::env::var_os(STATE_DIR).filter(|dir| !dir.is_empty()) else {
            return Ok(None);
        };
        let state_dir = PathBuf::from(state_dir);
        let user = super::user::User::of_environment()?;
        if !state_dir.is_absolute() {
            return Err(Error::invalid(format!(
                "{STATE_DIR} {} is not an absolute path",
                state_dir.display()
            )));
        }
        let netns = Some(state_dir.join("netns")).filter(|netns| is_another(netns));
        Ok(Some(Self {
            netns,
            state_dir,
            runtime_dir: user.runtime_dir,
            data_home: user.data_home,
            config_home: user.config_home,
            cgroups: has_cgroups(),
        }))
    }

    /// Asks the parent something on its socket.
    pub(crate) async fn ask(&self, path: &str) -> Result<serde_json::Value> {
        self.tell("GET", path, None).await
    }

    /// Tells the parent something on its socket.
    pub(crate) async fn tell(
        &self,
        method: &str,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<serde_json::Value> {
        super::client::call(&self.state_dir.join("api.sock"), method, path, body).await
    }

    /// The resolver's file for containers: the parent's own, where the network is kept apart.
    pub(crate) fn resolv(&self) -> Option<PathBuf> {
        let path = self.state_dir.join("resolv.conf");
        (self.netns.is_some() && path.exists()).then_some(path)
    }
}

/// Whether a pinned network namespace is there that is not the one we are in.
fn is_another(netns: &Path) -> bool {
    let id = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    let (pinned, own) = (id(netns), id(Path::new("/proc/self/ns/net")));
    pinned.is_some() && pinned != own && pinned.map(|p| p.0) == own.map(|o| o.0)
}

/// The highest group id of our user namespace.
pub(crate) fn last_group() -> u32 {
    last(&std::fs::read_to_string("/proc/self/gid_map").unwrap_or_default())
}

fn last(map: &str) -> u32 {
    let line = |line: &str| {
        let mut words = line.split_whitespace().map(str::parse::<u32>);
        let (inside, _, count) = (words.next()?.ok()?, words.next()?, words.next()?.ok()?);
        inside.checked_add(count)?.checked_sub(1)
    };
    // Without a map, or with one that cannot be read, all of them are there.
    map.lines().filter_map(line).max().unwrap_or(u32::MAX)
}

/// Whether cgroups with limits may be made here: where the one that we are in has been handed to us.
pub(crate) fn has_cgroups() -> bool {
    let writable =
        |path: &str| nix::unistd::access(Path::new(path), nix::unistd::AccessFlags::W_OK).is_ok();
    // Version 1 cannot be handed to a user safely, and nobody does.
    crate::container::start::cgroup_v2()
        && ["cgroup.procs", "cgroup.subtree_control"]
            .iter()
            .all(|file| writable(&format!("/sys/fs/cgroup/{file}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_group_is_the_end_of_the_map() {
        assert_eq!(last("0 1000 1\n1 100000 65536\n"), 65536);
        assert_eq!(last("0 0 4294967295\n"), 4_294_967_294);
        assert_eq!(last(""), u32::MAX);
    }
}
