//! Reading a few small files of a container's root: passwd and group.
//!
//! The root of a container that runs is behind /proc/PID/root. That of one that does not is a detached overlay mount of its
//! snapshot: no mount point, seen by nobody, gone with its descriptor. Blocking; called through `spawn_blocking`.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use proto::containerd::types::Mount;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

use crate::error::{During, Error, Result};

/// Longest file that is read.
const LONGEST: u64 = 4 << 20;

/// The contents of passwd and group; empty for a file that is not there.
#[derive(Debug, Clone, Default)]
pub(super) struct Accounts {
    pub(super) passwd: String,
    pub(super) group: String,
}

impl Accounts {
    /// Of a container that does not run.
    pub(super) fn of_snapshot(mounts: &[Mount]) -> Result<Self> {
        let root = open_snapshot(mounts).during(|| "open the root of the container")?;
        Self::below(&root)
    }

    /// Of a container that runs.
    pub(super) fn of_process(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/root");
        let root = open_dir(Path::new(&path)).during(|| format!("open {path}"))?;
        Self::below(&root)
    }

    fn below(root: &OwnedFd) -> Result<Self> {
        Ok(Self {
            passwd: read(root, "etc/passwd")?,
            group: read(root, "etc/group")?,
        })
    }
}

fn read(root: &OwnedFd, path: &str) -> Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let what = || format!("read /{path} of the container");
    let fd = match openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
        Err(e) => return Err(Error::from(e).during(what())),
    };
    let file = std::fs::File::from(fd);
    if !file.metadata().during(what)?.is_file() {
        return Err(Error::invalid("it is no regular file").during(what()));
    }
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes).during(what)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn open_snapshot(mounts: &[Mount]) -> Result<OwnedFd> {
    let [mount] = mounts else {
        return Err(Error::unimplemented(format!(
            "a snapshot of {} mounts",
            mounts.len()
        )));
    };
    match mount.r#type.as_str() {
        "bind" => open_dir(Path::new(&mount.source)),
        "overlay" => open_overlay(&mount.options),
        other => Err(Error::unimplemented(format!("a snapshot of type {other}"))),
    }
}

/// All layers as lower ones, so that nothing is written and nobody else's use of the upper one matters.
fn open_overlay(options: &[String]) -> Result<OwnedFd> {
    let value = |key: &str| options.iter().find_map(|option| option.strip_prefix(key));
    let lower = value("lowerdir=").unwrap_or_default().split(':');
    let layers: Vec<&str> = value("upperdir=").into_iter().chain(lower).collect();
    if let [only] = layers[..] {
        return open_dir(Path::new(only));
    }
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // The long form of an option is bounded at 255 bytes; one call per layer is not (since Linux 6.5), and links to
    // descriptors are short enough for the rest.
    let each = layers
        .iter()
        .try_for_each(|layer| fsconfig_set_string(&fs, "lowerdir+", *layer));
    let _opened = if each.is_err() {
        let opened = layers
            .iter()
            .map(|layer| open_dir(Path::new(layer)))
            .collect::<Result<Vec<_>>>()?;
        let links: Vec<String> = opened
            .iter()
            .map(|fd| format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(fd)))
            .collect();
        fsconfig_set_string(&fs, "lowerdir", links.join(":"))?;
        opened
    } else {
        Vec::new()
    };
    fsconfig_create(&fs)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_out_of_the_root_stays_inside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/group2", dir.path().join("etc/group")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
        std::fs::write(dir.path().join("etc/group2"), "root:x:0:\n").unwrap();
        let mount = Mount {
            r#type: "bind".into(),
            source: dir.path().to_string_lossy().into_owned(),
            ..Mount::default()
        };
        let accounts = Accounts::of_snapshot(&[mount]).unwrap();
        assert_eq!(accounts.group, "root:x:0:\n");
        assert!(accounts.passwd.starts_with("root"));
    }
}
