//! The networks as the API shows them, and what a container's inspect and its files in /etc say of its network.

use std::collections::BTreeMap;

use proto::engine::{
    EndpointResource, EndpointSettings, HostConfig, Ipam, IpamConfig, Network as Shown,
};
use sha2::{Digest as _, Sha256};

use super::{BRIDGE, Endpoint, Mode, Network, files, ipam};
use crate::api::request::Filters;
use crate::error::{Error, Result};

/// Filters of the list.
pub(crate) const FILTERS: [&str; 8] = [
    "dangling", "driver", "id", "label", "label!", "name", "scope", "type",
];

/// What stands in a container's three files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EtcFiles {
    /// `/etc/hosts`
    pub(crate) hosts: String,
    /// `/etc/hostname`
    pub(crate) hostname: String,
    /// `/etc/resolv.conf`
    pub(crate) resolv: String,
}

/// An id that follows from another one.
pub(super) fn derived_id(id: &str, name: &str) -> String {
    hex::encode(Sha256::digest(format!("{id} {name}")))
}

impl Network {
    /// The id of a predefined network.
    fn id_of(&self, name: &str) -> String {
        match name {
            "none" => self.inner.fixed[0].clone(),
            "host" => self.inner.fixed[1].clone(),
            _ => self.inner.record().id,
        }
    }

    fn names(&self) -> Vec<&'static str> {
        let bridge = self.has_bridge().then_some(BRIDGE);
        bridge.into_iter().chain(["host", "none"]).collect()
    }

    /// The networks that pass the filters.
    pub(crate) fn list(&self, filters: &Filters) -> Result<Vec<Shown>> {
        let dangling = filters.flag("dangling")?;
        if let Some(kind) = filters
            .get("type")
            .find(|kind| !matches!(*kind, "builtin" | "custom"))
        {
            return Err(Error::invalid(format!("invalid filter: 'type'='{kind}'")));
        }
        let mut list: Vec<Shown> = self
            .names()
            .into_iter()
            .map(|name| self.show(name))
            .collect();
        list.retain(|network| {
            filters.any("name", |part| network.name.contains(part))
                && filters.any("id", |start| network.id.starts_with(start))
                && filters.any("driver", |driver| driver == network.driver)
                && filters.any("scope", |scope| scope == "local")
                && filters.any("type", |kind| kind == "builtin")
                && filters.labels("label", &BTreeMap::new())
                && dangling != Some(true)
        });
        Ok(list)
    }

    /// The name of the predefined network that a user means.
    pub(crate) fn find(&self, text: &str) -> Result<&'static str> {
        let names = self.names();
        let by_name = names.iter().find(|name| **name == text);
        let by_id = || {
            let mut fitting = names
                .iter()
                .filter(|name| self.id_of(name).starts_with(text));
            fitting.next().filter(|_| fitting.next().is_none())
        };
        by_name
            .or_else(|| if text.is_empty() { None } else { by_id() })
            .copied()
            .ok_or_else(|| Error::not_found(format!("network {text} not found")))
    }

    /// One network with its containers; `name_of` answers a container's name.
    pub(crate) fn inspect(
        &self,
        text: &str,
        name_of: impl Fn(&str) -> Option<String>,
    ) -> Result<Shown> {
        let name = self.find(text)?;
        let mut network = self.show(name);
        let mut containers = BTreeMap::new();
        if name == BRIDGE {
            for endpoint in self.inner.state().endpoints.values() {
                containers.insert(
                    endpoint.container.clone(),
                    EndpointResource {
                        name: name_of(&endpoint.container).unwrap_or_default(),
                        endpoint_id: endpoint.id.clone(),
                        mac_address: endpoint.mac.clone(),
                        ipv4_address: format!("{}/{}", endpoint.ip, endpoint.bits),
                        ipv6_address: String::new(),
                    },
                );
            }
        }
        network.containers = Some(containers);
        Ok(network)
    }

    fn show(&self, name: &str) -> Shown {
        let record = self.inner.record();
        let settings = &self.inner.settings;
        let mut network = Shown {
            name: name.to_owned(),
            id: self.id_of(name),
            created: record.created.clone(),
            scope: "local".into(),
            driver: match name {
                "none" => "null".into(),
                other => other.to_owned(),
            },
            enable_ipv4: true,
            ipam: Ipam {
                driver: "default".into(),
                options: None,
                config: None,
            },
            options: Some(BTreeMap::new()),
            labels: Some(BTreeMap::new()),
            containers: Some(BTreeMap::new()),
            ..Shown::default()
        };
        if name != BRIDGE {
            return network;
        }
        let interface = settings.bridge.as_ref().unwrap_or(&record.interface);
        let flag = |on: bool| on.to_string();
        network.options = Some(BTreeMap::from([
            (
                "com.docker.network.bridge.default_bridge".into(),
                flag(true),
            ),
            (
                "com.docker.network.bridge.enable_icc".into(),
                flag(settings.icc),
            ),
            (
                "com.docker.network.bridge.enable_ip_masquerade".into(),
                flag(settings.masquerade),
            ),
            (
                "com.docker.network.bridge.host_binding_ipv4".into(),
                "0.0.0.0".into(),
            ),
            ("com.docker.network.bridge.name".into(), interface.clone()),
            (
                "com.docker.network.driver.mtu".into(),
                settings.mtu.to_string(),
            ),
        ]));
        // A bridge of somebody else's has its own address, known once it is looked at.
        let set_up = self.inner.bridge.try_lock().ok();
        let set_up = set_up.and_then(|bridge| bridge.as_ref().map(|b| (b.gateway, b.subnet)));
        let recorded = || match &settings.bridge {
            None => record
                .address
                .as_deref()
                .and_then(|text| ipam::host_and_subnet(text).ok()),
            Some(_) => None,
        };
        if let Some((gateway, subnet)) = set_up.or_else(recorded) {
            network.ipam.config = Some(vec![IpamConfig {
                subnet: subnet.to_string(),
                gateway: gateway.to_string(),
                ..IpamConfig::default()
            }]);
        }
        network
    }

    /// What inspect and list say of a container's networks; `asked` is what the create request said.
    pub(crate) fn settings(
        &self,
        mode: &Mode,
        asked: &BTreeMap<String, EndpointSettings>,
        endpoint: Option<&Endpoint>,
    ) -> BTreeMap<String, EndpointSettings> {
        let name = match mode {
            Mode::None => "none",
            Mode::Host => "host",
            Mode::Bridge => BRIDGE,
            Mode::Container(_) => return BTreeMap::new(),
        };
        let asked = asked.get(name).or_else(|| asked.get("default"));
        let mut settings = asked.cloned().unwrap_or_default();
        // The default networks have no names of their own.
        settings.aliases = None;
        if let Some(endpoint) = endpoint {
            settings.endpoint_id.clone_from(&endpoint.id);
            settings.gateway = endpoint.gateway.to_string();
            settings.ip_address = endpoint.ip.to_string();
            settings.ip_prefix_len = endpoint.bits.into();
            settings.mac_address.clone_from(&endpoint.mac);
        }
        if endpoint.is_some() || matches!(mode, Mode::None | Mode::Host) {
            settings.network_id = self.id_of(name);
        }
        BTreeMap::from([(name.to_owned(), settings)])
    }

    /// The container's files in /etc. For [`Mode::Container`] they are the other container's, and this is not asked.
    pub(crate) fn etc_files(
        &self,
        mode: &Mode,
        endpoint: Option<&Endpoint>,
        hostname: &str,
        domainname: &str,
        host: &HostConfig,
    ) -> Result<EtcFiles> {
        let list = |given: &Option<Vec<String>>| given.clone().unwrap_or_default();
        let dns = files::Dns {
            servers: list(&host.dns),
            search: list(&host.dns_search),
            options: list(&host.dns_options),
        };
        let shares = *mode == Mode::Host;
        let resolv = files::resolv(
            &files::host_resolv(),
            &[&self.inner.settings.dns, &dns],
            shares,
        )?;
        let gateway = match mode {
            Mode::Host => Some(std::net::Ipv4Addr::LOCALHOST),
            _ => endpoint.map(|endpoint| endpoint.gateway),
        };
        let extra = list(&host.extra_hosts);
        let hosts = if shares {
            let mut text = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text + &files::extra_lines(&extra, gateway)?
        } else {
            let own = endpoint.map(|endpoint| endpoint.ip);
            files::hosts(hostname, domainname, own, &extra, gateway)?
        };
        Ok(EtcFiles {
            hosts,
            hostname: files::hostname(hostname),
            resolv,
        })
    }
}
