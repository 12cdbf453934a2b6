//! Detaching what is mounted on a folder of ours.
//!
//! Mounting itself is the shim's work (and diff's, on descriptors). Sync; a detach never waits for who still uses the mount.

use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

/// More mounts than this on one another are no rootfs of ours.
const STACKED: usize = 64;

/// Detaches all that is mounted on `path`, with all that is mounted below it. Fine if there is nothing, or no such path.
pub(crate) fn detach_all(path: &Path) -> std::io::Result<()> {
    for _ in 0..STACKED {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Not a mount point any more, or not there.
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            // Without the right to unmount nobody has mounted there either, unless it is a mount point after all.
            Err(Errno::EPERM) if !is_mount_point(path)? => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(std::io::Error::other(format!(
        "more than {STACKED} mounts on one another"
    )))
}

/// Whether the root of a mount is at `path`.
fn is_mount_point(path: &Path) -> std::io::Result<bool> {
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    match rustix::fs::statx(
        rustix::fs::CWD,
        path,
        flags,
        rustix::fs::StatxFlags::empty(),
    ) {
        Ok(stat) => Ok(stat
            .stx_attributes
            .contains(rustix::fs::StatxAttributes::MOUNT_ROOT)),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether this process is in a user namespace other than the first, which maps all ids to themselves.
pub(crate) fn in_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().ne(["0", "0", "4294967295"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_folder_and_a_missing_one_are_fine() {
        let folder = tempfile::tempdir().expect("folder");
        detach_all(folder.path()).expect("plain folder");
        detach_all(&folder.path().join("missing")).expect("missing folder");
        assert!(folder.path().exists());
    }
}
