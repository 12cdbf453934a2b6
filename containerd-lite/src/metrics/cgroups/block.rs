//! Block devices: their traffic by cgroup, and their names.

use std::collections::HashMap;
use std::path::Path;

/// One line of traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) major: u32,
    pub(super) minor: u32,
    /// `Read`, `Write`, ..., or a key of cgroup v2.
    pub(super) operation: String,
    pub(super) value: u64,
}

/// `MAJOR:MINOR OPERATION NUMBER` lines of cgroup v1; the total of all devices is left out.
pub(super) fn v1(text: &str) -> Vec<Traffic> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (major, minor) = number(words.next()?)?;
        let operation = words.next()?.to_owned();
        let value = words.next()?.parse().ok()?;
        Some(Traffic {
            major,
            minor,
            operation,
            value,
        })
    });
    lines.collect()
}

/// `MAJOR:MINOR KEY=NUMBER ...` lines of cgroup v2.
pub(super) fn v2(text: &str) -> Vec<Traffic> {
    let mut all = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(number) else {
            continue;
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            if let Ok(value) = value.parse() {
                all.push(Traffic {
                    major,
                    minor,
                    operation: key.to_owned(),
                    value,
                });
            }
        }
    }
    all
}

fn number(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Names of devices, each looked up once.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<(u32, u32), String>);

impl Names {
    /// `/dev/NAME`, or nothing for a device that has none.
    pub(super) fn of(&mut self, major: u32, minor: u32) -> &str {
        self.0.entry((major, minor)).or_insert_with(|| {
            let link = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}"));
            let name = link.ok().and_then(|target| {
                let name = target.file_name()?.to_str()?.replace('!', "/");
                Some(Path::new("/dev").join(name).display().to_string())
            });
            name.unwrap_or_default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_versions_are_read_and_others_left_out() {
        let all = v1("259:70000 Read 5\n259:70000 Write 6\nTotal 11\n8:x Read 1\n");
        assert_eq!(all.len(), 2);
        assert_eq!((all[1].major, all[1].minor, all[1].value), (259, 70000, 6));
        let all = v2("8:0 rbytes=1 wbytes=x rios=3\n\n9:1\n");
        let seen: Vec<_> = all
            .iter()
            .map(|t| (t.operation.as_str(), t.value))
            .collect();
        assert_eq!(seen, [("rbytes", 1), ("rios", 3)]);
    }
}
