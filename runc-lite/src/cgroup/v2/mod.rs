//! cgroup v2: one directory for all controllers.
//!
//! A controller is there only if every group above hands it down, so making the
//! directory means walking from the root and switching on what is missing. A
//! process can then be cloned straight into it.

pub(super) mod cpu;
mod devices;
mod ebpf;
pub(super) mod io;
pub(super) mod memory;
mod other;
mod stats;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::dir::{Dir, remove_made};
use super::entry::Entry;
use super::{CgroupError, HierarchyMount, Placement, Stats, delegate};
use crate::spec::resources::LinuxResources;

/// What a container can have limits in.
const CONTROLLERS: [&str; 8] = [
    "cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc",
];
const ROOT: &str = "/sys/fs/cgroup";

/// For the fuzzer, which needs the compiler to end and no more.
#[cfg(test)]
pub(super) fn compiled_length(set: &super::devices::DeviceSet) -> usize {
    ebpf::compile(set).len()
}
const PATIENCE: Duration = Duration::from_secs(10);

/// The container's directory on a v2 machine.
#[derive(Debug)]
pub(super) struct V2 {
    root: PathBuf,
    dir: Dir,
    /// A user to whom no group is delegated runs containers where they are.
    without: bool,
}

impl V2 {
    pub(super) fn new(dir: Dir) -> Self {
        Self {
            root: PathBuf::from(ROOT),
            dir,
            without: false,
        }
    }

    pub(super) fn load(paths: &BTreeMap<String, PathBuf>) -> Self {
        Self::new(Dir::new(paths.values().next().cloned().unwrap_or_default()))
    }

    pub(super) fn paths(&self) -> BTreeMap<String, PathBuf> {
        BTreeMap::from([(String::new(), self.dir.path().to_owned())])
    }

    pub(super) fn dir(&self) -> &Dir {
        &self.dir
    }

    pub(super) fn create(
        &mut self,
        limits: &LinuxResources,
        placement: &Placement<'_>,
    ) -> Result<(), CgroupError> {
        let made = match self.dir.make_all() {
            Ok(made) => made,
            Err(e)
                if placement.rootless
                    && matches!(e.errno(), Some(libc::EACCES | libc::EPERM | libc::EROFS)) =>
            {
                if asks(limits) {
                    return Err(e);
                }
                crate::log::debug(|| crate::error::chain(&e));
                self.without = true;
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        let fit = if made.is_empty() {
            self.refuse_inhabited()
        } else {
            Ok(())
        };
        let result = fit.and_then(|()| self.outfit(limits, placement));
        if result.is_err() {
            remove_made(&made);
        }
        result
    }

    /// A group that was there before must be nobody's home and must not stand still.
    pub(super) fn refuse_inhabited(&self) -> Result<(), CgroupError> {
        let path = || self.dir.path().to_owned();
        match self.pids(true)?.len() {
            0 => {}
            count => {
                return Err(CgroupError::NotEmpty {
                    count,
                    path: path(),
                });
            }
        }
        if self.frozen()? {
            return Err(CgroupError::Frozen { path: path() });
        }
        Ok(())
    }

    /// Makes the directory fit for a process.
    pub(super) fn outfit(
        &self,
        limits: &LinuxResources,
        placement: &Placement<'_>,
    ) -> Result<(), CgroupError> {
        if !self.hand_down()? {
            self.settle_kind(limits)?;
        }
        if let Some(cpu) = &limits.cpu {
            cpu::set_cpuset(&self.dir, cpu)?;
        }
        match placement.owner {
            Some(uid) => delegate::hand_over(&self.dir, uid),
            None => Ok(()),
        }
    }

    /// Below a group that has processes of its own, or threads of others, some
    /// controllers cannot be had. Without limits of theirs the group can be one
    /// for threads, as it is better to run there than not to run.
    fn settle_kind(&self, limits: &LinuxResources) -> Result<(), CgroupError> {
        let kind = self.dir.read_if_there("cgroup.type")?.unwrap_or_default();
        let kind = kind.trim();
        if kind.is_empty() || kind == "domain" {
            return Ok(());
        }
        let domain = [
            (limits.memory.is_some(), "memory"),
            (limits.block_io.is_some(), "io"),
            (!limits.hugepage_limits.is_empty(), "hugetlb"),
            (!limits.rdma.is_empty(), "rdma"),
        ];
        if let Some((_, controller)) = domain.into_iter().find(|(wanted, _)| *wanted) {
            return Err(CgroupError::NoDomain {
                path: self.dir.path().to_owned(),
                controller,
                kind: kind.to_owned(),
            });
        }
        if kind == "domain invalid" {
            self.dir.write("cgroup.type", "threaded")?;
        }
        Ok(())
    }

    /// Switches controllers on from the root down to the group above ours, where
    /// they are not on yet; says whether nothing had to be done.
    fn hand_down(&self) -> Result<bool, CgroupError> {
        let root = Dir::new(&self.root);
        let all = root
            .read_if_there("cgroup.controllers")?
            .unwrap_or_default();
        let ours = self
            .dir
            .read_if_there("cgroup.controllers")?
            .unwrap_or_default();
        let has = |list: &str, c: &str| list.split_whitespace().any(|w| w == c);
        let missing: Vec<&str> = CONTROLLERS
            .into_iter()
            .filter(|c| has(&all, c) && !has(&ours, c))
            .collect();
        if missing.is_empty() {
            return Ok(true);
        }
        let Ok(steps) = self.dir.path().strip_prefix(&self.root) else {
            return Ok(true);
        };
        let mut at = root;
        for step in steps {
            let line: Vec<String> = missing.iter().map(|c| format!("+{c}")).collect();
            if at.write("cgroup.subtree_control", &line.join(" ")).is_err() {
                // One that cannot be had must not keep the others away. What is then
                // missing shows when a limit asks for it.
                for one in &line {
                    if let Err(e) = at.write("cgroup.subtree_control", one) {
                        crate::log::debug(|| crate::error::chain(&e));
                    }
                }
            }
            at = at.below(Path::new(step));
        }
        Ok(false)
    }

    pub(super) fn entry(&self) -> Result<Entry, CgroupError> {
        let mut entry = Entry::default();
        // An unprivileged caller may be without.
        if self.dir.exists() {
            entry.open_unified(&self.dir)?;
        }
        Ok(entry)
    }

    pub(super) fn add(&self, pid: Pid) -> Result<(), CgroupError> {
        if self.dir.exists() {
            self.dir.add(pid)
        } else {
            Ok(())
        }
    }

    /// Into the group, or into the one below it where the first process went when
    /// this one became a group of groups, as a systemd inside the container makes it.
    pub(super) fn join(&self, pid: Pid, init: i32) -> Result<(), CgroupError> {
        let refused = match self.add(pid) {
            Err(e) if matches!(e.errno(), Some(libc::EBUSY | libc::EOPNOTSUPP)) => e,
            other => return other,
        };
        let of_init = format!("/proc/{init}/cgroup");
        let text = super::dir::read_all(Path::new(&of_init)).unwrap_or_default();
        let path = text.lines().find_map(|l| l.strip_prefix("0::/"));
        let home = path.map(|p| self.root.join(super::locate::clean(p)));
        match home {
            Some(home) if home.starts_with(self.dir.path()) && home != self.dir.path() => {
                Dir::new(home).add(pid)
            }
            _ => Err(refused),
        }
    }

    pub(super) fn add_below(
        &self,
        pid: Pid,
        controllers: &[&str],
        sub: &Path,
    ) -> Result<(), CgroupError> {
        if let Some(name) = controllers.first() {
            return Err(CgroupError::invalid(
                "exec --cgroup",
                format!("{name:?}: there is one hierarchy here, name no controller"),
            ));
        }
        self.dir.below(sub).add(pid)
    }

    pub(super) fn apply(&self, limits: &LinuxResources) -> Result<(), CgroupError> {
        if self.without {
            return Ok(());
        }
        devices::set(&self.dir, &limits.devices)?;
        self.set_limits(limits)
    }

    pub(super) fn update(&self, limits: &LinuxResources) -> Result<(), CgroupError> {
        if let Some(cpu) = &limits.cpu {
            cpu::set_cpuset(&self.dir, cpu)?;
        }
        self.set_limits(limits)
    }

    fn set_limits(&self, limits: &LinuxResources) -> Result<(), CgroupError> {
        if let Some(limit) = limits.pids.as_ref().and_then(|p| p.limit) {
            super::v1::pids::set(&self.dir, limit)?;
        }
        if let Some(memory) = &limits.memory {
            memory::set(&self.dir, memory)?;
        }
        if let Some(cpu) = &limits.cpu {
            cpu::set(&self.dir, cpu)?;
        }
        if let Some(io) = &limits.block_io {
            io::set(&self.dir, io)?;
        }
        other::set(&self.dir, limits)
    }

    pub(super) fn freeze(&self) -> Result<(), CgroupError> {
        self.dir.set("pause", "cgroup.freeze", "1")?;
        let mut pause = Duration::from_micros(50);
        let mut waited = Duration::ZERO;
        loop {
            let events = self.dir.read("cgroup.events")?;
            if events.lines().any(|l| l == "frozen 1") {
                return Ok(());
            }
            if waited > PATIENCE {
                self.thaw()?;
                return Err(CgroupError::Timeout {
                    path: self.dir.path().to_owned(),
                    wanted: "frozen",
                    ms: u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX),
                });
            }
            std::thread::sleep(pause);
            waited += pause;
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    pub(super) fn thaw(&self) -> Result<(), CgroupError> {
        self.dir.set("resume", "cgroup.freeze", "0")
    }

    pub(super) fn frozen(&self) -> Result<bool, CgroupError> {
        Ok(self
            .dir
            .read_if_there("cgroup.freeze")?
            .is_some_and(|s| s.trim() == "1"))
    }

    pub(super) fn pids(&self, recursive: bool) -> Result<Vec<Pid>, CgroupError> {
        self.dir.pids(recursive)
    }

    pub(super) fn exists(&self) -> bool {
        self.dir.exists()
    }

    pub(super) fn kill_all(&self) -> Result<(), CgroupError> {
        if self.dir.write_if_there("cgroup.kill", "1")? {
            return Ok(());
        }
        // Before Linux 5.14: one by one, until nobody is left.
        for attempt in 0..10 {
            let pids = self.pids(true)?;
            if pids.is_empty() {
                return Ok(());
            }
            for pid in pids {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(1 << attempt));
        }
        Err(CgroupError::Timeout {
            path: self.dir.path().to_owned(),
            wanted: "empty after SIGKILL",
            ms: 1023,
        })
    }

    pub(super) fn remove(&self, owned: bool) -> Result<(), CgroupError> {
        if !owned {
            // Not known to be ours: what is in use stays as it is.
            let _ = self.dir.remove_empty();
            return Ok(());
        }
        self.dir.remove()
    }

    pub(super) fn stats(&self) -> Result<Stats, CgroupError> {
        stats::read(&self.dir)
    }

    pub(super) fn oom_kills(&self) -> Result<Option<u64>, CgroupError> {
        let Some(text) = self.dir.read_if_there("memory.events")? else {
            return Ok(None);
        };
        Ok(super::stats::flat_keyed(&text).get("oom_kill").copied())
    }

    pub(super) fn mounts_for_container(&self) -> Vec<HierarchyMount> {
        vec![HierarchyMount {
            name: String::new(),
            data: String::new(),
            source: self.dir.path().to_owned(),
            links: Vec::new(),
        }]
    }
}

/// Whether there are limits that need a group: all but device
/// rules, which a user could not break anyway.
fn asks(limits: &LinuxResources) -> bool {
    let needs_none = LinuxResources {
        devices: limits.devices.clone(),
        ..LinuxResources::default()
    };
    *limits != needs_none
}

#[cfg(test)]
mod tests;
