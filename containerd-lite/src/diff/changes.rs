//! What differs, as a layer: either all that one directory of an overlay holds, or two trees compared.
//!
//! Descriptor by descriptor, and without recursion: whoever owns the tree may be at work in it.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Read as _, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{FileType, Mode, OFlags, Stat};

use super::layer::{Layer, stat};
use super::root::{names, open_plain, proc_path};
use super::xattr;

/// A directory that is being walked, in both trees.
struct Level {
    path: PathBuf,
    /// Its own entry, while nothing of it has been written yet.
    pending: Option<(Rc<OwnedFd>, OsString, Stat)>,
    before: Option<Rc<OwnedFd>>,
    after: Rc<OwnedFd>,
    names: std::vec::IntoIter<OsString>,
}

/// Writes all that `upper` holds, and the removals that it stands for.
pub(super) fn of_overlay<W: Write>(upper: OwnedFd, layer: &mut Layer<W>) -> io::Result<()> {
    walk(None, upper, true, layer)
}

/// Writes what makes `after` of `before`.
pub(super) fn between<W: Write>(
    before: OwnedFd,
    after: OwnedFd,
    layer: &mut Layer<W>,
) -> io::Result<()> {
    walk(Some(before), after, false, layer)
}

fn walk<W: Write>(
    before: Option<OwnedFd>,
    after: OwnedFd,
    overlay: bool,
    layer: &mut Layer<W>,
) -> io::Result<()> {
    let mut stack = vec![Level::open(
        PathBuf::new(),
        None,
        before.map(Rc::new),
        Rc::new(after),
    )?];
    while let Some(level) = stack.last_mut() {
        let Some(name) = level.names.next() else {
            stack.pop();
            continue;
        };
        let (old, new) = (level.before.clone(), level.after.clone());
        let path = level.path.join(&name);
        let was = old.as_ref().map_or(Ok(None), |old| stat(old, &name))?;
        let Some(is) = stat(&new, &name)? else {
            if was.is_some() {
                flush(&mut stack, layer)?;
                layer.removed(&path)?;
            }
            continue;
        };
        if overlay && is_whiteout(&is) {
            flush(&mut stack, layer)?;
            layer.removed(&path)?;
            continue;
        }
        let was_directory = was.as_ref().is_some_and(is_directory);
        let same = match (&old, &was) {
            (Some(old), Some(was)) => is_same(old, was, &new, &is, &name)?,
            _ => false,
        };
        if !is_directory(&is) {
            if !same {
                flush(&mut stack, layer)?;
                layer.put(&new, &name, &path, &is)?;
            }
            continue;
        }
        let opened = match open_plain(&new, &name) {
            Ok(fd) => Rc::new(fd),
            // Removed or replaced meanwhile.
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
                continue;
            }
            Err(errno) => return Err(errno.into()),
        };
        let below = match &old {
            Some(old) if was_directory => Some(Rc::new(open_plain(old, &name)?)),
            _ => None,
        };
        let opaque = overlay && is_opaque(&new, &name)?;
        let pending = Some((new, name, is));
        stack.push(Level::open(path.clone(), pending, below, opened)?);
        if !same {
            flush(&mut stack, layer)?;
            if opaque {
                layer.opaque(&path)?;
            }
        }
    }
    Ok(())
}

/// Writes the directories above a change that have not been written.
fn flush<W: Write>(stack: &mut [Level], layer: &mut Layer<W>) -> io::Result<()> {
    for level in stack {
        if let Some((parent, name, stat)) = level.pending.take() {
            layer.put(&parent, &name, &level.path, &stat)?;
        }
    }
    Ok(())
}

impl Level {
    fn open(
        path: PathBuf,
        pending: Option<(Rc<OwnedFd>, OsString, Stat)>,
        before: Option<Rc<OwnedFd>>,
        after: Rc<OwnedFd>,
    ) -> io::Result<Self> {
        // By name, so that equal trees make equal layers.
        let mut all = BTreeSet::new();
        for directory in before.iter().chain([&after]) {
            all.extend(names(directory)?.into_iter().map(OsString::from_vec));
        }
        let names = all.into_iter().collect::<Vec<_>>().into_iter();
        Ok(Self {
            path,
            pending,
            before,
            after,
            names,
        })
    }
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn is_opaque(parent: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    for key in [c"trusted.overlay.opaque", c"user.overlay.opaque"] {
        if xattr::get(&proc_path(parent, name), &CString::from(key))?.as_deref() == Some(b"y") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a file is the same in both trees. Equal times to the nanosecond mean equal contents; whole seconds may come from
/// an archive and prove nothing, so then the bytes are compared.
fn is_same(old: &OwnedFd, was: &Stat, new: &OwnedFd, is: &Stat, name: &OsStr) -> io::Result<bool> {
    let of = |s: &Stat| (s.st_mode, s.st_uid, s.st_gid, s.st_rdev);
    if of(was) != of(is) {
        return Ok(false);
    }
    let key = CString::from(c"security.capability");
    if xattr::get(&proc_path(old, name), &key)? != xattr::get(&proc_path(new, name), &key)? {
        return Ok(false);
    }
    match FileType::from_raw_mode(is.st_mode) {
        FileType::Directory => Ok(true),
        FileType::Symlink => Ok(rustix::fs::readlinkat(old, name, Vec::new())?
            == rustix::fs::readlinkat(new, name, Vec::new())?),
        FileType::RegularFile => {
            if was.st_size != is.st_size || was.st_mtime != is.st_mtime {
                return Ok(false);
            }
            match (was.st_mtime_nsec, is.st_mtime_nsec) {
                (0, _) | (_, 0) => same_bytes(old, new, name),
                (a, b) => Ok(a == b),
            }
        }
        _ => Ok(true),
    }
}

fn same_bytes(old: &OwnedFd, new: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    let open = |directory| {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(directory, name, flags, Mode::empty()).map(std::fs::File::from)
    };
    let (mut old, mut new) = (
        io::BufReader::new(open(old)?),
        io::BufReader::new(open(new)?),
    );
    let (mut a, mut b) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let read = old.read(&mut a)?;
        if read == 0 {
            return Ok(new.read(&mut b)? == 0);
        }
        match new.read_exact(&mut b[..read]) {
            Ok(()) if a[..read] == b[..read] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// Whether `lower` is what `upper` is built on, plus exactly one directory: then that directory is the difference.
pub(super) fn single_layer<'a>(before: &[PathBuf], after: &'a [PathBuf]) -> Option<&'a Path> {
    let (first, rest) = after.split_first()?;
    (rest == before).then_some(first.as_path())
}
