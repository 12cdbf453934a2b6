//! `dockerd-lite rootless enter STATE PROGRAM...`: runs a program in the user and mount namespaces, and in the host's network.
//!
//! A process without privileges may enter a user namespace that its own user has made, and is its root there.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sched::{CloneFlags, setns};
use rustix::process::Pid;

use super::place::Place;
use crate::error::{During, Error, Result};

/// Enters by a process that lives in them.
fn user_and_mounts(inhabitant: Option<(Pid, OwnedFd)>) -> Result<()> {
    let (pid, process) =
        inhabitant.ok_or_else(|| Error::unavailable("no process lives in the namespaces"))?;
    let mut flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS;
    if crate::container::start::cgroup_v2() {
        flags |= CloneFlags::CLONE_NEWCGROUP;
    }
    setns(process, flags).during(|| format!("enter the namespaces of process {pid:?}"))
}

/// Enters the network namespace as well.
pub(super) fn all(place: &Place, inhabitant: Option<(Pid, OwnedFd)>) -> Result<()> {
    user_and_mounts(inhabitant)?;
    let what = || format!("enter the network namespace {}", place.netns().display());
    let namespace = std::fs::File::open(place.netns()).during(what)?;
    setns(namespace, CloneFlags::CLONE_NEWNET).during(what)
}

/// Becomes the program. Returns only when that failed.
pub(super) fn main(place: &Place, program: &[std::ffi::OsString]) -> Result<()> {
    let Some((name, arguments)) = program.split_first() else {
        return Err(Error::invalid("no program is named"));
    };
    user_and_mounts(place.inhabitant()?)?;
    let mut command = Command::new(name);
    command.args(arguments);
    if std::env::var_os("LISTEN_PID").is_some() {
        // The sockets are for whoever we become.
        command.env("LISTEN_PID", std::process::id().to_string());
    }
    let failed = command.exec();
    Err(Error::from(failed).during(format!("start {}", Path::new(name).display())))
}
