//! The way out of the network namespace: slirp4netns or pasta, started when none is found, and replaced when it dies.
//!
//! Either one makes `tap0` in the namespace and speaks for what comes out of it with sockets of the user. The device goes
//! when its process does; the bridges behind it, the rules and the containers' own interfaces stay, so that a new one takes over as soon
//! as it is there. Connections of containers to the outside are lost with it, those between containers and through published ports are
//! not.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::io::FdFlags;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::ids;
use super::place::Place;
use crate::error::{During, Error, Result};
use crate::supervise;

/// Who provides the way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Driver {
    /// The first one of these that is installed.
    Slirp4netns,
    /// Faster where it works; slirp4netns is preferred because it works everywhere.
    Pasta,
    /// Containers reach each other and are reached by published ports only.
    None,
}

impl Driver {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Slirp4netns => "slirp4netns",
            Self::Pasta => "pasta",
            Self::None => "none",
        }
    }
}

/// The device.
const TAP: &str = "tap0";
/// Name server that both offer.
pub(super) const DNS: &str = "10.0.2.3";
/// Our address behind it.
pub(super) const CHILD_IP: &str = "10.0.2.100";
/// How long one may take to be ready.
const PATIENCE: Duration = Duration::from_secs(20);

/// The driver to be used when none is asked for.
pub(super) fn choose() -> Result<Driver> {
    for driver in [Driver::Slirp4netns, Driver::Pasta] {
        if ids::found(driver.name()) {
            return Ok(driver);
        }
    }
    Err(Error::invalid(
        "neither slirp4netns nor pasta (package passt) is installed: containers would have no way out; --net none does without",
    ))
}

/// Finds the one that runs, or starts one and waits until it is ready. None where there is none to be.
pub(super) fn ensure(
    place: &Place,
    driver: Driver,
    mtu: u32,
    holder: Pid,
) -> Result<Option<OwnedFd>> {
    if driver == Driver::None {
        return Ok(None);
    }
    if let Some((_, process)) = supervise::find_pid(&place.network_lock())? {
        return Ok(Some(process));
    }
    let process = match driver {
        Driver::Pasta => pasta(place, mtu, holder)?,
        _ => slirp4netns(place, mtu, holder)?,
    };
    tracing::info!("started {}", driver.name());
    Ok(Some(process))
}

fn slirp4netns(place: &Place, mtu: u32, holder: Pid) -> Result<OwnedFd> {
    let (ready, tells) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .during(|| "make a pipe for slirp4netns")?;
    use std::os::fd::AsRawFd;
    let arguments: Vec<OsString> = vec![
        "--configure".into(),
        format!("--mtu={mtu}").into(),
        "--disable-host-loopback".into(),
        "--enable-sandbox".into(),
        "--enable-seccomp".into(),
        format!("--ready-fd={}", tells.as_raw_fd()).into(),
        holder.as_raw_nonzero().to_string().into(),
        TAP.into(),
    ];
    rustix::io::fcntl_setfd(&tells, FdFlags::empty()).during(|| "hand a pipe over")?;
    let child = start(place, "slirp4netns", &arguments)?;
    drop(tells);
    started(place, child, ready, "slirp4netns")
}

/// Starts one, which holds the lock as long as it lives.
fn start(place: &Place, name: &str, arguments: &[OsString]) -> Result<std::process::Child> {
    let program = ids::path_of(name);
    supervise::detached_command(&place.network_lock(), &program, arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .during(|| format!("start {name}"))
}

/// Waits until it has written to the pipe, or has let go of it.
fn started(
    place: &Place,
    mut child: std::process::Child,
    ready: OwnedFd,
    name: &str,
) -> Result<OwnedFd> {
    use std::os::fd::AsFd;
    let mut fds = [PollFd::new(ready.as_fd(), PollFlags::POLLIN)];
    let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
    let _ = poll(&mut fds, patience);
    let mut byte = [0u8; 1];
    let came = fds[0].any().unwrap_or(false) && rustix::io::read(&ready, &mut byte) == Ok(1);
    let process = supervise::find_pid(&place.network_lock())?;
    match (came, process) {
        (true, Some((_, process))) => {
            supervise::reap(child, "network-end")?;
            Ok(process)
        }
        _ => {
            // Whatever it is doing, it does not do what it is for.
            let _ = child.kill();
            let status = child.wait().during(|| format!("wait for {name}"))?;
            Err(Error::unavailable(format!(
                "{name} does not come up ({status}); dockerd-lite rootless setup check says what may be missing"
            )))
        }
    }
}

/// pasta has no descriptor that tells when it is ready: it goes to the background when it is. It stays in the foreground here, so that its lock
/// stays with it, and the device tells.
fn pasta(place: &Place, mtu: u32, holder: Pid) -> Result<OwnedFd> {
    let pid = holder.as_raw_nonzero().to_string();
    let arguments: Vec<OsString> = [
        "--foreground",
        "--config-net",
        "--ns-ifname",
        TAP,
        "--mtu",
        &mtu.to_string(),
        "--address",
        CHILD_IP,
        "--netmask",
        "24",
        "--gateway",
        "10.0.2.2",
        "--dns-forward",
        DNS,
        "--no-map-gw",
        "--ipv4-only",
        "-t",
        "none",
        "-u",
        "none",
        "-T",
        "none",
        "-U",
        "none",
        &pid,
    ]
    .iter()
    .map(Into::into)
    .collect();
    let mut child = start(place, "pasta", &arguments)?;
    let devices = format!("/proc/{pid}/net/dev");
    let start = std::time::Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().during(|| "look after pasta")? {
            return Err(Error::unavailable(format!("pasta has ended: {status}")));
        }
        let text = std::fs::read_to_string(&devices).unwrap_or_default();
        if text.contains(TAP)
            && let Some((_, process)) = supervise::find_pid(&place.network_lock())?
        {
            supervise::reap(child, "network-end")?;
            return Ok(process);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
    Err(Error::unavailable("pasta does not come up"))
}

/// What containers find in their `/etc/resolv.conf`: the helper's name server, and the rest of what the host's file says.
pub(super) fn resolv(host: &str, driver: Driver) -> String {
    let mut text = match driver {
        Driver::None => String::new(),
        _ => format!("nameserver {DNS}\n"),
    };
    for line in host.lines() {
        let word = line.split_whitespace().next().unwrap_or_default();
        if matches!(word, "search" | "domain" | "options") {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_search_list_is_kept() {
        let host = "# a\nnameserver 127.0.0.53\nsearch lan\noptions edns0\n";
        let text = resolv(host, Driver::Slirp4netns);
        assert_eq!(text, "nameserver 10.0.2.3\nsearch lan\noptions edns0\n");
        assert_eq!(resolv(host, Driver::None), "search lan\noptions edns0\n");
    }
}
