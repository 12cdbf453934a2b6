//! Attacks on the runtime: images, neighbours, callers and records that try to reach the host through it.
//!
//! ```text
//!  races     a neighbour swaps a directory with a link while the runtime mounts there
//!  binary    the runtime's own file, by /proc/self/exe in all its disguises
//!  leaks     descriptors that stay open, and a working directory behind them
//!  procfs    /proc and /sys of the image's making, parameters by crooked names
//!  inputs    bundles, configurations and command lines made to break
//!  records   state files of an attacker, pids used again
//! ```
//!
//! Each has a [`harness::Victim`] with a directory of the host beside it, the canary: whatever a container does and however
//! the runtime ends, nothing in it may have changed, none of it may be seen inside, and the runtime may neither panic nor
//! hang. The ordinary run is short; `LITE_DRILL=full` makes it long. `RUNTIME_UNDER_TEST` names another runtime, on which an
//! attack may succeed: Debian 12's runc has files of the host made by a link in the place of /dev.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod binary;
mod harness;
mod inputs;
mod leaks;
mod procfs;
mod races;
mod records;
