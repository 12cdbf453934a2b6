//! Networks: `none`, `host` and the default `bridge`, and the endpoints of containers on the last.
//!
//! ```text
//!  DATA-ROOT, in the database   network/bridge      id, interface, hardware address, subnet: kept over reboots
//!  EXEC-ROOT/endpoints/ID.json  one per endpoint    the address taken; written before anything is made in the kernel
//!  EXEC-ROOT/netns/ID           the pinned network namespace
//! ```
//!
//! The endpoint's file is the allocation of its address: the set of taken addresses is what the files say. So a daemon that
//! was killed at any point finds every namespace and interface it made, and [`Network::restore`] removes those whose
//! container does not run, and touches no other. After a reboot the files' boot id is another, and they are dropped.
//!
//! The bridge is set up in the background when the daemon starts; the first endpoint waits for it, and tries again if it
//! failed.

mod bridge;
pub(crate) mod container;
mod endpoint;
pub(crate) mod files;
pub(crate) mod ipam;
mod nft;
pub(crate) mod show;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use proto::engine::HostConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Config;
use crate::db::Db;
use crate::error::{During, Error, Result};

use ipam::{Pool, Subnet};

/// Kind of the records.
const KIND: &str = "network";

/// Extension of the files of endpoints that are being removed.
const LEAVING: &str = "leaving";

/// Name of the default network.
pub(crate) const BRIDGE: &str = "bridge";

/// Which network a container is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Its own namespace with nothing but lo.
    None,
    /// The host's namespace.
    Host,
    /// The default bridge.
    Bridge,
    /// The namespace of another container.
    Container(String),
}

/// A container's place on the bridge, as its file keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    version: u32,
    boot_id: String,
    /// The container.
    pub(crate) container: String,
    /// Id of the endpoint.
    pub(crate) id: String,
    /// Where the network namespace is pinned.
    pub(crate) netns: PathBuf,
    /// Name of the host's interface.
    pub(crate) veth: String,
    /// The container's address.
    pub(crate) ip: Ipv4Addr,
    /// Bits of the subnet.
    pub(crate) bits: u8,
    /// The default gateway.
    pub(crate) gateway: Ipv4Addr,
    /// Hardware address of the container's interface.
    pub(crate) mac: String,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

/// The record of the default network.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    version: u32,
    id: String,
    created: String,
    interface: String,
    mac: String,
    /// Address of the bridge with the bits of its subnet.
    #[serde(default)]
    address: Option<String>,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

/// The bridge as it is set up.
#[derive(Debug, Clone)]
struct Bridge {
    name: String,
    index: u32,
    gateway: Ipv4Addr,
    subnet: Subnet,
}

/// What an endpoint may ask for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// Hardware address, or empty.
    pub(crate) mac: String,
}

/// Handle of the networks; clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    db: Db,
    record: Mutex<Record>,
    /// Ids of `none` and `host`.
    fixed: [String; 2],
    bridge: tokio::sync::Mutex<Option<Bridge>>,
    state: Mutex<State>,
    /// Endpoints whose interfaces the kernel is still removing.
    leaving: tokio::sync::Mutex<tokio::task::JoinSet<()>>,
}

/// Addresses and endpoints; changed together.
#[derive(Debug, Default)]
struct State {
    pool: Option<Pool>,
    endpoints: BTreeMap<String, Endpoint>,
    /// Containers whose endpoints a former daemon made, until [`Network::restore`] has seen them.
    inherited: BTreeSet<String>,
}

/// The part of the configuration that matters here.
#[derive(Debug, Clone)]
struct Settings {
    endpoints: PathBuf,
    netns: PathBuf,
    /// A bridge that is used as it is; `none` for no default network.
    bridge: Option<String>,
    bip: Option<String>,
    iptables: bool,
    forward: bool,
    masquerade: bool,
    icc: bool,
    mtu: u32,
    dns: files::Dns,
}

impl Network {
    /// Reads the records and starts to set up the bridge.
    pub(crate) async fn open(config: &Config, db: &Db) -> Result<Self> {
        let settings = Settings {
            endpoints: config.exec_root.join("endpoints"),
            netns: config.exec_root.join("netns"),
            bridge: config.bridge.clone().filter(|name| !name.is_empty()),
            bip: config.bip.clone().filter(|text| !text.is_empty()),
            iptables: config.iptables,
            forward: config.ip_forward,
            masquerade: config.ip_masq,
            icc: config.icc,
            mtu: config.mtu,
            dns: files::Dns {
                servers: config.dns.clone(),
                search: config.dns_search.clone(),
                options: config.dns_opts.clone(),
            },
        };
        if let Some(bip) = &settings.bip {
            ipam::host_and_subnet(bip).map_err(|e| Error::invalid(format!("bip: {e}")))?;
        }
        if settings.bip.is_some() && settings.bridge.is_some() {
            return Err(Error::invalid(
                "--bridge and --bip exclude each other: a bridge that is used as it is has its address",
            ));
        }
        files::resolv("", &[&settings.dns], false)?;
        for dir in [&settings.endpoints, &settings.netns] {
            crate::make_private(dir)?;
        }
        let record = record(db).await?;
        let endpoints = settings.load()?;
        settings.unpin_strays(&endpoints)?;
        let network = Self {
            inner: Arc::new(Inner {
                fixed: ["none", "host"].map(|name| show::derived_id(&record.id, name)),
                record: Mutex::new(record),
                settings,
                db: db.clone(),
                bridge: tokio::sync::Mutex::default(),
                state: Mutex::new(State {
                    pool: None,
                    inherited: endpoints.keys().cloned().collect(),
                    endpoints,
                }),
                leaving: tokio::sync::Mutex::default(),
            }),
        };
        for endpoint in network.inner.settings.leaving()? {
            let task = Inner::finish(network.inner.clone(), endpoint);
            network.inner.leaving.lock().await.spawn(task);
        }
        if network.has_bridge() {
            let background = network.clone();
            tokio::spawn(async move {
                if let Err(e) = background.inner.bridge().await {
                    tracing::error!("the default bridge network is not set up: {e}");
                }
            });
        }
        Ok(network)
    }

    /// Whether there is a default network.
    pub(crate) fn has_bridge(&self) -> bool {
        self.inner.settings.bridge.as_deref() != Some("none")
    }

    /// What a container's network mode means, checked together with what else it asks of the network.
    pub(crate) fn mode(&self, host: &HostConfig) -> Result<Mode> {
        let mode = match host.network_mode.as_str() {
            "" | "default" | BRIDGE if self.has_bridge() => Mode::Bridge,
            "" | "default" | "none" => Mode::None,
            "host" => Mode::Host,
            name => match name.split_once(':') {
                Some(("container", other)) if !other.is_empty() => {
                    Mode::Container(other.to_owned())
                }
                _ => return Err(Error::not_found(format!("network {name} not found"))),
            },
        };
        let published = host.port_bindings.values().flatten().any(|b| !b.is_empty());
        if (published || host.publish_all_ports) && mode == Mode::Bridge {
            return Err(Error::unimplemented(
                "publishing ports is not supported yet",
            ));
        }
        if host.links.as_ref().is_some_and(|links| !links.is_empty()) {
            return Err(Error::unimplemented("links are not supported yet"));
        }
        for entry in host.extra_hosts.iter().flatten() {
            files::split_extra_host(entry)?;
        }
        Ok(mode)
    }

    /// The endpoint that a container has.
    pub(crate) fn endpoint(&self, container: &str) -> Option<Endpoint> {
        self.inner.state().endpoints.get(container).cloned()
    }

    /// Puts a container on the bridge. One that is there already (from a start that failed) is first taken off.
    pub(crate) async fn attach(&self, container: &str, wanted: &Wanted) -> Result<Endpoint> {
        let what = || format!("failed to set up container networking: container {container}");
        self.detach(container).await?;
        let bridge = self.inner.bridge().await.during(what)?;
        let endpoint = self
            .inner
            .reserve(container, &bridge, wanted)
            .during(what)?;
        let built = endpoint::build(endpoint::Plan {
            netns: endpoint.netns.clone(),
            bridge: bridge.index,
            veth: endpoint.veth.clone(),
            mac: parse_mac(&endpoint.mac)?,
            ip: endpoint.ip,
            bits: endpoint.bits,
            gateway: endpoint.gateway,
            isolated: !self.inner.settings.icc,
            mtu: self.inner.settings.mtu,
        })
        .await;
        match built {
            Ok(()) => Ok(endpoint),
            Err(e) => {
                // The bridge may have been removed under us: the next one looks again.
                *self.inner.bridge.lock().await = None;
                if let Err(left) = self.detach(container).await {
                    tracing::warn!("{left}");
                }
                Err(e.during(what()))
            }
        }
    }

    /// Takes a container off the bridge; one that is not there is no error. Its namespace is let go before this returns;
    /// the kernel takes its time with the interface, and the rest is done in the background.
    pub(crate) async fn detach(&self, container: &str) -> Result<()> {
        let Some(endpoint) = self.endpoint(container) else {
            return Ok(());
        };
        let what = || format!("release the network of container {container}");
        // Under another name first: from now on a restarted daemon removes it, whatever its container does.
        let file = self.inner.settings.file(&endpoint.id);
        let leaving = file.with_extension(LEAVING);
        match std::fs::rename(&file, &leaving) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::from(e).during(what()));
            }
            _ => {}
        }
        let netns = endpoint.netns.clone();
        crate::volumes::blocking(move || endpoint::unpin(&netns))
            .await
            .during(what)?;
        self.inner.state().endpoints.remove(container);
        self.inner
            .leaving
            .lock()
            .await
            .spawn(Inner::finish(self.inner.clone(), endpoint));
        Ok(())
    }

    /// Waits for what [`Network::detach`] left to the background.
    pub(crate) async fn settle(&self) {
        let mut leaving = self.inner.leaving.lock().await;
        while leaving.join_next().await.is_some() {}
    }

    /// Removes the endpoints of a former daemon whose containers do not run. Those made since this one started are not
    /// looked at: their containers may be starting. All is tried; the first failure is answered.
    pub(crate) async fn restore(&self, running: &BTreeSet<String>) -> Result<()> {
        let inherited = std::mem::take(&mut self.inner.state().inherited);
        let mut outcome = Ok(());
        for container in inherited.iter().filter(|id| !running.contains(*id)) {
            tracing::info!("remove the endpoint of container {container}, which does not run");
            outcome = outcome.and(self.detach(container).await);
        }
        outcome
    }

    #[expect(
        dead_code,
        reason = "the stop unit of host shutdown calls it, which comes with its issue"
    )]
    /// Takes away bridge and rules; for the host's shutdown or a removal, when no container is left on it.
    pub(crate) async fn teardown(&self) -> Result<()> {
        if !self.inner.state().endpoints.is_empty() {
            return Err(Error::conflict(
                "the default bridge network has active endpoints",
            ));
        }
        self.settle().await;
        let mut set_up = self.inner.bridge.lock().await;
        let record = self.inner.record();
        if self.inner.settings.iptables {
            nft::remove(&table(&record)).await?;
        }
        let handle = bridge::connect()?;
        if self.inner.settings.bridge.is_none()
            && let Some(link) = bridge::find(&handle, &record.interface).await?
            && link.mac == parse_mac(&record.mac)?
        {
            bridge::remove(&handle, &record.interface, link.index).await?;
        }
        *set_up = None;
        Ok(())
    }
}

impl Inner {
    /// Removes what is left of an endpoint, its file last: until then all of it can be found again.
    async fn finish(self: Arc<Self>, endpoint: Endpoint) {
        let outcome = async {
            let handle = bridge::connect()?;
            endpoint::remove_veth(&handle, &endpoint.veth).await?;
            let path = self.settings.file(&endpoint.id).with_extension(LEAVING);
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    Err(Error::from(e).during(format!("remove {}", path.display())))
                }
                _ => Ok(()),
            }
        };
        match outcome.await {
            Ok(()) => {
                let mut state = self.state();
                // After a restart somebody else may have it by now.
                let reused = state.endpoints.values().any(|e| e.ip == endpoint.ip);
                if let (Some(pool), false) = (&mut state.pool, reused) {
                    pool.give_back(endpoint.ip);
                }
            }
            // The address stays taken, and the next start of the daemon tries again.
            Err(e) => tracing::warn!(
                "release the network of container {}: {e}",
                endpoint.container
            ),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self) -> Record {
        let record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.clone()
    }

    /// The bridge, set up if it is not.
    async fn bridge(&self) -> Result<Bridge> {
        let mut set_up = self.bridge.lock().await;
        if let Some(bridge) = &*set_up {
            return Ok(bridge.clone());
        }
        let bridge = self.set_up().await?;
        self.fill_pool(&bridge);
        *set_up = Some(bridge.clone());
        Ok(bridge)
    }

    async fn set_up(&self) -> Result<Bridge> {
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
                table: &table(&record),
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
        let mac = parse_mac(&record.mac)?;
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

    fn fill_pool(&self, bridge: &Bridge) {
        let mut state = self.state();
        let mut pool = Pool::new(bridge.subnet, bridge.gateway);
        for endpoint in state.endpoints.values() {
            if let Err(e) = pool.take_this(endpoint.ip) {
                tracing::warn!("endpoint of container {}: {e}", endpoint.container);
            }
        }
        state.pool = Some(pool);
    }

    /// Takes an address and writes the endpoint's file; nothing is made in the kernel yet.
    fn reserve(&self, container: &str, bridge: &Bridge, wanted: &Wanted) -> Result<Endpoint> {
        let mut state = self.state();
        let pool = state
            .pool
            .as_mut()
            .ok_or_else(|| Error::internal("the bridge is set up without a pool"))?;
        let ip = pool
            .take()
            .map_err(|e| Error::new(proto::error::ErrorKind::ResourceExhausted, e.to_string()))?;
        let random = crate::random::hex(32);
        let mac = match wanted.mac.as_str() {
            "" => random_mac(),
            given => given.to_owned(),
        };
        let endpoint = Endpoint {
            version: 1,
            boot_id: boot_id(),
            container: container.to_owned(),
            netns: self.settings.netns.join(container),
            veth: format!("veth{}", &random[..7]),
            id: random,
            ip,
            bits: bridge.subnet.bits(),
            gateway: bridge.gateway,
            mac,
            other: BTreeMap::new(),
        };
        let saved = parse_mac(&endpoint.mac).and_then(|_| self.settings.save(&endpoint));
        if let Err(e) = saved {
            pool.give_back(ip);
            return Err(e);
        }
        state
            .endpoints
            .insert(container.to_owned(), endpoint.clone());
        Ok(endpoint)
    }
}

impl Settings {
    fn file(&self, endpoint: &str) -> PathBuf {
        self.endpoints.join(format!("{endpoint}.json"))
    }

    /// By rename, so that it is there whole or not at all. It need not survive power loss: neither does the endpoint.
    fn save(&self, endpoint: &Endpoint) -> Result<()> {
        let path = self.file(&endpoint.id);
        let what = || format!("write {}", path.display());
        let bytes = serde_json::to_vec(endpoint)
            .map_err(|e| Error::internal(format!("{}: {e}", what())))?;
        let temporary = path.with_extension("tmp");
        std::fs::write(&temporary, bytes).during(what)?;
        std::fs::rename(&temporary, &path).during(what)
    }

    /// The endpoints of this boot, by container. Files of another boot, and half-written ones, are removed.
    fn load(&self) -> Result<BTreeMap<String, Endpoint>> {
        let read = self.read_all("json")?.into_iter();
        Ok(read.map(|e| (e.container.clone(), e)).collect())
    }

    /// Lets go of namespaces that no endpoint speaks of: a daemon was killed between the two steps of a removal, or before a
    /// reboot if the directory outlived it.
    fn unpin_strays(&self, endpoints: &BTreeMap<String, Endpoint>) -> Result<()> {
        let what = || format!("read {}", self.netns.display());
        for entry in std::fs::read_dir(&self.netns).during(what)? {
            let path = entry.during(what)?.path();
            if !endpoints.values().any(|endpoint| endpoint.netns == path) {
                endpoint::unpin(&path)?;
            }
        }
        Ok(())
    }

    /// The endpoints whose removal was cut short.
    fn leaving(&self) -> Result<Vec<Endpoint>> {
        self.read_all(LEAVING)
    }

    fn read_all(&self, extension: &str) -> Result<Vec<Endpoint>> {
        let boot_id = boot_id();
        let mut endpoints = Vec::new();
        let what = || format!("read {}", self.endpoints.display());
        for entry in std::fs::read_dir(&self.endpoints).during(what)? {
            let path = entry.during(what)?.path();
            let kind = path.extension().and_then(|kind| kind.to_str());
            if kind != Some(extension) && kind != Some("tmp") {
                continue;
            }
            let bytes = std::fs::read(&path).during(|| format!("read {}", path.display()))?;
            match serde_json::from_slice::<Endpoint>(&bytes) {
                Ok(endpoint) if endpoint.boot_id == boot_id && kind != Some("tmp") => {
                    endpoints.push(endpoint);
                }
                _ => {
                    tracing::info!("{} is stale and removed", path.display());
                    std::fs::remove_file(&path).during(|| format!("remove {}", path.display()))?;
                }
            }
        }
        Ok(endpoints)
    }
}

/// The record of the default network, made at the first start.
async fn record(db: &Db) -> Result<Record> {
    let known: Vec<(String, Record)> = db.all(KIND).await?;
    if let Some((_, record)) = known.into_iter().find(|(name, _)| name == BRIDGE) {
        return Ok(record);
    }
    let record = Record {
        version: 1,
        id: crate::random::hex(32),
        created: crate::images::now(),
        interface: "docker0".into(),
        mac: random_mac(),
        address: None,
        other: BTreeMap::new(),
    };
    db.put(KIND, BRIDGE, &record).await?;
    Ok(record)
}

/// Name of the packet filter table of this installation.
fn table(record: &Record) -> String {
    format!("dockerd-lite-{}", record.id.get(..12).unwrap_or(&record.id))
}

/// A locally administered address.
fn random_mac() -> String {
    let hex = crate::random::hex(4);
    format!(
        "02:42:{}:{}:{}:{}",
        &hex[..2],
        &hex[2..4],
        &hex[4..6],
        &hex[6..8]
    )
}

fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let wrong = || Error::invalid(format!("invalid MAC address {text:?}"));
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let mut mac = [0u8; 6];
    if parts.len() != mac.len() {
        return Err(wrong());
    }
    for (byte, part) in mac.iter_mut().zip(parts) {
        *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
    }
    // The lowest bit marks a group, which no interface can be.
    if mac[0] & 1 == 1 || mac == [0; 6] {
        return Err(wrong());
    }
    Ok(mac)
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses() {
        assert_eq!(
            parse_mac("02:42:ac:11:00:02").unwrap(),
            [2, 0x42, 0xac, 0x11, 0, 2]
        );
        assert!(parse_mac(&random_mac()).is_ok());
        for bad in [
            "",
            "02:42",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "zz:42:ac:11:00:02",
        ] {
            assert!(parse_mac(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn files_of_another_boot_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            endpoints: dir.path().to_owned(),
            netns: dir.path().to_owned(),
            bridge: None,
            bip: None,
            iptables: false,
            forward: false,
            masquerade: false,
            icc: true,
            mtu: 0,
            dns: files::Dns::default(),
        };
        let mut endpoint: Endpoint = serde_json::from_value(serde_json::json!({
            "version": 1, "boot_id": boot_id(), "container": "a", "id": "e", "netns": "/n", "veth": "v",
            "ip": "10.0.0.2", "bits": 16, "gateway": "10.0.0.1", "mac": "02:42:00:00:00:01", "new": 1
        }))
        .unwrap();
        settings.save(&endpoint).unwrap();
        assert_eq!(settings.load().unwrap()["a"], endpoint);
        endpoint.boot_id = "other".into();
        endpoint.id = "b".into();
        settings.save(&endpoint).unwrap();
        std::fs::write(dir.path().join("c.tmp"), "{").unwrap();
        assert_eq!(settings.load().unwrap().len(), 1);
        assert!(!dir.path().join("b.json").exists() && !dir.path().join("c.tmp").exists());
    }

    /// Run by hand or by CI: `unshare -n` around the test program, as root.
    #[tokio::test]
    #[ignore = "needs root and a network namespace of its own"]
    async fn endpoints_come_and_go_and_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let flags = <crate::config::Flags as clap::Parser>::parse_from([
            "dockerd-lite",
            "--data-root",
            &path("data"),
            "--exec-root",
            &path("exec"),
        ]);
        let config = Config::load(&flags).unwrap();
        let db = Db::open(&dir.path().join("r.db")).unwrap();
        // By thread: /sys shows the namespace of its mount.
        let links = || {
            std::fs::read_to_string("/proc/thread-self/net/dev")
                .unwrap()
                .lines()
                .count()
        };
        let network = Network::open(&config, &db).await.unwrap();
        network.inner.bridge().await.unwrap();
        let before = links();
        let mut times = Vec::new();
        for n in 0..20 {
            let start = std::time::Instant::now();
            let endpoint = network
                .attach(&format!("c{n}"), &Wanted::default())
                .await
                .unwrap();
            times.push(start.elapsed());
            assert!(endpoint.netns.exists());
        }
        times.sort();
        println!(
            "attach: min {:?}, median {:?}, max {:?}",
            times[0], times[10], times[19]
        );
        drop(network);
        // A new daemon keeps the one whose container runs.
        let network = Network::open(&config, &db).await.unwrap();
        let kept = network.endpoint("c3").unwrap();
        network.restore(&["c3".to_owned()].into()).await.unwrap();
        assert_eq!(network.endpoint("c3"), Some(kept.clone()));
        assert_ne!(
            network.attach("new", &Wanted::default()).await.unwrap().ip,
            kept.ip
        );
        let start = std::time::Instant::now();
        network.detach("c3").await.unwrap();
        println!("detach: {:?}", start.elapsed());
        assert!(network.teardown().await.is_err());
        network.detach("new").await.unwrap();
        network.settle().await;
        assert_eq!(links(), before);
        assert_eq!(
            std::fs::read_dir(dir.path().join("exec/netns"))
                .unwrap()
                .count(),
            0
        );
        network.teardown().await.unwrap();
        assert_eq!(links(), before - 1);
    }
}
