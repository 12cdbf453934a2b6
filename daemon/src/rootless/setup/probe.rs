//! Trying in a throwaway user namespace what a daemon would do there.
//!
//! The namespace is made by a process of its own, which answers with one line for each thing that it tried.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

use super::super::ids::{self, Whoami};
use crate::error::{During, Error, Result};

/// What was tried, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tried {
    pub(super) what: String,
    /// Empty where it works.
    pub(super) failure: String,
}

const UNSHARED: &str = "unshared";

/// Tries everything.
pub(super) fn run(who: &Whoami) -> Result<Vec<Tried>> {
    let mut child = Command::new("/proc/self/exe")
        .args([super::super::WORD, "setup", "probe"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .during(|| "start the probe")?;
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(Error::internal("the probe has no pipes"));
    };
    let mut lines = BufReader::new(output).lines();
    let mut tried = Vec::new();
    let mut note = |what: &str, failure: String| {
        tried.push(Tried {
            what: what.to_owned(),
            failure,
        });
    };
    match lines.next() {
        Some(Ok(line)) if line == UNSHARED => {
            note("user namespace", String::new());
            let mapped = ids::write(child.id(), who);
            let works = mapped.is_ok();
            note(
                "id maps",
                mapped.err().map_or(String::new(), |e| e.to_string()),
            );
            if works {
                // A probe that has gone says nothing more, which is seen below.
                let _ = writeln!(input, "mapped");
                for line in lines.map_while(std::result::Result::ok) {
                    let (what, failure) = line.split_once('\t').unwrap_or((&line, ""));
                    note(what, failure.to_owned());
                }
            }
        }
        Some(Ok(line)) => note("user namespace", line),
        _ => note("user namespace", "the probe has ended early".into()),
    }
    drop(input);
    let _ = child.kill();
    child.wait().during(|| "wait for the probe")?;
    Ok(tried)
}

/// The probe.
pub(super) fn main() -> Result<ExitCode> {
    let flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
    let mut output = std::io::stdout();
    if let Err(e) = unshare(flags) {
        println!("{}", e.desc());
        return Ok(ExitCode::FAILURE);
    }
    writeln!(output, "{UNSHARED}").during(|| "tell")?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).during(|| "listen")?;
    for (what, outcome) in [
        ("mounts", mounts()),
        ("overlayfs with userxattr", overlay()),
        ("device /dev/net/tun", tun()),
        ("nftables", crate::network::probe_filter()),
    ] {
        let failure = outcome.err().map_or(String::new(), |e| e.to_string());
        writeln!(output, "{what}\t{}", failure.replace(['\n', '\t'], " ")).during(|| "tell")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A place of our own; it goes with the namespace.
const SCRATCH: &str = "/tmp";

fn mounts() -> Result<()> {
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    mount("tmpfs", SCRATCH, "tmpfs", MountFlags::empty(), None)?;
    Ok(())
}

fn overlay() -> Result<()> {
    let dir = Path::new(SCRATCH);
    for name in ["lower", "upper", "work", "merged"] {
        std::fs::create_dir(dir.join(name))?;
    }
    let options = format!(
        "lowerdir={SCRATCH}/lower,upperdir={SCRATCH}/upper,workdir={SCRATCH}/work,userxattr"
    );
    let options = std::ffi::CString::new(options)
        .map_err(|_| Error::internal("mount options with a null byte"))?;
    mount(
        "overlay",
        dir.join("merged"),
        "overlay",
        MountFlags::empty(),
        Some(options.as_c_str()),
    )?;
    Ok(())
}

fn tun() -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).open("/dev/net/tun")?;
    Ok(())
}
