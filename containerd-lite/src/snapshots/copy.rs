//! The `native` snapshotter: each snapshot is a whole copy of its parent. Works on every file system; extents are shared
//! where the file system can.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, Timespec, Timestamps};

use super::{Driver, Mount, SnapshotError, SnapshotKind, Usage, io, usage};

/// The driver.
#[derive(Debug)]
pub(crate) struct Copy {
    folder: PathBuf,
}

impl Copy {
    /// In `root`, which the driver owns.
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            folder: root.join("snapshots"),
        }
    }
}

impl Driver for Copy {
    fn name(&self) -> &'static str {
        "native"
    }

    fn folder(&self) -> &Path {
        &self.folder
    }

    fn make(&self, at: &Path, kind: SnapshotKind, parents: &[i64]) -> Result<(), SnapshotError> {
        DirBuilder::new()
            .create(at)
            .map_err(io("make directory", at))?;
        fs::set_permissions(at, Permissions::from_mode(0o755)).map_err(io("make directory", at))?;
        match parents.first() {
            // A view of a parent is the parent itself.
            Some(parent) if kind == SnapshotKind::Active => {
                let from = self.folder.join(parent.to_string());
                tree(&from, at).map_err(io("copy parent to", at))
            }
            _ => Ok(()),
        }
    }

    fn mounts(&self, id: i64, kind: SnapshotKind, parents: &[i64]) -> Vec<Mount> {
        let shown = match (kind, parents.first()) {
            (SnapshotKind::View, Some(parent)) => *parent,
            _ => id,
        };
        vec![Mount::bind(
            &self.folder.join(shown.to_string()),
            kind == SnapshotKind::Active,
        )]
    }

    fn usage(&self, id: i64) -> Result<Usage, SnapshotError> {
        let path = self.folder.join(id.to_string());
        usage::of_tree(&path).map_err(io("measure", &path))
    }
}

/// Copies what is in `from` into the empty directory `to`, with owners, modes, attributes, times and hardlinks.
fn tree(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut names: HashMap<(u64, u64), PathBuf> = HashMap::new();
    let mut todo = vec![(from.to_owned(), to.to_owned())];
    let mut directories = Vec::new();
    while let Some((from, to)) = todo.pop() {
        for entry in fs::read_dir(&from)? {
            let entry = entry?;
            let (source, target) = (entry.path(), to.join(entry.file_name()));
            let meta = fs::symlink_metadata(&source)?;
            if !meta.is_dir() && meta.nlink() > 1 {
                if let Some(first) = names.get(&(meta.dev(), meta.ino())) {
                    fs::hard_link(first, &target)?;
                    continue;
                }
                names.insert((meta.dev(), meta.ino()), target.clone());
            }
            one(&source, &target, &meta)?;
            if meta.is_dir() {
                todo.push((source, target));
            } else {
                attributes(&source, &target, &meta)?;
            }
        }
        directories.push((from, to));
    }
    // Children change the times of their directories, so these come last, deepest first.
    for (source, target) in directories.into_iter().rev() {
        attributes(&source, &target, &fs::symlink_metadata(&source)?)?;
    }
    Ok(())
}

fn one(source: &Path, target: &Path, meta: &fs::Metadata) -> std::io::Result<()> {
    let kind = meta.file_type();
    if kind.is_dir() {
        DirBuilder::new().create(target)
    } else if kind.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(source)?, target)
    } else if kind.is_file() {
        let mut reader = File::open(source)?;
        let mut writer = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(target)?;
        // The standard library copies inside the kernel here.
        std::io::copy(&mut reader, &mut writer).map(drop)
    } else {
        let kind = match () {
            () if kind.is_char_device() => rustix::fs::FileType::CharacterDevice,
            () if kind.is_block_device() => rustix::fs::FileType::BlockDevice,
            () if kind.is_fifo() => rustix::fs::FileType::Fifo,
            () => rustix::fs::FileType::Socket,
        };
        rustix::fs::mknodat(CWD, target, kind, Mode::RUSR, meta.rdev()).map_err(Into::into)
    }
}

fn attributes(source: &Path, target: &Path, meta: &fs::Metadata) -> std::io::Result<()> {
    std::os::unix::fs::lchown(target, Some(meta.uid()), Some(meta.gid()))?;
    for name in crate::diff::xattr::list(source)? {
        if let Some(value) = crate::diff::xattr::get(source, &name)? {
            rustix::fs::lsetxattr(target, &*name, &value, rustix::fs::XattrFlags::empty())?;
        }
    }
    if !meta.is_symlink() {
        fs::set_permissions(target, Permissions::from_mode(meta.mode() & 0o7777))?;
    }
    let time = |seconds, nanos: i64| Timespec {
        tv_sec: seconds,
        tv_nsec: nanos as _,
    };
    let times = Timestamps {
        last_access: time(meta.atime(), meta.atime_nsec()),
        last_modification: time(meta.mtime(), meta.mtime_nsec()),
    };
    rustix::fs::utimensat(CWD, target, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(Into::into)
}
