//! Bridges: made where there is none, and only ever ours.
//!
//! Another daemon may own `docker0` in this namespace. What marks a bridge as ours is its hardware address, which is drawn
//! once, recorded before the bridge is made, and given to it in the same message that makes it: there is no moment at
//! which a bridge of ours is unmarked. A foreign `docker0` is left alone and another name taken; a bridge that `--bridge`
//! names is used as it is.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteType};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, RouteMessageBuilder};

use super::ipam::Subnet;
use crate::error::{During, Error, Result};

/// An interface.
#[derive(Debug, Clone)]
pub(super) struct Link {
    /// Its index.
    pub(super) index: u32,
    /// Its hardware address.
    pub(super) mac: Vec<u8>,
    /// Whether it is a bridge.
    pub(super) is_bridge: bool,
    /// Index of the bridge that it is a port of.
    pub(super) controller: Option<u32>,
}

/// A connection to netlink in this process's namespace; closed with the handle.
pub(super) fn connect() -> Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection().during(|| "open netlink")?;
    // Ends when the last handle goes.
    tokio::spawn(connection);
    Ok(handle)
}

/// The interface of a name.
pub(super) async fn find(handle: &Handle, name: &str) -> Result<Option<Link>> {
    let mut found = handle.link().get().match_name(name).execute();
    match found.try_next().await {
        Ok(message) => Ok(message.map(|message| read(&message))),
        Err(e) if errno(&e) == Some(rustix::io::Errno::NODEV.raw_os_error()) => Ok(None),
        Err(e) => Err(netlink(e).during(format!("look up interface {name}"))),
    }
}

fn read(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        mac: Vec::new(),
        is_bridge: false,
        controller: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(mac) => link.mac.clone_from(mac),
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                link.is_bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
            }
            _ => {}
        }
    }
    link
}

/// Makes a bridge with this hardware address. False if the name was taken meanwhile.
pub(super) async fn make(handle: &Handle, name: &str, mac: [u8; 6]) -> Result<bool> {
    let message = LinkBridge::new(name)
        .address(mac.to_vec())
        .alias("dockerd-lite")
        .build();
    match handle.link().add(message).execute().await {
        Ok(()) => Ok(true),
        Err(e) if errno(&e) == Some(rustix::io::Errno::EXIST.raw_os_error()) => Ok(false),
        Err(e) => Err(netlink(e).during(format!("make bridge {name}"))),
    }
}

/// A bridge's own address for asking neighbours, as Docker gives it. The one that the kernel makes may not be used for a second or
/// two, in which nobody from outside reaches a container.
const LINK_LOCAL: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// What a bridge shall have.
#[derive(Debug, Clone)]
pub(super) struct Wanted<'a> {
    /// Its addresses; others are taken away, but for link-local ones.
    pub(super) addresses: &'a [(IpAddr, u8)],
    /// Its addresses of IPv4 are the operator's affair.
    pub(super) leaves_v4: bool,
    /// Largest packet, or 0 for the kernel's default.
    pub(super) mtu: u32,
}

/// Sets the bridge up so.
pub(super) async fn configure(
    handle: &Handle,
    name: &str,
    index: u32,
    wanted: &Wanted<'_>,
) -> Result<()> {
    let mut missing = wanted.addresses.to_vec();
    if missing.iter().any(|(address, _)| address.is_ipv6()) {
        missing.push((LINK_LOCAL.into(), 64));
    }
    for (message, address, bits) in addresses(handle, index).await? {
        if let Some(at) = missing.iter().position(|w| *w == (address, bits)) {
            missing.remove(at);
            continue;
        }
        let kept = match address {
            IpAddr::V4(_) => wanted.leaves_v4,
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        if kept {
            continue;
        }
        let gone = handle.address().del(message).execute().await;
        gone.map_err(netlink)
            .during(|| format!("take the address {address} from {name}"))?;
    }
    for (address, bits) in missing {
        let mut add = handle.address().add(index, address, bits);
        if address.is_ipv6() {
            let path = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
            std::fs::write(&path, "0").during(|| format!("turn on IPv6 in {path}"))?;
            add.message_mut().header.flags = AddressHeaderFlags::Nodad;
        }
        add.execute()
            .await
            .map_err(netlink)
            .during(|| format!("give {name} the address {address}/{bits}"))?;
    }
    let mut message = LinkUnspec::new_with_index(index).up();
    if wanted.mtu > 0 {
        message = message.mtu(wanted.mtu);
    }
    let set = handle.link().set(message.build()).execute();
    set.await
        .map_err(netlink)
        .during(|| format!("set {name} up"))
}

/// The addresses of an interface.
pub(super) async fn addresses(
    handle: &Handle,
    index: u32,
) -> Result<Vec<(AddressMessage, IpAddr, u8)>> {
    let all: Vec<AddressMessage> = handle
        .address()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(netlink)
        .during(|| "list addresses")?;
    let read = |message: AddressMessage| {
        let here = message.header.index == index;
        let found = |attribute: &AddressAttribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        };
        let other = |attribute: &AddressAttribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        };
        let local = message.attributes.iter().find_map(found);
        let address = local.or_else(|| message.attributes.iter().find_map(other));
        let bits = message.header.prefix_len;
        address
            .filter(|_| here)
            .map(|address| (message, address, bits))
    };
    Ok(all.into_iter().filter_map(read).collect())
}

/// The addresses of all interfaces.
pub(super) async fn all_addresses(handle: &Handle) -> Result<Vec<IpAddr>> {
    let all: Vec<AddressMessage> = handle
        .address()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(netlink)
        .during(|| "list addresses")?;
    let address = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Local(address) | AddressAttribute::Address(address) => Some(*address),
        _ => None,
    };
    let attributes = all.iter().flat_map(|message| &message.attributes);
    Ok(attributes.filter_map(address).collect())
}

/// The subnets that this host has routes to by other interfaces than `except`.
pub(super) async fn routed(handle: &Handle, except: Option<u32>) -> Result<Vec<Subnet>> {
    let mut subnets = Vec::new();
    let message = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let mut routes = handle.route().get(message).execute();
    while let Some(route) = routes
        .try_next()
        .await
        .map_err(netlink)
        .during(|| "list routes")?
    {
        let bits = route.header.destination_prefix_length;
        let local = matches!(
            route.header.kind,
            RouteType::Broadcast | RouteType::Multicast
        );
        // The default route goes everywhere, and says nothing.
        if bits == 0 || local {
            continue;
        }
        let by = route
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            });
        if by.is_some() && by == except {
            continue;
        }
        subnets.extend(
            route
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                        Some(Subnet::new((*address).into(), bits))
                    }
                    _ => None,
                }),
        );
    }
    Ok(subnets)
}

/// Removes an interface.
pub(super) async fn remove(handle: &Handle, name: &str, index: u32) -> Result<()> {
    let gone = handle.link().del(index).execute().await;
    gone.map_err(netlink)
        .during(|| format!("remove bridge {name}"))
}

/// Lets the host pass packets between its interfaces. Where that is not allowed, it must be on already.
pub(super) fn forward_packets(v6: bool) -> Result<()> {
    let path = match v6 {
        true => "/proc/sys/net/ipv6/conf/all/forwarding",
        false => "/proc/sys/net/ipv4/ip_forward",
    };
    let what = || format!("read {path}");
    if std::fs::read_to_string(path).during(what)?.trim() == "1" {
        return Ok(());
    }
    std::fs::write(path, "1").map_err(|e| {
        Error::from(e).during(format!(
            "turn on forwarding in {path} (or start with --ip-forward=false)"
        ))
    })
}

/// Removes the host's end of a pair, and with it the other; one that is not there is no error.
pub(super) async fn remove_veth(handle: &Handle, name: &str) -> Result<()> {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    match handle.link().del_with_message(message).execute().await {
        Ok(()) => Ok(()),
        Err(e) if errno(&e) == Some(rustix::io::Errno::NODEV.raw_os_error()) => Ok(()),
        Err(e) => Err(netlink(e).during(format!("remove interface {name}"))),
    }
}

/// Makes an interface a port of a bridge.
pub(super) async fn join(handle: &Handle, link: u32, bridge: u32) -> Result<()> {
    let message = LinkUnspec::new_with_index(link).controller(bridge).up();
    let set = handle.link().set(message.build()).execute();
    set.await.map_err(netlink).during(|| "put it on its bridge")
}

/// The kernel's error number in an answer.
pub(super) fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(-message.raw_code()),
        _ => None,
    }
}

/// An answer of the kernel as our error.
pub(super) fn netlink(error: rtnetlink::Error) -> Error {
    match errno(&error) {
        Some(number) => Error::internal(std::io::Error::from_raw_os_error(number).to_string()),
        None => Error::internal(error.to_string()),
    }
}
