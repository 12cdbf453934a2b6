//! The cgroup of a container.
//!
//! One [`Cgroup`] over two kernels' worlds: [`v1`], a directory per controller
//! hierarchy, and [`v2`], one directory for all. Which one it is gets decided
//! once, from the file system type of /sys/fs/cgroup; nothing above this module
//! asks. A hybrid machine (v1 hierarchies beside a cgroup2 mount at `unified`)
//! counts as v1 whatever that mount holds, and the unified hierarchy is joined too.
//!
//! ```text
//!  locate(..)      where it will be; nothing is changed
//!     | state()    goes to state.json first, not yet owned
//!  create(limits)  directories, cpuset: all that must be there before a process is
//!     |            owned from here on
//!  entry()         any time from here on: for the process to go in by itself
//!  add_cloned(pid) where it could not all by itself
//!  apply(limits)   the other limits and the device rules
//!  update, freeze, thaw, pids, stats, kill_all
//!  remove()
//! ```
//!
//! The order is made for crashes: a `delete` that finds a state which is not
//! owned yet may remove empty directories at the recorded paths, but must not
//! kill anybody in them, since [`Cgroup::create`] refuses a cgroup that somebody
//! else populates and may not have come that far.
//!
//! Only what is asked for is opened and written. Nothing here reads mountinfo
//! unless a hierarchy is not where everybody mounts it.

mod devices;
mod dir;
mod entry;
mod error;
#[cfg(test)]
pub(crate) mod fuzzed;
mod locate;
mod stats;
mod v1;
mod v2;

use std::collections::BTreeMap;
use std::path::PathBuf;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

pub(crate) use entry::Entry;
pub use error::CgroupError;
pub use stats::Stats;

use crate::spec::resources::LinuxResources;
use v1::V1;
use v2::V2;

/// What decides where a container's cgroup lies.
#[derive(Clone, Copy, Debug, Default)]
pub struct Placement<'a> {
    /// `linux.cgroupsPath`: absolute from the root of the hierarchies, relative
    /// from the caller's own cgroup; empty for the id.
    pub cgroups_path: Option<&'a str>,
    /// The container's id.
    pub id: &'a str,
    /// Whether systemd was asked to make the cgroup.
    pub systemd: bool,
    /// Whether hierarchies that the caller may not write to are to be left out.
    pub rootless: bool,
}

/// A cgroup as written into state.json.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CgroupState {
    /// 1 for one directory per hierarchy, 2 for the unified one.
    pub hierarchy: u8,
    /// Whether the directories are known to be this container's.
    pub owned: bool,
    /// Directory by controller; the unified hierarchy's key is empty.
    pub paths: BTreeMap<String, PathBuf>,
    /// What a newer version wrote.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

/// What a mount of type `cgroup` inside the container shows of one hierarchy.
#[derive(Clone, Debug, PartialEq)]
pub struct HierarchyMount {
    /// Name of the directory under /sys/fs/cgroup; empty for the unified hierarchy.
    pub name: String,
    /// Mount data that selects the hierarchy: `cpu,cpuacct`, `none,name=systemd`.
    pub data: String,
    /// The container's own directory in it, on the host.
    pub source: PathBuf,
    /// Further names that lead to `name`: `cpu` and `cpuacct`.
    pub links: Vec<String>,
}

/// The cgroup of one container.
#[derive(Debug)]
pub struct Cgroup {
    owned: bool,
    unknown: BTreeMap<String, serde_json::Value>,
    driver: Driver,
}

#[derive(Debug)]
enum Driver {
    V1(V1),
    V2(V2),
}

/// Calls the same method of whichever driver is in use.
macro_rules! either {
    ($driver:expr, $it:ident => $call:expr) => {
        match $driver {
            Driver::V1($it) => $call,
            Driver::V2($it) => $call,
        }
    };
}

impl Cgroup {
    /// Finds where the cgroup of a container will be. Changes nothing.
    pub fn locate(placement: &Placement<'_>) -> Result<Self, CgroupError> {
        if placement.systemd {
            return Err(CgroupError::Systemd);
        }
        let driver = match locate::find(placement)? {
            locate::Found::V1(hierarchies) => Driver::V1(V1::new(hierarchies)),
            locate::Found::V2(dir) => Driver::V2(V2::new(dir)),
        };
        Ok(Self {
            owned: false,
            unknown: BTreeMap::new(),
            driver,
        })
    }

    /// Takes up a cgroup recorded in state.json.
    #[must_use]
    pub fn load(state: &CgroupState) -> Self {
        let driver = match state.hierarchy {
            2 => Driver::V2(V2::load(&state.paths)),
            _ => Driver::V1(V1::load(&state.paths)),
        };
        Self {
            owned: state.owned,
            unknown: state.unknown.clone(),
            driver,
        }
    }

    /// What to write into state.json.
    #[must_use]
    pub fn state(&self) -> CgroupState {
        let (hierarchy, paths) = match &self.driver {
            Driver::V1(v1) => (1, v1.paths()),
            Driver::V2(v2) => (2, v2.paths()),
        };
        CgroupState {
            hierarchy,
            owned: self.owned,
            paths,
            unknown: self.unknown.clone(),
        }
    }

    /// Makes the directories and sets what a process needs to be let in. One
    /// that exists is taken only if nobody is in it and it is not frozen. On
    /// failure nothing that this call made stays.
    pub fn create(
        &mut self,
        placement: &Placement<'_>,
        limits: &LinuxResources,
    ) -> Result<(), CgroupError> {
        either!(&mut self.driver, d => d.create(limits, placement.rootless))?;
        self.owned = true;
        Ok(())
    }

    /// Moves a process into the cgroup.
    pub fn add(&self, pid: Pid) -> Result<(), CgroupError> {
        either!(&self.driver, d => d.add(pid))
    }

    /// Moves a process into a group below the cgroup, as `exec --cgroup` asks.
    /// `controllers` names the hierarchies on v1; empty for all.
    pub fn add_below(&self, pid: Pid, controllers: &[&str], sub: &str) -> Result<(), CgroupError> {
        let sub = locate::clean(sub);
        either!(&self.driver, d => d.add_below(pid, controllers, &sub))
    }

    /// Opens what a new process needs to go in by itself.
    pub(crate) fn entry(&self) -> Result<Entry, CgroupError> {
        either!(&self.driver, d => d.entry())
    }

    /// Moves a process that entered by itself into what it should have been
    /// cloned into, where the kernel did not do that.
    pub(crate) fn add_cloned(&self, pid: Pid) -> Result<(), CgroupError> {
        either!(&self.driver, d => d.add_cloned(pid))
    }

    /// Sets all limits and the device rules of a new container.
    pub fn apply(&self, limits: &LinuxResources) -> Result<(), CgroupError> {
        either!(&self.driver, d => d.apply(limits))
    }

    /// Changes the given limits of a container that runs. Device rules stay.
    pub fn update(&self, limits: &LinuxResources) -> Result<(), CgroupError> {
        either!(&self.driver, d => d.update(limits))
    }

    /// Stops all processes and waits until they stand.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        either!(&self.driver, d => d.freeze())
    }

    /// Lets them run again.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        either!(&self.driver, d => d.thaw())
    }

    /// Whether the container is frozen or being frozen; false where there is no
    /// freezer or no cgroup any more.
    pub fn frozen(&self) -> Result<bool, CgroupError> {
        either!(&self.driver, d => d.frozen())
    }

    /// The processes of the cgroup, with those of the groups below it if
    /// `recursive`. Empty when the cgroup is gone.
    pub fn pids(&self, recursive: bool) -> Result<Vec<Pid>, CgroupError> {
        either!(&self.driver, d => d.pids(recursive))
    }

    /// Whether the cgroup is still there.
    #[must_use]
    pub fn exists(&self) -> bool {
        either!(&self.driver, d => d.exists())
    }

    /// Kills all processes, those in groups below too, and lets frozen ones die.
    /// Does nothing in a cgroup that may be somebody else's.
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        if !self.owned {
            return Ok(());
        }
        either!(&self.driver, d => d.kill_all())
    }

    /// Removes the directories and what is below them, killing whoever is left
    /// if the cgroup is known to be this container's. Gone already is fine.
    pub fn remove(&self) -> Result<(), CgroupError> {
        either!(&self.driver, d => d.remove(self.owned))
    }

    /// Usage figures, in the shape of `events --stats`.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        either!(&self.driver, d => d.stats())
    }

    /// How many processes the kernel killed here for lack of memory; `None`
    /// where it does not count them.
    pub fn oom_kills(&self) -> Result<Option<u64>, CgroupError> {
        either!(&self.driver, d => d.oom_kills())
    }

    /// Whether this is the unified hierarchy.
    #[must_use]
    pub fn unified(&self) -> bool {
        matches!(self.driver, Driver::V2(_))
    }

    /// What mounts of type `cgroup` inside the container are made of.
    #[must_use]
    pub fn mounts_for_container(&self) -> Vec<HierarchyMount> {
        either!(&self.driver, d => d.mounts_for_container())
    }
}

#[cfg(test)]
mod tests;
