//! Published ports under a parent that does not keep the network apart, as rootlesskit without `--detach-netns`: the daemon
//! is in the containers' network, and asks the parent to lead the host's ports to sockets of ours on the loopback.
//!
//! What is wanted and what the parent has are compared at every change; a file says which ports were asked for by us, so that a
//! daemon that starts again takes back what its containers have no more, and nothing of anybody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::inside::Rootless;
use crate::error::{During, Error, Result};

/// A port of the host.
pub(crate) type HostPort = (String, SocketAddr);

/// The parent that is asked.
#[derive(Debug, Clone)]
pub(crate) struct Kit {
    rootless: Rootless,
    file: PathBuf,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// What we asked for: the parent's numbers of it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Asked {
    version: u32,
    ids: BTreeSet<u64>,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

/// One port as the parent lists it.
#[derive(Debug, Deserialize)]
struct Listed {
    id: u64,
    spec: Spec,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    proto: String,
    #[serde(rename = "parentIP", default)]
    parent_ip: String,
    parent_port: u16,
    #[serde(rename = "childIP", default)]
    child_ip: String,
    child_port: u16,
}

impl Kit {
    /// The parent, if ports are its work.
    pub(crate) fn of(rootless: &Rootless, exec_root: &std::path::Path) -> Option<Self> {
        (rootless.netns.is_none()).then(|| Self {
            rootless: rootless.clone(),
            file: exec_root.join("published.json"),
            turn: Arc::default(),
        })
    }

    /// Makes the parent's ports what is wanted now.
    pub(crate) async fn agree(&self, wanted: impl FnOnce() -> Vec<HostPort>) -> Result<()> {
        let _turn = self.turn.lock().await;
        let wanted: Vec<Spec> = wanted().iter().filter_map(spec).collect();
        let text = std::fs::read(&self.file).unwrap_or_default();
        let mut asked: Asked = serde_json::from_slice(&text).unwrap_or_default();
        asked.version = 1;
        if wanted.is_empty() && asked.ids.is_empty() {
            return Ok(());
        }
        let info = self.rootless.ask("/v1/info").await?;
        if info
            .pointer("/portDriver/driver")
            .and_then(Value::as_str)
            .is_none()
        {
            // The host's own network: sockets of ours are the host's.
            return Ok(());
        }
        let listed = self.rootless.ask("/v1/ports").await?;
        let listed: Option<Vec<Listed>> = serde_json::from_value(listed)
            .map_err(|e| Error::internal(format!("read the ports of the rootless parent: {e}")))?;
        let listed = listed.unwrap_or_default();
        let ours = |id: u64| asked.ids.contains(&id);
        let (kept, gone): (Vec<&Listed>, Vec<&Listed>) = listed
            .iter()
            .filter(|port| ours(port.id))
            .partition(|port| wanted.contains(&port.spec));
        let mut ids: BTreeSet<u64> = kept.iter().map(|port| port.id).collect();
        for port in gone {
            self.rootless
                .tell("DELETE", &format!("/v1/ports/{}", port.id), None)
                .await?;
        }
        let mut outcome = Ok(());
        for spec in &wanted {
            if kept.iter().any(|port| port.spec == *spec) {
                continue;
            }
            let what = || {
                format!(
                    "failed to bind host port {}:{}/{}",
                    spec.parent_ip, spec.parent_port, spec.proto
                )
            };
            match self
                .rootless
                .tell("POST", "/v1/ports", Some(&json!(spec)))
                .await
            {
                Ok(answer) => ids.extend(answer["id"].as_u64()),
                Err(e) => outcome = Err(e.during(what())),
            }
        }
        asked.ids = ids;
        self.save(&asked)?;
        outcome
    }

    fn save(&self, asked: &Asked) -> Result<()> {
        let what = || format!("write {}", self.file.display());
        let text =
            serde_json::to_vec(asked).map_err(|e| Error::internal(e.to_string()).during(what()))?;
        crate::replace(&self.file, text).during(what)
    }
}

/// What is asked of the parent for a port; nothing for protocols that it does not lead.
fn spec((protocol, host): &HostPort) -> Option<Spec> {
    let family = if host.is_ipv4() { 4 } else { 6 };
    matches!(protocol.as_str(), "tcp" | "udp").then(|| Spec {
        proto: format!("{protocol}{family}"),
        parent_ip: host.ip().to_string(),
        parent_port: host.port(),
        child_ip: child(host.ip()).to_string(),
        child_port: host.port(),
    })
}

/// Where our own socket for a port of the host is: addresses of the host are not there in the containers' network.
pub(crate) fn child(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_any_address_leads_to_the_loopback() {
        let spec = spec(&("tcp".into(), ([192, 0, 2, 1], 80).into())).unwrap();
        let text = serde_json::to_value(&spec).unwrap();
        let wanted = json!({"proto": "tcp4", "parentIP": "192.0.2.1", "parentPort": 80, "childIP": "127.0.0.1", "childPort": 80});
        assert_eq!(text, wanted);
        assert!(super::spec(&("sctp".into(), ([0, 0, 0, 0], 80).into())).is_none());
    }
}
