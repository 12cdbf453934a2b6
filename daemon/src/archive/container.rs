//! Paths of a container: which root they are in, what may be written there, and how they are shown.
//!
//! A path below a mount of a container that does not run is looked up in the mount's source; one that runs has its mounts
//! in its root. A container that starts while a stopped one's root is written to sees the files sooner or later; nothing of
//! the host is at risk, for every step is bounded by the root that was opened.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use proto::containerd::services::snapshots::v1::MountsRequest;
use proto::containerd::types;
use proto::error::ErrorKind;
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use serde::Serialize;

use super::root::Root;
use crate::App;
use crate::backend::{QUICK, within};
use crate::container::Record;
use crate::error::{During, Error, Result};
use crate::volumes::blocking;
use crate::volumes::request::{Mount, Source, clean};

/// A path of a container, ready to be used.
#[derive(Debug)]
pub(crate) struct Place {
    /// The root it is in.
    pub(crate) root: Root,
    /// The path within that root; keeps a trailing slash or dot.
    pub(crate) path: PathBuf,
    /// The path as the user wrote it.
    pub(crate) given: String,
    /// The container, for messages.
    pub(crate) container: String,
    /// Why nothing may be written there.
    pub(crate) read_only: Option<&'static str>,
}

/// The snapshot's mounts of a container.
pub(crate) async fn snapshot(app: &App, record: &Record) -> Result<Vec<types::Mount>> {
    let request = MountsRequest {
        snapshotter: record.snapshotter.clone(),
        key: record.id.clone(),
    };
    let reply = within(QUICK, app.backend.snapshots().mounts(request))
        .await
        .during(|| format!("get the mounts of container {}", record.id))?;
    Ok(reply.mounts)
}

/// Opens the root of a container's own files, without its mounts if it does not run.
pub(crate) async fn root(app: &App, record: &Record) -> Result<Root> {
    if let Some(running) = record.state.running() {
        let pid = running.pid;
        return blocking(move || Root::of_process(pid)).await;
    }
    let mounts = snapshot(app, record).await?;
    blocking(move || Root::of_snapshot(&mounts)).await
}

impl Place {
    /// Looks up a path of the container that `reference` means.
    pub(crate) async fn open(app: &App, reference: &str, path: &str) -> Result<Self> {
        if path.is_empty() {
            return Err(Error::invalid("bad parameter: 'path' cannot be empty"));
        }
        if path.contains('\0') {
            return Err(Error::invalid("bad parameter: 'path' holds a zero byte"));
        }
        let record = app.containers.find(reference)?.record();
        let below = mount_above(&record.mounts, path);
        let read_only = match below {
            Some(mount) if mount.read_only => Some("mounted volume is marked read-only"),
            None if record.host.readonly_rootfs => Some("container rootfs is marked read-only"),
            _ => None,
        };
        let tail = trailing(path);
        let place = |root, inner: &str| Self {
            root,
            path: PathBuf::from(format!("{}{tail}", inner.trim_end_matches('/'))),
            given: path.to_owned(),
            container: reference.to_owned(),
            read_only,
        };
        let source = match below {
            Some(mount) if record.state.running().is_none() => source(app, mount),
            _ => None,
        };
        match (source, below) {
            (Some(directory), Some(mount)) => {
                let absolute = clean(path);
                let inner = absolute.strip_prefix(&mount.destination).unwrap_or("");
                let root = blocking(move || Root::of_directory(&directory)).await?;
                Ok(place(root, &format!("/{inner}")))
            }
            _ => {
                let root = root(app, &record).await?;
                Ok(place(
                    root,
                    &format!("/{}", path.trim_start_matches('/').trim_end_matches('.')),
                ))
            }
        }
    }

    /// The error for a path that is not there, or for any other failure to reach it.
    pub(crate) fn error(&self, errno: Errno) -> Error {
        match errno {
            Errno::NOENT => Error::not_found(format!(
                "Could not find the file {} in container {}",
                self.given, self.container
            )),
            Errno::NOTDIR => Error::new(
                ErrorKind::InvalidArgument,
                format!("{}: not a directory", self.given),
            ),
            other => Error::from(other).during(format!(
                "open {} in container {}",
                self.given, self.container
            )),
        }
    }

    /// The last part of the path, as archives made of it begin with.
    pub(crate) fn base(&self) -> PathBuf {
        let text = self.given.trim_end_matches('/');
        match text.rsplit('/').next().unwrap_or("") {
            "" => PathBuf::from("/"),
            base => PathBuf::from(base),
        }
    }

    /// What the header `X-Docker-Container-Path-Stat` says. Blocking.
    pub(crate) fn stat(&self) -> Result<String> {
        let status = self.root.status(&self.path).map_err(|e| self.error(e))?;
        let kind = FileType::from_raw_mode(status.st_mode);
        let link_target = match kind {
            FileType::Symlink => {
                let target = self.root.follow(&self.path).map_err(|e| self.error(e))?;
                target.to_string_lossy().into_owned()
            }
            _ => String::new(),
        };
        let stat = PathStat {
            name: self.base().to_string_lossy().into_owned(),
            size: status.st_size,
            mode: go_mode(&status),
            mtime: time_text(&status),
            link_target,
        };
        let json = serde_json::to_vec(&stat)
            .map_err(|e| Error::internal(format!("encode the status of {}: {e}", self.given)))?;
        Ok(base64::engine::general_purpose::STANDARD.encode(json))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PathStat {
    name: String,
    size: i64,
    mode: u32,
    mtime: String,
    link_target: String,
}

/// The mount that a path is in: the one with the longest destination.
fn mount_above<'a>(mounts: &'a [Mount], path: &str) -> Option<&'a Mount> {
    let path = clean(path);
    let holds = |mount: &&Mount| {
        path.strip_prefix(&mount.destination)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    mounts
        .iter()
        .filter(holds)
        .max_by_key(|mount| mount.destination.len())
}

/// The directory behind a mount; none for memory, which a container that does not run does not have.
fn source(app: &App, mount: &Mount) -> Option<PathBuf> {
    match &mount.source {
        Source::Bind { path, .. } => Some(PathBuf::from(path)).filter(|path| path.is_dir()),
        Source::Volume { name, subpath, .. } if subpath.is_empty() => Some(app.volumes.data(name)),
        _ => None,
    }
}

/// What a path ends in that changes its meaning: `/` or `/.` follow a link at its end.
fn trailing(path: &str) -> &'static str {
    match path {
        path if path.ends_with("/.") || path == "." => "/.",
        path if path.ends_with('/') => "/",
        _ => "",
    }
}

/// A mode as Go's os.FileMode has it.
fn go_mode(status: &Stat) -> u32 {
    let mode = status.st_mode;
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        _ => 0,
    };
    let bit = |unix: u32, go: u32| if mode & unix != 0 { 1 << go } else { 0 };
    kind | mode & 0o777 | bit(0o4000, 23) | bit(0o2000, 22) | bit(0o1000, 20)
}

fn time_text(status: &Stat) -> String {
    let nanos = i128::from(status.st_mtime) * 1_000_000_000 + i128::from(status.st_mtime_nsec);
    time::OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .and_then(|t| {
            t.format(&time::format_description::well_known::Rfc3339)
                .ok()
        })
        .unwrap_or_else(|| "0001-01-01T00:00:00Z".into())
}

/// Whether a path exists in a root, not following a link at its end.
pub(super) fn exists(root: &Root, path: &Path) -> Result<bool, Errno> {
    match root.status(path) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(destination: &str) -> Mount {
        Mount {
            destination: destination.into(),
            read_only: false,
            mode: String::new(),
            source: Source::Tmpfs {
                options: Vec::new(),
                listed: true,
            },
        }
    }

    #[test]
    fn a_path_is_in_the_deepest_mount() {
        let mounts = [mount("/a"), mount("/a/b")];
        let above = |path| mount_above(&mounts, path).map(|m| m.destination.as_str());
        assert_eq!(above("/a/b/c"), Some("/a/b"));
        assert_eq!(above("/a/bc"), Some("/a"));
        assert_eq!(above("/a/x/../b/"), Some("/a/b"));
        assert_eq!(above("/ab"), None);
    }

    #[test]
    fn modes_are_go_modes() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::of_directory(dir.path()).unwrap();
        std::os::unix::fs::symlink("x", dir.path().join("l")).unwrap();
        let mode = |path| go_mode(&root.status(Path::new(path)).unwrap());
        assert_eq!(mode("/") >> 31, 1);
        assert_eq!(mode("/l"), 1 << 27 | 0o777);
        assert_eq!(trailing("/a/."), "/.");
        assert_eq!(trailing("/a/"), "/");
        assert_eq!(trailing("/a"), "");
    }
}
