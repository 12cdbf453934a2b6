//! The filter on system calls: from the profile in config.json to a program
//! that the kernel runs at every call.
//!
//! ```text
//!  LinuxSeccomp --profile::resolve--> verdicts by architecture and number
//!               --emit::program-----> instructions
//!               --Program::load-----> in force
//! ```
//!
//! The kernel gives a program the architecture, the number and the arguments of
//! a call, and takes a verdict. Ours looks first at the architecture, then finds
//! the number by halving the range of all numbers. Neighbours with the same
//! verdict are one range, so a profile that allows three hundred calls comes to
//! some forty comparisons, of which a call sees six. Arguments are looked at
//! only where a rule has conditions.
//!
//! Whose rules decide, where several name the same call: one without conditions
//! beats all that have some; otherwise the first that matches.
//!
//! A name that this program does not know is skipped, as profiles are written
//! for newer kernels. The other way round, calls newer than all that a profile
//! names get ENOSYS instead of a refusal, so that C libraries fall back on older
//! calls instead of giving up.

mod calls;
mod emit;
mod profile;
mod table;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;

use crate::error::{Doing as _, StepError};
use crate::spec::seccomp::LinuxSeccomp;
use crate::sys;

const FLAG_TSYNC: u32 = 1;
const FLAG_LOG: u32 = 2;
const FLAG_SPEC_ALLOW: u32 = 4;
const FLAG_NEW_LISTENER: u32 = 8;
const FLAG_TSYNC_ESRCH: u32 = 16;
const FLAG_WAIT_KILLABLE_RECV: u32 = 32;

/// The longest program a kernel takes.
const MAX_LENGTH: usize = 4096;

/// A profile that cannot be made into a filter.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// An action, operator, architecture or flag by a name that does not exist.
    #[error("unknown seccomp {what} {name:?}")]
    Unknown {
        /// What kind of name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Something the specification rules out, or that could not work.
    #[error("invalid seccomp profile: {0}")]
    Invalid(String),
    /// More rules than a kernel can hold.
    #[error("seccomp profile needs {0} instructions; the kernel takes 4096")]
    TooLong(usize),
    /// A machine of an architecture without a table of numbers.
    #[error("seccomp is not supported on this architecture")]
    NoArchitecture,
}

/// A compiled filter.
#[derive(Clone, Debug)]
pub struct Program {
    insns: Vec<sys::seccomp::Insn>,
    flags: u32,
    notify: bool,
}

/// Compiles a profile. Needs nothing from the kernel and changes nothing.
pub fn compile(profile: &LinuxSeccomp) -> Result<Program, SeccompError> {
    let resolved = profile::resolve(profile)?;
    let insns = emit::program(&resolved);
    if insns.len() > MAX_LENGTH {
        return Err(SeccompError::TooLong(insns.len()));
    }
    let notify = resolved.notifies();
    if notify && profile.listener_path.is_empty() {
        return Err(SeccompError::Invalid(
            "SCMP_ACT_NOTIFY needs a listenerPath".into(),
        ));
    }
    if !notify && !profile.listener_path.is_empty() {
        return Err(SeccompError::Invalid(
            "listenerPath is set but no rule has SCMP_ACT_NOTIFY".into(),
        ));
    }
    Ok(Program {
        insns,
        flags: flags(profile, notify)?,
        notify,
    })
}

fn flags(profile: &LinuxSeccomp, notify: bool) -> Result<u32, SeccompError> {
    let mut flags = 0;
    match &profile.flags {
        // Nothing said: a filter does not have to slow the program down.
        None => flags |= FLAG_SPEC_ALLOW,
        Some(names) => {
            for name in names {
                match FLAGS.iter().find(|(known, _)| known == name) {
                    Some((_, flag)) => flags |= flag,
                    None => {
                        return Err(SeccompError::Unknown {
                            what: "flag",
                            name: name.clone(),
                        });
                    }
                }
            }
        }
    }
    if !notify {
        // It says how listeners wait, and the kernel refuses it without one.
        flags &= !FLAG_WAIT_KILLABLE_RECV;
    }
    if notify {
        flags |= FLAG_NEW_LISTENER;
        if flags & FLAG_TSYNC != 0 {
            // The call can return a thread id or a descriptor, not both.
            flags |= FLAG_TSYNC_ESRCH;
        }
    }
    Ok(flags)
}

impl Program {
    /// Puts the filter on the calling thread and all it will ever execute; gives
    /// the listener of a profile that notifies.
    pub(crate) fn load(&self) -> Result<Option<OwnedFd>, StepError> {
        sys::seccomp::set_filter(&self.insns, self.flags).doing(|| "load the seccomp filter")
    }

    /// Whether loading gives a listener.
    #[must_use]
    pub fn notifies(&self) -> bool {
        self.notify
    }
}

/// The actions of [`compile`], for `features`.
pub(crate) fn known_actions() -> &'static [&'static str] {
    &[
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_LOG",
        "SCMP_ACT_NOTIFY",
        "SCMP_ACT_TRACE",
        "SCMP_ACT_TRAP",
    ]
}

/// The operators on arguments.
pub(crate) fn known_operators() -> &'static [&'static str] {
    &[
        "SCMP_CMP_EQ",
        "SCMP_CMP_GE",
        "SCMP_CMP_GT",
        "SCMP_CMP_LE",
        "SCMP_CMP_LT",
        "SCMP_CMP_MASKED_EQ",
        "SCMP_CMP_NE",
    ]
}

/// The architectures whose programs this machine's kernel can run.
pub(crate) fn known_archs() -> Vec<&'static str> {
    let mut names: Vec<_> = table::FAMILY.iter().map(|a| a.name()).collect();
    names.sort_unstable();
    names
}

const FLAGS: [(&str, u32); 4] = [
    ("SECCOMP_FILTER_FLAG_LOG", FLAG_LOG),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", FLAG_SPEC_ALLOW),
    ("SECCOMP_FILTER_FLAG_TSYNC", FLAG_TSYNC),
    (
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        FLAG_WAIT_KILLABLE_RECV,
    ),
];

/// The flags of the call that loads a filter.
pub(crate) fn known_flags() -> Vec<&'static str> {
    FLAGS.iter().map(|(name, _)| *name).collect()
}

/// Those that this kernel takes.
pub(crate) fn supported_flags() -> Vec<&'static str> {
    let with = |flag| {
        if flag == FLAG_WAIT_KILLABLE_RECV {
            flag | FLAG_NEW_LISTENER
        } else {
            flag
        }
    };
    FLAGS
        .iter()
        .filter(|(_, flag)| sys::seccomp::takes_flags(with(*flag)))
        .map(|(name, _)| *name)
        .collect()
}
