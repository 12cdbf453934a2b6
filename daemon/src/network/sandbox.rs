//! A container's network namespace, pinned by a bind mount, and what is in it.
//!
//! ```text
//!  host namespace                      container's namespace
//!  docker0 172.17.0.1/16 ── vethXXXXXXX ══ eth0 172.17.0.N/16      lo
//!                                          default via 172.17.0.1
//! ```
//!
//! One thread does it all and is gone afterwards, for it ends up in that namespace: a connection to the host's netlink,
//! the namespace (made, or entered by its pin), a second connection from within, then a few messages for each interface. No
//! process is forked. A failure of the first build unpins; the namespace, and with it the pairs, goes when the thread does.

use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use rustix::mount::{UnmountFlags, mount_bind, unmount};

use super::bridge::{find, netlink};
use super::interface::{Link, add, sysctl};
use crate::error::{During, Error, Result};

/// A default route: by this gateway, or by this interface alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    By(IpAddr),
    Out { interface: String, v6: bool },
}

/// What shall be done in a namespace.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan {
    /// Where the namespace is pinned.
    pub(super) netns: PathBuf,
    /// It is to be made.
    pub(super) fresh: bool,
    /// Interfaces to make.
    pub(super) links: Vec<Link>,
    /// Interfaces to remove.
    pub(super) unlink: Vec<String>,
    /// The default routes that there shall be; none leaves them as they are.
    pub(super) ways: Option<Vec<Way>>,
    /// Sockets for the resolver are wanted.
    pub(super) resolver: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Built {
    /// The resolver's sockets, for datagrams and for streams.
    pub(super) resolver: Option<crate::net::ResolverSockets>,
}

/// Does it.
pub(super) async fn build(plan: Plan) -> Result<Built> {
    let (done, outcome) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("netns".into())
        .stack_size(512 << 10)
        .spawn(move || {
            // Nobody waits any more if the request was dropped; the record of the sandbox leads to its removal then.
            let _ = done.send(build_here(&plan));
        })
        .during(|| "start the thread that works in a network namespace")?;
    outcome
        .await
        .map_err(|_| Error::internal("the thread in a network namespace has ended early"))?
}

/// Does it on this thread, which is lost for anything else.
fn build_here(plan: &Plan) -> Result<Built> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .during(|| "start the runtime of netlink")?;
    let _context = runtime.enter();
    let host = connect(&runtime).during(|| "open netlink")?;
    match plan.fresh {
        true => {
            unshare(CloneFlags::CLONE_NEWNET).during(|| "make a network namespace")?;
            pin(&plan.netns)?;
        }
        false => {
            let what = || format!("enter the network namespace {}", plan.netns.display());
            let namespace = std::fs::File::open(&plan.netns).during(what)?;
            setns(namespace, CloneFlags::CLONE_NEWNET).during(what)?;
        }
    }
    let built = connect(&runtime)
        .during(|| "open netlink in the namespace")
        .and_then(|inside| runtime.block_on(wire(plan, &host, &inside)));
    if built.is_err() && plan.fresh {
        unpin(&plan.netns).ok();
    }
    built
}

fn connect(runtime: &tokio::runtime::Runtime) -> std::io::Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    runtime.spawn(connection);
    Ok(handle)
}

async fn wire(plan: &Plan, host: &Handle, inside: &Handle) -> Result<Built> {
    let mut built = Built::default();
    if plan.fresh {
        // Before an interface comes, which takes it over. The loopback keeps ::1.
        sysctl("ipv6/conf/default/disable_ipv6", "1");
        let up = LinkUnspec::new_with_index(1).up().build();
        let up = inside.link().set(up).execute().await;
        up.map_err(netlink).during(|| "set lo up")?;
    }
    for name in &plan.unlink {
        if let Some(link) = find(inside, name).await? {
            let gone = inside.link().del(link.index).execute().await;
            gone.map_err(netlink)
                .during(|| format!("remove interface {name} of the container"))?;
        }
    }
    let namespace =
        std::fs::File::open("/proc/thread-self/ns/net").during(|| "open the network namespace")?;
    for link in &plan.links {
        add(link, host, inside, namespace.as_raw_fd()).await?;
    }
    if let Some(ways) = &plan.ways {
        if !plan.fresh {
            clear_ways(ways, inside).await?;
        }
        for way in ways {
            add_way(way, inside).await?;
        }
    }
    if plan.resolver {
        built.resolver = Some(crate::net::ResolverSockets::open()?);
    }
    Ok(built)
}

/// Removes the default routes that are not wanted any more.
async fn clear_ways(ways: &[Way], inside: &Handle) -> Result<()> {
    use futures_util::TryStreamExt;
    use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute};
    for v6 in [false, true] {
        let question = match v6 {
            true => RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
            false => RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
        };
        let routes: Vec<_> = inside
            .route()
            .get(question)
            .execute()
            .try_collect()
            .await
            .map_err(netlink)
            .during(|| "list the container's routes")?;
        for route in routes {
            let by = route.attributes.iter().find_map(|a| match a {
                RouteAttribute::Gateway(RouteAddress::Inet(ip)) => Some(IpAddr::from(*ip)),
                RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => Some(IpAddr::from(*ip)),
                _ => None,
            });
            let Some(by) = by.filter(|_| route.header.destination_prefix_length == 0) else {
                continue;
            };
            if ways.contains(&Way::By(by)) {
                continue;
            }
            let gone = inside.route().del(route).execute().await;
            gone.map_err(netlink)
                .during(|| format!("remove the default route by {by}"))?;
        }
    }
    Ok(())
}

async fn add_way(way: &Way, inside: &Handle) -> Result<()> {
    let index = match way {
        Way::Out { interface, .. } => Some(
            find(inside, interface)
                .await?
                .ok_or_else(|| Error::internal(format!("interface {interface} has vanished")))?
                .index,
        ),
        Way::By(_) => None,
    };
    let message = match (way, index) {
        (Way::By(IpAddr::V4(gateway)), _) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .gateway(*gateway)
            .build(),
        (Way::By(IpAddr::V6(gateway)), _) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
            .gateway(*gateway)
            .build(),
        (Way::Out { v6: true, .. }, index) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
            .output_interface(index.unwrap_or_default())
            .build(),
        (Way::Out { v6: false, .. }, index) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .output_interface(index.unwrap_or_default())
            .build(),
    };
    let added = inside.route().add(message).replace().execute().await;
    added
        .map_err(netlink)
        .during(|| format!("add the default route {way:?}"))
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
