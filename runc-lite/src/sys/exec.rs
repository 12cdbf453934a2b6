//! Leaving: execve, immediate exit; and descriptors that arrive by number.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd, OwnedFd, RawFd};

/// Argument and environment arrays in the form execve takes.
#[derive(Debug)]
pub(crate) struct ExecArrays {
    /// Owns the strings that `pointers` point to.
    _strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl ExecArrays {
    /// Prepares an array; fails on a string with a zero byte.
    pub(crate) fn new<S: AsRef<[u8]>>(items: &[S]) -> io::Result<Self> {
        let strings = items
            .iter()
            .map(|s| CString::new(s.as_ref()).map_err(io::Error::from))
            .collect::<io::Result<Vec<_>>>()?;
        // The heap blocks of the strings do not move when the vector does.
        let mut pointers: Vec<_> = strings.iter().map(|s| s.as_ptr()).collect();
        pointers.push(std::ptr::null());
        Ok(Self {
            _strings: strings,
            pointers,
        })
    }
}

/// Replaces this process; returns only the error.
pub(crate) fn execve(path: &CStr, args: &ExecArrays, env: &ExecArrays) -> io::Error {
    // SAFETY: all three are null-terminated: the path by its type, the arrays
    // by construction in `ExecArrays::new`, which also keeps the strings alive.
    unsafe { libc::execve(path.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// Replaces this process by the program open at `fd`; returns only the error.
pub(crate) fn execve_fd(fd: RawFd, args: &ExecArrays, env: &ExecArrays) -> io::Error {
    // SAFETY: as for `execve`; the empty path with AT_EMPTY_PATH makes the
    // kernel use the descriptor, and a bad one is an error, not undefined.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd,
            c"".as_ptr(),
            args.pointers.as_ptr(),
            env.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// Ends the process without running any exit handler.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes any value and does not return.
    unsafe { libc::_exit(code) }
}

/// Takes a descriptor that the caller of this program left open for us.
pub(crate) fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only looks the number up.
    super::check(unsafe { libc::fcntl(fd, libc::F_GETFD) }.into())?;
    // SAFETY: it is open (checked above) and it is nobody's in this process:
    // callers take each inherited number once, at start.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts what `new` is open at under the number of `old`, where execve keeps it.
pub(crate) fn replace(old: impl AsFd, new: impl AsFd) -> io::Result<()> {
    let (old, new) = (old.as_fd().as_raw_fd(), new.as_fd().as_raw_fd());
    // SAFETY: both are open, being borrowed. The number of `old` stays open and its
    // owner's; only what it is open at changes, which no owner relies on for safety.
    super::check(unsafe { libc::dup2(new, old) }.into()).map(drop)
}

/// Marks all descriptors from `first` on close-on-exec.
pub(crate) fn cloexec_from(first: u32) -> io::Result<()> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC nothing is closed; a flag is set.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    super::check(ret).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_null_terminated_and_refuse_zero_bytes() {
        let a = ExecArrays::new(&["a", "b"]).unwrap();
        assert_eq!(a.pointers.len(), 3);
        assert!(a.pointers[2].is_null());
        assert!(ExecArrays::new(&["a\0b"]).is_err());
    }

    #[test]
    fn inherited_refuses_a_closed_number() {
        assert!(inherited(987_654).is_err());
    }
}
