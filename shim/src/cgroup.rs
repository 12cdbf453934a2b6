//! Where a container's control groups are, and small reads from them. Sync; files of the kernel, no blocking.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

const MOUNT: &str = "/sys/fs/cgroup";
/// Deepest nesting walked for the processes of a container.
const DEPTH: usize = 32;

/// The control groups of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cgroup {
    /// Version 1: controller and folder.
    #[serde(default)]
    pub(crate) v1: Vec<(String, PathBuf)>,
    /// Version 2: folder, where it is the only hierarchy.
    #[serde(default)]
    pub(crate) v2: Option<PathBuf>,
}

impl Cgroup {
    /// The groups that `/proc/PID/cgroup` names; empty if the process is gone.
    pub(crate) fn of(pid: u32) -> Self {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        parse(&text, Path::new(MOUNT), is_unified(Path::new(MOUNT)))
    }

    /// Folder of a version 1 controller.
    pub(crate) fn controller(&self, name: &str) -> Option<&Path> {
        self.v1
            .iter()
            .find(|(controller, _)| controller == name)
            .map(|(_, path)| path.as_path())
    }

    /// A folder that holds this container and nothing else, to list its processes.
    fn own(&self) -> Option<&Path> {
        let mut folders = ["pids", "memory", "devices", "freezer", "cpu"]
            .into_iter()
            .filter_map(|name| self.controller(name))
            .chain(self.v2.as_deref());
        folders.find(|path| !is_shared(path))
    }

    /// The folders that hold this container and nothing else.
    pub(crate) fn own_folders(&self) -> impl Iterator<Item = &Path> {
        let all = self
            .v1
            .iter()
            .map(|(_, path)| path.as_path())
            .chain(self.v2.as_deref());
        all.filter(|path| !is_shared(path))
    }

    /// All processes of the container, those of nested groups too.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        if let Some(folder) = self.own() {
            collect(folder, DEPTH, &mut pids);
        }
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// How often the kernel has killed for memory here.
    pub(crate) fn memory_kills(&self) -> u64 {
        let file = match (self.controller("memory"), &self.v2) {
            (Some(folder), _) => folder.join("memory.oom_control"),
            (None, Some(folder)) => folder.join("memory.events"),
            (None, None) => return 0,
        };
        keyed(&file, "oom_kill").unwrap_or(0)
    }
}

/// Whether the folder is the top of a hierarchy, or that of the shim itself: then it holds more than the container.
fn is_shared(path: &Path) -> bool {
    let mount = Path::new(MOUNT);
    path == mount || path.parent() == Some(mount) || contains_us(path)
}

fn contains_us(folder: &Path) -> bool {
    let own = std::process::id().to_string();
    std::fs::read_to_string(folder.join("cgroup.procs"))
        .is_ok_and(|text| text.lines().any(|line| line == own))
}

fn is_unified(mount: &Path) -> bool {
    const CGROUP2: i64 = 0x6367_7270;
    rustix::fs::statfs(mount).is_ok_and(|fs| fs.f_type == CGROUP2)
}

fn parse(text: &str, mount: &Path, unified: bool) -> Cgroup {
    let mut cgroup = Cgroup::default();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            if unified {
                cgroup.v2 = Some(mount.join(path));
            }
            continue;
        }
        for controller in controllers.split(',') {
            let name = controller.strip_prefix("name=").unwrap_or(controller);
            cgroup
                .v1
                .push((name.to_owned(), mount.join(name).join(path)));
        }
    }
    cgroup
}

fn collect(folder: &Path, depth: usize, pids: &mut Vec<u32>) {
    if let Ok(text) = std::fs::read_to_string(folder.join("cgroup.procs")) {
        pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    }
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), depth - 1, pids);
        }
    }
}

/// A number alone in a file; `max` is the largest.
pub(crate) fn number(file: &Path) -> Option<u64> {
    parse_number(std::fs::read_to_string(file).ok()?.trim())
}

/// A number as cgroup files write it.
pub(crate) fn parse_number(text: &str) -> Option<u64> {
    match text {
        "max" => Some(u64::MAX),
        other => other.parse().ok(),
    }
}

/// The number behind `key` in a file of `key number` lines.
pub(crate) fn keyed(file: &Path, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
        .and_then(|value| parse_number(value.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_versions() {
        let text =
            "12:pids:/docker/a\n3:cpu,cpuacct:/docker/a\n1:name=systemd:/docker/a\n0::/docker/a\n";
        let v1 = parse(text, Path::new("/m"), false);
        assert_eq!(
            v1.controller("cpuacct"),
            Some(Path::new("/m/cpuacct/docker/a"))
        );
        assert_eq!(
            v1.controller("systemd"),
            Some(Path::new("/m/systemd/docker/a"))
        );
        assert_eq!(v1.v2, None);
        assert_eq!(
            parse("0::/x.slice/a\n", Path::new("/m"), true).v2,
            Some("/m/x.slice/a".into())
        );
        assert_eq!(
            parse("nonsense\n\n1:\n", Path::new("/m"), true),
            Cgroup::default()
        );
    }

    #[test]
    fn reads_keys_and_limits() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        std::fs::write(&file, "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n").unwrap();
        assert_eq!(keyed(&file, "oom_kill"), Some(3));
        std::fs::write(&file, "max\n").unwrap();
        assert_eq!(number(&file), Some(u64::MAX));
        assert_eq!(number(Path::new("/nonexistent")), None);
    }

    #[test]
    fn a_shared_group_is_not_listed() {
        let cgroup = Cgroup {
            v1: vec![("pids".into(), "/sys/fs/cgroup/pids".into())],
            v2: None,
        };
        assert!(cgroup.processes().is_empty());
    }
}
