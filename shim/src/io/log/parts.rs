//! The older parts of a log: their names, and their compression.
//!
//! ```text
//!  PATH           is written
//!  PATH.1         was, before; PATH.1.gz instead once a thread beside the log has compressed it
//!  PATH.2 ...     still older; the last one goes when there would be more than `max-file` in all
//!  PATH.gz.new    is being compressed; what a kill leaves of it is begun anew
//! ```
//!
//! A part is there under one of its two names at any moment, for a moment under both. A compressed one states in its header
//! whose bytes it holds ([`layout::log_part`]), so that a reader that follows the log knows a part that it has read.
//!
//! One thread compresses, one part after another, so that nobody waits for it; names change under one lock only. It has
//! ended when the log is dropped: nothing is made anew in a folder that is being removed.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use flate2::{Compression, GzBuilder};
use proto::layout;

use crate::{diag, sys};

/// Stack of the compressing thread.
const STACK: usize = 256 * 1024;
/// Bytes compressed between two looks at whether the log is still there.
const CHUNK: usize = 64 * 1024;

/// What tells a part from all others.
type Identity = (u64, u64, u64);

/// The parts of one log.
#[derive(Debug)]
pub(super) struct Parts {
    shared: Arc<Shared>,
    compress: bool,
    thread: Option<JoinHandle<()>>,
}

/// What the thread needs.
#[derive(Debug)]
struct Shared {
    path: PathBuf,
    max_files: u32,
    /// Held while names change; whether the thread runs.
    running: Mutex<bool>,
    /// The log is no longer written.
    over: AtomicBool,
}

impl Parts {
    /// The parts of the log at `path`; compresses what an earlier life left to be compressed.
    pub(super) fn of(path: &Path, max_files: u32, compress: bool) -> Self {
        let shared = Shared {
            path: path.to_owned(),
            max_files,
            running: Mutex::new(false),
            over: AtomicBool::new(false),
        };
        let mut parts = Self {
            shared: Arc::new(shared),
            compress,
            thread: None,
        };
        parts.tidy();
        parts
    }

    /// Makes room at `PATH`, which becomes the newest of the older parts. False if there are none: then `PATH` stays.
    pub(super) fn shift(&mut self) -> io::Result<bool> {
        if self.shared.max_files <= 1 {
            return Ok(false);
        }
        let done = self.shared.shift();
        self.tidy();
        done.map(|()| true)
    }

    /// Has the thread compress what is not, if that is wanted.
    fn tidy(&mut self) {
        if !self.compress || self.shared.oldest_plain().is_none() {
            return;
        }
        let mut running = self.shared.names();
        if *running {
            return;
        }
        let shared = self.shared.clone();
        let builder = std::thread::Builder::new()
            .name("compress".to_owned())
            .stack_size(STACK);
        match builder.spawn(move || shared.work()) {
            // An earlier one has ended: it said so under the lock, last.
            Ok(thread) => (self.thread, *running) = (Some(thread), true),
            Err(error) => diag::warn(format_args!(
                "compress log {}: start a thread: {error}",
                self.shared.path.display()
            )),
        }
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            diag::warn(format_args!(
                "compress log {}: the thread has panicked",
                self.shared.path.display()
            ));
        }
    }
}

impl Shared {
    fn names(&self) -> MutexGuard<'_, bool> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn numbered(&self, n: u32, ending: &str) -> PathBuf {
        let mut path = self.path.as_os_str().to_owned();
        path.push(format!(".{n}{ending}"));
        path.into()
    }

    fn shift(&self) -> io::Result<()> {
        let _names = self.names();
        let last = self.max_files - 1;
        let both = |n: u32| ["", ".gz"].map(|ending| self.numbered(n, ending));
        // A kill between two renames leaves a gap; it is filled first, since readers take it for the end.
        let free = (1..last).find(|n| !both(*n).iter().any(|path| path.exists()));
        let free = free.unwrap_or(last);
        for path in both(free) {
            gone(std::fs::remove_file(path))?;
        }
        for n in (1..free).rev() {
            for (from, to) in both(n).iter().zip(both(n + 1)) {
                gone(std::fs::rename(from, to))?;
            }
        }
        gone(std::fs::rename(&self.path, self.numbered(1, "")))
    }

    /// The number of the oldest part that is not compressed.
    fn oldest_plain(&self) -> Option<u32> {
        (1..self.max_files)
            .rev()
            .find(|n| self.numbered(*n, "").exists())
    }

    /// Compresses until nothing is left to be.
    fn work(&self) {
        loop {
            let source = {
                let mut running = self.names();
                let wanted = self
                    .oldest_plain()
                    .filter(|_| !self.over.load(Ordering::Relaxed));
                match wanted.map(|n| open_part(&self.numbered(n, ""))) {
                    Some(Ok(source)) => source,
                    Some(Err(error)) => return self.give_up(&mut running, &error),
                    None => {
                        *running = false;
                        break;
                    }
                }
            };
            if let Err(error) = self.compress(source) {
                return self.give_up(&mut self.names(), &error);
            }
        }
        sys::settle();
    }

    /// The next rotation tries again.
    fn give_up(&self, running: &mut bool, error: &io::Error) {
        *running = false;
        if error.kind() != io::ErrorKind::Interrupted {
            diag::warn(format_args!(
                "compress log {}: {error}",
                self.path.display()
            ));
        }
    }

    fn compress(&self, mut source: File) -> io::Result<()> {
        let mut new = self.path.as_os_str().to_owned();
        new.push(".gz.new");
        let new = PathBuf::from(new);
        let identity = layout::log_part_of(&source.metadata()?);
        let copied = self.copy(&mut source, &new, identity);
        let named = copied.and_then(|()| self.replace(&new, identity));
        if named.is_err() {
            gone(std::fs::remove_file(&new))?;
        }
        named
    }

    fn copy(&self, source: &mut File, new: &Path, identity: Identity) -> io::Result<()> {
        let target = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o640)
            .custom_flags(libc::O_NOFOLLOW)
            .open(new)?;
        let mut encoder = GzBuilder::new()
            .comment(layout::log_part(identity))
            .write(target, Compression::fast());
        let mut chunk = vec![0; CHUNK];
        loop {
            if self.over.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            match source.read(&mut chunk)? {
                // The plain part goes: a power cut must not find neither.
                0 => return encoder.finish()?.sync_data(),
                n => encoder.write_all(&chunk[..n])?,
            }
        }
    }

    /// Puts the compressed part where the plain one is by now; it may have gone meanwhile.
    fn replace(&self, new: &Path, identity: Identity) -> io::Result<()> {
        let _names = self.names();
        let is_it = |path: &Path| {
            let found = std::fs::symlink_metadata(path);
            found.is_ok_and(|found| layout::log_part_of(&found) == identity)
        };
        let mut numbers = 1..self.max_files;
        let Some(n) = numbers.find(|n| is_it(&self.numbered(*n, ""))) else {
            return std::fs::remove_file(new);
        };
        std::fs::rename(new, self.numbered(n, ".gz"))?;
        std::fs::remove_file(self.numbered(n, ""))
    }
}

fn open_part(path: &Path) -> io::Result<File> {
    std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

/// Takes what is not there for done.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
