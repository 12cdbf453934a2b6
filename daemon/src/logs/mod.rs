//! Logs of containers: what options are allowed, and how what the shim wrote is read again.
//!
//! The shim writes and rotates the files (json-file); this side only reads, passes on, and deletes them with the container.

pub(crate) mod forward;
pub(crate) mod json_file;
mod part;
pub(crate) mod read;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::config::{Config, parse_flag};
use crate::container::Record;
use crate::error::{Error, Result};

/// The log of a container; older parts lie beside it as `.1`, `.2` and so on, or `.1.gz` where the shim has compressed them.
pub(crate) fn path(config: &Config, id: &str) -> PathBuf {
    config.container_dir(id).join(format!("{id}-json.log"))
}

/// Docker's two drivers whose logs can be read: one format of its own, and one that is nobody else's business, for which ours
/// takes the same.
const JSON_FILE: &str = "json-file";
const LOCAL: &str = "local";

/// Whether the shim writes a file that can be read again.
pub(crate) fn is_file(driver: &str) -> bool {
    matches!(driver, JSON_FILE | LOCAL)
}

/// Whether the shim writes a file, which those drivers have too that pass the log on.
pub(crate) fn is_kept(driver: &str) -> bool {
    is_file(driver) || forward::is_forwarded(driver)
}

/// How a log is bounded when nobody says: size of a part and number of parts. Docker leaves json-file without a bound.
pub(crate) fn bound(driver: &str) -> [(&'static str, &'static str); 2] {
    match driver {
        LOCAL | forward::JOURNALD | forward::SYSLOG => [("max-size", "20m"), ("max-file", "5")],
        _ => [("max-size", "100m"), ("max-file", "3")],
    }
}

/// The size of a part and the number of parts of a container's log, as the shim takes them. A size of `-1` is no bound.
pub(crate) fn limits(
    driver: &str,
    options: &BTreeMap<String, String>,
) -> Vec<(&'static str, String)> {
    let [(size_key, size), (files_key, files)] = bound(driver);
    let own = |key: &str| options.get(key).map(String::as_str);
    // json-file with a size of its own has one part unless it says so, as in Docker.
    let files = match own(size_key) {
        Some(_) if driver == JSON_FILE => "1",
        _ => files,
    };
    let files = own(files_key).unwrap_or(files).to_owned();
    let size = own(size_key).unwrap_or(size);
    let bytes = crate::config::parse_size(size).filter(|bytes| *bytes > 0);
    let Some(bytes) = bytes else {
        return Vec::new();
    };
    // Docker compresses the older parts of a local log unless it is told not to.
    let compress = own("compress").map_or(driver == LOCAL, |text| parse_flag(text) == Some(true))
        && files != "1";
    let mut limits = vec![(size_key, bytes.to_string()), (files_key, files)];
    if compress {
        limits.push(("compress", "true".to_owned()));
    }
    limits
}

/// What each record of the log carries by the options `labels`, `env` and `tag`.
pub(crate) fn attributes(record: &Record) -> BTreeMap<String, String> {
    let options = &record.host.log_config.config;
    let names = |key: &str| {
        let list = options.get(key).map_or("", String::as_str);
        let list: Vec<String> = list.split(',').map(|n| n.trim().to_owned()).collect();
        list
    };
    let pattern = |key: &str| {
        let text = options.get(key).filter(|text| !text.is_empty())?;
        // Checked when the container was made.
        regex::Regex::new(text).ok()
    };
    let mut all = BTreeMap::new();
    if let Some(pattern) = pattern("labels-regex") {
        let labels = record.config.labels.iter();
        let named = labels.filter(|(name, _)| pattern.is_match(name));
        all.extend(named.map(|(name, value)| (name.clone(), value.clone())));
    }
    if let Some(pattern) = pattern("env-regex") {
        let variables = record.config.env.iter().flatten();
        let pairs = variables.filter_map(|variable| variable.split_once('='));
        let named = pairs.filter(|(name, _)| pattern.is_match(name));
        all.extend(named.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    for name in names("labels") {
        if let Some(value) = record.config.labels.get(&name) {
            all.insert(name, value.clone());
        }
    }
    for name in names("env") {
        let mut variables = record.config.env.iter().flatten();
        let found = variables.find_map(|v| v.strip_prefix(&name)?.strip_prefix('='));
        if let Some(value) = found {
            all.insert(name, value.to_owned());
        }
    }
    if let Some(tag) = options.get("tag").filter(|tag| !tag.is_empty()) {
        all.insert("tag".into(), expand(tag, record));
    }
    all
}

/// The usual placeholders of a tag.
fn expand(tag: &str, record: &Record) -> String {
    let image = record
        .image
        .strip_prefix("sha256:")
        .unwrap_or(&record.image);
    [
        ("{{.ID}}", record.short()),
        ("{{.FullID}}", record.id.as_str()),
        ("{{.Name}}", record.name.as_str()),
        ("{{.ImageID}}", image.get(..12).unwrap_or(image)),
        ("{{.ImageFullID}}", record.image.as_str()),
        ("{{.ImageName}}", record.config.image.as_str()),
        ("{{.DaemonName}}", "docker"),
    ]
    .iter()
    .fold(tag.to_owned(), |tag, (name, value)| {
        tag.replace(name, value)
    })
}

/// Escapes a value for the query of a URI; slashes stay readable.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                out.push(byte as char);
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// Options of the drivers that write files.
const FILES: &[&str] = &["max-size", "max-file", "compress"];
/// What each line carries.
const LINES: &[&str] = &["labels", "labels-regex", "env", "env-regex", "tag"];
/// How a container waits for its log.
const MODE: &[&str] = &["mode", "max-buffer-size"];
const OF_SYSLOG: &[&str] = &["syslog-address", "syslog-facility", "syslog-format"];

/// Checks a log driver and its options.
pub(crate) fn check<'a>(
    driver: &str,
    options: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<()> {
    let known: &[&[&str]] = match driver {
        JSON_FILE => &[FILES, LINES, MODE],
        LOCAL => &[FILES, MODE],
        "none" => &[MODE],
        forward::JOURNALD => &[LINES, MODE],
        forward::SYSLOG => &[LINES, MODE, OF_SYSLOG],
        "gelf" | "fluentd" | "awslogs" | "splunk" | "etwlogs" | "gcplogs" => {
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
    let options: BTreeMap<&str, &str> = options.collect();
    for (&key, &value) in &options {
        if !known.iter().any(|group| group.contains(&key)) {
            return Err(Error::invalid(format!(
                "unknown log opt '{key}' for {driver} log driver"
            )));
        }
        if driver == forward::SYSLOG {
            forward::check_syslog(key, value)?;
        }
        let good = match key {
            "max-size" => crate::config::parse_size(value).is_some_and(|n| n > 0) || value == "-1",
            "max-file" => value.parse::<u32>().is_ok_and(|n| n > 0),
            "mode" => value == "blocking",
            "compress" => parse_flag(value).is_some(),
            "labels-regex" | "env-regex" => regex::Regex::new(value).is_ok(),
            _ => true,
        };
        if !good {
            return Err(Error::invalid(format!(
                "log opt {key}={value} is not supported by the {driver} log driver"
            )));
        }
    }
    let owned = |(k, v): (&&str, &&str)| ((*k).to_owned(), (*v).to_owned());
    let asked = options
        .get("compress")
        .is_some_and(|value| parse_flag(value) == Some(true));
    let limits = limits(driver, &options.iter().map(owned).collect());
    if asked && !limits.iter().any(|(key, _)| *key == "compress") {
        return Err(Error::invalid(
            "compress cannot be true when max-file is less than 2 or max-size is not set",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_bounded_unless_somebody_says_otherwise() {
        let limits = |driver: &str, given: &[(&str, &str)]| {
            let given = given
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            let limits = limits(driver, &given.collect());
            limits
                .iter()
                .map(|(k, v)| format!("{k}={v}"))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(limits(JSON_FILE, &[]), "max-size=104857600 max-file=3");
        assert_eq!(
            limits(JSON_FILE, &[("max-size", "10m")]),
            "max-size=10485760 max-file=1"
        );
        assert_eq!(
            limits(JSON_FILE, &[("max-file", "7")]),
            "max-size=104857600 max-file=7"
        );
        assert_eq!(limits(JSON_FILE, &[("max-size", "-1")]), "");
        assert_eq!(
            limits(LOCAL, &[("max-size", "1k")]),
            "max-size=1024 max-file=5 compress=true"
        );
        assert_eq!(
            limits(LOCAL, &[("compress", "false")]),
            "max-size=20971520 max-file=5"
        );
        assert_eq!(
            limits(JSON_FILE, &[("compress", "true")]),
            "max-size=104857600 max-file=3 compress=true"
        );
    }

    #[test]
    fn compression_needs_older_parts() {
        let told = |given: &[(&'static str, &'static str)]| {
            check(JSON_FILE, given.iter().copied()).map_err(|e| e.to_string())
        };
        told(&[("compress", "true")]).unwrap();
        told(&[("compress", "1"), ("max-size", "1m"), ("max-file", "2")]).unwrap();
        told(&[("compress", "false"), ("max-size", "1m")]).unwrap();
        for bad in [
            [("compress", "true"), ("max-size", "1m")],
            [("compress", "true"), ("max-file", "1")],
        ] {
            assert!(told(&bad).unwrap_err().contains("max-file is less than 2"));
        }
        assert!(told(&[("compress", "yes")]).is_err());
    }
}
