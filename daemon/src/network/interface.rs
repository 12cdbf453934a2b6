//! Making one interface in a container's namespace: of a pair, a macvlan or an ipvlan.

use std::net::IpAddr;

use rtnetlink::packet_route::link::{InfoData, InfoVeth, IpVlanMode, LinkMessage, MacVlanMode};
use rtnetlink::{
    Handle, LinkBridgePort, LinkIpVlan, LinkMacVlan, LinkMessageBuilder, LinkUnspec, LinkVeth,
};

use super::bridge::{errno, find, netlink};
use crate::error::{During, Error, Result};

/// How an interface is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wire {
    /// By a pair whose other end is a port of a bridge.
    Bridge {
        /// Index of the bridge.
        bridge: u32,
        /// Name of the other end.
        veth: String,
        /// Other containers on the bridge cannot be reached.
        isolated: bool,
    },
    /// As a further hardware address of an interface of the host.
    MacVlan {
        /// Index of that interface.
        parent: u32,
        /// `bridge`, `private`, `vepa` or `passthru`.
        mode: String,
    },
    /// As a further address of an interface of the host.
    IpVlan {
        /// Index of that interface.
        parent: u32,
        /// `l2`, `l3` or `l3s`.
        mode: String,
    },
}

/// An interface to be made.
#[derive(Debug, Clone)]
pub(super) struct Link {
    /// Its name within the namespace.
    pub(super) name: String,
    pub(super) wire: Wire,
    /// Its hardware address; none leaves it to the kernel.
    pub(super) mac: Option<[u8; 6]>,
    /// Its addresses with the bits of their subnets.
    pub(super) addresses: Vec<(IpAddr, u8)>,
    /// Largest packet, or 0 for the kernel's default.
    pub(super) mtu: u32,
    /// Settings below /proc/sys/net, the interface's name left as `IFNAME`.
    pub(super) sysctls: Vec<(String, String)>,
}

/// What cannot be set because the kernel has no such setting is no error.
pub(super) fn sysctl(name: &str, value: &str) {
    let path = format!("/proc/sys/net/{name}");
    if let Err(e) = std::fs::write(&path, value)
        && e.kind() != std::io::ErrorKind::NotFound
    {
        tracing::debug!("write {path}: {e}");
    }
}

/// Makes one interface and gives it what it shall have.
pub(super) async fn add(link: &Link, host: &Handle, inside: &Handle, namespace: i32) -> Result<()> {
    let name = &link.name;
    let made = host.link().add(message(link, namespace)).execute().await;
    made.map_err(|e| refused(link, e))
        .during(|| format!("make the interface {name} of the container"))?;
    if let Wire::Bridge {
        veth,
        isolated: true,
        ..
    } = &link.wire
    {
        isolate(host, veth).await?;
    }
    let found = find(inside, name)
        .await?
        .ok_or_else(|| Error::internal(format!("interface {name} has vanished")))?;
    let v6 = link.addresses.iter().any(|(address, _)| address.is_ipv6());
    if v6 {
        sysctl(&format!("ipv6/conf/{name}/disable_ipv6"), "0");
    }
    for (key, value) in &link.sysctls {
        // docker's command line makes small letters of it.
        let key = key.replace("IFNAME", name).replace("ifname", name);
        let path = format!("/proc/sys/net/{key}");
        std::fs::write(&path, value).during(|| format!("write {value} to {path}"))?;
    }
    for (address, bits) in &link.addresses {
        let mut request = inside.address().add(found.index, *address, *bits);
        if address.is_ipv6() {
            // Nobody else can have it: it need not be asked for on the wire.
            request.message_mut().header.flags =
                rtnetlink::packet_route::address::AddressHeaderFlags::Nodad;
        }
        let added = request.execute().await;
        added
            .map_err(netlink)
            .during(|| format!("give {name} the address {address}"))?;
    }
    let up = LinkUnspec::new_with_index(found.index).up().build();
    let up = inside.link().set(up).execute().await;
    up.map_err(netlink).during(|| format!("set {name} up"))
}

/// The kernel's refusal, and what it means for kinds of interfaces that a kernel may lack.
fn refused(link: &Link, error: rtnetlink::Error) -> Error {
    let lacks = errno(&error) == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error());
    match (&link.wire, lacks) {
        (Wire::IpVlan { .. }, true) => Error::unimplemented("this kernel has no ipvlan"),
        (Wire::MacVlan { .. }, true) => Error::unimplemented("this kernel has no macvlan"),
        _ => netlink(error),
    }
}

/// Keeps a port from the other isolated ones. Rules for forwarded packets do not see what stays on the bridge.
async fn isolate(host: &Handle, name: &str) -> Result<()> {
    set_port(host, name, |port| port.isolated(true)).await
}

/// Lets a port have back what it sent: a container that calls its own published port. Where the kernel shows bridged packets to
/// the rules, they are led there without leaving the bridge.
pub(super) async fn reflect(host: &Handle, name: &str) -> Result<()> {
    set_port(host, name, |port| port.hairpin(true)).await
}

async fn set_port(
    host: &Handle,
    name: &str,
    change: impl FnOnce(LinkMessageBuilder<LinkBridgePort>) -> LinkMessageBuilder<LinkBridgePort>,
) -> Result<()> {
    let what = || format!("set {name} up on its bridge");
    let link = find(host, name)
        .await?
        .ok_or_else(|| Error::internal("it has vanished").during(what()))?;
    let message = change(LinkBridgePort::new(link.index)).build();
    host.link()
        .set_port(message)
        .execute()
        .await
        .map_err(netlink)
        .during(what)
}

/// One message makes it within the namespace under its final name; of a pair also the host's end, up and on the bridge.
fn message(link: &Link, namespace: i32) -> LinkMessage {
    fn common<T>(
        builder: LinkMessageBuilder<T>,
        link: &Link,
        namespace: i32,
    ) -> LinkMessageBuilder<T> {
        let mut builder = builder.name(&link.name).setns_by_fd(namespace);
        if let Some(mac) = link.mac {
            builder = builder.address(mac.to_vec());
        }
        if link.mtu > 0 {
            builder = builder.mtu(link.mtu);
        }
        builder
    }
    match &link.wire {
        Wire::Bridge { bridge, veth, .. } => {
            let peer = LinkMessageBuilder::<LinkUnspec>::default();
            let peer = common(peer, link, namespace);
            let mut host = LinkMessageBuilder::<LinkVeth>::new(veth, &link.name)
                .controller(*bridge)
                .up();
            if link.mtu > 0 {
                host = host.mtu(link.mtu);
            }
            host.set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())))
                .build()
        }
        Wire::MacVlan { parent, mode } => {
            let mode = match mode.as_str() {
                "private" => MacVlanMode::Private,
                "vepa" => MacVlanMode::Vepa,
                "passthru" => MacVlanMode::Passthrough,
                _ => MacVlanMode::Bridge,
            };
            common(LinkMacVlan::new(&link.name, *parent, mode), link, namespace).build()
        }
        Wire::IpVlan { parent, mode } => {
            let mode = match mode.as_str() {
                "l3" => IpVlanMode::L3,
                "l3s" => IpVlanMode::L3S,
                _ => IpVlanMode::L2,
            };
            common(LinkIpVlan::new(&link.name, *parent, mode), link, namespace).build()
        }
    }
}
