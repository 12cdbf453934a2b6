//! Wall clock as text and as protobuf: RFC 3339 with nanoseconds in UTC, trailing zeros left out, as Go prints it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A time as a protobuf timestamp.
pub(crate) fn timestamp(time: SystemTime) -> prost_types::Timestamp {
    prost_types::Timestamp::from(time)
}

/// `2026-11-24T04:45:12.5Z`.
pub(crate) fn rfc3339_nano(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let mut out = String::with_capacity(30);
    out.push_str(&seconds_text(since.as_secs()));
    push_fraction(&mut out, since.subsec_nanos());
    out.push('Z');
    out
}

/// Prints times of a log quickly: the text of the second is kept until the second changes.
#[derive(Debug, Default)]
pub(crate) struct Stamper {
    second: Option<u64>,
    text: String,
}

impl Stamper {
    /// Appends `time` to `out`.
    pub(crate) fn push(&mut self, out: &mut String, time: SystemTime) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        if self.second != Some(since.as_secs()) {
            self.second = Some(since.as_secs());
            self.text = seconds_text(since.as_secs());
        }
        out.push_str(&self.text);
        push_fraction(out, since.subsec_nanos());
        out.push('Z');
    }
}

fn push_fraction(out: &mut String, nanos: u32) {
    if nanos == 0 {
        return;
    }
    let digits = format!(".{nanos:09}");
    out.push_str(digits.trim_end_matches('0'));
}

fn seconds_text(seconds: u64) -> String {
    let (year, month, day) = civil(seconds / 86_400);
    let rest = seconds % 86_400;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// Year, month and day of a day counted from 1970-01-01, by eras of 400 years that begin in March.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// Reads what [`rfc3339_nano`] wrote; none if it is something else.
pub(crate) fn parse(text: &str) -> Option<SystemTime> {
    let body = text.strip_suffix('Z')?;
    let (seconds, fraction) = body.split_once('.').unwrap_or((body, ""));
    let timestamp: prost_types::Timestamp = format!("{seconds}Z").parse().ok()?;
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: u64 = format!("{fraction:0<9}").parse().ok()?;
    let whole =
        UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(timestamp.seconds).ok()?))?;
    whole.checked_add(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prints_as_go_does() {
        let at = |s, n| rfc3339_nano(UNIX_EPOCH + Duration::new(s, n));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_826_154, 500_000_000), "2000-02-29T12:09:14.5Z");
        assert_eq!(at(1_795_495_512, 1), "2026-11-24T04:45:12.000000001Z");
    }

    proptest! {
        #[test]
        fn reads_what_it_prints(s in 0u64..200_000_000_000, n in 0u32..1_000_000_000) {
            let time = UNIX_EPOCH + Duration::new(s, n);
            prop_assert_eq!(parse(&rfc3339_nano(time)), Some(time));
            let mut out = String::new();
            Stamper::default().push(&mut out, time);
            prop_assert_eq!(out, rfc3339_nano(time));
        }
    }
}
