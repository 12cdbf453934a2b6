//! The fence: every `unsafe` of the crate, each behind a safe function.
//!
//! Rustix covers most system calls safely. What is left here is what neither
//! it nor the standard library offers. One call per block; every block states
//! the contract of the call and why it holds here.
//!
//! | file | what |
//! |---|---|
//! | bpf | device programs of cgroup v2 |
//! | clone | clone3 as a fork into new namespaces |
//! | exec | execve of prepared arrays, immediate exit, descriptors handed to us by number |
//! | heap | the allocator; pages had before they are touched |
//! | mount | mount_setattr, listmount |
//! | process | keyring, personality, scheduling, memory policy, signals, umask, loopback |
//! | seccomp | putting a filter on |

pub(crate) mod bpf;
pub(crate) mod clone;
pub(crate) mod exec;
pub(crate) mod heap;
pub(crate) mod mount;
pub(crate) mod process;
pub(crate) mod seccomp;

use std::io;

/// Turns the -1 convention of the C library into a result.
fn check(ret: libc::c_long) -> io::Result<libc::c_long> {
    if ret == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(ret)
    }
}
