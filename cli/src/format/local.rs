//! The user's time zone: Docker's lists show local times.
//!
//! The zone is the file that `TZ` names below `/usr/share/zoneinfo`, or `/etc/localtime`, in the
//! binary form of RFC 9636. Without a readable file times are in UTC.

use std::sync::LazyLock;

use time::{OffsetDateTime, UtcOffset};

static ZONE: LazyLock<Zone> = LazyLock::new(|| read_zone().unwrap_or_default());

/// Changes of the offset, oldest first.
#[derive(Debug, Default, PartialEq)]
struct Zone {
    /// The offset before the first change.
    first: Option<Offset>,
    changes: Vec<(i64, Offset)>,
}

/// Seconds east of UTC, and what people call it.
#[derive(Debug, Clone, PartialEq)]
struct Offset {
    seconds: i32,
    name: String,
}

/// A point in time on the user's clock, and the name of its zone.
pub(crate) fn local(at: OffsetDateTime) -> (OffsetDateTime, String) {
    let offset = ZONE.at(at.unix_timestamp());
    match UtcOffset::from_whole_seconds(offset.seconds) {
        Ok(utc_offset) => (at.to_offset(utc_offset), offset.name),
        Err(_) => (at, "UTC".to_string()),
    }
}

impl Zone {
    fn at(&self, unix: i64) -> Offset {
        let found = self
            .changes
            .iter()
            .rev()
            .find(|(since, _)| *since <= unix)
            .map(|(_, offset)| offset);
        found.or(self.first.as_ref()).cloned().unwrap_or(Offset {
            seconds: 0,
            name: "UTC".to_string(),
        })
    }
}

fn read_zone() -> Option<Zone> {
    let path = match std::env::var("TZ") {
        Ok(name) => {
            let name = name.trim_start_matches(':');
            let harmless = !name.is_empty() && !name.split('/').any(|part| part == "..");
            match name.starts_with('/') {
                true => name.to_string(),
                false if harmless => format!("/usr/share/zoneinfo/{name}"),
                false => return None,
            }
        }
        Err(_) => "/etc/localtime".to_string(),
    };
    parse(&std::fs::read(path).ok()?)
}

/// Reads a zone file; the second half, with times of 64 bits, where there is one.
fn parse(bytes: &[u8]) -> Option<Zone> {
    let (zone, rest) = block(bytes, 4)?;
    match bytes.get(4)? {
        0 => Some(zone),
        _ => block(rest, 8).map(|(zone, _)| zone),
    }
}

/// One block of the file, whose times have so many bytes, and what follows it.
fn block(bytes: &[u8], width: usize) -> Option<(Zone, &[u8])> {
    let (header, rest) = bytes.split_at_checked(44)?;
    if !header.starts_with(b"TZif") {
        return None;
    }
    let count = |at: usize| -> Option<usize> {
        let field = header.get(20 + 4 * at..24 + 4 * at)?;
        usize::try_from(u32::from_be_bytes(field.try_into().ok()?))
            .ok()
            .filter(|count| *count < 1 << 16)
    };
    let [ut, std, leaps, times, types, letters] = [
        count(0)?,
        count(1)?,
        count(2)?,
        count(3)?,
        count(4)?,
        count(5)?,
    ];
    let (moments, rest) = rest.split_at_checked(times * width)?;
    let (kinds, rest) = rest.split_at_checked(times)?;
    let (offsets, rest) = rest.split_at_checked(types * 6)?;
    let (names, rest) = rest.split_at_checked(letters)?;
    let (_, rest) = rest.split_at_checked(leaps * (width + 4) + std + ut)?;
    let offset = |kind: usize| -> Option<Offset> {
        let fields = offsets.get(kind * 6..kind * 6 + 6)?;
        let name = names
            .get(usize::from(fields[5])..)?
            .split(|byte| *byte == 0)
            .next()?;
        Some(Offset {
            seconds: i32::from_be_bytes(fields[..4].try_into().ok()?),
            name: String::from_utf8_lossy(name).into_owned(),
        })
    };
    let mut zone = Zone {
        first: offset(0),
        changes: Vec::with_capacity(times),
    };
    for (moment, kind) in moments.chunks_exact(width).zip(kinds) {
        let since = match width {
            4 => i64::from(i32::from_be_bytes(moment.try_into().ok()?)),
            _ => i64::from_be_bytes(moment.try_into().ok()?),
        };
        zone.changes.push((since, offset(usize::from(*kind))?));
    }
    Some((zone, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file of the first version: UTC+1 from 1970, UTC+2 from 1000 s later.
    fn file() -> Vec<u8> {
        let mut out = b"TZif\0".to_vec();
        out.extend([0; 15]);
        for count in [0u32, 0, 0, 2, 2, 10] {
            out.extend(count.to_be_bytes());
        }
        out.extend(0i32.to_be_bytes());
        out.extend(1000i32.to_be_bytes());
        out.extend([0, 1]);
        out.extend(3600i32.to_be_bytes());
        out.extend([0, 0]);
        out.extend(7200i32.to_be_bytes());
        out.extend([1, 4]);
        out.extend(b"CET\0CEST\0\0");
        out
    }

    #[test]
    fn the_offset_is_that_of_the_moment() {
        let zone = parse(&file()).unwrap();
        assert_eq!(zone.at(500).name, "CET");
        assert_eq!(
            zone.at(1000),
            Offset {
                seconds: 7200,
                name: "CEST".into()
            }
        );
        assert_eq!(zone.at(-5).seconds, 3600);
        assert_eq!(Zone::default().at(0).name, "UTC");
    }

    proptest! {
        #[test]
        fn no_file_is_too_odd(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), magic in any::<bool>()) {
            if magic && bytes.len() > 4 {
                bytes[..4].copy_from_slice(b"TZif");
            }
            let _ = parse(&bytes);
        }
    }
}
