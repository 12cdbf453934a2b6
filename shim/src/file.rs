//! Small state files: written whole or not at all. Sync; they live on tmpfs and are short.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A file of the bundle could not be used.
#[derive(Debug, thiserror::Error)]
#[error("{attempt} {}", path.display())]
pub(crate) struct FileError {
    attempt: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Replaces `path` by `content`, mode 0600: temporary file and rename. No fsync: the state directory dies with the boot.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let result = write_new(&temporary, content).and_then(|()| std::fs::rename(&temporary, path));
    result.map_err(|source| {
        // The error at hand matters more than a left temporary file.
        let _ = std::fs::remove_file(&temporary);
        FileError {
            attempt: "write",
            path: path.to_owned(),
            source,
        }
    })
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?
        .write_all(content)
}

/// Reads a file whole.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    std::fs::read(path).map_err(|source| FileError {
        attempt: "read",
        path: path.to_owned(),
        source,
    })
}

/// Reads a file that may be missing.
pub(crate) fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match read(path) {
        Err(e) if e.source.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Removes a file that may be missing; the shim can live with a file that stays.
pub(crate) fn remove(path: &Path) {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => crate::diag::warn(format_args!("remove {}: {e}", path.display())),
    }
}
