//! A full disk: what brings bytes in stops before the last blocks are taken, so that what frees space still works.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Written bytes between two looks at the disk; as many stay free at least.
const LOOK: u64 = 16 << 20;
/// Size of the file that is given up when nothing else is left.
const RESERVE: u64 = 4 << 20;
/// Room that a batch of the database's jobs may need.
const NEED: u64 = 1 << 20;

/// Bytes that a process like ours may still take, and all bytes of the file system.
fn space(fd: impl AsFd) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstatvfs(fd)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok((bytes(stat.f_bavail), bytes(stat.f_blocks)))
}

/// Looks at the free space now and then while something is written.
#[derive(Debug)]
pub(crate) struct Meter {
    unlooked: u64,
    look: u64,
}

impl Meter {
    /// Looks with the first byte.
    pub(crate) fn new() -> Self {
        Self {
            unlooked: LOOK,
            look: LOOK,
        }
    }

    /// `bytes` are about to be written on the file system of `fd`. StorageFull if that would leave too little.
    pub(crate) fn take(&mut self, fd: impl AsFd, bytes: u64) -> io::Result<()> {
        self.unlooked = self.unlooked.saturating_add(bytes);
        if self.unlooked < self.look {
            return Ok(());
        }
        self.unlooked = 0;
        let (free, all) = space(fd)?;
        // On a small disk a part of it, so that small things still go there.
        self.look = LOOK.min(all / 64).max(1 << 16);
        if free < 2 * self.look {
            let text = format!("only {free} bytes are left on the disk");
            return Err(io::Error::new(io::ErrorKind::StorageFull, text));
        }
        Ok(())
    }
}

/// A file whose only use is that it can be removed: the database needs some blocks to record a deletion.
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
        reserve.settle();
        reserve
    }

    /// Gives the blocks back when the disk is full, and takes them again when there is plenty of room. Answers whether
    /// the disk was full: somebody else may take what was given back at once.
    pub(crate) fn settle(&mut self) -> bool {
        let space = self.folder.as_ref().and_then(|f| space(f).ok());
        let Some((free, _)) = space else { return false };
        if self.held && free < NEED {
            self.release();
        } else if !self.held && free > 4 * RESERVE {
            // Not every file system can set blocks aside; without them a full disk is only less comfortable.
            self.held = self.make().is_ok();
        }
        free < NEED
    }

    fn release(&mut self) {
        tracing::warn!("the disk is full: removing {}", self.path.display());
        match std::fs::remove_file(&self.path) {
            Ok(()) => self.held = false,
            Err(error) => tracing::error!("remove {}: {error}", self.path.display()),
        }
    }

    fn make(&self) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.path)?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, RESERVE)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_made_given_up_and_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::beside(&folder.path().join("m.db"));
        let file = folder.path().join("reserve");
        if !file.exists() {
            return;
        }
        reserve.release();
        assert!(!file.exists() && !reserve.held);
        reserve.settle();
        assert!(file.exists());
    }

    #[test]
    fn the_meter_looks_before_it_says_yes() {
        let file = tempfile::tempfile().unwrap();
        let mut meter = Meter::new();
        let (free, all) = space(&file).unwrap();
        let plenty = free > LOOK.min(all / 64).max(1 << 16) * 4;
        assert_eq!(meter.take(&file, 1).is_ok(), plenty);
    }
}
