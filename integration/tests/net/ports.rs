//! Published ports, from every side that they can be reached from.

use anyhow::{Result, ensure};
use integration::outside::{HOST, HOST6, OUTSIDE};
use integration::stack::NET;

use crate::rig::{Rig, cut_off, fetch, knock, reaches};

#[test]
fn a_port_is_reached_from_everywhere() -> Result<()> {
    let rig = Rig::start(&[])?;
    rig.lite("network create six --ipv6")?;
    rig.server("web", "--network six -p 8080:80")?;
    rig.server("low", "-p 127.0.0.1:8081:80 -p 8090-8095:80")?;
    // From outside, by both families.
    reaches(rig.outside.sh(&fetch(HOST, 8080)), "web")?;
    reaches(rig.outside.sh(&fetch(HOST6, 8080)), "web")?;
    reaches(rig.outside.sh(&fetch(HOST, 8090)), "low")?;
    // IPv6 of the host leads to a container that has none.
    reaches(rig.host(&fetch("::1", 8090)), "low")?;
    cut_off(rig.outside.sh(&knock(HOST, 8081)))?;
    // From the host: by the loopback, and by its own address.
    for address in ["127.0.0.1", "::1", HOST, HOST6] {
        reaches(rig.host(&fetch(address, 8080)), "web")?;
    }
    reaches(rig.host(&fetch("127.0.0.1", 8081)), "low")?;
    // From the container itself, from a neighbour, and from another network, by the host's address.
    rig.sleeper("peer", "--network six")?;
    for name in ["web", "peer", "low"] {
        reaches(rig.exec(name, &fetch(HOST, 8080)), "web")?;
    }
    // The source that the container sees is the caller's.
    rig.lite("run -d --name seen -p 8082:80 busybox nc -ll -p 80 -e netstat -tn")?;
    rig.listens("seen")?;
    let known = rig.outside.sh(&fetch(HOST, 8082))?.stdout;
    ensure!(known.contains(&format!(":{OUTSIDE}:")), "{known}");
    // Not published: not even by the container's own address.
    let address = rig.address("web", "six")?;
    cut_off(rig.outside.sh(&knock(&address, 80)))?;
    let six = rig.settings("web", "six", "GlobalIPv6Address")?;
    cut_off(rig.outside.sh(&knock(&six, 80)))?;
    let ports = rig.lite("port low")?;
    ensure!(
        ports.contains("80/tcp -> 127.0.0.1:8081") && ports.contains("80/tcp -> 0.0.0.0:8090"),
        "{ports}"
    );
    let list = rig.lite("ps --filter publish=8080 --format {{.Names}}:{{.Ports}}")?;
    ensure!(
        list.starts_with("web:") && list.contains("0.0.0.0:8080->80/tcp"),
        "{list}"
    );
    ensure!(
        rig.stack.pids_of(NET)?.len() == 1,
        "one process serves all ports"
    );
    rig.stop()
}

/// A server of datagrams that says its name, in Perl, which every Debian has; and a client.
const UDP_SERVER: &str = "use Socket; socket(S, PF_INET, SOCK_DGRAM, 0) or die; bind(S, sockaddr_in(53, INADDR_ANY)) or die; while (my $f = recv(S, my $b, 999, 0)) { send(S, \"web $b\", 0, $f) }";

fn udp_client(address: &str, port: u16) -> String {
    format!(
        "perl -e 'use Socket; $SIG{{ALRM}} = sub {{ exit 1 }}; alarm 5; socket(S, PF_INET, SOCK_DGRAM, 0) or die; connect(S, sockaddr_in({port}, inet_aton(\"{address}\"))) or die; for (1..20) {{ send(S, \"hi\", 0); my $r = \"\"; vec($r, fileno(S), 1) = 1; if (select($r, undef, undef, 0.2)) {{ if (defined recv(S, my $b, 999, 0)) {{ print $b; exit 0 }} }} }} exit 1'"
    )
}

#[test]
fn datagrams_follow_a_container_to_its_next_address() -> Result<()> {
    let rig = Rig::start(&[])?;
    let mounts = "-v /usr:/usr:ro -v /lib:/lib:ro -v /lib64:/lib64:ro";
    let start = |name: &str| {
        let mut args = crate::rig::words(&format!(
            "run -d --name {name} {mounts} -p 5353:53/udp busybox perl -e"
        ));
        args.push(UDP_SERVER.into());
        rig.stack.lite(args)?.exits(0)
    };
    start("u1")?;
    reaches(rig.outside.sh(&udp_client(HOST, 5353)), "web hi")?;
    reaches(rig.host(&udp_client("127.0.0.1", 5353)), "web hi")?;
    reaches(rig.host(&udp_client(HOST, 5353)), "web hi")?;
    // A client that never stops keeps its connection alive in the kernel; it must find the next container all the same.
    let mut client = rig.outside.command("perl");
    client.args(["-e", "use Socket; socket(S, PF_INET, SOCK_DGRAM, 0) or die; bind(S, sockaddr_in(7777, INADDR_ANY)) or die; connect(S, sockaddr_in(5353, inet_aton(\"198.51.100.1\"))) or die; for (1..600) { send(S, \"x\", 0); select(undef, undef, undef, 0.05) }"]);
    let mut client = client.spawn()?;
    let moved = (|| {
        rig.lite("rm -f u1")?;
        rig.sleeper("between", "")?;
        start("u2")?;
        let fixed = udp_client(HOST, 5353).replace(
            "connect(S",
            "setsockopt(S, SOL_SOCKET, SO_REUSEPORT, 1); connect(S",
        );
        reaches(rig.outside.sh(&fixed), "web hi")?;
        integration::eventually::within(
            crate::rig::SOON,
            "the old client is led to the new container",
            || {
                let seen = rig.exec("u2", "cat /proc/net/snmp")?.stdout;
                let udp = seen
                    .lines()
                    .filter(|l| l.starts_with("Udp:"))
                    .nth(1)
                    .unwrap_or_default();
                let got: u64 = udp
                    .split(' ')
                    .nth(1)
                    .and_then(|n| n.parse().ok())
                    .unwrap_or(0);
                ensure!(got > 20, "{udp}");
                Ok(())
            },
        )
    })();
    client.kill()?;
    client.wait()?;
    moved?;
    rig.stop()
}

#[test]
fn conflicts_are_told_before_anything_changes() -> Result<()> {
    let rig = Rig::start(&[])?;
    rig.server("web", "-p 8080:80 -p 127.0.0.1:9000:80")?;
    let before = rig.ruleset()?;
    for flags in ["8080:80", "127.0.0.1:8080:80", "9000:80", "[::1]:8080:80"] {
        let out = rig.try_lite(&format!("run --rm -p {flags} busybox true"))?;
        ensure!(
            out.code == 125 && out.stderr.contains("already"),
            "{flags}: {out:?}"
        );
    }
    // Held by a process of the host.
    let holder = rig.host("busybox nc -ll -p 8443 -e true >/dev/null 2>&1 & for i in $(seq 100); do busybox netstat -ltn | grep -q :8443 && break; sleep 0.1; done")?;
    ensure!(holder.code == 0, "{holder:?}");
    let out = rig.try_lite("run --rm -p 8443:80 busybox true")?;
    ensure!(out.code == 125 && out.stderr.contains("8443"), "{out:?}");
    ensure!(rig.ruleset()? == before, "{}", rig.ruleset()?);
    // Others of the same number are no conflict: another protocol, another address.
    rig.lite("run --rm -p 8080:80/udp -p 127.0.0.2:9000:80 -p 8080:80/sctp busybox true")?;
    // A range goes on to its next port; an ephemeral one is told.
    rig.server("range", "-p 8080-8081:80 -p 80")?;
    let ports = rig.lite("port range")?;
    ensure!(ports.contains("0.0.0.0:8081"), "{ports}");
    reaches(rig.outside.sh(&fetch(HOST, 8081)), "range")?;
    let number: u16 = ports
        .lines()
        .find(|line| !line.contains("8081"))
        .and_then(|line| line.rsplit(':').next())
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    ensure!((32768..=60999).contains(&number), "{ports}");
    reaches(rig.outside.sh(&fetch(HOST, number)), "range")?;
    // Free again when the container has gone, and published again when it starts.
    rig.lite("stop -t 0 web")?;
    cut_off(rig.outside.sh(&knock(HOST, 8080)))?;
    rig.lite("start web")?;
    rig.listens("web")?;
    reaches(rig.outside.sh(&fetch(HOST, 8080)), "web")?;
    rig.host("busybox pkill -n nc || true")?;
    rig.stop()
}

#[test]
fn a_running_containers_ports_are_changed() -> Result<()> {
    let rig = Rig::start(&[])?;
    rig.server("web", "-p 8080:80")?;
    rig.lite("update --publish-add 8088:80 --publish-rm 8080:80 web")?;
    reaches(rig.outside.sh(&fetch(HOST, 8088)), "web")?;
    reaches(rig.host(&fetch("127.0.0.1", 8088)), "web")?;
    cut_off(rig.outside.sh(&knock(HOST, 8080)))?;
    cut_off(rig.host(&knock("127.0.0.1", 8080)))?;
    let taken = rig.server("other", "-p 8090:80");
    taken?;
    let refused = rig.try_lite("update --publish-add 8090:80 web")?;
    ensure!(
        refused.code == 1 && refused.stderr.contains("already"),
        "{refused:?}"
    );
    let refused = rig.try_lite("update --publish-rm 1234:80 web")?;
    ensure!(
        refused.code == 1 && refused.stderr.contains("not published"),
        "{refused:?}"
    );
    // It holds over a restart of the container.
    rig.lite("restart -t 0 web")?;
    rig.listens("web")?;
    reaches(rig.outside.sh(&fetch(HOST, 8088)), "web")?;
    ensure!(!rig.lite("port web")?.contains("8080"));
    rig.lite("update --publish-rm 80 web")?;
    ensure!(rig.lite("port web")?.is_empty());
    ensure!(!rig.ruleset()?.contains("8088"), "{}", rig.ruleset()?);
    rig.stop()
}

#[test]
fn the_hosts_firewall_is_master_where_it_shall_be() -> Result<()> {
    let rig = Rig::start(&[])?;
    rig.lite("network create strict -o com.docker-lite.network.host_firewall=true")?;
    rig.server("open", "-p 8080:80")?;
    rig.server("kept", "--network strict -p 8081:80")?;
    reaches(rig.outside.sh(&fetch(HOST, 8080)), "open")?;
    reaches(rig.outside.sh(&fetch(HOST, 8081)), "kept")?;
    rig.host("nft add table inet fw && nft add chain inet fw in '{ type filter hook input priority 0; }' && nft add rule inet fw in tcp dport '{ 8080, 8081 }' iifname wire drop")?
        .exits(0)?;
    cut_off(rig.outside.sh(&knock(HOST, 8081)))?;
    reaches(rig.host(&fetch("127.0.0.1", 8081)), "kept")?;
    reaches(rig.outside.sh(&fetch(HOST, 8080)), "open")?;
    // The operator's chain in our own table rules over all of it.
    let table = rig
        .host("nft list tables | sed -n 's/^table inet \\(dockerd-lite-.*\\)/\\1/p'")?
        .stdout;
    rig.host(&format!(
        "nft add rule inet {} DOCKER-USER iifname wire drop",
        table.trim()
    ))?
    .exits(0)?;
    cut_off(rig.outside.sh(&knock(HOST, 8080)))?;
    rig.lite("network create more")?;
    cut_off(rig.outside.sh(&knock(HOST, 8080)))?;
    rig.stop()
}

/// Packets of SCTP made by hand, for kernels that do not speak it: `packet FROM TO TAG KIND TAG-TO-COME`, with its checksum.
const SCTP: &str = r#"
use Socket; $SIG{ALRM} = sub { exit 1 }; alarm 40;
sub crc { my $c = 0xffffffff; for my $b (unpack "C*", shift) { $c ^= $b; for (1..8) { $c = $c & 1 ? ($c >> 1) ^ 0x82f63b78 : $c >> 1 } } $c ^ 0xffffffff }
sub packet { my ($from, $to, $tag, $kind, $coming) = @_; my $head = pack("nnN", $from, $to, $tag); my $chunk = pack("CCnNNnnN", $kind, 0, 20, $coming, 65536, 1, 1, 1);
  $head . pack("V", crc($head . "\0\0\0\0" . $chunk)) . $chunk }
sub get { my ($s, $wait) = @_; my $r = ""; vec($r, fileno($s), 1) = 1; select($r, undef, undef, $wait) or return; my $from = recv($s, my $b, 999, 0) // return;
  my $o = (ord($b) & 15) * 4; (inet_ntoa((sockaddr_in($from))[1]), unpack("nnNVCCnN", substr($b, $o))) }
socket(S, PF_INET, SOCK_RAW, 132) or die "raw: $!";
"#;

/// Answers each INIT with an INIT ACK.
const SCTP_SERVER: &str = r#"while (1) { my ($who, $from, $to, $tag, $sum, $kind, $f, $l, $coming) = get(S, undef); next unless $to == 80 && $kind == 1;
  alarm 0; send(S, packet($to, $from, $coming, 2, 4711), 0, sockaddr_in(0, inet_aton($who))) }"#;

/// Sends INITs until an INIT ACK comes from where they went.
const SCTP_CLIENT: &str = r#"my $host = shift; for (1..60) { send(S, packet(4000, 8132, 0, 1, 77), 0, sockaddr_in(0, inet_aton($host)));
  while (my ($who, $from, $to, $tag, $sum, $kind) = get(S, 0.5)) { if ($who eq $host && $from == 8132 && $to == 4000 && $tag == 77 && $kind == 2) { print "answered"; exit 0 } } } exit 1"#;

#[test]
fn packets_of_sctp_are_led_both_ways() -> Result<()> {
    let rig = Rig::start(&[])?;
    let mounts = "-v /usr:/usr:ro -v /lib:/lib:ro -v /lib64:/lib64:ro";
    let mut args = crate::rig::words(&format!(
        "run -d --name sctp {mounts} -p 8132:80/sctp busybox perl -e"
    ));
    args.push(format!("{SCTP}{SCTP_SERVER}"));
    rig.stack.lite(args)?.exits(0)?;
    let script = format!("{SCTP}{SCTP_CLIENT}");
    let mut client = rig.outside.command("perl");
    client.args(["-e", &script, HOST]);
    let out = integration::programs::run(&mut client, b"", std::time::Duration::from_secs(60))?;
    ensure!(out.stdout == "answered", "{out:?}");
    rig.lite("rm -f sctp")?;
    ensure!(!rig.ruleset()?.contains("8132"), "{}", rig.ruleset()?);
    rig.stop()
}
