//! runc-lite: an OCI runtime. It builds a container and is gone.
//!
//! ```text
//!  caller (a shim, podman, a shell)
//!    | exec
//!  runc-lite create            parent: reads config.json, makes the cgroup, clones
//!    | clone3 into the new namespaces
//!  runc-lite (init)            child: builds the root file system, drops privileges
//!    | waits on exec.fifo until `runc-lite start` opens it
//!    | execve
//!  the program
//! ```
//!
//! The parent exits as soon as the child is ready; the child is then reparented
//! to the caller's subreaper, who waits for it. No process of ours stays.
//!
//! Rules of this crate:
//!
//! - One thread, always. That is what makes it sound to run ordinary Rust
//!   between clone and exec, and what `setns` of user and time namespaces asks for.
//! - The child never leaves through `exit`: only by `execve` or
//!   [`sys::process::exit_now`], so that nothing of the parent's runs twice.
//! - Paths inside a root file system are never used as strings: they are
//!   resolved with `openat2(RESOLVE_IN_ROOT)` to descriptors ([`rootfs`]).
//! - State on disk is written before what it describes exists, so that
//!   `delete --force` can clean up after a kill at any instruction ([`state`]).
//! - `unsafe` lives in [`sys`] only.

#![deny(unsafe_code)]

pub(crate) mod args;
pub(crate) mod bundle;
pub mod cgroup;
pub(crate) mod channel;
pub(crate) mod commands;
pub(crate) mod console;
pub(crate) mod create;
pub(crate) mod criu;
pub(crate) mod error;
pub(crate) mod files;
#[cfg(test)]
mod fuzz;
pub(crate) mod hooks;
pub(crate) mod init;
pub(crate) mod log;
pub(crate) mod namespaces;
pub(crate) mod netlink;
pub(crate) mod process;
pub(crate) mod resctrl;
pub(crate) mod rootfs;
pub(crate) mod sealed;
pub mod security;
pub mod spec;
pub(crate) mod state;
#[allow(
    unsafe_code,
    reason = "the fence: every unsafe block of the crate is in here"
)]
pub(crate) mod sys;
pub(crate) mod validate;

/// Runs the command line of this process; gives its exit code.
#[must_use]
pub fn main() -> u8 {
    // What the Rust runtime would have done before main, as far as it matters here.
    sys::process::guard_streams();
    let code = commands::main();
    // And after it. A reader that is gone has no use for the rest.
    let _ = std::io::Write::flush(&mut std::io::stdout());
    code
}
