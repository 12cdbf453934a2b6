//! `dockerd-lite rootless setup`: what an ordinary user needs once.
//!
//! `check` tries what a rootless daemon does and says what is missing, with the commands that root has to run; `install` makes
//! the user's service and context; `uninstall` takes both away and leaves the data; `nsenter` runs a program where the daemon is.

mod check;
mod install;
mod probe;

use std::ffi::OsString;
use std::process::ExitCode;

use super::place::Place;
use super::user::User;
use crate::error::{During, Error, Result};

const USAGE: &str = "usage: dockerd-lite rootless setup COMMAND
  check            try what a rootless daemon needs, and say what is missing
  install [-f]     make the user's service (where systemd runs) and the context `rootless`; -f: without the check
  uninstall        take both away; data stays
  nsenter [PROGRAM [ARGUMENT...]]
                   run a program, or a shell, in the daemon's user, mount and network namespaces
";

/// Runs it.
pub(super) fn main(words: &[OsString]) -> Result<ExitCode> {
    let text: Vec<&str> = words.iter().map_while(|word| word.to_str()).collect();
    match text.as_slice() {
        ["probe"] => probe::main(),
        ["check"] => check::main(),
        ["install"] => install::install(false),
        ["install", "-f" | "--force"] => install::install(true),
        ["uninstall"] => install::uninstall(),
        ["nsenter", ..] => nsenter(&words[1..]),
        ["-h" | "--help"] => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            eprint!("{USAGE}");
            Ok(ExitCode::from(125))
        }
    }
}

fn nsenter(words: &[OsString]) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    let user = User::of_environment()?;
    let place = Place::new(user.state_dir(), user.runtime_dir.join("docker-lite"));
    super::enter::all(&place, place.inhabitant()?)
        .during(|| "enter the rootless daemon (does it run?)")?;
    let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let words = match words {
        [] => std::slice::from_ref(&shell),
        [dashes, rest @ ..] if dashes == "--" && !rest.is_empty() => rest,
        words => words,
    };
    let failed = std::process::Command::new(&words[0])
        .args(&words[1..])
        .exec();
    Err(Error::from(failed).during(format!("start {}", words[0].display())))
}
