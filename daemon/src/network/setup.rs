//! Setting up the default network: the bridge, its address, forwarding and the packet filter.

use std::net::Ipv4Addr;
use std::sync::PoisonError;

use super::ipam::{self, Subnet};
use super::store::{self, KIND, Record};
use super::{BRIDGE, Bridge, Inner, bridge, mac, nft};
use crate::error::{Error, Result};

impl Inner {
    /// Finds or makes the bridge, and brings it and its rules into their state.
    pub(super) async fn set_up(&self) -> Result<Bridge> {
        let handle = bridge::connect()?;
        let bridge = match &self.settings.bridge {
            Some(name) => self.foreign(&handle, name).await?,
            None => self.own(&handle).await?,
        };
        if self.settings.forward {
            bridge::forward_packets()?;
        }
        if self.settings.iptables {
            let record = self.record();
            nft::Rules {
                table: &store::table(&record),
                bridge: &bridge.name,
                subnet: bridge.subnet,
                icc: self.settings.icc,
                masquerade: self.settings.masquerade,
            }
            .apply()
            .await?;
        }
        Ok(bridge)
    }

    /// A bridge that somebody else made, used as it is.
    async fn foreign(&self, handle: &rtnetlink::Handle, name: &str) -> Result<Bridge> {
        let link = bridge::find(handle, name)
            .await?
            .filter(|link| link.is_bridge)
            .ok_or_else(|| Error::not_found(format!("bridge {name} does not exist")))?;
        let addresses = bridge::addresses(handle, link.index).await?;
        let (_, gateway, bits) = addresses
            .into_iter()
            .next()
            .ok_or_else(|| Error::invalid(format!("bridge {name} has no IPv4 address")))?;
        Ok(Bridge {
            name: name.to_owned(),
            index: link.index,
            gateway,
            subnet: Subnet::around(gateway, bits),
        })
    }

    /// Our own bridge: found by its mark, or made under the first name that nobody else has.
    async fn own(&self, handle: &rtnetlink::Handle) -> Result<Bridge> {
        let mut record = self.record();
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
            let (gateway, subnet) = self.choose(handle, &record, link.index).await?;
            let address = format!("{gateway}/{}", subnet.bits());
            if record.interface != name || record.address.as_ref() != Some(&address) {
                record.interface.clone_from(&name);
                record.address = Some(address);
                self.db.put(KIND, BRIDGE, &record).await?;
                *self.record.lock().unwrap_or_else(PoisonError::into_inner) = record;
            }
            let mtu = self.settings.mtu;
            bridge::configure(handle, &name, link.index, gateway, subnet.bits(), mtu).await?;
            return Ok(Bridge {
                name,
                index: link.index,
                gateway,
                subnet,
            });
        }
        Err(Error::conflict(
            "docker0 and docker-lite0 to docker-lite15 belong to others; name a bridge by --bridge",
        ))
    }

    /// The subnet of our bridge: the one asked for, the one it had, or the first that the host has no route to.
    async fn choose(
        &self,
        handle: &rtnetlink::Handle,
        record: &Record,
        index: u32,
    ) -> Result<(Ipv4Addr, Subnet)> {
        if let Some(bip) = &self.settings.bip {
            return ipam::host_and_subnet(bip).map_err(|e| Error::invalid(e.to_string()));
        }
        let recorded = record
            .address
            .as_deref()
            .and_then(|text| ipam::host_and_subnet(text).ok());
        // Endpoints hold addresses of the recorded subnet: it cannot change under them.
        if let (Some(recorded), false) = (recorded, self.state().endpoints.is_empty()) {
            return Ok(recorded);
        }
        let taken = bridge::routed(handle, Some(index)).await?;
        let free = |subnet: &Subnet| !taken.iter().any(|other| other.overlaps(*subnet));
        if let Some((gateway, subnet)) = recorded.filter(|(_, subnet)| free(subnet)) {
            return Ok((gateway, subnet));
        }
        let subnet = ipam::default_pools().find(free).ok_or_else(|| {
            Error::conflict("no subnet is free for the default bridge; name one by --bip")
        })?;
        Ok((subnet.first(), subnet))
    }
}
