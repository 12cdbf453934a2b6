//! What the table of this installation shall hold, computed from the networks and the ports published on them. Pure.
//!
//! ```text
//!  forward      ─▶ DOCKER-USER ─▶ by incoming interface: leave-BR (internal networks) ─▶ by outgoing: enter-BR
//!  prerouting   ─▶ from containers that are kept apart: nothing ─▶ to an address of this host: ports ─▶ destination by (address,) protocol and port
//!  output       ─▶ the same, but for the loopback, which `dockerd-lite net` serves
//!  postrouting  ─▶ by incoming interface: source-BR (masquerade) ─▶ by outgoing: return-BR
//! ```
//!
//! Everything that grows with the number of networks or ports is an element of a map: a packet costs one look-up, and a
//! change one element, whether there is one or there are a thousand.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::expression::{Rule, Verdict};
use super::model::{Chain, Hook, Set, Shape, Table, USER, Value};
use crate::network::ipam::Subnet;

/// What packets of one family may do on a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Gateway {
    /// Out under the host's address; in only through published ports.
    #[default]
    Nat,
    /// The same, but all ports can be reached at the container's own address.
    Unprotected,
    /// Out and in under the container's own address; in only to published ports.
    Routed,
    /// Neither out nor in.
    Isolated,
}

/// A bridge with what its rules depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bridge {
    /// The interface.
    pub(crate) name: String,
    /// Its subnets.
    pub(crate) subnets: Vec<Subnet>,
    /// Containers may reach each other.
    pub(crate) icc: bool,
    /// Containers go out under the host's address.
    pub(crate) masquerade: bool,
    /// No way out or in.
    pub(crate) internal: bool,
    /// Its containers reach published ports by `dockerd-lite net`: the kernel may lead such packets from port to port of
    /// the bridge, and they are kept apart.
    pub(crate) by_helper: bool,
    /// For IPv4 and for IPv6.
    pub(crate) gateways: [Gateway; 2],
    /// The source addresses for what goes out, in place of the outgoing interface's.
    pub(crate) sources: Vec<IpAddr>,
    /// Interfaces of the host from which all ports can be reached at the containers' own addresses.
    pub(crate) trusted: Vec<String>,
}

/// A published port, as packets see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// Number of the protocol above IP.
    pub(crate) protocol: u8,
    /// The host's side; the unspecified address stands for all.
    pub(crate) host: SocketAddr,
    /// The container's side, of the same family.
    pub(crate) target: SocketAddr,
    /// Whether the destination is translated, or only let through.
    pub(crate) translated: bool,
}

/// The table.
pub(crate) fn table(bridges: &[Bridge], mappings: &[Mapping]) -> Table {
    let mut table = frame();
    for bridge in bridges {
        add_bridge(&mut table, bridge);
    }
    for mapping in mappings {
        add_mapping(&mut table, mapping);
    }
    table
}

/// What is there without any network.
fn frame() -> Table {
    let mut table = Table::default();
    for (name, shape) in [
        ("leave", Shape::Verdicts),
        ("enter", Shape::Verdicts),
        ("source", Shape::Verdicts),
        ("return", Shape::Verdicts),
        ("helped", Shape::Interfaces),
        ("ports4", Shape::Ports { v6: false }),
        ("ports6", Shape::Ports { v6: true }),
        ("bound4", Shape::Bound { v6: false }),
        ("bound6", Shape::Bound { v6: true }),
        ("open4", Shape::Open { v6: false }),
        ("open6", Shape::Open { v6: true }),
    ] {
        let elements = BTreeMap::new();
        table.sets.insert(name.into(), Set { shape, elements });
    }
    let hook = |nat, number, priority| {
        Some(Hook {
            nat,
            number,
            priority,
        })
    };
    let mut chain = |name: &str, hook, rules| {
        table.chains.insert(name.into(), Chain { hook, rules });
    };
    chain(USER, None, Vec::new());
    chain(
        "forward",
        hook(false, 2, 0),
        vec![
            Rule::new().jump(USER),
            Rule::new().verdict_by_interface(true, "leave"),
            Rule::new().verdict_by_interface(false, "enter"),
        ],
    );
    chain(
        "prerouting",
        hook(true, 0, -100),
        vec![
            Rule::new()
                .came_by_one_of("helped")
                .verdict(&Verdict::Return),
            Rule::new().addressed_here().jump("ports"),
        ],
    );
    let loopback4 = Subnet::new([127, 0, 0, 0].into(), 8);
    let loopback6 = Subnet::new(std::net::Ipv6Addr::LOCALHOST.into(), 128);
    chain(
        "output",
        hook(true, 3, -100),
        vec![
            Rule::new()
                .within(false, loopback4)
                .verdict(&Verdict::Return),
            Rule::new()
                .within(false, loopback6)
                .verdict(&Verdict::Return),
            Rule::new().addressed_here().jump("ports"),
        ],
    );
    chain(
        "ports",
        None,
        vec![
            Rule::new().redirect_by(false, true, "bound4"),
            Rule::new().redirect_by(false, false, "ports4"),
            Rule::new().redirect_by(true, true, "bound6"),
            Rule::new().redirect_by(true, false, "ports6"),
        ],
    );
    chain(
        "postrouting",
        hook(true, 4, 100),
        vec![
            Rule::new().verdict_by_interface(true, "source"),
            Rule::new().verdict_by_interface(false, "return"),
        ],
    );
    table
}

fn add_bridge(table: &mut Table, bridge: &Bridge) {
    let name = bridge.name.as_str();
    if bridge.by_helper {
        let mut key = name.as_bytes().to_vec();
        key.resize(16, 0);
        if let Some(set) = table.sets.get_mut("helped") {
            set.elements.insert(key, Value::None);
        }
    }
    let mut put = |map: &str, rules: Vec<Rule>| {
        let chain = format!("{map}-{name}");
        let mut key = name.as_bytes().to_vec();
        key.resize(16, 0);
        if let Some(set) = table.sets.get_mut(map) {
            set.elements.insert(key, Value::Chain(chain.clone()));
        }
        table.chains.insert(chain, Chain { hook: None, rules });
    };
    if bridge.internal {
        put("leave", vec![Rule::new().goes_by(name, false).drop()]);
    }
    put("enter", entering(bridge));
    let source = sources(bridge);
    if !source.is_empty() {
        put("source", source);
    }
    let back = returning(bridge);
    if !back.is_empty() {
        put("return", back);
    }
}

/// What may come in: answers, neighbours, and what was published.
fn entering(bridge: &Bridge) -> Vec<Rule> {
    let name = bridge.name.as_str();
    let mut rules = Vec::new();
    if !bridge.internal {
        rules.push(Rule::new().established().accept());
    }
    let neighbour = || Rule::new().came_by(name, true);
    if bridge.icc {
        rules.push(neighbour().accept());
    } else {
        // Neighbours reach what is published as everybody else does.
        rules.push(neighbour().translated().accept());
        rules.push(neighbour().drop());
    }
    if !bridge.internal {
        let trusted = bridge.trusted.iter();
        rules.extend(trusted.map(|interface| Rule::new().came_by(interface, true).accept()));
    }
    for (v6, gateway) in [(false, bridge.gateways[0]), (true, bridge.gateways[1])] {
        if bridge.internal {
            break;
        }
        let family = || Rule::new().family(v6);
        match gateway {
            Gateway::Nat => rules.push(family().translated().accept()),
            Gateway::Unprotected => rules.push(family().accept()),
            Gateway::Routed => {
                let open = if v6 { "open6" } else { "open4" };
                rules.push(family().destination_in(v6, open).accept());
                // ICMP, and ICMPv6, without which a routed address is of little use.
                rules.push(family().protocol(if v6 { 58 } else { 1 }).accept());
            }
            Gateway::Isolated => {}
        }
    }
    rules.push(Rule::new().drop());
    rules
}

/// Under which address packets come to a neighbour, or back to the sender, by a published port: the answer must come back this
/// way. Of packets that do not leave the bridge it is not known where they came in.
fn returning(bridge: &Bridge) -> Vec<Rule> {
    let nat = |subnet: &&Subnet| {
        let gateway = bridge.gateways[usize::from(subnet.is_v6())];
        !bridge.internal && matches!(gateway, Gateway::Nat | Gateway::Unprotected)
    };
    let rule = |subnet: &Subnet| Rule::new().within(true, *subnet).translated().masquerade();
    bridge.subnets.iter().filter(nat).map(rule).collect()
}

/// Under which address packets go on.
fn sources(bridge: &Bridge) -> Vec<Rule> {
    let name = bridge.name.as_str();
    if bridge.internal {
        return Vec::new();
    }
    let mut rules = Vec::new();
    for subnet in &bridge.subnets {
        let v6 = subnet.is_v6();
        let gateway = bridge.gateways[usize::from(v6)];
        let translates = matches!(gateway, Gateway::Nat | Gateway::Unprotected);
        if bridge.masquerade && translates {
            let out = Rule::new().within(true, *subnet).goes_by(name, false);
            let source = bridge.sources.iter().find(|s| s.is_ipv6() == v6);
            rules.push(match source {
                Some(source) => out.source(*source),
                None => out.masquerade(),
            });
        }
    }
    rules
}

fn add_mapping(table: &mut Table, mapping: &Mapping) {
    let v6 = mapping.target.is_ipv6();
    let octets = |address: IpAddr| match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    let port = |port: u16| {
        let [high, low] = port.to_be_bytes();
        [high, low, 0, 0]
    };
    let service = |number: u16| {
        let mut bytes = vec![mapping.protocol, 0, 0, 0];
        bytes.extend(port(number));
        bytes
    };
    let mut target = octets(mapping.target.ip());
    if !mapping.translated {
        target.extend(service(mapping.target.port()));
        let open = if v6 { "open6" } else { "open4" };
        if let Some(set) = table.sets.get_mut(open) {
            set.elements.insert(target, Value::None);
        }
        return;
    }
    target.extend(port(mapping.target.port()));
    let (map, key) = match mapping.host.ip() {
        any if any.is_unspecified() => ("ports", service(mapping.host.port())),
        one => {
            let mut key = octets(one);
            key.extend(service(mapping.host.port()));
            ("bound", key)
        }
    };
    let map = format!("{map}{}", if v6 { 6 } else { 4 });
    if let Some(set) = table.sets.get_mut(&map) {
        set.elements.insert(key, Value::Bytes(target));
    }
}
