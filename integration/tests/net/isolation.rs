//! Who reaches whom: only what Docker lets through.

use anyhow::{Result, ensure};
use integration::outside::{HOST, HOST6};

use crate::rig::{Rig, cut_off, fetch, in_proc, knock, reaches};

#[test]
fn networks_are_kept_apart() -> Result<()> {
    let rig = Rig::start(&[])?;
    rig.lite("network create a --ipv6")?;
    rig.lite("network create b --ipv6")?;
    rig.lite("network create --internal inner --ipv6")?;
    rig.lite("network create quiet -o com.docker.network.bridge.enable_icc=false")?;
    rig.lite("network create routed --ipv6 -o com.docker.network.bridge.gateway_mode_ipv4=routed -o com.docker.network.bridge.gateway_mode_ipv6=routed")?;
    let networks = ["bridge", "a", "b", "inner", "quiet", "routed"];
    for network in networks {
        rig.server(
            &format!("s-{network}"),
            &format!("--network {network} --cap-add NET_ADMIN"),
        )?;
        rig.sleeper(
            &format!("c-{network}"),
            &format!("--network {network} --cap-add NET_ADMIN --cap-add NET_RAW"),
        )?;
    }
    let mut servers = Vec::new();
    for network in networks {
        let server = format!("s-{network}");
        let addresses = [
            rig.address(&server, network)?,
            rig.settings(&server, network, "GlobalIPv6Address")?,
        ];
        for address in addresses.into_iter().filter(|a| !a.is_empty()) {
            servers.push((network, address));
        }
    }
    // All at once: those that are cut off take their time.
    let probes = |reached: &dyn Fn(&str) -> bool| -> String {
        let probe = |(to, address): &(&str, String)| {
            let client = if reached(to) { fetch } else { knock };
            format!("(echo {address}=$({})) & ", client(address, 80))
        };
        servers.iter().map(probe).chain(["wait".into()]).collect()
    };
    let says = |from: &str, out: &str, reached: &dyn Fn(&str) -> bool| {
        for (to, address) in &servers {
            let wanted = match reached(to) {
                true => format!("{address}=s-{to}"),
                false => format!("{address}="),
            };
            let said = out.lines().any(|line| line == wanted);
            ensure!(said, "from {from} to {to}: {wanted:?} in {out}");
        }
        Ok(())
    };
    for from in networks {
        let reached = |to: &str| from == to && from != "quiet";
        let out = rig.exec(&format!("c-{from}"), &probes(&reached))?.stdout;
        says(from, &out, &reached)?;
    }
    // Nothing of it is published: from outside no address says anything. The host reaches all of them.
    let out = rig.outside.sh(&probes(&|_| false))?.stdout;
    says("outside", &out, &|_| false)?;
    let out = rig.host(&probes(&|_| true))?.stdout;
    says("the host", &out, &|_| true)?;
    // An internal network has no way out, not even for one who makes himself a route.
    let inner = rig.address("c-inner", "inner")?;
    let gateway = inner
        .rsplit_once('.')
        .map(|(net, _)| format!("{net}.1"))
        .unwrap_or_default();
    let script = format!("ip route add default via {gateway} && ping -c 1 -W 1 198.51.100.2");
    let out = rig.exec("c-inner", &script)?;
    ensure!(out.stdout.contains("100% packet loss"), "{out:?}");
    // A neighbour's address by way of the gateway is no way round.
    let quiet = rig.address("s-quiet", "quiet")?;
    let script = format!(
        "gw=$(ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p'); ip route add {quiet}/32 via $gw; {}",
        knock(&quiet, 80)
    );
    cut_off(rig.exec("c-quiet", &script))?;
    rig.stop()
}

#[test]
fn published_is_reached_and_nothing_else() -> Result<()> {
    let rig = Rig::start(&[])?;
    rig.lite("network create a")?;
    rig.lite("network create --internal inner")?;
    rig.lite("network create quiet -o com.docker.network.bridge.enable_icc=false")?;
    rig.lite("network create routed --ipv6 -o com.docker.network.bridge.gateway_mode_ipv4=routed -o com.docker.network.bridge.gateway_mode_ipv6=routed")?;
    rig.lite("network create bare -o com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected")?;
    rig.server(
        "web",
        "--network a -p 8080:80 -p 127.0.0.1:8081:80 -p [::1]:8084:80",
    )?;
    rig.server("inner", "--network inner -p 8082:80")?;
    rig.server("quiet", "--network quiet -p 8083:80")?;
    rig.server("routed", "--network routed -p 80")?;
    rig.server("bare", "--network bare")?;
    rig.sleeper("cb", "--network bridge --cap-add NET_ADMIN")?;
    rig.sleeper("cq", "--network quiet")?;
    reaches(rig.exec("cb", &fetch(HOST, 8080)), "web")?;
    reaches(rig.exec("cq", &fetch(HOST, 8083)), "quiet")?;
    // What is published on the host's loopback is not reached by a route to it either.
    cut_off(rig.exec("cb", &knock(HOST, 8081)))?;
    let script = format!(
        "echo 1 >/proc/sys/net/ipv4/conf/wire/route_localnet; ip link set lo down; ip route add 127.0.0.1/32 via {HOST}; {}; \
         ip route del 127.0.0.1/32; ip link set lo up",
        knock("127.0.0.1", 8081)
    );
    cut_off(rig.outside.sh(&script))?;
    // Nor is what is published on that of IPv6.
    let script = format!(
        "ip link set lo down; ip -6 route add ::1/128 via {HOST6}; {}; ip -6 route del ::1/128; ip link set lo up",
        knock("::1", 8084)
    );
    cut_off(rig.outside.sh(&script))?;
    reaches(rig.host(&fetch("::1", 8084)), "web")?;
    // An internal network publishes nothing.
    cut_off(rig.outside.sh(&knock(HOST, 8082)))?;
    // A routed one is reached at its own addresses, at the published port alone; a bare one at any.
    let routed = rig.address("routed", "routed")?;
    reaches(rig.outside.sh(&fetch(&routed, 80)), "routed")?;
    let routed6 = rig.settings("routed", "routed", "GlobalIPv6Address")?;
    reaches(rig.outside.sh(&fetch(&routed6, 80)), "routed")?;
    rig.exec("routed", "nc -ll -p 81 -e echo hidden >/dev/null 2>&1 &")?;
    cut_off(rig.outside.sh(&knock(&routed, 81)))?;
    let bare = rig.address("bare", "bare")?;
    reaches(rig.outside.sh(&fetch(&bare, 80)), "bare")?;
    // A packet that claims to come from a container's network comes from the wire all the same.
    let web = rig.address("web", "a")?;
    let spoof = web
        .rsplit_once('.')
        .map(|(net, _)| format!("{net}.200"))
        .unwrap_or_default();
    let script = format!(
        "ip addr add {spoof}/32 dev wire; ip route add {web}/32 via {HOST} src {spoof}; {}; ip addr del {spoof}/32 dev wire; ip route del {web}/32",
        knock(&web, 80)
    );
    rig.outside.sh(&script)?;
    let seen = rig.exec("web", "cat /proc/net/tcp /proc/net/tcp6")?.stdout;
    ensure!(
        !seen.contains(&in_proc(&spoof)),
        "a connection of {spoof} is known: {seen}"
    );
    // The same by IPv6.
    let routed6 = rig.settings("routed", "routed", "GlobalIPv6Address")?;
    let network = routed6.rsplit_once(':').map_or("", |(net, _)| net);
    let script = format!(
        "ip addr add {network}:c8/128 dev wire nodad; ip -6 route add {routed6}/128 via {HOST6} src {network}:c8; {}; \
         ip addr del {network}:c8/128 dev wire; ip -6 route del {routed6}/128",
        knock(&routed6, 80)
    );
    cut_off(rig.outside.sh(&script))?;
    rig.stop()
}
