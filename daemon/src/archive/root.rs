//! The root of a container, as a directory descriptor; every path within is resolved by the kernel, bounded by it.
//!
//! The root of a container that runs is behind `/proc/PID/root`. That of one that does not is a detached mount of its
//! snapshot: no mount point, seen by nobody, gone with its descriptor. A path of the container is never joined to a path of
//! the host and opened: links that change under us, or lead to `/`, stay inside. Blocking.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use proto::containerd::types::Mount;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Stat, openat, openat2, readlinkat, statat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, open_tree,
};

use crate::error::{During, Error, Result};

/// Longest chain of links that is followed, as in the kernel.
const LINKS: usize = 40;

/// An open root.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
}

impl Root {
    /// Of a process: what it sees, its mounts included.
    pub(crate) fn of_process(pid: u32) -> Result<Self> {
        Self::of_directory(&PathBuf::from(format!("/proc/{pid}/root")))
    }

    /// A directory of the host.
    pub(crate) fn of_directory(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .during(|| format!("open {}", path.display()))?;
        Ok(Self { fd })
    }

    /// Of a snapshot, writable unless its mounts say otherwise.
    pub(crate) fn of_snapshot(mounts: &[Mount]) -> Result<Self> {
        let fd = match mounts {
            [mount] if matches!(mount.r#type.as_str(), "bind" | "rbind") => tree(mount),
            [mount] if mount.r#type == "overlay" => overlay(mount),
            [mount] => Err(Error::unimplemented(format!(
                "a snapshot of type {} cannot be opened",
                mount.r#type
            ))),
            other => Err(Error::unimplemented(format!(
                "a snapshot of {} mounts cannot be opened",
                other.len()
            ))),
        };
        Ok(Self {
            fd: fd.during(|| "mount the snapshot of the container")?,
        })
    }

    /// Opens a directory; links are followed within the root.
    pub(crate) fn directory(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.open(path, flags)
    }

    fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        };
        // The kernel gives up with EAGAIN when something is renamed meanwhile; nobody can keep that up for ever.
        let mut tries = 0;
        loop {
            match openat2(&self.fd, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) if tries < 64 => tries += 1,
                other => return other,
            }
        }
    }

    /// The text of a small file; empty if it is not there.
    pub(crate) fn read_text(&self, path: &Path) -> Result<String> {
        use std::io::Read;
        const LONGEST: u64 = 4 << 20;
        let what = || format!("read {} of the container", path.display());
        let Some(file) = self.file(path)? else {
            return Ok(String::new());
        };
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes).during(what)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Opens a regular file; none if nothing is there.
    pub(crate) fn file(&self, path: &Path) -> Result<Option<std::fs::File>> {
        let what = || format!("read {} of the container", path.display());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = match self.open(path, flags) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(e) => return Err(Error::from(e).during(what())),
        };
        let file = std::fs::File::from(fd);
        if !file.metadata().during(what)?.is_file() {
            return Err(Error::invalid("it is no regular file").during(what()));
        }
        Ok(Some(file))
    }

    /// Opens the directory of the last component, which itself is not followed. The name is empty for the root and for a
    /// path that ends in a slash or a dot: then the directory is what the path means.
    pub(crate) fn parent(&self, path: &Path) -> Result<(OwnedFd, PathBuf), Errno> {
        let (above, name) = split(path);
        Ok((self.directory(&above)?, name))
    }

    /// The status of what a path means, not following a link at its end.
    pub(crate) fn status(&self, path: &Path) -> Result<Stat, Errno> {
        let (parent, name) = self.parent(path)?;
        match name.as_os_str().is_empty() {
            true => rustix::fs::fstat(&parent),
            false => statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    /// Where a path leads when all links are followed, as a path of the container. What does not exist at its end stays as
    /// it is. Only for showing: by the time it is used the container may have changed.
    pub(crate) fn follow(&self, path: &Path) -> Result<PathBuf, Errno> {
        let mut rest: Vec<Vec<u8>> = parts(path).rev().collect();
        let mut done: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(part) = rest.pop() {
            if part == b".." {
                done.pop();
                continue;
            }
            done.push(part);
            let here = join(&done);
            match self.read_link(&here) {
                Ok(target) => {
                    links += 1;
                    if links > LINKS {
                        return Err(Errno::LOOP);
                    }
                    done.pop();
                    if target.is_absolute() {
                        done.clear();
                    }
                    rest.extend(parts(&target).rev());
                }
                Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(join(&done))
    }

    fn read_link(&self, path: &Path) -> Result<PathBuf, Errno> {
        let (parent, name) = self.parent(path)?;
        if name.as_os_str().is_empty() {
            return Err(Errno::INVAL);
        }
        link_target(&parent, &name)
    }
}

/// What a link says.
pub(crate) fn link_target(directory: &OwnedFd, name: &Path) -> Result<PathBuf, Errno> {
    let target = readlinkat(directory, name, Vec::new())?;
    Ok(PathBuf::from(OsStr::from_bytes(target.as_bytes())))
}

/// Opens a subdirectory that is really one: a link at its place is an error.
pub(crate) fn subdirectory(directory: &OwnedFd, name: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::empty())
}

/// A path as the directory that is resolved and the name that is not.
fn split(path: &Path) -> (PathBuf, PathBuf) {
    let bytes = path.as_os_str().as_bytes();
    let whole =
        bytes.is_empty() || bytes.ends_with(b"/") || bytes.ends_with(b"/.") || bytes == b".";
    match (path.components().next_back(), path.parent()) {
        (Some(Component::Normal(name)), Some(above)) if !whole => {
            (above.to_owned(), PathBuf::from(name))
        }
        _ => (path.to_owned(), PathBuf::new()),
    }
}

fn parts(path: &Path) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    let bytes = path.as_os_str().as_bytes().split(|b| *b == b'/');
    let parts: Vec<Vec<u8>> = bytes
        .filter(|part| !part.is_empty() && *part != b".")
        .map(<[u8]>::to_vec)
        .collect();
    parts.into_iter()
}

fn join(parts: &[Vec<u8>]) -> PathBuf {
    let mut path = PathBuf::from("/");
    for part in parts {
        path.push(OsStr::from_bytes(part));
    }
    path
}

fn tree(mount: &Mount) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::OPEN_TREE_CLONE;
    let fd = open_tree(rustix::fs::CWD, mount.source.as_str(), flags)?;
    Ok(fd)
}

/// A second mount of the same layers. The kernel takes it for granted that two mounts of one upper directory are not
/// written at once; the container does not run, and its owner task keeps it so.
fn overlay(mount: &Mount) -> Result<OwnedFd> {
    // Kernels before 6.8 refuse layers that come one by one, some of them only when the whole is made; whatever it was, what the
    // way says that all kernels know is what counts.
    overlay_by(mount, one_by_one).or_else(|_| overlay_by(mount, by_links))
}

/// How the lower layers are told; what must stay open until the mount is made.
type TellLower = fn(&OwnedFd, &[&str]) -> Result<Vec<OwnedFd>>;

fn overlay_by(mount: &Mount, lower: TellLower) -> Result<OwnedFd> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let mut attributes = MountAttrFlags::empty();
    let mut opened = Vec::new();
    for option in &mount.options {
        match option.split_once('=') {
            Some(("lowerdir", layers)) => {
                let layers: Vec<&str> = layers.split(':').collect();
                opened = lower(&fs, &layers)?;
            }
            Some((key @ ("upperdir" | "workdir"), path)) => {
                fsconfig_set_string(&fs, key, path).during(|| format!("set {key} to {path}"))?;
            }
            Some((key, value)) => {
                fsconfig_set_string(&fs, key, value).during(|| format!("set {option}"))?;
            }
            None if option == "ro" => attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY,
            None if option == "rw" => {}
            None => rustix::mount::fsconfig_set_flag(&fs, option.as_str())
                .during(|| format!("set {option}"))?,
        }
    }
    fsconfig_create(&fs)?;
    drop(opened);
    Ok(fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// The lower layers, one call each.
fn one_by_one(fs: &OwnedFd, layers: &[&str]) -> Result<Vec<OwnedFd>> {
    for layer in layers {
        fsconfig_set_string(fs, "lowerdir+", *layer).during(|| format!("add layer {layer}"))?;
    }
    Ok(Vec::new())
}

/// The lower layers in one value, which is bounded, and so as links to descriptors.
fn by_links(fs: &OwnedFd, layers: &[&str]) -> Result<Vec<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |layer: &&str| {
        rustix::fs::open(*layer, flags, Mode::empty()).during(|| format!("open layer {layer}"))
    };
    let opened: Vec<OwnedFd> = layers.iter().map(open).collect::<Result<_>>()?;
    let links: Vec<String> = opened
        .iter()
        .map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd()))
        .collect();
    fsconfig_set_string(fs, "lowerdir", links.join(":")).during(|| "set the lower layers")?;
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("etc/real")).unwrap();
        symlink("/etc/real", at("abs")).unwrap();
        symlink("../../../../etc", at("up")).unwrap();
        symlink("loop", at("loop")).unwrap();
        std::fs::write(at("etc/real/f"), "x").unwrap();
        let root = Root::of_directory(dir.path()).unwrap();
        assert!(root.status(Path::new("/abs/f")).is_ok());
        assert!(root.status(Path::new("/up/real/f")).is_ok());
        assert!(root.status(Path::new("/../../abs/../real/f")).is_ok());
        assert_eq!(root.status(Path::new("/nope")).unwrap_err(), Errno::NOENT);
        let link = root.status(Path::new("/abs")).unwrap();
        let directory = root.status(Path::new("/abs/")).unwrap();
        assert_ne!(link.st_ino, directory.st_ino);
        assert_eq!(
            root.follow(Path::new("/abs/f")).unwrap(),
            Path::new("/etc/real/f")
        );
        assert_eq!(root.follow(Path::new("/up/../x")).unwrap(), Path::new("/x"));
        assert_eq!(root.follow(Path::new("/loop")).unwrap_err(), Errno::LOOP);
        assert!(root.status(Path::new("/")).is_ok());
    }

    #[test]
    fn layers_are_mounted_both_ways() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        for name in ["one", "two", "upper", "work"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join(name), name).unwrap();
        }
        let at = |name: &str| dir.path().join(name).display().to_string();
        let mount = Mount {
            r#type: "overlay".into(),
            source: "overlay".into(),
            options: vec![
                format!("lowerdir={}:{}", at("one"), at("two")),
                format!("upperdir={}", at("upper")),
                format!("workdir={}", at("work")),
            ],
            ..Mount::default()
        };
        // an overlay on an overlay is refused where tests run in a container
        let Ok(by_links) = overlay_by(&mount, by_links) else {
            return;
        };
        for name in ["one", "two", "upper"] {
            let file = openat(&by_links, name, OFlags::RDONLY, Mode::empty());
            assert!(file.is_ok(), "{name}");
        }
        drop(by_links);
        assert!(overlay(&mount).is_ok());
    }
}
