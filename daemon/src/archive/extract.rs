//! A tar stream into a directory of a container: for `cp` into it, and for copy-up.
//!
//! Each entry's parent is resolved by the kernel within the container's root, so a link that the archive itself just made
//! leads, at most, to another place in the container. The last component is never followed: what is there is replaced. In
//! this order: make, owner, mode, attributes, times; times of directories at the end, for each file in them changes them.
//! Blocking.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chmodat, chownat, linkat,
    mkdirat, mknodat, openat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

use super::root::{Root, subdirectory};
use crate::error::{During, Error, Result};

/// How to extract.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Options {
    /// A directory may not replace anything else, nor anything else a directory.
    pub(crate) keep_kind: bool,
    /// Owner of everything, instead of what the archive says.
    pub(crate) owner: Option<(u32, u32)>,
    /// Permission bits of everything, instead of what the archive says.
    pub(crate) mode: Option<u32>,
}

/// Extracts into the directory `to` of the root.
pub(crate) fn extract(root: &Root, to: &Path, archive: impl Read, options: Options) -> Result<()> {
    let mut archive = Archive::new(archive);
    let mut times: BTreeMap<PathBuf, u64> = BTreeMap::new();
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let name = relative(&entry.path_bytes())?;
        let path = to.join(&name);
        let what = || format!("extract {}", name.display());
        let kind = entry.header().entry_type();
        if name.as_os_str().is_empty() {
            // The directory itself is the container's; only what is in it comes from the archive.
            continue;
        }
        make(root, to, &path, &mut entry, options).during(what)?;
        if kind == EntryType::Directory {
            times.insert(path, entry.header().mtime().unwrap_or(0));
        }
    }
    for (path, mtime) in times.iter().rev() {
        let (parent, name) = root
            .parent(path)
            .during(|| format!("set the time of {}", path.display()))?;
        set_time(&parent, &name, *mtime)?;
    }
    Ok(())
}

fn unreadable(error: io::Error) -> Error {
    Error::invalid(format!(
        "invalid archive: {}",
        crate::images::tarball::printable(&error.to_string())
    ))
}

/// A name of the archive without leading slashes and dots; one that climbs out is refused.
fn relative(name: &[u8]) -> Result<PathBuf> {
    if !crate::images::stays_inside(name) {
        return Err(Error::invalid(format!(
            "invalid archive: entry {:?} is outside of the target",
            String::from_utf8_lossy(name)
        )));
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    Ok(parts.into_iter().map(OsStr::from_bytes).collect())
}

fn make<R: Read>(
    root: &Root,
    to: &Path,
    path: &Path,
    entry: &mut Entry<'_, R>,
    options: Options,
) -> Result<()> {
    let kind = entry.header().entry_type();
    if matches!(
        kind,
        EntryType::XGlobalHeader
            | EntryType::XHeader
            | EntryType::GNULongName
            | EntryType::GNULongLink
    ) {
        return Ok(());
    }
    let above = path.parent().unwrap_or(Path::new("/"));
    let parent = make_parents(root, above)?;
    let name = PathBuf::from(path.file_name().unwrap_or_default());
    let replaced = make_room(&parent, &name, kind == EntryType::Directory, options)?;
    let mode = match options.mode {
        Some(mode) => mode,
        None => number(entry.header().mode(), &entry.header().as_old().mode)? & 0o7777,
    };
    let raw = Mode::from_raw_mode(mode);
    match kind {
        EntryType::Directory => {
            if replaced {
                mkdirat(&parent, &name, Mode::RWXU)?;
            }
        }
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            write_file(&parent, &name, entry)?;
        }
        EntryType::Symlink => {
            let target = entry.link_name_bytes().unwrap_or_default().into_owned();
            symlinkat(OsStr::from_bytes(&target), &parent, &name)?;
        }
        EntryType::Link => {
            let target = entry.link_name_bytes().unwrap_or_default().into_owned();
            let target = to.join(relative(&target)?);
            let (from, old) = root.parent(&target)?;
            // Without following: a link to a link is a second name of that link.
            linkat(&from, &old, &parent, &name, AtFlags::empty())?;
            return Ok(());
        }
        EntryType::Char | EntryType::Block | EntryType::Fifo => {
            let kind = match kind {
                EntryType::Char => FileType::CharacterDevice,
                EntryType::Block => FileType::BlockDevice,
                _ => FileType::Fifo,
            };
            let major = entry.header().device_major()?.unwrap_or(0);
            let minor = entry.header().device_minor()?.unwrap_or(0);
            mknodat(&parent, &name, kind, raw, rustix::fs::makedev(major, minor))?;
        }
        other => {
            return Err(Error::invalid(format!(
                "invalid archive: an entry has the unknown type {:?}",
                other.as_byte() as char
            )));
        }
    }
    let (uid, gid) = match options.owner {
        Some(owner) => owner,
        None => {
            let header = entry.header();
            let old = header.as_old();
            (
                id(number(header.uid(), &old.uid)?)?,
                id(number(header.gid(), &old.gid)?)?,
            )
        }
    };
    chownat(
        &parent,
        &name,
        Some(Uid::from_raw(uid)),
        Some(Gid::from_raw(gid)),
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    if kind == EntryType::Symlink {
        return set_time(&parent, &name, time(entry.header())?);
    }
    // After the owner, for changing that clears the set-id bits. The entry is ours since a moment ago and not a link; should
    // the container have put one there, the kernel refuses.
    set_mode(&parent, &name, raw)?;
    set_attributes(&parent, &name, entry)?;
    set_time(&parent, &name, time(entry.header())?)
}

fn id(number: u64) -> Result<u32> {
    u32::try_from(number)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| Error::invalid(format!("invalid archive: owner {number} is no user id")))
}

/// Makes a directory and those above it, where they are missing. Links are followed within the root.
pub(crate) fn folder(root: &Root, path: &Path) -> Result<()> {
    make_parents(root, path).map(drop)
}

/// Opens a directory, making those above that are missing. Links are followed within the root.
fn make_parents(root: &Root, path: &Path) -> Result<OwnedFd> {
    match root.directory(path) {
        Ok(fd) => return Ok(fd),
        Err(Errno::NOENT) => {}
        Err(e) => return Err(e.into()),
    }
    let above = path.parent().ok_or_else(|| Error::from(Errno::NOENT))?;
    let parent = make_parents(root, above)?;
    let name = path.file_name().unwrap_or_default();
    match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
        // The daemon's umask is narrow.
        Ok(()) => set_mode(&parent, Path::new(name), Mode::from_raw_mode(0o755))?,
        Err(Errno::EXIST) => {}
        Err(e) => return Err(e.into()),
    }
    Ok(root.directory(path)?)
}

/// Takes away what is at the name. False if it is a directory that the entry, one too, is merged into.
fn make_room(parent: &OwnedFd, name: &Path, directory: bool, options: Options) -> Result<bool> {
    let status = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(status) => status,
        Err(Errno::NOENT) => return Ok(true),
        Err(e) => return Err(e.into()),
    };
    let is_directory = FileType::from_raw_mode(status.st_mode) == FileType::Directory;
    if is_directory && directory {
        return Ok(false);
    }
    if options.keep_kind && is_directory != directory {
        let (old, new) = match is_directory {
            true => ("directory", "non-directory"),
            false => ("non-directory", "directory"),
        };
        return Err(Error::invalid(format!(
            "cannot overwrite {old} {:?} with {new}",
            name.display()
        )));
    }
    if is_directory {
        remove_tree(parent, name)?;
    } else {
        unlinkat(parent, name, AtFlags::empty())?;
    }
    Ok(true)
}

fn remove_tree(parent: &OwnedFd, name: &Path) -> Result<(), Errno> {
    let directory = subdirectory(parent, name)?;
    let mut below = Vec::new();
    for entry in rustix::fs::Dir::read_from(&directory)? {
        let entry = entry?;
        let bytes = entry.file_name().to_bytes();
        if bytes != b"." && bytes != b".." {
            below.push(PathBuf::from(OsStr::from_bytes(bytes)));
        }
    }
    for name in below {
        match unlinkat(&directory, &name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => remove_tree(&directory, &name)?,
            other => other?,
        }
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

fn write_file<R: Read>(parent: &OwnedFd, name: &Path, entry: &mut Entry<'_, R>) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?);
    let size = entry.size();
    let outcome = match io::copy(entry, &mut file) {
        Ok(written) if written == size => return Ok(()),
        Ok(_) => Error::invalid("invalid archive: unexpected EOF"),
        Err(e) => e.into(),
    };
    // Half a file is worse than none, and it may be what fills the disk.
    drop(file);
    if let Err(e) = unlinkat(parent, name, AtFlags::empty()) {
        tracing::debug!("remove the half of {}: {e}", name.display());
    }
    Err(outcome)
}

fn set_mode(parent: &OwnedFd, name: &Path, mode: Mode) -> Result<(), Errno> {
    match chmodat(parent, name, mode, AtFlags::SYMLINK_NOFOLLOW) {
        // Kernels before 6.6 have no call for it; then by a descriptor that is no link.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = openat(parent, name, flags, Mode::empty())?;
            let kind = FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode);
            if kind == FileType::Symlink {
                return Err(Errno::LOOP);
            }
            use std::os::fd::AsRawFd;
            rustix::fs::chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), mode)
        }
        other => other,
    }
}

fn set_attributes<R: Read>(parent: &OwnedFd, name: &Path, entry: &mut Entry<'_, R>) -> Result<()> {
    let Ok(Some(extensions)) = entry.pax_extensions() else {
        return Ok(());
    };
    let mut wanted = Vec::new();
    for extension in extensions.flatten() {
        let key = extension.key().unwrap_or_default();
        if let Some(attribute) = key.strip_prefix("SCHILY.xattr.")
            && (attribute == "security.capability" || attribute.starts_with("user."))
        {
            wanted.push((attribute.to_owned(), extension.value_bytes().to_vec()));
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = openat(parent, name, flags, Mode::empty())?;
    for (attribute, value) in wanted {
        let set = rustix::fs::fsetxattr(
            &fd,
            attribute.as_str(),
            &value,
            rustix::fs::XattrFlags::empty(),
        );
        match set {
            // A file system without attributes loses them, as tar does.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(e) => return Err(Error::from(e).during(format!("set attribute {attribute}"))),
        }
    }
    Ok(())
}

fn set_time(parent: &OwnedFd, name: &Path, seconds: u64) -> Result<()> {
    let time = Timespec {
        tv_sec: i64::try_from(seconds).unwrap_or(0),
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// A field of a header as it was read; one that holds nothing is zero, as Go's archives have it.
fn number<T: Default>(read: io::Result<T>, field: &[u8]) -> io::Result<T> {
    match field.iter().all(|byte| matches!(byte, 0 | b' ')) {
        true => Ok(T::default()),
        false => read,
    }
}

fn time(header: &tar::Header) -> io::Result<u64> {
    number(header.mtime(), &header.as_old().mtime)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
        for (path, kind, data) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o640);
            header.set_mtime(1000);
            header.set_uid(uid.as_raw().into());
            header.set_gid(gid.as_raw().into());
            // Set as bytes: the library refuses what an attacker would write.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            let content = match kind {
                EntryType::Symlink | EntryType::Link => {
                    header.as_old_mut().linkname[..data.len()].copy_from_slice(data.as_bytes());
                    ""
                }
                _ => data,
            };
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn run(root: &Path, entries: &[(&str, EntryType, &str)], keep_kind: bool) -> Result<()> {
        let options = Options {
            keep_kind,
            ..Options::default()
        };
        extract(
            &Root::of_directory(root)?,
            Path::new("/in"),
            archive(entries).as_slice(),
            options,
        )
    }

    #[test]
    fn nothing_leaves_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("in")).unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        use EntryType::{Link, Regular, Symlink};
        let up = "../../../../../../../";
        let target = format!("{}{}", up, dir.path().display());
        run(
            &root,
            &[("l", Symlink, &target), ("a/b", Regular, "x")],
            false,
        )
        .unwrap();
        // The link leads nowhere within the root, so nothing can be written through it.
        assert!(run(&root, &[("l/new", Regular, "x")], false).is_err());
        assert!(!dir.path().join("new").exists());
        assert!(run(&root, &[("../x", Regular, "x")], false).is_err());
        assert!(run(&root, &[("h", Link, "../../secret")], false).is_err());
        assert_eq!(std::fs::read(dir.path().join("secret")).unwrap(), b"s");
        let made = std::fs::metadata(root.join("in/a/b")).unwrap();
        assert_eq!(made.permissions().mode() & 0o777, 0o640);
        assert_eq!(made.mtime(), 1000);
    }

    #[test]
    fn files_replace_links_and_kinds_can_be_kept() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("in/d/e")).unwrap();
        std::fs::write(root.join("victim"), "v").unwrap();
        symlink("/victim", root.join("in/f")).unwrap();
        use EntryType::{Directory, Regular};
        run(root, &[("f", Regular, "new")], true).unwrap();
        assert_eq!(std::fs::read(root.join("victim")).unwrap(), b"v");
        assert_eq!(std::fs::read(root.join("in/f")).unwrap(), b"new");
        assert!(run(root, &[("d", Regular, "x")], true).is_err());
        assert!(run(root, &[("f", Directory, "")], true).is_err());
        run(root, &[("d", Regular, "x")], false).unwrap();
        assert!(root.join("in/d").is_file());
    }

    #[test]
    fn a_cut_archive_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("in")).unwrap();
        let whole = archive(&[("f", EntryType::Regular, &"x".repeat(3000))]);
        let root = Root::of_directory(dir.path()).unwrap();
        let cut = extract(&root, Path::new("/in"), &whole[..2000], Options::default());
        assert!(cut.is_err());
        assert!(!dir.path().join("in/f").exists());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
            let dir = tempfile::tempdir().unwrap();
            let root = Root::of_directory(dir.path()).unwrap();
            let _ = extract(&root, Path::new("/"), bytes.as_slice(), Options::default());
        }

        #[test]
        fn a_name_stays_below(name in "[a./]{0,16}") {
            if let Ok(path) = relative(name.as_bytes()) {
                prop_assert!(path.is_relative());
                let up = path.components().any(|part| part == std::path::Component::ParentDir);
                prop_assert!(!up);
            }
        }
    }
}
