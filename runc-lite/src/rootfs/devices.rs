//! What is in /dev: device nodes and the usual links.
//!
//! Nodes are made with mknod; in a user namespace the kernel does not allow
//! that, so the host's node is bound onto an empty file instead.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chownat, fstat, makedev, mknodat, openat,
    symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::{Rootfs, attach, clone_mount, path};
use crate::error::{Doing as _, StepError};
use crate::files::clean;
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

/// Opens what has a name, without following it and without acting on it.
const PLACE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

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
            bound && clean(&m.destination) == Path::new("dev")
        };
        if spec.mounts.iter().any(host_dev) {
            return Ok(());
        }
        // Nearly all of them go there.
        let dev =
            path::make_dirs(self.fd(), "/dev", 0o755).doing(|| "open /dev of the container")?;
        self.dev.check(&dev)?;
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
        // Anybody may make a fifo.
        if self.in_userns && device.kind != "p" {
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
        // The mask was cleared at start, so the mode is exact.
        let mode = Mode::from_raw_mode(device.file_mode.unwrap_or(0o666) & 0o7777);
        let made = match mknodat(dir, name, kind, mode, device_number) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(e) => return Err(e).doing(what),
        };
        let (uid, gid) = (device.uid.unwrap_or(0), device.gid.unwrap_or(0));
        if made && (uid, gid) == (0, 0) {
            return Ok(());
        }
        // Whoever shares the root could have put something else there by now.
        let node = openat(dir, name, PLACE, Mode::empty()).doing(what)?;
        let found = fstat(&node).doing(what)?;
        if FileType::from_raw_mode(found.st_mode) != kind || found.st_rdev != device_number {
            return Err(Errno::EXIST).doing(what);
        }
        if !made {
            // The image's own stays as the image has it.
            return Ok(());
        }
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        chownat(&node, "", uid, gid, AtFlags::EMPTY_PATH).doing(what)
    }

    /// Binds the host's node of the same path.
    fn bind_node(&self, device: &Device, dir: &OwnedFd, name: &str) -> Result<(), StepError> {
        let what = || format!("bind device node {}", device.path);
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let source = openat(CWD, device.path.as_str(), flags, Mode::empty()).doing(what)?;
        let kind = FileType::from_raw_mode(fstat(&source).doing(what)?.st_mode);
        if !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
            return Err(StepError::refused(what(), "it is no device on the host"));
        }
        let target = path::file_in(dir, name).doing(what)?;
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
