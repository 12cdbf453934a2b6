//! The peers that tests drive, in one table: a missing required one fails the run, an optional one is counted and printed.

use std::path::PathBuf;

use anyhow::{Result, bail};

/// One real program of the field.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Name of the binary.
    pub binary: &'static str,
    /// Debian package that has it.
    pub package: &'static str,
    /// Whether the run fails without it.
    pub required: bool,
}

/// All peers.
pub const PEERS: &[Peer] = &[
    Peer {
        binary: "busybox",
        package: "busybox-static",
        required: true,
    },
    Peer {
        binary: "docker",
        package: "docker.io",
        required: true,
    },
    Peer {
        binary: "dockerd",
        package: "docker.io",
        required: true,
    },
    Peer {
        binary: "containerd",
        package: "containerd",
        required: true,
    },
    Peer {
        binary: "ctr",
        package: "containerd",
        required: true,
    },
    Peer {
        binary: "containerd-shim-runc-v2",
        package: "containerd",
        required: true,
    },
    Peer {
        binary: "runc",
        package: "runc",
        required: true,
    },
    Peer {
        binary: "docker-registry",
        package: "docker-registry",
        required: true,
    },
    Peer {
        binary: "nft",
        package: "nftables",
        required: true,
    },
    Peer {
        binary: "sshd",
        package: "openssh-server",
        required: true,
    },
    Peer {
        binary: "ssh",
        package: "openssh-client",
        required: true,
    },
    Peer {
        binary: "openssl",
        package: "openssl",
        required: true,
    },
    Peer {
        binary: "crun",
        package: "crun",
        required: false,
    },
    Peer {
        binary: "podman",
        package: "podman",
        required: false,
    },
];

/// The path of a peer. Newer ones that `integration/scripts/peers` unpacked come first (`LITE_PEERS_DIR`), then PATH and
/// the administrator's folders.
pub fn peer(binary: &str) -> Result<PathBuf> {
    match find(binary) {
        Some(path) => Ok(path),
        None => match PEERS.iter().find(|p| p.binary == binary) {
            Some(p) => bail!("no {binary}: install Debian's package {}", p.package),
            None => bail!("no {binary}, and the table of peers does not name it"),
        },
    }
}

/// The path of an optional peer; prints a skip line if it is absent.
pub fn optional(binary: &str, test: &str) -> Option<PathBuf> {
    let found = find(binary);
    if found.is_none() {
        println!("SKIPPED {test}: no {binary}");
    }
    found
}

fn find(binary: &str) -> Option<PathBuf> {
    let newest = std::env::var_os("LITE_PEERS_DIR").map(|d| PathBuf::from(d).join("bin"));
    // docker's plugins work as programs of their own too
    let places =
        newest.map(|folder| [folder.join(binary), folder.join("cli-plugins").join(binary)]);
    let mut places = places.into_iter().flatten();
    places
        .find(|path| path.is_file())
        .or_else(|| crate::programs::installed(binary))
}
