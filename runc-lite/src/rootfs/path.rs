//! Paths inside a root file system, resolved to descriptors.
//!
//! The root may be hostile, and may be changed by others while we work on it.
//! So no path into it is ever given to the kernel as a string from outside:
//! every one is resolved by `openat2` with RESOLVE_IN_ROOT relative to the root's
//! descriptor (links and `..` stop at the root, magic links are refused), and the
//! work is done on the descriptor that results.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, readlinkat,
};
use rustix::io::Errno;

/// Links followed while making missing directories, as many as the kernel follows.
const MAX_LINKS: usize = 40;

/// Opens what is at `path` in the root, without following links out of it.
pub(crate) fn open(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    resolve(
        root,
        path,
        flags,
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

/// As [`open`], but refuses any link in the path (ELOOP).
pub(crate) fn open_without_links(
    root: BorrowedFd<'_>,
    path: &str,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    resolve(
        root,
        path,
        flags,
        ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
    )
}

/// As [`open_without_links`], but refuses what is mounted below `root` too (EXDEV).
pub(crate) fn open_on_mount(
    root: BorrowedFd<'_>,
    path: &str,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    resolve(root, path, flags, how)
}

fn resolve(
    root: BorrowedFd<'_>,
    path: &str,
    flags: OFlags,
    how: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    // An empty path means the root itself here.
    let path = if path.is_empty() { "/" } else { path };
    loop {
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
            // EAGAIN: something was renamed meanwhile and `..` could not be proven safe.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Opens the directory at `path`, making what is missing of it.
pub(crate) fn make_dirs(root: BorrowedFd<'_>, path: &str, mode: u32) -> Result<OwnedFd, Errno> {
    match open(root, path, OFlags::PATH | OFlags::DIRECTORY) {
        Err(Errno::NOENT) => match make_last(root, path, mode) {
            Some(made) => Ok(made),
            None => make_missing(root, path, mode, MAX_LINKS),
        },
        other => other,
    }
}

/// The usual case: only the last component is missing, and no link is there.
fn make_last(root: BorrowedFd<'_>, path: &str, mode: u32) -> Option<OwnedFd> {
    let (parent, name) = split(path);
    if matches!(name, "" | "." | "..") {
        return None;
    }
    let parent = open(root, parent, OFlags::PATH | OFlags::DIRECTORY).ok()?;
    mkdirat(&parent, name, Mode::from_raw_mode(mode)).ok()?;
    openat(&parent, name, MADE, Mode::empty()).ok()
}

/// How a directory made just now is opened: whatever is there instead is refused.
const MADE: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Walks from the root and makes each missing component. A link to nowhere is
/// followed (inside the root) and its target made.
fn make_missing(
    root: BorrowedFd<'_>,
    path: &str,
    mode: u32,
    links: usize,
) -> Result<OwnedFd, Errno> {
    let mut done = String::new();
    let mut current = open(root, "/", OFlags::PATH | OFlags::DIRECTORY)?;
    for name in path.split('/').filter(|n| !n.is_empty() && *n != ".") {
        let parent = std::mem::take(&mut done);
        done = format!("{parent}/{name}");
        let found = open(root, &done, OFlags::PATH | OFlags::DIRECTORY);
        current = match found {
            Ok(fd) => fd,
            Err(Errno::NOENT) if name == ".." => return Err(Errno::NOENT),
            Err(Errno::NOENT) => match mkdirat(&current, name, Mode::from_raw_mode(mode)) {
                Ok(()) => openat(&current, name, MADE, Mode::empty())?,
                Err(Errno::EXIST) => {
                    // A link to something missing, or made by somebody else just now.
                    let Some(links) = links.checked_sub(1) else {
                        return Err(Errno::LOOP);
                    };
                    match readlinkat(&current, name, Vec::new()) {
                        Ok(target) => {
                            let target = target.into_string().map_err(|_| Errno::INVAL)?;
                            let target = if target.starts_with('/') {
                                target
                            } else {
                                format!("{parent}/{target}")
                            };
                            make_missing(root, &target, mode, links)?
                        }
                        Err(Errno::INVAL) => open(root, &done, OFlags::PATH | OFlags::DIRECTORY)?,
                        Err(e) => return Err(e),
                    }
                }
                Err(e) => return Err(e),
            },
            Err(e) => return Err(e),
        };
    }
    Ok(current)
}

/// Splits a path into the directory and the last name.
pub(crate) fn split(path: &str) -> (&str, &str) {
    let path = path.trim_end_matches('/');
    match path.rfind('/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => ("", path),
    }
}

/// Opens the file at `path`, making an empty one (and its directories) if
/// nothing is there.
pub(crate) fn make_file(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    match open(root, path, OFlags::PATH) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let (dir, name) = split(path);
    let dir = make_dirs(root, dir, 0o755)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(dir.as_fd(), name, flags, Mode::from_raw_mode(0o644)) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e),
    }
    // Through a link to nowhere this fails, which is right: there is nothing to mount on.
    open(root, path, OFlags::PATH)
}

/// The file `name` of an open directory as a place to mount on, made empty if
/// nothing is there. A link is refused, wherever it leads. Nothing is opened but as a
/// place, so that a fifo does not hold us up.
pub(crate) fn file_in(dir: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    let place = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = match openat(&dir, name, place, Mode::empty()) {
        Err(Errno::NOENT) => {
            let make = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            match openat(&dir, name, make, Mode::from_raw_mode(0o644)) {
                Ok(_) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e),
            }
            openat(&dir, name, place, Mode::empty())?
        }
        other => other?,
    };
    match FileType::from_raw_mode(fstat(&found)?.st_mode) {
        FileType::Symlink => Err(Errno::LOOP),
        FileType::Directory => Err(Errno::ISDIR),
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_stay_inside_and_missing_parts_are_made() {
        let dir = tempfile::tempdir().unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        symlink("/real", dir.path().join("abs")).unwrap();
        symlink("../../../../nowhere/deep", dir.path().join("dangling")).unwrap();
        make_dirs(root.as_fd(), "/abs/x/y", 0o755).unwrap();
        assert!(dir.path().join("real/x/y").is_dir());
        make_dirs(root.as_fd(), "dangling/z", 0o755).unwrap();
        assert!(dir.path().join("nowhere/deep/z").is_dir());
        make_file(root.as_fd(), "/a/b/file").unwrap();
        assert!(dir.path().join("a/b/file").is_file());
        assert_eq!(
            open_without_links(root.as_fd(), "/abs", OFlags::PATH).unwrap_err(),
            Errno::LOOP
        );
    }

    #[test]
    fn a_place_is_never_a_link_and_nothing_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let at = std::fs::File::open(dir.path()).unwrap();
        symlink("elsewhere", dir.path().join("console")).unwrap();
        assert_eq!(file_in(&at, "console").unwrap_err(), Errno::LOOP);
        assert!(!dir.path().join("elsewhere").exists());
        std::fs::create_dir(dir.path().join("dir")).unwrap();
        assert_eq!(file_in(&at, "dir").unwrap_err(), Errno::ISDIR);
        rustix::fs::mknodat(&at, "fifo", FileType::Fifo, Mode::RUSR, 0).unwrap();
        file_in(&at, "fifo").unwrap();
        file_in(&at, "new").unwrap();
        assert!(dir.path().join("new").is_file());
    }

    #[test]
    fn loops_end() {
        let dir = tempfile::tempdir().unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        assert!(make_dirs(root.as_fd(), "/a/x", 0o755).is_err());
    }

    #[test]
    fn names_split() {
        assert_eq!(split("/a/b/"), ("/a", "b"));
        assert_eq!(split("b"), ("", "b"));
    }
}
