//! The container's root file system: the mounts a request names, made on `BUNDLE/rootfs`, and taken away again.
//!
//! Sync. The shim has one thread, so it may change its working directory for the length of one mount call: that is how
//! lists of overlay layers longer than a page get through. Newer kernels take the layers one by one instead.

use std::ffi::CString;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use proto::containerd::types::Mount;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    UnmountFlags,
};

/// A mount could not be made or taken away.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootfsError {
    #[error("mount {fs} from {source_path:?} on {}", target.display())]
    Mount {
        fs: String,
        source_path: String,
        target: PathBuf,
        source: Errno,
    },
    #[error("mount option {0:?} is not supported")]
    Option(String),
    #[error("mount target {0:?} leaves the root file system")]
    Target(String),
    #[error("mount data holds a zero byte")]
    Data,
    #[error("make directory {}", path.display())]
    Directory {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("unmount {}", path.display())]
    Unmount { path: PathBuf, source: Errno },
}

/// Most that the kernel takes as mount data: a page, with its end.
const PAGE: usize = 4095;

/// Makes all mounts on `rootfs`, in order; on failure takes away what was made.
pub(crate) fn mount_all(mounts: &[Mount], rootfs: &Path) -> Result<(), RootfsError> {
    if mounts.is_empty() {
        return Ok(());
    }
    make_directory(rootfs)?;
    let result = mounts.iter().try_for_each(|mount| mount_one(mount, rootfs));
    if result.is_err()
        && let Err(error) = unmount_all(rootfs)
    {
        crate::diag::warn(format_args!("{}", crate::chain(&error)));
    }
    result
}

/// Takes away everything mounted on `rootfs`, with what is mounted below it. Nothing mounted is success.
pub(crate) fn unmount_all(rootfs: &Path) -> Result<(), RootfsError> {
    loop {
        match rustix::mount::unmount(rootfs, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(source) => {
                return Err(RootfsError::Unmount {
                    path: rootfs.to_owned(),
                    source,
                });
            }
        }
    }
}

fn make_directory(path: &Path) -> Result<(), RootfsError> {
    std::fs::create_dir_all(path).map_err(|source| RootfsError::Directory {
        path: path.to_owned(),
        source,
    })
}

/// Mount options taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Parsed {
    flags: MountFlags,
    bind: bool,
    recursive: bool,
    propagation: MountPropagationFlags,
    data: Vec<String>,
}

fn parse(options: &[String]) -> Result<Parsed, RootfsError> {
    let mut parsed = Parsed {
        flags: MountFlags::empty(),
        bind: false,
        recursive: false,
        propagation: MountPropagationFlags::empty(),
        data: Vec::new(),
    };
    for option in options {
        let (flag, set) = match option.as_str() {
            "ro" => (MountFlags::RDONLY, true),
            "rw" => (MountFlags::RDONLY, false),
            "nosuid" => (MountFlags::NOSUID, true),
            "suid" => (MountFlags::NOSUID, false),
            "nodev" => (MountFlags::NODEV, true),
            "dev" => (MountFlags::NODEV, false),
            "noexec" => (MountFlags::NOEXEC, true),
            "exec" => (MountFlags::NOEXEC, false),
            "sync" => (MountFlags::SYNCHRONOUS, true),
            "async" => (MountFlags::SYNCHRONOUS, false),
            "dirsync" => (MountFlags::DIRSYNC, true),
            "mand" => (MountFlags::PERMIT_MANDATORY_FILE_LOCKING, true),
            "nomand" => (MountFlags::PERMIT_MANDATORY_FILE_LOCKING, false),
            "noatime" => (MountFlags::NOATIME, true),
            "atime" => (MountFlags::NOATIME, false),
            "nodiratime" => (MountFlags::NODIRATIME, true),
            "diratime" => (MountFlags::NODIRATIME, false),
            "relatime" => (MountFlags::RELATIME, true),
            "norelatime" => (MountFlags::RELATIME, false),
            "strictatime" => (MountFlags::STRICTATIME, true),
            "nostrictatime" => (MountFlags::STRICTATIME, false),
            "defaults" => continue,
            "bind" => {
                parsed.bind = true;
                continue;
            }
            "rbind" => {
                (parsed.bind, parsed.recursive) = (true, true);
                continue;
            }
            "loop" => return Err(RootfsError::Option(option.clone())),
            name if name.starts_with("X-containerd.")
                || name.starts_with("uidmap=")
                || name.starts_with("gidmap=") =>
            {
                return Err(RootfsError::Option(option.clone()));
            }
            name => {
                match propagation(name) {
                    Some(flags) => parsed.propagation |= flags,
                    None => parsed.data.push(name.to_owned()),
                }
                continue;
            }
        };
        parsed.flags.set(flag, set);
    }
    Ok(parsed)
}

fn propagation(name: &str) -> Option<MountPropagationFlags> {
    use MountPropagationFlags as P;
    let kind = match name.strip_prefix('r').unwrap_or(name) {
        "private" => P::PRIVATE,
        "shared" => P::SHARED,
        "slave" => P::DOWNSTREAM,
        "unbindable" => P::UNBINDABLE,
        _ => return None,
    };
    Some(if name.starts_with('r') {
        kind | P::REC
    } else {
        kind
    })
}

fn mount_one(mount: &Mount, rootfs: &Path) -> Result<(), RootfsError> {
    let parsed = parse(&mount.options)?;
    let target = target(mount, rootfs)?;
    let failed = |source| RootfsError::Mount {
        fs: mount.r#type.clone(),
        source_path: mount.source.clone(),
        target: target.clone(),
        source,
    };
    if parsed.bind || matches!(mount.r#type.as_str(), "bind" | "rbind") {
        let result = if parsed.recursive || mount.r#type == "rbind" {
            rustix::mount::mount_bind_recursive(mount.source.as_str(), &target)
        } else {
            rustix::mount::mount_bind(mount.source.as_str(), &target)
        };
        result.map_err(failed)?;
        if !parsed.flags.is_empty() {
            rustix::mount::mount_remount(&target, MountFlags::BIND | parsed.flags, "")
                .map_err(failed)?;
        }
    } else if parsed.data.iter().map(|o| o.len() + 1).sum::<usize>() <= PAGE {
        let data = data(&parsed.data)?;
        rustix::mount::mount(
            mount.source.as_str(),
            &target,
            mount.r#type.as_str(),
            parsed.flags,
            data.as_c_str(),
        )
        .map_err(failed)?;
    } else {
        mount_long(mount, &parsed, &target).map_err(|error| match error {
            LongError::Errno(source) => failed(source),
            LongError::Data => RootfsError::Data,
        })?;
    }
    if !parsed.propagation.is_empty() {
        rustix::mount::mount_change(&target, parsed.propagation).map_err(failed)?;
    }
    Ok(())
}

/// The place of one mount below the root file system; a target of its own must stay below it.
fn target(mount: &Mount, rootfs: &Path) -> Result<PathBuf, RootfsError> {
    if mount.target.is_empty() || mount.target == "/" {
        return Ok(rootfs.to_owned());
    }
    let relative = Path::new(mount.target.trim_start_matches('/'));
    let normal = |c: std::path::Component<'_>| matches!(c, std::path::Component::Normal(_));
    if !relative.components().all(normal) {
        return Err(RootfsError::Target(mount.target.clone()));
    }
    // A link in an earlier mount could lead outside; refuse it rather than follow it.
    let mut at = rootfs.to_owned();
    for part in relative.components() {
        at.push(part);
        if std::fs::symlink_metadata(&at).is_ok_and(|m| m.is_symlink()) {
            return Err(RootfsError::Target(mount.target.clone()));
        }
    }
    make_directory(&at)?;
    Ok(at)
}

fn data(options: &[String]) -> Result<CString, RootfsError> {
    CString::new(options.join(",")).map_err(|_| RootfsError::Data)
}

enum LongError {
    Errno(Errno),
    Data,
}

impl From<Errno> for LongError {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

/// An overlay whose options do not fit into a page.
fn mount_long(mount: &Mount, parsed: &Parsed, target: &Path) -> Result<(), LongError> {
    let lower = parsed.data.iter().find_map(|o| o.strip_prefix("lowerdir="));
    let Some(lower) = lower.filter(|_| mount.r#type == "overlay") else {
        return Err(LongError::Errno(Errno::TOOBIG));
    };
    let layers: Vec<&str> = lower.split(':').collect();
    let rest: Vec<String> = parsed
        .data
        .iter()
        .filter(|o| !o.starts_with("lowerdir="))
        .cloned()
        .collect();
    let common = common_directory(&layers);
    let short: Vec<&str> = layers
        .iter()
        .map(|layer| layer[common.len()..].trim_start_matches('/'))
        .collect();
    let mut options = vec![format!("lowerdir={}", short.join(":"))];
    options.extend(rest.iter().cloned());
    let fits = !common.is_empty() && options.iter().map(|o| o.len() + 1).sum::<usize>() <= PAGE;
    if !fits {
        return mount_layer_by_layer(mount, parsed, &layers, &rest, target);
    }
    let data = CString::new(options.join(",")).map_err(|_| LongError::Data)?;
    let target = std::path::absolute(target).map_err(|_| LongError::Data)?;
    let _back = WorkingDirectory::enter(common)?;
    rustix::mount::mount(
        mount.source.as_str(),
        &target,
        "overlay",
        parsed.flags,
        data.as_c_str(),
    )?;
    Ok(())
}

/// The longest folder that all layers lie in.
fn common_directory<'a>(layers: &[&'a str]) -> &'a str {
    let Some(first) = layers.first() else {
        return "";
    };
    let mut length = first.rfind('/').unwrap_or(0);
    for layer in layers {
        while length > 0
            && !(layer.starts_with(&first[..length]) && layer.as_bytes().get(length) == Some(&b'/'))
        {
            length = first[..length].rfind('/').unwrap_or(0);
        }
    }
    &first[..length]
}

/// The mount API of Linux 6.8 and newer, which takes layers of an overlay one at a time.
fn mount_layer_by_layer(
    mount: &Mount,
    parsed: &Parsed,
    layers: &[&str],
    rest: &[String],
    target: &Path,
) -> Result<(), LongError> {
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(fs.as_fd(), "source", mount.source.as_str())?;
    for layer in layers {
        rustix::mount::fsconfig_set_string(fs.as_fd(), "lowerdir+", *layer)?;
    }
    for option in rest {
        match option.split_once('=') {
            Some((key, value)) => rustix::mount::fsconfig_set_string(fs.as_fd(), key, value)?,
            None => rustix::mount::fsconfig_set_flag(fs.as_fd(), option.as_str())?,
        }
    }
    rustix::mount::fsconfig_create(fs.as_fd())?;
    let mut attributes = MountAttrFlags::empty();
    attributes.set(
        MountAttrFlags::MOUNT_ATTR_RDONLY,
        parsed.flags.contains(MountFlags::RDONLY),
    );
    attributes.set(
        MountAttrFlags::MOUNT_ATTR_NOSUID,
        parsed.flags.contains(MountFlags::NOSUID),
    );
    attributes.set(
        MountAttrFlags::MOUNT_ATTR_NODEV,
        parsed.flags.contains(MountFlags::NODEV),
    );
    attributes.set(
        MountAttrFlags::MOUNT_ATTR_NOEXEC,
        parsed.flags.contains(MountFlags::NOEXEC),
    );
    let tree = rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    rustix::mount::move_mount(
        tree.as_fd(),
        "",
        rustix::fs::CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?;
    Ok(())
}

/// Back to the working directory on drop.
struct WorkingDirectory(std::os::fd::OwnedFd);

impl WorkingDirectory {
    fn enter(path: &str) -> Result<Self, Errno> {
        let flags =
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let before = rustix::fs::open(".", flags, rustix::fs::Mode::empty())?;
        rustix::process::chdir(path)?;
        Ok(Self(before))
    }
}

impl Drop for WorkingDirectory {
    fn drop(&mut self) {
        if let Err(error) = rustix::process::fchdir(&self.0) {
            crate::diag::warn(format_args!("return to the working directory: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_are_flags_or_data() {
        let parsed = parse(&words("rbind ro rw nosuid rslave lowerdir=/a:/b index=off")).unwrap();
        assert_eq!(parsed.flags, MountFlags::NOSUID);
        assert!(parsed.bind && parsed.recursive);
        assert_eq!(
            parsed.propagation,
            MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC
        );
        assert_eq!(parsed.data, ["lowerdir=/a:/b", "index=off"]);
        assert!(matches!(parse(&words("loop")), Err(RootfsError::Option(_))));
    }

    #[test]
    fn a_target_stays_below_the_root() {
        let root = tempfile::tempdir().unwrap();
        let mount = |target: &str| Mount {
            target: target.into(),
            ..Mount::default()
        };
        assert_eq!(target(&mount(""), root.path()).unwrap(), root.path());
        assert_eq!(
            target(&mount("/a/b"), root.path()).unwrap(),
            root.path().join("a/b")
        );
        assert!(target(&mount("../x"), root.path()).is_err());
        std::os::unix::fs::symlink("/etc", root.path().join("l")).unwrap();
        assert!(target(&mount("l/x"), root.path()).is_err());
    }

    #[test]
    fn layers_share_a_folder() {
        assert_eq!(common_directory(&["/s/1/fs", "/s/12/fs", "/s/2/fs"]), "/s");
        assert_eq!(common_directory(&["/s/1", "/t/1"]), "");
        assert_eq!(common_directory(&["/s/ab", "/s/a"]), "/s");
        assert_eq!(common_directory(&[]), "");
    }
}
