//! The `runc-lite` binary; everything is in the library.
//!
//! The C library calls `main` directly: what the Rust runtime sets up before its own
//! (a handler for stack overflows, for which it reads /proc/self/maps, a thread's
//! name) costs more system calls than `state` needs, and is paid twice where
//! the runtime executes itself once more.

#![no_main]

use std::ffi::{c_char, c_int};

/// Where the C library begins. The arguments are read from the library's own copy.
#[allow(unsafe_code, reason = "the name that the C library looks for")]
// SAFETY: the only symbol of this name, with the signature of the C standard.
#[unsafe(no_mangle)]
pub extern "C" fn main(_count: c_int, _arguments: *const *const c_char) -> c_int {
    runc_lite::main().into()
}
