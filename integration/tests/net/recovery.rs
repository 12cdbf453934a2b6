//! Killed daemons: the data plane is state, and nobody notices.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::eventually;
use integration::outside::HOST;
use integration::stack::{NET, alive, send};
use nix::sys::signal::Signal;

use crate::rig::{Rig, SOON, fetch, reaches};

/// A load: connects and asks without a pause, counts what failed, and says so when it is told to stop; what the word to stop
/// interrupts is not counted.
const LOAD: &str = r#"
use Socket;
my ($fine, $bad, $why, $stop) = (0, 0, "", 0); $SIG{TERM} = sub { $stop = 1 }; $SIG{ALRM} = sub { die "late" };
sub tcp { my ($host, $port, $want) = @_; socket(my $s, PF_INET, SOCK_STREAM, 0) or die "socket"; connect($s, sockaddr_in($port, inet_aton($host))) or die "connect $host:$port $!"; my $got = ""; sysread($s, $got, 99); $got =~ /^$want/ or die "$host:$port said <$got>" }
sub name { my ($name) = @_; my $q = pack("n6", 7, 0x100, 1, 0, 0, 0) . pack("C", length $name) . $name . pack("Cn2", 0, 1, 1);
  socket(my $s, PF_INET, SOCK_DGRAM, 0) or die; connect($s, sockaddr_in(53, inet_aton("127.0.0.11"))) or die; send($s, $q, 0) or die "send $!"; recv($s, my $a, 999, 0); (unpack("n4", $a))[3] > 0 or die "no address of $name" }
while (!$stop) { for my $what (@ARGV) { my ($kind, @rest) = split(/,/, $what);
    eval { alarm 5; $kind eq "tcp" ? tcp(@rest) : name(@rest); alarm 0; $fine++; 1 } or do { alarm 0; last if $stop; $bad++; $why = $@ } }
  select(undef, undef, undef, 0.005) }
print "$fine $bad $why\n";
"#;

/// A load that runs.
struct Load {
    child: Child,
    what: String,
}

impl Load {
    fn spawn(mut command: std::process::Command, what: &str) -> Result<Self> {
        let child = command
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()?;
        Ok(Self {
            child,
            what: what.to_owned(),
        })
    }

    /// Ends it; fails if a single try failed, or too few were made.
    fn end(self, least: u64) -> Result<()> {
        send(self.child.id(), Signal::SIGTERM)?;
        let out = self.child.wait_with_output()?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        println!("{}: {}", self.what, text.trim());
        check(&self.what, &text, least)
    }
}

fn check(what: &str, text: &str, least: u64) -> Result<()> {
    let mut words = text.split(' ');
    let mut number = || -> Result<u64> {
        words
            .next()
            .context("a number")?
            .trim()
            .parse()
            .context("a number")
    };
    let (fine, bad) = (number().with_context(|| text.to_owned())?, number()?);
    ensure!(bad == 0 && fine >= least, "{what}: {text}");
    Ok(())
}

const PERL: &str = "-v /usr:/usr:ro -v /lib:/lib:ro -v /lib64:/lib64:ro";

/// Kills dockerd-lite under constant load, again and again: not one connection or look-up fails, not a byte of the rules
/// differs.
fn drill(kills: usize, mappings: usize) -> Result<()> {
    let mut rig = Rig::start(&[])?;
    rig.lite("network create own")?;
    rig.server("web", "--network own -p 8080:80")?;
    let mut published = 1;
    let mut n = 0;
    while published < mappings {
        let count = (mappings - published).min(250);
        let first = 10_000 + published;
        rig.sleeper(
            &format!("many{n}"),
            &format!(
                "--network own -p {first}-{}:1000-{}",
                first + count - 1,
                999 + count
            ),
        )?;
        published += count;
        n += 1;
    }
    rig.sleeper("inside", &format!("--network own {PERL}"))?;
    let web = rig.address("web", "own")?;
    let before = rig.ruleset()?;
    ensure!(
        before.matches(" : ").count() >= mappings,
        "{} mappings",
        before.matches(" : ").count()
    );
    let helper = rig.stack.pids_of(NET)?;
    let mut outside = rig.outside.command("perl");
    outside.args(["-e", LOAD, &format!("tcp,{HOST},8080,web")]);
    let outside = Load::spawn(outside, "from outside")?;
    let mut local = rig.stack.in_namespace("/usr/bin/perl".as_ref());
    local.args([
        "-e",
        LOAD,
        "tcp,127.0.0.1,8080,web",
        &format!("tcp,{HOST},8080,web"),
    ]);
    let local = Load::spawn(local, "from the host, by the loopback and by its address")?;
    let target = [
        format!("tcp,{web},80,web"),
        format!("tcp,{HOST},8080,web"),
        "name,web".into(),
    ];
    let mut args = vec![
        "exec",
        "-d",
        "inside",
        "sh",
        "-c",
        "perl -e \"$0\" \"$@\" >/result",
        LOAD,
    ];
    args.extend(target.iter().map(String::as_str));
    rig.stack.lite(args)?.exits(0)?;
    for _ in 0..kills {
        rig.stack.kill_daemon()?;
        std::thread::sleep(Duration::from_millis(100));
        rig.stack.start_daemon()?;
        rig.lite("ps -q")?;
    }
    eventually::within(SOON, "the rules are as they were", || {
        let now = rig.ruleset()?;
        ensure!(now == before, "{before}\n----\n{now}");
        Ok(())
    })?;
    ensure!(rig.stack.pids_of(NET)? == helper, "the helper went on");
    let least = 20 * kills as u64;
    outside.end(least)?;
    local.end(least)?;
    rig.exec("inside", "pkill -TERM perl")?;
    let text = eventually::within(SOON, "the load within a container has told", || {
        let text = rig.exec("inside", "cat /result")?.stdout;
        ensure!(!text.is_empty(), "nothing yet");
        Ok(text)
    })?;
    println!("within a container: {}", text.trim());
    check("within a container", &text, least)?;
    rig.stop()
}

#[test]
fn nobody_notices_a_killed_daemon() -> Result<()> {
    drill(2, 20)
}

/// The long form, for `integration/scripts/drill`.
#[test]
#[ignore = "takes minutes"]
fn nobody_notices_ten_kills_with_500_mappings() -> Result<()> {
    drill(10, 500)
}

#[test]
fn a_killed_helper_is_replaced_and_told_everything() -> Result<()> {
    let rig = Rig::start(&[])?;
    rig.lite("network create own")?;
    rig.server("web", "--network own -p 8080:80")?;
    rig.sleeper("peer", "--network own")?;
    for round in 0..3 {
        let pids = rig.stack.pids_of(NET)?;
        ensure!(pids.len() == 1, "{pids:?}");
        send(pids[0], Signal::SIGKILL)?;
        eventually::within(SOON, "the helper is dead", || {
            ensure!(!alive(pids[0]), "it lives");
            Ok(())
        })?;
        eventually::within(SOON, "the loopback leads to the container again", || {
            reaches(rig.host(&fetch("127.0.0.1", 8080)), "web")
        })?;
        eventually::within(SOON, "names are known again", || {
            reaches(rig.exec("peer", &fetch("web", 80)), "web")
        })
        .with_context(|| format!("round {round}"))?;
    }
    rig.stop()
}

#[test]
fn what_is_wrong_at_the_start_is_made_right() -> Result<()> {
    let mut rig = Rig::start(&[])?;
    rig.lite("network create own --ipv6")?;
    rig.server("web", "--network own -p 8080:80")?;
    rig.lite("run -d --name dies --network own -p 8081:80 busybox sleep 10000")?;
    rig.sleeper("peer", "--network own")?;
    let states: BTreeMap<&str, String> = ["web", "peer"]
        .into_iter()
        .map(|name| Ok((name, rig.address(name, "own")?)))
        .collect::<Result<_>>()?;
    let pid: u32 = rig.lite("inspect -f {{.State.Pid}} dies")?.parse()?;
    rig.stack.kill_daemon()?;
    // While nobody looks: a container ends, rules and interfaces go.
    send(pid, Signal::SIGKILL)?;
    rig.host("nft flush ruleset; for l in $(ls /proc/sys/net/ipv4/conf | grep -e ^br- -e ^veth); do ip link del $l; done; true")?;
    let links = rig.host("ip -o link")?.stdout;
    ensure!(!links.contains("br-"), "{links}");
    rig.stack.start_daemon()?;
    rig.lite("ps")?;
    for (name, address) in states {
        ensure!(
            rig.address(name, "own")? == address,
            "{name} keeps {address}"
        );
    }
    eventually::within(SOON, "everything works again", || {
        reaches(rig.outside.sh(&fetch(HOST, 8080)), "web")?;
        reaches(rig.host(&fetch("127.0.0.1", 8080)), "web")?;
        reaches(rig.exec("peer", &fetch("web", 80)), "web")
    })?;
    eventually::within(SOON, "what the dead one held is free", || {
        rig.lite("run --rm --network own -p 8081:80 busybox true")
            .map(drop)
    })?;
    rig.stop()
}
