//! Changing the networks of a container that runs.

use std::net::IpAddr;
use std::sync::Arc;

use super::attach::{EndpointWish, Sockets};
use super::endpoint::{Endpoint, Published, Sandbox};
use super::republish::is_meant;
use super::sandbox::{self, Plan};
use super::{Inner, Network, bridge, ports};
use crate::error::{During, Error, Result};

impl Network {
    /// Puts a running container on a further network. `wanted` are all the ports that it asks for, to be published if this
    /// gives it its first way out.
    pub(crate) async fn connect(
        &self,
        container: &str,
        wish: &EndpointWish,
        wanted: &[ports::Wanted],
        servers: Option<Vec<IpAddr>>,
    ) -> Result<Sandbox> {
        let inner = &self.inner;
        let before = self
            .sandbox(container)
            .ok_or_else(|| no_sandbox(container))?;
        let (record, index) = inner.link_of(&wish.network).await?;
        let mut sandbox = before.clone();
        let endpoint = inner.reserve(&record, wish, &sandbox.endpoints)?;
        sandbox.endpoints.push(endpoint.clone());
        let link = inner.link(&record, index, &endpoint, wish)?;
        let mut sockets = Sockets::default();
        let prepared = (|| {
            if sandbox.ports.is_empty() {
                let bound = inner.bind_ports(&sandbox, wanted)?;
                sandbox.ports = bound.ports;
                sockets.ports = bound.sockets;
            }
            if sandbox.resolver.is_none() && !record.is_default() {
                sandbox.resolver = servers;
            }
            inner.keep(&sandbox)
        })();
        if let Err(e) = prepared {
            inner.give_back(&[endpoint]);
            return Err(e);
        }
        let plan = Plan {
            netns: sandbox.netns.clone(),
            links: vec![link],
            ways: Some(inner.ways(&sandbox)),
            resolver: before.resolver.is_none() && sandbox.resolver.is_some(),
            ..Plan::default()
        };
        let changed = inner.rewire(&before, &sandbox, plan, sockets).await;
        if let Err(e) = changed {
            inner.doubt(std::iter::once(wish.network.clone()));
            if let Err(left) = inner
                .take_off(&sandbox, &endpoint, before.ports.clone())
                .await
            {
                tracing::warn!("{left}");
            }
            return Err(e.during(format!(
                "connect container {container} to network {}",
                record.name
            )));
        }
        Ok(sandbox)
    }

    /// Takes a running container off a network.
    pub(crate) async fn disconnect(&self, container: &str, network: &str) -> Result<Sandbox> {
        let sandbox = self
            .sandbox(container)
            .ok_or_else(|| no_sandbox(container))?;
        let endpoint = sandbox.on(network).cloned().ok_or_else(|| {
            Error::internal(format!(
                "container {container} is not connected to network {network}"
            ))
        })?;
        let mut after = sandbox.clone();
        after.endpoints.retain(|e| e.id != endpoint.id);
        let ways_out = after.gateway(false).is_some() || after.gateway(true).is_some();
        let ports = match ways_out {
            true => sandbox.ports.clone(),
            false => Vec::new(),
        };
        self.inner.take_off(&sandbox, &endpoint, ports).await
    }

    /// Changes the published ports of a running container to these.
    pub(crate) async fn republish(
        &self,
        container: &str,
        gone: &[ports::Wanted],
        come: &[ports::Wanted],
    ) -> Result<()> {
        let inner = &self.inner;
        let before = self
            .sandbox(container)
            .ok_or_else(|| no_sandbox(container))?;
        let mut sandbox = before.clone();
        let stays = |port: &Published| !gone.iter().any(|gone| is_meant(gone, port));
        sandbox.ports.retain(stays);
        let bound = inner.bind_ports(&sandbox, come)?;
        sandbox.ports.extend(bound.ports);
        inner.keep(&sandbox)?;
        let sockets = Sockets {
            ports: bound.sockets,
            ..Sockets::default()
        };
        inner.apply().await?;
        inner.forget_datagrams(&before).await;
        inner.open_ports(&sandbox).await?;
        let (old, new) = (inner.table_of(&before), inner.table_of(&sandbox));
        inner.helper.change(&old, &new, sockets).await?;
        inner.helper.follow();
        Ok(())
    }

    /// Gives a running container other names on its networks.
    pub(crate) async fn rename(&self, container: &str, old: &str, new: &str) -> Result<()> {
        let Some(before) = self.sandbox(container) else {
            return Ok(());
        };
        let mut sandbox = before.clone();
        for name in sandbox.endpoints.iter_mut().flat_map(|e| &mut e.names) {
            if name == old {
                new.clone_into(name);
            }
        }
        if sandbox == before {
            return Ok(());
        }
        let inner = &self.inner;
        inner.keep(&sandbox)?;
        let (old, new) = (inner.table_of(&before), inner.table_of(&sandbox));
        inner.helper.change(&old, &new, Sockets::default()).await
    }
}

fn no_sandbox(container: &str) -> Error {
    Error::internal(format!("container {container} has no network namespace"))
}

impl Inner {
    /// Changes the namespace, then rules and helper.
    async fn rewire(
        self: &Arc<Self>,
        before: &Sandbox,
        after: &Sandbox,
        plan: Plan,
        mut sockets: Sockets,
    ) -> Result<()> {
        let built = sandbox::build(plan).await?;
        if let Some(pair) = built.resolver {
            sockets.resolvers.insert(after.container.clone(), pair);
        }
        self.apply().await?;
        self.forget_datagrams(before).await;
        self.open_ports(after).await?;
        let (old, new) = (self.table_of(before), self.table_of(after));
        self.helper.change(&old, &new, sockets).await?;
        self.helper.follow();
        Ok(())
    }

    /// Removes one endpoint. The interface goes before the record of it.
    async fn take_off(
        self: &Arc<Self>,
        sandbox: &Sandbox,
        endpoint: &Endpoint,
        ports: Vec<Published>,
    ) -> Result<Sandbox> {
        let mut after = sandbox.clone();
        after.endpoints.retain(|e| e.id != endpoint.id);
        after.ports = ports;
        let plan = Plan {
            netns: sandbox.netns.clone(),
            unlink: match endpoint.veth.is_empty() {
                true => vec![endpoint.interface.clone()],
                false => Vec::new(),
            },
            ways: Some(self.ways(&after)),
            ..Plan::default()
        };
        let what = || {
            format!(
                "take container {} off network {}",
                sandbox.container, endpoint.name
            )
        };
        if !endpoint.veth.is_empty() {
            let handle = bridge::connect()?;
            bridge::remove_veth(&handle, &endpoint.veth)
                .await
                .during(what)?;
        }
        let rewired = self.rewire_kept(sandbox, &after, plan).await;
        self.give_back(std::slice::from_ref(endpoint));
        rewired.during(what)?;
        Ok(after)
    }

    async fn rewire_kept(
        self: &Arc<Self>,
        before: &Sandbox,
        after: &Sandbox,
        plan: Plan,
    ) -> Result<()> {
        self.keep(after)?;
        self.rewire(before, after, plan, Sockets::default()).await
    }
}
