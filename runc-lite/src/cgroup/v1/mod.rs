//! cgroup v1: a directory in each of several hierarchies.
//!
//! All directories are made before any process goes in, and the cpuset one is
//! given processors and memory nodes, since the kernel lets nobody into a group
//! that has none. A container is in every hierarchy it can be in, whether it
//! has limits there or not, so that it can be frozen, counted and found.

mod blkio;
pub(super) mod cpu;
pub(super) mod devices;
mod freezer;
mod memory;
pub(super) mod other;
pub(super) mod pids;
mod stats;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::dir::{Dir, remove_made};
use super::entry::Entry;
use super::locate::Hierarchy;
use super::{CgroupError, HierarchyMount, Stats};
use crate::spec::resources::LinuxResources;

/// The container's directories on a v1 machine.
#[derive(Debug)]
pub(super) struct V1 {
    hierarchies: Vec<Hierarchy>,
}

impl V1 {
    pub(super) fn new(hierarchies: Vec<Hierarchy>) -> Self {
        Self { hierarchies }
    }

    pub(super) fn load(paths: &BTreeMap<String, PathBuf>) -> Self {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for (controller, path) in paths {
            match hierarchies.iter_mut().find(|h| h.dir.path() == path) {
                Some(h) => h.controllers.push(controller.clone()),
                None => hierarchies.push(Hierarchy {
                    controllers: vec![controller.clone()],
                    dir: Dir::new(path),
                }),
            }
        }
        Self { hierarchies }
    }

    pub(super) fn paths(&self) -> BTreeMap<String, PathBuf> {
        let of = |h: &Hierarchy| {
            let path = h.dir.path().to_owned();
            h.controllers
                .clone()
                .into_iter()
                .map(move |c| (c, path.clone()))
                .collect::<Vec<_>>()
        };
        self.hierarchies.iter().flat_map(of).collect()
    }

    /// The directory of a controller.
    fn dir(&self, controller: &str) -> Option<&Dir> {
        self.hierarchies
            .iter()
            .find(|h| h.controllers.iter().any(|c| c == controller))
            .map(|h| &h.dir)
    }

    /// The directory of a controller that a limit was asked for.
    fn need(&self, controller: &str, field: &'static str) -> Result<&Dir, CgroupError> {
        self.dir(controller)
            .ok_or_else(|| CgroupError::unavailable(field, format!("the {controller} controller")))
    }

    pub(super) fn create(
        &mut self,
        limits: &LinuxResources,
        rootless: bool,
    ) -> Result<(), CgroupError> {
        if let Some(key) = limits.unified.keys().next() {
            let why = format!("{key:?} is for cgroup v2; this machine has v1");
            return Err(CgroupError::invalid("linux.resources.unified", why));
        }
        let mut made = Vec::new();
        let result = self.make_all(limits, rootless, &mut made);
        if result.is_err() {
            remove_made(&made);
        }
        result
    }

    fn make_all(
        &mut self,
        limits: &LinuxResources,
        rootless: bool,
        made: &mut Vec<Dir>,
    ) -> Result<(), CgroupError> {
        let mut refused = Vec::new();
        for (at, hierarchy) in self.hierarchies.iter().enumerate() {
            let new = match hierarchy.dir.make_all() {
                Ok(new) => new,
                // The unified hierarchy of a hybrid machine has no limits to offer; an
                // unprivileged caller goes without what it may not have.
                Err(e) if hierarchy.controllers == [""] || (rootless && denied(&e)) => {
                    crate::log::debug(|| crate::error::chain(&e));
                    refused.push(at);
                    continue;
                }
                Err(e) => return Err(e),
            };
            if new.is_empty() {
                refuse_inhabited(hierarchy)?;
            }
            let cpuset = hierarchy.controllers.iter().any(|c| c == "cpuset");
            made.extend(new.iter().cloned());
            if cpuset {
                cpu::open_cpuset(&hierarchy.dir, &new, limits.cpu.as_ref())?;
            }
            // Realtime shares must be there before a realtime process is.
            if hierarchy.controllers.iter().any(|c| c == "cpu") {
                cpu::set_realtime(&hierarchy.dir, limits.cpu.as_ref())?;
            }
        }
        for at in refused.into_iter().rev() {
            self.hierarchies.remove(at);
        }
        Ok(())
    }

    pub(super) fn entry(&self) -> Result<Entry, CgroupError> {
        let mut entry = Entry::default();
        for hierarchy in &self.hierarchies {
            match hierarchy.controllers.as_slice() {
                [unified] if unified.is_empty() => entry.open_unified(&hierarchy.dir)?,
                _ => entry.open(&hierarchy.dir)?,
            }
        }
        Ok(entry)
    }

    pub(super) fn add(&self, pid: Pid) -> Result<(), CgroupError> {
        // The unified hierarchy is a guest here: nothing is limited or counted by it.
        if let Some(Err(e)) = self.dir("").map(|dir| dir.add(pid)) {
            crate::log::debug(|| crate::error::chain(&e));
        }
        Ok(())
    }

    pub(super) fn add_below(
        &self,
        pid: Pid,
        controllers: &[&str],
        sub: &Path,
    ) -> Result<(), CgroupError> {
        for name in controllers {
            self.need(name, "exec --cgroup")?;
        }
        for hierarchy in &self.hierarchies {
            let wanted = controllers.is_empty()
                || hierarchy
                    .controllers
                    .iter()
                    .any(|c| controllers.contains(&c.as_str()));
            if wanted {
                hierarchy.dir.below(sub).add(pid)?
            } else {
                hierarchy.dir.add(pid)?
            }
        }
        Ok(())
    }

    pub(super) fn apply(&self, limits: &LinuxResources) -> Result<(), CgroupError> {
        if let Some(dir) = self.dir("devices") {
            devices::set(dir, &limits.devices)?;
        } else if !limits.devices.is_empty() {
            crate::log::debug(|| "no devices controller: device rules are not applied".to_owned());
        }
        self.set_limits(limits)
    }

    pub(super) fn update(&self, limits: &LinuxResources) -> Result<(), CgroupError> {
        if let Some(cpu) = &limits.cpu
            && (cpu.cpus.is_some() || cpu.mems.is_some())
        {
            cpu::set_cpuset(self.need("cpuset", "linux.resources.cpu.cpus")?, cpu)?;
        }
        if let Some(dir) = self.dir("cpu") {
            cpu::set_realtime(dir, limits.cpu.as_ref())?;
        }
        self.set_limits(limits)
    }

    fn set_limits(&self, limits: &LinuxResources) -> Result<(), CgroupError> {
        if let Some(memory) = &limits.memory {
            memory::set(self, memory)?;
        }
        if let Some(cpu) = &limits.cpu {
            cpu::set(self, cpu)?;
        }
        if let Some(limit) = limits.pids.as_ref().and_then(|p| p.limit) {
            pids::set(self.need("pids", "linux.resources.pids.limit")?, limit)?;
        }
        if let Some(io) = &limits.block_io {
            blkio::set(self, io)?;
        }
        other::set(self, limits)
    }

    pub(super) fn freeze(&self) -> Result<(), CgroupError> {
        freezer::freeze(self.need("freezer", "pause")?)
    }

    pub(super) fn thaw(&self) -> Result<(), CgroupError> {
        freezer::thaw(self.need("freezer", "resume")?)
    }

    pub(super) fn thaw_all(&self) -> Result<(), CgroupError> {
        self.dir("freezer").map_or(Ok(()), freezer::thaw_all)
    }

    pub(super) fn frozen(&self) -> Result<bool, CgroupError> {
        self.dir("freezer").map_or(Ok(false), freezer::frozen)
    }

    /// One hierarchy stands for all: whoever is in one is in all.
    fn any(&self) -> Option<&Dir> {
        self.dir("devices")
            .or_else(|| self.hierarchies.iter().map(|h| &h.dir).find(|d| d.exists()))
    }

    pub(super) fn pids(&self, recursive: bool) -> Result<Vec<Pid>, CgroupError> {
        self.any()
            .map_or_else(|| Ok(Vec::new()), |d| d.pids(recursive))
    }

    pub(super) fn exists(&self) -> bool {
        self.any().is_some_and(Dir::exists)
    }

    pub(super) fn kill_all(&self) -> Result<(), CgroupError> {
        let freezer = self.dir("freezer").filter(|d| d.exists());
        // A process that is killed while it forks leaves a child behind, so: again,
        // until nobody is left. Standing still they cannot outrun us.
        for attempt in 0..10 {
            let pids = self.pids(true)?;
            if pids.is_empty() {
                return Ok(());
            }
            // A hybrid machine can kill all at once, forks under way included. Who is
            // not in that hierarchy is found below.
            if let Some(dir) = self.dir("").filter(|_| attempt == 0) {
                let _ = dir.write_if_there("cgroup.kill", "1");
            }
            if let Some(dir) = freezer.filter(|_| attempt > 0) {
                // Best effort: killing works on running ones as well.
                let _ = freezer::freeze(dir);
            }
            for pid in self.pids(true)? {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
            // The signal is only seen by those that run.
            if let Some(dir) = freezer {
                freezer::thaw_all(dir)?;
            }
            std::thread::sleep(Duration::from_millis(1 << attempt));
        }
        match self.pids(true)?.len() {
            0 => Ok(()),
            _ => Err(CgroupError::Timeout {
                path: self.any().map(|d| d.path().to_owned()).unwrap_or_default(),
                wanted: "empty after SIGKILL",
                ms: 1023,
            }),
        }
    }

    pub(super) fn remove(&self, owned: bool) -> Result<(), CgroupError> {
        let mut first = Ok(());
        for hierarchy in &self.hierarchies {
            if !owned {
                // Not known to be ours: what is in use stays as it is.
                let _ = hierarchy.dir.remove_empty();
                continue;
            }
            // All are tried; the first failure is told.
            let mut result = hierarchy.dir.remove();
            if result.is_err() {
                // Killed ones may stand in groups below.
                self.thaw_all()?;
                result = hierarchy.dir.remove();
            }
            if first.is_ok() {
                first = result;
            }
        }
        first
    }

    pub(super) fn stats(&self) -> Result<Stats, CgroupError> {
        stats::read(self)
    }

    pub(super) fn oom_kills(&self) -> Result<Option<u64>, CgroupError> {
        let Some(text) = self
            .dir("memory")
            .map_or(Ok(None), |d| d.read_if_there("memory.oom_control"))?
        else {
            return Ok(None);
        };
        Ok(super::stats::flat_keyed(&text).get("oom_kill").copied())
    }

    pub(super) fn mounts_for_container(&self) -> Vec<HierarchyMount> {
        self.hierarchies
            .iter()
            .filter(|h| h.controllers != [""])
            .map(|h| {
                let joined = h.controllers.join(",");
                let (name, data) = match joined.strip_prefix("name=") {
                    Some(name) => (name.to_owned(), format!("none,{joined}")),
                    None => (joined.clone(), joined),
                };
                let links = if h.controllers.len() > 1 {
                    h.controllers.clone()
                } else {
                    Vec::new()
                };
                HierarchyMount {
                    name,
                    data,
                    source: h.dir.path().to_owned(),
                    links,
                }
            })
            .collect()
    }
}

fn denied(e: &CgroupError) -> bool {
    matches!(e.errno(), Some(libc::EACCES | libc::EPERM | libc::EROFS))
}

/// A group that was there before must be nobody's home and must not stand still.
fn refuse_inhabited(hierarchy: &Hierarchy) -> Result<(), CgroupError> {
    let dir = &hierarchy.dir;
    let count = dir.pids(true)?.len();
    if count > 0 {
        return Err(CgroupError::NotEmpty {
            count,
            path: dir.path().to_owned(),
        });
    }
    if hierarchy.controllers.iter().any(|c| c == "freezer") && freezer::frozen(dir)? {
        return Err(CgroupError::Frozen {
            path: dir.path().to_owned(),
        });
    }
    Ok(())
}
