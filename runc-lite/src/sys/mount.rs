//! mount_setattr, which rustix lacks.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// What mount_setattr changes.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MountAttr {
    /// MOUNT_ATTR_* to set.
    pub(crate) set: u64,
    /// MOUNT_ATTR_* to clear.
    pub(crate) clear: u64,
    /// MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE; 0 leaves it.
    pub(crate) propagation: u64,
    /// User namespace for MOUNT_ATTR_IDMAP; see [`set_idmap`].
    pub(crate) userns_fd: u64,
}

impl MountAttr {
    /// Whether there is nothing to change.
    pub(crate) fn is_empty(&self) -> bool {
        self.set == 0 && self.clear == 0 && self.propagation == 0
    }
}

/// Changes the mount open at `fd`, and those below it with `recursive`.
pub(crate) fn set_attr(fd: impl AsFd, recursive: bool, attr: &MountAttr) -> io::Result<()> {
    call(fd.as_fd(), recursive, attr)
}

/// Maps the ids of the (detached) mount at `fd` through a user namespace.
pub(crate) fn set_idmap(fd: impl AsFd, recursive: bool, userns: BorrowedFd<'_>) -> io::Result<()> {
    let attr = MountAttr {
        set: libc::MOUNT_ATTR_IDMAP,
        userns_fd: userns.as_raw_fd() as u64,
        ..MountAttr::default()
    };
    call(fd.as_fd(), recursive, &attr)
}

/// Whether the mount namespace has so many mounts. Kernels before Linux 6.8 do not tell:
/// false.
pub(crate) fn at_least(count: usize) -> bool {
    /// The same number on all architectures.
    const LISTMOUNT: libc::c_long = 458;
    /// struct mnt_id_req, as it was at first.
    #[repr(C)]
    struct Request {
        size: u32,
        spare: u32,
        mount: u64,
        after: u64,
    }
    let request = Request {
        size: std::mem::size_of::<Request>() as u32,
        spare: 0,
        // LSMT_ROOT: all below the root.
        mount: u64::MAX,
        after: 0,
    };
    let mut ids = vec![0_u64; count];
    // SAFETY: the kernel reads `size` bytes of the request, which is its size, and
    // writes at most `count` ids into `ids`, which has room for that many.
    let found = unsafe {
        libc::syscall(
            LISTMOUNT,
            &raw const request,
            ids.as_mut_ptr(),
            count,
            0_u32,
        )
    };
    usize::try_from(found).is_ok_and(|found| found >= count)
}

fn call(fd: BorrowedFd<'_>, recursive: bool, attr: &MountAttr) -> io::Result<()> {
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: the path is a static empty C string; the kernel reads exactly the
    // size given from `attr`, which has the layout of struct mount_attr.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            std::mem::size_of::<MountAttr>(),
        )
    };
    super::check(ret).map(drop)
}
