//! What mounts mean as a directory: a bind mount is its source, an overlay is mounted detached.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use super::{DiffError, MountSpec};

/// A directory, and where what is written to it ends up.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) root: OwnedFd,
    /// Of an overlay: its own changes. They start empty, so what is in there came with this layer.
    pub(super) upper: Option<OwnedFd>,
}

/// The directories that mounts lay over one another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Layers {
    pub(super) upper: Option<PathBuf>,
    pub(super) work: Option<PathBuf>,
    /// Topmost first.
    pub(super) lower: Vec<PathBuf>,
    /// Options without a value that belong to overlayfs.
    flags: Vec<String>,
}

impl Layers {
    /// Reads mounts; none at all is an empty directory.
    pub(super) fn parse(mounts: &[MountSpec]) -> Result<Self, DiffError> {
        let mount = match mounts {
            [] => return Ok(Self::default()),
            [one] => one,
            _ => {
                return Err(DiffError::Mounts(format!(
                    "{} mounts on one another",
                    mounts.len()
                )));
            }
        };
        let read_only = mount.options.iter().any(|o| o == "ro");
        match mount.kind.as_str() {
            "bind" | "rbind" if read_only => Ok(Self {
                lower: vec![mount.source.clone().into()],
                ..Self::default()
            }),
            "bind" | "rbind" => Ok(Self {
                upper: Some(mount.source.clone().into()),
                ..Self::default()
            }),
            "overlay" => Self::overlay(mount),
            other => Err(DiffError::Mounts(format!(
                "type {other:?} is not supported"
            ))),
        }
    }

    fn overlay(mount: &MountSpec) -> Result<Self, DiffError> {
        let mut layers = Self::default();
        for option in &mount.options {
            match option.split_once('=') {
                Some(("upperdir", path)) => layers.upper = Some(path.into()),
                Some(("workdir", path)) => layers.work = Some(path.into()),
                Some(("lowerdir", paths)) => layers.lower = split_lower(paths),
                _ => layers.flags.push(option.clone()),
            }
        }
        if layers.lower.is_empty() || layers.upper.is_some() != layers.work.is_some() {
            return Err(DiffError::Mounts(
                "overlay lacks lowerdir, or one of upperdir and workdir".into(),
            ));
        }
        Ok(layers)
    }

    /// All directories, topmost first.
    pub(super) fn all(&self) -> Vec<PathBuf> {
        self.upper.iter().chain(&self.lower).cloned().collect()
    }

    /// The same directories, nothing written to them.
    pub(super) fn read_only(self) -> Self {
        Self {
            lower: self.all(),
            upper: None,
            work: None,
            flags: self.flags,
        }
    }

    /// Opens the directory that the mounts would show.
    pub(super) fn open(&self) -> Result<Target, DiffError> {
        let (root, upper) = match (self.all().as_slice(), &self.upper) {
            ([], _) => return Err(DiffError::Mounts("there is no directory".into())),
            ([only], _) => (open_directory(only)?, None),
            (_, None) => (self.mount()?, None),
            (_, Some(upper)) => (self.mount()?, Some(open_directory(upper)?)),
        };
        Ok(Target { root, upper })
    }

    /// Mounts the overlay without a mount point; it goes with the last descriptor.
    fn mount(&self) -> Result<OwnedFd, DiffError> {
        match self.mount_detached() {
            // Kernels before 6.8 do not take lower directories one by one.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.mount_and_detach(),
            other => other,
        }
        .map_err(DiffError::Overlay)
    }

    fn mount_detached(&self) -> io::Result<OwnedFd> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "source", "overlay")?;
        for flag in &self.flags {
            match flag.split_once('=') {
                Some((key, value)) => fsconfig_set_string(&context, key, value)?,
                None if flag == "rw" || flag == "ro" => {}
                None => fsconfig_set_flag(&context, flag.as_str())?,
            }
        }
        for lower in &self.lower {
            fsconfig_set_string(&context, "lowerdir+", lower)?;
        }
        if let (Some(upper), Some(work)) = (&self.upper, &self.work) {
            fsconfig_set_string(&context, "upperdir", upper)?;
            fsconfig_set_string(&context, "workdir", work)?;
        }
        fsconfig_create(&context)?;
        let attributes = match self.upper {
            Some(_) => MountAttrFlags::empty(),
            None => MountAttrFlags::MOUNT_ATTR_RDONLY,
        };
        Ok(fsmount(
            &context,
            FsMountFlags::FSMOUNT_CLOEXEC,
            attributes,
        )?)
    }

    /// The old way: a mount point that exists until it has been opened.
    fn mount_and_detach(&self) -> io::Result<OwnedFd> {
        use nix::mount::{MntFlags, MsFlags, mount, umount2};
        let point = MountPoint::new()?;
        let paths = |all: &[PathBuf]| {
            all.iter()
                .map(|p| p.display().to_string())
                .collect::<Vec<_>>()
                .join(":")
        };
        let mut options = self
            .flags
            .iter()
            .filter(|f| *f != "rw" && *f != "ro")
            .cloned()
            .collect::<Vec<_>>();
        options.push(format!("lowerdir={}", paths(&self.lower)));
        if let (Some(upper), Some(work)) = (&self.upper, &self.work) {
            options.push(format!(
                "upperdir={},workdir={}",
                upper.display(),
                work.display()
            ));
        }
        let flags = if self.upper.is_some() {
            MsFlags::empty()
        } else {
            MsFlags::MS_RDONLY
        };
        mount(
            Some("overlay"),
            &point.0,
            Some("overlay"),
            flags,
            Some(options.join(",").as_str()),
        )?;
        let root = open_path(&point.0);
        umount2(&point.0, MntFlags::MNT_DETACH)?;
        root
    }
}

/// A directory of our own that goes with the guard.
struct MountPoint(PathBuf);

impl MountPoint {
    fn new() -> io::Result<Self> {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!(".containerd-lite-{}-{number}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        // An empty directory that stays is harmless.
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Cuts at the colons that no backslash precedes.
fn split_lower(paths: &str) -> Vec<PathBuf> {
    let mut out = vec![String::new()];
    let mut chars = paths.chars();
    while let Some(c) = chars.next() {
        let last = out.len() - 1;
        match c {
            ':' => out.push(String::new()),
            '\\' => out[last].extend(chars.next()),
            c => out[last].push(c),
        }
    }
    out.into_iter()
        .filter(|p| !p.is_empty())
        .map(PathBuf::from)
        .collect()
}

fn open_path(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

fn open_directory(path: &Path) -> Result<OwnedFd, DiffError> {
    if !path.is_absolute() {
        return Err(DiffError::Mounts(format!("path {path:?} is not absolute")));
    }
    match File::open(path) {
        Ok(file) if file.metadata().is_ok_and(|m| m.is_dir()) => Ok(file.into()),
        Ok(_) => Err(DiffError::Mounts(format!(
            "{} is no directory",
            path.display()
        ))),
        Err(source) => Err(DiffError::Io {
            attempt: "open",
            path: path.to_owned(),
            source,
        }),
    }
}
