//! `run`: create and start in one, and stay, unless detached.

use super::foreground::{Signals, serve};
use super::{CommandError, Container, Context, delete};
use crate::args::Parsed;
use crate::create;
use crate::hooks;
use crate::state::Status;

pub(super) fn run(context: &Context, parsed: &Parsed) -> Result<u8, CommandError> {
    let preserved = super::create::seal(parsed)?;
    let detach = parsed.switch("detach");
    let mut request = super::create::request(context, parsed, preserved);
    request.foreground = !detach;
    if detach {
        let made = create::create(request)?;
        let hooked = poststart(&made);
        if hooked.is_err() {
            let create::Created { state, dir, .. } = made;
            delete::destroy(&Container { dir, state })?;
        }
        return hooked.map(|()| 0);
    }
    if !parsed.switch("no-subreaper") {
        // What the container's process leaves behind outside a pid namespace
        // becomes our child, to be waited for.
        let me = rustix::process::getpid();
        // Without it such processes go to the next subreaper: no reason to fail.
        let _ = rustix::process::set_child_subreaper(Some(me));
    }
    let signals = Signals::block()?;
    let mut made = create::create(request)?;
    let hooked = poststart(&made);
    let terminal = made.terminal.take();
    let create::Created {
        state,
        dir,
        pidfd,
        lock,
        ..
    } = made;
    // `state`, `kill`, `exec` and the others may have it from here on.
    drop(lock);
    if hooked.is_err() {
        let _ = crate::sys::process::pidfd_kill(&pidfd, libc::SIGKILL);
    }
    let served = serve(&signals, state.pid, &pidfd, terminal);
    if !parsed.switch("keep") {
        // Somebody may have deleted it meanwhile.
        if let Ok(_lock) = dir.lock() {
            delete::destroy(&Container { dir, state })?;
        }
    }
    hooked?;
    served
}

fn poststart(made: &create::Created) -> Result<(), CommandError> {
    let hooks = &made.spec.hooks.poststart;
    if hooks.is_empty() {
        return Ok(());
    }
    let json = made.state.to_spec_json(Status::Running);
    Ok(hooks::run("poststart", hooks, &json, &[])?)
}
