//! Making, showing, joining, leaving and removing networks.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration::eventually;
use integration::leaks::Census;

use crate::rig::{Rig, SOON, cut_off, fetch, knock, reaches};

#[test]
fn a_users_network_from_making_to_removal() -> Result<()> {
    let rig = Rig::start(&[])?;
    rig.lite("network create own --subnet 10.77.0.0/16 --ip-range 10.77.5.0/24 --gateway 10.77.0.9 --label team=a -o com.docker.network.driver.mtu=1400")?;
    let shown = rig.json("network inspect own")?;
    let config = &shown[0]["IPAM"]["Config"][0];
    ensure!(
        config["Subnet"] == "10.77.0.0/16" && config["Gateway"] == "10.77.0.9",
        "{shown:#}"
    );
    ensure!(
        shown[0]["Labels"]["team"] == "a" && shown[0]["Driver"] == "bridge",
        "{shown:#}"
    );
    let id = shown[0]["Id"].as_str().unwrap_or_default().to_owned();
    let bridge = format!("br-{}", &id[..12]);
    let links = rig
        .host(&format!("ip addr show {bridge}"))?
        .exits(0)?
        .stdout;
    ensure!(links.contains("10.77.0.9/16"), "{links}");
    rig.lite("network create plain")?;
    let names = rig.lite("network ls --filter type=custom --format {{.Name}}")?;
    ensure!(names == "own\nplain", "{names}");
    for (filter, wanted) in [
        ("label=team=a", "own"),
        ("label=team=b", ""),
        ("name=pla", "plain"),
        ("dangling=true", "own\nplain"),
        ("driver=host", "host"),
        ("type=builtin", "bridge\nhost\nnone"),
    ] {
        let names = rig.lite(&format!(
            "network ls --filter {filter} --format {{{{.Name}}}}"
        ))?;
        ensure!(names == wanted, "{filter}: {names}");
    }
    // Addresses: one given out of the range, one asked for, one outside of the subnet, one twice.
    rig.sleeper("aa", "--network own")?;
    ensure!(
        rig.address("aa", "own")?.starts_with("10.77.5."),
        "{}",
        rig.address("aa", "own")?
    );
    rig.sleeper(
        "bb",
        "--network own --ip 10.77.9.9 --mac-address 02:42:0a:00:00:07",
    )?;
    let inside = rig
        .exec("bb", "ip addr show eth0; ip route")?
        .exits(0)?
        .stdout;
    for part in [
        "10.77.9.9/16",
        "02:42:0a:00:00:07",
        "mtu 1400",
        "default via 10.77.0.9",
    ] {
        ensure!(inside.contains(part), "{part}: {inside}");
    }
    let twice = rig.try_lite("run --rm --network own --ip 10.77.9.9 busybox true")?;
    ensure!(
        twice.code == 125 && twice.stderr.contains("already in use"),
        "{twice:?}"
    );
    let far = rig.try_lite("run --rm --network own --ip 10.9.9.9 busybox true")?;
    ensure!(
        far.code == 125 && far.stderr.contains("no configured subnet"),
        "{far:?}"
    );
    let unasked = rig.try_lite("run --rm --network plain --ip 172.30.0.9 busybox true")?;
    ensure!(
        unasked
            .stderr
            .contains("only when connecting to networks with user configured subnets"),
        "{unasked:?}"
    );
    let shown = rig.json("network inspect own")?;
    ensure!(
        shown[0]["Containers"]
            .as_object()
            .is_some_and(|c| c.len() == 2),
        "{shown:#}"
    );
    let used = rig.try_lite("network rm own")?;
    ensure!(
        used.code == 1 && used.stderr.contains("has active endpoints"),
        "{used:?}"
    );
    rig.lite("rm -f aa bb")?;
    rig.lite("network rm own plain")?;
    let links = rig.host("ip link")?.stdout;
    ensure!(!links.contains("br-"), "{links}");
    ensure!(!rig.ruleset()?.contains("br-"), "{}", rig.ruleset()?);
    rig.stop()
}

#[test]
fn running_containers_join_and_leave() -> Result<()> {
    let rig = Rig::start(&[])?;
    rig.lite("network create one")?;
    rig.lite("network create two --subnet 10.78.0.0/24")?;
    rig.server("web", "--network one")?;
    rig.sleeper("peer", "--network two")?;
    let before = Census::take(rig.stack.scope())?;
    rig.lite("network connect --alias www --ip 10.78.0.77 two web")?;
    let inside = rig.exec("web", "ip addr")?.exits(0)?.stdout;
    ensure!(
        inside.contains("eth1") && inside.contains("10.78.0.77/24"),
        "{inside}"
    );
    reaches(rig.exec("peer", &fetch("www", 80)), "web")?;
    let settings = rig.json("inspect web")?;
    let two = &settings[0]["NetworkSettings"]["Networks"]["two"];
    ensure!(
        two["IPAddress"] == "10.78.0.77" && two["Aliases"][0] == "www",
        "{two:#}"
    );
    let names = two["DNSNames"].to_string();
    ensure!(
        names.contains("\"web\"") && names.contains("\"www\""),
        "{names}"
    );
    let again = rig.try_lite("network connect two web")?;
    ensure!(
        again.stderr.contains("already exists in network two"),
        "{again:?}"
    );
    rig.lite("network disconnect two web")?;
    let inside = rig.exec("web", "ip addr; ip route")?.exits(0)?.stdout;
    ensure!(
        !inside.contains("eth1") && !inside.contains("10.78.0.77"),
        "{inside}"
    );
    let hosts = rig.exec("web", "cat /etc/hosts")?.stdout;
    ensure!(!hosts.contains("10.78.0.77"), "{hosts}");
    cut_off(rig.exec("peer", &knock("10.78.0.77", 80)))?;
    before.flat_within(SOON)?;
    // The default route goes with its network, and comes back by another one.
    rig.lite("network connect two web")?;
    rig.lite("network disconnect one web")?;
    let routes = rig.exec("web", "ip route")?.stdout;
    ensure!(routes.contains("default via 10.78.0.1"), "{routes}");
    // A stopped container is connected in its record only, and has both when it starts.
    rig.lite("stop -t 0 web")?;
    rig.lite("network connect one web")?;
    rig.lite("start web")?;
    rig.listens("web")?;
    let inside = rig.exec("web", "ip -o -4 addr")?.stdout;
    ensure!(inside.lines().count() == 3, "{inside}");
    let events =
        rig.lite("events --since 1h --until 0s --filter type=network --format {{.Action}}")?;
    for action in ["create", "connect", "disconnect"] {
        ensure!(events.contains(action), "{action}: {events}");
    }
    rig.stop()
}

#[test]
fn both_families_reach_each_other_and_out() -> Result<()> {
    let rig = Rig::start(&[])?;
    rig.lite("network create six --ipv6")?;
    rig.lite("network create only6 --ipv6 --ipv4=false --subnet fd77:1::/64")?;
    let shown = rig.json("network inspect six")?;
    ensure!(shown[0]["EnableIPv6"] == true, "{shown:#}");
    let configs = shown[0]["IPAM"]["Config"].to_string();
    ensure!(configs.contains("\"fd"), "a subnet of one's own: {configs}");
    rig.server("web", "--network six")?;
    rig.sleeper("peer", "--network six")?;
    let v6 = rig.settings("web", "six", "GlobalIPv6Address")?;
    reaches(rig.exec("peer", &fetch(&v6, 80)), "web")?;
    reaches(rig.exec("peer", &fetch("web", 80)), "web")?;
    rig.sleeper("solo", "--network only6 --ip6 fd77:1::77")?;
    let inside = rig.exec("solo", "ip addr; ip -6 route")?.stdout;
    ensure!(
        inside.contains("fd77:1::77/64") && inside.contains("default via fd77:1::1"),
        "{inside}"
    );
    ensure!(!inside.contains("inet 172."), "{inside}");
    // Out, under the host's address.
    let pings = rig.exec(
        "solo",
        &format!("ping -6 -c 1 -W 5 {}", integration::outside::OUTSIDE6),
    )?;
    ensure!(pings.code == 0, "{pings:?}");
    let pings = rig.exec(
        "peer",
        &format!("ping -c 1 -W 5 {}", integration::outside::OUTSIDE),
    )?;
    ensure!(pings.code == 0, "{pings:?}");
    rig.stop()
}

#[test]
fn refusals_have_dockers_status_and_text() -> Result<()> {
    let rig = Rig::start(&[])?;
    rig.lite("network create own --subnet 10.79.0.0/24")?;
    rig.sleeper("aa", "")?;
    let create = |body: &str, status: u16, text: &str| {
        rig.answers("POST", "/networks/create", body, status, text)
    };
    create(
        r#"{"Name":"own"}"#,
        409,
        "network with name own already exists",
    )?;
    create(r#"{"Name":"bridge"}"#, 403, "predefined")?;
    create(r#"{"Name":""}"#, 400, "name is empty")?;
    create(r#"{"Name":"b/d"}"#, 400, "name")?;
    create(r#"{"Name":"x","Driver":"nope"}"#, 404, "nope")?;
    create(r#"{"Name":"x","Driver":"host"}"#, 403, "only one instance")?;
    create(r#"{"Name":"x","Driver":"overlay"}"#, 503, "swarm")?;
    create(
        r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"10.79.0.0/25"}]}}"#,
        403,
        "overlaps",
    )?;
    create(
        r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"10.80.0.5/24"}]}}"#,
        400,
        "10.80.0.0/24",
    )?;
    create(
        r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"10.80.0.0/24","Gateway":"10.81.0.1"}]}}"#,
        400,
        "10.81.0.1",
    )?;
    create(
        r#"{"Name":"x","Options":{"com.docker.network.driver.mtu":"big"}}"#,
        400,
        "mtu",
    )?;
    rig.answers("GET", "/networks/nope", "", 404, "network nope not found")?;
    rig.answers("DELETE", "/networks/nope", "", 404, "not found")?;
    rig.answers("DELETE", "/networks/bridge", "", 403, "pre-defined")?;
    rig.answers(
        "POST",
        "/networks/nope/connect",
        r#"{"Container":"aa"}"#,
        404,
        "nope",
    )?;
    rig.answers(
        "POST",
        "/networks/own/connect",
        r#"{"Container":"nope"}"#,
        404,
        "nope",
    )?;
    rig.answers(
        "POST",
        "/networks/host/connect",
        r#"{"Container":"aa"}"#,
        403,
        "host",
    )?;
    rig.answers(
        "POST",
        "/networks/own/disconnect",
        r#"{"Container":"aa"}"#,
        500,
        "is not connected",
    )?;
    rig.answers(
        "GET",
        "/networks?filters=%7B%22nope%22%3A%5B%22x%22%5D%7D",
        "",
        400,
        "invalid filter",
    )?;
    rig.answers(
        "POST",
        "/networks/own/connect",
        r#"{"Container":"aa"}"#,
        200,
        "",
    )?;
    rig.answers(
        "POST",
        "/networks/own/connect",
        r#"{"Container":"aa"}"#,
        403,
        "already exists",
    )?;
    rig.answers("DELETE", "/networks/own", "", 403, "active endpoints")?;
    rig.answers("POST", "/networks/prune", "", 200, "null")?;
    rig.answers(
        "POST",
        "/networks/own/disconnect",
        r#"{"Container":"aa"}"#,
        200,
        "",
    )?;
    rig.lite("network create old --label keep=1")?;
    let filter = "/networks/prune?filters=%7B%22label%21%22%3A%5B%22keep%3D1%22%5D%7D";
    rig.answers("POST", filter, "", 200, "[\"own\"]")?;
    rig.answers("POST", "/networks/prune", "", 200, "[\"old\"]")?;
    let ids = rig.lite("network ls -q")?;
    ensure!(ids.lines().count() == 3, "{ids}");
    rig.stop()
}

#[test]
fn macvlan_shares_the_parents_wire() -> Result<()> {
    let rig = Rig::start(&[])?;
    rig.lite("network create -d macvlan -o parent=wire --subnet 198.51.100.0/24 --gateway 198.51.100.2 --aux-address host=198.51.100.1 lan")?;
    rig.sleeper("mac", "--network lan --ip 198.51.100.9")?;
    let pings = rig.outside.sh("busybox ping -c 1 -W 5 198.51.100.9")?;
    ensure!(pings.code == 0, "{pings:?}");
    let none = rig.try_lite("network create -d macvlan -o parent=nope lan2")?;
    ensure!(none.code == 1 && none.stderr.contains("nope"), "{none:?}");
    // Where the kernel has no ipvlan it is said, and nothing is left behind.
    rig.lite("network create -d ipvlan -o parent=wire --subnet 10.88.0.0/24 vlan")?;
    let run = rig.try_lite("run --rm --network vlan busybox ip addr")?;
    ensure!(
        run.code == 0 || run.stderr.contains("this kernel has no ipvlan"),
        "{run:?}"
    );
    eventually::within(Duration::from_secs(5), "nothing is left", || {
        let links = rig.host("ip link")?.stdout;
        ensure!(!links.contains("eth0"), "{links}");
        Ok(())
    })?;
    rig.stop()
}
