//! What a container gets from the other nouns: its endpoint, its mounts, its volumes.

use std::collections::BTreeMap;

use oci_spec::runtime::Mount as SpecMount;
use proto::engine::{
    Config, EndpointSettings, HostConfig, NetworkSettings, NetworkingConfig, Port, Set,
};
use proto::error::ErrorKind;

use super::record::Record;
use crate::App;
use crate::error::{Error, Result};
use crate::network::container::{self as network, Namespace};
use crate::spec::Join;
use crate::volumes::Pins;
use crate::volumes::request::{self, Mount};
use crate::volumes::runtime::volume_names;

/// The networks of a container to be created; checks the network mode and puts its default in.
pub(super) fn networks(
    app: &App,
    host: &mut HostConfig,
    config: &Config,
    wanted: Option<NetworkingConfig>,
) -> Result<BTreeMap<String, EndpointSettings>> {
    crate::network::wanted::wanted(app, host, config, wanted)
}

/// The mounts of a container to be created; makes the volumes among them.
pub(super) async fn volumes(
    app: &App,
    record: &Record,
    image_volumes: &Set,
) -> Result<(Vec<Mount>, Pins)> {
    let from = |name: &str| match app.containers.find(name) {
        Ok(handle) => Ok(handle.record().mounts.clone()),
        Err(e) => Err(e.message().to_owned()),
    };
    let volumes = record.config.volumes.as_ref();
    let mut mounts = request::collect(&record.host, volumes, image_volumes, from)
        .map_err(|e| Error::invalid(e.to_string()))?;
    crate::volumes::runtime::check_sources(&mounts).await?;
    let pins = app.volumes.prepare(&mut mounts).await?;
    Ok((mounts, pins))
}

/// Fills empty volumes with what the image has in their place.
pub(super) async fn populate(app: &App, record: &Record) -> Result<()> {
    if volume_names(&record.mounts, false).is_empty() {
        return Ok(());
    }
    let snapshot = super::start::snapshot_mounts(app, record).await?;
    app.volumes.populate(&record.mounts, &snapshot).await
}

/// Lets go of the volumes of a container that is removed; `anonymous` removes those whose names were made up.
pub(super) async fn release_volumes(app: &App, record: &Record, anonymous: bool) -> Result<()> {
    if !anonymous {
        return Ok(());
    }
    for name in volume_names(&record.mounts, true) {
        let users = |volume: &str| app.containers.volume_users(volume, &record.id);
        match app.volumes.remove(&name, true, users).await {
            Ok(()) => {}
            // Another container took it up by --volumes-from.
            Err(e) if e.kind() == ErrorKind::FailedPrecondition => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// The network namespace of a container that starts, and the files that go with it.
pub(super) async fn endpoint(app: &App, record: &Record) -> Result<(Join, Vec<SpecMount>)> {
    let (namespace, mounts) = network::attach(app, record).await?;
    let join = match namespace {
        Namespace::New => Join::New,
        Namespace::Host => Join::Host,
        Namespace::Path(path) => Join::Path(path),
        Namespace::Container(id) => {
            let pid = super::start::pid_of(app, &id, "net")?;
            Join::Path(format!("/proc/{pid}/ns/net").into())
        }
    };
    Ok((join, mounts))
}

/// Takes an endpoint back.
pub(super) async fn release_endpoint(app: &App, record: &Record) {
    if let Err(e) = network::release(app, record).await {
        // What is left is found by the next start of the daemon.
        tracing::warn!("{e}");
    }
}

/// Makes the networks of a container that kept running what its record says.
pub(super) async fn restore_endpoint(app: &App, record: &Record) -> Result<()> {
    crate::network::mend::restore(app, record).await
}

/// The user's mounts for the spec.
pub(super) async fn mounts(app: &App, record: &Record) -> Result<Vec<SpecMount>> {
    app.volumes.runtime_mounts(&record.mounts).await
}

/// The networks as inspect shows them.
pub(super) fn settings(app: &App, record: &Record) -> NetworkSettings {
    crate::network::show::container(app, record)
}

/// The ports as a list shows them.
pub(super) fn ports(app: &App, record: &Record) -> Vec<Port> {
    crate::network::show::listed_ports(app, record)
}

/// Whether the container is on the network that a filter names by id.
pub(super) fn is_on(app: &App, record: &Record, network: &str) -> bool {
    let networks = settings(app, record).networks;
    let mut ids = networks.values();
    !network.is_empty() && ids.any(|endpoint| endpoint.network_id.starts_with(network))
}
