//! The containerd-lite of our own: started when none was named, found again after our restart, replaced when it dies.
//!
//! ```text
//!  dockerd-lite ──spawn──▶ dockerd-lite detached LOCK containerd-lite ...
//!                             setsid, lock LOCK (POSIX record lock), execve
//!                             └─▶ containerd-lite, same pid, still holding the lock
//! ```
//!
//! A record lock lives exactly as long as the process that took it, over execve, and is not inherited by its children; and the
//! kernel tells its holder's pid. So the lock file alone says whether one runs and which it is: the pid from the lock, opened as a
//! pidfd, and the lock asked once more, names the process for certain. The child outlives us; a dead one is replaced at once, one
//! that dies young after a growing pause.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::{During, Error, Result};

/// The word that turns this program into the launcher of a detached one.
const DETACHED: &str = "detached";

/// One that lives longer than this died of something new.
const YOUNG: Duration = Duration::from_secs(5);

/// The longest pause before another try.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Where the own containerd-lite keeps its files.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    root: PathBuf,
    state: PathBuf,
    log_level: String,
}

impl Place {
    /// The place by the daemon's own roots.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            root: config.data_root.join("containerd"),
            state: config.exec_root.join("containerd"),
            log_level: config.log_level.clone(),
        }
    }
    /// Its socket.
    pub(crate) fn address(&self) -> PathBuf {
        self.state.join("containerd.sock")
    }
    fn lock(&self) -> PathBuf {
        self.state.join("supervised.lock")
    }
}

/// Keeps one running until `stop`.
pub(crate) async fn run(place: Place, stop: CancellationToken) {
    let mut pause = Duration::ZERO;
    loop {
        let born = Instant::now();
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = follow(&place) => ended,
        };
        if let Err(e) = &ended {
            tracing::error!("{e}");
        } else {
            tracing::warn!("containerd-lite has ended");
        }
        pause = if born.elapsed() > YOUNG && ended.is_ok() {
            Duration::ZERO
        } else {
            (pause * 2).clamp(Duration::from_millis(20), LONGEST_PAUSE)
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Finds or starts one and returns when it has ended.
async fn follow(place: &Place) -> Result<()> {
    if let Some((pid, process)) = find_pid(&place.lock())? {
        if is_here(pid) {
            tracing::info!("found the running containerd-lite");
            return ended(process).await;
        }
        // Of a former rootless parent whose namespaces have lost their network: what it would start would be there.
        tracing::warn!("the running containerd-lite is in another user namespace: it is replaced");
        rustix::process::pidfd_send_signal(&process, rustix::process::Signal::TERM)
            .during(|| "end containerd-lite")?;
        ended(process).await?;
    }
    let mut child = spawn(place)?;
    tracing::info!(pid = child.id(), "started containerd-lite");
    ended(watched(&child, "containerd-lite")?).await?;
    match child.wait() {
        Ok(status) if status.code() == Some(i32::from(LOCKED)) => Ok(()),
        Ok(status) => {
            tracing::warn!("containerd-lite: {status}");
            Ok(())
        }
        Err(e) => Err(Error::from(e).during("wait for containerd-lite")),
    }
}

/// Whether a process is in our user namespace. One that is in another one does not let us look.
fn is_here(pid: Pid) -> bool {
    let of = |who: &str| {
        let found = std::fs::metadata(format!("/proc/{who}/ns/user"));
        found.map(|m| (m.dev(), m.ino())).ok()
    };
    let own = of("self");
    own.is_some() && own == of(&pid.as_raw_nonzero().to_string())
}

/// Ends the one that runs there, if one does, and waits for its end.
pub(crate) async fn end(place: &Place) -> Result<()> {
    let Some(process) = find(&place.lock())? else {
        return Ok(());
    };
    rustix::process::pidfd_send_signal(&process, rustix::process::Signal::TERM)
        .during(|| "end containerd-lite")?;
    ended(process).await
}

/// Returns when the process has ended. A thread waits for it: a pidfd is readable from the process's end on.
pub(crate) async fn ended(process: OwnedFd) -> Result<()> {
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("containerd-end".into())
        .stack_size(64 * 1024)
        .spawn(move || {
            let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
            while let Err(nix::errno::Errno::EINTR) = poll(&mut fds, PollTimeout::NONE) {}
            // Nobody waits any more when the daemon ends.
            let _ = tell.send(());
        })
        .during(|| "watch containerd-lite")?;
    told.await
        .map_err(|_| Error::internal("watch containerd-lite: the watcher has gone"))
}

/// A descriptor of a child, by which its end is seen.
pub(crate) fn watched(child: &std::process::Child, name: &str) -> Result<OwnedFd> {
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty());
    process.during(|| format!("watch {name}"))
}

/// Whether the process has ended already.
pub(crate) fn has_ended(process: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(n) if n > 0)
}

/// The process that holds the lock, if there is one.
pub(crate) fn find(lock: &Path) -> Result<Option<OwnedFd>> {
    Ok(find_pid(lock)?.map(|(_, process)| process))
}

/// The same with its pid, which is its as long as the descriptor is held and the process has not been waited for.
pub(crate) fn find_pid(lock: &Path) -> Result<Option<(Pid, OwnedFd)>> {
    let file = match File::open(lock) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::from(e).during(format!("open {}", lock.display()))),
    };
    for _ in 0..3 {
        let Some(pid) = holder(&file).during(|| format!("read the lock {}", lock.display()))?
        else {
            return Ok(None);
        };
        if let Ok(process) = pidfd_open(pid, PidfdFlags::empty())
            && holder(&file).ok().flatten() == Some(pid)
        {
            return Ok(Some((pid, process)));
        }
    }
    Ok(None)
}

fn record_lock() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

fn holder(file: &File) -> Result<Option<Pid>> {
    let mut asked = record_lock();
    fcntl(file, FcntlArg::F_GETLK(&mut asked))?;
    if asked.l_type == libc::F_UNLCK as libc::c_short {
        return Ok(None);
    }
    Ok(Pid::from_raw(asked.l_pid))
}

fn spawn(place: &Place) -> Result<std::process::Child> {
    let private = |dir: &Path| {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .during(|| format!("make {}", dir.display()))
    };
    private(&place.root)?;
    private(&place.state)?;
    let own = std::env::current_exe().during(|| "find the own program")?;
    let program = own
        .with_file_name(proto::layout::program::CONTAINERD)
        .canonicalize()
        .unwrap_or_else(|_| proto::layout::program::CONTAINERD.into());
    let arguments: Vec<OsString> = vec![
        "--root".into(),
        place.root.clone().into(),
        "--state".into(),
        place.state.clone().into(),
        "--address".into(),
        place.address().into(),
        "--log-level".into(),
        place.log_level.clone().into(),
    ];
    let log = place.state.join("containerd.log");
    spawn_detached(&place.lock(), &program, &arguments, &log)
}

/// Starts a program that outlives us and holds the lock for as long as it lives.
pub(crate) fn spawn_detached(
    lock: &Path,
    program: &Path,
    arguments: &[OsString],
    log_file: &Path,
) -> Result<std::process::Child> {
    detached_command(lock, program, arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log(log_file)?)
        .spawn()
        .during(|| format!("start {}", program.display()))
}

/// The command that starts such a program; where its streams go is the caller's.
pub(crate) fn detached_command(lock: &Path, program: &Path, arguments: &[OsString]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .args(detached_words(lock, program))
        .args(arguments)
        .env_remove("LISTEN_FDS")
        .env_remove("LISTEN_PID")
        .env_remove("NOTIFY_SOCKET")
        .current_dir("/");
    command
}

/// The words that make this program such a program's launcher; its arguments follow.
pub(crate) fn detached_words(lock: &Path, program: &Path) -> [OsString; 3] {
    [DETACHED.into(), lock.into(), program.into()]
}

/// This program, as another process may start it.
pub(crate) fn own_program() -> Result<PathBuf> {
    let own = std::env::current_exe().during(|| "find the own program")?;
    Ok(match own.exists() {
        true => own,
        // Replaced under us: what runs is still what it was.
        false => "/proc/self/exe".into(),
    })
}

/// Waits for a child on a thread of its own, so that none stays behind as a zombie.
pub(crate) fn reap(mut child: std::process::Child, thread: &str) -> Result<()> {
    std::thread::Builder::new()
        .name(thread.into())
        .stack_size(64 << 10)
        .spawn(move || drop(child.wait()))
        .during(|| "watch a child process")?;
    Ok(())
}

/// Where its messages go: our own stderr, unless that is a pipe, whose reader may die with us.
fn log(path: &Path) -> Result<Stdio> {
    let piped = std::fs::metadata("/proc/self/fd/2").is_ok_and(|m| m.file_type().is_fifo());
    if !piped {
        return Ok(Stdio::inherit());
    }
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .during(|| format!("open {}", path.display()))?;
    Ok(file.into())
}

/// The launcher's exit code when the lock is held already.
const LOCKED: u8 = 75;

/// The launcher: becomes a session of its own, takes the lock, becomes the program. Returns only when that failed, and none
/// when the arguments are not the launcher's.
pub(crate) fn detached(arguments: &[std::ffi::OsString]) -> Option<ExitCode> {
    if arguments.get(1).is_none_or(|word| word != DETACHED) || arguments.len() < 4 {
        return None;
    }
    Some(match launch(Path::new(&arguments[2]), &arguments[3..]) {
        Ok(Locked) => ExitCode::from(LOCKED),
        Err(e) => {
            eprintln!("dockerd-lite: {e}");
            ExitCode::FAILURE
        }
    })
}

struct Locked;

fn launch(lock: &Path, program: &[std::ffi::OsString]) -> Result<Locked> {
    nix::unistd::setsid().during(|| "make a session")?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(lock)
        .during(|| format!("open {}", lock.display()))?;
    if fcntl(&file, FcntlArg::F_SETLK(&record_lock())).is_err() {
        return Ok(Locked);
    }
    // Whoever replaced the file meanwhile has a lock of its own.
    let same = std::fs::metadata(lock).is_ok_and(|now| {
        file.metadata()
            .is_ok_and(|open| open.ino() == now.ino() && open.dev() == now.dev())
    });
    if !same {
        return Ok(Locked);
    }
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty())?;
    let failed = Command::new(&program[0]).args(&program[1..]).exec();
    Err(Error::from(failed).during(format!("start {}", Path::new(&program[0]).display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_lock_has_no_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(find(&path).unwrap().is_none());
        std::fs::write(&path, "").unwrap();
        assert!(find(&path).unwrap().is_none());
    }
}
