//! Rootless: the whole chain as an ordinary user's processes.
//!
//! ```text
//!  host, the user's own id                     user and mount namespace: the user is root, the subordinate ids are the others
//!  dockerd-lite rootless (parent.rs)
//!     ├ starts, finds, watches ──▶ rootless hold (hold.rs)    keeps the namespaces; in the network namespace
//!     ├ starts, finds, watches ──▶ slirp4netns (network.rs)   tap0 in the network namespace
//!     └ starts, finds, watches ──▶ dockerd-lite (inside.rs)   ─▶ containerd-lite ─▶ shims ─▶ containers
//!                                    in the network namespace, but for threads that stay in the host's (outside.rs)
//! ```
//!
//! No process of these needs another one to live. The namespaces last as long as anything is in them, so each one that dies is
//! replaced, by the parent or (the helper of the networks, containerd-lite) by the daemon, and a new parent finds all of them by their
//! locks. There is no process that copies what comes to published ports but `dockerd-lite net`, which does it in any case: the daemon opens
//! the sockets in the host's network, and they stay there.
//!
//! The daemon runs in the same way under rootlesskit, whose variable and socket ours takes over.

mod api;
mod client;
mod copy_up;
mod enter;
mod hold;
mod ids;
pub(crate) mod inside;
pub(crate) mod kit;
pub(crate) mod limits;
mod network;
pub(crate) mod outside;
mod parent;
mod place;
mod setup;
mod user;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

pub(crate) use inside::Rootless;

use crate::error::Result;
use place::Place;

/// How the parent tells that ports are the daemon's own work.
pub(crate) const PORT_DRIVER: &str = "dockerd-lite";

/// The word that asks for it.
const WORD: &str = "rootless";

/// What `dockerd-lite rootless` is told. Its own options come first; the rest is the daemon's.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "dockerd-lite rootless",
    about = "Runs the daemon as an ordinary user, in a user namespace",
    after_help = "dockerd-lite rootless setup check|install|uninstall|nsenter prepares it"
)]
struct Options {
    /// Way out of the containers' network [default: slirp4netns, else pasta]
    #[arg(long, value_enum)]
    net: Option<network::Driver>,
    /// MTU of the way out
    #[arg(long, default_value_t = 65520)]
    net_mtu: u32,
    /// Directory of what runs [default: $XDG_RUNTIME_DIR/dockerd-lite-rootless]
    #[arg(long, value_name = "DIRECTORY")]
    state_dir: Option<PathBuf>,
    /// Stop all containers, the daemons and the network, then end
    #[arg(long)]
    stop_all: bool,
    /// Options of dockerd-lite
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    daemon: Vec<OsString>,
}

/// Runs what `dockerd-lite rootless` asks for, if these are its arguments.
pub(crate) fn main(arguments: &[OsString]) -> Option<ExitCode> {
    if arguments.get(1).is_none_or(|word| word != WORD) {
        return None;
    }
    let words: Vec<&str> = arguments[2..]
        .iter()
        .map_while(|word| word.to_str())
        .collect();
    let place = |dir: &str| Place::new(dir.into(), exec_root_beside(dir));
    let outcome: Result<ExitCode> = match words.as_slice() {
        ["hold", dir] => hold::main(&place(dir), false).map(|()| ExitCode::FAILURE),
        ["hold", "again", dir] => hold::main(&place(dir), true).map(|()| ExitCode::FAILURE),
        ["enter", dir, ..] if arguments.len() > 4 => {
            enter::main(&place(dir), &arguments[4..]).map(|()| ExitCode::FAILURE)
        }
        ["setup", ..] => setup::main(&arguments[3..]),
        _ => match Options::try_parse_from(&arguments[1..]) {
            Ok(options) => parent::main(options),
            Err(e) => {
                // Nobody reads it if that fails.
                let _ = e.print();
                return Some(ExitCode::from(if e.use_stderr() { 125 } else { 0 }));
            }
        },
    };
    Some(outcome.unwrap_or_else(|e| {
        eprintln!("dockerd-lite rootless: {e}");
        ExitCode::FAILURE
    }))
}

/// The usual exec-root beside a state directory.
fn exec_root_beside(dir: &str) -> PathBuf {
    std::path::Path::new(dir).with_file_name("docker-lite")
}
