//! The program `dockerd-lite`: reads its arguments, runs the daemon until it is told to stop.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    if let Some(code) = daemon::detached(&arguments).or_else(|| daemon::net(&arguments)) {
        return code;
    }
    match daemon::main(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("dockerd-lite: {error:#}");
            ExitCode::FAILURE
        }
    }
}
