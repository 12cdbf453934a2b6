//! The five real programs on the real kernel.
//!
//! A test starts a [`stack::Stack`] in directories and a network namespace of its own, drives it through a CLI, and drops it.
//! Dropping ends every process that the stack started; [`leaks::Census`] taken before and after tells what stayed behind.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let stack = integration::stack::Stack::start()?;
//! integration::images::busybox(&stack)?;
//! let before = integration::leaks::Census::take(stack.scope())?;
//! let out = stack.lite(["run", "--rm", "busybox", "echo", "hi"])?.exits(0)?;
//! assert_eq!(out.stdout, "hi\n");
//! before.flat_within(std::time::Duration::from_secs(5))?;
//! stack.stop()?;
//! # Ok(())
//! # }
//! ```
//!
//! Which peers a test needs stands in [`require`]; a missing required one fails the run, an optional one is printed as
//! skipped. The programs come from `LITE_BIN_DIR`, else from the folder of this build's own profile.

#![forbid(unsafe_code)]

pub mod cases;
pub mod eventually;
pub mod http;
pub mod images;
pub mod leaks;
pub mod outside;
pub mod peers;
pub mod programs;
pub mod recorder;
pub mod require;
pub mod rig;
pub mod stack;
