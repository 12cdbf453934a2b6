//! Files that others wrote, read with care; and our own, replaced at once.
//!
//! A path that comes from outside, or lies where a container's processes can
//! write, may lead to a fifo that nobody fills, to a device without an end, or to
//! a file of any size. So nothing is read here that is no regular file, nothing
//! without a limit, and opening does not wait for anybody.

use std::fs::{self, File};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, Read, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};

/// No configuration, record or password file comes near this.
const LIMIT: u64 = 16 << 20;

/// The content of a regular file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_in(CWD, path, OFlags::empty())
}

/// The content of a regular file whose path starts in a directory. With
/// NOFOLLOW in `more` the last name must be no link.
pub(crate) fn read_in(dir: impl AsFd, path: &Path, more: OFlags) -> io::Result<Vec<u8>> {
    // Opening a fifo would wait for its other end, a terminal might become ours.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | more;
    let file = openat(dir, path, flags, Mode::empty())?;
    let found = fstat(&file)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("not a regular file"));
    }
    // Not believed, but mostly true: then one allocation does.
    let size = u64::try_from(found.st_size).unwrap_or(0).min(LIMIT);
    limited(File::from(file), size as usize)
}

/// The content of a file named on the command line, where `-` and `/dev/stdin`
/// are our standard input, which may be a pipe.
pub(crate) fn read_named(path: &str) -> io::Result<Vec<u8>> {
    match path {
        "-" | "/dev/stdin" => limited(io::stdin().lock(), 0),
        path => read(Path::new(path)),
    }
}

fn limited(from: impl Read, size: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(size + 1);
    from.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT {
        return Err(io::Error::other("larger than 16 MiB"));
    }
    Ok(bytes)
}

/// Writes a file by a temporary neighbour and a rename. The neighbour's name cannot
/// be foreseen and it must not exist: where others can write to the directory, they
/// could put a link there.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let random = RandomState::new().build_hasher().finish();
    let temporary = path.with_file_name(format!(".{name}.{random:016x}"));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// A path without its root, `.` and `..`, by its text alone; it cannot lead out of
/// where it is put.
pub(crate) fn clean(path: impl AsRef<Path>) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.as_ref().components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::mknodat;

    use super::*;

    #[test]
    fn only_regular_files_of_sane_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("plain"), "text").unwrap();
        symlink("plain", at("link")).unwrap();
        assert_eq!(read(&at("plain")).unwrap(), b"text");
        assert_eq!(read(&at("link")).unwrap(), b"text");
        assert!(read_in(CWD, &at("link"), OFlags::NOFOLLOW).is_err());
        let told = |path: &Path| read(path).unwrap_err().to_string();
        // Nobody writes to it: an ordinary open would wait for ever.
        mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(told(&at("fifo")), "not a regular file");
        assert_eq!(told(Path::new("/dev/zero")), "not a regular file");
        assert_eq!(told(dir.path()), "not a regular file");
        File::create(at("huge")).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(told(&at("huge")), "larger than 16 MiB");
    }

    #[test]
    fn a_link_in_the_place_of_the_file_is_replaced_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("other"), "kept").unwrap();
        symlink("other", at("pid")).unwrap();
        write_atomically(&at("pid"), b"7", 0o600).unwrap();
        write_atomically(&at("pid"), b"8", 0o600).unwrap();
        assert_eq!(fs::read_to_string(at("other")).unwrap(), "kept");
        assert_eq!(fs::read_to_string(at("pid")).unwrap(), "8");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
