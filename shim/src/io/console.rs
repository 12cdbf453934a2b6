//! The tty of a process: the runtime makes it and sends the master through a socket that the shim names. Async.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};

/// Longest wait for the runtime to send the master.
const LIMIT: Duration = Duration::from_secs(30);

/// A socket for one master, gone on drop.
#[derive(Debug)]
pub(crate) struct ConsoleSocket {
    listener: UnixListener,
    /// Keeps the short path valid.
    _bundle: File,
    file: PathBuf,
    path: PathBuf,
}

impl ConsoleSocket {
    /// Listens in `bundle`. Its path may be longer than a socket's may be, so it is named through our descriptor of it.
    pub(crate) fn listen(bundle: &Path, name: &str) -> io::Result<Self> {
        let folder = File::open(bundle)?;
        let file_name = format!("pty-{name}.sock");
        let file = bundle.join(&file_name);
        crate::file::remove(&file);
        let path = PathBuf::from(format!(
            "/proc/{}/fd/{}/{file_name}",
            std::process::id(),
            folder.as_raw_fd()
        ));
        let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
        let listener = UnixListener::bind(&path);
        rustix::process::umask(before);
        Ok(Self {
            listener: listener?,
            _bundle: folder,
            file,
            path,
        })
    }

    /// What the runtime is told.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The master, once the runtime has sent it.
    pub(crate) async fn master(&self) -> io::Result<OwnedFd> {
        let receive = async {
            let (stream, _) = self.listener.accept().await?;
            loop {
                stream.readable().await?;
                match stream.try_io(Interest::READABLE, || receive_fd(&stream)) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    other => return other,
                }
            }
        };
        tokio::time::timeout(LIMIT, receive)
            .await
            .unwrap_or_else(|_| {
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the runtime did not send a terminal",
                ))
            })
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        crate::file::remove(&self.file);
    }
}

fn receive_fd(stream: &UnixStream) -> io::Result<OwnedFd> {
    let mut name = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    rustix::net::recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut name)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message
            && let Some(fd) = fds.next()
        {
            return Ok(fd);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "the runtime sent no terminal",
    ))
}
