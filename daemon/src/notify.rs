//! Tells a service manager how we fare, by the datagram socket that it names: ready, then stopping.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::error::{During, Error, Result};

/// Sends one state, such as `READY=1`, to the manager's socket if there is one. A name that begins with `@` is abstract.
pub(crate) fn tell(socket: Option<&OsStr>, state: &str) {
    let Some(socket) = socket else {
        return;
    };
    if let Err(e) = send(socket, state) {
        tracing::warn!("tell the service manager {state}: {e}");
    }
}

fn send(socket: &OsStr, state: &str) -> Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(socket),
        _ => return Err(Error::invalid(format!("{} is no socket", socket.display()))),
    };
    let address = address.during(|| socket.display().to_string())?;
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_hears_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), "READY=1").unwrap();
        let mut buffer = [0; 32];
        let read = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..read], b"READY=1");
        assert!(send(OsStr::new("relative"), "READY=1").is_err());
    }
}
