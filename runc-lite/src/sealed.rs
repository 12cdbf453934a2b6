//! How our own binary is kept out of reach of the containers made from it.
//!
//! Whatever a container's process does before its first execve, it is our
//! program, and `/proc/self/exe` in the container leads to our binary: by an
//! entrypoint that is a link to it, by a script whose interpreter it is, by a
//! program whose ELF interpreter it is. Once executed there, the binary can be
//! opened by others in the container, and reopened for writing when nothing
//! executes it any more; the next start of the runtime on the host then runs what
//! was written (CVE-2019-5736).
//!
//! What is not enough:
//!
//! - Making the init undumpable closes /proc/PID/exe to processes without
//!   CAP_SYS_PTRACE, but the attack executes `/proc/self/exe` *itself*, and after
//!   that execve the process is dumpable again. We do it too, as a second line.
//! - Looking at the program before execve: it can change between the look and
//!   the call, as an exec enters a root that is already hostile.
//!
//! So a command that makes processes in a container first executes itself once
//! more, in one of two ways:
//!
//! 1. **Fenced**: from a private mount of the one file, read-only from the start
//!    and, as soon as we run from it, noexec, and then detached. The kernel goes by
//!    the mount of the link's target: `/proc/self/exe` cannot be executed, in
//!    whichever disguise, so no process that others may look into ever has it. Whoever
//!    may look into the init nevertheless (CAP_SYS_PTRACE over the host) gets a
//!    descriptor that cannot be written or reopened for writing, and a mount that is
//!    in no namespace, so that it can be neither changed nor cloned.
//! 2. **Sealed**: where no mount can be made (no privileges), from a memfd whose
//!    seals refuse writing to everybody. That costs a copy of the binary, 1.6 ms of
//!    processor time against 0.1, and more when memory is short.
//!
//! A caller that keeps a sealed copy open and executes that saves both: it is
//! recognised by its seals.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{
    MemfdFlags, SealFlags, StatVfsMountFlags, fcntl_add_seals, fcntl_get_seals, fstatvfs,
    memfd_create,
};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::sys::exec::{ExecArrays, execve_fd, inherited};
use crate::sys::heap::prefault;
use crate::sys::mount::{MountAttr, set_attr};

const SEALS: SealFlags = SealFlags::SEAL
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE);

/// Tells the second execution the number of the mount's descriptor.
const HANDOVER: &str = "_RUNC_LITE_MOUNT";

const RDONLY: u64 = 0x1;
const NOEXEC: u64 = 0x8;

/// Makes sure that containers cannot reach the binary this process runs from;
/// does not return where it had to execute itself.
pub(crate) fn ensure() -> io::Result<()> {
    let own = File::open("/proc/self/exe")?;
    if is_sealed(&own) || is_fenced(&own) {
        prefault();
        return Ok(());
    }
    match handed_over() {
        None => {
            if let Ok(mount) = private_mount(&own) {
                // Should this fail, there is the other way.
                let _ = execute(&mount, Some(mount.as_raw_fd()));
            }
        }
        Some(mount) => {
            let attr = MountAttr {
                set: NOEXEC,
                ..MountAttr::default()
            };
            if set_attr(&mount, false, &attr).is_ok() && is_fenced(&own) {
                // This is the execution that does the work.
                prefault();
                return Ok(());
            }
        }
    }
    let copy = sealed_copy(&own)?;
    Err(execute(&OwnedFd::from(copy), None)?)
}

fn is_sealed(own: &File) -> bool {
    fcntl_get_seals(own).is_ok_and(|seals| seals.contains(SEALS))
}

/// Running from a mount that is noexec by now, as only our own can be.
fn is_fenced(own: &File) -> bool {
    let fence = StatVfsMountFlags::RDONLY | StatVfsMountFlags::NOEXEC;
    fstatvfs(own).is_ok_and(|s| s.f_flag.contains(fence))
}

/// A mount of the file alone, read-only, in no namespace.
fn private_mount(own: &File) -> io::Result<OwnedFd> {
    // Not close-on-exec: the second execution needs it.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = open_tree(own, "", flags)?;
    set_attr(
        &mount,
        false,
        &MountAttr {
            set: RDONLY,
            ..MountAttr::default()
        },
    )?;
    Ok(mount)
}

/// The mount we were executed from, if this is the second execution.
fn handed_over() -> Option<OwnedFd> {
    let number = std::env::var(HANDOVER)
        .ok()?
        .parse()
        .ok()
        .filter(|n| *n > 2)?;
    let mount = inherited(number).ok()?;
    let own = std::fs::metadata("/proc/self/exe").ok()?;
    let that = rustix::fs::fstat(mount.as_fd()).ok()?;
    (own.dev() == that.st_dev && own.ino() == that.st_ino).then_some(mount)
}

/// Executes what is open at `fd` with our arguments; gives the error.
fn execute(fd: &OwnedFd, handover: Option<i32>) -> io::Result<io::Error> {
    let args: Vec<_> = std::env::args_os().map(OsStringExt::into_vec).collect();
    let mut env: Vec<_> = std::env::vars_os()
        .filter(|(name, _)| name != HANDOVER)
        .map(|(name, value)| {
            let mut entry = name.into_vec();
            entry.push(b'=');
            entry.extend(value.into_vec());
            entry
        })
        .collect();
    if let Some(number) = handover {
        env.push(format!("{HANDOVER}={number}").into_bytes());
    }
    Ok(execve_fd(
        fd.as_raw_fd(),
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
        assert!(!is_sealed(&own) && !is_fenced(&own));
        let mut copy = sealed_copy(&own).unwrap();
        assert_eq!(
            copy.metadata().unwrap().len(),
            own.metadata().unwrap().len()
        );
        assert!(is_sealed(&copy));
        assert!(copy.write_all(b"x").is_err());
    }
}
