//! What /proc says about a process, and the one way to be sure which it is.
//!
//! A pid is a number that is used again. A process is identified by its pid
//! *and* start time, and signalled through a pidfd opened before the start time
//! was compared.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// The kernel's flag for a process that has forked but not yet executed.
/// It is how a created container is told from a running one: no file on disk
/// has to be in step with it, and the program cannot set it.
const PF_FORKNOEXEC: u64 = 0x40;

/// The kernel's flag for its own threads.
const PF_KTHREAD: u64 = 0x0020_0000;

/// The fields of /proc/PID/stat used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcStat {
    /// R, S, D, Z, X, ...
    pub(crate) state: char,
    /// PF_* flags.
    flags: u64,
    /// Start time in clock ticks since boot.
    pub(crate) start_time: u64,
}

impl ProcStat {
    /// Reads them; none if there is no such process.
    pub(crate) fn read(pid: i32) -> Option<Self> {
        use rustix::fs::{Mode, OFlags, open};
        let path = format!("/proc/{pid}/stat");
        let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        // Some fifty numbers; one read gets them all.
        let mut bytes = [0; 2048];
        let length = rustix::io::read(&file, &mut bytes).ok()?;
        Self::parse(&String::from_utf8_lossy(bytes.get(..length)?))
    }

    /// The second field is the name in parentheses, which may contain anything.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        let state = fields.next()?.chars().next()?;
        let flags = fields.nth(5)?.parse().ok()?;
        let start_time = fields.nth(12)?.trim_end().parse().ok()?;
        Some(Self {
            state,
            flags,
            start_time,
        })
    }

    /// Dead, or dead and not yet waited for.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }

    /// Whether it is the kernel's own.
    pub(crate) fn is_kernel_thread(&self) -> bool {
        self.flags & PF_KTHREAD != 0
    }

    /// Whether it still runs the runtime's code.
    pub(crate) fn not_executed(&self) -> bool {
        self.flags & PF_FORKNOEXEC != 0
    }
}

/// A living process, held by descriptor.
#[derive(Debug)]
pub(crate) struct LiveProcess {
    /// The number.
    pub(crate) pid: i32,
    /// The handle.
    pub(crate) pidfd: OwnedFd,
}

impl LiveProcess {
    /// Finds the process with this pid if it began at `start_time` and lives.
    pub(crate) fn find(pid: i32, start_time: u64) -> Option<Self> {
        // A record may say anything; a negative number is no pid.
        let raw = Some(pid).filter(|p| *p > 0).and_then(Pid::from_raw)?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).ok()?;
        let stat = ProcStat::read(pid)?;
        (stat.start_time == start_time && !stat.is_dead()).then_some(Self { pid, pidfd })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_are_read() {
        let text = "12 (a) b) (c) S 1 12 12 0 -1 4194624 99 0 0 0 0 0 0 0 20 0 1 0 4711 1 2\n";
        let stat = ProcStat::parse(text).unwrap();
        assert_eq!((stat.state, stat.start_time), ('S', 4711));
        assert!(stat.not_executed());
        assert!(ProcStat::parse("").is_none());
    }

    #[test]
    fn we_are_found_by_our_start_time_only() {
        let pid = std::process::id() as i32;
        let stat = ProcStat::read(pid).unwrap();
        assert!(LiveProcess::find(pid, stat.start_time).is_some());
        assert!(LiveProcess::find(pid, stat.start_time + 1).is_none());
        for none in [0, -1, i32::MIN] {
            assert!(LiveProcess::find(none, 0).is_none());
        }
    }
}
