//! clone3 used as fork: the child gets a copy of the address space and runs on
//! from here, inside the namespaces asked for.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Which side of the fork we are on.
#[derive(Debug)]
pub(crate) enum Forked {
    /// The new process.
    Child,
    /// The old one, with the child's pid and a descriptor for it, and whether the
    /// child is in the cgroup asked for.
    Parent {
        pid: i32,
        pidfd: OwnedFd,
        in_cgroup: bool,
    },
}

/// The argument of clone3, up to the last field used here (version 2 of the
/// struct; older kernels take it as long as what they do not know is zero).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Makes the child in the cgroup of the unified hierarchy given as a descriptor.
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks into the new namespaces named by `namespaces` (CLONE_NEW*) and, if the
/// kernel can, into a cgroup.
///
/// With `sibling` the child becomes a child of our parent (CLONE_PARENT).
/// The caller must be the only thread: that is asserted in debug builds.
pub(crate) fn fork_into(
    namespaces: u64,
    sibling: bool,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Forked> {
    if let Some(cgroup) = cgroup {
        // Whatever is wrong with the cgroup shows when the parent tries the old way.
        if let Ok(forked) = fork(namespaces, sibling, Some(cgroup)) {
            return Ok(forked);
        }
    }
    fork(namespaces, sibling, None)
}

fn fork(namespaces: u64, sibling: bool, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    debug_assert!(single_threaded(), "clone from a process with threads");
    let mut pidfd: libc::c_int = -1;
    let mut args = CloneArgs {
        flags: namespaces | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        ..CloneArgs::default()
    };
    if sibling {
        // The kernel refuses an exit signal here: the child takes over ours.
        args.flags |= libc::CLONE_PARENT as u64;
    } else {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = cgroup {
        args.flags |= INTO_CGROUP;
        args.cgroup = u64::try_from(cgroup.as_raw_fd()).expect("a descriptor is not negative");
    }
    // SAFETY: clone3 reads `args` for the given size and writes one int to
    // `pidfd`; both live on this stack frame. No CLONE_VM and no stack is given,
    // so the child goes on with its own copy of this frame, as after fork. The
    // process has one thread, so no lock of the allocator or of stdio can be
    // held by a thread that does not exist in the child.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut args,
            std::mem::size_of::<CloneArgs>(),
        )
    };
    match super::check(ret)? {
        0 => Ok(Forked::Child),
        pid => {
            // SAFETY: the kernel has just opened this descriptor for us and
            // nobody else knows its number.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Forked::Parent {
                pid: pid as i32,
                pidfd,
                in_cgroup: cgroup.is_some(),
            })
        }
    }
}

/// Whether this process has one thread (one entry in its task directory).
fn single_threaded() -> bool {
    std::fs::read_dir("/proc/self/task").map_or(true, |d| d.count() == 1)
}

#[cfg(test)]
mod tests {
    #[test]
    fn clone_args_is_version_two() {
        assert_eq!(std::mem::size_of::<super::CloneArgs>(), 88);
    }
}
