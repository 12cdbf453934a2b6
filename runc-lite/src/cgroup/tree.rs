//! The groups below a container's own, however many levels of them there are.
//!
//! A container that rules over groups of its own can make more levels than the
//! longest path has room for, and let some of them stand still. So they are walked
//! by descriptors, one of them open at a time, up again by `..`: no group can be
//! moved out of the one it is in.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

const GROUP: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Calls `enter` with each group below `top` before those below it, and `leave` with
/// the one above and the name after them. A group that goes away meanwhile is passed
/// over.
fn walk(
    top: &Path,
    mut enter: impl FnMut(BorrowedFd<'_>) -> Result<(), Errno>,
    mut leave: impl FnMut(BorrowedFd<'_>, &CStr) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let mut at = match rustix::fs::open(top, GROUP, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    // The way down: the name of each group we are in, and what is left to see there.
    let mut way: Vec<CString> = Vec::new();
    let mut left = vec![children(&at)?];
    while let Some(here) = left.last_mut() {
        if let Some(name) = here.pop() {
            match openat(&at, &name, GROUP, Mode::empty()) {
                Ok(below) => {
                    enter(below.as_fd())?;
                    left.push(children(&below)?);
                    way.push(name);
                    at = below;
                }
                Err(Errno::NOENT) => {}
                Err(e) => return Err(e),
            }
            continue;
        }
        left.pop();
        let Some(name) = way.pop() else {
            return Ok(());
        };
        at = openat(&at, "..", GROUP, Mode::empty())?;
        leave(at.as_fd(), &name)?;
    }
    Ok(())
}

fn children(group: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    let entries = match Dir::read_from(group) {
        Err(Errno::NOENT | Errno::NODEV) => return Ok(names),
        other => other?,
    };
    for entry in entries {
        let entry = match entry {
            // Removed while it is read.
            Err(Errno::NOENT | Errno::NODEV) => break,
            other => other?,
        };
        let name = entry.file_name();
        if entry.file_type() == FileType::Directory && name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// The processes of one group. Those of a pid namespace out of sight read as 0 and are
/// left out; a threaded group keeps its processes to its domain above.
fn members(group: BorrowedFd<'_>) -> Result<Vec<Pid>, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let gone = |e| matches!(e, Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP);
    let file = match openat(group, "cgroup.procs", flags, Mode::empty()) {
        Err(e) if gone(e) => return Ok(Vec::new()),
        other => other?,
    };
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match rustix::io::read(&file, &mut chunk) {
            Ok(0) => break,
            Ok(n) => text.extend_from_slice(&chunk[..n]),
            Err(Errno::INTR) => {}
            Err(e) if gone(e) => break,
            Err(e) => return Err(e),
        }
    }
    let text = String::from_utf8_lossy(&text);
    let pids = text.lines().filter_map(|l| l.parse().ok());
    Ok(pids.filter(|n| *n > 0).filter_map(Pid::from_raw).collect())
}

/// The processes of all groups below.
pub(super) fn pids_below(top: &Path, pids: &mut Vec<Pid>) -> Result<(), Errno> {
    let collect = |group: BorrowedFd<'_>| members(group).map(|found| pids.extend(found));
    walk(top, collect, |_, _| Ok(()))
}

/// Removes all groups below, killing whoever is in them. One that is busy, as its
/// processes are on their way out, is left for the next try.
pub(super) fn remove_below(top: &Path) -> Result<(), Errno> {
    let kill = |group: BorrowedFd<'_>| {
        for pid in members(group)? {
            // Gone already is what is wanted.
            let _ = kill_process(pid, Signal::KILL);
        }
        Ok(())
    };
    let remove =
        |above: BorrowedFd<'_>, name: &CStr| match unlinkat(above, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::BUSY | Errno::NOTEMPTY) => Ok(()),
            Err(e) => Err(e),
        };
    walk(top, kill, remove)
}

/// Writes a value into a file of each group below that has it.
pub(super) fn write_below(top: &Path, file: &str, value: &str) -> Result<(), Errno> {
    let write = |group: BorrowedFd<'_>| {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        match openat(group, file, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NODEV) => Ok(()),
            Err(e) => Err(e),
            Ok(file) => match rustix::io::write(&file, value.as_bytes()) {
                Ok(_) | Err(Errno::NODEV) => Ok(()),
                Err(e) => Err(e),
            },
        }
    };
    walk(top, write, |_, _| Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::mkdirat;

    #[test]
    fn levels_without_number_are_walked_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let mut at = rustix::fs::open(dir.path(), GROUP, Mode::empty()).unwrap();
        let name = "d".repeat(200);
        for _ in 0..50 {
            mkdirat(&at, &name, Mode::RWXU).unwrap();
            mkdirat(&at, "beside", Mode::RWXU).unwrap();
            at = openat(&at, &name, GROUP, Mode::empty()).unwrap();
        }
        drop(at);
        let (mut entered, mut left) = (0, 0);
        let enter = |_: BorrowedFd<'_>| {
            entered += 1;
            Ok(())
        };
        let leave = |_: BorrowedFd<'_>, _: &CStr| {
            left += 1;
            Ok(())
        };
        walk(dir.path(), enter, leave).unwrap();
        assert_eq!((entered, left), (100, 100));
        remove_below(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        walk(&dir.path().join("gone"), |_| Ok(()), |_, _| Ok(())).unwrap();
    }
}
