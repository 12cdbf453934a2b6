//! Logs of containers: what options are allowed, and how what the shim wrote is read again.
//!
//! The shim writes and rotates the files (json-file); this side only reads, and deletes them with the container.

use crate::error::{Error, Result};

/// Checks a log driver and its options.
pub(crate) fn check<'a>(
    driver: &str,
    options: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<()> {
    let known: &[&str] = match driver {
        "json-file" => &[
            "max-size",
            "max-file",
            "labels",
            "labels-regex",
            "env",
            "env-regex",
            "tag",
            "mode",
            "max-buffer-size",
        ],
        "none" => &["mode", "max-buffer-size"],
        "journald" | "syslog" | "local" | "gelf" | "fluentd" | "awslogs" | "splunk" | "etwlogs"
        | "gcplogs" => {
            return Err(Error::unimplemented(format!(
                "log driver {driver} is not supported yet"
            )));
        }
        other => {
            return Err(Error::invalid(format!(
                "logger: no log driver named '{other}' is registered"
            )));
        }
    };
    for (key, value) in options {
        if !known.contains(&key) {
            return Err(Error::invalid(format!(
                "unknown log opt '{key}' for {driver} log driver"
            )));
        }
        let good = match key {
            "max-size" => crate::config::parse_size(value).is_some_and(|n| n > 0) || value == "-1",
            "max-file" => value.parse::<u32>().is_ok_and(|n| n > 0),
            "mode" => value == "blocking",
            _ => true,
        };
        if !good {
            return Err(Error::invalid(format!(
                "log opt {key}={value} is not supported by the {driver} log driver"
            )));
        }
    }
    Ok(())
}
