//! Network devices of the host that move into a container (`linux.netDevices`).
//!
//! The host here is a network namespace of its own, entered by the runtime through
//! `unshare`, so that nothing of the machine's is touched.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::json;
use support::{Bundle, Said};

/// Runs a script in a network namespace with a bridge-less veth pair `up0`, `up1`.
/// `$RUN` in it is the runtime with the bundle's state root.
fn on_a_host(b: &Bundle, script: &str) -> Said {
    let setup = "ip link set lo up; ip link add up0 type veth peer name up1; \
        ip addr add 10.66.0.2/24 dev up0; ip -6 addr add fd00:66::2/64 dev up0 nodad; \
        ip link set up0 up; ip addr add 10.66.0.1/24 dev up1; ip link set up1 up;";
    support::on_a_host(b, "-n", &format!("{setup} {script}"))
}

#[test]
fn a_device_moves_in_with_its_addresses_under_its_new_name() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new(
        "ip -o addr show eth7; ip -o link show eth7; busybox ping -c 1 -W 5 10.66.0.1 >/dev/null && echo reached",
    );
    b.config["linux"]["netDevices"] = json!({"up0": {"name": "eth7"}});
    b.config["process"]["capabilities"]["bounding"] = json!(["CAP_NET_RAW"]);
    b.config["process"]["capabilities"]["effective"] = json!(["CAP_NET_RAW"]);
    b.config["process"]["capabilities"]["permitted"] = json!(["CAP_NET_RAW"]);
    let said = on_a_host(&b, &format!("$RUN run {}; ip -o link show", b.id)).code(0);
    for text in ["10.66.0.2/24", "fd00:66::2/64", "LOWER_UP", "reached"] {
        assert!(said.out.contains(text), "no {text} in {}", said.out);
    }
    // Moved, not copied; and its peer went with the container's namespace.
    let host = said.out.split("reached\n").nth(1).unwrap();
    assert!(!host.contains("up0") && !host.contains("eth7"), "{host}");
}

#[test]
fn a_device_moves_into_a_namespace_that_is_joined() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new("ip -o addr show up0");
    b.config["linux"]["netDevices"] = json!({"up0": {}});
    let namespace = b.dir.path().join("net");
    b.without_namespace("network");
    b.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "network", "path": namespace}));
    // `unshare --net=FILE` keeps the namespace by a mount, so in a private place.
    let dir = b.dir.path().display().to_string();
    let script = format!(
        "unshare -m sh -ec 'mount -t tmpfs t {dir}/rootfs/tmp; touch {dir}/net; \
         unshare --net={dir}/net true; $RUN run {id}; umount {dir}/net'",
        id = b.id
    );
    let said = on_a_host(&b, &script).code(0);
    assert!(said.out.contains("10.66.0.2/24"), "{}", said.out);
}

#[test]
fn what_cannot_move_is_refused_and_leaves_nothing() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new("true");
    b.config["linux"]["netDevices"] = json!({"nope0": {}});
    on_a_host(&b, &format!("$RUN run {}", b.id))
        .code(1)
        .says("move network device nope0: find it: no such device");
    b.assert_gone();
    b.config["linux"]["netDevices"] = json!({"up0": {"name": "a/b"}});
    b.create().code(1).says("invalid network device name");
    b.config["linux"]["netDevices"] = json!({"up0": {"name": "x"}, "up1": {"name": "x"}});
    b.create().code(1).says("two network devices");
    b.config["linux"]["netDevices"] = json!({"up0": {}});
    b.without_namespace("network");
    b.create().code(1).says("without a private NET namespace");
    b.assert_gone();
}
