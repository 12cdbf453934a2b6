//! A full disk: the record database has a few blocks to give up, so that stop, kill and remove can still be recorded.
//!
//! A commit that finds the disk full is undone as a whole; the room must be there before it begins.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Size of the file that is given up when nothing else is left.
const RESERVE: u64 = 4 << 20;
/// Room that a transaction may need.
const NEED: u64 = 1 << 20;

/// A file whose only use is that it can be removed.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    folder: Option<File>,
    held: bool,
}

impl Reserve {
    /// Beside `path`, made if there is room.
    pub(crate) fn beside(path: &Path) -> Self {
        let mut reserve = Self {
            path: path.with_file_name("reserve"),
            folder: path.parent().and_then(|folder| File::open(folder).ok()),
            held: false,
        };
        // What a former daemon held is held again: it is measured by what is on the disk.
        reserve.held = reserve.path.exists();
        reserve.settle();
        reserve
    }

    /// Gives the blocks back when the disk is full, and takes them again when there is plenty of room.
    pub(crate) fn settle(&mut self) {
        let Some(free) = self.free() else { return };
        if free < NEED {
            self.release();
        } else if !self.held && free > 4 * RESERVE {
            // Not every file system can set blocks aside; without them a full disk is only less comfortable.
            self.held = self.make().is_ok();
        }
    }

    /// Whether there is so little room that nothing new may be recorded: what is left is for stopping and removing.
    pub(crate) fn scarce(&self) -> bool {
        !self.held && self.free().is_some_and(|free| free < RESERVE + NEED)
    }

    /// Gives the blocks back; whether there were any.
    pub(crate) fn release(&mut self) -> bool {
        if !self.held {
            return false;
        }
        tracing::warn!("the disk is full: removing {}", self.path.display());
        match std::fs::remove_file(&self.path) {
            Ok(()) => {
                self.held = false;
                true
            }
            Err(error) => {
                tracing::error!("remove {}: {error}", self.path.display());
                false
            }
        }
    }

    /// Bytes that a process like ours may still take.
    fn free(&self) -> Option<u64> {
        let stat = rustix::fs::fstatvfs(self.folder.as_ref()?).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn make(&self) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.path)?;
        let set_aside =
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, RESERVE);
        if let Err(error) = set_aside {
            // A part of it helps nobody.
            let _ = std::fs::remove_file(&self.path);
            return Err(error.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_made_given_up_and_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::beside(&folder.path().join("records.db"));
        let file = folder.path().join("reserve");
        if !file.exists() {
            // A file system that is full, or cannot set blocks aside.
            return;
        }
        assert!(!reserve.scarce());
        assert!(reserve.release() && !file.exists());
        assert!(!reserve.release());
        reserve.settle();
        assert!(file.exists());
        assert!(Reserve::beside(&folder.path().join("records.db")).held);
    }
}
