//! A bundle: the folder of one task in the state directory, and what it must hold so that the task is found again.
//!
//! ```text
//!  STATE/io.containerd.runtime.v2.task/NS/ID/        0700; making it is the intent to start a task
//!      config.json       the spec                    runtime reads it
//!      rootfs/           mount point                 shim mounts on it
//!      work -> ROOT/io.containerd.runtime.v2.task/NS/ID
//!      log               fifo, the shim's own log    copied to our standard error
//!      start             what went to the shim's standard input; locked while its `start` command runs
//!      bootstrap.json    where the shim listens      ours; written before Create is sent
//!      shim-binary-path  the shim's program          ours
//!      task.json         the init's pid              ours; written before Create is answered
//!      checkpoint/       what the init is restored from, if it is
//!      address           where the shim listens      the shim's own, all that older ones leave
//!      exit.json         how the init ended          our shim's own
//! ```
//!
//! A bundle ends by being renamed to `.ID` and then removed, so a half-removed one is never taken for a task. Files of ours
//! are written beside and renamed; no fsync, since the state directory ends with the boot. Sync and short: no call here
//! waits for another process.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind as IoKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use proto::layout;
use serde::{Deserialize, Serialize};

use super::answer::Answer;
use crate::mount;

/// Name of the file that keeps what went to the shim's standard input.
const START: &str = "start";

/// Name of the file that says that Create succeeded.
const TASK: &str = "task.json";
/// Name of the folder with the checkpoint that the task is restored from.
const CHECKPOINT: &str = "checkpoint";
/// Format of that file.
const VERSION: u32 = 1;

/// Content of `task.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Created {
    version: u32,
    pid: u32,
}

/// Why a bundle could not be made, read or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    /// A system call failed.
    #[error("{operation} {}", path.display())]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A folder of that name is there.
    #[error("bundle {} already exists", .0.display())]
    Exists(PathBuf),
}

fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> BundleError {
    let path = path.to_owned();
    move |source| BundleError::Io {
        operation,
        path,
        source,
    }
}

/// Where the bundles and work folders of all tasks are.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// Bundles, lost at reboot.
    pub(crate) state: PathBuf,
    /// Work folders, kept.
    pub(crate) work: PathBuf,
}

impl Places {
    /// The folders below containerd-lite's `state` and `root`.
    pub(crate) fn new(state: &Path, root: &Path) -> Self {
        Self {
            state: state.join(layout::TASK_FOLDER),
            work: root.join(layout::TASK_FOLDER),
        }
    }

    /// The bundle of one task, whether it exists or not. Both names must be valid identifiers.
    pub(crate) fn bundle(&self, namespace: &str, id: &str) -> Bundle {
        Bundle {
            path: self.state.join(namespace).join(id),
            work: self.work.join(namespace).join(id),
        }
    }

    /// All bundles on disk as (namespace, id). Remains of half-removed ones are removed on the way.
    pub(crate) fn list(&self) -> Result<Vec<(String, String)>, BundleError> {
        let mut found = Vec::new();
        for namespace in folders(&self.state)? {
            for id in folders(&self.state.join(&namespace))? {
                if id.starts_with('.') {
                    let path = self.state.join(&namespace).join(&id);
                    if let Err(error) = fs::remove_dir_all(&path) {
                        tracing::warn!(path = %path.display(), %error, "cannot remove the remains of a bundle");
                    }
                } else if proto::ids::validate(&id).is_ok() {
                    found.push((namespace.clone(), id));
                }
            }
        }
        Ok(found)
    }

    /// The bundles of one namespace.
    pub(crate) fn list_in(&self, namespace: &str) -> Result<Vec<String>, BundleError> {
        let mut ids = folders(&self.state.join(namespace))?;
        ids.retain(|id| proto::ids::validate(id).is_ok());
        Ok(ids)
    }

    /// Removes the work folders that no bundle links to.
    pub(crate) fn sweep_work(&self) -> Result<(), BundleError> {
        for namespace in folders(&self.work)? {
            for id in folders(&self.work.join(&namespace))? {
                if !self.state.join(&namespace).join(&id).exists() {
                    remove_tree(&self.work.join(&namespace).join(&id))?;
                }
            }
        }
        Ok(())
    }
}

/// Names of the folders in `path`, sorted; none if `path` is missing.
fn folders(path: &Path) -> Result<Vec<String>, BundleError> {
    let entries = match fs::read_dir(path) {
        Err(e) if e.kind() == IoKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(io("list", path))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io("list", path))?;
        if entry.file_type().is_ok_and(|t| t.is_dir())
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The bundle of one task.
#[derive(Debug, Clone)]
pub(crate) struct Bundle {
    path: PathBuf,
    work: PathBuf,
}

impl Bundle {
    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folder with `spec` in it. An error leaves nothing behind.
    pub(crate) fn create(&self, spec: &[u8]) -> Result<(), BundleError> {
        if let Some(namespace) = self.path.parent() {
            private_folders(namespace)?;
        }
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Err(e) if e.kind() == IoKind::AlreadyExists => {
                return Err(BundleError::Exists(self.path.clone()));
            }
            other => other.map_err(io("make", &self.path))?,
        }
        self.fill(spec).inspect_err(|_| {
            if let Err(error) = self.remove() {
                tracing::warn!(bundle = %self.path.display(), error = %crate::error::chain(&error), "cannot remove a bundle that could not be made");
            }
        })
    }

    fn fill(&self, spec: &[u8]) -> Result<(), BundleError> {
        let rootfs = self.path.join(layout::ROOTFS);
        DirBuilder::new()
            .mode(0o711)
            .create(&rootfs)
            .map_err(io("make", &rootfs))?;
        // The umask is 077, but users mapped below must be able to pass through.
        fs::set_permissions(&rootfs, std::os::unix::fs::PermissionsExt::from_mode(0o711))
            .map_err(io("set the mode of", &rootfs))?;
        private_folders(&self.work)?;
        let link = self.path.join(layout::WORK);
        std::os::unix::fs::symlink(&self.work, &link).map_err(io("link", &link))?;
        self.write(layout::CONFIG, spec)
    }

    /// Writes a file of ours so that it is there whole or not at all.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), BundleError> {
        let path = self.path.join(name);
        let new = self.path.join(format!(".{name}.new"));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .map_err(io("create", &new))?;
        file.write_all(bytes).map_err(io("write", &new))?;
        fs::rename(&new, &path).map_err(io("replace", &path))
    }

    /// Keeps the standard input of the shim's `start` command and opens it for that command, locked.
    ///
    /// The lock belongs to the open file, which only this process and the command hold: while it is taken, the command may
    /// still be about to start a shim, even when this process is gone.
    pub(crate) fn start_input(&self, input: &[u8]) -> Result<File, BundleError> {
        self.write(START, input)?;
        let path = self.path.join(START);
        let file = File::open(&path).map_err(io("open", &path))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|e| io("lock", &path)(e.into()))?;
        Ok(file)
    }

    /// Whether a `start` command of an earlier life of this program may still run.
    pub(crate) fn is_starting(&self) -> bool {
        File::open(self.path.join(START)).is_ok_and(|file| {
            rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared)
                == Err(rustix::io::Errno::WOULDBLOCK)
        })
    }

    /// Records what is needed to find the shim again.
    pub(crate) fn record_shim(&self, binary: &Path, answer: &Answer) -> Result<(), BundleError> {
        use std::os::unix::ffi::OsStrExt as _;
        self.write(layout::SHIM_BINARY, binary.as_os_str().as_bytes())?;
        self.record_answer(answer)
    }

    /// Records where the shim listens.
    pub(crate) fn record_answer(&self, answer: &Answer) -> Result<(), BundleError> {
        let json = serde_json::to_vec(answer).expect("an answer is plain JSON");
        self.write(layout::BOOTSTRAP, &json)
    }

    /// Records that the shim's Create succeeded.
    pub(crate) fn record_created(&self, pid: u32) -> Result<(), BundleError> {
        let version = VERSION;
        let json = serde_json::to_vec(&Created { version, pid }).expect("plain JSON");
        self.write(TASK, &json)
    }

    /// Moves the folder of a checkpoint into the bundle, from where the init is restored; where it is then.
    pub(crate) fn take_checkpoint(&self, folder: &Path) -> Result<PathBuf, BundleError> {
        let path = self.path.join(CHECKPOINT);
        fs::rename(folder, &path).map_err(io("move a checkpoint to", &path))?;
        Ok(path)
    }

    /// The init's pid, if Create succeeded.
    pub(crate) fn created(&self) -> Option<u32> {
        let bytes = self.read(TASK, 4096)?;
        let created: Created = serde_json::from_slice(&bytes).ok()?;
        Some(created.pid)
    }

    /// The shim's program, if it was recorded.
    pub(crate) fn shim_binary(&self) -> Option<PathBuf> {
        let path = fs::read_to_string(self.path.join(layout::SHIM_BINARY)).ok()?;
        let path = PathBuf::from(path.trim());
        path.is_absolute().then_some(path)
    }

    /// Where the shim listens: by our own record, else by the shim's.
    pub(crate) fn answer(&self) -> Option<Answer> {
        [layout::BOOTSTRAP, layout::ADDRESS]
            .iter()
            .filter_map(|name| fs::read(self.path.join(name)).ok())
            .find_map(|bytes| Answer::parse(&bytes).ok())
    }

    /// A file of the bundle, at most `limit` bytes of it; none if it is missing or unreadable.
    pub(crate) fn read(&self, name: &str, limit: u64) -> Option<Vec<u8>> {
        use std::io::Read as _;
        let mut bytes = Vec::new();
        File::open(self.path.join(name))
            .and_then(|file| file.take(limit).read_to_end(&mut bytes))
            .ok()?;
        Some(bytes)
    }

    /// Names of the files in the bundle; none if it cannot be listed.
    pub(crate) fn files(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.path) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    /// Makes the fifo for the shim's log and opens it for reading and writing, so that it neither ends nor blocks.
    pub(crate) fn open_log(&self) -> Result<tokio::net::unix::pipe::Receiver, BundleError> {
        let path = self.path.join(layout::LOG);
        match nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(e) => return Err(io("make fifo", &path)(e.into())),
        }
        tokio::net::unix::pipe::OpenOptions::new()
            .read_write(true)
            .open_receiver(&path)
            .map_err(io("open fifo", &path))
    }

    /// Detaches what is mounted on the rootfs and removes bundle and work folder. Fine if they are gone.
    pub(crate) fn remove(&self) -> Result<(), BundleError> {
        self.set_aside()?.remove()
    }

    /// The part of removal after which the name is free: unmounts, and moves the folders aside.
    ///
    /// The rootfs must be empty once nothing is mounted on it: what is not a mount of ours is never removed with the bundle.
    pub(crate) fn set_aside(&self) -> Result<Remains, BundleError> {
        let rootfs = self.path.join(layout::ROOTFS);
        mount::detach_all(&rootfs).map_err(io("unmount", &rootfs))?;
        match fs::remove_dir(&rootfs) {
            Err(e) if e.kind() != IoKind::NotFound => return Err(io("remove", &rootfs)(e)),
            _ => {}
        }
        let mut remains = Vec::new();
        for path in [&self.path, &self.work] {
            remains.extend(hide(path)?);
        }
        Ok(Remains(remains))
    }
}

/// Folders of a task that no longer has its name. Left alone they go at the next start.
#[derive(Debug)]
#[must_use]
pub(crate) struct Remains(Vec<PathBuf>);

impl Remains {
    /// Removes them.
    pub(crate) fn remove(self) -> Result<(), BundleError> {
        self.0.iter().try_for_each(|path| remove_tree(path))
    }
}

/// Moves a folder to a name that no task can have; none if there is no such folder.
fn hide(path: &Path) -> Result<Option<PathBuf>, BundleError> {
    let name = path.file_name().expect("a task's folder has a name");
    let hidden = path.with_file_name(format!(".{}", name.to_string_lossy()));
    // Remains of an earlier task of the name, which may be on their way out just now.
    remove_tree(&hidden)?;
    match fs::rename(path, &hidden) {
        Ok(()) => Ok(Some(hidden)),
        Err(e) if e.kind() == IoKind::NotFound => Ok(None),
        Err(e) => Err(io("move aside", path)(e)),
    }
}

fn remove_tree(path: &Path) -> Result<(), BundleError> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != IoKind::NotFound => Err(io("remove", path)(e)),
        _ => Ok(()),
    }
}

fn private_folders(path: &Path) -> Result<(), BundleError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(io("make", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(folder: &Path) -> Places {
        Places::new(&folder.join("state"), &folder.join("root"))
    }

    #[test]
    fn a_bundle_comes_and_goes_whole() {
        let folder = tempfile::tempdir().expect("folder");
        let places = places(folder.path());
        let bundle = places.bundle("ns", "a");
        bundle.create(b"{}").expect("create");
        assert!(matches!(bundle.create(b"{}"), Err(BundleError::Exists(_))));
        assert_eq!(
            places.list().expect("list"),
            [("ns".to_owned(), "a".to_owned())]
        );
        assert_eq!(bundle.read("config.json", 100), Some(b"{}".to_vec()));
        bundle.remove().expect("remove");
        bundle.remove().expect("remove again");
        assert!(places.list().expect("list").is_empty());
        assert!(!bundle.work.exists());
    }

    #[test]
    fn what_a_crash_left_of_a_removed_bundle_is_no_task() {
        let folder = tempfile::tempdir().expect("folder");
        let places = places(folder.path());
        let remains = places.state.join("ns/.a");
        fs::create_dir_all(&remains).expect("remains");
        assert!(places.list().expect("list").is_empty());
        assert!(!remains.exists());
    }

    #[test]
    fn a_filled_rootfs_is_not_removed() {
        let folder = tempfile::tempdir().expect("folder");
        let bundle = places(folder.path()).bundle("ns", "a");
        bundle.create(b"{}").expect("create");
        fs::write(bundle.path().join("rootfs/precious"), "x").expect("write");
        assert!(bundle.remove().is_err());
        assert!(bundle.path().join("rootfs/precious").exists());
    }

    #[test]
    fn the_shim_is_found_by_our_record_first() {
        let folder = tempfile::tempdir().expect("folder");
        let bundle = places(folder.path()).bundle("ns", "a");
        bundle.create(b"{}").expect("create");
        assert_eq!(bundle.answer(), None);
        fs::write(bundle.path().join("address"), "unix:///old").expect("write");
        assert_eq!(bundle.answer(), Some(Answer::bare("unix:///old")));
        bundle
            .record_shim(Path::new("/bin/shim"), &Answer::bare("unix:///new"))
            .expect("record");
        assert_eq!(bundle.answer(), Some(Answer::bare("unix:///new")));
        assert_eq!(bundle.shim_binary(), Some("/bin/shim".into()));
    }

    #[test]
    fn the_start_lock_lives_with_the_file() {
        let folder = tempfile::tempdir().expect("folder");
        let bundle = places(folder.path()).bundle("ns", "a");
        bundle.create(b"{}").expect("create");
        assert!(!bundle.is_starting());
        let input = bundle.start_input(b"x").expect("input");
        assert!(bundle.is_starting());
        drop(input);
        assert!(!bundle.is_starting());
    }
}
