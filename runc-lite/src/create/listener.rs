//! Hands the listener of a system call filter to whoever watches the calls
//! (`seccomp.listenerPath`).

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use crate::error::{Doing as _, StepError};
use crate::security::seccomp::Program;
use crate::spec::Spec;
use crate::state::{State, Status};

/// Takes descriptor `number` out of the process and sends it with the state.
pub(crate) fn forward(
    pidfd: &OwnedFd,
    number: i32,
    spec: &Spec,
    state: &State,
    _program: Option<&Program>,
) -> Result<(), StepError> {
    let listener = pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty())
        .doing(|| "take the seccomp listener from the container's process")?;
    let seccomp = spec.linux.seccomp.as_ref();
    let path = seccomp.map_or("", |s| s.listener_path.as_str());
    let metadata = seccomp.map_or("", |s| s.listener_metadata.as_str());
    let what = || format!("send the seccomp listener to {path}");
    if path.is_empty() {
        return Err(StepError::refused(
            what(),
            "the profile notifies but has no listenerPath",
        ));
    }
    let message = serde_json::json!({
        "ociVersion": crate::spec::VERSION,
        "fds": ["seccompFd"],
        "pid": state.pid,
        "metadata": metadata,
        "state": state.to_spec_json(Status::Creating),
    })
    .to_string();
    let stream = UnixStream::connect(path).doing(what)?;
    let fds = [listener.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(
        &stream,
        &[IoSlice::new(message.as_bytes())],
        &mut control,
        SendFlags::NOSIGNAL,
    )
    .doing(what)?;
    Ok(())
}
