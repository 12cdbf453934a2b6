//! Logs of containers: what options are allowed, and how what the shim wrote is read again.
//!
//! The shim writes and rotates the files (json-file); this side only reads, and deletes them with the container.

pub(crate) mod json_file;
pub(crate) mod read;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::config::Config;
use crate::container::Record;
use crate::error::{Error, Result};

/// The log of a container; older parts lie beside it as `.1`, `.2` and so on.
pub(crate) fn path(config: &Config, id: &str) -> PathBuf {
    config.container_dir(id).join(format!("{id}-json.log"))
}

/// What each record of the log carries by the options `labels`, `env` and `tag`.
pub(crate) fn attributes(record: &Record) -> BTreeMap<String, String> {
    let options = &record.host.log_config.config;
    let names = |key: &str| {
        let list = options.get(key).map_or("", String::as_str);
        let list: Vec<String> = list.split(',').map(|n| n.trim().to_owned()).collect();
        list
    };
    let mut all = BTreeMap::new();
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
