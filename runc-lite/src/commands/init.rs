//! The small init of `--init` containers: `docker-init -- PROGRAM ARGS...`, or
//! `runc-lite init -- PROGRAM ARGS...`.
//!
//! The first process of a pid namespace has two duties that most programs do not
//! know of: it gets every orphan as a child and must wait for it, and signals
//! without a handler do not end it. So this one stands in front:
//!
//! ```text
//!  signals ----> init (pid 1) ----> the program, in a process group of its own,
//!                  ^ exit codes          in the foreground of the terminal
//!                  '-- orphans of any process in the container
//! ```
//!
//! Every signal is passed on but SIGCHLD. When the program has ended, init ends
//! with its exit code, or 128 + signal, and the kernel ends what else is left.
//!
//! It is the runtime's own binary, bound read-only into the container, so it runs
//! under the container's filter and capabilities: plain fork, as filters refuse
//! clone3, and nothing that needs a privilege.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::foreground::{Signals, reap};
use crate::error::{Doing as _, StepError, chain};
use crate::sys;

const USAGE: &str = "usage: docker-init [-s] [-g] [--version] [--] PROGRAM [ARGUMENTS...]
  -s  accepted; orphans are waited for in any case
  -g  pass signals on to the program's process group, not to it alone
";

/// The arguments after the name, where this process was started as an init.
pub(super) fn asked_for() -> Option<Vec<OsString>> {
    let mut args = std::env::args_os();
    let name = args.next()?;
    let base = name.as_bytes().rsplit(|b| *b == b'/').next()?;
    if base == b"docker-init" {
        return Some(args.collect());
    }
    (args.next()? == "init").then(|| args.collect())
}

/// What the command line says.
#[derive(Debug, PartialEq, Eq)]
enum Asked<'a> {
    Version,
    Help,
    Run {
        group: bool,
        program: &'a OsStr,
        args: &'a [OsString],
    },
}

fn parse(mut args: &[OsString]) -> Result<Asked<'_>, String> {
    let mut group = false;
    while let Some((first, rest)) = args.split_first() {
        match first.as_bytes() {
            b"--" => {
                args = rest;
                break;
            }
            b"-s" => {}
            b"-g" => group = true,
            b"--version" => return Ok(Asked::Version),
            b"-h" | b"--help" => return Ok(Asked::Help),
            [b'-', _, ..] => return Err(format!("unknown option {}", first.to_string_lossy())),
            _ => break,
        }
        args = rest;
    }
    match args.split_first() {
        Some((program, args)) => Ok(Asked::Run {
            group,
            program,
            args,
        }),
        None => Err("no program given".into()),
    }
}

/// Runs as an init; gives the exit code.
pub(super) fn main(args: &[OsString]) -> u8 {
    let asked = match parse(args) {
        Ok(asked) => asked,
        Err(why) => {
            eprint!("docker-init: {why}\n{USAGE}");
            return 1;
        }
    };
    match asked {
        Asked::Version => super::say(format_args!("{}\n", crate::args::version())),
        Asked::Help => super::say(format_args!("{USAGE}")),
        Asked::Run {
            group,
            program,
            args,
        } => {
            return match run(group, program, args) {
                Ok(code) => code,
                Err(e) => {
                    eprintln!("docker-init: {}", chain(&e));
                    1
                }
            };
        }
    }
    0
}

fn run(group: bool, program: &OsStr, args: &[OsString]) -> Result<u8, StepError> {
    // Elsewhere than in a pid namespace's first place orphans pass us by.
    if std::process::id() != 1 {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .doing(|| "become the parent of orphans")?;
    }
    // Before there is a child, so that none of its signals is missed.
    let signals = Signals::block()?;
    let Some(pid) = sys::process::fork().doing(|| "fork")? else {
        become_program(program, args);
    };
    let receiver = if group { -pid } else { pid };
    loop {
        if let Some(code) = reap(pid)? {
            return Ok(code);
        }
        let mut fds = [PollFd::new(signals.fd(), PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e).doing(|| "wait for signals"),
        }
        while let Some(signal) = sys::process::next_signal(signals.fd()).doing(|| "read signals")? {
            if signal != libc::SIGCHLD {
                // Not waited for yet, so the pid is still the program's. It may
                // have ended, or have a user we may not signal: its own choice.
                let _ = sys::process::kill(receiver, signal);
            }
        }
    }
}

/// The child: into a process group of its own, which gets the terminal if there
/// is one, and then the program.
fn become_program(program: &OsStr, args: &[OsString]) -> ! {
    // All signals are blocked still: taking the terminal from the background
    // would otherwise stop us.
    let _ = rustix::process::setpgid(None, None);
    let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpid());
    let failed = match sys::process::reset_signals() {
        Ok(()) => Command::new(program).args(args).exec(),
        Err(e) => e,
    };
    eprintln!(
        "docker-init: exec {}: {}",
        program.to_string_lossy(),
        crate::error::errno_text(failed.raw_os_error().unwrap_or(0))
    );
    let missing = failed.kind() == std::io::ErrorKind::NotFound;
    sys::exec::exit_now(if missing { 127 } else { 126 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn options_end_at_the_program() {
        let args = os(&["-s", "-g", "--", "sh", "-c", "--"]);
        let Ok(Asked::Run {
            group,
            program,
            args,
        }) = parse(&args)
        else {
            panic!("not to run")
        };
        assert!(group && program == "sh" && args == os(&["-c", "--"]));
        let args = os(&["sh", "-g"]);
        assert!(
            matches!(parse(&args), Ok(Asked::Run { group: false, args, .. }) if args.len() == 1)
        );
        assert_eq!(parse(&os(&["--version"])), Ok(Asked::Version));
        for bad in [&[][..], &["--"], &["-x", "sh"]] {
            assert!(parse(&os(bad)).is_err(), "{bad:?}");
        }
    }
}
