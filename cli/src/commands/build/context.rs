//! What a build is made from: a folder, a tar or a Dockerfile on standard input, sent as a tar.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ignore::Ignore;
use crate::archive::{plain, upload_from};
use crate::client::Upload;
use crate::error::Failure;

/// The name of the file when none is said.
pub(super) const DOCKERFILE: &str = "Dockerfile";
const IGNORE: &str = ".dockerignore";
/// The name that a Dockerfile from elsewhere has in the tar.
const FROM_ELSEWHERE: &str = ".dockerfile.lite";
/// How many bytes tell a tar.
const MAGIC: u64 = 512;

/// A context on its way.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) upload: Upload,
    /// The Dockerfile's name within.
    pub(super) dockerfile: String,
    /// How many bytes were sent so far.
    pub(super) sent: Arc<AtomicU64>,
}

/// A folder; `file` is the Dockerfile as the user names it: nothing, `-`, or a path.
pub(super) fn folder(dir: &str, file: &str) -> Result<Context, Failure> {
    let unable = |why: String| Failure::new(format!("unable to prepare context: {why}"));
    let root = fs::canonicalize(dir)
        .map_err(|cause| unable(format!("path {dir:?} not found: {}", plain(&cause))))?;
    if !root.is_dir() {
        return Err(unable(format!(
            "context must be a directory: {}",
            root.display()
        )));
    }
    let mut ignore = match fs::read_to_string(root.join(IGNORE)) {
        Ok(text) => Ignore::parse(&text),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ignore::default(),
        Err(cause) => return Err(unable(format!("read {IGNORE}: {}", plain(&cause)))),
    };
    let mut added = None;
    let dockerfile = match file {
        "-" => {
            let mut text = Vec::new();
            io::stdin().read_to_end(&mut text)?;
            added = Some(text);
            FROM_ELSEWHERE.to_string()
        }
        "" => {
            let lower = root.join(DOCKERFILE.to_lowercase());
            match !root.join(DOCKERFILE).exists() && lower.exists() {
                true => DOCKERFILE.to_lowercase(),
                false => DOCKERFILE.to_string(),
            }
        }
        named => {
            let path = Path::new(named);
            let found = fs::canonicalize(path).map_err(|cause| {
                unable(format!(
                    "unable to evaluate symlinks in Dockerfile path: lstat {named}: {}",
                    plain(&cause)
                ))
            })?;
            match found.strip_prefix(&root) {
                Ok(inside) => inside.to_string_lossy().into_owned(),
                Err(_) => {
                    added = Some(fs::read(&found)?);
                    FROM_ELSEWHERE.to_string()
                }
            }
        }
    };
    if added.is_none() {
        let path = root.join(&dockerfile);
        fs::symlink_metadata(&path).map_err(|cause| {
            unable(format!(
                "unable to evaluate symlinks in Dockerfile path: lstat {}: {}",
                path.display(),
                plain(&cause)
            ))
        })?;
    }
    // The daemon reads both, and leaves them out itself.
    ignore.keep(&dockerfile);
    ignore.keep(IGNORE);
    let sent = Arc::new(AtomicU64::new(0));
    let count = sent.clone();
    let upload = upload_from(
        format!("send the context {}", root.display()),
        move |writer| {
            let mut tar = tar::Builder::new(Counted(writer, count));
            if let Some(text) = &added {
                file_of(&mut tar, FROM_ELSEWHERE, text)?;
            }
            below(&mut tar, &root, "", &ignore)?;
            tar.into_inner()?.flush()
        },
    );
    Ok(Context {
        upload,
        dockerfile,
        sent,
    })
}

/// Standard input: a tar, packed or not, is the whole context; anything else is a Dockerfile.
pub(super) fn standard_input(file: &str) -> Result<Context, Failure> {
    let mut begin = Vec::new();
    io::stdin().lock().take(MAGIC).read_to_end(&mut begin)?;
    let sent = Arc::new(AtomicU64::new(0));
    let count = sent.clone();
    if is_archive(&begin) {
        let dockerfile = if file.is_empty() { DOCKERFILE } else { file };
        let upload = upload_from("send the context".to_string(), move |writer| {
            let mut writer = Counted(writer, count);
            writer.write_all(&begin)?;
            io::copy(&mut io::stdin().lock(), &mut writer)?;
            writer.flush()
        });
        return Ok(Context {
            upload,
            dockerfile: dockerfile.to_string(),
            sent,
        });
    }
    if file == "-" {
        return Err(Failure::new(
            "invalid argument: can't use stdin for both build context and dockerfile",
        ));
    }
    io::stdin().read_to_end(&mut begin)?;
    if begin.is_empty() {
        return Err(Failure::new(
            "unable to prepare context: the Dockerfile on standard input is empty",
        ));
    }
    let upload = upload_from("send the Dockerfile".to_string(), move |writer| {
        let mut tar = tar::Builder::new(Counted(writer, count));
        file_of(&mut tar, DOCKERFILE, &begin)?;
        tar.into_inner()?.flush()
    });
    Ok(Context {
        upload,
        dockerfile: DOCKERFILE.to_string(),
        sent,
    })
}

/// Whether bytes begin a tar, or something packed that the daemon unpacks.
fn is_archive(begin: &[u8]) -> bool {
    const PACKED: [&[u8]; 4] = [b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    PACKED.iter().any(|magic| begin.starts_with(magic)) || begin.get(257..262) == Some(b"ustar")
}

fn file_of<W: Write>(tar: &mut tar::Builder<W>, name: &str, text: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o600);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    tar.append_data(&mut header, name, text)
}

/// Adds what is below a folder; `name` is its own within the context.
fn below<W: Write>(
    tar: &mut tar::Builder<W>,
    dir: &Path,
    name: &str,
    ignore: &Ignore,
) -> io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(dir)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let own = entry.file_name();
        let Some(own) = own.to_str() else {
            return Err(io::Error::other(format!(
                "the name of {} is not UTF-8",
                entry.path().display()
            )));
        };
        let inside = match name.is_empty() {
            true => own.to_string(),
            false => format!("{name}/{own}"),
        };
        let left_out = ignore.leaves_out(&inside);
        let path = entry.path();
        let is_dir = entry.file_type()?.is_dir();
        if !left_out {
            one(tar, &path, &inside)?;
        }
        if is_dir && (!left_out || ignore.takes_back()) {
            below(tar, &path, &inside, ignore)?;
        }
    }
    Ok(())
}

/// Adds one file, folder or link, as root's: who owns it here is nobody's business there.
fn one<W: Write>(tar: &mut tar::Builder<W>, path: &PathBuf, name: &str) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    let kind = meta.file_type();
    if kind.is_socket() {
        return Ok(());
    }
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&meta);
    header.set_uid(0);
    header.set_gid(0);
    if kind.is_symlink() {
        header.set_size(0);
        return tar.append_link(&mut header, name, fs::read_link(path)?);
    }
    if !kind.is_file() {
        header.set_size(0);
        return tar.append_data(&mut header, name, io::empty());
    }
    // One that grows meanwhile is cut at the size that was announced.
    let file = File::open(path)?;
    tar.append_data(&mut header, name, file.take(meta.len()))
}

/// Counts what passes.
struct Counted<W>(W, Arc<AtomicU64>);

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.0.write(bytes)?;
        self.1.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn bytes_of(mut upload: Upload) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(piece) = upload.recv().await {
            all.extend_from_slice(&piece.unwrap());
        }
        all
    }

    fn names(tar: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(tar);
        let entries = archive.entries().unwrap();
        entries
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect()
    }

    #[tokio::test]
    async fn a_folder_goes_without_what_it_leaves_out() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("src/deep")).unwrap();
        for name in ["Dockerfile", "src/a", "src/deep/keep", "x.log"] {
            fs::write(at(name), "text").unwrap();
        }
        std::os::unix::fs::symlink("src/a", at("link")).unwrap();
        fs::write(
            at(".dockerignore"),
            "*.log\nsrc\n!src/deep/keep\nDockerfile\n",
        )
        .unwrap();
        let context = folder(dir.path().to_str().unwrap(), "").unwrap();
        let tar = bytes_of(context.upload).await;
        assert_eq!(
            names(&tar),
            [".dockerignore", "Dockerfile", "link", "src/deep/keep"]
        );
        assert_eq!(context.sent.load(Ordering::Relaxed), tar.len() as u64);
        let mut archive = tar::Archive::new(tar.as_slice());
        assert!(
            archive
                .entries()
                .unwrap()
                .all(|entry| entry.unwrap().header().uid().unwrap() == 0)
        );
    }

    #[tokio::test]
    async fn a_dockerfile_may_come_from_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let other = tempfile::NamedTempFile::new().unwrap();
        fs::write(other.path(), "FROM x\n").unwrap();
        let context = folder(dir.path().to_str().unwrap(), other.path().to_str().unwrap()).unwrap();
        assert_eq!(context.dockerfile, FROM_ELSEWHERE);
        assert_eq!(names(&bytes_of(context.upload).await), [FROM_ELSEWHERE]);
        let missing = folder(dir.path().to_str().unwrap(), "").unwrap_err();
        assert!(
            missing.text.starts_with(
                "unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat "
            ),
            "{}",
            missing.text
        );
        assert!(folder("/no/such", "").is_err());
    }

    #[test]
    fn archives_are_known_by_their_first_bytes() {
        assert!(is_archive(b"\x1f\x8b\x08abc"));
        assert!(!is_archive(b"FROM busybox\n"));
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert!(is_archive(&tar));
    }
}
