//! The fence: the only unsafe code of the crate, and its rules.
//!
//! The serving shim has one thread, so the child between `fork` and `exec` may use what it inherited; still, the closure
//! run there calls nothing but plain system calls.
//!
//! | block | what | why it holds |
//! |---|---|---|
//! | `inherited` | adopt descriptor 3 | the caller passed it to this process and nothing else here owns it |
//! | `Program::spawn` | `pre_exec` | the closure makes only async-signal-safe calls on captured integers |
//! | `child_setup` | prctl, setpgid, dup2, close_range | integers only; no memory is shared with the kernel |
//! | `watch` | register a descriptor with the poller | the two types that may come own theirs and never change it |
//! | `settle` | malloc_trim, madvise | drops only clean pages of a mapping that nobody can write |
//! | `signal` | kill | integers only; the pid is an unreaped child of ours |

#![allow(unsafe_code)]

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tokio::io::unix::AsyncFd;

/// Takes over the descriptor `number`, which whoever ran this process left open for it. Call once per number.
pub(crate) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    {
        // SAFETY: the borrow lives for this block only; an unopened number makes fcntl fail with EBADF, nothing worse.
        let probe = unsafe { BorrowedFd::borrow_raw(number) };
        rustix::io::fcntl_setfd(probe, rustix::io::FdFlags::CLOEXEC)?;
    }
    // SAFETY: the number is open (fcntl said so), it was passed to this process at exec, and nothing here owns it yet.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Sends `number` to a process. The caller guarantees that the pid is a child that has not been reaped, so it is still its own.
pub(crate) fn signal(pid: u32, number: u32) -> io::Result<()> {
    let (Ok(pid), Ok(number)) = (i32::try_from(pid), i32::try_from(number)) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    if pid <= 0 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: kill takes two integers; a positive pid names one process.
    match unsafe { libc::kill(pid, number) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A program to run as a child that only the reaper waits for.
#[derive(Debug, Default)]
pub(crate) struct Program {
    pub(crate) path: OsString,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) directory: Option<PathBuf>,
    /// Standard input, output and error; none is `/dev/null`.
    pub(crate) stdio: [Option<OwnedFd>; 3],
    /// More descriptors and the numbers (3 and up) that the child gets them under.
    pub(crate) descriptors: Vec<(OwnedFd, RawFd)>,
    /// Kill the child when the shim dies.
    pub(crate) die_with_parent: bool,
    /// Put the child into a process group of its own.
    pub(crate) own_group: bool,
}

impl Program {
    /// Starts the program and returns its pid once it has been executed; an error says why it could not be.
    pub(crate) fn spawn(self) -> io::Result<u32> {
        let mut command = Command::new(&self.path);
        command.args(&self.args).envs(self.env);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        let [stdin, stdout, stderr] = self
            .stdio
            .map(|fd| fd.map_or_else(Stdio::null, Stdio::from));
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        let mut passed = Vec::new();
        let mut placeholders = Vec::new();
        for (fd, target) in &self.descriptors {
            // Sources go above all targets, so that no dup2 in the child overwrites a source still needed.
            passed.push((rustix::io::fcntl_dupfd_cloexec(fd, 64)?, *target));
            // The standard library's own pipe for the child's exec error must not sit on a target either.
            placeholders.push(rustix::io::fcntl_dupfd_cloexec(fd, *target)?);
        }
        let setup = ChildSetup {
            descriptors: passed
                .iter()
                .map(|(fd, target)| (fd.as_raw_fd(), *target))
                .collect(),
            die_with_parent: self.die_with_parent,
            own_group: self.own_group,
        };
        // SAFETY: the closure makes async-signal-safe system calls on integers captured before the fork, and allocates nothing.
        unsafe { command.pre_exec(move || child_setup(&setup)) };
        let child = command.spawn()?;
        Ok(child.id())
    }
}

struct ChildSetup {
    descriptors: Vec<(RawFd, RawFd)>,
    die_with_parent: bool,
    own_group: bool,
}

/// Runs in the child between fork and exec.
fn child_setup(setup: &ChildSetup) -> io::Result<()> {
    if setup.die_with_parent {
        // SAFETY: integers only; asks the kernel to kill this process when the thread that forked it ends.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) })?;
    }
    if setup.own_group {
        // SAFETY: integers only; this process becomes leader of a new group.
        check(unsafe { libc::setpgid(0, 0) })?;
    }
    for (from, to) in &setup.descriptors {
        // SAFETY: integers only; the source stays open until exec, the target is replaced in the child alone.
        check(unsafe { libc::dup2(*from, *to) })?;
    }
    let first = setup
        .descriptors
        .iter()
        .map(|(_, to)| to.unsigned_abs() + 1)
        .max()
        .unwrap_or(3);
    // SAFETY: integers only; marks what a careless caller left open to us as closed on exec. Older kernels refuse: then it
    // is passed on, which harms nobody who closes what it was not given.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A pipe with both ends closed on exec: read end, write end.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// A type that owns one descriptor for as long as it lives.
pub(crate) trait OwnsOne: std::os::fd::AsRawFd {}
impl OwnsOne for OwnedFd {}
impl OwnsOne for std::os::unix::net::UnixListener {}

/// Lets the runtime wait for a descriptor, which must not block.
pub(crate) fn watch<T: OwnsOne>(owner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: both types of the trait own their descriptor, return the same number always, and close it only on drop.
    Ok(unsafe { AsyncFd::register(owner) }?)
}

/// Gives back the memory that work now done has left in use: free heap, and pages of the program's code, which come back
/// from the page cache when they are needed. Idle shims then cost what they use.
pub(crate) fn settle() {
    // SAFETY: takes an integer; the allocator gives free memory at its end back.
    unsafe { libc::malloc_trim(0) };
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let Some((start, end)) = maps.lines().find_map(own_code) else {
        return;
    };
    // SAFETY: the range is a mapping of our own file, readable and executable but not writable, so that every page of it is
    // what the file holds and comes back as it was; an error changes nothing.
    unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
}

/// The range of the first private, read-only, executable mapping of a file: the program's own.
fn own_code(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    if fields.next()? != "r-xp" || !fields.nth(3)?.starts_with('/') {
        return None;
    }
    let number = |hex| usize::from_str_radix(hex, 16).ok();
    Some((number(start)?, number(end)?))
}

/// Lets reads and writes of the descriptor return instead of waiting.
pub(crate) fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    Ok(rustix::fs::fcntl_setfl(
        &fd,
        flags | rustix::fs::OFlags::NONBLOCK,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn a_child_gets_its_descriptors_under_their_numbers() {
        let (mut read, write) = pipe().map(|(r, w)| (std::fs::File::from(r), w)).unwrap();
        let (data, feed) = pipe().unwrap();
        drop(feed);
        let pid = Program {
            path: "/bin/sh".into(),
            args: vec![
                "-c".into(),
                "echo one >&4; cat <&3 >&4; echo two >&4".into(),
            ],
            descriptors: vec![(data, 3), (write, 4)],
            ..Program::default()
        }
        .spawn()
        .unwrap();
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\ntwo\n");
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap());
        rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap();
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let program = Program {
            path: "/nonexistent/program".into(),
            ..Program::default()
        };
        assert_eq!(program.spawn().unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn code_is_still_there_after_settling() {
        let line = "00275000-00403000 r-xp 00074000 fe:00 1 /bin/shim";
        assert_eq!(own_code(line), Some((0x275000, 0x403000)));
        assert_eq!(own_code("00403000-00408000 r--p 0 fe:00 1 /bin/shim"), None);
        assert_eq!(own_code("7fff-8fff r-xp 00000000 00:00 0 [vdso]"), None);
        settle();
        assert!(own_code("").is_none());
    }

    #[test]
    fn a_pid_that_is_no_process_is_refused() {
        assert!(signal(0, 9).is_err());
        assert!(signal(u32::MAX, 9).is_err());
    }
}
