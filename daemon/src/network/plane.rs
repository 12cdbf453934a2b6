//! What the packet filter and `dockerd-lite net` shall do, computed from all records and sandboxes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use super::endpoint::{Published, Sandbox};
use super::filter::rules::{Bridge, Gateway, Mapping};
use super::filter::tracked::{self, Forgotten};
use super::store::Record;
use super::{BRIDGE, Inner, State, options};
use crate::error::Result;
use crate::net::protocol::{Names, Port, Resolver, Table};
use crate::net::{Helper, ResolverSockets};

impl Inner {
    /// Brings the packet filter to what the records and sandboxes say. Nothing is sent where nothing differs.
    pub(super) async fn apply(&self) -> Result<()> {
        if let Some(parent) = &self.settings.parent {
            parent.agree(|| self.host_ports()).await?;
        }
        if !self.settings.iptables {
            return Ok(());
        }
        // The kernel answers in well under a millisecond; a thread would cost more than it.
        self.filter.apply(|| {
            let state = self.state();
            (self.bridges(&state), self.mappings(&state))
        })
    }

    /// The bridges whose subnets are known.
    fn bridges(&self, state: &State) -> Vec<Bridge> {
        let nets = state.nets.values();
        nets.filter(|net| net.record.driver == BRIDGE && !net.pools.is_empty())
            .map(|net| {
                let mut bridge = options::bridge(&net.record);
                bridge.by_helper = !bridge.icc && self.settings.proxy;
                bridge
            })
            .collect()
    }

    /// The ports that the kernel leads to containers.
    fn mappings(&self, state: &State) -> Vec<Mapping> {
        let mut mappings = Vec::new();
        for sandbox in state.sandboxes.values().filter(|s| !s.ports.is_empty()) {
            for port in &sandbox.ports {
                mappings.extend(self.mapping(state, sandbox, port));
            }
        }
        mappings
    }

    fn mapping(&self, state: &State, sandbox: &Sandbox, port: &Published) -> Option<Mapping> {
        let v6 = port.host.is_ipv6();
        let endpoint = sandbox.gateway(v6)?;
        let record = &state.nets.get(&endpoint.network)?.record;
        let target = SocketAddr::new(endpoint.address(v6)?.ip, port.port);
        let routed = record.gateway_mode(v6) == Gateway::Routed;
        let through_host = options::host_firewall(record, &self.settings);
        if record.driver != BRIDGE || record.internal {
            return None;
        }
        if !routed && (port.host.ip().is_loopback() || through_host) {
            return None;
        }
        Some(Mapping {
            protocol: protocol_number(&port.protocol),
            host: port.host,
            target,
            translated: !routed,
        })
    }

    /// What the kernel needs beside the rules for the ports of a sandbox.
    pub(super) async fn open_ports(&self, sandbox: &Sandbox) -> Result<()> {
        if sandbox.ports.is_empty() {
            return Ok(());
        }
        self.forget_datagrams(sandbox).await;
        let handle = super::bridge::connect()?;
        let mut ways: Vec<_> = [sandbox.gateway(false), sandbox.gateway(true)]
            .into_iter()
            .flatten()
            .filter(|endpoint| !endpoint.veth.is_empty())
            .map(|endpoint| endpoint.veth.as_str())
            .collect();
        ways.dedup();
        for veth in ways {
            super::interface::reflect(&handle, veth).await?;
        }
        Ok(())
    }

    /// Lets the kernel forget the datagrams that it leads by the ports of a sandbox. What is not forgotten goes astray until
    /// its sender falls silent; that is no reason to fail.
    pub(super) async fn forget_datagrams(&self, sandbox: &Sandbox) {
        let ports: Vec<Forgotten> = {
            let of_udp = sandbox.ports.iter().filter(|port| port.protocol == "udp");
            of_udp
                .filter_map(|port| {
                    let v6 = port.host.is_ipv6();
                    let address = sandbox.gateway(v6)?.address(v6)?.ip;
                    Some(Forgotten {
                        host: port.host,
                        target: SocketAddr::new(address, port.port),
                    })
                })
                .collect()
        };
        if ports.is_empty() {
            return;
        }
        let local = async {
            let handle = super::bridge::connect()?;
            super::bridge::all_addresses(&handle).await
        };
        let outcome = match local.await {
            Ok(local) => crate::volumes::blocking(move || tracked::forget(&ports, &local)).await,
            Err(e) => Err(e),
        };
        if let Err(e) = outcome {
            tracing::warn!(
                "forget the datagrams of container {}: {e}",
                sandbox.container
            );
        }
    }

    /// How sockets keep published ports here.
    pub(super) fn how(&self, listens: bool) -> super::ports::How {
        super::ports::How {
            listens,
            on_loopback: self.settings.parent.is_some(),
        }
    }

    /// All ports of the host that are published.
    fn host_ports(&self) -> Vec<crate::rootless::kit::HostPort> {
        let state = self.state();
        let ports = state.sandboxes.values().flat_map(|s| &s.ports);
        ports
            .map(|port| (port.protocol.clone(), port.host))
            .collect()
    }

    /// What the helper shall hold.
    pub(super) fn table(&self) -> Table {
        let state = self.state();
        let mut table = Table::default();
        for sandbox in state.sandboxes.values() {
            self.add(&state, sandbox, &mut table);
        }
        table
    }

    /// What the helper shall hold for one container.
    pub(super) fn table_of(&self, sandbox: &Sandbox) -> Table {
        let mut table = Table::default();
        self.add(&self.state(), sandbox, &mut table);
        table
    }

    fn add(&self, state: &State, sandbox: &Sandbox, table: &mut Table) {
        for port in &sandbox.ports {
            let target = self.target(state, sandbox, port);
            let key = format!("{}/{}", port.host, port.protocol);
            let port = Port {
                container: sandbox.container.clone(),
                protocol: port.protocol.clone(),
                listen: port.host,
                target,
            };
            table.ports.insert(key, port);
        }
        for endpoint in &sandbox.endpoints {
            let resolves = state
                .nets
                .get(&endpoint.network)
                .is_some_and(|net| !net.record.is_default());
            if resolves && !endpoint.names.is_empty() {
                let names = Names {
                    network: endpoint.network.clone(),
                    names: endpoint.names.clone(),
                    domain: endpoint.name.clone(),
                    addresses: endpoint.addresses().map(|a| a.ip).collect(),
                };
                table.names.insert(endpoint.id.clone(), names);
            }
        }
        if let Some(servers) = &sandbox.resolver {
            let internal = sandbox.gateway(false).is_none() && sandbox.gateway(true).is_none();
            let resolver = Resolver {
                servers: if internal {
                    Vec::new()
                } else {
                    servers.clone()
                },
                networks: sandbox
                    .endpoints
                    .iter()
                    .map(|e| e.network.clone())
                    .collect(),
                links: sandbox
                    .endpoints
                    .iter()
                    .flat_map(|e| e.links.clone())
                    .collect::<BTreeMap<_, _>>(),
                netns: sandbox.netns.clone(),
            };
            table.resolvers.insert(sandbox.container.clone(), resolver);
        }
    }

    /// Where the helper leads connections; none only keeps the port from others.
    fn target(&self, state: &State, sandbox: &Sandbox, port: &Published) -> Option<SocketAddr> {
        let v6 = port.host.is_ipv6();
        // A port of IPv6 leads to a container without it as well.
        let families = if v6 { vec![true, false] } else { vec![false] };
        let (endpoint, address) = families.into_iter().find_map(|v6| {
            let endpoint = sandbox.gateway(v6)?;
            Some((endpoint, endpoint.address(v6)?.ip))
        })?;
        let record: &Arc<Record> = &state.nets.get(&endpoint.network)?.record;
        let needed = self.settings.proxy || options::host_firewall(record, &self.settings);
        let plain = record.gateway_mode(v6) != Gateway::Routed;
        (needed && plain && port.protocol != "sctp").then(|| SocketAddr::new(address, port.port))
    }
}

/// The number of a protocol above IP.
pub(super) fn protocol_number(name: &str) -> u8 {
    match name {
        "udp" => 17,
        "sctp" => 132,
        _ => 6,
    }
}

/// Whether two addresses of the host clash: the same one, or one of them is all.
pub(super) fn clash(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
}

/// What the helper's other half needs of the networks.
#[async_trait::async_trait]
pub(crate) trait Plane: std::fmt::Debug + Send + Sync {
    /// All that the helper shall hold.
    fn table(&self) -> Table;
    /// Binds a published port anew.
    fn socket(&self, port: &Port) -> Result<Option<OwnedFd>>;
    /// Opens the sockets of a resolver anew.
    async fn resolver(&self, netns: &Path) -> Result<ResolverSockets>;
    /// The helper's other half.
    fn helper(&self) -> &Helper;
}

#[async_trait::async_trait]
impl Plane for Inner {
    fn table(&self) -> Table {
        Inner::table(self)
    }

    fn socket(&self, port: &Port) -> Result<Option<OwnedFd>> {
        let published = Published {
            protocol: port.protocol.clone(),
            port: 0,
            host: port.listen,
        };
        let how = self.how(port.target.is_some());
        Ok(super::ports::socket(&published, how)?)
    }

    async fn resolver(&self, netns: &Path) -> Result<ResolverSockets> {
        let plan = super::sandbox::Plan {
            netns: netns.to_owned(),
            resolver: true,
            ..super::sandbox::Plan::default()
        };
        let built = super::sandbox::build(plan).await?;
        built
            .resolver
            .ok_or_else(|| crate::error::Error::internal("no sockets came of it"))
    }

    fn helper(&self) -> &Helper {
        &self.helper
    }
}
