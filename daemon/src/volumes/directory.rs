//! Directories of the host: made, measured, swept. Blocking.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::error::{During, Error, Result};

/// How the names of directories begin that are being removed.
pub(super) const REMOVING: &str = ".removing-";

/// Runs blocking work on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal(format!("blocking work ended early: {e}")))?
}

/// Makes a directory, and those above it.
pub(super) fn make_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(path)
        .during(|| format!("make {}", path.display()))
}

/// Sets the permission bits.
pub(crate) fn set_mode(path: &Path, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Removes what a removal that was cut short has left.
pub(super) fn sweep(root: &Path) -> Result<()> {
    for entry in fs::read_dir(root).during(|| format!("read {}", root.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(REMOVING) {
            fs::remove_dir_all(entry.path())
                .during(|| format!("remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// Bytes below a directory. Links are not followed; files that vanish meanwhile count nothing.
pub(super) fn disk_usage(root: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    let mut seen = std::collections::HashSet::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                todo.push(entry.path());
            }
            if meta.nlink() < 2 || meta.is_dir() || seen.insert((meta.dev(), meta.ino())) {
                sum += meta.blocks() * 512;
            }
        }
    }
    Ok(sum)
}
