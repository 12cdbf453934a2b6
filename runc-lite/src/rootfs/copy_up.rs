//! Copies a directory of the container into the tmpfs that will cover it
//! (`tmpcopyup`), by descriptors on both sides.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid, chmodat, chownat, fstat, mkdirat, mknodat,
    openat, readlinkat, statat, symlinkat,
};
use rustix::io::Errno;

/// Deeper trees than this are no /etc or /var of an image.
const MAX_DEPTH: usize = 64;

/// How a file is opened that might be a fifo by now, which nobody fills.
const PLAIN: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// Copies what is in `from` (a path in the root) into the directory `to`.
pub(crate) fn copy(root: BorrowedFd<'_>, from: &str, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let from = super::path::open(root, from, OFlags::RDONLY | OFlags::DIRECTORY)?;
    copy_dir(&from, to, MAX_DEPTH)
}

fn copy_dir(from: &OwnedFd, to: BorrowedFd<'_>, depth: usize) -> Result<(), Errno> {
    let depth = depth.checked_sub(1).ok_or(Errno::LOOP)?;
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        let kind = FileType::from_raw_mode(stat.st_mode);
        match kind {
            FileType::Directory => {
                mkdirat(to, name, mode)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let sub_from = openat(from, name, flags, Mode::empty())?;
                let sub_to = openat(to, name, flags, Mode::empty())?;
                copy_dir(&sub_from, sub_to.as_fd(), depth)?;
            }
            FileType::RegularFile => {
                let file_from = openat(from, name, PLAIN, Mode::empty())?;
                // It may have been replaced since it was looked at.
                if FileType::from_raw_mode(fstat(&file_from)?.st_mode) != kind {
                    return Err(Errno::STALE);
                }
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let file_to = openat(to, name, flags, mode)?;
                while rustix::fs::sendfile(&file_to, &file_from, None, 1 << 20)? > 0 {}
            }
            FileType::Symlink => symlinkat(readlinkat(from, name, Vec::new())?, to, name)?,
            other => mknodat(to, name, other, mode, stat.st_rdev)?,
        }
        // Owner before mode: a change of owner drops set-id bits.
        chownat(
            to,
            name,
            Some(Uid::from_raw(stat.st_uid)),
            Some(Gid::from_raw(stat.st_gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
        if kind != FileType::Symlink {
            chmodat(to, name, mode, AtFlags::empty())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn a_tree_is_copied_with_modes_and_links() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(a.path().join("d/sub")).unwrap();
        fs::write(a.path().join("d/sub/f"), "text").unwrap();
        fs::set_permissions(a.path().join("d/sub/f"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink("/etc/passwd", a.path().join("d/link")).unwrap();
        let fifo = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, a.path().join("d/fifo"), fifo, mode, 0).unwrap();
        let root = fs::File::open(a.path()).unwrap();
        let to = fs::File::open(b.path()).unwrap();
        super::copy(root.as_fd(), "/d", to.as_fd()).unwrap();
        assert_eq!(fs::read_to_string(b.path().join("sub/f")).unwrap(), "text");
        let mode = fs::metadata(b.path().join("sub/f"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o640);
        let fifo = fs::metadata(b.path().join("fifo")).unwrap();
        assert!(std::os::unix::fs::FileTypeExt::is_fifo(&fifo.file_type()));
        assert_eq!(
            fs::read_link(b.path().join("link")).unwrap().to_str(),
            Some("/etc/passwd")
        );
    }
}
