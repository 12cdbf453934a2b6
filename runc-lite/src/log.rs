//! The log: to the file of `--log` in text or JSON, or to stderr.
//!
//! The format is that of runc's logging library, because shims parse it: the
//! caller shows the `msg` of the last line of level error to its user. Where a
//! log file is named, the final error goes to stderr as well, as bare text.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Format {
    /// key=value.
    #[default]
    Text,
    /// One object per line.
    Json,
}

/// Where lines go and which.
#[derive(Debug)]
struct Log {
    file: Option<File>,
    format: Format,
    debug: bool,
    trace: Option<String>,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Opens the log; called once, before the first line.
pub(crate) fn open(path: Option<&str>, format: Format, debug: bool) -> std::io::Result<()> {
    let file = match path {
        None | Some("") => None,
        Some(path) => Some(
            OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o644)
                .open(path)?,
        ),
    };
    let trace = std::env::var("TRACEPARENT").ok().filter(|t| !t.is_empty());
    // A second call cannot happen in one process; were there one, the first log stays.
    let _ = LOG.set(Log {
        file,
        format,
        debug,
        trace,
    });
    Ok(())
}

/// Writes a line of level error.
pub(crate) fn error(msg: &str) {
    write("error", msg);
    if LOG.get().is_some_and(|l| l.file.is_some()) {
        // Nothing can be done about a closed stderr.
        let _ = writeln!(std::io::stderr(), "{msg}");
    }
}

/// Writes a line of level warning.
pub(crate) fn warn(msg: &str) {
    write("warning", msg);
}

/// Writes a line of level debug, if asked for.
pub(crate) fn debug(msg: impl FnOnce() -> String) {
    if LOG.get().is_some_and(|l| l.debug) {
        write("debug", &msg());
    }
}

fn write(level: &str, msg: &str) {
    let default = Log {
        file: None,
        format: Format::Text,
        debug: false,
        trace: None,
    };
    let log = LOG.get().unwrap_or(&default);
    let line = line(log, level, msg, &rfc3339(now(), false));
    // A log that cannot be written must not stop a container.
    let _ = match &log.file {
        Some(file) => (&*file).write_all(line.as_bytes()),
        None => std::io::stderr().write_all(line.as_bytes()),
    };
}

fn line(log: &Log, level: &str, msg: &str, time: &str) -> String {
    match log.format {
        Format::Json => {
            let mut fields = serde_json::Map::new();
            fields.insert("level".into(), level.into());
            fields.insert("msg".into(), msg.into());
            fields.insert("time".into(), time.into());
            if let Some(trace) = &log.trace {
                fields.insert("traceparent".into(), trace.as_str().into());
            }
            serde_json::Value::Object(fields).to_string() + "\n"
        }
        Format::Text => {
            let trace = match &log.trace {
                Some(trace) => format!(" traceparent={trace}"),
                None => String::new(),
            };
            format!("time=\"{time}\" level={level} msg={}{trace}\n", quoted(msg))
        }
    }
}

/// Quotes a value the way logfmt readers expect: only where it needs it.
fn quoted(text: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if !text.is_empty() && text.chars().all(bare) {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c => out.push(c),
        }
    }
    out + "\""
}

/// Time since the epoch.
pub(crate) fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// A point in time as RFC 3339 in UTC, with nanoseconds if asked for.
pub(crate) fn rfc3339(since_epoch: Duration, nanos: bool) -> String {
    let secs = since_epoch.as_secs();
    let (days, rest) = (secs / 86_400, secs % 86_400);
    // Civil date from days: eras of 400 years, years that begin in March.
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (h, m, s) = (rest / 3600, rest % 3600 / 60, rest % 60);
    let fraction = match since_epoch.subsec_nanos() {
        n if nanos && n != 0 => {
            let digits = format!("{n:09}");
            format!(".{}", digits.trim_end_matches('0'))
        }
        _ => String::new(),
    };
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}{fraction}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right() {
        let at = |s| rfc3339(Duration::from_secs(s), true);
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_795_494_448), "2026-11-24T04:27:28Z");
        assert_eq!(
            rfc3339(Duration::new(1, 500_000_000), true),
            "1970-01-01T00:00:01.5Z"
        );
    }

    #[test]
    fn lines_carry_level_message_and_trace() {
        let mut log = Log {
            file: None,
            format: Format::Json,
            debug: false,
            trace: None,
        };
        assert_eq!(
            line(&log, "error", "a \"b\"", "T"),
            "{\"level\":\"error\",\"msg\":\"a \\\"b\\\"\",\"time\":\"T\"}\n"
        );
        log.format = Format::Text;
        log.trace = Some("00-ab-cd-01".into());
        assert_eq!(
            line(&log, "warning", "a b", "T"),
            "time=\"T\" level=warning msg=\"a b\" traceparent=00-ab-cd-01\n"
        );
    }
}
