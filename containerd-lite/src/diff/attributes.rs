//! Owner, mode, extended attributes and times of what an entry made.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::archive::{Entry, Kind, Time};
use super::root::proc_path;
use super::{DiffError, io};

/// Attributes that the union file system reads; a layer has no business to set them.
const OVERLAY: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// Sets attributes.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    /// That some were left out has been said.
    warned: bool,
}

impl Attributes {
    /// Owner before mode and attributes: a change of owner clears set-id bits and capabilities.
    pub(super) fn of_open(
        &mut self,
        fd: &OwnedFd,
        entry: &Entry,
        path: &Path,
    ) -> Result<(), DiffError> {
        let (uid, gid) = owner(entry);
        rustix::fs::fchown(fd, uid, gid).map_err(io("chown", path))?;
        rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).map_err(io("chmod", path))?;
        for (name, value) in kept_xattrs(entry) {
            let outcome = rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty());
            self.outcome(outcome, name, path)?;
        }
        Ok(())
    }

    /// The same for what cannot be opened: links, devices; and the times.
    pub(super) fn by_name(
        &mut self,
        fd: &OwnedFd,
        name: &OsStr,
        entry: &Entry,
        path: &Path,
    ) -> Result<(), DiffError> {
        let (uid, gid) = owner(entry);
        rustix::fs::chownat(fd, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(io("chown", path))?;
        if !matches!(entry.kind, Kind::Symlink(_)) {
            // We made this name and it is no link, so nothing is followed.
            rustix::fs::chmodat(fd, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .map_err(io("chmod", path))?;
        }
        for (key, value) in kept_xattrs(entry) {
            let outcome =
                rustix::fs::lsetxattr(proc_path(fd, name), key, value, XattrFlags::empty());
            self.outcome(outcome, key, path)?;
        }
        rustix::fs::utimensat(fd, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(io("set times of", path))
    }

    /// Not every file system takes every attribute; the real daemon goes on without them too.
    fn outcome(
        &mut self,
        outcome: Result<(), Errno>,
        name: &[u8],
        path: &Path,
    ) -> Result<(), DiffError> {
        match outcome {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::PERM) => {
                if !std::mem::replace(&mut self.warned, true) {
                    tracing::warn!(
                        path = %path.display(),
                        attribute = %String::from_utf8_lossy(name),
                        "attributes of layer entries are left out, the file system does not take them"
                    );
                }
                Ok(())
            }
            Err(errno) => Err(io("set attribute of", path)(errno)),
        }
    }
}

fn kept_xattrs(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    entry
        .xattrs
        .iter()
        .filter(|(name, _)| !OVERLAY.iter().any(|prefix| name.starts_with(prefix)))
        .map(|(name, value)| (name.as_slice(), value.as_slice()))
}

fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(entry.uid)),
        Some(Gid::from_raw(entry.gid)),
    )
}

/// Times of an entry as the kernel takes them.
pub(super) fn times(entry: &Entry) -> Timestamps {
    let spec = |(seconds, nanos): Time| Timespec {
        tv_sec: seconds,
        tv_nsec: nanos as _,
    };
    Timestamps {
        last_access: spec(entry.atime),
        last_modification: spec(entry.mtime),
    }
}
