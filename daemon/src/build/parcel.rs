//! What COPY and ADD bring: found in one root, weighed for the cache, and placed in another. Blocking.

use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::archive::extract::{self, extract};
use crate::archive::pack::Packer;
use crate::archive::root::Root;
use crate::container::rootfs::Accounts;
use crate::dockerfile::heredoc::Heredoc;
use crate::dockerfile::ignore::name_matches;
use crate::error::{During, Error, Result};
use crate::images::Compression;

/// What is to be brought in, and as what.
#[derive(Debug, Clone)]
pub(super) struct Parcel {
    pub(super) sources: Vec<PathBuf>,
    pub(super) documents: Vec<Heredoc>,
    /// Absolute.
    pub(super) target: String,
    /// Whether the target is a folder that files go into under their own names.
    pub(super) folder: bool,
    /// Whether archives are unpacked.
    pub(super) unpack: bool,
}

impl Parcel {
    /// How many sources it has.
    pub(super) fn count(&self) -> usize {
        self.sources.len() + self.documents.len()
    }
}

/// The paths that a pattern means, in their order; at least one.
pub(super) fn find(root: &Root, pattern: &str) -> Result<Vec<PathBuf>> {
    let missing = || {
        Error::invalid(format!(
            "file not found in build context or excluded by .dockerignore: stat {}: file does not exist",
            pattern.trim_start_matches('/')
        ))
    };
    let parts: Vec<&str> = pattern
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    let mut found = vec![PathBuf::from("/")];
    for part in parts {
        if part == ".." {
            // the context has nothing above it
            for path in &mut found {
                path.pop();
            }
            continue;
        }
        if !part.contains(['*', '?', '[', '\\']) {
            for path in &mut found {
                path.push(part);
            }
            continue;
        }
        let wanted: Vec<char> = part.chars().collect();
        let mut deeper = Vec::new();
        for path in found {
            let Ok(directory) = root.directory(&path) else {
                continue;
            };
            for name in crate::archive::pack::names(&directory)? {
                let text: Vec<char> = name.to_string_lossy().chars().collect();
                if name_matches(&wanted, &text) {
                    deeper.push(path.join(name));
                }
            }
        }
        found = deeper;
    }
    found.retain(|path| root.status(path).is_ok());
    match found.is_empty() {
        true => Err(missing()),
        false => Ok(found),
    }
}

/// A digest of all that the parcel brings: names, kinds, permissions and contents, not times and owners.
pub(super) fn sum(from: &Root, parcel: &Parcel) -> Result<String> {
    struct Sink(Sha256);
    impl Write for Sink {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.0.update(data);
            Ok(data.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut packer = Packer::new(Sink(Sha256::new())).plain();
    for source in &parcel.sources {
        pack(&mut packer, from, source, source.file_name().map(Path::new))?;
    }
    let mut sum = packer.finish()?.0;
    for document in &parcel.documents {
        for part in [&document.name, &document.content] {
            sum.update((part.len() as u64).to_le_bytes());
            sum.update(part);
        }
    }
    Ok(hex::encode(sum.finalize()))
}

/// Packs what a folder holds, or a file under a name.
fn pack<W: Write>(
    packer: &mut Packer<W>,
    from: &Root,
    source: &Path,
    name: Option<&Path>,
) -> Result<()> {
    let what = || format!("read {}", source.display());
    let source = from.follow(source).during(what)?;
    if let Ok(directory) = from.directory(&source) {
        return packer.tree(&directory, Path::new(""));
    }
    let (parent, own) = from.parent(&source).during(what)?;
    packer.entry(&parent, &own, name.unwrap_or(&own))
}

pub(super) fn owner(root: &Root, text: &str) -> Result<(u32, u32)> {
    let user = Accounts::below(root)?.resolve(text, &[])?;
    // a group that is not named is the user's number, as Docker has it
    let gid = match text.contains(':') {
        true => user.gid,
        false => user.uid,
    };
    Ok((user.uid, gid))
}

/// Brings the parcel into a root.
pub(super) fn place(
    from: &Root,
    into: &Root,
    parcel: &Parcel,
    owner: Option<(u32, u32)>,
    mode: Option<u32>,
) -> Result<()> {
    let target = Path::new(&parcel.target);
    let folder = parcel.folder || into.directory(target).is_ok();
    let options = extract::Options {
        owner: Some(owner.unwrap_or((0, 0))),
        mode,
        keep_kind: true,
    };
    // Of a file: the folder it goes into and the name it gets.
    let spot = |name: &Path| match (folder, target.parent(), target.file_name()) {
        (false, Some(above), Some(own)) => (above.to_owned(), PathBuf::from(own)),
        _ => (target.to_owned(), name.to_owned()),
    };
    for source in &parcel.sources {
        if parcel.unpack
            && let Some(archive) = archive(from, source)?
        {
            extract::folder(into, target)?;
            let options = extract::Options {
                owner,
                mode,
                keep_kind: true,
            };
            extract(into, target, archive, options)?;
            continue;
        }
        let is_folder = from.directory(source).is_ok();
        let (place, name) = match is_folder {
            true => (target.to_owned(), PathBuf::new()),
            false => spot(Path::new(source.file_name().unwrap_or_default())),
        };
        extract::folder(into, &place)?;
        stream(from, source, &name, into, &place, options)?;
    }
    for document in &parcel.documents {
        let (place, name) = spot(Path::new(&document.name));
        let mut header = tar::Header::new_gnu();
        header.set_size(document.content.len() as u64);
        header.set_mode(0o644);
        let mut archive = tar::Builder::new(Vec::new());
        archive
            .append_data(&mut header, &name, document.content.as_bytes())
            .during(|| format!("pack {}", name.display()))?;
        let archive = archive.into_inner().during(|| "pack a heredoc")?;
        extract::folder(into, &place)?;
        extract(into, &place, archive.as_slice(), options)?;
    }
    Ok(())
}

/// From one root into another: one thread packs, this one extracts.
fn stream(
    from: &Root,
    source: &Path,
    name: &Path,
    into: &Root,
    place: &Path,
    options: extract::Options,
) -> Result<()> {
    let (reader, writer) = io::pipe()?;
    std::thread::scope(|scope| {
        let packing = scope.spawn(move || {
            let mut packer = Packer::new(io::BufWriter::with_capacity(64 << 10, writer));
            pack(
                &mut packer,
                from,
                source,
                Some(name).filter(|name| !name.as_os_str().is_empty()),
            )?;
            let mut writer = packer.finish()?;
            writer.flush().during(|| "end the archive")
        });
        let reader = BufReader::with_capacity(64 << 10, reader);
        let extracted = extract(into, place, reader, options);
        let packed = packing
            .join()
            .map_err(|_| Error::internal("the packing thread has panicked"))?;
        // a failed extraction breaks the pipe: then it is the cause
        extracted.and(packed)
    })
}

/// The content of a file that ADD unpacks: a tar, compressed or not.
fn archive(from: &Root, source: &Path) -> Result<Option<Box<dyn Read>>> {
    if from.directory(source).is_ok() {
        return Ok(None);
    }
    let open = || from.file(source);
    let Ok(Some(file)) = open() else {
        return Ok(None);
    };
    let mut start = [0; 512];
    let decoder = |file| -> Result<Option<Box<dyn Read>>> {
        let mut file = BufReader::with_capacity(64 << 10, file);
        let head = io::BufRead::fill_buf(&mut file)?;
        // what cannot be unpacked is a file like any other, as in Docker
        match Compression::sniff(head) {
            Ok(compression) => Ok(Some(compression.decoder(file)?)),
            Err(_) => Ok(None),
        }
    };
    let Some(mut content) = decoder(file)? else {
        return Ok(None);
    };
    let is_tar = content.read_exact(&mut start).is_ok() && &start[257..262] == b"ustar";
    match (is_tar, open()?) {
        (true, Some(file)) => decoder(file),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails where it stands")]
    use super::*;

    fn parcel(sources: &[&str], target: &str, folder: bool) -> Parcel {
        Parcel {
            sources: sources.iter().map(PathBuf::from).collect(),
            documents: Vec::new(),
            target: target.into(),
            folder,
            unpack: true,
        }
    }

    fn roots() -> (tempfile::TempDir, Root, Root) {
        let dir = tempfile::tempdir().unwrap();
        for name in ["from/d/e", "into"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        for name in ["from/a.c", "from/b.c", "from/d/f"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        std::os::unix::fs::symlink("/etc", dir.path().join("into/etc")).unwrap();
        let root = |name: &str| Root::of_directory(&dir.path().join(name)).unwrap();
        let (from, into) = (root("from"), root("into"));
        (dir, from, into)
    }

    #[test]
    fn patterns_find_files() {
        let (_dir, from, _) = roots();
        let found = |pattern: &str| {
            let found = find(&from, pattern)?;
            Ok::<_, Error>(
                found
                    .iter()
                    .map(|path| path.display().to_string())
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(found("*.c").unwrap(), ["/a.c", "/b.c"]);
        assert_eq!(found("./d/../a.?").unwrap(), ["/a.c"]);
        assert_eq!(found(".").unwrap(), ["/"]);
        assert_eq!(found("../../a.c").unwrap(), ["/a.c"]);
        assert!(found("x").is_err() && found("x*").is_err());
    }

    #[test]
    fn files_and_folders_come_in() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (dir, from, into) = roots();
        let read = |path: &str| {
            std::fs::read_to_string(dir.path().join("into").join(path)).unwrap_or_default()
        };
        place(
            &from,
            &into,
            &parcel(&["/a.c"], "/x/y", false),
            None,
            Some(0o600),
        )
        .unwrap();
        assert_eq!(read("x/y"), "from/a.c");
        place(&from, &into, &parcel(&["/a.c"], "/x", false), None, None).unwrap();
        assert_eq!(read("x/a.c"), "from/a.c");
        place(&from, &into, &parcel(&["/d"], "/new", false), None, None).unwrap();
        assert_eq!(read("new/f"), "from/d/f");
        // a link of the image leads to a place in the image
        std::fs::create_dir(dir.path().join("into/real")).unwrap();
        std::fs::remove_file(dir.path().join("into/etc")).unwrap();
        std::os::unix::fs::symlink("/real", dir.path().join("into/etc")).unwrap();
        place(&from, &into, &parcel(&["/a.c"], "/etc/", true), None, None).unwrap();
        assert_eq!(read("real/a.c"), "from/a.c");
    }

    #[test]
    fn equal_files_have_equal_sums() {
        let (dir, from, _) = roots();
        let of = |path: &str| sum(&from, &parcel(&[path], "/", true)).unwrap();
        let before = of("/d");
        let file = std::fs::File::options()
            .write(true)
            .open(dir.path().join("from/d/f"))
            .unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
        assert_eq!(of("/d"), before);
        std::fs::write(dir.path().join("from/d/f"), "other").unwrap();
        assert_ne!(of("/d"), before);
    }
}
