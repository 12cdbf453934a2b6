//! `execCPUAffinity`: on which CPUs a process of `exec` runs, before and after it
//! joins the container's cgroup.

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::error::{Doing as _, StepError};
use crate::spec::ExecCpuAffinity;

/// Puts this process on the CPUs of a list such as `0-3,7`; an empty list changes
/// nothing.
pub(super) fn apply(list: &str) -> Result<(), StepError> {
    if list.trim().is_empty() {
        return Ok(());
    }
    let what = || format!("set CPU affinity \"{list}\"");
    let Some(cpus) = parse(list, CpuSet::MAX_CPU) else {
        return Err(StepError::refused(what(), "not a list of CPUs"));
    };
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(cpu);
    }
    sched_setaffinity(None, &set).doing(what)
}

/// What is wrong with the lists of `execCPUAffinity`.
pub(crate) fn check(affinity: &ExecCpuAffinity) -> Result<(), String> {
    for (field, list) in [("initial", &affinity.initial), ("final", &affinity.last)] {
        if !list.trim().is_empty() && parse(list, CpuSet::MAX_CPU).is_none() {
            return Err(format!("invalid execCPUAffinity.{field}: {list:?}"));
        }
    }
    Ok(())
}

/// The numbers of a list such as `0-3,7`, all below `bound`.
pub(super) fn parse(list: &str, bound: usize) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in list.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse().ok()?, last.parse::<usize>().ok()?);
        if first > last || last >= bound {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn lists() {
        assert_eq!(parse("0-2, 7", 8), Some(vec![0, 1, 2, 7]));
        for bad in ["", "a", "3-1", "0-99999999", "1-", "-1", "1,,2"] {
            assert_eq!(parse(bad, 1024), None, "{bad}");
        }
    }
}
