//! containerd-shim-lite-v2: the parent that a container keeps when everything above it restarts.
//!
//! ```text
//!  containerd, containerd-lite
//!    | runs `containerd-shim-lite-v2 ... start` in the bundle    start.rs: binds the socket, runs itself again, prints the address
//!    | ttrpc: containerd.task.v2.Task and v3                     transport.rs, service.rs
//!    v
//!  the serving shim, one thread                                  serve.rs
//!    | one owner task per container                              container/
//!    |   exec of the runtime's command line                      runc.rs, sys.rs
//!    |   stdio: fifos, files, loggers, json-file and attach      io/
//!    |   the only waiter for children                            reaper.rs
//!    |   exit record first, then the event                       exit.rs, publish.rs
//!    v
//!  the container
//! ```
//!
//! What survives what: the daemons above may die and return at any time; output goes on being logged, exits are kept in
//! memory and in `BUNDLE/exit.json`, events wait. If the shim itself is killed, its caller runs it once more in the mode
//! `delete`, which ends the container and answers with the recorded status, or 137 if there is none.
//!
//! Async (tokio, current thread). Nothing here starts a second thread, so that `fork`, `umask` and `chdir` are ours alone.

#![deny(unsafe_code)]

mod args;
mod cgroup;
mod clock;
mod container;
mod delete;
mod diag;
mod exit;
mod file;
mod info;
mod io;
mod oom;
mod options;
mod process;
mod publish;
mod reaper;
mod relay;
mod rootfs;
mod runc;
mod serve;
mod service;
mod sha256;
mod spec;
mod start;
mod stats;
mod sys;
mod transport;

use std::process::ExitCode;

use args::{Action, Args};

/// Version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Git commit it was built from; empty when unknown.
pub const COMMIT: &str = env!("SHIM_COMMIT");

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    diag::set_debug(args.debug);
    let result = match args.action {
        Action::Help => {
            print!("{}", args::HELP);
            Ok(())
        }
        Action::Version => {
            println!("{}", version_text());
            Ok(())
        }
        Action::Info => info::run(),
        Action::Start => start::run(&args),
        Action::Delete => delete::run(&args),
        Action::Serve => serve::run(&args),
        Action::Relay => relay::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {}", proto::layout::program::SHIM, chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// The error of a mode; only printed.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Name, version and commit, in the form that callers look for ("Version:" line).
fn version_text() -> String {
    format!(
        "{}:\n  Version:  {VERSION}\n  Revision: {COMMIT}",
        proto::layout::program::SHIM
    )
}

/// An error with its causes, outermost first.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
