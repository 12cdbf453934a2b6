//! Setting networks up: the bridge, its addresses, forwarding; or finding the interface that a macvlan hangs on.

use std::net::IpAddr;
use std::sync::Arc;

use super::ipam::{self, Pool, Subnet};
use super::store::{KIND, Record};
use super::{BRIDGE, Inner, Net, bridge, mac, options};
use crate::error::{Error, Result};

impl Inner {
    /// Sets all networks up and brings the packet filter and the helper to what they shall be; for a daemon that starts.
    pub(super) async fn set_up_all(self: Arc<Self>) {
        let ids: Vec<String> = self.state().nets.keys().cloned().collect();
        for id in ids {
            if let Err(e) = self.link_of(&id).await {
                tracing::error!("network {id} is not set up: {e}");
            }
        }
        if let Err(e) = self.apply().await {
            tracing::error!("{e}");
        }
        if self.settings.iptables {
            let inner = self.clone();
            let former = crate::volumes::blocking(move || inner.filter.remove_former());
            if let Err(e) = former.await {
                tracing::warn!("remove the rules of an earlier version: {e}");
            }
        }
        self.helper.follow();
    }

    /// The interface of a network on the host, set up if it is not. Its rules are brought up by who asks for it.
    pub(super) async fn link_of(&self, id: &str) -> Result<(Arc<Record>, u32)> {
        let look = || {
            let state = self.state();
            let net = state.nets.get(id).ok_or_else(|| gone(id))?;
            Ok::<_, Error>((net.record.clone(), net.index))
        };
        if let (record, Some(index)) = look()? {
            return Ok((record, index));
        }
        let _turn = self.turn.lock().await;
        let record = match look()? {
            (record, Some(index)) => return Ok((record, index)),
            (record, None) => record,
        };
        let handle = bridge::connect()?;
        let (record, index) = match record.driver.as_str() {
            BRIDGE if record.is_default() => self.default_bridge(&handle, &record).await?,
            BRIDGE => {
                let index = user_bridge(&handle, &record).await?;
                (record, index)
            }
            _ => {
                let index = parent(&handle, &record).await?;
                (record, index)
            }
        };
        if self.settings.forward && record.driver == BRIDGE {
            bridge::forward_packets(false)?;
            if record.ipv6 {
                bridge::forward_packets(true)?;
            }
        }
        {
            let mut state = self.state();
            let sandboxes = std::mem::take(&mut state.sandboxes);
            if let Some(net) = state.nets.get_mut(id) {
                if net.record != record {
                    *net = Net::new((*record).clone(), &sandboxes);
                }
                net.index = Some(index);
            }
            state.sandboxes = sandboxes;
        }
        self.apply().await?;
        Ok((record, index))
    }

    /// Looks at a network's interface anew when it is needed next: it may have been removed under us.
    pub(super) fn doubt(&self, networks: impl Iterator<Item = String>) {
        let mut state = self.state();
        for id in networks {
            if let Some(net) = state.nets.get_mut(&id) {
                net.index = None;
            }
        }
    }

    async fn default_bridge(
        &self,
        handle: &rtnetlink::Handle,
        record: &Arc<Record>,
    ) -> Result<(Arc<Record>, u32)> {
        match &self.settings.bridge {
            Some(name) => self.foreign(handle, record, name).await,
            None => self.own(handle, record).await,
        }
    }

    /// A bridge that somebody else made, used as it is.
    async fn foreign(
        &self,
        handle: &rtnetlink::Handle,
        record: &Record,
        name: &str,
    ) -> Result<(Arc<Record>, u32)> {
        let link = bridge::find(handle, name)
            .await?
            .filter(|link| link.is_bridge)
            .ok_or_else(|| Error::not_found(format!("bridge {name} does not exist")))?;
        let addresses = bridge::addresses(handle, link.index).await?;
        let (_, gateway, bits) = addresses
            .into_iter()
            .find(|(_, address, _)| address.is_ipv4())
            .ok_or_else(|| Error::invalid(format!("bridge {name} has no IPv4 address")))?;
        let mut record = record.clone();
        let address = format!("{gateway}/{bits}");
        record.ipam = options::default_ipam(Some(&address), self.settings.fixed_cidr);
        Ok((Arc::new(record), link.index))
    }

    /// Our own bridge: found by its mark, or made under the first name that nobody else has.
    async fn own(
        &self,
        handle: &rtnetlink::Handle,
        record: &Arc<Record>,
    ) -> Result<(Arc<Record>, u32)> {
        let mac = mac::parse(&record.mac)?;
        let names = std::iter::once(record.interface.clone())
            .chain(["docker0".to_owned()])
            .chain((0..16).map(|n| format!("docker-lite{n}")));
        for name in names {
            let link = match bridge::find(handle, &name).await? {
                Some(link) if link.is_bridge && link.mac == mac => link,
                Some(_) => continue,
                None => {
                    if !bridge::make(handle, &name, mac).await? {
                        continue;
                    }
                    bridge::find(handle, &name).await?.ok_or_else(|| {
                        Error::internal(format!("bridge {name} has vanished after it was made"))
                    })?
                }
            };
            let (gateway, subnet) = self.choose(handle, record, link.index).await?;
            let address = format!("{gateway}/{}", subnet.bits());
            let mut now = (**record).clone();
            if now.interface != name || now.address.as_ref() != Some(&address) {
                now.interface.clone_from(&name);
                now.address = Some(address);
                self.db.put(KIND, BRIDGE, &now).await?;
            }
            let now = options::with_settings(now, &self.settings);
            let wanted = bridge::Wanted {
                addresses: &[(gateway, subnet.bits())],
                leaves_v4: false,
                mtu: self.settings.mtu,
            };
            bridge::configure(handle, &name, link.index, &wanted).await?;
            return Ok((Arc::new(now), link.index));
        }
        Err(Error::conflict(
            "docker0 and docker-lite0 to docker-lite15 belong to others; name a bridge by --bridge",
        ))
    }

    /// The subnet of our bridge: the one asked for, the one it had, or the first that is free.
    async fn choose(
        &self,
        handle: &rtnetlink::Handle,
        record: &Record,
        index: u32,
    ) -> Result<(IpAddr, Subnet)> {
        if let Some(bip) = &self.settings.bip {
            return ipam::host_and_subnet(bip).map_err(|e| Error::invalid(e.to_string()));
        }
        let recorded = record
            .address
            .as_deref()
            .and_then(|text| ipam::host_and_subnet(text).ok());
        // Endpoints hold addresses of the recorded subnet: it cannot change under them.
        let used = self
            .state()
            .sandboxes
            .values()
            .any(|sandbox| sandbox.on(&record.id).is_some());
        if let (Some(recorded), true) = (recorded, used) {
            return Ok(recorded);
        }
        let taken = bridge::routed(handle, Some(index)).await?;
        let free = |subnet: &Subnet| !taken.iter().any(|other| other.overlaps(*subnet));
        if let Some((gateway, subnet)) = recorded.filter(|(_, subnet)| free(subnet)) {
            return Ok((gateway, subnet));
        }
        let subnet = self.free_subnet(&taken, &record.id).ok_or_else(|| {
            Error::conflict("no subnet is free for the default bridge; name one by --bip")
        })?;
        Ok((subnet.first(), subnet))
    }

    /// The first subnet of the daemon's pools that neither a route nor another network has.
    pub(super) fn free_subnet(&self, routes: &[Subnet], except: &str) -> Option<Subnet> {
        let mut taken: Vec<Subnet> = routes.to_vec();
        {
            let state = self.state();
            let others = state.nets.values().filter(|net| net.record.id != except);
            taken.extend(others.flat_map(|net| net.pools.iter().map(Pool::subnet)));
        }
        let free = |subnet: &Subnet| !taken.iter().any(|other| other.overlaps(*subnet));
        let pools = self
            .settings
            .pools
            .iter()
            .filter(|(whole, _)| !whole.is_v6());
        pools
            .flat_map(|(whole, bits)| ipam::parts(*whole, *bits))
            .find(free)
    }

    /// Removes the bridge of a network, if it is ours and there.
    pub(super) async fn remove_bridge(&self, record: &Record) -> Result<()> {
        let foreign = record.is_default() && self.settings.bridge.is_some();
        if record.driver != BRIDGE || foreign {
            return Ok(());
        }
        let handle = bridge::connect()?;
        match bridge::find(&handle, &record.interface).await? {
            Some(link) if link.mac == mac::parse(&record.mac)? => {
                bridge::remove(&handle, &record.interface, link.index).await
            }
            _ => Ok(()),
        }
    }
}

/// The bridge of a user's network, made if it is missing.
async fn user_bridge(handle: &rtnetlink::Handle, record: &Record) -> Result<u32> {
    let mac = mac::parse(&record.mac)?;
    let name = &record.interface;
    let find = || bridge::find(handle, name);
    let link = match find().await? {
        Some(link) => Some(link),
        None => {
            bridge::make(handle, name, mac).await?;
            find().await?
        }
    };
    let link = link
        .filter(|link| link.is_bridge && link.mac == mac)
        .ok_or_else(|| {
            Error::conflict(format!(
                "the interface {name} of network {} belongs to somebody else",
                record.name
            ))
        })?;
    let wanted = bridge::Wanted {
        addresses: &options::gateways(record),
        leaves_v4: options::inhibits_v4(record),
        mtu: mtu(record),
    };
    bridge::configure(handle, name, link.index, &wanted).await?;
    Ok(link.index)
}

/// Largest packet of a network, or 0 for the kernel's default.
pub(super) fn mtu(record: &Record) -> u32 {
    record
        .option("com.docker.network.driver.mtu")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// The host's interface that a macvlan or ipvlan hangs on.
async fn parent(handle: &rtnetlink::Handle, record: &Record) -> Result<u32> {
    let name = record.option("parent").unwrap_or_default();
    bridge::find(handle, name)
        .await?
        .map(|link| link.index)
        .ok_or_else(|| {
            Error::not_found(format!(
                "the parent interface {name:?} of network {} does not exist",
                record.name
            ))
        })
}

/// The error for a network that is not there.
pub(super) fn gone(text: &str) -> Error {
    Error::not_found(format!("network {text} not found"))
}
