//! The `runc-lite` binary; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    runc_lite::main()
}
