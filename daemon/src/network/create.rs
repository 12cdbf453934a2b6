//! Making and removing networks. Everything is checked before anything is made, and the record is written before the bridge is
//! made and removed after it: no bridge of ours is ever without one, and what a killed call left, the next start sets up.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use proto::engine::{Ipam, IpamConfig, NetworkCreate};

use super::ipam::{self, Subnet};
use super::store::{KIND, Record};
use super::{BRIDGE, Net, Network, bridge, mac, options, set_up};
use crate::db::Change;
use crate::error::{Error, Result};

/// Names that no user's network can have.
const PREDEFINED: [&str; 5] = [BRIDGE, "host", "none", "default", "container"];

impl Network {
    /// Makes a network.
    pub(crate) async fn create(&self, body: NetworkCreate) -> Result<Arc<Record>> {
        check(&body)?;
        let inner = &self.inner;
        let record = {
            let _turn = inner.turn.lock().await;
            let record = self.plan(body).await?;
            // Durable before it is made: a bridge without a record would be nobody's.
            inner.db.put(KIND, &record.id, &record).await?;
            let mut state = inner.state();
            let net = Net::new(record.clone(), &BTreeMap::new());
            state.nets.insert(record.id.clone(), net);
            record
        };
        match inner.link_of(&record.id).await {
            Ok((record, _)) => Ok(record),
            Err(e) => {
                let undone = self.forget(&record).await;
                if let Err(left) = undone {
                    tracing::warn!("take network {} back: {left}", record.name);
                }
                Err(e)
            }
        }
    }

    /// Removes a network on which no container is.
    pub(crate) async fn remove(&self, record: &Record) -> Result<()> {
        if record.is_default() {
            return Err(Error::forbidden(format!(
                "{} is a pre-defined network and cannot be removed",
                record.name
            )));
        }
        // What has just been disconnected may still be on its way out.
        self.settle().await;
        self.forget(record).await
    }

    async fn forget(&self, record: &Record) -> Result<()> {
        let inner = &self.inner;
        let _turn = inner.turn.lock().await;
        {
            let mut state = inner.state();
            let user = state
                .sandboxes
                .values()
                .find(|s| s.on(&record.id).is_some());
            if let Some(sandbox) = user {
                return Err(Error::forbidden(format!(
                    "error while removing network: network {} has active endpoints (container:{:?})",
                    record.name, sandbox.container
                )));
            }
            // From here on nobody can be connected to it.
            if state.nets.remove(&record.id).is_none() {
                return Err(set_up::gone(&record.name));
            }
        }
        let outcome = async {
            inner.apply().await?;
            inner.remove_bridge(record).await?;
            inner.db.write(vec![Change::delete(KIND, &record.id)]).await
        };
        let outcome = outcome.await;
        if outcome.is_err() {
            let net = Net::new(record.clone(), &BTreeMap::new());
            inner.state().nets.insert(record.id.clone(), net);
        }
        outcome
    }

    /// The record of a network to be made, with everything that was left to us put in.
    async fn plan(&self, body: NetworkCreate) -> Result<Record> {
        if self.record_named(&body.name).is_some() {
            return Err(Error::new(
                proto::error::ErrorKind::AlreadyExists,
                format!("network with name {} already exists", body.name),
            ));
        }
        let driver = match body.driver.as_str() {
            "" | "default" => BRIDGE.to_owned(),
            driver => driver.to_owned(),
        };
        let options = body.options.unwrap_or_default();
        let id = crate::random::hex(32);
        let mut record = Record {
            version: 1,
            interface: match options.get("com.docker.network.bridge.name") {
                Some(name) => name.clone(),
                None => format!("br-{}", &id[..12]),
            },
            id,
            name: body.name,
            created: crate::images::now(),
            mac: mac::random(),
            address: None,
            ipv4: body.enable_ipv4.unwrap_or(true),
            ipv6: body.enable_ipv6.unwrap_or(false),
            internal: body.internal,
            attachable: body.attachable,
            ipam: body.ipam.unwrap_or_default(),
            chosen: false,
            labels: body.labels.unwrap_or_default(),
            options,
            other: BTreeMap::new(),
            driver,
        };
        if !record.ipv4 && !record.ipv6 {
            return Err(Error::invalid("IPv4 or IPv6 must be enabled on a network"));
        }
        options::check(&record)?;
        self.plan_parent(&mut record).await?;
        self.plan_addresses(&mut record).await?;
        Ok(record)
    }

    /// Checks the interface of the host that the network uses, or that nobody else uses the bridge's name.
    async fn plan_parent(&self, record: &mut Record) -> Result<()> {
        let handle = bridge::connect()?;
        if record.driver != BRIDGE {
            record.interface.clear();
            let Some(parent) = record.option("parent").map(str::to_owned) else {
                return Err(Error::unimplemented(format!(
                    "a {} network without the option parent needs a dummy interface, which is not supported",
                    record.driver
                )));
            };
            if bridge::find(&handle, &parent).await?.is_none() {
                return Err(Error::invalid(format!(
                    "invalid parent interface {parent:?}: it does not exist"
                )));
            }
            return Ok(());
        }
        let used = bridge::find(&handle, &record.interface).await?.is_some();
        let known = {
            let state = self.inner.state();
            let mut nets = state.nets.values();
            nets.any(|net| net.record.interface == record.interface)
        };
        match used || known {
            true => Err(Error::conflict(format!(
                "the interface {} of network {} exists already",
                record.interface, record.name
            ))),
            false => Ok(()),
        }
    }

    async fn plan_addresses(&self, record: &mut Record) -> Result<()> {
        let driver = std::mem::take(&mut record.ipam.driver);
        if !matches!(driver.as_str(), "" | "default" | "null") {
            return Err(Error::not_found(format!(
                "could not find IPAM plugin: {driver}"
            )));
        }
        let mut configs = record.ipam.config.take().unwrap_or_default();
        configs.retain(|config| *config != IpamConfig::default());
        record.chosen = configs.iter().any(|config| !config.subnet.is_empty());
        let routes = bridge::routed(&bridge::connect()?, None).await?;
        for v6 in [false, true] {
            let wanted = if v6 { record.ipv6 } else { record.ipv4 };
            let there = configs.iter().any(|config| {
                let subnet = config.subnet.parse::<Subnet>();
                subnet.map_or(!v6, |subnet| subnet.is_v6() == v6)
            });
            match (wanted, there) {
                (true, false) => {
                    let mut config = IpamConfig::default();
                    if v6 {
                        config.subnet = self.unique_local().to_string();
                    }
                    configs.push(config);
                }
                (false, true) => {
                    return Err(Error::invalid(format!(
                        "a subnet of IPv{0} is given for a network without IPv{0}",
                        if v6 { 6 } else { 4 }
                    )));
                }
                _ => {}
            }
        }
        let mut taken: Vec<Subnet> = {
            let state = self.inner.state();
            let nets = state.nets.values();
            nets.flat_map(|net| net.pools.iter().map(ipam::Pool::subnet))
                .collect()
        };
        for config in &mut configs {
            let subnet = self.complete(config, &routes, &taken, &record.name)?;
            // A network without a way out of its own leaves the gateway to whoever has it.
            let internal = record.driver != BRIDGE && record.internal;
            if config.gateway.is_empty() && !internal {
                config.gateway = first_free(config, subnet).to_string();
            }
            taken.push(subnet);
        }
        record.ipam = Ipam {
            driver: "default".into(),
            options: Some(record.ipam.options.take().unwrap_or_default()),
            config: Some(configs),
        };
        Ok(())
    }

    fn complete(
        &self,
        config: &mut IpamConfig,
        routes: &[Subnet],
        taken: &[Subnet],
        name: &str,
    ) -> Result<Subnet> {
        let invalid = |e: ipam::IpamError| Error::invalid(e.to_string());
        let subnet = if config.subnet.is_empty() {
            if !config.ip_range.is_empty() || !config.gateway.is_empty() {
                return Err(Error::invalid(
                    "a gateway or a range of addresses needs a subnet that holds it",
                ));
            }
            let all: Vec<Subnet> = routes.iter().chain(taken).copied().collect();
            self.inner.free_subnet(&all, "").ok_or_else(|| {
                Error::internal(format!(
                    "all predefined address pools have been fully subnetted: network {name}"
                ))
            })?
        } else {
            let (_, subnet) = ipam::host_and_subnet(&config.subnet).map_err(invalid)?;
            if subnet.to_string() != config.subnet {
                return Err(Error::invalid(format!(
                    "invalid network config: invalid subnet {}: it should be {subnet}",
                    config.subnet
                )));
            }
            if let Some(other) = taken.iter().find(|other| other.overlaps(subnet)) {
                return Err(Error::forbidden(format!(
                    "invalid pool request: Pool overlaps with other one on this address space: {subnet} and {other}"
                )));
            }
            subnet
        };
        config.subnet = subnet.to_string();
        if !config.ip_range.is_empty() {
            let range = ipam::range(&config.ip_range).map_err(invalid)?;
            if !subnet.covers(range) {
                return Err(Error::invalid(format!(
                    "invalid ip-range {range}: it does not lie within {subnet}"
                )));
            }
        }
        let given = config.auxiliary_addresses.values();
        for text in given.chain([&config.gateway].into_iter().filter(|g| !g.is_empty())) {
            let address: IpAddr = text
                .parse()
                .map_err(|_| Error::invalid(format!("invalid address {text:?}")))?;
            if !subnet.has_host(address) {
                return Err(invalid(ipam::IpamError::Outside(address, subnet)));
            }
        }
        Ok(subnet)
    }

    /// A free subnet of this installation's own prefix.
    fn unique_local(&self) -> Subnet {
        let state = self.inner.state();
        let seed = crate::random::hex(5);
        let default = state.nets.values().find(|net| net.record.is_default());
        let seed = default.map_or(seed.as_str(), |net| {
            net.record.id.get(..10).unwrap_or(&seed)
        });
        let mut bytes = [0; 5];
        if hex::decode_to_slice(seed, &mut bytes).is_err() {
            tracing::debug!("the id {seed} is not in hex");
        }
        let taken: Vec<Subnet> = state
            .nets
            .values()
            .flat_map(|net| net.pools.iter().map(ipam::Pool::subnet))
            .collect();
        let free = |subnet: &Subnet| !taken.iter().any(|other| other.overlaps(*subnet));
        (0..=u16::MAX)
            .map(|n| ipam::unique_local(bytes, n))
            .find(free)
            .unwrap_or_else(|| ipam::unique_local(bytes, 0))
    }

    /// The network of exactly this name.
    fn record_named(&self, name: &str) -> Option<Arc<Record>> {
        let state = self.inner.state();
        let mut nets = state.nets.values();
        nets.find(|net| net.record.name == name)
            .map(|net| net.record.clone())
    }
}

/// The first address of the subnet, or of the range, that was not set aside.
fn first_free(config: &IpamConfig, subnet: Subnet) -> IpAddr {
    let range = ipam::range(&config.ip_range).ok();
    let mut pool = ipam::Pool::new(subnet, range, None);
    for address in config.auxiliary_addresses.values() {
        if let Ok(address) = address.parse() {
            let _ = pool.take_this(address);
        }
    }
    pool.take().unwrap_or_else(|_| subnet.first())
}

fn check(body: &NetworkCreate) -> Result<()> {
    let name = body.name.as_str();
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if name.is_empty() {
        return Err(Error::invalid(
            "invalid network config: network name is empty",
        ));
    }
    if PREDEFINED.contains(&name) {
        return Err(Error::forbidden(format!(
            "operation is not permitted on predefined {name} network"
        )));
    }
    if !begins || !name.chars().all(fine) {
        return Err(Error::invalid(format!(
            "invalid network name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )));
    }
    match body.driver.as_str() {
        "" | "default" | BRIDGE | "macvlan" | "ipvlan" => {}
        "host" | "null" => {
            return Err(Error::forbidden(format!(
                "only one instance of \"{}\" network is allowed",
                body.driver
            )));
        }
        "overlay" => {
            return Err(Error::new(
                proto::error::ErrorKind::Unavailable,
                "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
            ));
        }
        other => {
            return Err(Error::not_found(format!(
                "could not find plugin {other} in v1 plugin registry: plugin not found"
            )));
        }
    }
    if !matches!(body.scope.as_str(), "" | "local") {
        return Err(Error::invalid(format!(
            "networks of scope {:?} are not supported",
            body.scope
        )));
    }
    if body.ingress {
        return Err(Error::invalid("ingress networks are part of swarm"));
    }
    if body.config_only
        || body
            .config_from
            .as_ref()
            .is_some_and(|f| !f.network.is_empty())
    {
        return Err(Error::unimplemented(
            "networks that only hold a configuration are not supported",
        ));
    }
    Ok(())
}
