//! What a restored container has mounted, against what its configuration says.
//!
//! criu mounts what the image lists: file systems by type and device, and the mounts
//! that we mapped to sources of ours, with the flags of the image. An image made or
//! changed by somebody else could so bring in a file system of the host, or make
//! writable what the configuration has read-only. So before a process runs again,
//!
//! - every mount must be the root, one of the configuration's, or lie on the same file
//!   system as one of those;
//! - each bind mount must show its source, and gets the configuration's flags.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::error::{Doing as _, StepError};
use crate::namespaces::enter;
use crate::rootfs::options::Options;
use crate::rootfs::{mounts as bind, path};
use crate::spec::{Mount, Spec};
use crate::sys::clone::{Forked, fork_into};
use crate::sys::exec::exit_now;

/// Compares, and sets the flags of bind mounts.
pub(super) fn mounts(spec: &Spec, bundle: &Path, rootfs: &Path, pid: i32) -> Result<(), StepError> {
    let file = format!("/proc/{pid}/mountinfo");
    let text = std::fs::read_to_string(&file).doing(|| format!("read {file}"))?;
    known_file_systems(spec, &text)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let link = format!("/proc/{pid}/root");
    let root = open(&link, flags, Mode::empty()).doing(|| format!("open {link}"))?;
    same_file(&root, rootfs).doing(|| "check the root of the restored container")?;
    let binds: Vec<(&Mount, Options)> = spec
        .mounts
        .iter()
        .map(|m| (m, Options::parse(&m.options)))
        .filter(|(m, o)| bind::bind_of(m, o).is_some())
        .collect();
    for (mount, _) in &binds {
        let what = || format!("check the restored mount {}", mount.destination);
        let there = path::open(root.as_fd(), &mount.destination, OFlags::PATH).doing(what)?;
        same_file(&there, &bundle.join(&mount.source)).doing(what)?;
    }
    set_flags(pid, &binds)
}

/// Refuses mounts of file systems that the configuration does not know.
fn known_file_systems(spec: &Spec, mountinfo: &str) -> Result<(), StepError> {
    let lines: Vec<MountLine<'_>> = mountinfo.lines().filter_map(MountLine::of).collect();
    let configured = |line: &MountLine<'_>| {
        line.at == "/"
            || spec.mounts.iter().any(|m| {
                let at = Path::new(&m.destination);
                match m.kind.as_str() {
                    // On v1 a tmpfs with a hierarchy in each directory.
                    "cgroup" => {
                        let kinds = ["cgroup", "cgroup2", "tmpfs"];
                        Path::new(line.at).starts_with(at) && kinds.contains(&line.kind)
                    }
                    kind => {
                        let bound = bind::bind_of(m, &Options::parse(&m.options)).is_some();
                        Path::new(line.at) == at && (bound || line.kind == kind)
                    }
                }
            })
            || spec.linux.devices.iter().any(|d| d.path == line.at)
    };
    let known: Vec<&MountLine<'_>> = lines.iter().filter(|l| configured(l)).collect();
    // The container's own binds: of something within a file system it has, but no more
    // of that file system than it has.
    let within = |line: &MountLine<'_>| {
        let root = Path::new(line.root);
        let mut all = known.iter();
        all.any(|k| k.device == line.device && root.starts_with(k.root))
    };
    // Covered directories are the runtime's: an empty tmpfs that can only be read.
    let covered = |line: &MountLine<'_>| {
        line.kind == "tmpfs" && spec.linux.masked_paths.iter().any(|p| p == line.at)
    };
    let foreign = lines.iter().find(|l| !within(l) && !covered(l));
    match foreign {
        None => Ok(()),
        Some(line) => Err(StepError::refused(
            format!("restore a mount of {} at {}", line.kind, line.at),
            "it is in the image but not in the configuration",
        )),
    }
}

/// The parts of a line of mountinfo that count here.
struct MountLine<'a> {
    device: &'a str,
    root: &'a str,
    at: &'a str,
    kind: &'a str,
}

impl<'a> MountLine<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let (mount, source) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(2);
        Some(Self {
            device: fields.next()?,
            root: fields.next()?,
            at: fields.next()?,
            kind: source.split(' ').next()?,
        })
    }
}

fn same_file(fd: &OwnedFd, path: &Path) -> std::io::Result<()> {
    let there = fstat(fd)?;
    let here = rustix::fs::stat(path)?;
    match (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino) {
        true => Ok(()),
        false => Err(std::io::Error::other(format!(
            "it is not {}, which the configuration has there",
            path.display()
        ))),
    }
}

/// Sets the configuration's flags on the bind mounts: in a process of its own, as only
/// one in their mount namespace may.
fn set_flags(pid: i32, binds: &[(&Mount, Options)]) -> Result<(), StepError> {
    if binds.is_empty() {
        return Ok(());
    }
    let file = format!("/proc/{pid}/ns/mnt");
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = open(&file, flags, Mode::empty()).doing(|| format!("open {file}"))?;
    let what = "set the flags of restored mounts";
    match fork_into(0, false, None).doing(|| "clone")? {
        Forked::Child => {
            let set = || -> std::io::Result<()> {
                enter(&namespace, libc::CLONE_NEWNS as u32)?;
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let root = open("/", flags, Mode::empty())?;
                for (mount, options) in binds {
                    let at = path::open(root.as_fd(), &mount.destination, OFlags::PATH)?;
                    bind::change(&at, options)?;
                }
                Ok(())
            };
            exit_now(set().map_or_else(|e| e.raw_os_error().unwrap_or(255), |()| 0))
        }
        Forked::Parent { pidfd, .. } => {
            let status =
                waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).doing(|| what)?;
            match status.and_then(|s| s.exit_status()) {
                Some(0) => Ok(()),
                Some(errno) => Err(std::io::Error::from_raw_os_error(errno)).doing(|| what),
                None => Err(StepError::refused(what, "the process for it was killed")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Spec {
        serde_json::from_value(serde_json::json!({
            "mounts": [
                {"destination": "/proc", "type": "proc"},
                {"destination": "/tmp", "type": "tmpfs"},
                {"destination": "/data", "type": "bind", "source": "/srv"},
                {"destination": "/sys/fs/cgroup", "type": "cgroup"},
            ],
            "linux": {"maskedPaths": ["/proc/acpi"]},
        }))
        .unwrap()
    }

    const GOOD: &str = "\
1 0 8:1 /r / rw - ext4 /dev/sda1 rw
2 1 0:5 / /proc rw - proc proc rw
3 2 0:5 /sys /proc/sys ro - proc proc rw
4 2 0:9 / /proc/acpi ro - tmpfs tmpfs ro
10 1 8:1 /r/etc /etc2 rw - ext4 /dev/sda1 rw
5 1 0:6 / /tmp rw - tmpfs tmpfs rw
6 1 8:17 /srv /data rw - ext4 /dev/sdb1 rw
7 1 0:7 / /sys/fs/cgroup ro - tmpfs tmpfs ro
8 7 0:8 /c /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids
";

    #[test]
    fn mounts_of_the_configuration_and_binds_within_them_pass() {
        known_file_systems(&spec(), GOOD).unwrap();
    }

    #[test]
    fn file_systems_of_the_host_do_not() {
        for line in [
            "9 1 8:33 / /mnt rw - ext4 /dev/sdc1 rw",
            "9 1 8:1 / /mnt rw - ext4 /dev/sda1 rw",
            "9 5 0:99 / /tmp/dev rw - devtmpfs dev rw",
            "9 2 0:42 / /proc/acpi rw - devtmpfs dev rw",
        ] {
            let e = known_file_systems(&spec(), &format!("{GOOD}{line}\n")).unwrap_err();
            assert!(
                crate::error::chain(&e).contains("not in the configuration"),
                "{line}"
            );
        }
        // A place of the configuration's with another file system on it.
        let other = GOOD.replace("/tmp rw - tmpfs tmpfs", "/tmp rw - ext4 /dev/sdc1");
        assert!(known_file_systems(&spec(), &other).is_err());
    }
}
