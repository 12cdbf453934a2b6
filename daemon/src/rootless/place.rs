//! The parent's state directory, and the processes that it leads to.
//!
//! | file | what |
//! |---|---|
//! | `lock` | held by the parent as long as it lives |
//! | `holder.lock`, `network.lock`, `daemon.lock` | held by these processes as long as they live: who holds one is found by it |
//! | `child_pid` | a process in the namespaces, for `nsenter` |
//! | `netns` | the network namespace, pinned; to be seen from inside only |
//! | `api.sock` | the parent's answers, as rootlesskit gives them |
//! | `resolv.conf` | name servers of what is in the network namespace |
//! | `settings.json` | what the namespaces and the network were made with |

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::error::{During, Result};
use crate::supervise;

/// The state directory.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) dir: PathBuf,
    /// Where the daemon in it has its exec-root: its containerd is one more process in the namespaces.
    exec_root: PathBuf,
}

/// What the namespaces and the network were made with; kept for whoever finds them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Settings {
    pub(super) version: u32,
    pub(super) network: super::network::Driver,
    pub(super) mtu: u32,
    #[serde(flatten)]
    pub(super) other: std::collections::BTreeMap<String, serde_json::Value>,
}

impl Place {
    pub(super) fn new(dir: PathBuf, exec_root: PathBuf) -> Self {
        Self { dir, exec_root }
    }
    pub(super) fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }
    pub(super) fn holder_lock(&self) -> PathBuf {
        self.dir.join("holder.lock")
    }
    pub(super) fn network_lock(&self) -> PathBuf {
        self.dir.join("network.lock")
    }
    pub(super) fn daemon_lock(&self) -> PathBuf {
        self.dir.join("daemon.lock")
    }
    pub(super) fn child_pid(&self) -> PathBuf {
        self.dir.join("child_pid")
    }
    pub(super) fn netns(&self) -> PathBuf {
        self.dir.join("netns")
    }
    pub(super) fn api(&self) -> PathBuf {
        self.dir.join("api.sock")
    }
    pub(super) fn resolv(&self) -> PathBuf {
        self.dir.join("resolv.conf")
    }
    /// Says that everything is being stopped.
    pub(super) fn stopping(&self) -> PathBuf {
        self.dir.join("stopping")
    }
    /// Where the helper of the networks is asked.
    pub(super) fn net_socket(&self) -> PathBuf {
        self.exec_root.join("net/net.sock")
    }
    fn settings(&self) -> PathBuf {
        self.dir.join("settings.json")
    }

    /// The process that holds the namespaces.
    pub(super) fn holder(&self) -> Result<Option<(Pid, OwnedFd)>> {
        supervise::find_pid(&self.holder_lock())
    }

    /// Any process in the namespaces.
    pub(super) fn inhabitant(&self) -> Result<Option<(Pid, OwnedFd)>> {
        match self.holder()? {
            Some(found) => Ok(Some(found)),
            None => self.other_inhabitant(),
        }
    }

    /// Any process in the namespaces but the holder. This is what the holder itself has to ask: whoever opens the file of a lock that it has
    /// loses the lock when it closes it.
    pub(super) fn other_inhabitant(&self) -> Result<Option<(Pid, OwnedFd)>> {
        let below = |name: &str| self.exec_root.join(name);
        for lock in [
            self.daemon_lock(),
            below("containerd/supervised.lock"),
            below("net/lock"),
        ] {
            if let Some(found) = supervise::find_pid(&lock)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    pub(super) fn read_settings(&self) -> Option<Settings> {
        let text = std::fs::read(self.settings()).ok()?;
        serde_json::from_slice(&text).ok()
    }

    pub(super) fn write_settings(&self, settings: &Settings) -> Result<()> {
        let text = serde_json::to_vec(settings)
            .map_err(|e| crate::error::Error::internal(format!("encode the settings: {e}")))?;
        self.write(&self.settings(), &text)
    }

    /// Writes a file of this directory, whole or not at all. It does not outlive the boot, so nothing is synced.
    pub(super) fn write(&self, path: &Path, content: &[u8]) -> Result<()> {
        crate::replace(path, content).during(|| format!("write {}", path.display()))
    }

    /// Removes what is in it, once nothing runs; the lock is the caller's.
    pub(super) fn clear(&self) {
        for path in [
            self.child_pid(),
            self.netns(),
            self.api(),
            self.resolv(),
            self.settings(),
            self.holder_lock(),
            self.network_lock(),
            self.daemon_lock(),
            self.lock(),
        ] {
            // Absent is as good, and the directory's removal shows what is left.
            let _ = std::fs::remove_file(path);
        }
        let _ = std::fs::remove_dir(&self.dir);
    }
}
