//! Published ports: what a request asks for, and the sockets that keep the host's side for it.
//!
//! Every port is bound before anything else of a start is done, so a conflict changes nothing. The kernel leads packets from
//! outside to the container before they reach the socket; what comes over the loopback reaches it, and the socket is then
//! the helper's. SCTP is kept in our own books only: its connections are all led by the kernel.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU16, Ordering};

use proto::engine::{HostConfig, Port, PortBinding, PortMap, Set};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

use super::endpoint::Published;
use super::plane::clash;
use crate::error::{Error, Result};

/// Ports that are given out when none is named.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32768..=60999;

/// The one to be tried next.
static NEXT: AtomicU16 = AtomicU16::new(*EPHEMERAL.start());

/// One port to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) protocol: String,
    /// The container's.
    pub(crate) port: u16,
    /// The host's addresses; empty leaves them to network and daemon.
    pub(crate) address: Option<IpAddr>,
    /// The host's ports to choose from; none means any.
    pub(crate) range: Option<(u16, u16)>,
}

/// Reads `80` or `80/tcp`.
pub(crate) fn parse_port(text: &str) -> Result<(u16, String)> {
    let wrong = |why: &str| Error::invalid(format!("invalid port specification: {text:?}{why}"));
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(wrong(": unknown protocol"));
    }
    let number: u16 = number.parse().map_err(|_| wrong(""))?;
    match number {
        0 => Err(wrong("")),
        number => Ok((number, protocol)),
    }
}

fn parse_range(text: &str) -> Result<Option<(u16, u16)>> {
    let wrong = || Error::invalid(format!("invalid port specification: {text:?}"));
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.parse::<u16>().map_err(|_| wrong());
    match (number(from)?, number(to)?) {
        (from, to) if from > 0 && from <= to => Ok(Some((from, to))),
        _ => Err(wrong()),
    }
}

/// The ports that a container's configuration asks for.
pub(crate) fn wanted(host: &HostConfig, exposed: &Set) -> Result<Vec<Wanted>> {
    let mut list = of_map(&host.port_bindings)?;
    if host.publish_all_ports {
        for key in exposed.keys() {
            let (port, protocol) = parse_port(key)?;
            let has = |w: &Wanted| w.port == port && w.protocol == protocol;
            if !list.iter().any(has) {
                list.push(one(port, &protocol, &PortBinding::default())?);
            }
        }
    }
    // Those that leave no choice first.
    list.sort_by_key(|w| match w.range {
        Some((from, to)) => u32::from(to - from),
        None => u32::MAX,
    });
    Ok(list)
}

/// The ports of a map.
pub(crate) fn of_map(map: &PortMap) -> Result<Vec<Wanted>> {
    let mut list = Vec::new();
    for (key, bindings) in map {
        let (port, protocol) = parse_port(key)?;
        for binding in bindings.iter().flatten() {
            list.push(one(port, &protocol, binding)?);
        }
    }
    Ok(list)
}

fn one(port: u16, protocol: &str, binding: &PortBinding) -> Result<Wanted> {
    let address = match binding.host_ip.trim_matches(['[', ']']) {
        "" => None,
        text => Some(
            text.parse()
                .map_err(|_| Error::invalid(format!("invalid IP address of the host: {text:?}")))?,
        ),
    };
    Ok(Wanted {
        protocol: protocol.to_owned(),
        port,
        address,
        range: parse_range(&binding.host_port)?,
    })
}

/// The key of a published port in the tables of the helper.
pub(crate) fn key(port: &Published) -> String {
    format!("{}/{}", port.host, port.protocol)
}

/// How the host's side of a port is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    /// Connections are taken by the socket.
    pub(crate) listens: bool,
    /// Whoever leads there from the host comes over the loopback.
    pub(crate) on_loopback: bool,
}

/// Ports that are kept, and their sockets.
#[derive(Debug, Default)]
pub(crate) struct Bound {
    pub(crate) ports: Vec<Published>,
    pub(crate) sockets: BTreeMap<String, OwnedFd>,
}

/// Binds what is wanted; `taken` are the ports of the other containers. All or nothing: an error drops the sockets.
pub(crate) fn bind_all(
    wanted: &[Wanted],
    default: Option<IpAddr>,
    taken: &[Published],
    how: How,
) -> Result<Bound> {
    let mut bound = Bound::default();
    for port in wanted {
        let address = port.address.or(default);
        let addresses = match address {
            None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
            Some(one) => vec![one],
        };
        bind_one(port, &addresses, taken, how, &mut bound)?;
    }
    Ok(bound)
}

fn bind_one(
    wanted: &Wanted,
    addresses: &[IpAddr],
    taken: &[Published],
    how: How,
    bound: &mut Bound,
) -> Result<()> {
    let shown = SocketAddr::new(addresses[0], wanted.range.map_or(0, |(from, _)| from));
    let mut last = format!("Bind for {shown} failed: port is already allocated");
    let candidates: Box<dyn Iterator<Item = u16>> = match wanted.range {
        Some((from, to)) => Box::new(from..=to),
        None => Box::new(ephemeral()),
    };
    for number in candidates {
        let clashes = |other: &Published| {
            other.protocol == wanted.protocol
                && other.host.port() == number
                && addresses.iter().any(|a| clash(*a, other.host.ip()))
        };
        if taken.iter().any(clashes) || bound.ports.iter().any(clashes) {
            continue;
        }
        match bind_number(wanted, addresses, number, how) {
            Ok(list) => {
                for (port, socket) in list {
                    if let Some(socket) = socket {
                        bound.sockets.insert(key(&port), socket);
                    }
                    bound.ports.push(port);
                }
                if wanted.range.is_none() {
                    let next = number.checked_add(1).filter(|n| EPHEMERAL.contains(n));
                    NEXT.store(next.unwrap_or(*EPHEMERAL.start()), Ordering::Relaxed);
                }
                return Ok(());
            }
            Err((at, Errno::ADDRINUSE)) => {
                last = format!(
                    "failed to bind host port {at}/{}: address already in use",
                    wanted.protocol
                );
            }
            Err((at, Errno::ACCESS)) => {
                return Err(Error::internal(format!(
                    "failed to bind host port {at}/{}: permission denied: ports below net.ipv4.ip_unprivileged_port_start are root's; root may lower it with sysctl",
                    wanted.protocol
                )));
            }
            Err((at, e)) => {
                return Err(Error::internal(format!(
                    "failed to bind host port {at}/{}: {}",
                    wanted.protocol,
                    std::io::Error::from(e)
                )));
            }
        }
    }
    Err(Error::internal(last))
}

fn ephemeral() -> impl Iterator<Item = u16> {
    let start = NEXT.load(Ordering::Relaxed);
    (start..=*EPHEMERAL.end()).chain(*EPHEMERAL.start()..start)
}

type OneBound = (Published, Option<OwnedFd>);

/// The same number at every address.
fn bind_number(
    wanted: &Wanted,
    addresses: &[IpAddr],
    number: u16,
    how: How,
) -> std::result::Result<Vec<OneBound>, (SocketAddr, Errno)> {
    let mut list = Vec::new();
    for address in addresses {
        let port = Published {
            protocol: wanted.protocol.clone(),
            port: wanted.port,
            host: SocketAddr::new(*address, number),
        };
        match socket(&port, how) {
            Ok(socket) => list.push((port, socket)),
            // A host without IPv6 has no such half of "all addresses".
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL)
                if address.is_ipv6() && addresses.len() > 1 => {}
            Err(e) => return Err((port.host, e)),
        }
    }
    Ok(list)
}

/// The socket that keeps a port, and serves it if it listens; none where the kernel alone has to do with it. It is opened in the
/// host's network, whichever is ours.
pub(crate) fn socket(port: &Published, how: How) -> rustix::io::Result<Option<OwnedFd>> {
    let mut port = port.clone();
    if how.on_loopback {
        port.host
            .set_ip(crate::rootless::kit::child(port.host.ip()));
    }
    let opened = crate::rootless::outside::call(move || socket_here(&port, how.listens));
    opened.unwrap_or(Err(Errno::IO))
}

fn socket_here(port: &Published, listens: bool) -> rustix::io::Result<Option<OwnedFd>> {
    let kind = match port.protocol.as_str() {
        "tcp" => SocketType::STREAM,
        "udp" => SocketType::DGRAM,
        _ => return Ok(None),
    };
    let family = match port.host.ip() {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, kind, flags, None)?;
    if family == AddressFamily::INET6 {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if kind == SocketType::STREAM {
        // Connections of a former life may linger.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &port.host)?;
    if kind == SocketType::STREAM && listens {
        listen(&socket, 4096)?;
    }
    Ok(Some(socket))
}

/// The ports as inspect shows them: what is exposed, and what is published.
pub(crate) fn shown(
    exposed: &Set,
    published: &[Published],
) -> BTreeMap<String, Option<Vec<PortBinding>>> {
    let mut map: BTreeMap<String, Option<Vec<PortBinding>>> = BTreeMap::new();
    for key in exposed.keys() {
        if let Ok((port, protocol)) = parse_port(key) {
            map.insert(format!("{port}/{protocol}"), None);
        }
    }
    for port in published {
        let list = map.entry(format!("{}/{}", port.port, port.protocol));
        list.or_default().get_or_insert_default().push(PortBinding {
            host_ip: port.host.ip().to_string(),
            host_port: port.host.port().to_string(),
        });
    }
    map
}

/// The ports as a list shows them.
pub(crate) fn listed(exposed: &Set, published: &[Published]) -> Vec<Port> {
    let mut list = Vec::new();
    for (key, bindings) in shown(exposed, published) {
        let Ok((private_port, kind)) = parse_port(&key) else {
            continue;
        };
        match bindings {
            None => list.push(Port {
                private_port,
                kind,
                ..Port::default()
            }),
            Some(bindings) => list.extend(bindings.into_iter().map(|binding| Port {
                ip: binding.host_ip,
                private_port,
                public_port: binding.host_port.parse().unwrap_or_default(),
                kind: kind.clone(),
            })),
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host(json: serde_json::Value) -> HostConfig {
        HostConfig {
            port_bindings: serde_json::from_value(json).unwrap(),
            ..HostConfig::default()
        }
    }

    #[test]
    fn bindings_are_read() {
        let config = host(serde_json::json!({
            "80/tcp": [{"HostIp": "", "HostPort": "8080"}, {"HostIp": "127.0.0.1", "HostPort": "9000-9010"}],
            "53/udp": [{"HostIp": "::1", "HostPort": ""}], "99": null,
        }));
        let list = wanted(&config, &Set::new()).unwrap();
        assert_eq!(list.len(), 3);
        assert_eq!(list[0].range, Some((8080, 8080)));
        assert_eq!(list[1].range, Some((9000, 9010)));
        assert_eq!(list[2].address, Some(Ipv6Addr::LOCALHOST.into()));
        for bad in [
            serde_json::json!({"80/xyz": [{"HostIp": "", "HostPort": ""}]}),
            serde_json::json!({"0/tcp": [{"HostIp": "", "HostPort": ""}]}),
            serde_json::json!({"80/tcp": [{"HostIp": "nope", "HostPort": ""}]}),
            serde_json::json!({"80/tcp": [{"HostIp": "", "HostPort": "9-1"}]}),
            serde_json::json!({"80/tcp": [{"HostIp": "", "HostPort": "70000"}]}),
        ] {
            assert!(wanted(&host(bad.clone()), &Set::new()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_range_goes_on_to_the_next_free_port() {
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let first = held.local_addr().unwrap().port();
        let Some(second) = first.checked_add(1) else {
            return;
        };
        let wanted = [Wanted {
            protocol: "tcp".into(),
            port: 80,
            address: Some(Ipv4Addr::LOCALHOST.into()),
            range: Some((first, second)),
        }];
        let how = How {
            listens: true,
            on_loopback: false,
        };
        // Somebody else's test may hold the second one.
        if let Ok(bound) = bind_all(&wanted, None, &[], how) {
            assert_eq!(bound.ports[0].host.port(), second);
            let again = bind_all(&wanted, None, &bound.ports, how).unwrap_err();
            assert!(again.message().contains("already"), "{again}");
        }
    }

    proptest! {
        #[test]
        fn any_port_text_is_read(text in ".{0,20}") {
            let _ = (parse_port(&text), parse_range(&text));
        }
    }
}
