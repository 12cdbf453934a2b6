//! Times as Docker writes them: RFC 3339 in UTC with as many digits of the second's fraction as are not zero.

use proto::prost_types::Timestamp;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The time of what has not happened.
pub(crate) const NEVER: &str = "0001-01-01T00:00:00Z";

/// Now.
pub(crate) fn now() -> String {
    text(OffsetDateTime::now_utc())
}

/// A moment as text.
pub(crate) fn text(moment: OffsetDateTime) -> String {
    moment
        .to_offset(time::UtcOffset::UTC)
        .format(&Rfc3339)
        .unwrap_or_else(|_| NEVER.into())
}

/// A moment of the wire as text; now when it is absent or out of range.
pub(crate) fn from_wire(moment: Option<&Timestamp>) -> String {
    moment.and_then(instant).map_or_else(now, text)
}

fn instant(moment: &Timestamp) -> Option<OffsetDateTime> {
    let nanos = i128::from(moment.seconds) * 1_000_000_000 + i128::from(moment.nanos);
    OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()
}

/// Reads what [`text`] wrote.
pub(crate) fn parse(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

/// Seconds since 1970 of such a text; 0 when it is none.
pub(crate) fn unix(text: &str) -> i64 {
    parse(text).map_or(0, OffsetDateTime::unix_timestamp)
}

/// Reads a moment as clients give it: seconds since 1970 with a fraction, RFC 3339, or a time ago such as `10m`.
pub(crate) fn from_client(text: &str) -> Option<OffsetDateTime> {
    if let Some(moment) = parse(text) {
        return Some(moment);
    }
    if let Some(ago) = duration(text) {
        return OffsetDateTime::now_utc().checked_sub(ago);
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().ok()?;
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: i64 = format!("{fraction:0<9}").parse().ok()?;
    let whole = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    whole.checked_add(time::Duration::nanoseconds(nanos))
}

/// A duration as Go writes it: `1h2m3.5s`.
fn duration(text: &str) -> Option<time::Duration> {
    let mut rest = text;
    let mut total = 0f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end = rest[end..]
            .find(|c: char| c.is_ascii_digit())
            .map_or(rest.len(), |n| end + n);
        total += number
            * match &rest[end..unit_end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then(|| time::Duration::seconds_f64(total))
}

/// How long ago in Docker's words: `3 minutes`, `About an hour`.
pub(crate) fn human(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds as f64 / 3600.0).round() as i64);
    match () {
        () if seconds < 1 => "Less than a second".into(),
        () if seconds == 1 => "1 second".into(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".into(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".into(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_trimmed_as_go_trims_them() {
        let moment = OffsetDateTime::from_unix_timestamp_nanos(1_500_000_000_120_000_000).unwrap();
        assert_eq!(text(moment), "2017-07-14T02:40:00.12Z");
        let whole = OffsetDateTime::from_unix_timestamp(1_500_000_000).unwrap();
        assert_eq!(text(whole), "2017-07-14T02:40:00Z");
        assert_eq!(parse(NEVER).map(text).as_deref(), Some(NEVER));
    }

    #[test]
    fn moments_of_clients() {
        let nanos = |text| from_client(text).map(OffsetDateTime::unix_timestamp_nanos);
        assert_eq!(nanos("1500000000"), Some(1_500_000_000_000_000_000));
        assert_eq!(nanos("1500000000.5"), Some(1_500_000_000_500_000_000));
        assert_eq!(nanos("1970-01-01T00:00:01Z"), Some(1_000_000_000));
        assert!(nanos("1h30m").is_some());
        for bad in ["", "x", "1.x", "5y", "1.0123456789"] {
            assert_eq!(nanos(bad), None, "{bad}");
        }
    }

    #[test]
    fn ages() {
        for (seconds, words) in [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (90, "About a minute"),
            (120, "2 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (172_800, "2 days"),
        ] {
            assert_eq!(human(seconds), words);
        }
    }
}
