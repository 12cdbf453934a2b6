//! Networks, and the places of containers on them.
//!
//! ```text
//!  DATA-ROOT, in the database          network/ID     a record for each network: kept over reboots
//!  EXEC-ROOT/endpoints/CONTAINER.json  a sandbox      addresses, interfaces, ports; written before anything is made
//!  EXEC-ROOT/netns/CONTAINER           the pinned network namespace
//!
//!  record ──set_up──▶ bridge, addresses      records and sandboxes ──filter/──▶ one table of the packet filter
//!  sandbox ─sandbox.rs─▶ namespace, interfaces, routes      sandboxes ──net/──▶ `dockerd-lite net`: loopback, names
//! ```
//!
//! The sandbox's file is the allocation of its addresses and ports: what is taken is what the files say. So a daemon that
//! was killed at any point finds everything it made, and [`Network::restore`] removes what belongs to containers that do not
//! run, and touches nothing else. After a reboot the files' boot id is another, and they are dropped.
//!
//! Rules and names are always computed from all records and sandboxes and compared with what stands; only differences are
//! changed. Bridges are set up in the background when the daemon starts; an endpoint waits for its own.

mod attach;
mod bridge;
mod connect;
pub(crate) mod container;
mod create;
mod endpoint;
mod etc;
pub(crate) mod files;
mod filter;
mod first_format;
mod interface;
pub(crate) mod ipam;
pub(crate) mod links;
mod mac;
pub(crate) mod mend;
mod options;
mod plane;
pub(crate) mod ports;
pub(crate) mod republish;
mod sandbox;
mod set_up;
pub(crate) mod show;
mod store;
pub(crate) mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) use attach::Sockets;
pub(crate) use endpoint::{Endpoint, Sandbox};
pub(crate) use filter::redirect_resolver;
use ipam::Pool;
pub(crate) use plane::Plane;
pub(crate) use store::Record;
use store::Settings;

use crate::config::Config;
use crate::db::Db;
use crate::error::{Error, Result};

/// Name of the default network.
pub(crate) const BRIDGE: &str = "bridge";

/// Which network a container begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Its own namespace with nothing but lo.
    None,
    /// The host's namespace.
    Host,
    /// The network of this name: the default one, or a user's.
    Network(String),
    /// The namespace of another container.
    Container(String),
}

impl Mode {
    /// Whether it is the default bridge.
    pub(crate) fn is_default(&self) -> bool {
        matches!(self, Self::Network(name) if name == BRIDGE)
    }
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
    /// Ids of `none` and `host`.
    fixed: [String; 2],
    state: Mutex<State>,
    filter: filter::Filter,
    helper: crate::net::Helper,
    /// Held while networks are made, set up or removed.
    turn: tokio::sync::Mutex<()>,
    /// Sandboxes whose interfaces the kernel is still removing.
    leaving: tokio::sync::Mutex<tokio::task::JoinSet<()>>,
}

/// What is known; changed together.
#[derive(Debug, Default)]
struct State {
    /// By id.
    nets: BTreeMap<String, Net>,
    /// By container.
    sandboxes: BTreeMap<String, Sandbox>,
    /// Containers whose sandboxes a former daemon made, until [`Network::restore`] has seen them.
    inherited: BTreeSet<String>,
}

/// A network at work.
#[derive(Debug, Clone)]
struct Net {
    record: Arc<Record>,
    pools: Vec<Pool>,
    /// Index of the bridge or of the parent, once it is set up.
    index: Option<u32>,
}

impl Net {
    /// A network with the addresses that sandboxes hold on it taken.
    fn new(record: Record, sandboxes: &BTreeMap<String, Sandbox>) -> Self {
        let mut pools = options::pools(&record);
        let held = sandboxes.values().filter_map(|s| s.on(&record.id));
        for address in held.flat_map(Endpoint::addresses) {
            if let Some(pool) = pools.iter_mut().find(|p| p.subnet().has_host(address.ip)) {
                // Twice in the files would be a fault of ours that nothing here can mend.
                let _ = pool.take_this(address.ip);
            }
        }
        Self {
            record: Arc::new(record),
            pools,
            index: None,
        }
    }

    /// Gives addresses back.
    fn give_back(&mut self, endpoint: &Endpoint) {
        for address in endpoint.addresses() {
            self.pools
                .iter_mut()
                .filter(|pool| pool.subnet().has_host(address.ip))
                .for_each(|pool| pool.give_back(address.ip));
        }
    }
}

impl Network {
    /// Reads the records and starts to set the networks up.
    pub(crate) async fn open(config: &Config, db: &Db) -> Result<Self> {
        let settings = options::settings(config)?;
        for dir in [&settings.sandboxes, &settings.netns] {
            crate::make_private(dir)?;
        }
        let records = store::records(db).await?;
        let default = &records[0];
        let fixed = ["none", "host"].map(|name| show::derived_id(&default.id, name));
        let filter = filter::Filter::new(store::table(default));
        let sandboxes = settings.load(&default.id)?;
        settings.unpin_strays(&sandboxes)?;
        let leaving = settings.leaving(&default.id)?;
        let nets = records
            .into_iter()
            .filter(|record| !record.is_default() || settings.bridge.as_deref() != Some("none"))
            .map(|record| {
                let record = options::with_settings(record, &settings);
                (record.id.clone(), Net::new(record, &sandboxes))
            });
        let network = Self {
            inner: Arc::new(Inner {
                fixed,
                state: Mutex::new(State {
                    nets: nets.collect(),
                    inherited: sandboxes.keys().cloned().collect(),
                    sandboxes,
                }),
                settings,
                db: db.clone(),
                filter,
                helper: crate::net::Helper::new(&config.exec_root),
                turn: tokio::sync::Mutex::default(),
                leaving: tokio::sync::Mutex::default(),
            }),
        };
        let plane: Arc<dyn Plane> = network.inner.clone();
        network.inner.helper.know(Arc::downgrade(&plane));
        for sandbox in leaving {
            let task = Inner::finish(network.inner.clone(), sandbox);
            network.inner.leaving.lock().await.spawn(task);
        }
        let background = network.inner.clone();
        tokio::spawn(async move { background.set_up_all().await });
        Ok(network)
    }

    /// Whether there is a default network.
    pub(crate) fn has_bridge(&self) -> bool {
        self.inner.settings.bridge.as_deref() != Some("none")
    }

    /// The sandbox that a container has.
    pub(crate) fn sandbox(&self, container: &str) -> Option<Sandbox> {
        self.inner.state().sandboxes.get(container).cloned()
    }

    /// The record of the network that a user means: by name, by id, or by the unique beginning of an id.
    pub(crate) fn record(&self, text: &str) -> Option<Arc<Record>> {
        let state = self.inner.state();
        let records = || state.nets.values().map(|net| &net.record);
        let by_name = records().find(|record| record.name == text);
        let by_id = || {
            let mut fitting = records().filter(|record| record.id.starts_with(text));
            fitting.next().filter(|_| fitting.next().is_none())
        };
        by_name
            .or_else(|| if text.is_empty() { None } else { by_id() })
            .cloned()
    }

    /// Waits for what [`Network::detach`] left to the background.
    pub(crate) async fn settle(&self) {
        let mut leaving = self.inner.leaving.lock().await;
        while leaving.join_next().await.is_some() {}
    }

    /// Removes the sandboxes of a former daemon whose containers do not run. Those made since this one started are not
    /// looked at: their containers may be starting. All is tried; the first failure is answered.
    pub(crate) async fn restore(&self, running: &BTreeSet<String>) -> Result<()> {
        let inherited = std::mem::take(&mut self.inner.state().inherited);
        let mut outcome = Ok(());
        for container in inherited.iter().filter(|id| !running.contains(*id)) {
            tracing::info!("remove the network of container {container}, which does not run");
            outcome = outcome.and(self.detach(container).await);
        }
        outcome
    }

    /// Takes away bridges, rules and the helper; for the host's shutdown or a removal, when no container is on a network.
    pub(crate) async fn teardown(&self) -> Result<()> {
        if !self.inner.state().sandboxes.is_empty() {
            return Err(Error::conflict("networks have active endpoints"));
        }
        self.settle().await;
        let _turn = self.inner.turn.lock().await;
        self.inner.helper.end().await?;
        if self.inner.settings.iptables {
            let inner = self.inner.clone();
            crate::volumes::blocking(move || inner.filter.remove()).await?;
        }
        let records: Vec<_> = {
            let mut state = self.inner.state();
            state.nets.values_mut().for_each(|net| net.index = None);
            state.nets.values().map(|net| net.record.clone()).collect()
        };
        for record in records {
            self.inner.remove_bridge(&record).await?;
        }
        Ok(())
    }
}

/// Makes a table of rules: a trial, in a network namespace that is thrown away.
pub(crate) fn probe_filter() -> Result<()> {
    filter::Filter::new("probe".into()).apply(|| (Vec::new(), Vec::new()))
}

impl Inner {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a sandbox to everybody, so that its networks stay, and writes it to its file.
    fn keep(&self, sandbox: &Sandbox) -> Result<()> {
        let before = {
            let mut state = self.state();
            let mut networks = sandbox.endpoints.iter();
            if let Some(gone) = networks.find(|e| !state.nets.contains_key(&e.network)) {
                return Err(set_up::gone(&gone.name));
            }
            let key = sandbox.container.clone();
            state.sandboxes.insert(key, sandbox.clone())
        };
        let saved = self.settings.save(sandbox);
        if saved.is_err() {
            let mut state = self.state();
            match before {
                Some(before) => drop(state.sandboxes.insert(sandbox.container.clone(), before)),
                None => drop(state.sandboxes.remove(&sandbox.container)),
            }
        }
        saved
    }

    /// Removes what is left of a sandbox, its file last: until then all of it can be found again.
    async fn finish(self: Arc<Self>, sandbox: Sandbox) {
        let outcome = async {
            sandbox::unpin(&sandbox.netns).ok();
            let handle = bridge::connect()?;
            for endpoint in sandbox.endpoints.iter().filter(|e| !e.veth.is_empty()) {
                bridge::remove_veth(&handle, &endpoint.veth).await?;
            }
            let path = self.settings.leaving_file(&sandbox);
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    Err(Error::from(e).during(format!("remove {}", path.display())))
                }
                _ => Ok(()),
            }
        };
        match outcome.await {
            Ok(()) => self.give_back(&sandbox.endpoints),
            // The addresses stay taken, and the next start of the daemon tries again.
            Err(e) => tracing::warn!(
                "release the network of container {}: {e}",
                sandbox.container
            ),
        }
    }

    /// Gives back the addresses of endpoints that are no more.
    fn give_back(&self, endpoints: &[Endpoint]) {
        let mut state = self.state();
        let State {
            nets, sandboxes, ..
        } = &mut *state;
        for endpoint in endpoints {
            let Some(net) = nets.get_mut(&endpoint.network) else {
                continue;
            };
            let mut others = sandboxes.values().filter_map(|s| s.on(&endpoint.network));
            // After a restart somebody else may have it by now.
            let reused = |ip: IpAddr| others.any(|o| o.addresses().any(|a| a.ip == ip));
            let first = endpoint.addresses().next().map(|a| a.ip);
            if !first.is_some_and(reused) {
                net.give_back(endpoint);
            }
        }
    }
}

#[cfg(test)]
mod tests;
