//! `diff`: what a container has changed of its image, read off the upper layer of its overlay.
//!
//! The runtime puts empty files and directories where it mounts something (`/etc/hosts`, `/dev/pts`). They are nobody's
//! change and are left out, and so is a directory that has nothing else new in it.

use std::path::{Path, PathBuf};

use proto::containerd::types::Mount;
use rustix::fs::{AtFlags, Dir, FileType, statat};
use serde::Serialize;

use super::container::{exists, snapshot};
use super::root::{Root, subdirectory};
use crate::App;
use crate::container::Record;
use crate::error::{During, Error, Result};
use crate::volumes::blocking;

/// Where the runtime mounts things in every container.
const MOUNT_POINTS: [&str; 7] = [
    "/dev",
    "/proc",
    "/sys",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/dev/console",
];

/// Deepest tree that is walked.
const DEPTH: usize = 1024;

/// One changed path: 0 modified, 1 added, 2 deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Change {
    path: String,
    kind: u8,
}

/// The changes of a container, in the order of their paths.
pub(crate) async fn changes(app: &App, record: &Record) -> Result<Vec<Change>> {
    let mounts = snapshot(app, record).await?;
    let own: Vec<String> = record
        .mounts
        .iter()
        .map(|m| m.destination.clone())
        .collect();
    blocking(move || {
        let mut walk = Walk::new(&mounts, own)?;
        let upper = walk.upper.directory(Path::new("/"))?;
        walk.directory(&upper, &PathBuf::from("/"), 0)?;
        walk.changes.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(walk.changes)
    })
    .await
    .during(|| format!("compare container {} with its image", record.id))
}

struct Walk {
    upper: Root,
    /// The image; none if it has no layers.
    lower: Option<Root>,
    own: Vec<String>,
    changes: Vec<Change>,
}

/// The options of a view of the lower layers: where they are, and what else the snapshot's mount is told of its kind.
fn lower_options(of: &[String], lower: &str) -> Vec<String> {
    let words = of.iter().filter(|option| !option.contains("dir="));
    let words = words.filter(|option| !matches!(option.as_str(), "rw" | "ro"));
    let own = [format!("lowerdir={lower}"), "ro".to_owned()];
    own.into_iter().chain(words.cloned()).collect()
}

impl Walk {
    fn new(mounts: &[Mount], own: Vec<String>) -> Result<Self> {
        let [mount] = mounts else {
            return Err(Error::unimplemented(format!(
                "a snapshot of {} mounts",
                mounts.len()
            )));
        };
        let value = |key: &str| {
            mount
                .options
                .iter()
                .find_map(|option| option.strip_prefix(key))
        };
        let (upper, lower) = match mount.r#type.as_str() {
            "bind" => (mount.source.as_str(), None),
            "overlay" => {
                let upper = value("upperdir=").ok_or_else(|| {
                    Error::unimplemented("a snapshot that cannot be written has no changes")
                })?;
                (upper, value("lowerdir="))
            }
            other => {
                return Err(Error::unimplemented(format!(
                    "changes in a snapshot of type {other} cannot be told"
                )));
            }
        };
        let lower = match lower {
            None => None,
            Some(one) if !one.contains(':') => Some(Root::of_directory(Path::new(one))?),
            Some(several) => {
                let view = Mount {
                    r#type: "overlay".into(),
                    options: lower_options(&mount.options, several),
                    ..Mount::default()
                };
                Some(Root::of_snapshot(&[view])?)
            }
        };
        Ok(Self {
            upper: Root::of_directory(Path::new(upper))?,
            lower,
            own,
            changes: Vec::new(),
        })
    }

    /// Whether anything below is a change.
    fn directory(
        &mut self,
        directory: &std::os::fd::OwnedFd,
        path: &Path,
        depth: usize,
    ) -> Result<bool> {
        if depth > DEPTH {
            return Err(Error::invalid(format!("{}: too deep", path.display())));
        }
        let mut any = false;
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let bytes = entry.file_name().to_bytes();
            if bytes == b"." || bytes == b".." {
                continue;
            }
            use std::os::unix::ffi::OsStrExt;
            let name = PathBuf::from(std::ffi::OsStr::from_bytes(bytes));
            let path = path.join(&name);
            let status = match statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(status) => status,
                // The container runs, and has removed it meanwhile.
                Err(rustix::io::Errno::NOENT) => continue,
                Err(e) => return Err(Error::from(e).during(format!("look at {}", path.display()))),
            };
            any |= self.entry(directory, &name, &path, &status, depth)?;
        }
        Ok(any)
    }

    fn entry(
        &mut self,
        directory: &std::os::fd::OwnedFd,
        name: &Path,
        path: &Path,
        status: &rustix::fs::Stat,
        depth: usize,
    ) -> Result<bool> {
        let kind = FileType::from_raw_mode(status.st_mode);
        let below = match &self.lower {
            Some(lower) => exists(lower, path)?,
            None => false,
        };
        if kind == FileType::CharacterDevice && status.st_rdev == 0 {
            if below {
                self.add(path, 2);
            }
            return Ok(below);
        }
        let stub = self.is_mount_point(path);
        if kind == FileType::Directory {
            let inner = subdirectory(directory, name)?;
            let at = self.changes.len();
            let any = self.directory(&inner, path, depth + 1)?;
            // An old directory is copied up when something in it changes, or it itself.
            let only_stubs = !any && (stub || self.holds_mount_points(path));
            if only_stubs {
                self.changes.truncate(at);
                return Ok(false);
            }
            self.add(path, if below { 0 } else { 1 });
            return Ok(true);
        }
        if stub && status.st_size == 0 {
            return Ok(false);
        }
        self.add(path, if below { 0 } else { 1 });
        Ok(true)
    }

    fn add(&mut self, path: &Path, kind: u8) {
        self.changes.push(Change {
            path: path.to_string_lossy().into_owned(),
            kind,
        });
    }

    fn is_mount_point(&self, path: &Path) -> bool {
        let text = path.to_string_lossy();
        MOUNT_POINTS.contains(&text.as_ref())
            || self.own.iter().any(|own| *own == text)
            || path.starts_with("/dev")
    }

    fn holds_mount_points(&self, path: &Path) -> bool {
        let own = self.own.iter().map(String::as_str);
        own.chain(MOUNT_POINTS)
            .any(|point| Path::new(point).starts_with(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_and_mount_points_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let (upper, lower) = (dir.path().join("u"), dir.path().join("l"));
        for path in ["etc", "old", "quiet"] {
            std::fs::create_dir_all(lower.join(path)).unwrap();
        }
        std::fs::write(lower.join("old/f"), "1").unwrap();
        for path in ["etc", "old", "new/deep", "dev/pts", "data"] {
            std::fs::create_dir_all(upper.join(path)).unwrap();
        }
        std::fs::write(upper.join("etc/hosts"), "").unwrap();
        std::fs::write(upper.join("old/f"), "2").unwrap();
        std::fs::write(upper.join("old/g"), "3").unwrap();
        let mut walk = Walk {
            upper: Root::of_directory(&upper).unwrap(),
            lower: Some(Root::of_directory(&lower).unwrap()),
            own: vec!["/data".into()],
            changes: Vec::new(),
        };
        let fd = walk.upper.directory(Path::new("/")).unwrap();
        walk.directory(&fd, Path::new("/"), 0).unwrap();
        walk.changes.sort_by(|a, b| a.path.cmp(&b.path));
        let found: Vec<_> = walk
            .changes
            .iter()
            .map(|c| (c.path.as_str(), c.kind))
            .collect();
        assert_eq!(
            found,
            [
                ("/new", 1),
                ("/new/deep", 1),
                ("/old", 0),
                ("/old/f", 0),
                ("/old/g", 1)
            ]
        );
    }
}
