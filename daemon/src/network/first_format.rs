//! Files of endpoints as the first format kept them: one for each container on the default network.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::Deserialize;

use super::BRIDGE;
use super::endpoint::{Address, Endpoint, Sandbox};

/// What such a file says.
#[derive(Debug, Deserialize)]
struct File {
    boot_id: String,
    container: String,
    id: String,
    netns: PathBuf,
    veth: String,
    ip: Ipv4Addr,
    bits: u8,
    gateway: Ipv4Addr,
    mac: String,
}

/// Reads one as a sandbox of today; `default` is the default network's id. None if it is no such file.
pub(super) fn read(bytes: &[u8], default: &str) -> Option<Sandbox> {
    let file: File = serde_json::from_slice(bytes).ok()?;
    let endpoint = Endpoint {
        id: file.id.clone(),
        network: default.to_owned(),
        name: BRIDGE.to_owned(),
        interface: "eth0".into(),
        veth: file.veth,
        mac: file.mac,
        v4: Some(Address {
            ip: file.ip.into(),
            bits: file.bits,
            gateway: Some(file.gateway.into()),
        }),
        v6: None,
        names: Vec::new(),
        links: BTreeMap::new(),
        priority: 0,
        other: BTreeMap::new(),
    };
    Some(Sandbox {
        version: 2,
        boot_id: file.boot_id,
        container: file.container,
        id: file.id,
        netns: file.netns,
        endpoints: vec![endpoint],
        ports: Vec::new(),
        resolver: None,
        other: BTreeMap::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::store::{boot_id, tests::settings};

    #[test]
    fn endpoints_of_the_first_format_are_adopted() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let old = serde_json::json!({
            "version": 1, "boot_id": boot_id(), "container": "a", "id": "e", "netns": "/n", "veth": "v",
            "ip": "10.0.0.2", "bits": 16, "gateway": "10.0.0.1", "mac": "02:42:00:00:00:01"
        });
        std::fs::write(dir.path().join("e.json"), old.to_string()).unwrap();
        std::fs::write(dir.path().join("e.leaving"), old.to_string()).unwrap();
        let loaded = settings.load("n").unwrap();
        let endpoint = loaded["a"].on("n").unwrap();
        assert_eq!(endpoint.v4.as_ref().unwrap().ip.to_string(), "10.0.0.2");
        assert_eq!(endpoint.veth, "v");
        assert!(dir.path().join("a.json").exists() && !dir.path().join("e.json").exists());
        assert_eq!(settings.leaving("n").unwrap(), [loaded["a"].clone()]);
        // A daemon that was killed before it had removed the old one.
        std::fs::write(dir.path().join("e.json"), old.to_string()).unwrap();
        assert_eq!(settings.load("n").unwrap(), loaded);
        assert!(!dir.path().join("e.json").exists());
    }
}
