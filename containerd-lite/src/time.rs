//! Points in time: nanoseconds since 1970 in the database, protobuf timestamps on the wire.

use std::time::{SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;

/// Nanoseconds since 1970.
pub(crate) type Nanos = i64;

/// Now.
pub(crate) fn now() -> Nanos {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// On the wire.
pub(crate) fn wire(nanos: Nanos) -> Option<Timestamp> {
    let rest = i32::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or(0);
    Some(Timestamp {
        seconds: nanos.div_euclid(1_000_000_000),
        nanos: rest,
    })
}

/// From the wire; a value out of range is clamped.
pub(crate) fn from_wire(time: &Timestamp) -> Nanos {
    time.seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::from(time.nanos))
}

/// As an RFC 3339 text in UTC, as labels carry it.
pub(crate) fn to_rfc3339(nanos: Nanos) -> String {
    let format = &::time::format_description::well_known::Rfc3339;
    let time = ::time::OffsetDateTime::from_unix_timestamp_nanos(nanos.into());
    // Only years of more than four digits have no such form.
    time.ok()
        .and_then(|time| time.format(format).ok())
        .unwrap_or_default()
}

/// Of an RFC 3339 text, as labels carry it.
pub(crate) fn from_rfc3339(text: &str) -> Option<Nanos> {
    let time =
        ::time::OffsetDateTime::parse(text, &::time::format_description::well_known::Rfc3339)
            .ok()?;
    i64::try_from(time.unix_timestamp_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_and_fractions_survive() {
        for nanos in [0, 1, -1, 1_700_000_000_123_456_789, -5_000_000_001] {
            assert_eq!(from_wire(&wire(nanos).unwrap()), nanos);
        }
        assert_eq!(from_rfc3339("1970-01-01T00:00:01.5Z"), Some(1_500_000_000));
        assert_eq!(from_rfc3339("yesterday"), None);
    }
}
