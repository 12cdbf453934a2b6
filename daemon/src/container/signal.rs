//! Signals by number or name, as Docker takes them: `9`, `KILL`, `SIGKILL`, `RTMIN+3`.

use crate::error::{Error, Result};

const RTMIN: u32 = 34;
const RTMAX: u32 = 64;

/// The number of a signal; none if it is none.
pub(crate) fn parse(text: &str) -> Option<u32> {
    if let Ok(number) = text.parse::<u32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = match (bare.strip_prefix("RTMIN"), bare.strip_prefix("RTMAX")) {
        (Some(""), _) => Some(RTMIN),
        (_, Some("")) => Some(RTMAX),
        (Some(plus), _) => plus
            .strip_prefix('+')?
            .parse::<u32>()
            .ok()?
            .checked_add(RTMIN),
        (_, Some(minus)) => RTMAX.checked_sub(minus.strip_prefix('-')?.parse().ok()?),
        (None, None) => {
            let name = match bare {
                "CLD" => "CHLD",
                "POLL" => "IO",
                other => other,
            };
            return format!("SIG{name}")
                .parse::<nix::sys::signal::Signal>()
                .ok()
                .and_then(|signal| u32::try_from(signal as i32).ok());
        }
    };
    real_time.filter(|number| (RTMIN..=RTMAX).contains(number))
}

/// The number of a signal that a client gave; empty means `default`.
pub(crate) fn given(text: &str, default: u32) -> Result<u32> {
    match text {
        "" => Ok(default),
        text => parse(text).ok_or_else(|| Error::invalid(format!("invalid signal: {text}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("9", Some(9)),
            ("KILL", Some(9)),
            ("sigterm", Some(15)),
            ("SIGWINCH", Some(28)),
            ("RTMIN+3", Some(37)),
            ("SIGRTMAX-1", Some(63)),
            ("0", None),
            ("65", None),
            ("RTMIN+99", None),
            ("NOPE", None),
            ("", None),
        ] {
            assert_eq!(parse(text), number, "{text}");
        }
    }
}
