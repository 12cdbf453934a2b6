//! A container's place on the bridge: a network namespace, pinned by a bind mount, and a veth pair into it.
//!
//! ```text
//!  host namespace                      container's namespace
//!  docker0 172.17.0.1/16 ── vethXXXXXXX ══ eth0 172.17.0.N/16      lo
//!                                          default via 172.17.0.1
//! ```
//!
//! One thread does it all and is gone afterwards, for it ends up in the new namespace: a connection to the host's netlink,
//! the new namespace, its pin, a second connection from within, then six messages. No process is forked. A failure unpins;
//! the namespace, and with it the pair, goes when the thread does.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::{
    AddressMessageBuilder, Handle, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth,
    RouteMessageBuilder,
};
use rustix::mount::{UnmountFlags, mount_bind, unmount};

use crate::error::{During, Error, Result};

/// Index of the interface within the namespace: the first after lo.
const ETH0: u32 = 2;

/// What shall be built.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Where the namespace is pinned.
    pub(super) netns: PathBuf,
    /// Index of the bridge.
    pub(super) bridge: u32,
    /// Name of the host's end.
    pub(super) veth: String,
    /// Hardware address of the container's end.
    pub(super) mac: [u8; 6],
    /// The container's address.
    pub(super) ip: Ipv4Addr,
    /// Bits of the subnet.
    pub(super) bits: u8,
    /// The default gateway.
    pub(super) gateway: Ipv4Addr,
    /// Other containers on the bridge cannot be reached.
    pub(super) isolated: bool,
    /// Largest packet, or 0 for the kernel's default.
    pub(super) mtu: u32,
}

/// Builds it.
pub(super) async fn build(plan: Plan) -> Result<()> {
    let (done, outcome) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("netns".into())
        .stack_size(512 << 10)
        .spawn(move || {
            // Nobody waits any more if the request was dropped; the record of the endpoint leads to its removal then.
            let _ = done.send(build_here(&plan));
        })
        .during(|| "start the thread that makes a network namespace")?;
    outcome
        .await
        .map_err(|_| Error::internal("the thread that makes a network namespace has ended early"))?
}

/// Builds it on this thread, which is lost for anything else.
fn build_here(plan: &Plan) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .during(|| "start the runtime of netlink")?;
    let _context = runtime.enter();
    let host = connect(&runtime).during(|| "open netlink")?;
    unshare(CloneFlags::CLONE_NEWNET).during(|| "make a network namespace")?;
    pin(&plan.netns)?;
    let built = connect(&runtime)
        .during(|| "open netlink in the new namespace")
        .and_then(|inside| runtime.block_on(wire(plan, &host, &inside)));
    if built.is_err() {
        unpin(&plan.netns).ok();
    }
    built
}

fn connect(runtime: &tokio::runtime::Runtime) -> std::io::Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    runtime.spawn(connection);
    Ok(handle)
}

async fn wire(plan: &Plan, host: &Handle, inside: &Handle) -> Result<()> {
    // Before eth0 comes, which takes it over. The loopback keeps ::1.
    let ipv6 = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
    if let Err(e) = std::fs::write(ipv6, "1")
        && e.kind() != std::io::ErrorKind::NotFound
    {
        tracing::debug!("write {ipv6}: {e}");
    }
    let namespace = std::fs::File::open("/proc/thread-self/ns/net")
        .during(|| "open the new network namespace")?;
    host.link()
        .add(pair(plan, namespace.as_raw_fd()))
        .execute()
        .await
        .map_err(netlink)
        .during(|| format!("make the pair {} and eth0", plan.veth))?;
    if plan.isolated {
        isolate(host, &plan.veth).await?;
    }
    let up = |index| LinkUnspec::new_with_index(index).up().build();
    let set = |index| inside.link().set(up(index)).execute();
    set(1).await.map_err(netlink).during(|| "set lo up")?;
    let address = AddressMessageBuilder::<Ipv4Addr>::new()
        .index(ETH0)
        .address(plan.ip, plan.bits)
        .build();
    let mut add = inside.address().add(ETH0, plan.ip.into(), plan.bits);
    *add.message_mut() = address;
    add.execute()
        .await
        .map_err(netlink)
        .during(|| format!("give eth0 the address {}", plan.ip))?;
    set(ETH0).await.map_err(netlink).during(|| "set eth0 up")?;
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .gateway(plan.gateway)
        .output_interface(ETH0)
        .build();
    inside
        .route()
        .add(route)
        .execute()
        .await
        .map_err(netlink)
        .during(|| format!("add the default route by {}", plan.gateway))
}

/// Keeps a port from the other isolated ones. Rules for forwarded packets do not see what stays on the bridge.
async fn isolate(host: &Handle, name: &str) -> Result<()> {
    let what = || format!("isolate {name} on the bridge");
    let link = super::bridge::find(host, name)
        .await?
        .ok_or_else(|| Error::internal("it has vanished").during(what()))?;
    let message = LinkBridgePort::new(link.index).isolated(true).build();
    host.link()
        .set_port(message)
        .execute()
        .await
        .map_err(netlink)
        .during(what)
}

/// One message makes both ends: the host's up and on the bridge, the other within the namespace under its final name.
fn pair(plan: &Plan, namespace: i32) -> LinkMessage {
    let mut peer = LinkMessageBuilder::<LinkUnspec>::default()
        .name("eth0")
        .index(ETH0)
        .address(plan.mac.to_vec())
        .setns_by_fd(namespace);
    let mut host = LinkMessageBuilder::<LinkVeth>::new(&plan.veth, "eth0")
        .controller(plan.bridge)
        .up();
    if plan.mtu > 0 {
        peer = peer.mtu(plan.mtu);
        host = host.mtu(plan.mtu);
    }
    host.set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())))
        .build()
}

/// Keeps this thread's namespace under a name.
fn pin(path: &Path) -> Result<()> {
    let what = || format!("pin the network namespace at {}", path.display());
    std::fs::File::create(path).during(what)?;
    mount_bind("/proc/thread-self/ns/net", path).during(what)
}

/// Lets go of a pinned namespace; one that is not there is no error.
pub(super) fn unpin(path: &Path) -> Result<()> {
    use rustix::io::Errno;
    let what = || format!("unpin the network namespace at {}", path.display());
    match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
        Err(e) => return Err(Error::from(e).during(what())),
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::from(e).during(what())),
        _ => Ok(()),
    }
}

/// Removes the host's end, and with it the other; one that is not there is no error.
pub(super) async fn remove_veth(handle: &Handle, name: &str) -> Result<()> {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    match handle.link().del_with_message(message).execute().await {
        Ok(()) => Ok(()),
        Err(e) if errno(&e) == Some(NO_DEVICE) => Ok(()),
        Err(e) => Err(netlink(e).during(format!("remove interface {name}"))),
    }
}

/// ENODEV.
const NO_DEVICE: i32 = rustix::io::Errno::NODEV.raw_os_error();

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
