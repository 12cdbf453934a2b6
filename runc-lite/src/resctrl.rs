//! A group of the kernel's resource control (`linux.intelRdt`): a share of the last
//! cache and of the memory bandwidth.
//!
//! ```text
//!  RESCTRL/                       where the file system is mounted
//!  └─ CLOS/                       `closID`, or the container's id: then it is ours
//!     ├─ schemata                 a line per resource
//!     ├─ tasks
//!     └─ mon_groups/ID/tasks      only to be counted
//! ```
//!
//! A group with a name of its own may be shared by containers: it is used as it is,
//! made where it is missing, and stays. What is removed is recorded before it is made.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Doing as _, StepError};
use crate::spec::IntelRdt;

/// The container's place in resource control, as state.json has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Group {
    /// The group.
    path: PathBuf,
    /// Whether it goes with the container.
    own: bool,
    /// The monitoring group, which always does.
    #[serde(skip_serializing_if = "Option::is_none")]
    monitor: Option<PathBuf>,
}

/// What is wrong with the request, or missing from this machine.
pub(crate) fn check(rdt: &IntelRdt) -> Result<(), String> {
    check_at(mounted().as_deref(), rdt)
}

fn check_at(root: Option<&Path>, rdt: &IntelRdt) -> Result<(), String> {
    let name = rdt.clos_id.as_str();
    let reserved = [".", "..", "info", "mon_groups", "mon_data"];
    if reserved.contains(&name) || name.contains(['/', '\0']) {
        return Err(format!("invalid intelRdt.closID {name:?}"));
    }
    let Some(root) = root else {
        return Err(
            "intelRdt is specified in config, but the kernel's resource control \
             (resctrl) is not mounted"
                .into(),
        );
    };
    let has = |name: &str| root.join("info").join(name).exists();
    if !rdt.l3_cache_schema.is_empty() && !has("L3") && !has("L3CODE") {
        return Err(
            "intelRdt.l3CacheSchema is specified in config, but Intel RDT/CAT is not enabled"
                .into(),
        );
    }
    if !rdt.mem_bw_schema.is_empty() && !has("MB") {
        return Err(
            "intelRdt.memBwSchema is specified in config, but Intel RDT/MBA is not enabled".into(),
        );
    }
    if monitored(rdt) && !has("L3_MON") {
        return Err("intelRdt asks for monitoring, but the kernel has none".into());
    }
    Ok(())
}

/// Where the file system is mounted.
fn mounted() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = mounts.lines().find(|l| l.contains(" - resctrl "))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

fn monitored(rdt: &IntelRdt) -> bool {
    rdt.enable_monitoring || rdt.enable_cmt || rdt.enable_mbm
}

impl Group {
    /// Names the group of a container without making it.
    pub(crate) fn locate(rdt: &IntelRdt, id: &str) -> Result<Self, StepError> {
        let root = mounted().ok_or_else(|| StepError::refused("find resctrl", "not mounted"))?;
        Self::locate_at(&root, rdt, id)
    }

    fn locate_at(root: &Path, rdt: &IntelRdt, id: &str) -> Result<Self, StepError> {
        let own = rdt.clos_id.is_empty();
        let path = root.join(if own { id } else { &rdt.clos_id });
        let refused = |why: &str| {
            Err(StepError::refused(
                format!("use resource control group {}", path.display()),
                why,
            ))
        };
        match path.exists() {
            true if own => return refused("it exists already"),
            false if !own && lines(rdt).is_empty() => {
                return refused("it does not exist, and there is no schema to make it with");
            }
            _ => {}
        }
        let monitor = monitored(rdt).then(|| path.join("mon_groups").join(id));
        Ok(Self { path, own, monitor })
    }

    /// Makes what is missing of it and sets the schemata. A shared group that exists
    /// has to have them already.
    pub(crate) fn make(&self, rdt: &IntelRdt) -> Result<(), StepError> {
        let lines = lines(rdt);
        let existed = match fs::create_dir(&self.path) {
            Ok(()) => false,
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && !self.own => true,
            Err(e) => Err(e).doing(|| format!("make {}", self.path.display()))?,
        };
        if existed {
            self.compare(&lines)?;
        } else if !lines.is_empty() {
            self.set(&lines)?;
        }
        if let Some(monitor) = &self.monitor {
            fs::create_dir(monitor).doing(|| format!("make {}", monitor.display()))?;
        }
        Ok(())
    }

    fn compare(&self, lines: &[String]) -> Result<(), StepError> {
        let file = self.path.join("schemata");
        let has = fs::read_to_string(&file).doing(|| format!("read {}", file.display()))?;
        let has: Vec<&str> = has.lines().map(str::trim).collect();
        match lines.iter().find(|l| !has.contains(&l.as_str())) {
            None => Ok(()),
            Some(line) => Err(StepError::refused(
                format!("use resource control group {}", self.path.display()),
                format!("its schemata lack {line:?}"),
            )),
        }
    }

    /// Writes schemata lines.
    pub(crate) fn set(&self, lines: &[String]) -> Result<(), StepError> {
        let file = self.path.join("schemata");
        fs::write(&file, lines.join("\n") + "\n").doing(|| {
            let root = self.path.parent().unwrap_or(&self.path);
            // The kernel says there what it did not like.
            let why = fs::read_to_string(root.join("info/last_cmd_status")).unwrap_or_default();
            format!("write {lines:?} to {} ({})", file.display(), why.trim())
        })
    }

    /// The group as it was recorded, if its directories are where such groups are:
    /// what is elsewhere is neither written to nor removed.
    pub(crate) fn trusted(&self) -> Result<&Self, StepError> {
        const MAGIC: i64 = 0x0765_5821;
        for path in [Some(&self.path), self.monitor.as_ref()]
            .into_iter()
            .flatten()
        {
            let what = || format!("use resource control group {}", path.display());
            let parent = path.parent().unwrap_or(path);
            match rustix::fs::statfs(parent) {
                #[allow(clippy::unnecessary_cast, reason = "i64 on some targets only")]
                Ok(found) if found.f_type as i64 == MAGIC => {}
                Err(rustix::io::Errno::NOENT) => {}
                Ok(_) => return Err(StepError::refused(what(), "it is not in resctrl")),
                Err(e) => return Err(e).doing(what),
            }
        }
        Ok(self)
    }

    /// Moves a process in.
    pub(crate) fn enter(&self, pid: i32) -> Result<(), StepError> {
        for group in [Some(&self.path), self.monitor.as_ref()]
            .into_iter()
            .flatten()
        {
            let file = group.join("tasks");
            fs::write(&file, pid.to_string())
                .doing(|| format!("write {pid} to {}", file.display()))?;
        }
        Ok(())
    }

    /// Removes what goes with the container; gone already is fine.
    pub(crate) fn remove(&self) -> Result<(), StepError> {
        let own = self.own.then_some(&self.path);
        for group in [self.monitor.as_ref(), own].into_iter().flatten() {
            match fs::remove_dir(group) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    Err(e).doing(|| format!("remove {}", group.display()))?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// All lines asked for.
fn lines(rdt: &IntelRdt) -> Vec<String> {
    let old = [&rdt.l3_cache_schema, &rdt.mem_bw_schema];
    let all = rdt.schemata.iter().chain(old);
    all.flat_map(|text| text.lines())
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(change: impl FnOnce(&mut IntelRdt)) -> IntelRdt {
        let mut rdt = IntelRdt::default();
        change(&mut rdt);
        rdt
    }

    /// A directory that looks like resctrl; what the kernel would put into new
    /// groups is not there, so files appear as they are written.
    fn fake() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for dir in ["info/L3", "info/MB", "shared"] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        fs::write(
            root.path().join("shared/schemata"),
            "    L3:0=ff\n    MB:0=50\n",
        )
        .unwrap();
        root
    }

    #[test]
    fn requests_are_checked_against_the_machine() {
        let root = fake();
        let told = |rdt: &IntelRdt| check_at(Some(root.path()), rdt);
        let l3 = asked(|r| r.l3_cache_schema = "L3:0=f".into());
        assert_eq!(told(&l3), Ok(()));
        assert!(check_at(None, &l3).unwrap_err().contains("not mounted"));
        let monitoring = asked(|r| r.enable_cmt = true);
        assert!(told(&monitoring).unwrap_err().contains("monitoring"));
        fs::remove_dir(root.path().join("info/L3")).unwrap();
        assert!(told(&l3).unwrap_err().contains("RDT/CAT is not enabled"));
        for name in ["..", "a/b", "info"] {
            let rdt = asked(|r| r.clos_id = name.into());
            assert!(told(&rdt).unwrap_err().contains("closID"), "{name}");
        }
    }

    #[test]
    fn a_group_of_its_own_goes_with_the_container() {
        let root = fake();
        let rdt = asked(|r| {
            r.l3_cache_schema = "L3:0=f".into();
            r.schemata = vec!["MB:0=20".into()];
        });
        let group = Group::locate_at(root.path(), &rdt, "box").unwrap();
        group.make(&rdt).unwrap();
        group.enter(42).unwrap();
        let read = |name: &str| fs::read_to_string(root.path().join("box").join(name)).unwrap();
        assert_eq!(read("schemata"), "MB:0=20\nL3:0=f\n");
        assert_eq!(read("tasks"), "42");
        assert!(Group::locate_at(root.path(), &rdt, "box").is_err());
        fs::remove_file(root.path().join("box/schemata")).unwrap();
        fs::remove_file(root.path().join("box/tasks")).unwrap();
        assert!(group.trusted().is_err());
        group.remove().unwrap();
        assert!(!root.path().join("box").exists());
        group.remove().unwrap();
    }

    #[test]
    fn a_shared_group_is_used_as_it_is_and_stays() {
        let root = fake();
        let shared = |schema: &str| {
            asked(|r| {
                r.clos_id = "shared".into();
                r.mem_bw_schema = schema.into();
            })
        };
        let same = shared("MB:0=50");
        let group = Group::locate_at(root.path(), &same, "box").unwrap();
        group.make(&same).unwrap();
        group.remove().unwrap();
        assert!(root.path().join("shared").exists());
        let other = shared("MB:0=10");
        let e = group.make(&other).unwrap_err();
        assert!(crate::error::chain(&e).contains("schemata lack"));
        let absent = asked(|r| r.clos_id = "absent".into());
        assert!(Group::locate_at(root.path(), &absent, "box").is_err());
    }
}
