//! `create`: everything but the program.

use super::{CommandError, Context, refuse};
use crate::args::Parsed;
use crate::create::{self, Request};
use crate::error::Doing as _;
use crate::sys::exec::inherited;

pub(super) fn run(context: &Context, parsed: &Parsed) -> Result<(), CommandError> {
    let preserved = seal(parsed)?;
    let mut request = request(context, parsed, preserved);
    request.gate = true;
    // The child waits at its gate; it goes to whoever reaps for our caller.
    create::create(request)?;
    Ok(())
}

/// Goes on from the private copy of the binary, without the descriptors that our
/// caller left open by mistake: executing the copy closes them. Gives the number
/// of those that are kept.
pub(super) fn seal(parsed: &Parsed) -> Result<u32, CommandError> {
    let preserved = preserved_fds(parsed)?;
    crate::sealed::ensure().doing(|| "run from a sealed copy of the runtime's binary")?;
    Ok(preserved)
}

/// What `create` and `run` have in common.
pub(super) fn request<'a>(context: &Context, parsed: &'a Parsed, preserve_fds: u32) -> Request<'a> {
    Request {
        root: context.root.clone(),
        id: parsed.id(),
        bundle: parsed.value("bundle"),
        console_socket: parsed.value("console-socket").filter(|s| !s.is_empty()),
        pid_file: parsed.value("pid-file").filter(|p| !p.is_empty()),
        pidfd_socket: parsed.value("pidfd-socket").filter(|p| !p.is_empty()),
        no_pivot: parsed.switch("no-pivot"),
        no_new_keyring: parsed.switch("no-new-keyring"),
        preserve_fds,
        systemd_cgroup: context.systemd_cgroup,
        rootless: context.rootless,
        ..Request::default()
    }
}

/// Tells the program of sockets handed over by the service manager: it does
/// not see our environment.
pub(crate) fn tell_activation(process: &mut crate::spec::Process) {
    if let Ok(count) = std::env::var("LISTEN_FDS") {
        process.env.push(format!("LISTEN_FDS={count}"));
        process.env.push("LISTEN_PID=1".into());
    }
}

/// How many descriptors after stdio the program gets: those of socket
/// activation and those asked for. All others of our caller are closed to it.
fn preserved_fds(parsed: &Parsed) -> Result<u32, CommandError> {
    let asked = parsed.number::<u32>("preserve-fds")?.unwrap_or(0);
    let activation = std::env::var("LISTEN_FDS")
        .ok()
        .and_then(|n| n.parse::<u32>().ok());
    let count = activation
        .unwrap_or(0)
        .checked_add(asked)
        .filter(|n| *n < 4096);
    let Some(count) = count else {
        return refuse("too many descriptors to preserve");
    };
    for number in 3..3 + count {
        // Kept open as they are: taken here only to see that they are there.
        let fd = inherited(number as i32)
            .doing(|| format!("preserve descriptor {number}: it is not open"))?;
        let _ = std::os::fd::IntoRawFd::into_raw_fd(fd);
    }
    // Whatever else our caller left open must reach neither hooks nor program.
    crate::sys::exec::cloexec_from(3 + count).doing(|| "close inherited descriptors")?;
    Ok(count)
}
