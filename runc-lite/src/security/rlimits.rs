//! Resource limits of a process.

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::error::{Doing as _, StepError};
use crate::spec;

const NAMES: [(&str, Resource); 16] = [
    ("RLIMIT_AS", Resource::As),
    ("RLIMIT_CORE", Resource::Core),
    ("RLIMIT_CPU", Resource::Cpu),
    ("RLIMIT_DATA", Resource::Data),
    ("RLIMIT_FSIZE", Resource::Fsize),
    ("RLIMIT_LOCKS", Resource::Locks),
    ("RLIMIT_MEMLOCK", Resource::Memlock),
    ("RLIMIT_MSGQUEUE", Resource::Msgqueue),
    ("RLIMIT_NICE", Resource::Nice),
    ("RLIMIT_NOFILE", Resource::Nofile),
    ("RLIMIT_NPROC", Resource::Nproc),
    ("RLIMIT_RSS", Resource::Rss),
    ("RLIMIT_RTPRIO", Resource::Rtprio),
    ("RLIMIT_RTTIME", Resource::Rttime),
    ("RLIMIT_SIGPENDING", Resource::Sigpending),
    ("RLIMIT_STACK", Resource::Stack),
];

fn resource(name: &str) -> Option<Resource> {
    NAMES.iter().find(|(n, _)| *n == name).map(|(_, r)| *r)
}

/// What is wrong with a list of limits, for validation before anything is changed.
pub(crate) fn check(limits: &[spec::Rlimit]) -> Result<(), String> {
    for (at, limit) in limits.iter().enumerate() {
        if resource(&limit.kind).is_none() {
            return Err(format!("invalid rlimit type {:?}", limit.kind));
        }
        if limits[..at].iter().any(|l| l.kind == limit.kind) {
            return Err(format!("rlimit {} is given twice", limit.kind));
        }
    }
    Ok(())
}

/// Sets the limits of a process, by default the calling one. What may not be
/// raised is raised as far as it goes.
pub(crate) fn apply(pid: Option<Pid>, limits: &[spec::Rlimit]) -> Result<(), StepError> {
    for limit in limits {
        let what = || format!("set rlimit {} to {}:{}", limit.kind, limit.soft, limit.hard);
        let Some(resource) = resource(&limit.kind) else {
            return Err(StepError::refused(what(), "there is no such limit"));
        };
        match prlimit(pid, resource, kernel(limit.soft, limit.hard)) {
            Err(rustix::io::Errno::PERM) => {
                let (soft, hard) = clamp(limit.soft, limit.hard, getrlimit(resource).maximum);
                prlimit(pid, resource, kernel(soft, hard)).doing(what)?;
                crate::log::warn(&format!(
                    "{}: operation not permitted; clamped to {soft}:{hard}",
                    what()
                ));
            }
            other => drop(other.doing(what)?),
        }
    }
    Ok(())
}

/// The largest limits at or below the wanted ones that need no privilege.
fn clamp(soft: u64, hard: u64, own_hard: Option<u64>) -> (u64, u64) {
    let hard = hard.min(own_hard.unwrap_or(u64::MAX));
    (soft.min(hard), hard)
}

/// The largest number means no limit.
fn kernel(soft: u64, hard: u64) -> Rlimit {
    let bounded = |n| (n != u64::MAX).then_some(n);
    Rlimit {
        current: bounded(soft),
        maximum: bounded(hard),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(kind: &str) -> spec::Rlimit {
        spec::Rlimit {
            kind: kind.into(),
            hard: 1,
            soft: 1,
        }
    }

    #[test]
    fn unknown_and_double_names_are_found_before_they_do_harm() {
        assert!(check(&[limit("RLIMIT_CPU"), limit("RLIMIT_AS")]).is_ok());
        assert!(check(&[limit("RLIMIT_CPU"), limit("RLIMIT_CPU")]).is_err());
        assert!(check(&[limit("RLIMIT_CPUS")]).is_err());
    }

    #[test]
    fn clamping_goes_as_far_as_it_may() {
        assert_eq!(clamp(10, 100, Some(50)), (10, 50));
        assert_eq!(clamp(u64::MAX, u64::MAX, Some(50)), (50, 50));
        assert_eq!(clamp(5, 6, None), (5, 6));
    }
}
