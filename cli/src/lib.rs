//! docker-lite: the Docker command line.
//!
//! The story of a command: the words are read by Docker's rules ([`args`]), the daemon is found
//! ([`config`]: flags, environment, contexts), a version of the API is agreed on and requests are
//! sent ([`client`]), the verb does its work ([`commands`]) and prints in Docker's form ([`format`]).
//!
//! The program holds no state but what lies in docker's own folder, has one thread for its work
//! (tokio's, for the streams of `run`, `attach` and `exec`), and needs no privilege.
//! Failures travel up as [`error::Failure`] and are printed in one place, here.

#![forbid(unsafe_code)]

mod archive;
mod args;
mod client;
mod commands;
mod config;
mod contexts;
mod credentials;
mod error;
mod format;
mod options;
mod plugins;
mod progress;
mod reference;
mod stream;
mod terminal;

use std::ffi::OsString;

use error::{Failure, Outcome};

/// Runs one command line, prints its failure if it fails, and returns the exit code.
pub fn main(words: Vec<OsString>) -> u8 {
    match start(words) {
        Ok(code) => code,
        Err(failure) => {
            if !failure.text.is_empty() {
                crate::format::tell(&format!("{}\n", failure.text));
            }
            failure.code
        }
    }
}

fn start(words: Vec<OsString>) -> Outcome {
    let words: Vec<String> = words
        .into_iter()
        .skip(1)
        .map(|word| {
            word.into_string()
                .map_err(|word| Failure::new(format!("argument is not UTF-8: {word:?}")))
        })
        .collect::<Result<_, _>>()?;
    let cli = match args::parse(&words)? {
        args::Parsed::Done => return Ok(0),
        args::Parsed::Plugin(path) => return Err(plugins::become_plugin(&path, &words)),
        args::Parsed::Command(cli) => cli,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|cause| Failure::new(format!("start the event loop: {cause}")))?;
    let outcome = runtime.block_on(commands::execute(*cli));
    // A read of standard input may still be waiting in its thread; nobody needs it any more.
    runtime.shutdown_background();
    outcome
}
