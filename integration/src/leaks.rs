//! What a stack holds on this machine: processes, mounts, cgroups, network namespaces, sockets, fifos and state folders.
//!
//! Everything is told apart by the stack's own folder and cgroup parent, so that stacks side by side do not disturb each
//! other's census.

use std::collections::BTreeSet;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::eventually;

/// What belongs to one stack.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The folder that holds all its state.
    pub dir: PathBuf,
    /// Last component of its cgroup parent.
    pub cgroup: String,
}

/// A count at one moment, an entry a thing.
#[derive(Debug, Clone)]
pub struct Census {
    scope: Scope,
    things: BTreeSet<String>,
}

impl Census {
    /// Looks around now.
    pub fn take(scope: Scope) -> Result<Self> {
        let mut things = BTreeSet::new();
        processes(&scope, &mut things)?;
        mounts(&scope, &mut things)?;
        for hierarchy in hierarchies()? {
            let parent = hierarchy.join(&scope.cgroup);
            if parent.is_dir() {
                folders(&parent, "cgroup", &mut things)?;
            }
        }
        files(&scope.dir, &mut things)?;
        Ok(Self { scope, things })
    }

    /// Fails if, for the whole of `grace`, something is there that was not there at this census.
    pub fn flat_within(&self, grace: Duration) -> Result<()> {
        eventually::within(grace, "the census is flat", || {
            let now = Self::take(self.scope.clone())?;
            let more: Vec<_> = now.things.difference(&self.things).collect();
            ensure!(more.is_empty(), "left behind: {more:#?}");
            Ok(())
        })
    }

    /// How many things there are.
    pub fn len(&self) -> usize {
        self.things.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.things.is_empty()
    }

    /// The things, a line each.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.things.iter().map(String::as_str)
    }
}

/// Living processes that name the stack's folder or sit below its cgroup parent.
fn processes(scope: &Scope, things: &mut BTreeSet<String>) -> Result<()> {
    let dir = scope.dir.to_string_lossy().into_owned();
    let me = std::process::id().to_string();
    for entry in std::fs::read_dir("/proc").context("read /proc")? {
        let entry = entry?;
        let pid = entry.file_name().to_string_lossy().into_owned();
        if !pid.bytes().all(|b| b.is_ascii_digit()) || pid == me {
            continue;
        }
        // a process that ends meanwhile is no leak
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest).trim();
        if after.starts_with('Z') || after.starts_with('X') {
            continue;
        }
        let cmdline = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let cmdline = String::from_utf8_lossy(&cmdline).replace('\0', " ");
        let cgroup = std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        if cmdline.contains(&dir) || cgroup.contains(&scope.cgroup) {
            let start = after.split(' ').nth(19).unwrap_or_default();
            things.insert(format!("process {pid} started {start}: {cmdline}"));
        }
    }
    Ok(())
}

/// Mounts on or of the stack's folder.
fn mounts(scope: &Scope, things: &mut BTreeSet<String>) -> Result<()> {
    let dir = scope.dir.to_string_lossy().into_owned();
    let text = std::fs::read_to_string("/proc/self/mountinfo").context("read mountinfo")?;
    for line in text.lines().filter(|l| l.contains(&dir)) {
        let mut fields = line.split(' ');
        let (id, target) = (
            fields.next().unwrap_or_default(),
            fields.nth(3).unwrap_or_default(),
        );
        things.insert(format!("mount {id} on {target}"));
    }
    Ok(())
}

fn hierarchies() -> Result<Vec<PathBuf>> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).context("read /sys/fs/cgroup")? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            found.push(path);
        }
    }
    Ok(found)
}

fn folders(dir: &Path, kind: &str, things: &mut BTreeSet<String>) -> Result<()> {
    // removed meanwhile is gone, which is what is asked
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            things.insert(format!("{kind} {}", path.display()));
            folders(&path, kind, things)?;
        }
    }
    Ok(())
}

/// Sockets, fifos and folders of containers, snapshots and bundles; blobs and database files may come and go.
fn files(dir: &Path, things: &mut BTreeSet<String>) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Ok(());
    };
    for entry in entries {
        let Ok(entry) = entry else { continue };
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        let path = entry.path();
        if kind.is_socket() || kind.is_fifo() {
            things.insert(format!("socket or fifo {}", path.display()));
        } else if kind.is_dir() {
            let name = path.to_string_lossy().into_owned();
            // what is inside a snapshot, an image or a volume is a user's, not a leak
            let inside = ["/snapshots/", "/rootfs/", "/_data/", "/blobs/", "/image/"];
            if inside
                .iter()
                .any(|i| name.trim_end_matches('/').matches(i).count() > 0 && !one_below(&name, i))
            {
                continue;
            }
            things.insert(format!("folder {name}"));
            files(&path, things)?;
        }
    }
    Ok(())
}

/// Whether `path` is exactly one component below the last `folder` in it.
fn one_below(path: &str, folder: &str) -> bool {
    path.rsplit_once(folder)
        .is_some_and(|(_, rest)| !rest.contains('/'))
}
