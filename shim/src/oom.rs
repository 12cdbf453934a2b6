//! Word from the kernel that a container ran out of memory: version 1 by an eventfd on `memory.oom_control`, version 2 by
//! watching `memory.events`. Async.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::EventfdFlags;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

use crate::cgroup::{Cgroup, keyed};
use crate::sys;

/// A running watch.
#[derive(Debug)]
pub(crate) enum Watch {
    V1 {
        event: AsyncFd<OwnedFd>,
        folder: PathBuf,
    },
    V2 {
        changes: AsyncFd<OwnedFd>,
        events: PathBuf,
        kills: u64,
    },
}

impl Watch {
    /// Watches the container's groups; none if it has no memory controller.
    pub(crate) fn new(cgroup: &Cgroup) -> io::Result<Option<Self>> {
        if let Some(folder) = cgroup.controller("memory") {
            return Self::v1(folder).map(Some);
        }
        match &cgroup.v2 {
            Some(folder) => Self::v2(folder).map(Some),
            None => Ok(None),
        }
    }

    fn v1(folder: &Path) -> io::Result<Self> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let control = File::open(folder.join("memory.oom_control"))?;
        let order = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
        std::fs::write(folder.join("cgroup.event_control"), order)?;
        Ok(Self::V1 {
            event: sys::watch(event)?,
            folder: folder.to_owned(),
        })
    }

    fn v2(folder: &Path) -> io::Result<Self> {
        let changes =
            inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let events = folder.join("memory.events");
        inotify::add_watch(&changes, &events, inotify::WatchFlags::MODIFY)?;
        Ok(Self::V2 {
            changes: sys::watch(changes)?,
            kills: keyed(&events, "oom_kill").unwrap_or(0),
            events,
        })
    }

    /// Waits for the next time; false when the group is gone.
    pub(crate) async fn next(&mut self) -> bool {
        match self {
            Self::V1 { event, folder } => {
                // The removal of the group is told in the same way.
                consume(event).await && folder.join("cgroup.event_control").exists()
            }
            Self::V2 {
                changes,
                events,
                kills,
            } => loop {
                if !consume(changes).await {
                    return false;
                }
                let Some(now) = keyed(events, "oom_kill") else {
                    return false;
                };
                if now > *kills {
                    *kills = now;
                    return true;
                }
            },
        }
    }
}

async fn consume(fd: &AsyncFd<OwnedFd>) -> bool {
    let mut buffer = [0; 4096];
    loop {
        let Ok(mut guard) = fd.readable().await else {
            return false;
        };
        match guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut buffer)?)) {
            Ok(Ok(_)) => return true,
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(_)) => return false,
            Err(_would_block) => {}
        }
    }
}
