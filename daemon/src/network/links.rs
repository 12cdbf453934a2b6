//! Links: on the default network by the file of hosts and by variables, on a user's network by names of the container's own.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::ports;
use crate::App;
use crate::container::Record;
use crate::error::{Error, Result};

/// Links on a user's network: the other name, and the container's name that it means.
pub(super) fn links(app: &App, given: &[String]) -> Result<BTreeMap<String, String>> {
    let read = |link: &String| {
        let (target, alias) = split_link(link);
        let target = app.containers.find(target)?.record().name.clone();
        Ok((alias.to_lowercase(), target))
    };
    given.iter().map(read).collect()
}

/// Splits `CONTAINER:ALIAS`, in which the second may be left out, and either may have a path before it.
pub(crate) fn split_link(link: &str) -> (&str, &str) {
    let last = |text: &'_ str| text.rfind('/').map_or(0, |at| at + 1);
    let (target, alias) = link.split_once(':').unwrap_or((link, link));
    (&target[last(target)..], &alias[last(alias)..])
}

/// A container that another one on the default network is linked to.
#[derive(Debug, Clone)]
pub(super) struct Linked {
    alias: String,
    pub(super) address: IpAddr,
    /// What stands in the file of hosts.
    pub(super) names: String,
    record: std::sync::Arc<Record>,
}

/// The links of the default network, to containers that run.
pub(super) fn linked(app: &App, record: &Record) -> Result<Vec<Linked>> {
    if !app.network.mode(&record.host)?.is_default() {
        return Ok(Vec::new());
    }
    let given = record.host.links.iter().flatten();
    given
        .map(|link| {
            let (target, alias) = split_link(link);
            let other = app.containers.find(target)?.record();
            let sandbox = app.network.sandbox(&other.id);
            let endpoint = sandbox.iter().flat_map(|s| &s.endpoints);
            let address = endpoint
                .filter(|e| e.name == super::BRIDGE)
                .find_map(|e| e.v4.as_ref().map(|a| a.ip))
                .ok_or_else(|| {
                    Error::conflict(format!(
                        "Cannot link to a non running container: /{} AS /{}/{alias}",
                        other.name, record.name
                    ))
                })?;
            Ok(Linked {
                alias: alias.to_owned(),
                address,
                names: format!("{alias} {} {}", other.config.hostname, other.name),
                record: other,
            })
        })
        .collect()
}

/// The variables by which a container knows those that it is linked to.
pub(crate) fn link_variables(app: &App, record: &Record) -> Result<Vec<String>> {
    let mut list = Vec::new();
    for link in linked(app, record)? {
        let prefix = link.alias.to_uppercase().replace('-', "_");
        let address = link.address;
        let exposed = link.record.config.exposed_ports.keys();
        let mut ports: Vec<(u16, String)> = exposed
            .filter_map(|key| ports::parse_port(key).ok())
            .collect();
        ports.sort();
        if let Some((port, protocol)) = ports.first() {
            list.push(format!("{prefix}_PORT={protocol}://{address}:{port}"));
        }
        for (port, protocol) in &ports {
            let name = format!("{prefix}_PORT_{port}_{}", protocol.to_uppercase());
            list.push(format!("{name}={protocol}://{address}:{port}"));
            list.push(format!("{name}_ADDR={address}"));
            list.push(format!("{name}_PORT={port}"));
            list.push(format!("{name}_PROTO={protocol}"));
        }
        list.push(format!("{prefix}_NAME=/{}/{}", record.name, link.alias));
        for variable in link.record.config.env.iter().flatten() {
            match variable.split_once('=') {
                Some(("HOME" | "PATH", _)) | None => {}
                Some((key, value)) => list.push(format!("{prefix}_ENV_{key}={value}")),
            }
        }
    }
    Ok(list)
}
