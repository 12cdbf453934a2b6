//! The `containerd-shim-lite-v2` binary; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    shim::main()
}
