//! What a container asks of the networks, from its record: the namespace to run in and the files in /etc.

use std::net::IpAddr;
use std::path::PathBuf;

use oci_spec::runtime::Mount;
use proto::engine::EndpointSettings;

use super::attach::{EndpointWish, Wish};
use super::etc::{edit_hosts, mounts, write_files, write_resolv};
use super::links::links;
use super::{Mode, Sandbox, files, ports, set_up};
use crate::App;
use crate::api::networks::emit;
use crate::container::Record;
use crate::error::{Error, Result};

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

/// Makes the sandbox of a container that starts, and its files. Taken back by [`release`].
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
        Mode::Network(first) => {
            let mut wish = Wish {
                ports: ports::wanted(&record.host, &record.config.exposed_ports)?,
                ..Wish::default()
            };
            let own = record.networks.get_key_value(first);
            let others = record.networks.iter().filter(|(name, _)| *name != first);
            for (name, settings) in own.into_iter().chain(others) {
                wish.endpoints
                    .push(endpoint_wish(app, record, name, settings)?);
            }
            if record.networks.keys().any(|name| name != super::BRIDGE) {
                wish.resolver = Some(app.network.resolver(&record.host)?);
            }
            let sandbox = app.network.attach(&record.id, &wish).await?;
            tell(app, "connect", &sandbox);
            Namespace::Path(sandbox.netns)
        }
    };
    write_files(app, record, &mode)?;
    let mounts = mounts(record, &app.config.container_dir(&record.id))?;
    Ok((namespace, mounts))
}

/// What a container asks of one network, from its settings for it.
pub(crate) fn endpoint_wish(
    app: &App,
    record: &Record,
    name: &str,
    settings: &EndpointSettings,
) -> Result<EndpointWish> {
    let network = app.network.record(name).ok_or_else(|| set_up::gone(name))?;
    let ipam = settings.ipam_config.clone().unwrap_or_default();
    let addresses = [&ipam.ipv4_address, &ipam.ipv6_address];
    let addresses = addresses.into_iter().filter(|text| !text.is_empty());
    let first = record.host.network_mode == network.name;
    let options = settings.driver_opts.clone().unwrap_or_default();
    let sysctls = options
        .get("com.docker.network.endpoint.sysctls")
        .map_or("", String::as_str);
    Ok(EndpointWish {
        network: network.id.clone(),
        mac: match settings.mac_address.as_str() {
            "" if first => record.config.mac_address.clone(),
            mac => mac.to_owned(),
        },
        addresses: addresses
            .map(|text| {
                text.parse()
                    .map_err(|_| Error::invalid(format!("invalid IP address {text:?}")))
            })
            .collect::<Result<Vec<IpAddr>>>()?,
        names: match network.is_default() {
            true => Vec::new(),
            false => super::show::dns_names(record, settings),
        },
        links: links(app, settings.links.as_deref().unwrap_or_default())?,
        priority: settings.gw_priority,
        interface: options
            .get("com.docker.network.endpoint.ifname")
            .cloned()
            .unwrap_or_default(),
        sysctls: sysctls
            .split(',')
            .filter_map(|setting| setting.split_once('='))
            .map(|(key, value)| {
                (
                    key.trim_start_matches("net.").replace('.', "/"),
                    value.into(),
                )
            })
            .collect(),
    })
}

/// Takes a container's sandbox back; having none is no error.
pub(crate) async fn release(app: &App, record: &Record) -> Result<()> {
    let sandbox = app.network.sandbox(&record.id);
    app.network.detach(&record.id).await?;
    if let Some(sandbox) = sandbox {
        tell(app, "disconnect", &sandbox);
    }
    Ok(())
}

/// Tells an event for each network of a sandbox.
fn tell(app: &App, action: &str, sandbox: &Sandbox) {
    for endpoint in &sandbox.endpoints {
        if let Some(network) = app.network.record(&endpoint.network) {
            emit(app, action, &network, &[("container", &sandbox.container)]);
        }
    }
}

/// Puts a running container on a further network.
pub(crate) async fn connect(
    app: &App,
    record: &Record,
    name: &str,
    settings: &EndpointSettings,
) -> Result<()> {
    let wish = endpoint_wish(app, record, name, settings)?;
    let wanted = ports::wanted(&record.host, &record.config.exposed_ports)?;
    let servers = app.network.resolver(&record.host)?;
    let before = app.network.sandbox(&record.id);
    let sandbox = app
        .network
        .connect(&record.id, &wish, &wanted, Some(servers))
        .await?;
    let had_resolver = before.is_some_and(|s| s.resolver.is_some());
    if sandbox.resolver.is_some() && !had_resolver {
        write_resolv(app, record, true)?;
    }
    let Some(endpoint) = sandbox.on(&wish.network) else {
        return Ok(());
    };
    edit_hosts(app, record, |text| {
        for address in endpoint.addresses() {
            let (host, domain) = (&record.config.hostname, &record.config.domainname);
            text.push_str(&files::own_line(address.ip, host, domain));
        }
    })
}

/// Takes a running container off a network.
pub(crate) async fn disconnect(app: &App, record: &Record, network: &str) -> Result<()> {
    let before = app.network.sandbox(&record.id);
    app.network.disconnect(&record.id, network).await?;
    let gone: Vec<String> = before
        .iter()
        .filter_map(|sandbox| sandbox.on(network))
        .flat_map(|endpoint| endpoint.addresses().map(|a| format!("{}\t", a.ip)))
        .collect();
    edit_hosts(app, record, |text| {
        let kept = text.lines().filter(|line| {
            let mut gone = gone.iter();
            !gone.any(|address| line.starts_with(address.as_str()))
        });
        *text = kept.map(|line| format!("{line}\n")).collect();
    })
}
