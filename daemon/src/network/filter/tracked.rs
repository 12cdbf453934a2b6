//! The kernel's memory of who talks to whom, where it would lead datagrams to a container that is gone.
//!
//! A connection of TCP ends with its container. Datagrams have none: as long as somebody goes on sending, they are led where
//! the first of them was. So such memories are taken away when a port is published, and when it is no more.

use std::net::{IpAddr, SocketAddr};

use super::wire::{Socket, attribute, kind};
use crate::error::Result;

const V4: u8 = 2;
const V6: u8 = 10;
const UDP: u8 = 17;
/// The attribute of who began it.
const BEGUN: u16 = 1;
/// The attribute of who answers.
const ANSWERED: u16 = 2;

/// What is to be forgotten of a published port of datagrams.
#[derive(Debug, Clone)]
pub(crate) struct Forgotten {
    /// The host's side; the unspecified address stands for all of the host's.
    pub(crate) host: SocketAddr,
    /// The container's side.
    pub(crate) target: SocketAddr,
}

/// Forgets what was led to these ports, or came for them while nobody had them; `local` are the host's addresses.
pub(crate) fn forget(ports: &[Forgotten], local: &[IpAddr]) -> Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    let socket = Socket::open()?;
    for family in [V4, V6] {
        for entry in socket.list(kind::GET_TRACKED, family, |_| {})? {
            let Some(begun) = attribute(&entry, BEGUN) else {
                continue;
            };
            let answered = attribute(&entry, ANSWERED).and_then(|tuple| side(tuple, true));
            if !ports
                .iter()
                .any(|port| meant(port, side(begun, false), answered, local))
            {
                continue;
            }
            match socket.request(kind::DEL_TRACKED, family, |a| {
                a.put(BEGUN | 0x8000, begun);
            }) {
                // It has ended meanwhile.
                Ok(()) | Err(nix::errno::Errno::ENOENT) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
    Ok(())
}

fn meant(
    port: &Forgotten,
    to: Option<SocketAddr>,
    answered: Option<SocketAddr>,
    local: &[IpAddr],
) -> bool {
    let to_host = to.is_some_and(|to| {
        to.port() == port.host.port()
            && match port.host.ip() {
                any if any.is_unspecified() => local.contains(&to.ip()),
                one => one == to.ip(),
            }
    });
    to_host || answered == Some(port.target)
}

/// Source or destination of a tuple of datagrams.
fn side(tuple: &[u8], source: bool) -> Option<SocketAddr> {
    let (addresses, protocol) = (attribute(tuple, 1)?, attribute(tuple, 2)?);
    if attribute(protocol, 1)? != [UDP] {
        return None;
    }
    let (v4, v6, port) = if source { (1, 3, 2) } else { (2, 4, 3) };
    let port: [u8; 2] = attribute(protocol, port)?.try_into().ok()?;
    let ip: IpAddr = match (attribute(addresses, v4), attribute(addresses, v6)) {
        (Some(octets), _) => <[u8; 4]>::try_from(octets).ok()?.into(),
        (None, Some(octets)) => <[u8; 16]>::try_from(octets).ok()?.into(),
        (None, None) => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(port)))
}
