//! Moments: as users write them, as the daemon's queries want them, as lists show them.

use crate::client::{Client, ClientError};

/// The moment of a `--since` or `--until`: Unix seconds as they are, a duration back from now, or a date.
pub(crate) fn moment(text: &str) -> Result<String, String> {
    use time::format_description::well_known::Rfc3339;
    if text.is_empty()
        || text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        return Ok(text.to_string());
    }
    if let Ok(nanos) = crate::options::values::float_duration(text) {
        let at = time::OffsetDateTime::now_utc() - time::Duration::nanoseconds(nanos);
        return Ok(stamp(at));
    }
    let with_zone = |text: &str| time::OffsetDateTime::parse(text, &Rfc3339).ok();
    let full = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        16 => format!("{text}:00Z"),
        _ if text.contains('T')
            && !text.ends_with('Z')
            && !text
                .split('T')
                .nth(1)
                .is_some_and(|clock| clock.contains(['+', '-'])) =>
        {
            format!("{text}Z")
        }
        _ => text.to_string(),
    };
    with_zone(&full)
        .map(stamp)
        .ok_or_else(|| format!("failed to parse value as time or duration: {text:?}"))
}

/// A moment as the daemon's queries want it: Unix seconds with nine places.
pub(crate) fn stamp(at: time::OffsetDateTime) -> String {
    format!("{}.{:09}", at.unix_timestamp(), at.nanosecond())
}

/// Reads what [`stamp`] writes.
pub(crate) fn from_stamp(text: &str) -> Option<time::OffsetDateTime> {
    let (seconds, part) = text.split_once('.').unwrap_or((text, ""));
    let part: i64 = format!("{part:0<9}").get(..9)?.parse().ok()?;
    let at = time::OffsetDateTime::from_unix_timestamp(seconds.parse().ok()?).ok()?;
    Some(at + time::Duration::nanoseconds(part))
}

/// A moment of our clock on the daemon's, which may go differently when it is another machine's.
pub(crate) async fn on_daemons_clock(
    client: &Client,
    at: time::OffsetDateTime,
) -> Result<time::OffsetDateTime, ClientError> {
    #[derive(serde::Deserialize)]
    struct Clock {
        #[serde(rename = "SystemTime", default)]
        now: String,
    }
    if client.is_local() {
        return Ok(at);
    }
    let clock: Clock = client.get("/info").json().await?;
    let format = &time::format_description::well_known::Rfc3339;
    Ok(match time::OffsetDateTime::parse(&clock.now, format) {
        Ok(theirs) => at + (theirs - time::OffsetDateTime::now_utc()),
        Err(_) => at,
    })
}

/// A point in time as Docker's lists write it, on the user's clock.
pub(crate) fn long_time(unix: i64) -> String {
    let at =
        time::OffsetDateTime::from_unix_timestamp(unix).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let (at, zone) = crate::format::local(at);
    let (clock, offset) = (at.time(), at.offset());
    format!(
        "{} {:02}:{:02}:{:02} {}{:02}{:02} {zone}",
        at.date(),
        clock.hour(),
        clock.minute(),
        clock.second(),
        if offset.is_negative() { '-' } else { '+' },
        offset.whole_hours().abs(),
        offset.minutes_past_hour().abs(),
    )
}

/// The end of a time in RFC 3339: `Z`, or how far the clock is from UTC.
pub(crate) fn zone_mark(offset: time::UtcOffset) -> String {
    if offset.is_utc() {
        return "Z".to_string();
    }
    let sign = if offset.is_negative() { '-' } else { '+' };
    format!(
        "{sign}{:02}:{:02}",
        offset.whole_hours().abs(),
        offset.minutes_past_hour().abs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_three_forms() {
        assert_eq!(moment("1700000000").unwrap(), "1700000000");
        assert_eq!(
            moment("2023-11-14T22:13:20Z").unwrap(),
            "1700000000.000000000"
        );
        assert_eq!(moment("2023-11-14").unwrap(), "1699920000.000000000");
        assert!(moment("5m").unwrap().contains('.'));
        assert!(moment("soon").is_err());
    }

    #[test]
    fn stamps_are_read_as_written() {
        let at = from_stamp("1700000000.5").unwrap();
        assert_eq!(stamp(at), "1700000000.500000000");
        assert_eq!(
            from_stamp("1700000000").map(stamp).unwrap(),
            "1700000000.000000000"
        );
        assert_eq!(from_stamp("x"), None);
    }

    #[test]
    fn times_are_written_in_full() {
        let text = long_time(1_700_000_000);
        assert!(
            text.starts_with("2023-11-1") && text.contains(":13:20 "),
            "{text}"
        );
        assert_eq!(zone_mark(time::UtcOffset::UTC), "Z");
        assert_eq!(
            zone_mark(time::UtcOffset::from_hms(-3, -30, 0).unwrap()),
            "-03:30"
        );
    }
}
