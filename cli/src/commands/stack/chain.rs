//! The chain, walked from the top, each program by its own account.
//!
//! ```text
//! dockerd-lite     gRPC on the daemon's socket, wherever it is
//!   downstream ->  containerd-lite  gRPC, if the daemon is on this machine
//!                    its shims      found in /proc by the containerd that they name, then asked
//! ```
//!
//! runc-lite is no running program: it has done its work when a container runs.

use std::path::PathBuf;

use proto::lite::control::v1::StatusResponse;

use super::super::Session;
use crate::client::control::{self, ControlError};

/// What answered, and what did not.
#[derive(Debug, Default)]
pub(super) struct Chain {
    pub(super) programs: Vec<StatusResponse>,
    pub(super) shims: Vec<Shim>,
    pub(super) troubles: Vec<String>,
}

pub(super) async fn walk(session: &Session) -> Result<Chain, ControlError> {
    let daemon = control::daemon(&session.client).await?;
    let below = daemon.downstream.clone();
    let mut chain = Chain {
        programs: vec![daemon],
        ..Chain::default()
    };
    if below.is_empty() {
        return Ok(chain);
    }
    if !session.client.is_local() {
        chain.troubles.push(format!(
            "what is below the daemon ({below}) can be asked on its own machine only"
        ));
        return Ok(chain);
    }
    match control::below(&session.client, &below).await {
        Ok(containerd) => chain.programs.push(containerd),
        Err(error) => chain.troubles.push(error.to_string()),
    }
    chain.shims = shims(below.trim_start_matches("unix://"));
    for shim in &chain.shims {
        match control::shim(&shim.socket).await {
            Ok(told) => chain.programs.push(told),
            Err(error) => chain.troubles.push(format!("shim {}: {error}", shim.pid)),
        }
    }
    Ok(chain)
}

/// A shim of this machine.
#[derive(Debug)]
pub(super) struct Shim {
    pub(super) pid: u32,
    /// The container that it was started for.
    pub(super) id: String,
    pub(super) socket: PathBuf,
}

/// The shims that name this containerd on their command line, by process id.
fn shims(containerd: &str) -> Vec<Shim> {
    let mut found: Vec<Shim> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let words = std::fs::read(entry.path().join("cmdline")).ok()?;
            if !is_shim_of(&words, containerd) {
                return None;
            }
            // The listener is handed to a shim as its descriptor 3.
            let link = std::fs::read_link(entry.path().join("fd/3")).ok()?;
            // Listed in its own network namespace, which need not be ours.
            let sockets = std::fs::read_to_string(entry.path().join("net/unix")).ok()?;
            let socket = socket_path(&sockets, link.to_str()?)?;
            let id = value_of(&words, "-id").unwrap_or_default();
            Some(Shim { pid, id, socket })
        })
        .collect();
    found.sort_by_key(|shim| shim.pid);
    found
}

/// Whether these words, each with a zero at its end, started a serving shim of that containerd.
fn is_shim_of(words: &[u8], containerd: &str) -> bool {
    let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
    let program = words[0].rsplit(|byte| *byte == b'/').next();
    let named = words
        .windows(2)
        .any(|pair| pair[0] == b"-address" && pair[1] == containerd.as_bytes());
    let acts = words
        .iter()
        .any(|word| matches!(*word, b"start" | b"delete"));
    program == Some(proto::layout::program::SHIM.as_bytes()) && named && !acts
}

/// The word after a flag.
fn value_of(words: &[u8], flag: &str) -> Option<String> {
    let mut words = words.split(|byte| *byte == 0);
    words.find(|word| *word == flag.as_bytes())?;
    Some(String::from_utf8_lossy(words.next()?).into_owned())
}

/// The path in the kernel's list of unix sockets for a descriptor such as `socket:[17]`.
fn socket_path(list: &str, link: &str) -> Option<PathBuf> {
    let inode = link.strip_prefix("socket:[")?.strip_suffix(']')?;
    list.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(6);
        (fields.next() == Some(inode)).then(|| fields.next().map(PathBuf::from))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shims_are_known_by_name_and_containerd() {
        let words =
            b"/x/containerd-shim-lite-v2\0-namespace\0moby\0-id\0a\0-address\0/run/c.sock\0";
        assert!(is_shim_of(words, "/run/c.sock"));
        assert!(!is_shim_of(words, "/run/d.sock"));
        let mut starting = words.to_vec();
        starting.extend(b"start\0");
        assert!(!is_shim_of(&starting, "/run/c.sock"));
        assert!(!is_shim_of(b"", "/run/c.sock"));
    }

    #[test]
    fn sockets_are_found_by_their_inode() {
        let list = "Num RefCount Protocol Flags Type St Inode Path\n\
            0000: 00000002 00000000 00010000 0001 01 17 /run/s/a\n\
            0000: 00000002 00000000 00000000 0001 03 18\n";
        assert_eq!(socket_path(list, "socket:[17]"), Some("/run/s/a".into()));
        assert_eq!(socket_path(list, "socket:[18]"), None);
        assert_eq!(socket_path(list, "pipe:[17]"), None);
    }
}
