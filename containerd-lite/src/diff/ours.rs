//! What came with this layer and what lies below it: a removal must tell them apart, whatever the order of the entries.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;

use super::root::{Directory, Root, is_directory, names, open_plain, remove};
use super::{DiffError, io};

/// How to tell.
#[derive(Debug)]
pub(super) enum Ours {
    /// The directory was empty: all of it came with this layer.
    All,
    /// It is in the overlay's upper directory.
    Upper(Root),
    /// It is noted.
    Noted(HashSet<PathBuf>),
}

impl Ours {
    /// For a root, and the upper directory if the root is an overlay.
    pub(super) fn new(root: &Root, upper: Option<OwnedFd>) -> std::io::Result<Self> {
        Ok(match upper {
            Some(upper) => Self::Upper(Root::new(upper)?),
            None if root.is_empty()? => Self::All,
            None => Self::Noted(HashSet::new()),
        })
    }

    /// An entry was put there.
    pub(super) fn note(&mut self, path: PathBuf) {
        if let Self::Noted(noted) = self {
            noted.insert(path);
        }
    }

    /// Removes what the layers below have under a name.
    pub(super) fn hide(
        &self,
        root: &mut Root,
        parent: &Directory,
        name: &OsStr,
    ) -> std::io::Result<()> {
        let mut todo = vec![(parent.fd.clone(), parent.real.clone(), name.to_owned())];
        while let Some((fd, real, name)) = todo.pop() {
            let Some(directory) = is_directory(&fd, &name)? else {
                continue;
            };
            let path = real.join(&name);
            if !self.is_ours(&path)? {
                root.forget();
                remove(&fd, &name)?;
            } else if directory {
                let below = std::rc::Rc::new(open_plain(&fd, &name)?);
                for name in names(&below)? {
                    todo.push((
                        below.clone(),
                        path.clone(),
                        OsStr::from_bytes(&name).to_owned(),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Removes all that the layers below have in a directory.
    pub(super) fn hide_below(
        &self,
        root: &mut Root,
        directory: &Directory,
    ) -> Result<(), DiffError> {
        if matches!(self, Self::All) {
            return Ok(());
        }
        let failed = |e| io::<std::io::Error>("empty", &directory.real)(e);
        for name in names(&directory.fd).map_err(failed)? {
            let failed = |e| io::<std::io::Error>("empty", &directory.real)(e);
            self.hide(root, directory, OsStr::from_bytes(&name))
                .map_err(failed)?;
        }
        Ok(())
    }

    /// Whether a path came with this layer.
    fn is_ours(&self, path: &Path) -> std::io::Result<bool> {
        match self {
            Self::All => Ok(true),
            Self::Noted(noted) => Ok(noted.contains(path)),
            Self::Upper(upper) => match upper.look(path) {
                Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
                Err(errno) => Err(errno.into()),
                Ok(fd) => {
                    let stat = rustix::fs::fstat(&fd)?;
                    let removal = FileType::from_raw_mode(stat.st_mode)
                        == FileType::CharacterDevice
                        && stat.st_rdev == 0;
                    Ok(!removal)
                }
            },
        }
    }
}
