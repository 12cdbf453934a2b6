//! A directory tree that is only touched through descriptors: the root of an extraction.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, statat, unlinkat};
use rustix::io::Errno;

use super::{DiffError, io as failed};

/// Deepest directory, so that whoever walks the tree later may recurse.
const MAX_DEPTH: usize = 512;

/// Links on one way, as the kernel has it.
const MAX_LINKS: usize = 40;

/// How names below the root are looked up: as if the root were `/`, and never through /proc.
const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// The root.
#[derive(Debug)]
pub(super) struct Root {
    fd: Rc<OwnedFd>,
    /// What the kernel calls the root.
    name: PathBuf,
    /// The directory that was opened last; entries of one directory come together.
    last: Option<Directory>,
}

/// An open directory below the root.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    /// As the layer calls it.
    asked: PathBuf,
    /// Where it is below the root, links resolved.
    pub(super) real: PathBuf,
    pub(super) fd: Rc<OwnedFd>,
}

/// Makes a name of a layer relative and plain: no leading slash, no `.`, `..` resolved by the text. None if it leads out.
pub(super) fn normalise(name: &[u8]) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(name)).components() {
        match part {
            Component::Normal(part) => out.push(part),
            Component::ParentDir => {
                if !out.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Some(out)
}

/// A path as the root's own processes would see it: above the root there is only the root.
fn clamped(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => out.push(part),
            Component::ParentDir => drop(out.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

impl Root {
    /// Below an open directory.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        let name = real_path(&fd)?;
        Ok(Self {
            fd: Rc::new(fd),
            name,
            last: None,
        })
    }

    /// The root itself as a directory.
    pub(super) fn top(&self) -> Directory {
        Directory {
            asked: PathBuf::new(),
            real: PathBuf::new(),
            fd: self.fd.clone(),
        }
    }

    /// Whether nothing is in the root.
    pub(super) fn is_empty(&self) -> io::Result<bool> {
        Ok(names(&self.fd)?.is_empty())
    }

    /// Opens a directory and makes what is missing of it.
    pub(super) fn directory(&mut self, path: &Path) -> Result<Directory, DiffError> {
        if path.as_os_str().is_empty() {
            return Ok(self.top());
        }
        if let Some(last) = self.last.as_ref().filter(|l| l.asked == path) {
            return Ok(last.clone());
        }
        let fd = match self.open(path) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => {
                self.make_parents(path, MAX_LINKS)?;
                self.open(path).map_err(failed("open directory", path))?
            }
            Err(errno) => return Err(failed("open directory", path)(errno)),
        };
        let full = real_path(&fd).map_err(failed("look up directory", path))?;
        let real = full.strip_prefix(&self.name).unwrap_or(&full).to_owned();
        if real.components().count() > MAX_DEPTH {
            return Err(DiffError::Entry {
                path: path.display().to_string(),
                what: "directories are nested too deep",
            });
        }
        let directory = Directory {
            asked: path.to_owned(),
            real,
            fd: Rc::new(fd),
        };
        self.last = Some(directory.clone());
        Ok(directory)
    }

    /// Something was removed or replaced: an open directory may not be in its place any more.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }

    fn open(&self, path: &Path) -> Result<OwnedFd, Errno> {
        open_below(&self.fd, path, OFlags::PATH | OFlags::DIRECTORY)
    }

    /// Makes what is missing of a path. A link to nothing gets the directory that it names, inside the root.
    fn make_parents(&self, path: &Path, links: usize) -> Result<(), DiffError> {
        let mut above = self.fd.clone();
        let mut so_far = PathBuf::new();
        for part in path.components() {
            so_far.push(part);
            match self.open(&so_far) {
                Ok(fd) => above = Rc::new(fd),
                Err(Errno::NOENT) => {
                    let mode = Mode::from_raw_mode(0o755);
                    match rustix::fs::mkdirat(&above, part.as_os_str(), mode) {
                        Err(Errno::EXIST) => {
                            self.make_target(&above, part.as_os_str(), &so_far, links)?;
                            let fd = self.open(&so_far);
                            above = Rc::new(fd.map_err(failed("open directory", &so_far))?);
                            continue;
                        }
                        made => made.map_err(failed("make directory", &so_far))?,
                    }
                    let fd = open_plain(&above, part.as_os_str())
                        .map_err(failed("open directory", &so_far))?;
                    // The umask took bits away.
                    rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755))
                        .map_err(failed("chmod", &so_far))?;
                    above = Rc::new(fd);
                }
                Err(errno) => return Err(failed("open directory", &so_far)(errno)),
            }
        }
        Ok(())
    }

    /// Makes the directory that the link `name` in `above` names.
    fn make_target(
        &self,
        above: &OwnedFd,
        name: &OsStr,
        path: &Path,
        links: usize,
    ) -> Result<(), DiffError> {
        if links == 0 {
            return Err(failed("open directory", path)(Errno::LOOP));
        }
        let target =
            rustix::fs::readlinkat(above, name, Vec::new()).map_err(failed("read link", path))?;
        let full = real_path(above).map_err(failed("look up directory", path))?;
        let real = full.strip_prefix(&self.name).unwrap_or(Path::new(""));
        let target = real.join(OsStr::from_bytes(target.to_bytes()));
        self.make_parents(&clamped(&target), links - 1)
    }

    /// Opens a path without following its last component, to see whether it is there.
    pub(super) fn look(&self, path: &Path) -> Result<OwnedFd, Errno> {
        open_below(&self.fd, path, OFlags::PATH | OFlags::NOFOLLOW)
    }
}

fn open_below(root: &OwnedFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    loop {
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), IN_ROOT) {
            // Somebody renamed a directory meanwhile.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Opens a directory that is `name` itself, for reading.
pub(super) fn open_plain(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Names in a directory.
pub(super) fn names(directory: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let readable = open_plain(directory, OsStr::new("."))?;
    let mut out = Vec::new();
    for entry in Dir::read_from(&readable)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            out.push(name.to_vec());
        }
    }
    Ok(out)
}

/// A path that leads to `name` in an open directory whatever is mounted or renamed above it.
pub(super) fn proc_path(directory: &OwnedFd, name: &OsStr) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name)
}

/// What the kernel calls an open file.
fn real_path(fd: &OwnedFd) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Removes `name` and all below it; links are removed, not followed. Fine if it is not there.
pub(super) fn remove(directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        // The standard library's removal goes by descriptors and does not follow links either.
        Err(Errno::ISDIR | Errno::PERM) => {
            match std::fs::remove_dir_all(proc_path(directory, name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            }
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Whether `name` is a directory; none if it is not there.
pub(super) fn is_directory(directory: &OwnedFd, name: &OsStr) -> io::Result<Option<bool>> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(
            FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
        )),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Writes everything below the root to the disk.
pub(super) fn sync(directory: &OwnedFd) -> io::Result<()> {
    let readable = File::from(open_plain(directory, OsStr::new("."))?);
    rustix::fs::syncfs(readable.as_fd()).map_err(Into::into)
}
