//! The overlayfs snapshotter: each snapshot holds its own changes, the kernel lays them over the parents'.
//!
//! ```text
//!  snapshots/N/fs      the changes: upperdir of an active one, lowerdir for those that build on it
//!  snapshots/N/work    overlayfs's own, active ones only
//! ```

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::{Driver, Mount, SnapshotError, SnapshotKind, Usage, io, usage};

/// The driver.
#[derive(Debug)]
pub(crate) struct Overlay {
    folder: PathBuf,
    /// Options that every overlay mount gets on this kernel.
    always: Vec<String>,
}

impl Overlay {
    /// In `root`, which the driver owns.
    pub(crate) fn new(root: &Path) -> Self {
        let mut always = Vec::new();
        // With the inode index on, a layer that is an upper and a lower at once is refused.
        if Path::new("/sys/module/overlay/parameters/index").exists() {
            always.push("index=off".to_owned());
        }
        // What overlayfs notes beside files, it may then note as a user's attributes only.
        if crate::mount::in_user_namespace() {
            always.push("userxattr".to_owned());
        }
        Self {
            folder: root.join("snapshots"),
            always,
        }
    }

    fn fs(&self, id: i64) -> PathBuf {
        self.folder.join(id.to_string()).join("fs")
    }
}

impl Driver for Overlay {
    fn name(&self) -> &'static str {
        "overlayfs"
    }

    fn folder(&self) -> &Path {
        &self.folder
    }

    fn make(&self, at: &Path, kind: SnapshotKind, parents: &[i64]) -> Result<(), SnapshotError> {
        DirBuilder::new()
            .mode(0o700)
            .create(at)
            .map_err(io("make directory", at))?;
        let fs = at.join("fs");
        // The umask is 077: the mode needs a call of its own.
        let make = |path: &Path, mode| {
            DirBuilder::new()
                .create(path)
                .and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(mode)))
                .map_err(io("make directory", path))
        };
        make(&fs, 0o755)?;
        if kind == SnapshotKind::Active {
            make(&at.join("work"), 0o711)?;
        }
        if let Some(parent) = parents.first() {
            let below = self.fs(*parent);
            let meta = std::fs::metadata(&below).map_err(io("look at parent", &below))?;
            std::os::unix::fs::chown(&fs, Some(meta.uid()), Some(meta.gid()))
                .map_err(io("chown", &fs))?;
        }
        Ok(())
    }

    fn mounts(&self, id: i64, kind: SnapshotKind, parents: &[i64]) -> Vec<Mount> {
        let active = kind == SnapshotKind::Active;
        match (active, parents) {
            (_, []) => return vec![Mount::bind(&self.fs(id), active)],
            (false, [only]) => return vec![Mount::bind(&self.fs(*only), false)],
            _ => {}
        }
        let mut options = self.always.clone();
        if active {
            options.push(format!(
                "workdir={}",
                self.folder.join(id.to_string()).join("work").display()
            ));
            options.push(format!("upperdir={}", self.fs(id).display()));
        }
        let lower: Vec<String> = parents
            .iter()
            .map(|p| self.fs(*p).display().to_string())
            .collect();
        options.push(format!("lowerdir={}", lower.join(":")));
        vec![Mount {
            kind: "overlay".into(),
            source: "overlay".to_owned(),
            options,
        }]
    }

    fn usage(&self, id: i64) -> Result<Usage, SnapshotError> {
        let fs = self.fs(id);
        usage::of_tree(&fs).map_err(io("measure", &fs))
    }
}
