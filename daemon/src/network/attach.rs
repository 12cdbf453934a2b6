//! Giving a container its namespace with all its interfaces, and taking it back.
//!
//! In this order, each for its reason: the networks are set up; the host's ports are bound and addresses taken, which may be
//! refused; the file says what will be made; then the kernel makes it; last come the rules and the helper, so that no packet
//! is led to what is not there yet.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::endpoint::{Address, Endpoint, Published, Sandbox};
use super::interface::{Link, Wire};
use super::sandbox::{self, Plan, Way};
use super::store::{self, Record};
use super::{Inner, Network, ipam, mac, options, ports, set_up};
use crate::error::{During, Error, Result};

/// What a container asks of one network.
#[derive(Debug, Clone, Default)]
pub(crate) struct EndpointWish {
    /// Id of the network.
    pub(crate) network: String,
    /// Hardware address, or empty.
    pub(crate) mac: String,
    /// Addresses, at most one of a family.
    pub(crate) addresses: Vec<IpAddr>,
    /// Under which the others find it.
    pub(crate) names: Vec<String>,
    /// Names of its own for others.
    pub(crate) links: BTreeMap<String, String>,
    pub(crate) priority: i64,
    /// Name of the interface, or empty.
    pub(crate) interface: String,
    pub(crate) sysctls: Vec<(String, String)>,
}

/// What a container asks of the networks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    pub(crate) endpoints: Vec<EndpointWish>,
    pub(crate) ports: Vec<ports::Wanted>,
    /// Whom its resolver shall ask; none for no resolver of ours.
    pub(crate) resolver: Option<Vec<IpAddr>>,
}

impl Network {
    /// Makes a container's sandbox. One that is there already (from a start that failed) is first taken away.
    pub(crate) async fn attach(&self, container: &str, wish: &Wish) -> Result<Sandbox> {
        let what = || format!("failed to set up container networking: container {container}");
        self.detach(container).await?;
        let attached = self.inner.attach(container, wish).await;
        if attached.is_err() {
            // A bridge may have been removed under us: the next one looks again.
            let networks = wish.endpoints.iter().map(|e| e.network.clone());
            self.inner.doubt(networks);
            if let Err(left) = self.detach(container).await {
                tracing::warn!("{left}");
            }
        }
        attached.during(what)
    }

    /// Takes a container's sandbox away; one that is not there is no error. Its namespace and ports are let go before this
    /// returns; the kernel takes its time with interfaces, and the rest is done in the background.
    pub(crate) async fn detach(&self, container: &str) -> Result<()> {
        let Some(sandbox) = self.sandbox(container) else {
            return Ok(());
        };
        let inner = &self.inner;
        let what = || format!("release the network of container {container}");
        // Under another name first: from now on a restarted daemon removes it, whatever its container does.
        let leaving = inner.settings.leaving_file(&sandbox);
        match std::fs::rename(inner.settings.file(container), &leaving) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::from(e).during(what()));
            }
            _ => {}
        }
        let table = inner.table_of(&sandbox);
        inner.state().sandboxes.remove(container);
        let told = inner
            .helper
            .change(&table, &Default::default(), Sockets::default())
            .await;
        let applied = match sandbox.ports.is_empty() {
            true => Ok(()),
            false => inner.apply().await,
        };
        inner.forget_datagrams(&sandbox).await;
        let netns = sandbox.netns.clone();
        crate::volumes::blocking(move || sandbox::unpin(&netns))
            .await
            .during(what)?;
        inner
            .leaving
            .lock()
            .await
            .spawn(Inner::finish(inner.clone(), sandbox));
        told.and(applied).during(what)
    }
}

/// Sockets for the helper: of ports by their keys, and the two of a container's resolver.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    pub(crate) ports: BTreeMap<String, OwnedFd>,
    pub(crate) resolvers: BTreeMap<String, crate::net::ResolverSockets>,
}

impl Inner {
    async fn attach(self: &Arc<Self>, container: &str, wish: &Wish) -> Result<Sandbox> {
        let mut links = Vec::new();
        for endpoint in &wish.endpoints {
            links.push(self.link_of(&endpoint.network).await?);
        }
        let mut sandbox = Sandbox {
            version: 2,
            boot_id: store::boot_id(),
            container: container.to_owned(),
            id: crate::random::hex(32),
            netns: self.settings.netns.join(container),
            endpoints: Vec::new(),
            ports: Vec::new(),
            resolver: wish.resolver.clone(),
            other: BTreeMap::new(),
        };
        for (wish, (record, _)) in wish.endpoints.iter().zip(&links) {
            let endpoint = match self.reserve(record, wish, &sandbox.endpoints) {
                Ok(endpoint) => endpoint,
                Err(e) => {
                    self.give_back(&sandbox.endpoints);
                    return Err(e);
                }
            };
            sandbox.endpoints.push(endpoint);
        }
        let mut sockets = Sockets::default();
        let bound = self.bind_ports(&sandbox, &wish.ports);
        let kept = bound.and_then(|bound| {
            sandbox.ports = bound.ports;
            sockets.ports = bound.sockets;
            self.keep(&sandbox)
        });
        if let Err(e) = kept {
            self.give_back(&sandbox.endpoints);
            return Err(e);
        }
        let mut plan = Plan {
            netns: sandbox.netns.clone(),
            fresh: true,
            ways: Some(self.ways(&sandbox)),
            resolver: sandbox.resolver.is_some(),
            ..Plan::default()
        };
        for ((wish, (record, index)), endpoint) in
            wish.endpoints.iter().zip(&links).zip(&sandbox.endpoints)
        {
            plan.links.push(self.link(record, *index, endpoint, wish)?);
        }
        let built = sandbox::build(plan).await?;
        if let Some(pair) = built.resolver {
            sockets.resolvers.insert(container.to_owned(), pair);
        }
        if !sandbox.ports.is_empty() {
            self.apply().await?;
            self.open_ports(&sandbox).await?;
        }
        let table = self.table_of(&sandbox);
        self.helper
            .change(&Default::default(), &table, sockets)
            .await?;
        self.helper.follow();
        Ok(sandbox)
    }

    /// Binds the ports of a container that has a way out; the others of the host cannot reach one that has none.
    pub(super) fn bind_ports(
        &self,
        sandbox: &Sandbox,
        wanted: &[ports::Wanted],
    ) -> Result<ports::Bound> {
        let way = sandbox.gateway(false).or_else(|| sandbox.gateway(true));
        let (Some(way), false) = (way, wanted.is_empty()) else {
            return Ok(ports::Bound::default());
        };
        let (default, firewall, taken) = {
            let state = self.state();
            let net = state.nets.get(&way.network);
            let record = net
                .map(|net| net.record.clone())
                .ok_or_else(|| set_up::gone(&way.name))?;
            if record.driver != super::BRIDGE {
                return Ok(ports::Bound::default());
            }
            let others = state.sandboxes.values();
            let taken: Vec<Published> = others
                .filter(|other| other.container != sandbox.container)
                .flat_map(|other| other.ports.iter().cloned())
                .chain(sandbox.ports.iter().cloned())
                .collect();
            (
                options::host_address(&record, &self.settings),
                options::host_firewall(&record, &self.settings),
                taken,
            )
        };
        let how = self.how(self.settings.proxy || firewall);
        ports::bind_all(wanted, default, &taken, how)
    }

    /// Takes addresses for an endpoint; nothing is made in the kernel yet.
    pub(super) fn reserve(
        &self,
        record: &Record,
        wish: &EndpointWish,
        others: &[Endpoint],
    ) -> Result<Endpoint> {
        let id = crate::random::hex(32);
        let mac = match (wish.mac.as_str(), record.driver.as_str()) {
            // Shared with the interface that it hangs on.
            (_, "ipvlan") => String::new(),
            ("", _) => mac::random(),
            (given, _) => {
                mac::parse(given)?;
                given.to_ascii_lowercase()
            }
        };
        let bridged = record.driver == super::BRIDGE;
        let mut endpoint = Endpoint {
            network: record.id.clone(),
            name: record.name.clone(),
            interface: match wish.interface.as_str() {
                "" => free_interface(options::interface_prefix(record), others),
                given => given.to_owned(),
            },
            veth: match bridged {
                true => format!("veth{}", &id[..7]),
                false => String::new(),
            },
            id,
            mac,
            v4: None,
            v6: None,
            names: wish.names.clone(),
            links: wish.links.clone(),
            priority: wish.priority,
            other: BTreeMap::new(),
        };
        let taken = self.take_addresses(record, wish, &mut endpoint);
        if let Err(e) = taken {
            if let Some(net) = self.state().nets.get_mut(&record.id) {
                net.give_back(&endpoint);
            }
            return Err(e);
        }
        Ok(endpoint)
    }

    fn take_addresses(
        &self,
        record: &Record,
        wish: &EndpointWish,
        endpoint: &mut Endpoint,
    ) -> Result<()> {
        let exhausted = |e: ipam::IpamError| {
            Error::new(proto::error::ErrorKind::ResourceExhausted, e.to_string())
        };
        let mut state = self.state();
        let net = state
            .nets
            .get_mut(&record.id)
            .ok_or_else(|| set_up::gone(&record.name))?;
        for v6 in [false, true] {
            let given = wish.addresses.iter().find(|a| a.is_ipv6() == v6);
            let pools = net.pools.iter_mut().filter(|p| p.subnet().is_v6() == v6);
            let mut failed = None;
            for pool in pools {
                let taken = match given {
                    Some(address) => pool.take_this(*address).map(|()| *address),
                    None => pool.take(),
                };
                match taken {
                    Ok(ip) => {
                        let subnet = pool.subnet();
                        let address = Some(Address {
                            ip,
                            bits: subnet.bits(),
                            gateway: gateway_of(record, subnet),
                        });
                        if v6 {
                            endpoint.v6 = address;
                        } else {
                            endpoint.v4 = address;
                        }
                        failed = None;
                        break;
                    }
                    Err(e) => failed = Some(e),
                }
            }
            match failed {
                Some(e @ ipam::IpamError::Taken(_)) => return Err(Error::forbidden(e.to_string())),
                Some(e @ ipam::IpamError::Outside(..)) => {
                    return Err(Error::invalid(e.to_string()));
                }
                Some(e) => return Err(exhausted(e)),
                None => {}
            }
        }
        Ok(())
    }

    /// The interface of an endpoint as it is to be made.
    pub(super) fn link(
        &self,
        record: &Record,
        index: u32,
        endpoint: &Endpoint,
        wish: &EndpointWish,
    ) -> Result<Link> {
        let text = |key: &str| record.option(key).unwrap_or_default().to_owned();
        let wire = match record.driver.as_str() {
            "macvlan" => Wire::MacVlan {
                parent: index,
                mode: text("macvlan_mode"),
            },
            "ipvlan" => Wire::IpVlan {
                parent: index,
                mode: text("ipvlan_mode"),
            },
            _ => Wire::Bridge {
                bridge: index,
                veth: endpoint.veth.clone(),
                isolated: !options::bridge(record).icc,
            },
        };
        Ok(Link {
            name: endpoint.interface.clone(),
            wire,
            mac: match endpoint.mac.as_str() {
                "" => None,
                mac => Some(mac::parse(mac)?),
            },
            addresses: endpoint.addresses().map(|a| (a.ip, a.bits)).collect(),
            mtu: set_up::mtu(record),
            sysctls: wish.sysctls.clone(),
        })
    }

    /// The default routes of a sandbox.
    pub(super) fn ways(&self, sandbox: &Sandbox) -> Vec<Way> {
        let way = |v6: bool| {
            let endpoint = sandbox.gateway(v6)?;
            let gateway = endpoint.address(v6)?.gateway?;
            let state = self.state();
            let record = &state.nets.get(&endpoint.network)?.record;
            let layer3 = record.driver == "ipvlan"
                && matches!(record.option("ipvlan_mode"), Some("l3" | "l3s"));
            Some(match layer3 {
                true => Way::Out {
                    interface: endpoint.interface.clone(),
                    v6,
                },
                false => Way::By(gateway),
            })
        };
        [false, true].into_iter().filter_map(way).collect()
    }
}

/// The gateway for containers in a subnet; networks without a way out have none.
fn gateway_of(record: &Record, subnet: ipam::Subnet) -> Option<IpAddr> {
    if record.internal {
        return None;
    }
    let configs = record.ipam.config.iter().flatten();
    configs
        .filter(|config| config.subnet == subnet.to_string())
        .find_map(|config| {
            let set = config.auxiliary_addresses.get("DefaultGatewayIPv4");
            let text = match (set, record.is_default()) {
                (Some(text), true) => text,
                _ => &config.gateway,
            };
            text.parse().ok()
        })
}

/// The first name that no other interface of the container has.
fn free_interface(prefix: &str, others: &[Endpoint]) -> String {
    let taken = |name: &String| others.iter().any(|other| other.interface == *name);
    (0..=others.len())
        .map(|n| format!("{prefix}{n}"))
        .find(|name| !taken(name))
        .unwrap_or_else(|| format!("{prefix}{}", others.len()))
}
