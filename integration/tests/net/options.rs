//! What the options of networks do, each seen where its effect is.

use anyhow::{Context, Result, ensure};
use integration::outside::{HOST, OUTSIDE};

use crate::rig::{Rig, cut_off, fetch, knock, reaches};

const PREFIX: &str = "com.docker.network";

#[test]
fn the_way_out_is_as_the_network_says() -> Result<()> {
    let rig = Rig::start(&[])?;
    // The other machine answers with a server of its own, which says who asks.
    rig.host("ip addr add 198.51.100.7/24 dev wire && ip addr add 127.0.0.5/8 dev lo")?
        .exits(0)?;
    rig.lite(&format!(
        "network create plain --subnet 10.81.1.0/24 -o {PREFIX}.bridge.enable_ip_masquerade=false"
    ))?;
    rig.lite(&format!(
        "network create other --subnet 10.81.2.0/24 -o {PREFIX}.host_ipv4=198.51.100.7"
    ))?;
    rig.lite("network create usual --subnet 10.81.3.0/24")?;
    let mut server = rig.outside.command("busybox");
    server.args(["nc", "-ll", "-p", "7000", "-e", "busybox", "netstat", "-tn"]);
    let mut server = server.spawn().context("start a server outside")?;
    let seen = (|| {
        integration::eventually::within(crate::rig::SOON, "the server outside listens", || {
            let out = rig.outside.sh("busybox netstat -ltn")?;
            ensure!(out.stdout.contains(":7000 "), "{out:?}");
            Ok(())
        })?;
        for (network, source) in [
            ("plain", None),
            ("other", Some("198.51.100.7")),
            ("usual", Some(HOST)),
        ] {
            rig.sleeper(network, &format!("--network {network}"))?;
            let own = rig.address(network, network)?;
            let source = source.unwrap_or(&own);
            let known = rig.exec(network, &fetch(OUTSIDE, 7000))?.stdout;
            ensure!(
                known.contains(&format!(":{source}:")),
                "{network}: {source} in {known}"
            );
        }
        Ok(())
    })();
    server.kill()?;
    server.wait()?;
    seen?;
    rig.stop()
}

#[test]
fn names_addresses_and_ways_in_are_as_the_network_says() -> Result<()> {
    let rig = Rig::start(&[])?;
    rig.host("ip addr add 198.51.100.7/24 dev wire")?.exits(0)?;
    rig.lite(&format!(
        "network create named -o {PREFIX}.bridge.name=shopbr -o {PREFIX}.container_iface_prefix=lan"
    ))?;
    rig.lite(&format!(
        "network create bound -o {PREFIX}.bridge.host_binding_ipv4=198.51.100.7"
    ))?;
    rig.lite(&format!(
        "network create trusting -o {PREFIX}.bridge.trusted_host_interfaces=none0:wire"
    ))?;
    rig.sleeper("named", "--network named")?;
    rig.sleeper("chosen", &format!("--network name=bound,driver-opt={PREFIX}.endpoint.ifname=up7,driver-opt={PREFIX}.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1"))?;
    ensure!(rig.host("ip addr show shopbr")?.stdout.contains("inet "));
    ensure!(
        rig.exec("named", "ls /sys/class/net")?
            .stdout
            .contains("lan0")
    );
    let chosen = rig.exec(
        "chosen",
        "ls /sys/class/net; cat /proc/sys/net/ipv4/conf/up7/log_martians",
    )?;
    ensure!(
        chosen.stdout.contains("up7") && chosen.stdout.ends_with("1\n"),
        "{chosen:?}"
    );
    // Ports without an address are published at that one only.
    rig.server("bound", "--network bound -p 8080:80")?;
    reaches(rig.outside.sh(&fetch("198.51.100.7", 8080)), "bound")?;
    cut_off(rig.outside.sh(&knock(HOST, 8080)))?;
    ensure!(rig.lite("port bound")?.contains("198.51.100.7:8080"));
    // Who comes by an interface that the network trusts reaches its containers as they are.
    rig.server("trusting", "--network trusting")?;
    let address = rig.address("trusting", "trusting")?;
    reaches(rig.outside.sh(&fetch(&address, 80)), "trusting")?;
    for wrong in [
        "bridge.name=a/b",
        "bridge.name=sixteen-letters-x",
        "container_iface_prefix=much-too-long",
        "bridge.trusted_host_interfaces=a::b",
        "bridge.inhibit_ipv4=perhaps",
    ] {
        let out = rig.try_lite(&format!("network create wrong -o {PREFIX}.{wrong}"))?;
        ensure!(
            out.code == 1 && out.stderr.contains("invalid value for option"),
            "{wrong}: {out:?}"
        );
    }
    let out =
        rig.try_lite("network create -d macvlan -o parent=wire -o macvlan_mode=nope wrong")?;
    ensure!(
        out.code == 1 && out.stderr.contains("macvlan_mode"),
        "{out:?}"
    );
    rig.stop()
}

#[test]
fn a_bridge_may_have_no_address() -> Result<()> {
    let mut rig = Rig::start(&[])?;
    let isolated = format!("{PREFIX}.bridge.gateway_mode");
    rig.lite(&format!("network create alone --internal --ipv6 -o {isolated}_ipv4=isolated -o {isolated}_ipv6=isolated -o {PREFIX}.bridge.name=alone0"))?;
    rig.lite(&format!("network create own --subnet 10.82.0.0/24 -o {PREFIX}.bridge.inhibit_ipv4=true -o {PREFIX}.bridge.name=own0"))?;
    let out = rig.try_lite(&format!("network create wrong -o {isolated}_ipv4=isolated"))?;
    ensure!(out.code == 1 && out.stderr.contains("internal"), "{out:?}");
    rig.server("web", "--network alone -p 8080:80")?;
    rig.sleeper("peer", "--network alone")?;
    let addresses = [
        rig.address("web", "alone")?,
        rig.settings("web", "alone", "GlobalIPv6Address")?,
    ];
    let bridge = rig.host("ip addr show alone0")?.exits(0)?.stdout;
    ensure!(
        !bridge.contains("inet ") && !bridge.contains("scope global"),
        "{bridge}"
    );
    for address in &addresses {
        reaches(rig.exec("peer", &fetch(address, 80)), "web")?;
        cut_off(rig.host(&knock(address, 80)))?;
    }
    cut_off(rig.host(&knock("127.0.0.1", 8080)))?;
    let routes = rig.exec("peer", "ip route; ip -6 route")?.stdout;
    ensure!(!routes.contains("default"), "{routes}");
    // Where the operator gives the bridge its address, it stays, over a restart of the daemon too.
    rig.server("site", "--network own -p 8081:80")?;
    let bridge = rig.host("ip addr show own0")?.exits(0)?.stdout;
    ensure!(!bridge.contains("inet "), "{bridge}");
    rig.host("ip addr add 10.82.0.1/24 dev own0")?.exits(0)?;
    let published = |rig: &Rig| reaches(rig.outside.sh(&fetch(HOST, 8081)), "site");
    published(&rig)?;
    rig.stack.kill_daemon()?;
    rig.stack.start_daemon()?;
    rig.lite("network create more")?;
    ensure!(
        rig.host("ip addr show own0")?
            .stdout
            .contains("10.82.0.1/24")
    );
    published(&rig)?;
    rig.stop()
}
