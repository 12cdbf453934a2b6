//! Tars on their way to and from the daemon. Sync work on threads, bounded channels in between.
//!
//! What comes out of a container is not trusted: an entry never lands outside its folder, not by
//! `..`, not by an absolute name, and not through a symbolic link that an earlier entry made.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::client::Upload;
use crate::error::Failure;

/// Pieces under way at once; the reader of a slow connection waits.
const PIECES: usize = 8;
const PIECE: usize = 64 * 1024;

/// Sends a file, or standard input if there is no name.
pub(crate) fn upload_file(path: &str) -> Result<Upload, Failure> {
    let mut source: Box<dyn Read + Send> = if path.is_empty() {
        Box::new(io::stdin())
    } else {
        Box::new(
            File::open(path)
                .map_err(|cause| Failure::new(format!("open {path}: {}", plain(&cause))))?,
        )
    };
    let (sender, receiver) = mpsc::channel(PIECES);
    tokio::task::spawn_blocking(move || {
        let mut buffer = vec![0; PIECE];
        loop {
            let piece = match source.read(&mut buffer) {
                Ok(0) => return,
                Ok(got) => Ok(Bytes::copy_from_slice(&buffer[..got])),
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
                Err(cause) => Err(cause),
            };
            let failed = piece.is_err();
            // A receiver that is gone has its answer already, perhaps a refusal.
            if sender.blocking_send(piece).is_err() || failed {
                return;
            }
        }
    });
    Ok(receiver)
}

/// The system's words without the error number, as Docker's users know them.
pub(crate) fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_string(),
        io::ErrorKind::PermissionDenied => "permission denied".to_string(),
        io::ErrorKind::NotADirectory => "not a directory".to_string(),
        io::ErrorKind::IsADirectory => "is a directory".to_string(),
        _ => error.to_string(),
    }
}

/// Writes into a channel.
struct ChannelWriter(mpsc::Sender<io::Result<Bytes>>);

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(Ok(Bytes::copy_from_slice(bytes)))
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the daemon took no more"))?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends what a function writes. Its failure is told as one to do `what`.
pub(crate) fn upload_from(
    what: String,
    write: impl FnOnce(Box<dyn Write>) -> io::Result<()> + Send + 'static,
) -> Upload {
    let (sender, receiver) = mpsc::channel(PIECES);
    tokio::task::spawn_blocking(move || {
        let writer = io::BufWriter::with_capacity(PIECE, ChannelWriter(sender.clone()));
        if let Err(cause) = write(Box::new(writer)) {
            let cause = io::Error::new(cause.kind(), format!("{what}: {}", plain(&cause)));
            let _ = sender.blocking_send(Err(cause));
        }
    });
    receiver
}

/// Sends a file or folder as a tar in which it has another name. An empty name stands for the
/// contents of a folder.
pub(crate) fn upload_tree(source: PathBuf, name: String) -> Upload {
    upload_from(format!("archive {}", source.display()), move |writer| {
        let mut tar = tar::Builder::new(writer);
        tar.follow_symlinks(false);
        add(&mut tar, &source, Path::new(&name))?;
        tar.into_inner()?.flush()
    })
}

fn add<W: Write>(tar: &mut tar::Builder<W>, path: &Path, name: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt as _;
    let meta = fs::symlink_metadata(path)?;
    if meta.file_type().is_socket() {
        return Ok(());
    }
    if !name.as_os_str().is_empty() {
        tar.append_path_with_name(path, name)?;
    }
    if meta.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            add(tar, &entry.path(), &name.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Reads from a channel.
#[derive(Debug)]
pub(crate) struct ChannelReader {
    pieces: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl ChannelReader {
    /// A reader, and the end to feed it by.
    pub(crate) fn new() -> (mpsc::Sender<Bytes>, ChannelReader) {
        let (sender, pieces) = mpsc::channel(PIECES);
        (
            sender,
            ChannelReader {
                pieces,
                rest: Bytes::new(),
            },
        )
    }
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.rest = piece,
                None => return Ok(0),
            }
        }
        let take = self.rest.len().min(buffer.len());
        buffer[..take].copy_from_slice(&self.rest.split_to(take));
        Ok(take)
    }
}

/// Where the entries of an archive go.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The folder that nothing may leave.
    pub(crate) dir: PathBuf,
    /// The name that replaces the first part of each entry's; empty drops it.
    pub(crate) name: String,
    /// Keep owner and group.
    pub(crate) keep_owner: bool,
}

/// Unpacks a tar. Gives the number of bytes in its files.
pub(crate) fn unpack(archive: impl Read, target: &Target) -> io::Result<u64> {
    let mut archive = tar::Archive::new(archive);
    archive.set_preserve_ownerships(target.keep_owner);
    archive.set_preserve_permissions(true);
    let mut folders = Vec::new();
    let mut total = 0;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let Some(inside) = placed(&name, &target.name)? else {
            continue;
        };
        let path = target.dir.join(&inside);
        check_parents(&target.dir, &inside)?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let kind = entry.header().entry_type();
        if kind.is_hard_link() {
            let link = entry
                .link_name()?
                .map(|link| link.into_owned())
                .unwrap_or_default();
            let Some(first) = placed(&link, &target.name)? else {
                continue;
            };
            check_parents(&target.dir, &first)?;
            let _ = fs::remove_file(&path);
            fs::hard_link(target.dir.join(first), &path)?;
            continue;
        }
        if kind.is_dir() {
            if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_dir()) {
                return Err(io::Error::other(format!(
                    "cannot overwrite non-directory {} with a directory",
                    path.display()
                )));
            }
            fs::create_dir_all(&path)?;
            // Its mode comes last: a folder without the right to write would refuse its own contents.
            folders.push((path, entry.header().mode()?));
            continue;
        }
        if fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
            return Err(io::Error::other(format!(
                "cannot overwrite directory {} with a file",
                path.display()
            )));
        }
        if fs::symlink_metadata(&path).is_ok() {
            fs::remove_file(&path)?;
        }
        total += entry.size();
        entry.unpack(&path)?;
    }
    for (path, mode) in folders.into_iter().rev() {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode & 0o7777))?;
    }
    Ok(total)
}

/// The place of an entry below the folder: the first part of its name replaced. None: the folder itself.
fn placed(name: &Path, replacement: &str) -> io::Result<Option<PathBuf>> {
    let mut parts = Vec::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => parts.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::other(format!(
                    "archive entry {} leaves its folder",
                    name.display()
                )));
            }
        }
    }
    let mut out = PathBuf::new();
    let rest = if replacement == "." {
        // The archive is rooted at the folder itself.
        &parts[..]
    } else {
        out.push(replacement);
        parts.get(1..).unwrap_or_default()
    };
    out.extend(rest);
    Ok((!out.as_os_str().is_empty()).then_some(out))
}

/// Refuses a way through a symbolic link below the folder.
fn check_parents(dir: &Path, inside: &Path) -> io::Result<()> {
    let mut at = dir.to_path_buf();
    let mut parts = inside.components().peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return Ok(());
        }
        at.push(part);
        if fs::symlink_metadata(&at).is_ok_and(|found| found.file_type().is_symlink()) {
            return Err(io::Error::other(format!(
                "archive entry {} goes through the link {}",
                inside.display(),
                at.display()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
            if kind.is_file() {
                header.set_size(text.len() as u64);
                header.set_cksum();
                builder.append(&header, text.as_bytes()).unwrap();
            } else {
                header.set_size(0);
                if !kind.is_dir() {
                    header.set_link_name(text).unwrap();
                }
                header.set_cksum();
                builder.append(&header, io::empty()).unwrap();
            }
        }
        builder.into_inner().unwrap()
    }

    fn unpacked(
        entries: &[(&str, tar::EntryType, &str)],
        name: &str,
    ) -> (tempfile::TempDir, io::Result<u64>) {
        let dir = tempfile::tempdir().unwrap();
        let target = Target {
            dir: dir.path().join("in"),
            name: name.into(),
            keep_owner: false,
        };
        fs::create_dir(&target.dir).unwrap();
        let done = unpack(&tar(entries)[..], &target);
        (dir, done)
    }

    use tar::EntryType::{Directory, Link, Regular, Symlink};

    #[test]
    fn entries_take_the_new_name() {
        let entries = [
            ("etc", Directory, ""),
            ("etc/a", Regular, "text"),
            ("etc/b", Link, "etc/a"),
        ];
        let (dir, done) = unpacked(&entries, "copy");
        assert_eq!(done.unwrap(), 4);
        assert_eq!(
            fs::read_to_string(dir.path().join("in/copy/b")).unwrap(),
            "text"
        );
        let (dir, done) = unpacked(&entries, "");
        done.unwrap();
        assert!(dir.path().join("in/a").exists());
        let (dir, done) = unpacked(&[("./", Directory, ""), ("./a", Regular, "x")], ".");
        done.unwrap();
        assert!(dir.path().join("in/a").exists());
    }

    #[test]
    fn nothing_leaves_its_folder() {
        for entries in [
            &[("x/../../out", Regular, "evil")][..],
            &[("x", Symlink, "/tmp"), ("x/out", Regular, "evil")],
            &[("x/l", Symlink, ".."), ("x/l/out", Regular, "evil")],
            &[("x/h", Link, "x/../../../etc/passwd")],
        ] {
            let (dir, done) = unpacked(entries, "x");
            assert!(done.is_err(), "{entries:?}");
            assert!(!dir.path().join("out").exists());
        }
        let (dir, done) = unpacked(&[("/abs/file", Regular, "x")], "x");
        done.unwrap();
        assert!(dir.path().join("in/x/file").exists());
    }
}
