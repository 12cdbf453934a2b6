//! What the networks keep on disk: their records, which outlive a reboot, and a file for each container that is on one,
//! which does not.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::path::PathBuf;

use proto::engine::Ipam;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::files;
use super::filter::rules::Gateway;
use super::ipam::Subnet;
use super::{BRIDGE, endpoint::Sandbox, first_format, sandbox};
use crate::db::Db;
use crate::error::{During, Error, Result};

/// Kind of the records.
pub(super) const KIND: &str = "network";

/// Extension of the files of sandboxes that are being removed.
pub(super) const LEAVING: &str = "leaving";

/// The record of a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(super) version: u32,
    pub(crate) id: String,
    /// Empty for the default network of the first format.
    #[serde(default)]
    pub(crate) name: String,
    pub(super) created: String,
    /// `bridge`, `macvlan` or `ipvlan`.
    #[serde(default)]
    pub(crate) driver: String,
    /// The host's interface: a bridge of ours.
    #[serde(default)]
    pub(super) interface: String,
    /// The bridge's hardware address, which tells that it is ours.
    #[serde(default)]
    pub(super) mac: String,
    /// Of the default network: address of the bridge with the bits of its subnet.
    #[serde(default)]
    pub(super) address: Option<String>,
    #[serde(default = "yes")]
    pub(super) ipv4: bool,
    #[serde(default)]
    pub(super) ipv6: bool,
    #[serde(default)]
    pub(super) internal: bool,
    #[serde(default)]
    pub(super) attachable: bool,
    /// With every subnet and gateway put in.
    #[serde(default)]
    pub(super) ipam: Ipam,
    /// Whether the user chose the subnets, so that containers may choose addresses.
    #[serde(default)]
    pub(super) chosen: bool,
    #[serde(default)]
    pub(super) options: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(flatten)]
    pub(super) other: BTreeMap<String, Value>,
}

fn yes() -> bool {
    true
}

impl Record {
    /// Whether it is the default network.
    pub(crate) fn is_default(&self) -> bool {
        self.name == BRIDGE
    }

    /// An option's text.
    pub(super) fn option(&self, key: &str) -> Option<&str> {
        self.options.get(key).map(String::as_str)
    }

    /// A boolean option.
    pub(super) fn flag(&self, key: &str, default: bool) -> bool {
        match self.option(key) {
            Some(text) => crate::config::parse_flag(text).unwrap_or(default),
            None => default,
        }
    }

    /// What packets of a family may do.
    pub(super) fn gateway_mode(&self, v6: bool) -> Gateway {
        let key = match v6 {
            true => "com.docker.network.bridge.gateway_mode_ipv6",
            false => "com.docker.network.bridge.gateway_mode_ipv4",
        };
        match self.option(key) {
            Some("routed") => Gateway::Routed,
            Some("nat-unprotected") => Gateway::Unprotected,
            Some("isolated") => Gateway::Isolated,
            _ => Gateway::Nat,
        }
    }
}

/// The part of the configuration that matters here.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) sandboxes: PathBuf,
    pub(super) netns: PathBuf,
    /// A bridge that is used as it is; `none` for no default network.
    pub(super) bridge: Option<String>,
    pub(super) bip: Option<String>,
    pub(super) fixed_cidr: Option<Subnet>,
    pub(super) iptables: bool,
    pub(super) forward: bool,
    pub(super) masquerade: bool,
    pub(super) icc: bool,
    pub(super) mtu: u32,
    pub(super) dns: files::Dns,
    /// Who leads ports of the host to ours, where that is not our work.
    pub(super) parent: Option<crate::rootless::kit::Kit>,
    /// The resolver's file of a network that is kept apart from the host's.
    pub(super) resolv: Option<PathBuf>,
    /// Where subnets come from, each with the bits of a network.
    pub(super) pools: Vec<(Subnet, u8)>,
    /// Address of the host for published ports without one.
    pub(super) host_address: Option<IpAddr>,
    /// What `host-gateway` stands for.
    pub(super) host_gateway: Vec<IpAddr>,
    /// Published ports can be reached over the loopback.
    pub(super) proxy: bool,
    /// Published ports go through the host's own rules for what comes in.
    pub(super) host_firewall: bool,
}

impl Settings {
    /// The file of a container.
    pub(super) fn file(&self, container: &str) -> PathBuf {
        self.sandboxes.join(format!("{container}.json"))
    }

    /// The file of a sandbox that is being removed.
    pub(super) fn leaving_file(&self, sandbox: &Sandbox) -> PathBuf {
        self.sandboxes.join(format!("{}.{LEAVING}", sandbox.id))
    }

    /// By rename, so that it is there whole or not at all. It need not survive power loss: neither does the sandbox.
    pub(super) fn save(&self, sandbox: &Sandbox) -> Result<()> {
        let path = self.file(&sandbox.container);
        let what = || format!("write {}", path.display());
        let bytes =
            serde_json::to_vec(sandbox).map_err(|e| Error::internal(format!("{}: {e}", what())))?;
        crate::replace(&path, bytes).during(what)
    }

    /// The sandboxes of this boot, by container. Files of another boot, and half-written ones, are removed; those of the first
    /// format, of endpoints on the network `default`, are written anew in this one.
    pub(super) fn load(&self, default: &str) -> Result<BTreeMap<String, Sandbox>> {
        let (former, read): (Vec<_>, Vec<_>) = self
            .read_all("json", default)?
            .into_iter()
            .partition(|(path, sandbox)| *path != self.file(&sandbox.container));
        let mut sandboxes: BTreeMap<String, Sandbox> = read
            .into_iter()
            .map(|(_, sandbox)| (sandbox.container.clone(), sandbox))
            .collect();
        for (path, sandbox) in former {
            // Where both are there, a daemon was killed between the next two steps.
            if let Entry::Vacant(place) = sandboxes.entry(sandbox.container.clone()) {
                self.save(&sandbox)?;
                place.insert(sandbox);
            }
            std::fs::remove_file(&path).during(|| format!("remove {}", path.display()))?;
        }
        Ok(sandboxes)
    }

    /// Lets go of namespaces that no sandbox speaks of: a daemon was killed between the two steps of a removal, or before a
    /// reboot if the directory outlived it.
    pub(super) fn unpin_strays(&self, sandboxes: &BTreeMap<String, Sandbox>) -> Result<()> {
        let what = || format!("read {}", self.netns.display());
        for entry in std::fs::read_dir(&self.netns).during(what)? {
            let path = entry.during(what)?.path();
            if !sandboxes.values().any(|sandbox| sandbox.netns == path) {
                sandbox::unpin(&path)?;
            }
        }
        Ok(())
    }

    /// The sandboxes whose removal was cut short.
    pub(super) fn leaving(&self, default: &str) -> Result<Vec<Sandbox>> {
        let read = self.read_all(LEAVING, default)?.into_iter();
        Ok(read.map(|(_, sandbox)| sandbox).collect())
    }

    fn read_all(&self, extension: &str, default: &str) -> Result<Vec<(PathBuf, Sandbox)>> {
        let boot_id = boot_id();
        let mut sandboxes = Vec::new();
        let what = || format!("read {}", self.sandboxes.display());
        for entry in std::fs::read_dir(&self.sandboxes).during(what)? {
            let path = entry.during(what)?.path();
            let kind = path.extension().and_then(|kind| kind.to_str());
            if kind != Some(extension) && kind != Some("tmp") {
                continue;
            }
            let bytes = std::fs::read(&path).during(|| format!("read {}", path.display()))?;
            let sandbox = serde_json::from_slice::<Sandbox>(&bytes)
                .ok()
                .or_else(|| first_format::read(&bytes, default));
            match sandbox {
                Some(sandbox) if sandbox.boot_id == boot_id && kind != Some("tmp") => {
                    sandboxes.push((path, sandbox));
                }
                _ => {
                    tracing::info!("{} is stale and removed", path.display());
                    std::fs::remove_file(&path).during(|| format!("remove {}", path.display()))?;
                }
            }
        }
        Ok(sandboxes)
    }
}

/// The records, that of the default network first; it is made at the first start.
pub(super) async fn records(db: &Db) -> Result<Vec<Record>> {
    let known: Vec<(String, Record)> = db.all(KIND).await?;
    let mut records = Vec::new();
    for (key, mut record) in known {
        if key == BRIDGE {
            record.name = BRIDGE.into();
            record.driver = BRIDGE.into();
            records.insert(0, record);
        } else {
            records.push(record);
        }
    }
    if !records.first().is_some_and(Record::is_default) {
        let record = Record {
            version: 1,
            id: crate::random::hex(32),
            name: BRIDGE.into(),
            created: crate::images::now(),
            driver: BRIDGE.into(),
            interface: "docker0".into(),
            mac: super::mac::random(),
            address: None,
            ipv4: true,
            ipv6: false,
            internal: false,
            attachable: false,
            ipam: Ipam::default(),
            chosen: false,
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            other: BTreeMap::new(),
        };
        db.put(KIND, BRIDGE, &record).await?;
        records.insert(0, record);
    }
    Ok(records)
}

/// Name of the packet filter table of this installation.
pub(super) fn table(default: &Record) -> String {
    format!(
        "dockerd-lite-{}",
        default.id.get(..12).unwrap_or(&default.id)
    )
}

/// What tells this boot from others.
pub(super) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Settings below a directory.
    pub(in crate::network) fn settings(dir: &std::path::Path) -> Settings {
        Settings {
            sandboxes: dir.to_owned(),
            netns: dir.to_owned(),
            bridge: None,
            bip: None,
            fixed_cidr: None,
            iptables: false,
            forward: false,
            masquerade: false,
            icc: true,
            mtu: 0,
            dns: files::Dns::default(),
            resolv: None,
            parent: None,
            pools: Vec::new(),
            host_address: None,
            host_gateway: Vec::new(),
            proxy: true,
            host_firewall: false,
        }
    }

    #[test]
    fn files_of_another_boot_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let mut sandbox: Sandbox = serde_json::from_value(serde_json::json!({
            "version": 2, "boot_id": boot_id(), "container": "a", "id": "e", "netns": "/n", "endpoints": [], "new": 1
        }))
        .unwrap();
        settings.save(&sandbox).unwrap();
        assert_eq!(settings.load("n").unwrap()["a"], sandbox);
        sandbox.boot_id = "other".into();
        sandbox.container = "b".into();
        settings.save(&sandbox).unwrap();
        std::fs::write(dir.path().join("c.tmp"), "{").unwrap();
        assert_eq!(settings.load("n").unwrap().len(), 1);
        assert!(!dir.path().join("b.json").exists() && !dir.path().join("c.tmp").exists());
    }
}
