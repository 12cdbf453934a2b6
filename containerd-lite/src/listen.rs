//! What the daemon holds exclusively: its directories, by a lock, and its sockets. A lock or socket of another daemon is
//! never taken over; one that a killed daemon left is.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::config::Config;
use crate::upgrade::handover::Handover;

/// First descriptor that a manager hands over.
const FIRST_HANDED: i32 = 3;

/// Why a lock or a socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// Another daemon holds the directory.
    #[error("directory {path} is in use by another daemon{holder}")]
    DirectoryInUse {
        /// Which one.
        path: PathBuf,
        /// " (pid N)" if it said so.
        holder: String,
    },
    /// The lock cannot be had for another reason.
    #[error("lock {path}")]
    Lock {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another daemon serves the socket.
    #[error("socket {path} is served by another daemon")]
    SocketInUse {
        /// Which one.
        path: PathBuf,
    },
    /// Something else than a socket is there.
    #[error("{path} exists and is no socket")]
    NoSocket {
        /// Which one.
        path: PathBuf,
    },
    /// The socket cannot be made.
    #[error("listen on {path}")]
    Bind {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A descriptor in LISTEN_FDS is not usable.
    #[error("take descriptor {fd} of LISTEN_FDS")]
    Handed {
        /// Which one.
        fd: i32,
        /// Why.
        source: io::Error,
    },
}

/// Makes a private directory with its parents; one that exists keeps its mode.
pub(crate) fn directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Takes the directory for this process.
pub(crate) fn lock(directory: &Path) -> Result<Flock<File>, ListenError> {
    let path = directory.join("lock");
    let failed = |source: io::Error| ListenError::Lock {
        path: path.clone(),
        source,
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut held) => {
            held.set_len(0)
                .and_then(|()| writeln!(held, "{}", std::process::id()))
                .map_err(failed)?;
            Ok(held)
        }
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(ListenError::DirectoryInUse {
            path: directory.to_owned(),
            holder: std::fs::read_to_string(&path)
                .ok()
                .filter(|pid| !pid.trim().is_empty())
                .map_or(String::new(), |pid| format!(" (pid {})", pid.trim())),
        }),
        Err((_, errno)) => Err(failed(errno.into())),
    }
}

/// Takes the directory again by the lock that the program before this one in our process held.
pub(crate) fn keep_lock(directory: &Path, lock: OwnedFd) -> Result<Flock<File>, ListenError> {
    let failed = |source| ListenError::Lock {
        path: directory.join("lock"),
        source,
    };
    Flock::lock(File::from(lock), FlockArg::LockExclusiveNonblock)
        .map_err(|(_, errno)| failed(errno.into()))
}

/// The sockets we serve.
#[derive(Debug)]
pub(crate) struct Listeners {
    grpc: UnixListener,
    /// Events of shims over ttrpc.
    pub(crate) ttrpc: UnixListener,
}

impl Listeners {
    /// The sockets that the program before this one in our process served.
    pub(crate) fn keep(grpc: OwnedFd, ttrpc: OwnedFd) -> Self {
        Self {
            grpc: grpc.into(),
            ttrpc: ttrpc.into(),
        }
    }

    /// Takes the sockets that were handed over (gRPC first, ttrpc second), and makes the others.
    pub(crate) fn open(config: &Config) -> Result<Self, ListenError> {
        let mut handed = handed()?.into_iter();
        let mut next = |path: &Path, owner: (u32, u32)| match handed.next() {
            Some(listener) => Ok(listener),
            None => bind(path, owner),
        };
        Ok(Self {
            grpc: next(&config.address, config.owner)?,
            ttrpc: next(&config.ttrpc_address, config.ttrpc_owner)?,
        })
    }

    /// What the next program of this process needs, beside the locks.
    pub(crate) fn handover(
        &self,
        root_lock: &Flock<File>,
        state_lock: &Flock<File>,
    ) -> io::Result<Handover> {
        Ok(Handover {
            grpc: self.grpc.try_clone()?.into(),
            ttrpc: self.ttrpc.try_clone()?.into(),
            root_lock: root_lock.try_clone()?.into(),
            state_lock: state_lock.try_clone()?.into(),
            old: None,
            refused: None,
        })
    }

    /// Connections of gRPC clients.
    pub(crate) fn grpc_stream(
        self,
    ) -> Result<(tokio_stream::wrappers::UnixListenerStream, UnixListener), ListenError> {
        let failed = |source| ListenError::Handed {
            fd: FIRST_HANDED,
            source,
        };
        self.grpc.set_nonblocking(true).map_err(failed)?;
        let listener = tokio::net::UnixListener::from_std(self.grpc).map_err(failed)?;
        Ok((
            tokio_stream::wrappers::UnixListenerStream::new(listener),
            self.ttrpc,
        ))
    }
}

/// Listens on `path`, mode 0660. A socket that answers belongs to somebody; one that refuses is a leftover.
pub(crate) fn bind(path: &Path, (uid, gid): (u32, u32)) -> Result<UnixListener, ListenError> {
    use std::os::unix::fs::FileTypeExt as _;
    let failed = |source| ListenError::Bind {
        path: path.to_owned(),
        source,
    };
    if let Some(parent) = path.parent() {
        directory(parent).map_err(failed)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(ListenError::NoSocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(failed)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
            Ok(_) => {
                return Err(ListenError::SocketInUse {
                    path: path.to_owned(),
                });
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    // The umask is 077, so nobody can connect before the mode is widened.
    let listener = UnixListener::bind(path).map_err(failed)?;
    if (uid, gid) != (0, 0) {
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).map_err(failed)?;
    }
    std::fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(failed)?;
    Ok(listener)
}

/// Whether the peer is our own user or root.
pub(crate) fn is_trusted(stream: &tokio::net::UnixStream) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

/// The sockets in LISTEN_FDS, if they are meant for this process.
fn handed() -> Result<Vec<UnixListener>, ListenError> {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<i32>().ok());
    if number("LISTEN_PID").and_then(|p| u32::try_from(p).ok()) != Some(std::process::id()) {
        return Ok(Vec::new());
    }
    let count = number("LISTEN_FDS").unwrap_or(0).clamp(0, 16);
    (FIRST_HANDED..FIRST_HANDED + count)
        .map(|fd| {
            take_listener(fd)
                .map(UnixListener::from)
                .map_err(|source| ListenError::Handed { fd, source })
        })
        .collect()
}

/// Takes a descriptor by number. A copy is made through our own pidfd, close-on-exec, and the number is closed: shims must
/// not inherit it.
pub(crate) fn take(fd: i32) -> io::Result<OwnedFd> {
    let own = rustix::process::pidfd_open(
        rustix::process::getpid(),
        rustix::process::PidfdFlags::empty(),
    )?;
    let copy = rustix::process::pidfd_getfd(&own, fd, rustix::process::PidfdGetfdFlags::empty())?;
    nix::unistd::close(fd)?;
    Ok(copy)
}

/// Takes a listening socket by number.
fn take_listener(fd: i32) -> io::Result<OwnedFd> {
    let copy = take(fd)?;
    let listening: bool =
        nix::sys::socket::getsockopt(&copy, nix::sys::socket::sockopt::AcceptConn)?;
    if !listening {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a listening socket",
        ));
    }
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_socket_and_a_held_directory_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let first = bind(&path, (0, 0)).unwrap();
        assert!(matches!(
            bind(&path, (0, 0)),
            Err(ListenError::SocketInUse { .. })
        ));
        drop(first);
        bind(&path, (0, 0)).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "x").unwrap();
        assert!(matches!(
            bind(&path, (0, 0)),
            Err(ListenError::NoSocket { .. })
        ));

        let held = lock(dir.path()).unwrap();
        let error = lock(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("(pid {})", std::process::id())),
            "{error}"
        );
        drop(held);
        lock(dir.path()).unwrap();
    }
}
