//! Names: those of the networks, and all others by way of the host's servers.

use std::process::Child;

use anyhow::{Context, Result, ensure};
use integration::eventually;
use integration::outside::OUTSIDE;

use crate::rig::{Rig, SOON, fetch, reaches};

/// A server of names on the other machine: every name has the address 192.0.2.7; over TCP, long.example has a hundred.
const SERVER: &str = r#"
use Socket;
my $at = sockaddr_in(53, INADDR_ANY);
socket(U, PF_INET, SOCK_DGRAM, 0) or die; bind(U, $at) or die;
socket(T, PF_INET, SOCK_STREAM, 0) or die; setsockopt(T, SOL_SOCKET, SO_REUSEADDR, 1); bind(T, $at) or die; listen(T, 9) or die;
sub answer { my ($q, $tcp) = @_; my $long = $q =~ /\x04long\x07example/; my $n = $long && $tcp ? 100 : 1;
  my $end = 12; while (my $l = ord(substr($q, $end, 1))) { $end += $l + 1 } $end += 5;
  my $flags = $long && !$tcp ? 0x8380 : 0x8180;
  return substr($q, 0, 2) . pack("n5", $flags, 1, $n, 0, 0) . substr($q, 12, $end - 12) . (pack("n3Nn", 0xc00c, 1, 1, 60, 4) . pack("C4", 192, 0, 2, 7)) x $n }
my $r = ""; vec($r, fileno(U), 1) = 1; vec($r, fileno(T), 1) = 1;
while (1) { my $s = $r; select($s, undef, undef, undef);
  if (vec($s, fileno(U), 1)) { my $f = recv(U, my $q, 4096, 0); send(U, answer($q, 0), 0, $f) if defined $f }
  if (vec($s, fileno(T), 1) && accept(C, T)) { my ($l, $q); if (sysread(C, $l, 2) == 2 && sysread(C, $q, unpack("n", $l))) { my $a = answer($q, 1); syswrite(C, pack("n", length $a) . $a) } close C } }
"#;

/// A client in Perl: asks 127.0.0.11 in the container; kind, transport; prints flags, count and length.
const CLIENT: &str = r#"
use Socket; my ($name, $kind, $tcp) = @ARGV;
my $q = pack("n6", 4711, 0x100, 1, 0, 0, 1) . join("", map { pack("C", length $_) . $_ } split(/\./, $name)) . pack("Cn2", 0, $kind, 1) . pack("Cn2Nn", 0, 41, 1232, 0, 0);
$SIG{ALRM} = sub { print "late\n"; exit 1 }; alarm 12;
socket(S, PF_INET, $tcp ? SOCK_STREAM : SOCK_DGRAM, 0) or die; connect(S, sockaddr_in(53, inet_aton("127.0.0.11"))) or die "connect: $!";
my $a;
if ($tcp) { syswrite(S, pack("n", length $q) . $q); sysread(S, my $l, 2); $l = unpack("n", $l); while (length($a) < $l) { sysread(S, $a, $l - length $a, length $a) or last } }
else { send(S, $q, 0); recv(S, $a, 4096, 0) }
my ($id, $flags, $qd, $an) = unpack("n4", $a);
printf "%d %04x %d %d %s\n", $id, $flags, $an, length $a, join(".", unpack("C4", substr($a, -4)));
"#;

const PERL: &str = "-v /usr:/usr:ro -v /lib:/lib:ro -v /lib64:/lib64:ro";

/// The server of names beside a rig.
struct Server(Child);

impl Server {
    fn beside(rig: &Rig) -> Result<Self> {
        let mut command = rig.outside.command("perl");
        let server = Self(
            command
                .args(["-e", SERVER])
                .spawn()
                .context("start the server of names")?,
        );
        eventually::within(SOON, "the server of names listens", || {
            let out = rig.outside.sh("busybox netstat -lun")?;
            ensure!(out.stdout.contains(":53 "), "{out:?}");
            Ok(())
        })?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // it may have ended by itself
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn query(rig: &Rig, container: &str, name: &str, kind: u16, tcp: bool) -> Result<String> {
    let out = rig.stack.lite([
        "exec",
        container,
        "perl",
        "-e",
        CLIENT,
        name,
        &kind.to_string(),
        if tcp { "1" } else { "" },
    ])?;
    ensure!(out.code == 0, "{out:?}");
    Ok(out.stdout.trim().to_owned())
}

#[test]
fn names_of_a_network_are_known_on_it() -> Result<()> {
    let rig = Rig::start(&[])?;
    rig.lite("network create one --ipv6")?;
    rig.lite("network create two")?;
    rig.server("web", "--network one --network-alias www --hostname box")?;
    rig.sleeper("web2", "--network one --network-alias www")?;
    rig.sleeper("far", "--network two")?;
    rig.sleeper("peer", "--network one --link web:db")?;
    let address = rig.address("web", "one")?;
    let id = rig.lite("inspect -f {{.Id}} web")?;
    for name in ["web", "WEB", "box", "db", &id[..12], "web.one"] {
        let out = rig.exec("peer", &format!("nslookup -type=a {name} 127.0.0.11"))?;
        ensure!(out.stdout.contains(&address), "{name}: {out:?}");
    }
    // An alias of two leads to both, in turn.
    let both = rig
        .exec(
            "peer",
            "for i in 1 2 3 4; do nslookup -type=a www 127.0.0.11 | grep Address | sed -n 2p; done",
        )?
        .stdout;
    let mut first: Vec<_> = both.lines().collect();
    first.sort_unstable();
    first.dedup();
    ensure!(first.len() == 2, "{both}");
    let six = rig.settings("web", "one", "GlobalIPv6Address")?;
    let out = rig.exec("peer", "nslookup -type=aaaa web 127.0.0.11")?;
    ensure!(out.stdout.contains(&six), "{out:?}");
    let back = rig.exec("peer", &format!("nslookup {address} 127.0.0.11"))?;
    ensure!(back.stdout.contains("name = web.one"), "{back:?}");
    let unknown = rig.exec("far", "nslookup -type=a web 127.0.0.11")?;
    ensure!(!unknown.stdout.contains(&address), "{unknown:?}");
    // Names follow what happens to their containers.
    rig.lite("rename web site")?;
    reaches(rig.exec("peer", &fetch("site", 80)), "web")?;
    rig.lite("rm -f site")?;
    let gone = rig.exec("peer", "nslookup -type=a site 127.0.0.11")?;
    ensure!(!gone.stdout.contains(&address), "{gone:?}");
    let files = rig.exec("peer", "cat /etc/resolv.conf /etc/hosts")?.stdout;
    ensure!(
        files.contains("nameserver 127.0.0.11") && files.contains("localhost"),
        "{files}"
    );
    rig.stop()
}

#[test]
fn other_names_are_asked_of_the_hosts_servers() -> Result<()> {
    let rig = Rig::start(&["--dns", OUTSIDE])?;
    let server = Server::beside(&rig)?;
    rig.lite("network create one")?;
    rig.lite("network create --internal inner")?;
    rig.sleeper("peer", &format!("--network one {PERL}"))?;
    rig.sleeper("shut", &format!("--network inner {PERL}"))?;
    for tcp in [false, true] {
        let out = query(&rig, "peer", "some.example", 1, tcp)?;
        ensure!(out.ends_with("192.0.2.7"), "stream {tcp}: {out}");
    }
    // Cut short in a datagram, whole in a stream.
    let cut = query(&rig, "peer", "long.example", 1, false)?;
    ensure!(cut.contains("8380"), "{cut}");
    let whole = query(&rig, "peer", "long.example", 1, true)?;
    ensure!(whole.contains(" 100 "), "{whole}");
    // Own names by stream as well; a kind that they do not have is an empty answer, not a question to others.
    ensure!(query(&rig, "peer", "peer", 1, true)?.starts_with("4711 8180 1 "));
    ensure!(query(&rig, "peer", "peer", 28, false)?.starts_with("4711 8180 0 "));
    // From a network without a way out nothing is asked.
    let shut = query(&rig, "shut", "some.example", 1, false)?;
    ensure!(
        !shut.ends_with("192.0.2.7") && shut.contains("4711 8182"),
        "{shut}"
    );
    ensure!(query(&rig, "shut", "shut", 1, false)?.starts_with("4711 8180 1 "));
    drop(server);
    let out = query(&rig, "peer", "some.example", 1, false)?;
    ensure!(out.contains("8182"), "nobody to ask is told: {out}");
    rig.stop()
}

#[test]
fn the_default_network_has_links_and_files() -> Result<()> {
    let rig = Rig::start(&[])?;
    rig.lite("run -d --name web --expose 80 -e A=1 busybox nc -ll -p 80 -e echo web")?;
    rig.listens("web")?;
    rig.sleeper("peer", "--link web:db --add-host up:1.2.3.4 --add-host gw=host-gateway --dns 9.9.9.9 --dns-search lan --dns-option ndots:3")?;
    reaches(rig.exec("peer", &fetch("db", 80)), "web")?;
    let env = rig.exec("peer", "env")?.stdout;
    let address = rig.address("web", "bridge")?;
    for part in [
        format!("DB_PORT=tcp://{address}:80"),
        "DB_NAME=/peer/db".into(),
        "DB_ENV_A=1".into(),
    ] {
        ensure!(env.contains(&part), "{part}: {env}");
    }
    let files = rig.exec("peer", "cat /etc/hosts /etc/resolv.conf")?.stdout;
    for part in [
        "1.2.3.4\tup",
        "172.17.0.1\tgw",
        "nameserver 9.9.9.9",
        "search lan",
        "options ndots:3",
    ] {
        ensure!(files.contains(part), "{part}: {files}");
    }
    let stopped = rig.lite("create --name off busybox true");
    stopped?;
    let dead = rig.try_lite("run --rm --link off:x busybox true")?;
    ensure!(
        dead.stderr
            .contains("Cannot link to a non running container"),
        "{dead:?}"
    );
    // Modes that have no network of their own.
    rig.sleeper("share", "--network container:web")?;
    reaches(rig.exec("share", &fetch("127.0.0.1", 80)), "web")?;
    let alone = rig.lite("run --rm --network none busybox ip -o addr")?;
    ensure!(alone.lines().all(|l| l.contains(" lo ")), "{alone}");
    let host = rig.lite("run --rm --network host busybox ip -o addr")?;
    ensure!(host.contains("docker0") && host.contains("wire"), "{host}");
    rig.stop()
}
