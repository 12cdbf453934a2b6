//! `dockerd-lite net`: one small process that serves published ports on the loopback, and names to containers.
//!
//! ```text
//!  dockerd-lite ──differences, sockets──▶ dockerd-lite net (EXEC-ROOT/net/net.sock)
//!                                            ├─ 127.0.0.1:8080 ─▶ container:80       proxy.rs
//!                                            └─ 127.0.0.11:53 in each namespace      resolve.rs, dns.rs
//! ```
//!
//! It is this same program, started when first needed, in a session of its own: it outlives the daemon, and a killed daemon
//! costs neither a connection nor a look-up. It opens nothing but connections to containers and to name servers: all that
//! it listens on is opened by the daemon and handed over. One that dies is replaced at once and told everything again.
//!
//! The daemon's half is [`Helper`]; what both say to each other stands in [`protocol`].

mod control;
mod dns;
mod helper;
mod packet;
pub(crate) mod protocol;
mod proxy;
mod resolve;
mod serve;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::ExitCode;

pub(crate) use helper::{Helper, served};

use crate::error::{During, Result};

/// The word that makes this program the helper.
pub(crate) const WORD: &str = "net";

/// Runs the helper, if these are its arguments.
pub(crate) fn main(arguments: &[OsString]) -> Option<ExitCode> {
    match arguments {
        [_, word, socket] if word == WORD => Some(match serve::run(socket.as_ref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("dockerd-lite net: {e}");
                ExitCode::FAILURE
            }
        }),
        _ => None,
    }
}

/// The two sockets by which a container's names are looked up.
#[derive(Debug)]
pub(crate) struct ResolverSockets {
    pub(crate) udp: OwnedFd,
    pub(crate) tcp: OwnedFd,
}

impl ResolverSockets {
    /// Opens them in this thread's network namespace, and leads port 53 of the resolver's address there.
    pub(crate) fn open() -> Result<Self> {
        use rustix::net::{
            AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with,
        };
        let what = || "open the sockets of the container's resolver";
        let address = SocketAddr::from(([127, 0, 0, 11], 0));
        let open = |kind| -> Result<(OwnedFd, u16)> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(AddressFamily::INET, kind, flags, None).during(what)?;
            bind(&socket, &address).during(what)?;
            let bound = getsockname(&socket).during(what)?;
            let port = SocketAddr::try_from(bound).during(what)?.port();
            Ok((socket, port))
        };
        let (udp, udp_port) = open(SocketType::DGRAM)?;
        let (tcp, tcp_port) = open(SocketType::STREAM)?;
        listen(&tcp, 64).during(what)?;
        crate::network::redirect_resolver(udp_port, tcp_port)?;
        Ok(Self { udp, tcp })
    }
}
