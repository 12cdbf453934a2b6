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
    if fraction.len() > 19 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // what is finer than nanoseconds is cut off, as dockerd does
    let nanos: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let whole = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    whole.checked_add(time::Duration::nanoseconds(nanos))
}

/// Reads a duration as Go writes it: `1h2m3.5s`; none if it is another text or longer than Go can hold.
pub(crate) fn duration(text: &str) -> Option<time::Duration> {
    let mut rest = text;
    let mut total = 0_i128;
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let end = rest.find(|c| !is_number(c))?;
        let (number, after) = rest.split_at(end);
        let end = after.find(is_number).unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        let nanos = match unit {
            "h" => 3_600_000_000_000,
            "m" => 60_000_000_000,
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            "us" | "µs" | "μs" => 1000,
            "ns" => 1,
            _ => return None,
        };
        total = total.checked_add(times(number, nanos)?)?;
        rest = next;
    }
    let total = i64::try_from(total).ok()?;
    (!text.is_empty()).then(|| time::Duration::nanoseconds(total))
}

/// A decimal number times a whole one, cut to a whole one.
fn times(number: &str, unit: i64) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || number.len() > 40 || whole.len() + fraction.len() == 0
    {
        return None;
    }
    let whole: i64 = match whole {
        "" => 0,
        text => text.parse().ok()?,
    };
    let part: f64 = format!("0.{fraction}0").parse().ok()?;
    Some(i128::from(whole) * i128::from(unit) + (part * unit as f64) as i128)
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
        assert_eq!(nanos("1.0123456789"), Some(1_012_345_678));
        assert_eq!(nanos("1970-01-01T00:00:01Z"), Some(1_000_000_000));
        assert!(nanos("1h30m").is_some());
        for bad in ["", "x", "1.x", "5y", "1.01234567890123456789"] {
            assert_eq!(nanos(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations() {
        for (text, nanos) in [
            ("1h30m", 5_400_000_000_000),
            ("1m.5s", 60_500_000_000),
            ("2.s", 2_000_000_000),
            ("1µs1ns", 1001),
            ("1.5ms", 1_500_000),
            ("9223372036854775807ns", i128::from(i64::MAX)),
        ] {
            let read = duration(text).map(time::Duration::whole_nanoseconds);
            assert_eq!(read, Some(nanos), "{text}");
        }
        for bad in [
            "",
            "h",
            "1",
            "1x",
            "1h2",
            ".s",
            "1.2.3s",
            "9223372036854775808ns",
            "99999999999h",
            "1 s",
        ] {
            assert_eq!(duration(bad), None, "{bad}");
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
