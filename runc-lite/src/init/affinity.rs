//! `execCPUAffinity`: on which CPUs a process of `exec` runs, before and after it
//! joins the container's cgroup.

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::error::{Doing as _, StepError};

/// Puts this process on the CPUs of a list such as `0-3,7`; an empty list changes
/// nothing.
pub(super) fn apply(list: &str) -> Result<(), StepError> {
    if list.trim().is_empty() {
        return Ok(());
    }
    let what = || format!("set CPU affinity \"{list}\"");
    let Some(cpus) = parse(list) else {
        return Err(StepError::refused(what(), "not a list of CPUs"));
    };
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(cpu);
    }
    sched_setaffinity(None, &set).doing(what)
}

fn parse(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in list.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse().ok()?, last.parse::<usize>().ok()?);
        if first > last || last >= CpuSet::MAX_CPU {
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
        assert_eq!(parse("0-2, 7"), Some(vec![0, 1, 2, 7]));
        for bad in ["", "a", "3-1", "0-99999999", "1-", "-1", "1,,2"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
