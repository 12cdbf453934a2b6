//! A directory tree, or one file, as a tar stream: for `cp` out of a container, for `export`, and for copy-up.
//!
//! Descriptor-relative all the way down: a name that turns into a link while we walk is an error or a link in the archive,
//! never a way out. A file that grows or shrinks while it is read still has the length its header says. Blocking.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

use super::root::{link_target, subdirectory};
use crate::error::{During, Error, Result};

/// Deepest tree that is walked.
const DEPTH: usize = 1024;

/// Writes a tree.
pub(crate) struct Packer<W: Write> {
    out: Builder<W>,
    /// Files with several names: device and inode to the first path.
    links: HashMap<(u64, u64), PathBuf>,
    /// The mount that is not left; what is mounted on it is shown empty.
    mount: Option<u64>,
    /// Whether owners and times are left out.
    plain: bool,
}

impl<W: Write> std::fmt::Debug for Packer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Packer")
    }
}

impl<W: Write> Packer<W> {
    /// Writes to `out`.
    pub(crate) fn new(out: W) -> Self {
        Self {
            out: Builder::new(out),
            links: HashMap::new(),
            mount: None,
            plain: false,
        }
    }

    /// Writes what files are, and not whose and how old: equal trees then make equal archives.
    pub(crate) fn plain(mut self) -> Self {
        self.plain = true;
        self
    }

    /// Stays within the mount that the directory is on.
    pub(crate) fn stay_on_mount(&mut self, directory: &OwnedFd) -> Result<()> {
        self.mount = Some(mount_of(directory, Path::new(""))?);
        Ok(())
    }

    /// Adds what is in a directory, below `prefix`; with the directory itself unless the prefix is empty.
    pub(crate) fn tree(&mut self, directory: &OwnedFd, prefix: &Path) -> Result<()> {
        if !prefix.as_os_str().is_empty() {
            let status = rustix::fs::fstat(directory)?;
            let xattrs = attributes(directory);
            self.append_directory(prefix, &status, xattrs)?;
        }
        self.children(directory, prefix, 0)
    }

    /// Adds one entry of a directory as `path`; a directory with all that is in it.
    pub(crate) fn entry(&mut self, directory: &OwnedFd, name: &Path, path: &Path) -> Result<()> {
        self.any(directory, name, path, 0)
    }

    /// Ends the archive.
    pub(crate) fn finish(self) -> Result<W> {
        self.out.into_inner().during(|| "end the archive")
    }

    fn children(&mut self, directory: &OwnedFd, prefix: &Path, depth: usize) -> Result<()> {
        if depth > DEPTH {
            return Err(Error::invalid(format!(
                "archive {}: the tree is deeper than {DEPTH} directories",
                prefix.display()
            )));
        }
        for name in names(directory).during(|| format!("read directory {}", prefix.display()))? {
            let path = prefix.join(&name);
            self.any(directory, &name, &path, depth)?;
        }
        Ok(())
    }

    fn any(&mut self, directory: &OwnedFd, name: &Path, path: &Path, depth: usize) -> Result<()> {
        let what = || format!("archive {}", path.display());
        let status = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) => status,
            // Gone since the directory was read.
            Err(Errno::NOENT) if depth > 0 => return Ok(()),
            Err(e) => return Err(Error::from(e).during(what())),
        };
        let mounted_on = match self.mount {
            Some(mount) => mount_of(directory, name).during(what)? != mount,
            None => false,
        };
        if mounted_on {
            return self.covered(path, &status);
        }
        match FileType::from_raw_mode(status.st_mode) {
            FileType::Directory => {
                let below = match subdirectory(directory, name) {
                    Ok(below) => below,
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
                    Err(e) => return Err(Error::from(e).during(what())),
                };
                let xattrs = attributes(&below);
                self.append_directory(path, &status, xattrs)?;
                self.children(&below, path, depth + 1)
            }
            FileType::RegularFile => self.file(directory, name, path, &status).during(what),
            FileType::Symlink => {
                let target = link_target(directory, name).during(what)?;
                let mut header = self.header(&status, EntryType::Symlink);
                self.out
                    .append_link(&mut header, path, &target)
                    .during(what)
            }
            kind @ (FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo) => {
                self.special(kind, path, &status).during(what)
            }
            // A socket means nothing without its listener; tar has no form for it.
            _ => Ok(()),
        }
    }

    /// Stands for what lies under a mount: a file or directory with nothing in it.
    fn covered(&mut self, path: &Path, status: &Stat) -> Result<()> {
        if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
            return self.append_directory(path, status, Vec::new());
        }
        let mut header = self.header(status, EntryType::Regular);
        self.out
            .append_data(&mut header, path, io::empty())
            .during(|| format!("archive {}", path.display()))
    }

    fn append_directory(
        &mut self,
        path: &Path,
        status: &Stat,
        xattrs: Vec<(String, Vec<u8>)>,
    ) -> Result<()> {
        let what = || format!("archive {}", path.display());
        self.extensions(xattrs).during(what)?;
        let mut header = self.header(status, EntryType::Directory);
        // The name of a directory ends in a slash.
        let mut name = path.as_os_str().as_bytes().to_vec();
        if !name.ends_with(b"/") {
            name.push(b'/');
        }
        self.out
            .append_data(
                &mut header,
                Path::new(OsStr::from_bytes(&name)),
                io::empty(),
            )
            .during(what)
    }

    fn file(
        &mut self,
        directory: &OwnedFd,
        name: &Path,
        path: &Path,
        status: &Stat,
    ) -> io::Result<()> {
        if status.st_nlink > 1 {
            let key = (status.st_dev, status.st_ino);
            if let Some(first) = self.links.get(&key) {
                let mut header = self.header(status, EntryType::Link);
                let first = first.clone();
                return self.out.append_link(&mut header, path, &first);
            }
            self.links.insert(key, path.to_owned());
        }
        // Not blocking: it may have become a fifo meanwhile.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = openat(directory, name, flags, Mode::empty())?;
        let status = rustix::fs::fstat(&fd)?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("it was replaced while it was read"));
        }
        self.extensions(attributes(&fd))?;
        let size = u64::try_from(status.st_size).unwrap_or(0);
        let mut header = self.header(&status, EntryType::Regular);
        header.set_size(size);
        let content = std::fs::File::from(fd).chain(io::repeat(0)).take(size);
        self.out.append_data(&mut header, path, content)
    }

    fn special(&mut self, kind: FileType, path: &Path, status: &Stat) -> io::Result<()> {
        let kind = match kind {
            FileType::CharacterDevice => EntryType::Char,
            FileType::BlockDevice => EntryType::Block,
            _ => EntryType::Fifo,
        };
        let mut header = self.header(status, kind);
        if kind != EntryType::Fifo {
            header.set_device_major(rustix::fs::major(status.st_rdev))?;
            header.set_device_minor(rustix::fs::minor(status.st_rdev))?;
        }
        self.out.append_data(&mut header, path, io::empty())
    }

    fn header(&self, status: &Stat, kind: EntryType) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(status.st_mode & 0o7777);
        header.set_size(0);
        if !self.plain {
            header.set_uid(status.st_uid.into());
            header.set_gid(status.st_gid.into());
            header.set_mtime(u64::try_from(status.st_mtime).unwrap_or(0));
        }
        header
    }

    fn extensions(&mut self, xattrs: Vec<(String, Vec<u8>)>) -> io::Result<()> {
        if xattrs.is_empty() {
            return Ok(());
        }
        self.out.append_pax_extensions(
            xattrs
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_slice())),
        )
    }
}

/// The id of the mount that an entry is on; of the directory itself if the name is empty.
fn mount_of(directory: &OwnedFd, name: &Path) -> Result<u64, Errno> {
    use rustix::fs::{StatxFlags, statx};
    let mut flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    if name.as_os_str().is_empty() {
        flags |= AtFlags::EMPTY_PATH;
    }
    Ok(statx(directory, name, flags, StatxFlags::MNT_ID)?.stx_mnt_id)
}

/// The names in a directory, sorted, so that equal trees make equal archives.
pub(crate) fn names(directory: &OwnedFd) -> Result<Vec<PathBuf>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(PathBuf::from(OsStr::from_bytes(name)));
        }
    }
    names.sort();
    Ok(names)
}

/// The extended attributes that travel: file capabilities and users' own. Those of overlayfs and SELinux belong to the place.
fn attributes(fd: &OwnedFd) -> Vec<(String, Vec<u8>)> {
    let mut list = [0u8; 4096];
    // No attributes, or a file system without them, or a list too long to be a reasonable one.
    let Ok(length) = rustix::fs::flistxattr(fd, &mut list) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for name in list[..length].split(|b| *b == 0) {
        let Ok(name) = std::str::from_utf8(name) else {
            continue;
        };
        if name != "security.capability" && !name.starts_with("user.") {
            continue;
        }
        let mut value = vec![0u8; 64 << 10];
        if let Ok(length) = rustix::fs::fgetxattr(fd, name, &mut value) {
            value.truncate(length);
            found.push((format!("SCHILY.xattr.{name}"), value));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::root::Root;

    #[test]
    fn a_tree_becomes_an_archive() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("d")).unwrap();
        std::fs::write(at("d/f"), "hello").unwrap();
        std::fs::hard_link(at("d/f"), at("d/g")).unwrap();
        std::os::unix::fs::symlink("/x", at("d/s")).unwrap();
        let root = Root::of_directory(dir.path()).unwrap();
        let mut packer = Packer::new(Vec::new());
        let fd = root.directory(Path::new("/")).unwrap();
        packer.entry(&fd, Path::new("d"), Path::new("new")).unwrap();
        let bytes = packer.finish().unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries: Vec<(String, EntryType, u64)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let path = entry.path().unwrap().display().to_string();
                (path, entry.header().entry_type(), entry.size())
            })
            .collect();
        assert_eq!(
            entries,
            [
                ("new/".to_owned(), EntryType::Directory, 0),
                ("new/f".to_owned(), EntryType::Regular, 5),
                ("new/g".to_owned(), EntryType::Link, 0),
                ("new/s".to_owned(), EntryType::Symlink, 0),
            ]
        );
    }
}
