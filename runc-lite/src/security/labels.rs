//! Labels of AppArmor and SELinux that the program gets with execve.
//!
//! They are written to /proc, where a container's image or a process that races
//! us may have put something else: a label that goes astray leaves the program
//! unconfined, and a file that is written instead may be the host's. So the
//! procfs is one of our own that is attached nowhere. Where the kernel does not
//! let us make one, as in a user namespace without a full view of /proc, it is the
//! one at /proc, if that is the root of a procfs and nothing is mounted over
//! the way down.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, fstatfs, openat2};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::error::{Doing as _, StepError};
use crate::spec::Process;

const PROC_MAGIC: i64 = 0x9fa0;
/// Number of the directory at the root of every procfs.
const PROC_ROOT: u64 = 1;

/// Sets what the configuration asks for. Validation refused it where the kernel
/// does not have the module.
pub(crate) fn apply(process: &Process) -> Result<(), StepError> {
    let (apparmor, selinux) = (&process.apparmor_profile, &process.selinux_label);
    if apparmor.is_empty() && selinux.is_empty() {
        return Ok(());
    }
    let proc = procfs().doing(|| "find a procfs to set security labels with")?;
    if !apparmor.is_empty() {
        let text = format!("exec {apparmor}");
        // The directory of the module's own came with Linux 5.8.
        match write(proc.as_fd(), "thread-self/attr/apparmor/exec", &text) {
            Err(Errno::NOENT) if selinux.is_empty() => {
                write(proc.as_fd(), "thread-self/attr/exec", &text)
            }
            other => other,
        }
        .doing(|| format!("apply apparmor profile {apparmor}"))?;
    }
    if !selinux.is_empty() {
        write(proc.as_fd(), "thread-self/attr/exec", selinux)
            .doing(|| format!("apply selinux label {selinux}"))?;
    }
    Ok(())
}

fn procfs() -> rustix::io::Result<OwnedFd> {
    let private = || {
        let fs = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&fs)?;
        fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    };
    private().or_else(|_| mounted("/proc"))
}

/// The procfs mounted at a path.
fn mounted(path: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
    // The field's width differs between architectures.
    #[allow(clippy::unnecessary_cast, reason = "i64 on some targets only")]
    let is_procfs = fstatfs(&dir)?.f_type as i64 == PROC_MAGIC;
    if !is_procfs || fstat(&dir)?.st_ino != PROC_ROOT {
        return Err(Errno::XDEV);
    }
    Ok(dir)
}

fn write(proc: BorrowedFd<'_>, path: &str, text: &str) -> rustix::io::Result<()> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = openat2(proc, path, flags, Mode::empty(), resolve)?;
    rustix::io::write(&file, text.as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_root_of_a_procfs_is_taken_for_one() {
        assert!(mounted("/proc").is_ok());
        for other in ["/tmp", "/sys", "/proc/sys", "/proc/self/", "/nonexistent"] {
            assert!(mounted(other).is_err(), "{other}");
        }
    }

    #[test]
    fn the_way_down_does_not_leave_it() {
        let proc = mounted("/proc").unwrap();
        for path in ["self/root/tmp/x", "self/cwd", "../tmp", "self/exe"] {
            assert!(write(proc.as_fd(), path, "x").is_err(), "{path}");
        }
        // A link of the file system's own is followed.
        write(proc.as_fd(), "thread-self/comm", "labelled").unwrap();
        assert_eq!(
            std::fs::read_to_string("/proc/thread-self/comm").unwrap(),
            "labelled\n"
        );
    }
}
