//! The files in a container's /etc that tell of its networks: written to its directory, and mounted.

use std::net::IpAddr;
use std::path::Path;

use oci_spec::runtime::{Mount, MountBuilder};
use proto::engine::HostConfig;

use super::{Endpoint, Mode, Network, Sandbox, files, links, options};
use crate::App;
use crate::container::Record;
use crate::error::{During, Error, Result};

/// Changes the file of hosts of a container that runs. In place: it is mounted.
pub(super) fn edit_hosts(app: &App, record: &Record, edit: impl FnOnce(&mut String)) -> Result<()> {
    let path = app.config.container_dir(&record.id).join("hosts");
    let what = || format!("change {}", path.display());
    // The container may have put anything there.
    let bytes = std::fs::read(&path).during(what)?;
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    edit(&mut text);
    std::fs::write(&path, text).during(what)
}

/// Writes them all, anew at every start and in place: a container that shares this one's network has them mounted too.
pub(super) fn write_files(app: &App, record: &Record, mode: &Mode) -> Result<()> {
    let sandbox = app.network.sandbox(&record.id);
    let hosts = hosts(app, record, mode, sandbox.as_ref())?;
    let own = sandbox.is_some_and(|s| s.resolver.is_some());
    write(app, record, "hosts", &hosts)?;
    write(
        app,
        record,
        "hostname",
        &files::hostname(&record.config.hostname),
    )?;
    write_resolv(app, record, own)
}

/// Writes `resolv.conf`; `own` for a container whose names we look up.
pub(super) fn write_resolv(app: &App, record: &Record, own: bool) -> Result<()> {
    let mode = app.network.mode(&record.host)?;
    let text = app.network.resolv(&record.host, mode == Mode::Host, own)?;
    write(app, record, "resolv.conf", &text)
}

fn write(app: &App, record: &Record, name: &str, text: &str) -> Result<()> {
    let path = app.config.container_dir(&record.id).join(name);
    let what = || format!("write {}", path.display());
    std::fs::write(&path, text).during(what)?;
    // Every user of the container reads them; the daemon's umask is narrow.
    crate::volumes::set_mode(&path, 0o644).during(what)
}

fn hosts(app: &App, record: &Record, mode: &Mode, sandbox: Option<&Sandbox>) -> Result<String> {
    let extra = record.host.extra_hosts.clone().unwrap_or_default();
    if *mode == Mode::Host {
        let mut text = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        let gateway = app.network.host_gateway(true);
        return Ok(text + &files::extra_lines(&extra, &gateway)?);
    }
    let addresses = sandbox.iter().flat_map(|s| &s.endpoints);
    let own: Vec<IpAddr> = addresses
        .flat_map(Endpoint::addresses)
        .map(|address| address.ip)
        .collect();
    let links: Vec<(IpAddr, String)> = links::linked(app, record)?
        .into_iter()
        .map(|link| (link.address, link.names))
        .collect();
    let (host, domain) = (&record.config.hostname, &record.config.domainname);
    let gateway = app.network.host_gateway(false);
    files::hosts(host, domain, &own, &links, &extra, &gateway)
}

/// The files' mounts, but for those whose place the user has taken.
pub(super) fn mounts(record: &Record, dir: &Path) -> Result<Vec<Mount>> {
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

impl Network {
    /// The servers that a container's resolver of ours asks.
    pub(crate) fn resolver(&self, host: &HostConfig) -> Result<Vec<IpAddr>> {
        let dns = dns(host);
        let settings = [&self.inner.settings.dns, &dns];
        files::resolv_own(
            &files::host_resolv(self.inner.settings.resolv.as_deref()),
            &settings,
        )
        .map(|(_, servers)| servers)
    }

    /// The content of a container's `/etc/resolv.conf`.
    fn resolv(&self, host: &HostConfig, shares: bool, own: bool) -> Result<String> {
        let dns = dns(host);
        let settings = [&self.inner.settings.dns, &dns];
        let text = files::host_resolv(self.inner.settings.resolv.as_deref());
        match own {
            true => files::resolv_own(&text, &settings).map(|(text, _)| text),
            false => files::resolv(&text, &settings, shares),
        }
    }

    /// What `host-gateway` stands for: what was configured, or the default bridge's address.
    fn host_gateway(&self, on_host: bool) -> Vec<IpAddr> {
        let given = &self.inner.settings.host_gateway;
        if !given.is_empty() {
            return given.clone();
        }
        if on_host {
            return vec![std::net::Ipv4Addr::LOCALHOST.into()];
        }
        let state = self.inner.state();
        let default = state.nets.values().find(|net| net.record.is_default());
        let gateways = default.map(|net| options::gateways(&net.record));
        let gateways = gateways.unwrap_or_default();
        gateways.into_iter().map(|(address, _)| address).collect()
    }
}

fn dns(host: &HostConfig) -> files::Dns {
    let list = |given: &Option<Vec<String>>| given.clone().unwrap_or_default();
    files::Dns {
        servers: list(&host.dns),
        search: list(&host.dns_search),
        options: list(&host.dns_options),
    }
}
