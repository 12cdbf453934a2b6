//! What a process does to itself or to another that rustix has no safe call for.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::check;

/// Joins a new session keyring under the given name.
pub(crate) fn join_session_keyring(name: &std::ffi::CStr) -> io::Result<()> {
    // SAFETY: KEYCTL_JOIN_SESSION_KEYRING takes one C string, given here.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_JOIN_SESSION_KEYRING as libc::c_long,
            name.as_ptr(),
        )
    };
    check(ret).map(drop)
}

/// Sets the execution domain (PER_LINUX, PER_LINUX32).
pub(crate) fn set_personality(domain: libc::c_ulong) -> io::Result<()> {
    // SAFETY: takes a number; a wrong one is an error.
    check(unsafe { libc::personality(domain) }.into()).map(drop)
}

/// Sets the I/O class and level of this process.
pub(crate) fn set_io_priority(class: i32, level: i32) -> io::Result<()> {
    const WHO_PROCESS: libc::c_int = 1;
    // SAFETY: takes three numbers; wrong ones are an error.
    let ret = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, class << 13 | level) };
    check(ret).map(drop)
}

/// Sets where the memory of this process comes from: mode with flags, and a bit
/// for each node.
pub(crate) fn set_memory_policy(mode: i32, nodes: &[u64]) -> io::Result<()> {
    let mask = match nodes {
        [] => std::ptr::null(),
        some => some.as_ptr(),
    };
    // The kernel takes the count of bits plus one.
    let bits = if nodes.is_empty() {
        0
    } else {
        nodes.len() * 64 + 1
    };
    // SAFETY: the kernel reads at most `bits - 1` bits, which is what `nodes` has.
    let ret = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) };
    check(ret).map(drop)
}

/// The argument of sched_setattr (version 0).
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct SchedAttr {
    size: u32,
    /// SCHED_*.
    pub(crate) policy: u32,
    /// SCHED_FLAG_*.
    pub(crate) flags: u64,
    /// Nice value.
    pub(crate) nice: i32,
    /// Static priority.
    pub(crate) priority: u32,
    /// Deadline class: runtime.
    pub(crate) runtime: u64,
    /// Deadline class: deadline.
    pub(crate) deadline: u64,
    /// Deadline class: period.
    pub(crate) period: u64,
}

/// Sets the scheduling policy of this process.
pub(crate) fn set_scheduler(mut attr: SchedAttr) -> io::Result<()> {
    attr.size = size_of::<SchedAttr>() as u32;
    // SAFETY: the kernel reads `size` bytes of the struct, which is its size.
    let ret = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    check(ret).map(drop)
}

/// Sends a signal by number to the process behind a pidfd.
pub(crate) fn pidfd_kill(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: no siginfo is given (null is allowed), the rest are numbers.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    check(ret).map(drop)
}

/// Forks; gives the child's pid, or nothing in the child. For where clone3 may be
/// refused by a filter; the caller must be the only thread.
pub(crate) fn fork() -> io::Result<Option<i32>> {
    // SAFETY: this process has one thread (a rule of the crate), so no lock can be
    // held by a thread that does not exist in the child.
    let pid = unsafe { libc::fork() };
    check(pid.into())?;
    Ok((pid != 0).then_some(pid))
}

/// Sends a signal by number to a pid that cannot be another's by now: a member of
/// a frozen or own cgroup, a child not yet waited for, or (negative) its group.
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: takes two numbers.
    check(unsafe { libc::kill(pid, signal) }.into()).map(drop)
}

/// Makes sure that the three standard streams are open, so that no file of ours
/// gets their numbers and is taken for one, and that writing to a pipe nobody reads
/// is an error, not the end.
pub(crate) fn guard_streams() {
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    for number in 0..3 {
        // SAFETY: F_GETFD only looks the number up.
        while unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
            // The lowest free number is taken: this one, as those below are open.
            // SAFETY: the path is a C string.
            if unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) } == -1 {
                // Nothing can be said to anybody.
                super::exec::exit_now(1);
            }
        }
    }
}

/// Blocks all signals and gives a descriptor that reads them.
pub(crate) fn signal_fd() -> io::Result<OwnedFd> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initialises the set it is given.
    check(unsafe { libc::sigfillset(set.as_mut_ptr()) }.into())?;
    // SAFETY: the set was initialised in the line above; the old one is not asked for.
    let ret = unsafe { libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) };
    check(ret.into())?;
    // SAFETY: -1 makes a new descriptor for the initialised set.
    let fd = unsafe { libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    check(fd.into())?;
    // SAFETY: just opened for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The number of the next pending signal of a [`signal_fd`], if there is one.
pub(crate) fn next_signal(fd: impl AsFd) -> io::Result<Option<i32>> {
    let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(fd, &mut info) {
        Ok(n) if n == info.len() => {
            // The first field of signalfd_siginfo is the number, a u32.
            let number = [info[0], info[1], info[2], info[3]];
            Ok(Some(u32::from_ne_bytes(number) as i32))
        }
        Ok(_) => Ok(None),
        Err(rustix::io::Errno::AGAIN) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Gives a program the signal state it expects: nothing blocked, nothing
/// ignored. (We ignore SIGPIPE, our caller may ignore others.)
pub(crate) fn reset_signals() -> io::Result<()> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set it is given.
    check(unsafe { libc::sigemptyset(set.as_mut_ptr()) }.into())?;
    // SAFETY: the set was initialised in the line above; the old one is not asked for.
    let ret = unsafe { libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut()) };
    check(ret.into())?;
    // SAFETY: SIG_DFL is a valid disposition and no handler of ours is replaced.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    Ok(())
}

/// Makes new namespaces (CLONE_NEW*) for this process; no other flags.
pub(crate) fn unshare_namespace(flags: u32) -> io::Result<()> {
    // SAFETY: takes a number. What makes unshare dangerous is CLONE_FILES,
    // which pulls descriptors away from other threads: there are none, and callers
    // pass namespace flags only.
    check(unsafe { libc::unshare(flags as libc::c_int) }.into()).map(drop)
}

/// Sets the file mode creation mask and gives back the old one.
pub(crate) fn umask(mask: u32) -> u32 {
    // SAFETY: takes a number, cannot fail.
    unsafe { libc::umask(mask as libc::mode_t) }
}

/// Puts the loopback interface of the current network namespace up.
pub(crate) fn loopback_up() -> io::Result<()> {
    /// struct ifreq with the flags member of its union.
    #[repr(C)]
    struct IfReq {
        name: [u8; libc::IFNAMSIZ],
        flags: libc::c_short,
        rest: [u8; 22],
    }
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    let mut request = IfReq {
        name: [0; libc::IFNAMSIZ],
        flags: libc::IFF_UP as _,
        rest: [0; 22],
    };
    request.name[..2].copy_from_slice(b"lo");
    // SAFETY: SIOCSIFFLAGS reads a struct ifreq (40 bytes), which IfReq is.
    let ret = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw mut request,
        )
    };
    check(ret.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sched_attr_is_version_zero() {
        assert_eq!(size_of::<SchedAttr>(), 48);
    }

    #[test]
    fn pidfd_kill_with_signal_zero_finds_ourselves() {
        let me = rustix::process::getpid();
        let fd = rustix::process::pidfd_open(me, rustix::process::PidfdFlags::empty()).unwrap();
        pidfd_kill(fd, 0).unwrap();
    }
}
