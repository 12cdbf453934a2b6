//! Reading a few small files of a container's root: passwd and group. Blocking; called through `spawn_blocking`.

use std::io::Read;
use std::os::fd::OwnedFd;

use proto::containerd::types::Mount;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::archive::root::Root;
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
        Self::below(Root::of_snapshot(mounts)?.fd())
    }

    /// Of a container that runs.
    pub(super) fn of_process(pid: u32) -> Result<Self> {
        Self::below(Root::of_process(pid)?.fd())
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
