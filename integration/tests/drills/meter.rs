//! What a chain costs: CPU by control groups, which forget nobody who has ended; memory as the kernel shares it out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

/// Counts the CPU of some processes and of all that they start.
#[derive(Debug)]
pub(crate) struct Meter {
    group: PathBuf,
}

/// The folder of a group in the hierarchy that counts CPU.
pub(crate) fn group(name: &str) -> PathBuf {
    let root = Path::new("/sys/fs/cgroup");
    let counting = ["cpuacct", "cpu,cpuacct"].map(|c| root.join(c));
    let found = counting.into_iter().find(|folder| folder.is_dir());
    found.unwrap_or_else(|| root.to_owned()).join(name)
}

/// CPU that a group and those below it have used.
pub(crate) fn used(group: &Path) -> Result<Duration> {
    if let Ok(text) = std::fs::read_to_string(group.join("cpuacct.usage")) {
        return Ok(Duration::from_nanos(text.trim().parse()?));
    }
    let file = group.join("cpu.stat");
    let text =
        std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let micros = text.lines().find_map(|l| l.strip_prefix("usage_usec "));
    let micros = micros.with_context(|| format!("no usage in {}", file.display()))?;
    Ok(Duration::from_micros(micros.trim().parse()?))
}

impl Meter {
    /// Puts these processes into a group of their own.
    pub(crate) fn of(name: &str, pids: &[u32]) -> Result<Self> {
        Self::in_group(group(name), pids)
    }

    fn in_group(group: PathBuf, pids: &[u32]) -> Result<Self> {
        match std::fs::create_dir(&group) {
            // The hierarchy that counts CPU may be this one.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => other.with_context(|| format!("make {}", group.display()))?,
        }
        let meter = Self { group };
        for pid in pids {
            std::fs::write(meter.group.join("cgroup.procs"), pid.to_string())
                .with_context(|| format!("move {pid} to {}", meter.group.display()))?;
        }
        Ok(meter)
    }

    /// CPU used since the begin, without that of the groups below `inner`, which the metered have made below their own.
    pub(crate) fn used_outside(&self, inner: &str) -> Result<Duration> {
        let all = used(&self.group)?;
        let inner = self.group.join(inner);
        match inner.is_dir() {
            true => Ok(all.saturating_sub(used(&inner)?)),
            false => Ok(all),
        }
    }
}

/// Counts the memory of some processes, of all that they start and of the containers that they make, with the kernel's for
/// them: what is charged to their groups, less the page cache. Unlike MemAvailable it hears of nobody else on the machine.
#[derive(Debug)]
pub(crate) struct Memory {
    own: Meter,
    containers: PathBuf,
}

impl Memory {
    /// Puts these processes into a group; `containers` is the group above those of their containers.
    pub(crate) fn of(name: &str, pids: &[u32], containers: &str) -> Result<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let root = Some(root.join("memory")).filter(|folder| folder.is_dir());
        // In a unified hierarchy the group for CPU counts memory as well.
        let root = root.unwrap_or_else(|| PathBuf::from("/sys/fs/cgroup"));
        Ok(Self {
            own: Meter::in_group(root.join(name), pids)?,
            containers: root.join(containers.trim_start_matches('/')),
        })
    }

    /// KiB charged now.
    pub(crate) fn charged(&self) -> Result<u64> {
        let containers = Some(&self.containers).filter(|group| group.is_dir());
        let groups = std::iter::once(&self.own.group).chain(containers);
        groups.map(|group| charged(group)).sum()
    }
}

fn charged(group: &Path) -> Result<u64> {
    let read = |name: &str| {
        let file = group.join(name);
        std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
    };
    let (usage, cache) = match group.join("memory.current").exists() {
        true => (read("memory.current")?, "file "),
        false => (read("memory.usage_in_bytes")?, "total_cache "),
    };
    let stat = read("memory.stat")?;
    let cache = number(&stat, cache).with_context(|| format!("no {cache}in memory.stat"))?;
    Ok(usage.trim().parse::<u64>()?.saturating_sub(cache) / 1024)
}

impl Drop for Meter {
    fn drop(&mut self) {
        let Some(root) = self.group.parent() else {
            return;
        };
        // Those that have ended keep the group until they are reaped.
        for _ in 0..100 {
            let pids = std::fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
            for pid in pids.lines() {
                // It may have ended meanwhile.
                let _ = std::fs::write(root.join("cgroup.procs"), pid);
            }
            // What the metered made below is empty by then.
            for below in std::fs::read_dir(&self.group)
                .into_iter()
                .flatten()
                .flatten()
            {
                let _ = std::fs::remove_dir(below.path());
            }
            match std::fs::remove_dir(&self.group) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {}
                _ => return,
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        println!("left behind: {}", self.group.display());
    }
}

/// Proportional memory of a process, in KiB.
pub(crate) fn pss(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    number(&text, "Pss:").with_context(|| format!("no PSS in {path}"))
}

/// How many threads a process has.
pub(crate) fn threads(pid: u32) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/task"))?.count())
}

/// Memory that the machine can still give, in KiB.
pub(crate) fn available() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    number(&text, "MemAvailable:").context("no MemAvailable in /proc/meminfo")
}

fn number(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|l| l.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Pids of the children of a process.
pub(crate) fn children(parent: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let after = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        if after.split(' ').nth(1) == Some(&parent.to_string()) {
            found.push(pid);
        }
    }
    Ok(found)
}
