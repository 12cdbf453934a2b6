//! From root of the container to exactly what the process may: shared by the
//! first process and by those of `exec`.

use super::{At, Prepared, process as steps, scheduling};
use crate::channel::{ChildEnd, InitFailure, Stage};
use crate::error::{Doing as _, StepError};
use crate::security::seccomp::Program;
use crate::security::{capabilities, labels, rlimits};
use crate::spec::{Linux, Personality, Process};
use crate::sys;
use crate::sys::exec::ExecArrays;

/// The filter of system calls, and on whose behalf it is loaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filter<'a> {
    pub(super) program: Option<&'a Program>,
    /// Whether the parent is root where it comes from.
    pub(super) privileged: bool,
}

/// Takes limits, identity and privileges, and finds the program.
pub(super) fn take(
    filter: Filter<'_>,
    process: &Process,
    keyring: Option<&str>,
    linux: &Linux,
    channel: &ChildEnd,
) -> Result<Prepared, InitFailure> {
    if let Some(id) = keyring {
        join_keyring(id).at(Stage::Process)?;
    }
    if let Some(personality) = &linux.personality {
        set_personality(personality).at(Stage::Process)?;
    }
    scheduling::apply(process).at(Stage::Process)?;
    if let Some(policy) = &linux.memory_policy {
        scheduling::apply_memory(policy).at(Stage::Process)?;
    }
    labels::apply(process).at(Stage::Process)?;
    // The directory may be open to root only, or to the user only: try both.
    let entered = steps::enter_cwd(&process.cwd, false).at(Stage::Process)?;
    rlimits::apply(None, &process.rlimits).at(Stage::Process)?;
    steps::own_streams(&process.user).at(Stage::Process)?;

    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true)
            .doing(|| "set no_new_privs")
            .at(Stage::Process)?;
    } else {
        // Without no_new_privs a filter takes CAP_SYS_ADMIN, so it goes in
        // while we have it, and must allow what follows.
        filter.load(channel)?;
    }
    if let Some(caps) = &process.capabilities {
        capabilities::apply_bounding(caps).at(Stage::Process)?;
        // Keep the permitted set over the change of user, to cut it ourselves.
        rustix::thread::set_keep_capabilities(true)
            .doing(|| "keep capabilities")
            .at(Stage::Process)?;
    }
    steps::take_identity(&process.user).at(Stage::Process)?;
    if !entered {
        steps::enter_cwd(&process.cwd, true).at(Stage::Process)?;
    }
    if let Some(caps) = &process.capabilities {
        capabilities::apply_process(caps).at(Stage::Process)?;
    }
    sys::process::umask(process.user.umask.unwrap_or(0o022));

    let env = steps::environment(process);
    // Looked up as the user, as the user will execute it.
    let path = steps::find_program(&process.args[0], &env).at(Stage::Exec)?;
    let args = ExecArrays::new(&process.args).at(Stage::Exec)?;
    let arrays = ExecArrays::new(&env).at(Stage::Exec)?;
    if process.no_new_privileges {
        // As late as possible, so that the filter need not allow the above.
        filter.load(channel)?;
    }
    Ok(Prepared {
        path,
        args,
        env: arrays,
        plain_env: env,
    })
}

impl Filter<'_> {
    fn load(self, channel: &ChildEnd) -> Result<(), InitFailure> {
        let Some(program) = self.program else {
            return Ok(());
        };
        if program.notifies() && !self.privileged {
            // An ordinary user takes nothing out of a process that hides. Who could look
            // into this one now are the root users of the namespaces it is in, all of
            // them the same user's.
            crate::create::dumpable(true).at(Stage::Seccomp)?;
        }
        if let Some(listener) = program.load().at(Stage::Seccomp)? {
            use std::os::fd::AsRawFd as _;
            // The parent fetches it by number and sends it on.
            channel.listener(listener.as_raw_fd()).at(Stage::Channel)?;
        }
        Ok(())
    }
}

/// A keyring of the container's own, so that it does not see the caller's keys.
fn join_keyring(id: &str) -> Result<(), StepError> {
    let name = std::ffi::CString::new(format!("_ses.{id}")).doing(|| "name the session keyring")?;
    match sys::process::join_session_keyring(&name) {
        // A kernel without keyrings has none to leak.
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        other => other.doing(|| "join session keyring"),
    }
}

fn set_personality(personality: &Personality) -> Result<(), StepError> {
    let what = || format!("set personality {}", personality.domain);
    let domain = domain(personality).map_err(|why| StepError::refused(what(), why))?;
    sys::process::set_personality(domain).doing(what)
}

/// The kernel's number of an execution domain.
pub(crate) fn domain(personality: &Personality) -> Result<libc::c_ulong, String> {
    match personality.domain.as_str() {
        "LINUX" | "" => Ok(0x0000),
        "LINUX32" => Ok(0x0008),
        other => Err(format!("invalid personality domain {other:?}")),
    }
}
