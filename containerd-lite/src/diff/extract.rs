//! Entries of a layer into a directory.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timestamps};
use rustix::io::Errno;

use super::archive::{Archive, Entry, Kind};
use super::attributes::{Attributes, times};
use super::ours::Ours;
use super::root::{Directory, Root, is_directory, normalise, open_plain, remove};
use super::target::Target;
use super::{DiffError, io};
use crate::disk::Meter;
use crate::mount::in_user_namespace;

/// Prefix of the names that stand for a removal.
const WHITEOUT: &[u8] = b".wh.";
/// The removal of all that the layers below have in a directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other names of AUFS's own.
const RESERVED: &[u8] = b".wh..wh.";
/// What an entry without data takes.
const ENTRY: u64 = 4096;

/// Where to put entries, and what has been put there.
#[derive(Debug)]
pub(super) struct Extractor {
    root: Root,
    ours: Ours,
    /// Directories and their times, to be set when nothing is put into them any more.
    directories: Vec<(PathBuf, Timestamps)>,
    buffer: Vec<u8>,
    meter: Meter,
    attributes: Attributes,
}

impl Extractor {
    /// Into an open target.
    pub(super) fn new(target: Target) -> std::io::Result<Self> {
        let root = Root::new(target.root)?;
        let ours = Ours::new(&root, target.upper)?;
        Ok(Self {
            root,
            ours,
            directories: Vec::new(),
            buffer: vec![0; 128 << 10],
            meter: Meter::new(),
            attributes: Attributes::default(),
        })
    }

    /// Puts one entry in its place.
    pub(super) fn put<R: std::io::Read>(
        &mut self,
        entry: &Entry,
        archive: &mut Archive<R>,
    ) -> Result<(), DiffError> {
        let wrong = |what| DiffError::Entry {
            path: String::from_utf8_lossy(&entry.path).into_owned(),
            what,
        };
        let path = normalise(&entry.path).ok_or_else(|| wrong("name leads out of the layer"))?;
        self.reserve(&path, ENTRY)?;
        let Some(name) = path.file_name() else {
            return self.put_root(entry);
        };
        let parent = self
            .root
            .directory(path.parent().unwrap_or(Path::new("")))?;
        let bytes = name.as_bytes();
        if bytes == OPAQUE {
            return self.ours.hide_below(&mut self.root, &parent);
        }
        if bytes.starts_with(RESERVED) {
            return Ok(());
        }
        if let Some(hidden) = bytes.strip_prefix(WHITEOUT) {
            return match hidden {
                b"" | b"." | b".." => Err(wrong("removal of no name")),
                hidden => self
                    .ours
                    .hide(&mut self.root, &parent, OsStr::from_bytes(hidden))
                    .map_err(io("remove", &path)),
            };
        }
        self.make(entry, &path, &parent, name, archive)?;
        self.ours.note(parent.real.join(name));
        Ok(())
    }

    /// Sets the times of directories, the deepest first.
    pub(super) fn finish(mut self, sync: bool) -> Result<(), DiffError> {
        for (path, times) in std::mem::take(&mut self.directories).into_iter().rev() {
            let directory = match self.root.look(&path) {
                Ok(fd) => fd,
                // A later entry removed or replaced it.
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                Err(errno) => return Err(io("open", &path)(errno)),
            };
            match rustix::fs::utimensat(&directory, "", &times, AtFlags::EMPTY_PATH) {
                Ok(()) => {}
                Err(errno) => return Err(io("set times of", &path)(errno)),
            }
        }
        if sync {
            super::root::sync(&self.root.top().fd).map_err(io("sync", Path::new("/")))?;
        }
        Ok(())
    }

    /// A layer must not fill the disk.
    fn reserve(&mut self, path: &Path, bytes: u64) -> Result<(), DiffError> {
        let Self { meter, root, .. } = self;
        meter
            .take(&*root.top().fd, bytes)
            .map_err(io("write", path))
    }

    fn put_root(&mut self, entry: &Entry) -> Result<(), DiffError> {
        let path = Path::new("/");
        if entry.kind != Kind::Directory {
            return Err(DiffError::Entry {
                path: "/".into(),
                what: "the root is no directory",
            });
        }
        let fd = open_plain(&self.root.top().fd, OsStr::new(".")).map_err(io("open", path))?;
        self.attributes.of_open(&fd, entry, path)?;
        self.directories.push((PathBuf::from("."), times(entry)));
        Ok(())
    }

    fn make<R: std::io::Read>(
        &mut self,
        entry: &Entry,
        path: &Path,
        parent: &Directory,
        name: &OsStr,
        archive: &mut Archive<R>,
    ) -> Result<(), DiffError> {
        let fd = &*parent.fd;
        match &entry.kind {
            Kind::Directory => {
                let made = rustix::fs::mkdirat(fd, name, Mode::RWXU);
                if made == Err(Errno::EXIST)
                    && is_directory(fd, name).map_err(io("look at", path))? != Some(true)
                {
                    self.clear(fd, name, path)?;
                    rustix::fs::mkdirat(fd, name, Mode::RWXU)
                        .map_err(io("make directory", path))?;
                } else if made != Err(Errno::EXIST) {
                    made.map_err(io("make directory", path))?;
                }
                let directory = open_plain(fd, name).map_err(io("open", path))?;
                self.attributes.of_open(&directory, entry, path)?;
                self.directories.push((path.to_owned(), times(entry)));
                Ok(())
            }
            Kind::File => {
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let create = || rustix::fs::openat(fd, name, flags, Mode::RUSR | Mode::WUSR);
                let file = self
                    .replacing(fd, name, path, create)
                    .map_err(io("make file", path))?;
                let mut file = File::from(file);
                self.copy(&mut file, entry, path, archive)?;
                let file = OwnedFd::from(file);
                self.attributes.of_open(&file, entry, path)?;
                rustix::fs::futimens(&file, &times(entry)).map_err(io("set times of", path))
            }
            Kind::Hardlink(target) => self.link(entry, target, path, parent, name),
            Kind::Symlink(target) => {
                let target = OsStr::from_bytes(target);
                self.replacing(fd, name, path, || rustix::fs::symlinkat(target, fd, name))
                    .map_err(io("make link", path))?;
                self.attributes.by_name(fd, name, entry, path)
            }
            Kind::Char(major, minor) => self.node(
                FileType::CharacterDevice,
                (*major, *minor),
                entry,
                path,
                fd,
                name,
            ),
            Kind::Block(major, minor) => self.node(
                FileType::BlockDevice,
                (*major, *minor),
                entry,
                path,
                fd,
                name,
            ),
            Kind::Fifo => self.node(FileType::Fifo, (0, 0), entry, path, fd, name),
        }
    }

    fn node(
        &mut self,
        kind: FileType,
        (major, minor): (u32, u32),
        entry: &Entry,
        path: &Path,
        fd: &OwnedFd,
        name: &OsStr,
    ) -> Result<(), DiffError> {
        if kind == FileType::CharacterDevice && (major, minor) == (0, 0) {
            // The union file system's own mark of a removal.
            return Err(DiffError::Entry {
                path: path.display().to_string(),
                what: "device 0:0 is reserved",
            });
        }
        let device = rustix::fs::makedev(major, minor);
        let made = self.replacing(fd, name, path, || {
            rustix::fs::mknodat(fd, name, kind, Mode::RUSR, device)
        });
        match made {
            // In a user namespace nobody may make one, and containers there get theirs from the host.
            Err(e) if e.raw_os_error() == Some(libc::EPERM) && in_user_namespace() => {
                tracing::debug!("device {} of a layer is left out", path.display());
                return Ok(());
            }
            other => other.map_err(io("make device", path))?,
        }
        self.attributes.by_name(fd, name, entry, path)
    }

    fn link(
        &mut self,
        entry: &Entry,
        target: &[u8],
        path: &Path,
        parent: &Directory,
        name: &OsStr,
    ) -> Result<(), DiffError> {
        let wrong = |what| DiffError::Entry {
            path: String::from_utf8_lossy(&entry.path).into_owned(),
            what,
        };
        let target = normalise(target).ok_or_else(|| wrong("hardlink leads out of the layer"))?;
        let target_name = target
            .file_name()
            .ok_or_else(|| wrong("hardlink to a directory"))?;
        if target == path {
            return Err(wrong("hardlink to itself"));
        }
        let above = self
            .root
            .directory(target.parent().unwrap_or(Path::new("")))?;
        match is_directory(&above.fd, target_name).map_err(io("look at", &target))? {
            None => return Err(wrong("hardlink to a file that is not there")),
            Some(true) => return Err(wrong("hardlink to a directory")),
            Some(false) => {}
        }
        let fd = &*parent.fd;
        self.replacing(fd, name, path, || {
            rustix::fs::linkat(&above.fd, target_name, fd, name, AtFlags::empty())
        })
        .map_err(io("make hardlink", path))
    }

    /// Makes something; what is there under the name goes first.
    fn replacing<T>(
        &mut self,
        fd: &OwnedFd,
        name: &OsStr,
        path: &Path,
        make: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, std::io::Error> {
        match make() {
            Err(Errno::EXIST) => {
                self.clear(fd, name, path).map_err(std::io::Error::other)?;
                Ok(make()?)
            }
            other => Ok(other?),
        }
    }

    fn clear(&mut self, fd: &OwnedFd, name: &OsStr, path: &Path) -> Result<(), DiffError> {
        self.root.forget();
        remove(fd, name).map_err(io("replace", path))
    }

    fn copy<R: std::io::Read>(
        &mut self,
        file: &mut File,
        entry: &Entry,
        path: &Path,
        archive: &mut Archive<R>,
    ) -> Result<(), DiffError> {
        let mut left = entry.size;
        while left > 0 {
            let most = self
                .buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = archive
                .read(&mut self.buffer[..most])
                .map_err(DiffError::Read)?;
            self.reserve(path, read as u64)?;
            file.write_all(&self.buffer[..read])
                .map_err(io("write", path))?;
            left -= read as u64;
        }
        Ok(())
    }
}
