//! Reading a few small files of a container's root: passwd and group. Blocking; called through `spawn_blocking`.

use std::path::Path;

use proto::containerd::types::Mount;

use crate::archive::root::Root;
use crate::error::Result;
use crate::spec::user::{self, User};

/// The contents of passwd and group; empty for a file that is not there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    /// Of a container that does not run.
    pub(super) fn of_snapshot(mounts: &[Mount]) -> Result<Self> {
        Self::below(&Root::of_snapshot(mounts)?)
    }

    /// Of a container that runs.
    pub(super) fn of_process(pid: u32) -> Result<Self> {
        Self::below(&Root::of_process(pid)?)
    }

    /// Of an open root.
    pub(crate) fn below(root: &Root) -> Result<Self> {
        Ok(Self {
            passwd: root.read_text(Path::new("/etc/passwd"))?,
            group: root.read_text(Path::new("/etc/group"))?,
        })
    }

    /// Who `text` is by them; `add` are further groups.
    pub(crate) fn resolve(&self, text: &str, add: &[String]) -> Result<User> {
        user::resolve(text, &self.passwd, &self.group, add)
    }
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
