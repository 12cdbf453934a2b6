//! `[proxy_plugins.NAME]`: parts of the daemon that are other programs.

use std::collections::BTreeMap;

use super::file::File;
use super::{ConfigError, Proxy, ProxyKind, Value};

/// Names of our own parts, which no other program can have.
const OURS: [&str; 3] = ["overlayfs", "native", super::WALKING];

/// Reads the section.
pub(super) fn read(file: &mut File<'_>) -> Result<Vec<Proxy>, ConfigError> {
    let mut all = Vec::new();
    for name in file.sections("proxy_plugins") {
        let path = file.path().to_owned();
        let wrong = |what: &str| ConfigError::Proxy {
            path: path.clone(),
            name: name.clone(),
            what: what.to_owned(),
        };
        let section = ["proxy_plugins", name.as_str()];
        let at = |key| [section[0], section[1], key];
        let kind = match file.filled(&at("type"))?.as_deref() {
            Some("snapshot") => ProxyKind::Snapshot,
            Some("diff") => ProxyKind::Diff,
            Some(kind @ ("content" | "sandbox")) => {
                return Err(wrong(&format!("type {kind:?} is not implemented")));
            }
            Some(kind) => return Err(wrong(&format!("there is no type {kind:?}"))),
            None => return Err(wrong("type is missing")),
        };
        let address = file
            .filled(&at("address"))?
            .ok_or_else(|| wrong("address is missing"))?;
        let address = std::path::PathBuf::from(address.trim_start_matches("unix://"));
        if !address.is_absolute() {
            return Err(wrong("address must be the absolute path of a socket"));
        }
        if OURS.contains(&name.as_str()) {
            return Err(wrong("the name is one of our own"));
        }
        let capabilities = file.texts(&at("capabilities"))?.unwrap_or_default();
        let exports = match file.take(&at("exports")) {
            None => BTreeMap::new(),
            Some(Value::Table(table)) => table
                .into_iter()
                .map(|(key, value)| Some((key, value.as_str()?.to_owned())))
                .collect::<Option<_>>()
                .ok_or_else(|| wrong("exports must hold strings"))?,
            Some(_) => return Err(wrong("exports must be a table")),
        };
        all.push(Proxy {
            name: name.clone(),
            kind,
            address,
            capabilities,
            exports,
        });
    }
    Ok(all)
}

/// The section, as [`read`] takes it.
pub(super) fn to_toml(all: &[Proxy]) -> Value {
    let text = |text: &str| Value::String(text.to_owned());
    let sections = all.iter().map(|proxy| {
        let kind = match proxy.kind {
            ProxyKind::Snapshot => "snapshot",
            ProxyKind::Diff => "diff",
        };
        let capabilities = proxy.capabilities.iter().map(|c| text(c)).collect();
        let exports = proxy.exports.iter().map(|(k, v)| (k.clone(), text(v)));
        let section = [
            ("type", text(kind)),
            ("address", text(&proxy.address.display().to_string())),
            ("capabilities", Value::Array(capabilities)),
            ("exports", Value::Table(exports.collect())),
        ];
        let section = section.map(|(key, value)| (key.to_owned(), value));
        (
            proxy.name.clone(),
            Value::Table(section.into_iter().collect()),
        )
    });
    Value::Table(sections.collect())
}
