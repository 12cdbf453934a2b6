//! The keys of Docker's daemon.json that change nothing here: each is known by name, so that an existing file is taken as it is
//! where that is harmless, and refused by name where it asks for what is not there.

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// What becomes of a key.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// Any value: it concerns what this daemon does in another way, or not at all.
    Accepted,
    /// Only a value that asks for nothing: null, false, 0 or empty.
    Unset,
}

use Rule::{Accepted, Unset};

const OTHERS: &[(&str, Rule)] = &[
    ("allow-nondistributable-artifacts", Accepted),
    ("authorization-plugins", Unset),
    ("allow-direct-routing", Unset),
    ("bip6", Unset),
    ("bridge-accept-fwmark", Unset),
    ("builder", Accepted),
    ("containerd-plugin-namespace", Accepted),
    ("cpu-rt-period", Unset),
    ("cpu-rt-runtime", Unset),
    ("default-gateway", Unset),
    ("default-gateway-v6", Unset),
    ("default-network-opts", Unset),
    ("experimental", Accepted),
    ("features", Accepted),
    ("firewall-backend", Accepted),
    ("fixed-cidr-v6", Unset),
    ("http-proxy", Unset),
    ("https-proxy", Unset),
    ("ip-forward-no-drop", Accepted),
    ("ip6tables", Accepted),
    ("ipv6", Unset),
    ("max-concurrent-downloads", Accepted),
    ("max-concurrent-uploads", Accepted),
    ("max-download-attempts", Accepted),
    ("min-api-version", Accepted),
    ("network-control-plane-mtu", Accepted),
    ("no-proxy", Accepted),
    ("node-generic-resources", Unset),
    ("proxies", Unset),
    ("raw-logs", Accepted),
    ("rootless", Unset),
    ("selinux-enabled", Unset),
    ("storage-opts", Unset),
    ("swarm-default-advertise-addr", Accepted),
    ("userland-proxy-path", Accepted),
    ("userns-remap", Unset),
];

/// Takes these keys out of the file.
pub(super) fn take_out(file: &mut Map<String, Value>) -> Result<()> {
    for (key, rule) in OTHERS {
        let Some(value) = file.remove(*key) else {
            continue;
        };
        if matches!(rule, Unset) && !asks_for_nothing(&value) {
            return Err(Error::unimplemented(format!(
                "the directive {key} is not supported yet: take it out of the configuration"
            )));
        }
    }
    Ok(())
}

fn asks_for_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(asks_for_nothing),
    }
}
