//! A container's limits as its cgroup files on the host have them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// A file in both versions: controller and name in v1, name in v2.
#[derive(Debug, Clone, Copy)]
pub(crate) struct File(&'static str, &'static str, &'static str);

pub(crate) const MEMORY: File = File("memory", "memory.limit_in_bytes", "memory.max");
pub(crate) const RESERVED: File = File("memory", "memory.soft_limit_in_bytes", "memory.low");
pub(crate) const SHARES: File = File("cpu", "cpu.shares", "cpu.weight");
pub(crate) const QUOTA: File = File("cpu", "cpu.cfs_quota_us", "cpu.max");
pub(crate) const CPUS: File = File("cpuset", "cpuset.cpus", "cpuset.cpus");
pub(crate) const PIDS: File = File("pids", "pids.max", "pids.max");
pub(crate) const FROZEN: File = File("freezer", "freezer.state", "cgroup.freeze");

fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The directory of a process's cgroup.
pub(crate) fn of(pid: u32, controller: &str) -> Result<PathBuf> {
    let file = format!("/proc/{pid}/cgroup");
    let text = std::fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    let path = text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        let fits = match unified() {
            true => number == "0",
            false => names.split(',').any(|name| name == controller),
        };
        fits.then(|| path.trim_start_matches('/').to_owned())
    });
    let path = path.with_context(|| format!("no {controller} in {text:?}"))?;
    let top = Path::new("/sys/fs/cgroup");
    Ok(match unified() {
        true => top.join(path),
        false => top.join(controller).join(path),
    })
}

/// Every directory that a process is in.
pub(crate) fn all_of(pid: u32) -> Result<Vec<PathBuf>> {
    if unified() {
        return Ok(vec![of(pid, "")?]);
    }
    ["memory", "cpu", "cpuset", "pids", "freezer", "devices"]
        .into_iter()
        .map(|controller| of(pid, controller))
        .collect()
}

/// Checks what a file says in v1 or in v2.
pub(crate) fn says(pid: u32, file: File, v1: &str, v2: &str) -> Result<()> {
    let File(controller, old, new) = file;
    let (name, wanted) = match unified() {
        true => (new, v2),
        false => (old, v1),
    };
    let path = of(pid, controller)?.join(name);
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    ensure!(
        text.trim() == wanted,
        "{} is {:?} instead of {wanted:?}",
        path.display(),
        text.trim()
    );
    Ok(())
}
