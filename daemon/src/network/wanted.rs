//! What a create request asks of the networks, checked before anything is made.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proto::engine::{Config, EndpointSettings, HostConfig, NetworkingConfig};
use proto::error::ErrorKind;

use super::{BRIDGE, Mode, Network, Record, files, ipam, mac, ports, set_up};
use crate::App;
use crate::error::{Error, Result};

/// Checks what a container to be created asks for, puts the default mode in, and answers its networks by name.
pub(crate) fn wanted(
    app: &App,
    host: &mut HostConfig,
    config: &Config,
    asked: Option<NetworkingConfig>,
) -> Result<BTreeMap<String, EndpointSettings>> {
    // A client takes "not found" for a missing image and pulls it.
    let invalid = |e: Error| match e.is_not_found() {
        true => e.with_kind(ErrorKind::InvalidArgument),
        false => e,
    };
    let mode = app.network.mode(host).map_err(invalid)?;
    check_mode(&mode, host, config)?;
    host.network_mode = match &mode {
        Mode::None => "none".into(),
        Mode::Host => "host".into(),
        Mode::Network(name) => name.clone(),
        Mode::Container(other) => {
            // By id, for names change.
            let other = app.containers.find(other).map_err(invalid)?;
            format!("container:{}", other.id())
        }
    };
    ports::wanted(host, &config.exposed_ports)?;
    let mut networks = BTreeMap::new();
    for (name, settings) in asked.unwrap_or_default().endpoints_config {
        let name = match name.as_str() {
            "default" => host.network_mode.clone(),
            "none" | "host" => name,
            _ => {
                let record = app.network.record(&name);
                let record = record.ok_or_else(|| set_up::gone(&name)).map_err(invalid)?;
                record.name.clone()
            }
        };
        networks.insert(name, settings.unwrap_or_default());
    }
    let several = networks.keys().find(|name| **name != host.network_mode);
    if let (Some(other), false) = (several, matches!(mode, Mode::Network(_))) {
        return Err(Error::invalid(format!(
            "conflicting options: cannot connect a container in network mode {} to network {other}",
            host.network_mode
        )));
    }
    for (name, settings) in &networks {
        if let Some(record) = app.network.record(name) {
            check_endpoint(&record, settings)?;
        } else if has_wishes(settings) {
            return Err(Error::invalid(format!(
                "addresses, links and aliases need a network, which {name} is not"
            )));
        }
    }
    if !matches!(mode, Mode::Container(_)) {
        networks.entry(host.network_mode.clone()).or_default();
    }
    let given = networks.values().map(|n| n.mac_address.as_str());
    for mac in given.chain([config.mac_address.as_str()]) {
        if !mac.is_empty() {
            mac::parse(mac)?;
        }
    }
    check_links(app, &mode, host)?;
    Ok(networks)
}

/// What cannot go together with a network mode.
fn check_mode(mode: &Mode, host: &HostConfig, config: &Config) -> Result<()> {
    let given = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|l| !l.is_empty());
    let publishes =
        host.publish_all_ports || host.port_bindings.values().flatten().any(|b| !b.is_empty());
    let conflict = |what: &str| Err(Error::invalid(format!("conflicting options: {what}")));
    match mode {
        Mode::Host if given(&host.links) => conflict(
            "host type networking can't be used with links. This would result in undefined behavior",
        ),
        Mode::Container(_) if publishes => {
            conflict("port publishing and the container type network mode")
        }
        Mode::Container(_) if !config.exposed_ports.is_empty() && config.image.is_empty() => {
            conflict("port exposing and the container type network mode")
        }
        Mode::Container(_) if given(&host.links) => conflict(
            "container type network can't be used with links. This would result in undefined behavior",
        ),
        Mode::Container(_) if given(&host.dns) => conflict("dns and the network mode"),
        Mode::Container(_) if given(&host.extra_hosts) => {
            conflict("custom host-to-IP mapping and the network mode")
        }
        Mode::Container(_) if !config.mac_address.is_empty() => {
            conflict("mac-address and the network mode")
        }
        _ => Ok(()),
    }
}

fn has_wishes(settings: &EndpointSettings) -> bool {
    let ipam = settings.ipam_config.clone().unwrap_or_default();
    let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|l| !l.is_empty());
    !ipam.ipv4_address.is_empty()
        || !ipam.ipv6_address.is_empty()
        || some(&settings.links)
        || some(&settings.aliases)
}

/// Checks what is asked of a network that is known.
pub(crate) fn check_endpoint(record: &Record, settings: &EndpointSettings) -> Result<()> {
    let ipam = settings.ipam_config.clone().unwrap_or_default();
    if let Some(local) = ipam.link_local_ips.first() {
        return Err(Error::unimplemented(format!(
            "link-local addresses ({local}) are not supported"
        )));
    }
    for (text, v6) in [(&ipam.ipv4_address, false), (&ipam.ipv6_address, true)] {
        if text.is_empty() {
            continue;
        }
        let family = if v6 { "IPv6" } else { "IPv4" };
        let address = text
            .parse::<IpAddr>()
            .ok()
            .filter(|address| address.is_ipv6() == v6)
            .ok_or_else(|| Error::invalid(format!("invalid {family} address: {text}")))?;
        if !record.chosen {
            return Err(Error::invalid(
                "user specified IP address is supported only when connecting to networks with user configured subnets",
            ));
        }
        let subnets: Vec<ipam::Subnet> = super::options::pools(record)
            .iter()
            .map(ipam::Pool::subnet)
            .collect();
        if !subnets.iter().any(|subnet| subnet.has_host(address)) {
            return Err(Error::invalid(format!(
                "no configured subnet contains IP address {address}"
            )));
        }
    }
    let aliases = settings.aliases.as_ref().is_some_and(|a| !a.is_empty());
    if record.is_default() && aliases {
        return Err(Error::invalid(
            "network-scoped aliases are only supported for user-defined networks",
        ));
    }
    let links = settings.links.as_ref().is_some_and(|l| !l.is_empty());
    if record.is_default() && links {
        return Err(Error::invalid(
            "links of an endpoint are only supported for user-defined networks",
        ));
    }
    if !settings.mac_address.is_empty() {
        mac::parse(&settings.mac_address)?;
    }
    Ok(())
}

fn check_links(app: &App, mode: &Mode, host: &HostConfig) -> Result<()> {
    // On other networks they belong to the endpoint; clients send them here as well.
    let links = host.links.iter().flatten();
    for link in links.filter(|_| mode.is_default()) {
        let (target, _) = super::links::split_link(link);
        app.containers
            .find(target)
            .map_err(|_| Error::invalid(format!("could not get container for {target}")))?;
    }
    Ok(())
}

impl Network {
    /// What a container's network mode means.
    pub(crate) fn mode(&self, host: &HostConfig) -> Result<Mode> {
        let mode = match host.network_mode.as_str() {
            "" | "default" | BRIDGE if self.has_bridge() => Mode::Network(BRIDGE.into()),
            "" | "default" | "none" => Mode::None,
            "host" => Mode::Host,
            name => match name.split_once(':') {
                Some(("container", other)) if !other.is_empty() => {
                    Mode::Container(other.to_owned())
                }
                _ => {
                    let record = self.record(name).ok_or_else(|| set_up::gone(name))?;
                    Mode::Network(record.name.clone())
                }
            },
        };
        for entry in host.extra_hosts.iter().flatten() {
            files::split_extra_host(entry)?;
        }
        Ok(mode)
    }
}
