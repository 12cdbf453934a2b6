//! Making a running container's networks what its record says, after a daemon was killed in the middle of changing them, or
//! somebody else has changed the host's interfaces.

use super::attach::{EndpointWish, Sockets};
use super::endpoint::{Endpoint, Sandbox};
use super::sandbox::{self, Plan};
use super::{Inner, Network, bridge, container};
use crate::App;
use crate::container::Record;
use crate::error::{During, Error, Result};

/// Compares, and changes what differs; for a container that kept running while no daemon did.
pub(crate) async fn restore(app: &App, record: &Record) -> Result<()> {
    if !matches!(app.network.mode(&record.host)?, super::Mode::Network(_)) {
        return Ok(());
    }
    let sandbox = app.network.sandbox(&record.id).ok_or_else(|| {
        Error::internal(format!(
            "container {} runs, but nothing is recorded of its network",
            record.id
        ))
    })?;
    // A change that was not acknowledged is taken back: the record is what counts.
    let unwanted = sandbox.endpoints.iter();
    for endpoint in unwanted.filter(|e| !record.networks.contains_key(&e.name)) {
        container::disconnect(app, record, &endpoint.network).await?;
    }
    app.network.mend(&record.id).await?;
    for (name, settings) in &record.networks {
        if !sandbox.endpoints.iter().any(|e| e.name == *name) {
            container::connect(app, record, name, settings).await?;
        }
    }
    Ok(())
}

impl Network {
    /// Makes the interfaces of a container that are missing, and puts those that are there where they belong.
    async fn mend(&self, container: &str) -> Result<()> {
        let Some(sandbox) = self.sandbox(container) else {
            return Ok(());
        };
        for endpoint in sandbox.endpoints.iter().filter(|e| !e.veth.is_empty()) {
            let mended = self.inner.mend(&sandbox, endpoint).await;
            mended.during(|| {
                format!(
                    "look after the interface of container {container} on network {}",
                    endpoint.name
                )
            })?;
        }
        Ok(())
    }
}

impl Inner {
    async fn mend(&self, sandbox: &Sandbox, endpoint: &Endpoint) -> Result<()> {
        let (record, index) = self.link_of(&endpoint.network).await?;
        let handle = bridge::connect()?;
        match bridge::find(&handle, &endpoint.veth).await? {
            Some(link) if link.controller == Some(index) => return Ok(()),
            Some(link) => {
                tracing::warn!("{} is put back on {}", endpoint.veth, record.name);
                return bridge::join(&handle, link.index, index).await;
            }
            None => {}
        }
        tracing::warn!("{} of {} is made again", endpoint.veth, sandbox.container);
        let plan = Plan {
            netns: sandbox.netns.clone(),
            links: vec![self.link(&record, index, endpoint, &EndpointWish::default())?],
            ways: Some(self.ways(sandbox)),
            ..Plan::default()
        };
        sandbox::build(plan).await?;
        self.open_ports(sandbox).await?;
        let table = self.table_of(sandbox);
        let nothing = Default::default();
        self.helper
            .change(&nothing, &table, Sockets::default())
            .await
    }
}
