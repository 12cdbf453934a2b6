//! What is in /dev: device nodes and the usual links.
//!
//! Nodes are made with mknod; in a user namespace the kernel does not allow
//! that, so the host's node is bound onto an empty file instead.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chmodat, chownat, makedev, mknodat, openat,
    statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::{Rootfs, attach, clone_mount, path};
use crate::error::{Doing as _, StepError};
use crate::spec::{Device, Spec};

/// The nodes every container gets: path, major, minor.
const DEFAULT: &[(&str, u32, u32)] = &[
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// The links: name in /dev, target.
const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

impl Rootfs {
    /// Fills /dev, unless /dev is the host's own (bound), where nothing may be made.
    pub(crate) fn populate_dev(&self, spec: &Spec) -> Result<(), StepError> {
        let host_dev = |m: &crate::spec::Mount| {
            let bound = m.kind == "bind" || m.options.iter().any(|o| o == "bind" || o == "rbind");
            bound && m.destination.trim_end_matches('/') == "/dev"
        };
        if spec.mounts.iter().any(host_dev) {
            return Ok(());
        }
        // Nearly all of them go there.
        let dev =
            path::make_dirs(self.fd(), "/dev", 0o755).doing(|| "open /dev of the container")?;
        let given = |dest: &str| spec.linux.devices.iter().any(|d| d.path == dest);
        for (node, major, minor) in DEFAULT {
            if !given(node) {
                let device = Device {
                    path: (*node).to_owned(),
                    kind: "c".into(),
                    major: (*major).into(),
                    minor: (*minor).into(),
                    file_mode: Some(0o666),
                    uid: Some(0),
                    gid: Some(0),
                };
                self.node(&device, &dev)?;
            }
        }
        for device in &spec.linux.devices {
            // The container's own devpts and terminal take these places.
            if device.path == "/dev/ptmx" || (device.path == "/dev/console" && terminal(spec)) {
                continue;
            }
            self.node(device, &dev)?;
        }
        self.links(&dev)
    }

    fn links(&self, dev: &OwnedFd) -> Result<(), StepError> {
        for (name, target) in LINKS {
            link(dev, name, target)?;
        }
        if path::open(self.fd(), "/proc/kcore", OFlags::PATH).is_ok() {
            link(dev, "core", "/proc/kcore")?;
        }
        // Only where the container has a devpts of its own.
        if path::open(self.fd(), "/dev/pts/ptmx", OFlags::PATH).is_ok() {
            match unlinkat(dev, "ptmx", AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(e).doing(|| "remove /dev/ptmx"),
            }
            link(dev, "ptmx", "pts/ptmx")?;
        }
        Ok(())
    }

    fn node(&self, device: &Device, dev: &OwnedFd) -> Result<(), StepError> {
        let what = || format!("create device node {}", device.path);
        let (dir, name) = path::split(&device.path);
        if name.is_empty() || name == ".." || name == "." {
            return Err(StepError::refused(what(), "not a file name"));
        }
        let other;
        let dir = if dir == "/dev" {
            dev
        } else {
            other = path::make_dirs(self.fd(), dir, 0o755).doing(what)?;
            &other
        };
        if self.in_userns {
            return self.bind_node(device, dir, name);
        }
        let kind = match device.kind.as_str() {
            "c" | "u" => FileType::CharacterDevice,
            "b" => FileType::BlockDevice,
            "p" => FileType::Fifo,
            other => {
                return Err(StepError::refused(
                    what(),
                    format!("unknown type \"{other}\""),
                ));
            }
        };
        let number = |n: i64| {
            u32::try_from(n).map_err(|_| StepError::refused(what(), "number out of range"))
        };
        let device_number = if kind == FileType::Fifo {
            0
        } else {
            makedev(number(device.major)?, number(device.minor)?)
        };
        let mode = Mode::from_raw_mode(device.file_mode.unwrap_or(0o666) & 0o7777);
        match mknodat(dir, name, kind, mode, device_number) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).doing(what)?;
                if FileType::from_raw_mode(stat.st_mode) != kind || stat.st_rdev != device_number {
                    return Err(Errno::EXIST).doing(what);
                }
            }
            Err(e) => return Err(e).doing(what),
        }
        let (uid, gid) = (device.uid.unwrap_or(0), device.gid.unwrap_or(0));
        if (uid, gid) != (0, 0) {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).doing(what)?;
        }
        // The mask was cleared at start, so mknod's mode is exact, except where
        // a change of owner dropped bits; then it is set again.
        if (uid, gid) != (0, 0) {
            chmodat(dir, name, mode, AtFlags::empty()).doing(what)?;
        }
        Ok(())
    }

    /// Binds the host's node of the same path.
    fn bind_node(&self, device: &Device, dir: &OwnedFd, name: &str) -> Result<(), StepError> {
        let what = || format!("bind device node {}", device.path);
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let source = openat(CWD, device.path.as_str(), flags, Mode::empty()).doing(what)?;
        let make = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(dir, name, make, Mode::from_raw_mode(0o600)).doing(what)?;
        let target = openat(dir, name, flags | OFlags::NOFOLLOW, Mode::empty()).doing(what)?;
        let tree = clone_mount(&source, false).doing(what)?;
        attach(&tree, target.as_fd()).doing(what)
    }
}

fn terminal(spec: &Spec) -> bool {
    spec.process.as_ref().is_some_and(|p| p.terminal)
}

fn link(dev: &OwnedFd, name: &str, target: &str) -> Result<(), StepError> {
    match symlinkat(target, dev, name) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(e).doing(|| format!("link /dev/{name} to {target}")),
    }
}
