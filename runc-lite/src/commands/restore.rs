//! `restore`: a container out of a checkpoint.

use super::foreground::{Signals, serve};
use super::{CommandError, Container, Context, delete, refuse};
use crate::args::Parsed;
use crate::create::restore::{Image, restore};
use crate::create::{Created, Request};
use crate::criu::wire::Message;
use crate::criu::{Criu, Directories, Options, field};

/// The oldest criu that can set another security profile.
const LSM: i64 = 31_600;

pub(super) fn run(context: &Context, parsed: &Parsed) -> Result<u8, CommandError> {
    if !rustix::process::geteuid().is_root() {
        return refuse("restoring a container needs root");
    }
    let criu = Criu::find(context.criu.as_deref())?;
    if parsed.switch("lazy-pages") {
        criu.needs(2, "LazyPages")?;
    }
    let mut opts = Message::default();
    Options::common(parsed, &mut opts)?;
    for (name, number) in [
        ("lsm-profile", field::LSM_PROFILE),
        ("lsm-mount-context", field::LSM_MOUNT_CONTEXT),
    ] {
        if let Some(label) = parsed.value(name).filter(|l| !l.is_empty()) {
            criu.at_least(LSM)?;
            opts.text(number, label);
        }
    }
    let directories = Directories::open(parsed, "restore.log", false)?;
    let detach = parsed.switch("detach");
    let request = Request {
        root: context.root.clone(),
        id: parsed.id(),
        bundle: parsed.value("bundle"),
        console_socket: parsed.value("console-socket").filter(|s| !s.is_empty()),
        pid_file: parsed.value("pid-file").filter(|p| !p.is_empty()),
        systemd_cgroup: context.systemd_cgroup,
        rootless: context.rootless,
        foreground: !detach,
        ..Request::default()
    };
    if !detach && !parsed.switch("no-subreaper") {
        let me = rustix::process::getpid();
        // Without it orphans go to the next subreaper: no reason to fail.
        let _ = rustix::process::set_child_subreaper(Some(me));
    }
    let signals = match detach {
        true => None,
        false => Some(Signals::block()?),
    };
    let made = restore(
        &request,
        Image {
            criu: &criu,
            directories: &directories,
            opts,
        },
    )?;
    let Some(signals) = signals else {
        return Ok(0);
    };
    let Created {
        state,
        dir,
        pidfd,
        terminal,
        lock,
        ..
    } = made;
    drop(lock);
    let served = serve(&signals, state.pid, &pidfd, terminal);
    // Somebody may have deleted it meanwhile.
    if let Ok(_lock) = dir.lock() {
        delete::destroy(&Container { dir, state })?;
    }
    served
}
