//! Writes a layer: tar with the names that stand for removals.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use tar::{Builder, EntryType, Header};

use super::root::proc_path;
use super::xattr;

/// Longest name that fits into a header.
const SHORT: usize = 100;

/// A layer that is being written.
pub(super) struct Layer<W: Write> {
    tar: Builder<W>,
    /// Files with more than one name: device and inode to the name that came first.
    names: HashMap<(u64, u64), Vec<u8>>,
    /// Times later than this are cut down to it, so that equal trees make equal layers.
    epoch: Option<i64>,
}

impl<W: Write> Layer<W> {
    /// Nothing is written yet.
    pub(super) fn new(writer: W, epoch: Option<i64>) -> Self {
        let mut tar = Builder::new(writer);
        tar.mode(tar::HeaderMode::Complete);
        Self {
            tar,
            names: HashMap::new(),
            epoch,
        }
    }

    /// Ends the archive and gives the writer back.
    pub(super) fn finish(self) -> io::Result<W> {
        self.tar.into_inner()
    }

    /// The removal of `path`.
    pub(super) fn removed(&mut self, path: &Path) -> io::Result<()> {
        let mut name = OsStr::new(".wh.").to_owned();
        name.push(path.file_name().unwrap_or_default());
        self.mark(&path.with_file_name(name))
    }

    /// The removal of all that was in the directory `path`.
    pub(super) fn opaque(&mut self, path: &Path) -> io::Result<()> {
        self.mark(&path.join(".wh..wh..opq"))
    }

    fn mark(&mut self, path: &Path) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header.set_mtime(self.epoch.map_or(0, |e| u64::try_from(e).unwrap_or(0)));
        self.append(header, path.as_os_str().as_bytes(), None, &[], io::empty())
    }

    /// What is at `name` in an open directory, under the name `path`. A file that is gone by now is left out.
    pub(super) fn put(
        &mut self,
        directory: &OwnedFd,
        name: &OsStr,
        path: &Path,
        stat: &Stat,
    ) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid(stat.st_uid.into());
        header.set_gid(stat.st_gid.into());
        let mtime = self.epoch.map_or(stat.st_mtime, |e| stat.st_mtime.min(e));
        header.set_mtime(u64::try_from(mtime).unwrap_or(0));
        header.set_size(0);
        let mut bytes = path.as_os_str().as_bytes().to_vec();
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.names.get(&inode).cloned() {
                header.set_entry_type(EntryType::Link);
                return self.append(header, &bytes, Some(&first), &[], io::empty());
            }
            self.names.insert(inode, bytes.clone());
        }
        let xattrs = attributes(&proc_path(directory, name))?;
        match kind {
            FileType::Directory => {
                header.set_entry_type(EntryType::Directory);
                bytes.push(b'/');
                self.append(header, &bytes, None, &xattrs, io::empty())
            }
            FileType::Symlink => {
                header.set_entry_type(EntryType::Symlink);
                let target = rustix::fs::readlinkat(directory, name, Vec::new())?;
                self.append(
                    header,
                    &bytes,
                    Some(target.as_bytes()),
                    &xattrs,
                    io::empty(),
                )
            }
            FileType::RegularFile => self.file(directory, name, header, &bytes, &xattrs),
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo => {
                header.set_entry_type(match kind {
                    FileType::CharacterDevice => EntryType::Char,
                    FileType::BlockDevice => EntryType::Block,
                    _ => EntryType::Fifo,
                });
                header.set_device_major(rustix::fs::major(stat.st_rdev))?;
                header.set_device_minor(rustix::fs::minor(stat.st_rdev))?;
                self.append(header, &bytes, None, &xattrs, io::empty())
            }
            // A socket means nothing without its process.
            _ => Ok(()),
        }
    }

    fn file(
        &mut self,
        directory: &OwnedFd,
        name: &OsStr,
        mut header: Header,
        path: &[u8],
        xattrs: &[(String, Vec<u8>)],
    ) -> io::Result<()> {
        // Whoever owns the tree may put a fifo or a link here meanwhile: neither wait nor follow.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => {
                return Ok(());
            }
            Err(errno) => return Err(errno.into()),
        };
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Ok(());
        }
        header.set_entry_type(EntryType::Regular);
        header.set_size(meta.len());
        // A file that shrinks meanwhile is filled with zeros: the header is written already.
        let data = file.take(meta.len()).chain(io::repeat(0)).take(meta.len());
        self.append(header, path, None, xattrs, data)
    }

    fn append(
        &mut self,
        mut header: Header,
        path: &[u8],
        link: Option<&[u8]>,
        xattrs: &[(String, Vec<u8>)],
        data: impl io::Read,
    ) -> io::Result<()> {
        let mut records: Vec<(&str, &[u8])> = Vec::new();
        let raw = header.as_old_mut();
        fill(&mut raw.name, path);
        if path.len() > SHORT {
            records.push(("path", path));
        }
        if let Some(link) = link {
            fill(&mut raw.linkname, link);
            if link.len() > SHORT {
                records.push(("linkpath", link));
            }
        }
        records.extend(
            xattrs
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_slice())),
        );
        self.tar.append_pax_extensions(records)?;
        header.set_cksum();
        self.tar.append(&header, data)
    }
}

fn fill(field: &mut [u8; SHORT], bytes: &[u8]) {
    let length = bytes.len().min(SHORT);
    field[..length].copy_from_slice(&bytes[..length]);
}

/// The attributes that belong into a layer, as PAX records.
fn attributes(path: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut out = Vec::new();
    for name in xattr::list(path)? {
        let Ok(text) = name.to_str() else { continue };
        let kept = text == "security.capability"
            || text.starts_with("user.") && !text.starts_with("user.overlay.");
        if kept && let Some(value) = xattr::get(path, &name)? {
            out.push((format!("SCHILY.xattr.{text}"), value));
        }
    }
    Ok(out)
}

/// What is at `name` in an open directory; none if it is gone.
pub(super) fn stat(directory: &OwnedFd, name: &OsStr) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}
