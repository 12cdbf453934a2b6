//! Changing a container's networks: in its record, and in its namespace while it runs.

use std::sync::Arc;

use proto::engine::{Empty, EndpointSettings, PortMap};

use super::actor::Actor;
use super::state::State;
use crate::api::networks::emit;
use crate::error::{Error, Result};
use crate::network::{Mode, Record as Network, container, ports, republish, wanted};

impl Actor {
    /// Puts the container on a network.
    pub(super) async fn connect(
        &mut self,
        network: Arc<Network>,
        settings: EndpointSettings,
    ) -> Result<()> {
        if matches!(self.record.state, State::Removing { .. }) {
            return Err(Error::conflict(
                "container is marked for removal and cannot be connected",
            ));
        }
        let mode = self.app.network.mode(&self.record.host)?;
        match mode {
            Mode::Network(_) => {}
            Mode::None => {
                // Docker lets a container leave the mode by connecting it; ours would have to make a namespace under it.
                return Err(Error::forbidden(
                    "container cannot be connected to multiple networks with one of the networks in private (none) mode",
                ));
            }
            Mode::Host | Mode::Container(_) => {
                return Err(Error::forbidden(
                    "container sharing network namespace with another container or host cannot be connected to any other network",
                ));
            }
        }
        wanted::check_endpoint(&network, &settings)?;
        let app = self.app.clone();
        if self.record.state.running().is_some() {
            let sandbox = app.network.sandbox(&self.record.id);
            if sandbox.is_some_and(|s| s.on(&network.id).is_some()) {
                return Err(Error::forbidden(format!(
                    "endpoint with name {} already exists in network {}",
                    self.record.name, network.name
                )));
            }
            container::connect(&app, &self.record, &network.name, &settings).await?;
        }
        self.record.networks.insert(network.name.clone(), settings);
        self.publish();
        self.persist().await?;
        emit(&app, "connect", &network, &[("container", &self.record.id)]);
        Ok(())
    }

    /// Takes the container off a network.
    pub(super) async fn disconnect(&mut self, network: Arc<Network>) -> Result<()> {
        let app = self.app.clone();
        if !self.record.networks.contains_key(&network.name) {
            return Err(Error::internal(format!(
                "container {} is not connected to the network {}",
                self.record.id, network.name
            )));
        }
        let sandbox = app.network.sandbox(&self.record.id);
        if sandbox.is_some_and(|s| s.on(&network.id).is_some()) {
            container::disconnect(&app, &self.record, &network.id).await?;
        }
        self.record.networks.remove(&network.name);
        // The one that it begins with next time.
        if self.record.host.network_mode == network.name
            && let Some(first) = self.record.networks.keys().next().cloned()
        {
            self.record.host.network_mode = first;
        }
        self.publish();
        self.persist().await?;
        let id = self.record.id.clone();
        emit(&app, "disconnect", &network, &[("container", &id)]);
        Ok(())
    }

    /// Changes what is published: in the namespace while it runs, and in the record.
    pub(super) async fn republish(&mut self, add: &PortMap, remove: &PortMap) -> Result<()> {
        if add.is_empty() && remove.is_empty() {
            return Ok(());
        }
        let app = self.app.clone();
        if !matches!(app.network.mode(&self.record.host)?, Mode::Network(_)) {
            return Err(Error::invalid(format!(
                "conflicting options: port publishing and network mode {}",
                self.record.host.network_mode
            )));
        }
        let (come, gone) = (ports::of_map(add)?, republish::to_remove(remove)?);
        let mut host = self.record.host.clone();
        let published = app.network.sandbox(&self.record.id);
        let published = published.map(|sandbox| sandbox.ports).unwrap_or_default();
        republish::change(&mut host.port_bindings, &published, add, &gone)?;
        if self.record.state.running().is_some() {
            app.network.republish(&self.record.id, &gone, &come).await?;
        }
        self.record.host = host;
        let exposed = &mut self.record.config.exposed_ports;
        exposed.extend(add.keys().map(|port| (port.clone(), Empty {})));
        Ok(())
    }

    /// Makes the record whole for a start: a container that shares another one's network has its names as well, and one
    /// that was taken off all its networks begins with its first again.
    pub(super) fn complete_networks(&mut self) -> Result<()> {
        match self.app.network.mode(&self.record.host)? {
            Mode::Container(other) => {
                let other = self.app.containers.find(&other)?.record();
                let config = &mut self.record.config;
                config.hostname.clone_from(&other.config.hostname);
                config.domainname.clone_from(&other.config.domainname);
            }
            Mode::Network(first) if self.record.networks.is_empty() => {
                self.record
                    .networks
                    .insert(first, EndpointSettings::default());
            }
            _ => {}
        }
        Ok(())
    }
}
