//! The places of containers on networks, as their files keep them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An address on a network, and the way out by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Address {
    pub(crate) ip: IpAddr,
    /// Bits of the subnet.
    pub(crate) bits: u8,
    #[serde(default)]
    pub(crate) gateway: Option<IpAddr>,
}

/// A container's place on one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    pub(crate) id: String,
    /// Id of the network.
    pub(crate) network: String,
    /// Its name.
    pub(crate) name: String,
    /// The interface within the namespace.
    pub(crate) interface: String,
    /// The host's end of it; empty where there is none.
    #[serde(default)]
    pub(crate) veth: String,
    pub(crate) mac: String,
    #[serde(default)]
    pub(crate) v4: Option<Address>,
    #[serde(default)]
    pub(crate) v6: Option<Address>,
    /// Under which the others on the network find it.
    #[serde(default)]
    pub(crate) names: Vec<String>,
    /// Names that only this container knows on this network, and the containers they mean.
    #[serde(default)]
    pub(crate) links: BTreeMap<String, String>,
    /// The way out is by the endpoint with the highest.
    #[serde(default)]
    pub(crate) priority: i64,
    #[serde(flatten)]
    pub(crate) other: BTreeMap<String, Value>,
}

impl Endpoint {
    /// Its addresses.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.v4.iter().chain(&self.v6)
    }

    /// The address of a family.
    pub(crate) fn address(&self, v6: bool) -> Option<&Address> {
        if v6 {
            self.v6.as_ref()
        } else {
            self.v4.as_ref()
        }
    }
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Published {
    /// `tcp`, `udp` or `sctp`.
    pub(crate) protocol: String,
    /// The container's port.
    pub(crate) port: u16,
    /// The host's address and port; the unspecified address is all of its family.
    pub(crate) host: SocketAddr,
}

/// A container's network namespace and all that is in it, as its file keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sandbox {
    pub(super) version: u32,
    pub(super) boot_id: String,
    pub(crate) container: String,
    pub(crate) id: String,
    /// Where the namespace is pinned.
    pub(crate) netns: PathBuf,
    pub(crate) endpoints: Vec<Endpoint>,
    #[serde(default)]
    pub(crate) ports: Vec<Published>,
    /// Names are looked up by `dockerd-lite net`, which asks these servers for what it does not know.
    #[serde(default)]
    pub(crate) resolver: Option<Vec<IpAddr>>,
    #[serde(flatten)]
    pub(crate) other: BTreeMap<String, Value>,
}

impl Sandbox {
    /// The endpoint that the way out of a family leads by.
    pub(crate) fn gateway(&self, v6: bool) -> Option<&Endpoint> {
        self.endpoints
            .iter()
            .filter(|e| e.address(v6).is_some_and(|a| a.gateway.is_some()))
            .max_by(|a, b| {
                let by_name = || b.name.cmp(&a.name);
                a.priority.cmp(&b.priority).then_with(by_name)
            })
    }

    /// The endpoint on a network.
    pub(crate) fn on(&self, network: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|e| e.network == network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_is_by_priority_then_by_name() {
        let endpoint = |name: &str, priority: i64, gateway: bool| -> Endpoint {
            let gateway = gateway.then_some("10.0.0.1");
            serde_json::from_value(serde_json::json!({
                "id": name, "network": name, "name": name, "interface": "eth0", "mac": "", "priority": priority,
                "v4": {"ip": "10.0.0.2", "bits": 24, "gateway": gateway}
            }))
            .unwrap()
        };
        let mut sandbox: Sandbox = serde_json::from_value(serde_json::json!({
            "version": 2, "boot_id": "", "container": "a", "id": "e", "netns": "/n", "endpoints": []
        }))
        .unwrap();
        assert!(sandbox.gateway(false).is_none());
        sandbox.endpoints = vec![
            endpoint("b", 0, true),
            endpoint("a", 0, true),
            endpoint("0", 9, false),
        ];
        assert_eq!(sandbox.gateway(false).unwrap().name, "a");
        sandbox.endpoints[0].priority = 1;
        assert_eq!(sandbox.gateway(false).unwrap().name, "b");
        assert!(sandbox.gateway(true).is_none());
    }
}
