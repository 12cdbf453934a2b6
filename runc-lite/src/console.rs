//! The terminal of a container's process.
//!
//! The child opens a pseudo terminal in the container's own devpts, so that its
//! name is right inside, sends the master side to whoever holds the console
//! socket, and takes the slave as its standard streams. The slave is reached from
//! the master by ioctl, never by its name, which the container could have
//! replaced.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, fstatfs, makedev, openat2};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::error::{Doing as _, StepError};
use crate::rootfs::path;
use crate::spec::ConsoleSize;

/// Connects to the socket that takes the master side.
pub(crate) fn connect(socket: &str) -> Result<OwnedFd, StepError> {
    let stream =
        UnixStream::connect(socket).doing(|| format!("connect to console socket {socket}"))?;
    Ok(stream.into())
}

/// Opens the terminal, puts it in place of the standard streams, sends the
/// master away. `console_mount` binds it onto /dev/console as well.
pub(crate) fn take(
    root: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
    size: Option<ConsoleSize>,
    console_mount: bool,
) -> Result<(), StepError> {
    let master = open_master(root)?;
    unlockpt(&master).doing(|| "unlock the terminal")?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave =
        ioctl_tiocgptpeer(&master, flags).doing(|| "open the slave side of the terminal")?;
    if let Some(size) = size {
        let window = Winsize {
            ws_row: size.height,
            ws_col: size.width,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&slave, window).doing(|| "set the size of the terminal")?;
    }
    if console_mount {
        crate::rootfs::mount_console(root, slave.as_fd())?;
    }
    send_fd(socket, b"/dev/ptmx", master.as_fd())
        .doing(|| "send the terminal to the console socket")?;
    rustix::process::ioctl_tiocsctty(&slave)
        .doing(|| "take the terminal as controlling terminal")?;
    rustix::stdio::dup2_stdin(&slave).doing(|| "take the terminal as standard input")?;
    rustix::stdio::dup2_stdout(&slave).doing(|| "take the terminal as standard output")?;
    rustix::stdio::dup2_stderr(&slave).doing(|| "take the terminal as standard error")
}

/// A new terminal of the container's devpts. A node of the right number elsewhere
/// would be one too, of whichever devpts is mounted beside it; so the directory must be
/// the file system itself, and the node not covered by something else.
fn open_master(root: BorrowedFd<'_>) -> Result<OwnedFd, StepError> {
    const DEVPTS_MAGIC: i64 = 0x1cd1;
    let refused = |why| Err(StepError::refused("open a terminal", why));
    let pts = path::open(root, "/dev/pts", OFlags::PATH | OFlags::DIRECTORY)
        .doing(|| "open /dev/pts of the container")?;
    let found = fstatfs(&pts).doing(|| "look at /dev/pts of the container")?;
    #[allow(clippy::unnecessary_cast, reason = "i64 on some targets only")]
    if found.f_type as i64 != DEVPTS_MAGIC {
        return refused("/dev/pts of the container is no devpts");
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let master = openat2(&pts, "ptmx", flags, Mode::empty(), how)
        .doing(|| "open /dev/pts/ptmx of the container")?;
    let stat = fstat(&master).doing(|| "look at /dev/pts/ptmx of the container")?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice
        || stat.st_rdev != makedev(5, 2)
    {
        return refused("/dev/pts/ptmx is not a terminal multiplexer");
    }
    Ok(master)
}

/// Sends one descriptor with some bytes.
pub(crate) fn send_fd(socket: BorrowedFd<'_>, bytes: &[u8], fd: BorrowedFd<'_>) -> io::Result<()> {
    let fds = [fd];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let pushed = control.push(SendAncillaryMessage::ScmRights(&fds));
    debug_assert!(pushed, "the space was made for one descriptor");
    sendmsg(
        socket,
        &[io::IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Receives one descriptor.
pub(crate) fn receive_fd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut bytes = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut iov = [io::IoSliceMut::new(&mut bytes)];
    recvmsg(socket, &mut iov, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message
            && let Some(fd) = fds.next()
        {
            return Ok(fd);
        }
    }
    Err(io::Error::other("no descriptor came"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn descriptors_travel() {
        let (a, b) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        rustix::io::write(&file, b"hello").unwrap();
        send_fd(a.as_fd(), b"name", file.as_fd()).unwrap();
        let mut got = std::fs::File::from(receive_fd(b.as_fd()).unwrap());
        let mut text = String::new();
        std::io::Seek::rewind(&mut got).unwrap();
        got.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        drop(a);
        assert!(receive_fd(b.as_fd()).is_err());
    }
}
