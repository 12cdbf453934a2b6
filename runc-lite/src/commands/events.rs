//! `events`: what a container uses, once or again and again, and its OOM kills.

use std::time::Duration;

use super::{CommandError, Container, Context, refuse, say};
use crate::args::Parsed;
use crate::error::Doing as _;
use crate::state::Status;

pub(super) fn run(context: &Context, parsed: &Parsed) -> Result<(), CommandError> {
    let container = context.container(parsed)?;
    let interval = match parsed.value("interval") {
        None => Duration::from_secs(5),
        Some(text) => match duration(text) {
            Some(interval) if !interval.is_zero() => interval,
            _ => return refuse("duration interval must be greater than 0"),
        },
    };
    if container.status() == Status::Stopped {
        return refuse(format!(
            "container with id {} is not running",
            container.state.id
        ));
    }
    if parsed.switch("stats") {
        return stats(&container);
    }
    let mut seen = container.cgroup()?.oom_kills()?.unwrap_or(0);
    loop {
        std::thread::sleep(interval);
        if container.status() == Status::Stopped {
            return Ok(());
        }
        let kills = container.cgroup()?.oom_kills()?.unwrap_or(0);
        for _ in seen..kills {
            print("oom", &container.state.id, None)?;
        }
        seen = kills;
        stats(&container)?;
    }
}

fn stats(container: &Container) -> Result<(), CommandError> {
    let stats = container.cgroup()?.stats()?;
    let data = serde_json::to_value(&stats)
        .map_err(std::io::Error::from)
        .doing(|| "print the statistics")?;
    print("stats", &container.state.id, Some(data))
}

fn print(kind: &str, id: &str, data: Option<serde_json::Value>) -> Result<(), CommandError> {
    let mut event = serde_json::json!({"type": kind, "id": id});
    if let Some(data) = data {
        event["data"] = data;
    }
    say(format_args!("{event}\n"));
    Ok(())
}

/// Reads Go's `5s`, `1m30s`, `200ms`.
fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..]
            .find(|c: char| c.is_ascii_digit())
            .map_or(rest.len(), |n| digits + n);
        let seconds = match &rest[digits..unit_end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += Duration::try_from_secs_f64(number * seconds).ok()?;
        rest = &rest[unit_end..];
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_go() {
        assert_eq!(duration("5s"), Some(Duration::from_secs(5)));
        assert_eq!(duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("200ms"), Some(Duration::from_millis(200)));
        for bad in ["5", "x", "5d", "-1s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
