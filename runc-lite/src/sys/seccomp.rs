//! seccomp(2): putting a filter on the calling thread.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

use super::check;

const SET_MODE_FILTER: libc::c_uint = 1;
const FLAG_NEW_LISTENER: u32 = 8;

/// One instruction of a filter.
pub(crate) use libc::sock_filter as Insn;

/// Puts the filter on; gives the listener if `flags` asks for one. From here on
/// it judges every call of this thread, this function's caller included.
pub(crate) fn set_filter(program: &[Insn], flags: u32) -> io::Result<Option<OwnedFd>> {
    let length =
        u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let header = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: header lives over the call and describes exactly the borrowed
    // program, which the kernel copies and never writes to.
    let got =
        unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const header) };
    let got = check(got)?;
    if flags & FLAG_NEW_LISTENER == 0 {
        // Not 0 names the thread that could not follow; there is only this one.
        return if got == 0 {
            Ok(None)
        } else {
            Err(io::Error::from_raw_os_error(libc::ESRCH))
        };
    }
    let fd = RawFd::try_from(got).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: with this flag the kernel returns a new descriptor, close-on-exec,
    // which nobody else knows of.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Whether the kernel knows flags of that call. Changes nothing: there is no program.
pub(crate) fn takes_flags(flags: u32) -> bool {
    // SAFETY: a null program is what the kernel answers EFAULT to, after it has
    // looked at the flags and before it does anything.
    let got = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SET_MODE_FILTER,
            flags,
            std::ptr::null::<libc::sock_fprog>(),
        )
    };
    check(got).is_err_and(|e| e.raw_os_error() == Some(libc::EFAULT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_filter_is_refused() {
        assert_eq!(
            set_filter(&[], 0).unwrap_err().raw_os_error(),
            Some(libc::EINVAL)
        );
    }
}
