//! What a container asks of the networks, from its record: the namespace to run in and the files in /etc.
//!
//! The files lie in the container's directory and are written anew at every start, in place: a container that shares this
//! one's network has them mounted too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, MountBuilder};
use proto::engine::{EndpointSettings, HostConfig, NetworkSettings, NetworkingConfig};
use proto::error::ErrorKind;

use super::{BRIDGE, Mode, Wanted};
use crate::App;
use crate::container::Record;
use crate::error::{During, Error, Result};

/// Where a container's network namespace comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Namespace {
    /// The runtime makes an empty one.
    New,
    /// The host's.
    Host,
    /// The one behind this path.
    Path(PathBuf),
    /// That of a running container of this name or id.
    Container(String),
}

/// Checks what a container to be created asks for, puts the default mode in, and answers its networks by name.
pub(crate) fn wanted(
    app: &App,
    host: &mut HostConfig,
    mac: &str,
    asked: Option<NetworkingConfig>,
) -> Result<BTreeMap<String, EndpointSettings>> {
    // A client takes "not found" for a missing image and pulls it.
    let invalid = |e: Error| match e.is_not_found() {
        true => e.with_kind(ErrorKind::InvalidArgument),
        false => e,
    };
    let mode = app.network.mode(host).map_err(invalid)?;
    host.network_mode = match &mode {
        Mode::None => "none".into(),
        Mode::Host => "host".into(),
        Mode::Bridge => BRIDGE.into(),
        Mode::Container(other) => {
            // By id, for names change.
            let other = app.containers.find(other).map_err(invalid)?;
            format!("container:{}", other.id())
        }
    };
    let mut networks = BTreeMap::new();
    for (name, settings) in asked.unwrap_or_default().endpoints_config {
        let name = match name.as_str() {
            "default" => host.network_mode.clone(),
            _ => app.network.find(&name).map_err(invalid)?.to_owned(),
        };
        networks.insert(name, settings.unwrap_or_default());
    }
    if let Some(other) = networks.keys().find(|name| **name != host.network_mode) {
        return Err(Error::unimplemented(format!(
            "connecting a container to a second network ({other}) is not supported yet"
        )));
    }
    for settings in networks.values() {
        check_endpoint(settings)?;
    }
    let networks = match mode {
        Mode::Container(_) if networks.is_empty() => networks,
        _ => {
            networks.entry(host.network_mode.clone()).or_default();
            networks
        }
    };
    for mac in networks
        .values()
        .map(|n| n.mac_address.as_str())
        .chain([mac])
    {
        if !mac.is_empty() {
            super::mac::parse(mac)?;
        }
    }
    Ok(networks)
}

fn check_endpoint(settings: &EndpointSettings) -> Result<()> {
    let ipam = settings.ipam_config.clone().unwrap_or_default();
    if !ipam.ipv4_address.is_empty() || !ipam.ipv6_address.is_empty() {
        return Err(Error::invalid(
            "user specified IP address is supported only when connecting to networks with user configured subnets",
        ));
    }
    if settings
        .links
        .as_ref()
        .is_some_and(|links| !links.is_empty())
    {
        return Err(Error::unimplemented("links are not supported yet"));
    }
    if settings
        .aliases
        .as_ref()
        .is_some_and(|names| !names.is_empty())
    {
        return Err(Error::invalid(
            "network-scoped aliases are only supported for user-defined networks",
        ));
    }
    Ok(())
}

/// Makes the endpoint of a container that starts, and its files. Taken back by [`release`].
pub(crate) async fn attach(app: &App, record: &Record) -> Result<(Namespace, Vec<Mount>)> {
    let mode = app.network.mode(&record.host)?;
    let namespace = match &mode {
        Mode::None => Namespace::New,
        Mode::Host => Namespace::Host,
        Mode::Container(other) => {
            let id = app.containers.find(other)?.id().to_owned();
            let mounts = mounts(record, &app.config.container_dir(&id))?;
            return Ok((Namespace::Container(id), mounts));
        }
        Mode::Bridge => {
            let asked = record.networks.get(BRIDGE).map(|n| n.mac_address.as_str());
            let mac = match asked {
                Some(mac) if !mac.is_empty() => mac,
                _ => &record.config.mac_address,
            };
            let wanted = Wanted {
                mac: mac.to_owned(),
            };
            Namespace::Path(app.network.attach(&record.id, &wanted).await?.netns)
        }
    };
    write_files(app, record, &mode)?;
    let mounts = mounts(record, &app.config.container_dir(&record.id))?;
    Ok((namespace, mounts))
}

/// Takes a container's endpoint back; having none is no error.
pub(crate) async fn release(app: &App, record: &Record) -> Result<()> {
    app.network.detach(&record.id).await
}

/// Whether a container that kept running has the endpoint it should have.
pub(crate) fn check(app: &App, record: &Record) -> Result<()> {
    let mode = app.network.mode(&record.host)?;
    if mode == Mode::Bridge && app.network.endpoint(&record.id).is_none() {
        return Err(Error::internal(format!(
            "container {} runs, but nothing is recorded of its endpoint",
            record.id
        )));
    }
    Ok(())
}

fn write_files(app: &App, record: &Record, mode: &Mode) -> Result<()> {
    let endpoint = app.network.endpoint(&record.id);
    let files = app.network.etc_files(
        mode,
        endpoint.as_ref(),
        &record.config.hostname,
        &record.config.domainname,
        &record.host,
    )?;
    let dir = app.config.container_dir(&record.id);
    for (name, text) in [
        ("hosts", &files.hosts),
        ("hostname", &files.hostname),
        ("resolv.conf", &files.resolv),
    ] {
        let path = dir.join(name);
        let what = || format!("write {}", path.display());
        std::fs::write(&path, text).during(what)?;
        // Every user of the container reads them; the daemon's umask is narrow.
        crate::volumes::set_mode(&path, 0o644).during(what)?;
    }
    Ok(())
}

/// The files' mounts, but for those whose place the user has taken.
fn mounts(record: &Record, dir: &Path) -> Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    for name in ["resolv.conf", "hostname", "hosts"] {
        let destination = format!("/etc/{name}");
        if record.mounts.iter().any(|m| m.destination == destination) {
            continue;
        }
        let mount = MountBuilder::default()
            .typ("bind")
            .source(dir.join(name))
            .destination(&destination)
            .options(["rbind", "rprivate"].map(str::to_owned).to_vec())
            .build()
            .map_err(|e| Error::internal(format!("mount of {destination}: {e}")))?;
        mounts.push(mount);
    }
    Ok(mounts)
}

/// What inspect says of the container's network.
pub(crate) fn shown(app: &App, record: &Record) -> NetworkSettings {
    let mode = app.network.mode(&record.host).unwrap_or(Mode::None);
    let endpoint = app.network.endpoint(&record.id);
    let mut settings = NetworkSettings {
        networks: app
            .network
            .settings(&mode, &record.networks, endpoint.as_ref()),
        ..NetworkSettings::default()
    };
    if let Some(endpoint) = endpoint {
        settings.sandbox_key = endpoint.netns.display().to_string();
        settings.sandbox_id = super::show::derived_id(&endpoint.id, "sandbox");
        let exposed = record.config.exposed_ports.keys();
        settings.ports = exposed.map(|port| (port.clone(), None)).collect();
        settings.bridge = Some(String::new());
        settings.hairpin_mode = Some(false);
        settings.link_local_ipv6_address = Some(String::new());
        settings.link_local_ipv6_prefix_len = Some(0);
        settings.endpoint_id = Some(endpoint.id);
        settings.gateway = Some(endpoint.gateway.to_string());
        settings.global_ipv6_address = Some(String::new());
        settings.global_ipv6_prefix_len = Some(0);
        settings.ip_address = Some(endpoint.ip.to_string());
        settings.ip_prefix_len = Some(endpoint.bits.into());
        settings.ipv6_gateway = Some(String::new());
        settings.mac_address = Some(endpoint.mac);
    }
    settings
}
