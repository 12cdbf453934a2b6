//! Which ids of the host a user may use, and writing them into the maps of a user namespace.
//!
//! Container id 0 is the user; 1 and up are the subordinate ids, range after range. Only the setuid programs `newuidmap` and
//! `newgidmap` may write such maps; they check them against the same files.

use std::path::Path;
use std::process::Command;

use crate::error::{During, Error, Result};

/// A range of ids of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: u32,
    pub(super) count: u32,
}

/// The user and group ids by which the kernel knows this process, and the name of the user.
#[derive(Debug, Clone)]
pub(super) struct Whoami {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) name: String,
}

/// Who runs this.
pub(super) fn whoami() -> Whoami {
    let uid = nix::unistd::Uid::current();
    let user = nix::unistd::User::from_uid(uid).ok().flatten();
    Whoami {
        uid: uid.as_raw(),
        gid: nix::unistd::Gid::current().as_raw(),
        name: user.map_or_else(|| uid.to_string(), |user| user.name),
    }
}

/// The kind of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    User,
    Group,
}

impl Kind {
    pub(super) fn file(self) -> &'static str {
        match self {
            Self::User => "/etc/subuid",
            Self::Group => "/etc/subgid",
        }
    }
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::User => "newuidmap",
            Self::Group => "newgidmap",
        }
    }
}

/// The subordinate ids of a user: as `getsubids` tells them where it is installed (they may come from a directory service), else as
/// the file does.
pub(super) fn subordinate(kind: Kind, who: &Whoami) -> Result<Vec<Range>> {
    let mut command = Command::new("getsubids");
    if kind == Kind::Group {
        command.arg("-g");
    }
    if let Ok(output) = command.arg(&who.name).output()
        && output.status.success()
    {
        let ranges = of_getsubids(&String::from_utf8_lossy(&output.stdout));
        if !ranges.is_empty() {
            return Ok(ranges);
        }
    }
    let text = match std::fs::read_to_string(kind.file()) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(Error::from(e).during(format!("read {}", kind.file()))),
    };
    let ranges = of_file(&text, &who.name, who.uid);
    match ranges.is_empty() {
        true => Err(Error::invalid(format!(
            "{} has no range for user {}",
            kind.file(),
            who.name
        ))),
        false => Ok(ranges),
    }
}

/// Lines `0: name 100000 65536`.
fn of_getsubids(text: &str) -> Vec<Range> {
    let line = |line: &str| {
        let mut words = line.split_whitespace().rev();
        let count = words.next()?.parse().ok()?;
        let start = words.next()?.parse().ok()?;
        Some(Range { start, count })
    };
    text.lines().filter_map(line).filter(is_usable).collect()
}

/// Lines `name:100000:65536`; the name may be the number of the user.
fn of_file(text: &str, name: &str, uid: u32) -> Vec<Range> {
    let uid = uid.to_string();
    let line = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let start = fields.next()?.parse().ok()?;
        let count = fields.next()?.parse().ok()?;
        (owner == name || owner == uid).then_some(Range { start, count })
    };
    text.lines().filter_map(line).filter(is_usable).collect()
}

fn is_usable(range: &Range) -> bool {
    range.count > 0 && range.start.checked_add(range.count).is_some()
}

/// The map as words: inside, outside, count for each line.
fn map(own: u32, ranges: &[Range]) -> Vec<String> {
    let mut words = vec![[0, own, 1]];
    let mut next = 1u32;
    for range in ranges {
        let count = range.count.min(u32::MAX - next);
        words.push([next, range.start, count]);
        next += count;
    }
    words.iter().flatten().map(u32::to_string).collect()
}

/// Writes both maps of a process's user namespace.
pub(super) fn write(pid: u32, who: &Whoami) -> Result<()> {
    for (kind, own) in [(Kind::User, who.uid), (Kind::Group, who.gid)] {
        let ranges = subordinate(kind, who)?;
        let program = kind.program();
        let output = Command::new(program)
            .arg(pid.to_string())
            .args(map(own, &ranges))
            .output()
            .during(|| format!("run {program} (package uidmap)"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Error::invalid(format!(
                "{program} refuses the ids of {}: {}",
                kind.file(),
                said.trim()
            )));
        }
    }
    Ok(())
}

/// Whether a program is there to be run.
pub(super) fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs = std::env::split_paths(&path).collect::<Vec<_>>();
    dirs.extend(["/usr/sbin", "/sbin"].map(Into::into));
    dirs.iter()
        .any(|dir| nix::unistd::access(&dir.join(program), nix::unistd::AccessFlags::X_OK).is_ok())
}

/// The program's path, with the directories that an ordinary user's PATH leaves out.
pub(super) fn path_of(program: &str) -> std::path::PathBuf {
    let sbin = ["/usr/sbin", "/sbin"].map(|dir| Path::new(dir).join(program));
    sbin.into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| program.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_read_by_name_and_by_number() {
        let text = "a:100000:65536\n1000:300000:10\nb:1:1\na:bad:1\na:5\n\na:400000:0\n";
        let ranges = of_file(text, "a", 1000);
        assert_eq!(
            ranges,
            [
                Range {
                    start: 100_000,
                    count: 65536
                },
                Range {
                    start: 300_000,
                    count: 10
                }
            ]
        );
        assert_eq!(of_getsubids("0: a 100000 65536\n1: a 300000 10\n"), ranges);
        assert_eq!(
            map(1000, &ranges),
            [
                "0", "1000", "1", "1", "100000", "65536", "65537", "300000", "10"
            ]
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[a-z0-9: \n]{0,80}") {
            let mut ranges = of_file(&text, "a", 0);
            ranges.extend(of_getsubids(&text));
            prop_assert_eq!(map(7, &ranges).len(), 3 * (ranges.len() + 1));
        }
    }
}
