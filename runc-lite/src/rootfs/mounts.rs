//! The mounts of config.json.

use std::borrow::Cow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, chmodat, fstat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_reconfigure,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick,
};

use super::options::Options;
use super::{Rootfs, attach, becoming, clone_mount, copy_up, path, places};
use crate::error::{Doing as _, StepError};
use crate::spec::Mount;
use crate::sys::mount::set_attr;

impl Rootfs {
    /// Makes one mount (all kinds but `cgroup`, see [`super::Rootfs::mount_cgroups`]).
    /// `prepared` is the mount where the parent made it, as it does to map ids.
    pub(crate) fn mount(&self, mount: &Mount, prepared: Option<&OwnedFd>) -> Result<(), StepError> {
        let options = Options::parse(&mount.options);
        if options.remount {
            return self.remount(mount, &options);
        }
        match (prepared, bind_of(mount, &options)) {
            (Some(tree), _) => self.bind(mount, &options, tree),
            (None, Some(recursive)) => {
                let tree = bind_source(mount, &self.bundle, recursive)?;
                if self.shared {
                    cut_unless_shared(&tree, mount, &options)?;
                }
                self.bind(mount, &options, &tree)
            }
            (None, None) => self.fresh(mount, &options),
        }
    }

    fn bind(&self, mount: &Mount, options: &Options, tree: &OwnedFd) -> Result<(), StepError> {
        change(tree, options).doing(|| format!("{}: set options", describe(mount)))?;
        let kind = fstat(tree).doing(|| describe(mount))?.st_mode;
        places::check_text(mount, Some(tree.as_fd()))?;
        let target = if FileType::from_raw_mode(kind) == FileType::Directory {
            self.target_dir(mount)?
        } else {
            path::make_file(self.fd(), &mount.destination)
                .doing(|| format!("{}: make file {}", describe(mount), mount.destination))?
        };
        places::check_place(self.fd(), mount, &target, Some(tree.as_fd()))?;
        attach(tree, &target).doing(|| describe(mount))?;
        propagate(tree, mount, options)
    }

    fn fresh(&self, mount: &Mount, options: &Options) -> Result<(), StepError> {
        let target = self.place(mount)?;
        let fs = fsopen(mount.kind.as_str(), FsOpenFlags::FSOPEN_CLOEXEC)
            .doing(|| format!("{}: open file system {}", describe(mount), mount.kind))?;
        if !mount.source.is_empty() {
            fsconfig_set_string(&fs, "source", mount.source.as_str())
                .doing(|| format!("{}: set source", describe(mount)))?;
        }
        let mut mode_given = false;
        for word in options
            .data
            .iter()
            .flat_map(|d| d.split(','))
            .filter(|w| !w.is_empty())
        {
            mode_given |= word.starts_with("mode=");
            set_option(fs.as_fd(), word).doing(|| format!("{}: option {word}", describe(mount)))?;
        }
        fsconfig_create(&fs).doing(|| describe(mount))?;
        let attrs = MountAttrFlags::from_bits_retain(options.attr.set as u32);
        let made = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attrs).doing(|| describe(mount))?;
        if !options.recursive.is_empty() {
            set_attr(&made, true, &options.recursive)
                .doing(|| format!("{}: set options", describe(mount)))?;
        }
        if mount.kind == "tmpfs" {
            self.finish_tmpfs(mount, options, &made, &target, mode_given)?;
        }
        attach(&made, &target).doing(|| describe(mount))?;
        self.dev.note(mount, &made);
        propagate(&made, mount, options)?;
        if mount.kind == "proc" {
            self.proc.replace(Some(made));
        }
        Ok(())
    }

    /// A tmpfs takes mode and, if asked, content of the directory it covers.
    fn finish_tmpfs(
        &self,
        mount: &Mount,
        options: &Options,
        made: &OwnedFd,
        target: &OwnedFd,
        mode_given: bool,
    ) -> Result<(), StepError> {
        let writable = options.attr.set & super::options::RDONLY == 0;
        let covered = fstat(target).doing(|| describe(mount))?;
        if !mode_given {
            // Before it is attached nobody else sees the mode change.
            let mode = Mode::from_raw_mode(covered.st_mode & 0o7777);
            if writable {
                chmodat(made, ".", mode, rustix::fs::AtFlags::empty())
                    .doing(|| format!("{}: set mode", describe(mount)))?;
            }
        }
        if options.copy_up {
            if !writable {
                return Err(StepError::refused(
                    format!("{}: copy content up", describe(mount)),
                    "the tmpfs is read-only",
                ));
            }
            copy_up::copy(self.fd(), &mount.destination, made.as_fd())
                .doing(|| format!("{}: copy content up", describe(mount)))?;
        }
        Ok(())
    }

    /// Changes what is mounted at the destination already.
    fn remount(&self, mount: &Mount, options: &Options) -> Result<(), StepError> {
        let target = path::open(self.fd(), &mount.destination, OFlags::PATH)
            .doing(|| format!("{}: open", describe(mount)))?;
        if options.bind.is_none() && !options.data.is_empty() {
            let fs = fspick(&target, "", rustix::mount::FsPickFlags::FSPICK_EMPTY_PATH)
                .doing(|| format!("{}: open for remount", describe(mount)))?;
            for word in options.data.iter().flat_map(|d| d.split(',')) {
                set_option(fs.as_fd(), word)
                    .doing(|| format!("{}: option {word}", describe(mount)))?;
            }
            fsconfig_reconfigure(&fs).doing(|| format!("{}: remount", describe(mount)))?;
        }
        change(&target, options).doing(|| format!("{}: remount", describe(mount)))?;
        propagate(&target, mount, options)
    }

    /// The directory that a new file system goes on, if one may go there.
    pub(crate) fn place(&self, mount: &Mount) -> Result<OwnedFd, StepError> {
        places::check_text(mount, None)?;
        let target = self.target_dir(mount)?;
        places::check_place(self.fd(), mount, &target, None)?;
        Ok(target)
    }

    /// The directory a mount goes on. For proc and sysfs it must be what its
    /// path says, as links there have been used to fool runtimes.
    pub(super) fn target_dir(&self, mount: &Mount) -> Result<OwnedFd, StepError> {
        let dest = mount.destination.as_str();
        if mount.kind == "proc" || mount.kind == "sysfs" {
            let found = path::open_without_links(self.fd(), dest, OFlags::PATH | OFlags::DIRECTORY);
            match found {
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    return Err(StepError::refused(
                        describe(mount),
                        format!(
                            "filesystem \"{}\" must be mounted on ordinary directory",
                            mount.kind
                        ),
                    ));
                }
                Err(Errno::NOENT) => {}
                other => return other.doing(|| format!("{}: open {dest}", describe(mount))),
            }
        }
        path::make_dirs(self.fd(), dest, 0o755)
            .doing(|| format!("{}: make directory {dest}", describe(mount)))
    }
}

/// Whether a mount is a bind mount, and then of all below its source too.
pub(crate) fn bind_of(mount: &Mount, options: &Options) -> Option<bool> {
    options.bind.or((mount.kind == "bind").then_some(false))
}

/// A detached copy of what a bind mount shows.
pub(crate) fn bind_source(
    mount: &Mount,
    bundle: &Path,
    recursive: bool,
) -> Result<OwnedFd, StepError> {
    if mount.source.is_empty() {
        return Err(StepError::refused(
            describe(mount),
            "a bind mount needs a source",
        ));
    }
    let source: Cow<'_, Path> = match Path::new(&mount.source) {
        absolute if absolute.is_absolute() => absolute.into(),
        relative => bundle.join(relative).into(),
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let source = rustix::fs::openat(CWD, source.as_ref(), flags, Mode::empty())
        .doing(|| format!("{}: open source", describe(mount)))?;
    clone_mount(&source, recursive).doing(|| describe(mount))
}

/// What the configuration does not share must not show on the host.
fn cut_unless_shared(tree: &OwnedFd, mount: &Mount, options: &Options) -> Result<(), StepError> {
    let mut asked = options.propagation.iter();
    if asked.any(|(flag, _)| *flag == libc::MS_SHARED) {
        return Ok(());
    }
    set_attr(tree, true, &becoming(libc::MS_SLAVE))
        .doing(|| format!("{}: cut propagation to the host", describe(mount)))
}

/// Sets one `key=value` or `flag` of a file system being configured.
pub(super) fn set_option(fs: BorrowedFd<'_>, word: &str) -> rustix::io::Result<()> {
    match word.split_once('=') {
        Some((key, value)) => fsconfig_set_string(fs, key, value),
        None => fsconfig_set_flag(fs, word),
    }
}

/// Sets the attributes of a mount and of those below.
pub(crate) fn change(mount: &OwnedFd, options: &Options) -> std::io::Result<()> {
    if !options.attr.is_empty() {
        set_attr(mount, false, &options.attr)?;
    }
    if !options.recursive.is_empty() {
        set_attr(mount, true, &options.recursive)?;
    }
    Ok(())
}

/// Propagation is set once the mount is in place.
fn propagate(mounted: &OwnedFd, mount: &Mount, options: &Options) -> Result<(), StepError> {
    for (flag, below) in &options.propagation {
        set_attr(mounted, *below, &becoming(*flag))
            .doing(|| format!("{}: set propagation", describe(mount)))?;
    }
    Ok(())
}

/// How a mount is named in errors.
pub(super) fn describe(mount: &Mount) -> String {
    let what = match (mount.source.as_str(), mount.kind.as_str()) {
        ("", kind) => kind,
        (source, _) => source,
    };
    format!(
        "error mounting \"{what}\" to rootfs at \"{}\"",
        mount.destination
    )
}
