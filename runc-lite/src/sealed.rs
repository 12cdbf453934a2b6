//! The private copy of our own binary that containers are made from.
//!
//! Whatever a container's process does before its first execve, it is our
//! program, and `/proc/self/exe` in the container leads to our binary: by an
//! entrypoint that is a link to it, by a script whose interpreter it is, by a
//! program whose ELF interpreter it is. Opened read-only there, it can be
//! reopened for writing once nothing executes it, and the next start of the
//! runtime on the host runs what was written (CVE-2019-5736).
//!
//! What is enough and what is not:
//!
//! - Making the init undumpable closes /proc/PID/exe to processes without
//!   CAP_SYS_PTRACE, but the attack executes `/proc/self/exe` *itself*, and after
//!   that execve the process is dumpable again. We do it too, as a second line.
//! - Looking at the program before execve does not hold: it can change between
//!   the look and the call, as an exec enters a root that is already hostile.
//! - A read-only bind mount of the binary shares its pages and its inode, and
//!   newer kernels let a privileged container clone such a mount.
//! - A sealed memfd is nobody's file: writing, growing and unsealing are refused
//!   by the kernel for everybody, and the binary on disk is not reachable from it.
//!
//! So commands that make processes in a container first execute themselves
//! from such a copy. It costs one execve and a copy of a small static binary.
//! A caller that keeps a sealed copy open and executes that saves both: it is
//! recognised by its seals.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};

use crate::sys::exec::{ExecArrays, execve_fd};

const SEALS: SealFlags = SealFlags::SEAL
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE);

/// Makes sure that this process runs from a sealed copy; does not return
/// where it had to execute itself.
pub(crate) fn ensure() -> io::Result<()> {
    let own = File::open("/proc/self/exe")?;
    if fcntl_get_seals(&own).is_ok_and(|seals| seals.contains(SEALS)) {
        return Ok(());
    }
    let copy = sealed_copy(&own)?;
    let args: Vec<_> = std::env::args_os().map(OsStringExt::into_vec).collect();
    let env: Vec<_> = std::env::vars_os()
        .map(|(name, value)| {
            let mut entry = name.into_vec();
            entry.push(b'=');
            entry.extend(value.into_vec());
            entry
        })
        .collect();
    Err(execve_fd(
        copy.as_raw_fd(),
        &ExecArrays::new(&args)?,
        &ExecArrays::new(&env)?,
    ))
}

fn sealed_copy(own: &File) -> io::Result<File> {
    const NAME: &str = "runc-lite";
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // MFD_EXEC (Linux 6.3) says that this one is meant to be executed, which
    // a strict vm.memfd_noexec asks for; older kernels refuse the flag.
    let fd = match memfd_create(NAME, flags | MemfdFlags::EXEC) {
        Err(rustix::io::Errno::INVAL) => memfd_create(NAME, flags),
        other => other,
    }?;
    let mut left = usize::try_from(own.metadata()?.len()).map_err(io::Error::other)?;
    while left > 0 {
        match rustix::fs::sendfile(&fd, own, None, left)? {
            0 => {
                return Err(io::Error::other(
                    "the runtime's binary shrank while it was copied",
                ));
            }
            n => left -= n,
        }
    }
    fcntl_add_seals(&fd, SEALS)?;
    Ok(File::from(fd))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn the_copy_is_equal_and_cannot_be_written() {
        let own = File::open("/proc/self/exe").unwrap();
        let mut copy = sealed_copy(&own).unwrap();
        assert_eq!(
            copy.metadata().unwrap().len(),
            own.metadata().unwrap().len()
        );
        assert!(fcntl_get_seals(&copy).unwrap().contains(SEALS));
        assert!(copy.write_all(b"x").is_err());
    }
}
