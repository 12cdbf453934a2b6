//! The `containerd-lite` program: parses its command line and runs the library until it is signalled.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    match containerd_lite::cli::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("containerd-lite: {error:#}");
            ExitCode::FAILURE
        }
    }
}
