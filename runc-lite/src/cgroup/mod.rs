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
//!  adopt(pid)      where it could not all by itself
//!  apply(limits)   the other limits and the device rules
//!  update, freeze, thaw, pids, stats, kill_all
//!  remove()
//! ```
//!
//! Where systemd is asked for ([`systemd`]), the group is made by it around the
//! first process, in [`Cgroup::adopt`]; all else is the same.
//!
//! The order is made for crashes: a `delete` that finds a state which is not
//! owned yet may remove empty directories at the recorded paths, but must not
//! kill anybody in them, since [`Cgroup::create`] refuses a cgroup that somebody
//! else populates and may not have come that far.
//!
//! Only what is asked for is opened and written. Nothing here reads mountinfo
//! unless a hierarchy is not where everybody mounts it.

mod delegate;
mod devices;
mod dir;
mod entry;
mod error;
#[cfg(test)]
pub(crate) mod fuzzed;
mod locate;
mod stats;
mod systemd;
mod tree;
mod v1;
mod v2;

use std::collections::BTreeMap;
use std::path::PathBuf;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

pub(crate) use delegate::owner;
pub(crate) use entry::Entry;
pub use error::CgroupError;
pub use stats::Stats;
pub use systemd::{DbusError, UnitState};
pub(crate) use v1::devices::in_user_namespace;

use crate::spec::resources::LinuxResources;
use systemd::Unit;
use v1::V1;
use v2::V2;

/// What decides where a container's cgroup lies.
#[derive(Clone, Copy, Debug, Default)]
pub struct Placement<'a> {
    /// `linux.cgroupsPath`: absolute from the root of the hierarchies, relative
    /// from the caller's own cgroup; empty for the id. With systemd
    /// `slice:prefix:name`.
    pub cgroups_path: Option<&'a str>,
    /// The container's id.
    pub id: &'a str,
    /// Whether systemd was asked to make the cgroup.
    pub systemd: bool,
    /// Whether hierarchies that the caller may not write to are to be left out.
    pub rootless: bool,
    /// Annotations, some of which are for systemd.
    pub annotations: Option<&'a BTreeMap<String, String>>,
    /// Who may rule over what is below the cgroup, as a user of the host.
    pub owner: Option<u32>,
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
    /// The unit, where systemd made the cgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitState>,
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
    unit: Option<Unit>,
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
        let (unit, found) = if placement.systemd {
            let (unit, path) = Unit::locate(placement)?;
            let path = std::path::Path::new("/").join(path);
            let at = Placement {
                cgroups_path: path.to_str(),
                ..*placement
            };
            (Some(unit), locate::find(&at)?)
        } else {
            (None, locate::find(placement)?)
        };
        let driver = match found {
            locate::Found::V1(hierarchies) => Driver::V1(V1::new(hierarchies)),
            locate::Found::V2(dir) => Driver::V2(V2::new(dir)),
        };
        Ok(Self {
            owned: false,
            unknown: BTreeMap::new(),
            unit,
            driver,
        })
    }

    /// Takes up a cgroup recorded in state.json. Whatever else the paths lead to is
    /// refused: we would remove directories there and kill whom a file there names.
    pub fn load(state: &CgroupState) -> Result<Self, CgroupError> {
        let mut last = None;
        // Controllers of one hierarchy stand side by side and have one path.
        for path in state.paths.values() {
            if last.replace(path) != Some(path) {
                locate::check_recorded(path)?;
            }
        }
        if state.hierarchy == 2 && state.paths.is_empty() {
            return Err(CgroupError::invalid("state.json", "no cgroup path"));
        }
        let driver = match state.hierarchy {
            2 => Driver::V2(V2::load(&state.paths)),
            _ => Driver::V1(V1::load(&state.paths)),
        };
        Ok(Self {
            owned: state.owned,
            unknown: state.unknown.clone(),
            unit: state.unit.as_ref().map(Unit::load),
            driver,
        })
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
            unit: self.unit.as_ref().map(|u| u.state().clone()),
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
        match (&mut self.driver, &mut self.unit) {
            (Driver::V1(v1), _) => v1.create(limits, placement.rootless)?,
            (Driver::V2(v2), None) => v2.create(limits, placement)?,
            // systemd makes the directory, with the process in it.
            (Driver::V2(v2), Some(_)) => v2.refuse_inhabited()?,
        }
        let (dir, unified) = self.unit_dir();
        if let Some(unit) = &mut self.unit {
            unit.prepare(placement, limits, &dir, unified)?;
        }
        self.owned = true;
        Ok(())
    }

    /// Where the files of the unit's limits are, and whether they are v2's.
    fn unit_dir(&self) -> (dir::Dir, bool) {
        match &self.driver {
            Driver::V1(_) => (dir::Dir::new(""), false),
            Driver::V2(v2) => (v2.dir().clone(), true),
        }
    }

    fn pending_unit(&mut self) -> Option<&mut Unit> {
        self.unit.as_mut().filter(|u| u.pending())
    }

    /// Moves a process into a group below the cgroup, as `exec --cgroup` asks.
    /// `controllers` names the hierarchies on v1; empty for all.
    pub fn add_below(&self, pid: Pid, controllers: &[&str], sub: &str) -> Result<(), CgroupError> {
        let sub = locate::clean(sub);
        either!(&self.driver, d => d.add_below(pid, controllers, &sub))
    }

    /// Opens what a new process needs to go in by itself.
    pub(crate) fn entry(&self) -> Result<Entry, CgroupError> {
        match (&self.driver, &self.unit) {
            // The unit begins with the process, so there is nothing to clone into yet.
            (Driver::V1(v1), Some(unit)) if unit.pending() => Ok(v1.entry()?.without_unified()),
            (Driver::V2(_), Some(unit)) if unit.pending() => Ok(Entry::default()),
            (driver, _) => either!(driver, d => d.entry()),
        }
    }

    /// Takes the container's first process, which entered by itself, into what it
    /// could not be cloned into.
    pub(crate) fn adopt(
        &mut self,
        pid: Pid,
        placement: &Placement<'_>,
        limits: &LinuxResources,
    ) -> Result<(), CgroupError> {
        if let Some(unit) = self.pending_unit() {
            let started = unit.start(pid);
            if started.is_err() {
                // Whoever has that unit has the group.
                self.owned = false;
            }
            started?;
            if let Driver::V2(v2) = &self.driver {
                return v2.outfit(limits, placement);
            }
        }
        either!(&self.driver, d => d.add(pid))
    }

    /// Takes in a further process, which entered by itself, where it could not be
    /// cloned into the cgroup. On v2 a group that has handed controllers down has no
    /// place for processes; then it goes where the first one, `init`, is.
    pub(crate) fn join(&self, pid: Pid, init: i32) -> Result<(), CgroupError> {
        let joined = match &self.driver {
            Driver::V1(v1) => v1.add(pid),
            Driver::V2(v2) => v2.join(pid, init),
        };
        match (joined, &self.unit) {
            // From a session of the user's own, only the user's systemd may move it.
            (Err(e), Some(unit)) if matches!(e.errno(), Some(libc::EACCES | libc::EPERM)) => {
                unit.attach(pid)
            }
            (joined, _) => joined,
        }
    }

    /// Sets all limits and the device rules of a new container.
    pub fn apply(&self, limits: &LinuxResources) -> Result<(), CgroupError> {
        either!(&self.driver, d => d.apply(limits))
    }

    /// Changes the given limits of a container that runs. Device rules stay.
    pub fn update(&self, limits: &LinuxResources) -> Result<(), CgroupError> {
        if let Some(unit) = &self.unit {
            let (dir, unified) = self.unit_dir();
            if let (true, Some(memory)) = (unified, &limits.memory) {
                v2::memory::check(&dir, memory)?;
            }
            unit.set(limits, &dir, unified)?;
        }
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

    /// Lets them run again, and those in groups below that were stopped there: a
    /// process that stands on v1 does not see a SIGKILL.
    pub fn thaw_all(&self) -> Result<(), CgroupError> {
        match &self.driver {
            Driver::V1(v1) => v1.thaw_all(),
            Driver::V2(v2) => v2.thaw(),
        }
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
        match &self.unit {
            Some(unit) if self.owned && !unit.pending() => {
                // Else systemd would ask those left to go, and wait.
                self.kill_all()?;
                let stopped = unit.stop();
                // A systemd that does not answer has forgotten the unit, or will drop it.
                either!(&self.driver, d => d.remove(true))?;
                if let Err(e) = stopped {
                    crate::log::warn(&crate::error::chain(&e));
                }
                Ok(())
            }
            _ => either!(&self.driver, d => d.remove(self.owned)),
        }
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
