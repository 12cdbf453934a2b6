//! What the networks keep on disk: the record of the default one, which outlives a reboot, and a file per endpoint, which
//! does not.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{BRIDGE, Endpoint, endpoint, files};
use crate::db::Db;
use crate::error::{During, Error, Result};

/// Kind of the records.
pub(super) const KIND: &str = "network";

/// Extension of the files of endpoints that are being removed.
pub(super) const LEAVING: &str = "leaving";

/// The record of the default network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) version: u32,
    pub(super) id: String,
    pub(super) created: String,
    pub(super) interface: String,
    pub(super) mac: String,
    /// Address of the bridge with the bits of its subnet.
    #[serde(default)]
    pub(super) address: Option<String>,
    #[serde(flatten)]
    pub(super) other: BTreeMap<String, Value>,
}

/// The part of the configuration that matters here.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) endpoints: PathBuf,
    pub(super) netns: PathBuf,
    /// A bridge that is used as it is; `none` for no default network.
    pub(super) bridge: Option<String>,
    pub(super) bip: Option<String>,
    pub(super) iptables: bool,
    pub(super) forward: bool,
    pub(super) masquerade: bool,
    pub(super) icc: bool,
    pub(super) mtu: u32,
    pub(super) dns: files::Dns,
}

impl Settings {
    /// The file of an endpoint.
    pub(super) fn file(&self, endpoint: &str) -> PathBuf {
        self.endpoints.join(format!("{endpoint}.json"))
    }

    /// By rename, so that it is there whole or not at all. It need not survive power loss: neither does the endpoint.
    pub(super) fn save(&self, endpoint: &Endpoint) -> Result<()> {
        let path = self.file(&endpoint.id);
        let what = || format!("write {}", path.display());
        let bytes = serde_json::to_vec(endpoint)
            .map_err(|e| Error::internal(format!("{}: {e}", what())))?;
        let temporary = path.with_extension("tmp");
        std::fs::write(&temporary, bytes).during(what)?;
        std::fs::rename(&temporary, &path).during(what)
    }

    /// The endpoints of this boot, by container. Files of another boot, and half-written ones, are removed.
    pub(super) fn load(&self) -> Result<BTreeMap<String, Endpoint>> {
        let read = self.read_all("json")?.into_iter();
        Ok(read.map(|e| (e.container.clone(), e)).collect())
    }

    /// Lets go of namespaces that no endpoint speaks of: a daemon was killed between the two steps of a removal, or before a
    /// reboot if the directory outlived it.
    pub(super) fn unpin_strays(&self, endpoints: &BTreeMap<String, Endpoint>) -> Result<()> {
        let what = || format!("read {}", self.netns.display());
        for entry in std::fs::read_dir(&self.netns).during(what)? {
            let path = entry.during(what)?.path();
            if !endpoints.values().any(|endpoint| endpoint.netns == path) {
                endpoint::unpin(&path)?;
            }
        }
        Ok(())
    }

    /// The endpoints whose removal was cut short.
    pub(super) fn leaving(&self) -> Result<Vec<Endpoint>> {
        self.read_all(LEAVING)
    }

    fn read_all(&self, extension: &str) -> Result<Vec<Endpoint>> {
        let boot_id = boot_id();
        let mut endpoints = Vec::new();
        let what = || format!("read {}", self.endpoints.display());
        for entry in std::fs::read_dir(&self.endpoints).during(what)? {
            let path = entry.during(what)?.path();
            let kind = path.extension().and_then(|kind| kind.to_str());
            if kind != Some(extension) && kind != Some("tmp") {
                continue;
            }
            let bytes = std::fs::read(&path).during(|| format!("read {}", path.display()))?;
            match serde_json::from_slice::<Endpoint>(&bytes) {
                Ok(endpoint) if endpoint.boot_id == boot_id && kind != Some("tmp") => {
                    endpoints.push(endpoint);
                }
                _ => {
                    tracing::info!("{} is stale and removed", path.display());
                    std::fs::remove_file(&path).during(|| format!("remove {}", path.display()))?;
                }
            }
        }
        Ok(endpoints)
    }
}

/// The record of the default network, made at the first start.
pub(super) async fn record(db: &Db) -> Result<Record> {
    let known: Vec<(String, Record)> = db.all(KIND).await?;
    if let Some((_, record)) = known.into_iter().find(|(name, _)| name == BRIDGE) {
        return Ok(record);
    }
    let record = Record {
        version: 1,
        id: crate::random::hex(32),
        created: crate::images::now(),
        interface: "docker0".into(),
        mac: super::mac::random(),
        address: None,
        other: BTreeMap::new(),
    };
    db.put(KIND, BRIDGE, &record).await?;
    Ok(record)
}

/// Name of the packet filter table of this installation.
pub(super) fn table(record: &Record) -> String {
    format!("dockerd-lite-{}", record.id.get(..12).unwrap_or(&record.id))
}

/// What tells this boot from others.
pub(super) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_another_boot_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            endpoints: dir.path().to_owned(),
            netns: dir.path().to_owned(),
            bridge: None,
            bip: None,
            iptables: false,
            forward: false,
            masquerade: false,
            icc: true,
            mtu: 0,
            dns: files::Dns::default(),
        };
        let mut endpoint: Endpoint = serde_json::from_value(serde_json::json!({
            "version": 1, "boot_id": boot_id(), "container": "a", "id": "e", "netns": "/n", "veth": "v",
            "ip": "10.0.0.2", "bits": 16, "gateway": "10.0.0.1", "mac": "02:42:00:00:00:01", "new": 1
        }))
        .unwrap();
        settings.save(&endpoint).unwrap();
        assert_eq!(settings.load().unwrap()["a"], endpoint);
        endpoint.boot_id = "other".into();
        endpoint.id = "b".into();
        settings.save(&endpoint).unwrap();
        std::fs::write(dir.path().join("c.tmp"), "{").unwrap();
        assert_eq!(settings.load().unwrap().len(), 1);
        assert!(!dir.path().join("b.json").exists() && !dir.path().join("c.tmp").exists());
    }
}
