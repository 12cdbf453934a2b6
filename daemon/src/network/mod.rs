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
mod mac;
mod nft;
mod setup;
pub(crate) mod show;
mod store;

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
use store::{LEAVING, Record, Settings};

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
        let record = store::record(db).await?;
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
            mac: mac::parse(&endpoint.mac)?,
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
            nft::remove(&store::table(&record)).await?;
        }
        let handle = bridge::connect()?;
        if self.inner.settings.bridge.is_none()
            && let Some(link) = bridge::find(&handle, &record.interface).await?
            && link.mac == mac::parse(&record.mac)?
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
            "" => mac::random(),
            given => given.to_owned(),
        };
        let endpoint = Endpoint {
            version: 1,
            boot_id: store::boot_id(),
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
        let saved = mac::parse(&endpoint.mac).and_then(|_| self.settings.save(&endpoint));
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

#[cfg(test)]
mod tests {
    use super::*;

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
