//! The networks as the API shows them, and what inspect and list say of a container's.

use std::collections::BTreeMap;

use proto::engine::{EndpointResource, EndpointSettings, Ipam, Network as Shown, NetworkSettings};
use sha2::{Digest as _, Sha256};

use super::{BRIDGE, Endpoint, Mode, Network, Record, Sandbox, ports, set_up};
use crate::App;
use crate::api::request::Filters;
use crate::container::Record as Container;
use crate::error::{Error, Result};

/// Filters of the list.
pub(crate) const FILTERS: [&str; 8] = [
    "dangling", "driver", "id", "label", "label!", "name", "scope", "type",
];

/// The networks that are not ours to make.
const FIXED: [&str; 2] = ["none", "host"];

/// An id that follows from another one.
pub(super) fn derived_id(id: &str, name: &str) -> String {
    hex::encode(Sha256::digest(format!("{id} {name}")))
}

/// The names under which others on a user's network find a container.
pub(super) fn dns_names(record: &Container, settings: &EndpointSettings) -> Vec<String> {
    let mut names = vec![record.name.clone()];
    let aliases = settings.aliases.iter().flatten().cloned();
    let hostname = Some(record.config.hostname.clone());
    for name in aliases
        .chain([record.short().to_owned()])
        .chain(hostname.filter(|h| !h.is_empty()))
    {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

impl Network {
    /// The networks that pass the filters.
    pub(crate) fn list(&self, filters: &Filters) -> Result<Vec<Shown>> {
        let dangling = filters.flag("dangling")?;
        if let Some(kind) = filters
            .get("type")
            .find(|kind| !matches!(*kind, "builtin" | "custom"))
        {
            return Err(Error::invalid(format!("invalid filter: 'type'='{kind}'")));
        }
        let mut list: Vec<Shown> = self.records().iter().map(|r| show(r)).collect();
        list.extend(
            FIXED
                .iter()
                .enumerate()
                .map(|(n, name)| self.fixed(n, name)),
        );
        list.retain(|network| {
            let builtin = network.name == BRIDGE || FIXED.contains(&network.name.as_str());
            let no_labels = BTreeMap::new();
            let labels = network.labels.as_ref().unwrap_or(&no_labels);
            filters.any("name", |part| network.name.contains(part))
                && filters.any("id", |start| network.id.starts_with(start))
                && filters.any("driver", |driver| driver == network.driver)
                && filters.any("scope", |scope| scope == network.scope)
                && filters.any("type", |kind| (kind == "builtin") == builtin)
                && filters.labels("label", labels)
                && dangling.is_none_or(|wanted| {
                    let dangles = !builtin && !self.is_used(&network.id);
                    wanted == dangles
                })
        });
        list.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.name.cmp(&b.name)));
        Ok(list)
    }

    /// The records of all networks, but for the fixed ones.
    pub(crate) fn records(&self) -> Vec<std::sync::Arc<Record>> {
        let state = self.inner.state();
        state.nets.values().map(|net| net.record.clone()).collect()
    }

    /// Whether a running container is on the network.
    pub(crate) fn is_used(&self, id: &str) -> bool {
        let state = self.inner.state();
        let mut sandboxes = state.sandboxes.values();
        sandboxes.any(|sandbox| sandbox.on(id).is_some())
    }

    /// Name and id of the fixed network that a user means.
    pub(crate) fn find_fixed(&self, text: &str) -> Option<(&'static str, String)> {
        let ids = &self.inner.fixed;
        FIXED
            .iter()
            .zip(ids)
            .find(|(name, id)| **name == text || (text.len() > 3 && id.starts_with(text)))
            .map(|(name, id)| (*name, id.clone()))
    }

    /// One network with its containers; `name_of` answers a container's name.
    pub(crate) fn inspect(
        &self,
        text: &str,
        name_of: impl Fn(&str) -> Option<String>,
    ) -> Result<Shown> {
        let Some(record) = self.record(text) else {
            let (name, _) = self.find_fixed(text).ok_or_else(|| set_up::gone(text))?;
            let at = FIXED.iter().position(|fixed| *fixed == name);
            let mut shown = self.fixed(at.unwrap_or_default(), name);
            shown.containers = Some(BTreeMap::new());
            return Ok(shown);
        };
        let mut network = show(&record);
        let sandboxes = self.inner.state().sandboxes.clone();
        let with_bits = |endpoint: &Endpoint, v6: bool| match endpoint.address(v6) {
            Some(address) => format!("{}/{}", address.ip, address.bits),
            None => String::new(),
        };
        let containers = sandboxes.values().filter_map(|sandbox| {
            let endpoint = sandbox.on(&record.id)?;
            let resource = EndpointResource {
                name: name_of(&sandbox.container).unwrap_or_default(),
                endpoint_id: endpoint.id.clone(),
                mac_address: endpoint.mac.clone(),
                ipv4_address: with_bits(endpoint, false),
                ipv6_address: with_bits(endpoint, true),
            };
            Some((sandbox.container.clone(), resource))
        });
        network.containers = Some(containers.collect());
        Ok(network)
    }

    fn fixed(&self, at: usize, name: &str) -> Shown {
        let created = self
            .records()
            .into_iter()
            .find(|record| record.is_default());
        Shown {
            name: name.to_owned(),
            id: self.inner.fixed[at].clone(),
            created: created
                .map(|record| record.created.clone())
                .unwrap_or_default(),
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
            ..Shown::default()
        }
    }

    /// What inspect and list say of a container's networks: what was asked for, and what it got.
    fn settings(
        &self,
        record: &Container,
        mode: &Mode,
        sandbox: Option<&Sandbox>,
    ) -> BTreeMap<String, EndpointSettings> {
        let mut networks = BTreeMap::new();
        if matches!(mode, Mode::Container(_)) {
            return networks;
        }
        for (name, asked) in &record.networks {
            let mut settings = asked.clone();
            let network = self.record(name);
            match (&network, self.find_fixed(name)) {
                (Some(network), _) => settings.network_id.clone_from(&network.id),
                (None, Some((_, id))) => settings.network_id = id,
                (None, None) => {}
            }
            if network
                .as_ref()
                .is_some_and(|network| !network.is_default())
            {
                settings.dns_names = Some(dns_names(record, asked));
            } else {
                // The default networks have no names of their own.
                settings.aliases = None;
            }
            let endpoint = network.and_then(|network| sandbox.and_then(|s| s.on(&network.id)));
            if let Some(endpoint) = endpoint {
                fill(&mut settings, endpoint);
            }
            networks.insert(name.clone(), settings);
        }
        networks
    }
}

fn fill(settings: &mut EndpointSettings, endpoint: &Endpoint) {
    settings.endpoint_id.clone_from(&endpoint.id);
    settings.mac_address.clone_from(&endpoint.mac);
    if let Some(address) = &endpoint.v4 {
        settings.ip_address = address.ip.to_string();
        settings.ip_prefix_len = address.bits.into();
        settings.gateway = address.gateway.map(|g| g.to_string()).unwrap_or_default();
    }
    if let Some(address) = &endpoint.v6 {
        settings.global_ipv6_address = address.ip.to_string();
        settings.global_ipv6_prefix_len = address.bits.into();
        settings.ipv6_gateway = address.gateway.map(|g| g.to_string()).unwrap_or_default();
    }
}

fn show(record: &Record) -> Shown {
    Shown {
        name: record.name.clone(),
        id: record.id.clone(),
        created: record.created.clone(),
        scope: "local".into(),
        driver: record.driver.clone(),
        enable_ipv4: record.ipv4,
        enable_ipv6: record.ipv6,
        ipam: record.ipam.clone(),
        internal: record.internal,
        attachable: record.attachable,
        options: Some(record.options.clone()),
        labels: Some(record.labels.clone()),
        ..Shown::default()
    }
}

/// What inspect says of the container's network.
pub(crate) fn container(app: &App, record: &Container) -> NetworkSettings {
    let mode = app.network.mode(&record.host).unwrap_or(Mode::None);
    let sandbox = app.network.sandbox(&record.id);
    let mut settings = NetworkSettings {
        networks: app.network.settings(record, &mode, sandbox.as_ref()),
        ..NetworkSettings::default()
    };
    let Some(sandbox) = sandbox else {
        return settings;
    };
    settings.sandbox_key = sandbox.netns.display().to_string();
    settings.sandbox_id.clone_from(&sandbox.id);
    settings.ports = ports::shown(&record.config.exposed_ports, &sandbox.ports);
    // The fields of old, which tell of the default network only.
    let default = settings.networks.get(BRIDGE).cloned();
    let default = default.unwrap_or_default();
    settings.bridge = Some(String::new());
    settings.hairpin_mode = Some(false);
    settings.link_local_ipv6_address = Some(String::new());
    settings.link_local_ipv6_prefix_len = Some(0);
    settings.endpoint_id = Some(default.endpoint_id);
    settings.gateway = Some(default.gateway);
    settings.global_ipv6_address = Some(default.global_ipv6_address);
    settings.global_ipv6_prefix_len = Some(default.global_ipv6_prefix_len);
    settings.ip_address = Some(default.ip_address);
    settings.ip_prefix_len = Some(default.ip_prefix_len);
    settings.ipv6_gateway = Some(default.ipv6_gateway);
    settings.mac_address = Some(default.mac_address);
    settings
}

/// The ports as a list shows them.
pub(crate) fn listed_ports(app: &App, record: &Container) -> Vec<proto::engine::Port> {
    let sandbox = app.network.sandbox(&record.id);
    let published = sandbox.map(|s| s.ports).unwrap_or_default();
    ports::listed(&record.config.exposed_ports, &published)
}
