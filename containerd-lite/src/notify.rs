//! systemd's readiness protocol: one datagram to NOTIFY_SOCKET. Nothing happens without that variable.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Tells systemd that we serve.
pub(crate) fn ready() {
    send("READY=1\n");
}

/// Tells systemd that we are going.
pub(crate) fn stopping() {
    send("STOPPING=1\n");
}

fn send(text: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(&path),
    };
    let sent = address.and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read must not hold the start up.
        socket.set_nonblocking(true)?;
        socket.send_to_addr(text.as_bytes(), &address)
    });
    if let Err(error) = sent {
        tracing::warn!("notify systemd on {}: {error}", path.display());
    }
}
