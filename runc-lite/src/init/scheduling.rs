//! How the kernel schedules the process: CPU policy, I/O priority and the nodes
//! that its memory comes from.
//!
//! What [`check`] lets through is well-formed; whether the caller may have it is
//! for the kernel to say, and its refusal ends the start.

use crate::error::{Doing as _, StepError};
use crate::spec::{IoPriority, MemoryPolicy, Process, Scheduler};
use crate::sys::process::{SchedAttr, set_io_priority, set_memory_policy, set_scheduler};

/// By number.
const POLICIES: [&str; 7] = [
    "SCHED_OTHER",
    "SCHED_FIFO",
    "SCHED_RR",
    "SCHED_BATCH",
    "SCHED_ISO",
    "SCHED_IDLE",
    "SCHED_DEADLINE",
];

const FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

const IO_CLASSES: [(&str, i32); 3] = [
    ("IOPRIO_CLASS_RT", 1),
    ("IOPRIO_CLASS_BE", 2),
    ("IOPRIO_CLASS_IDLE", 3),
];

/// By number.
const MODES: [&str; 7] = [
    "MPOL_DEFAULT",
    "MPOL_PREFERRED",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];

const MODE_FLAGS: [(&str, i32); 3] = [
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_STATIC_NODES", 1 << 15),
];

/// More nodes than any kernel is built for.
const MAX_NODES: usize = 1024;

/// The names, for `features`.
pub(crate) fn memory_modes() -> Vec<&'static str> {
    MODES.to_vec()
}

/// The names, for `features`.
pub(crate) fn memory_flags() -> Vec<&'static str> {
    MODE_FLAGS.iter().map(|(name, _)| *name).collect()
}

/// What is wrong with a process's scheduling.
pub(crate) fn check(process: &Process) -> Result<(), String> {
    if let Some(io) = &process.io_priority {
        io_numbers(io)?;
    }
    match &process.scheduler {
        Some(scheduler) => attributes(scheduler).map(drop),
        None => Ok(()),
    }
}

/// What is wrong with a memory policy.
pub(crate) fn check_memory(policy: &MemoryPolicy) -> Result<(), String> {
    memory_numbers(policy).map(drop)
}

/// Sets the calling process's priorities.
pub(crate) fn apply(process: &Process) -> Result<(), StepError> {
    if let Some(io) = &process.io_priority {
        let what = || format!("set ioPriority {} {}", io.class, io.priority);
        let class = io_numbers(io).map_err(|why| StepError::refused(what(), why))?;
        set_io_priority(class, io.priority).doing(what)?;
    }
    if let Some(scheduler) = &process.scheduler {
        let what = || format!("set scheduler {}", scheduler.policy);
        let attr = attributes(scheduler).map_err(|why| StepError::refused(what(), why))?;
        set_scheduler(attr).doing(what)?;
    }
    Ok(())
}

/// Sets where the calling process's memory comes from.
pub(crate) fn apply_memory(policy: &MemoryPolicy) -> Result<(), StepError> {
    let what = || format!("set memory policy {} {}", policy.mode, policy.nodes);
    let (mode, nodes) = memory_numbers(policy).map_err(|why| StepError::refused(what(), why))?;
    set_memory_policy(mode, &nodes).doing(what)
}

fn io_numbers(io: &IoPriority) -> Result<i32, String> {
    if !(0..=7).contains(&io.priority) {
        return Err(format!("invalid ioPriority.priority: {}", io.priority));
    }
    number(&IO_CLASSES, &io.class)
        .ok_or_else(|| format!("invalid ioPriority.class: {:?}", io.class))
}

/// What a policy has no use for is refused rather than dropped: the kernel would
/// ignore it.
fn attributes(scheduler: &Scheduler) -> Result<SchedAttr, String> {
    let name = scheduler.policy.as_str();
    if name.is_empty() {
        return Err("scheduler policy is required".into());
    }
    let Some(policy) = POLICIES.iter().position(|p| *p == name) else {
        return Err(format!("invalid scheduler.policy: {name:?}"));
    };
    if !(-20..=19).contains(&scheduler.nice) {
        return Err(format!("invalid scheduler.nice: {}", scheduler.nice));
    }
    if scheduler.priority != 0 && name != "SCHED_FIFO" && name != "SCHED_RR" {
        return Err(
            "scheduler.priority can only be specified for SCHED_FIFO or SCHED_RR policy".into(),
        );
    }
    let Ok(priority) = u32::try_from(scheduler.priority) else {
        return Err(format!(
            "invalid scheduler.priority: {}",
            scheduler.priority
        ));
    };
    let times = (scheduler.runtime, scheduler.deadline, scheduler.period);
    if times != (0, 0, 0) && name != "SCHED_DEADLINE" {
        return Err(
            "scheduler runtime/deadline/period can only be specified for SCHED_DEADLINE policy"
                .into(),
        );
    }
    let mut attr = SchedAttr::default();
    for flag in &scheduler.flags {
        attr.flags |=
            number(&FLAGS, flag).ok_or_else(|| format!("invalid scheduler flag: {flag:?}"))?;
    }
    attr.policy = policy as u32;
    attr.nice = scheduler.nice;
    attr.priority = priority;
    (attr.runtime, attr.deadline, attr.period) = times;
    Ok(attr)
}

/// The mode with its flags, and a bit per node.
fn memory_numbers(policy: &MemoryPolicy) -> Result<(i32, Vec<u64>), String> {
    let invalid = |what: &str, word: &str| format!("invalid memory policy {what} {word:?}");
    let mode = MODES.iter().position(|m| *m == policy.mode);
    let mut mode = mode.ok_or_else(|| invalid("mode", &policy.mode))? as i32;
    for flag in &policy.flags {
        mode |= number(&MODE_FLAGS, flag).ok_or_else(|| invalid("flag", flag))?;
    }
    let mut mask = Vec::new();
    if !policy.nodes.trim().is_empty() {
        let list = super::affinity::parse(&policy.nodes, MAX_NODES);
        for node in list.ok_or_else(|| invalid("nodes", &policy.nodes))? {
            let at = node / 64;
            if mask.len() <= at {
                mask.resize(at + 1, 0_u64);
            }
            mask[at] |= 1 << (node % 64);
        }
    }
    Ok((mode, mask))
}

fn number<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheduler(policy: &str, nice: i32, priority: i32) -> Scheduler {
        Scheduler {
            policy: policy.into(),
            nice,
            priority,
            ..Scheduler::default()
        }
    }

    #[test]
    fn what_a_policy_cannot_have_is_refused() {
        let told = |s: &Scheduler| attributes(s).map(|a| (a.policy, a.nice, a.priority));
        assert_eq!(told(&scheduler("SCHED_BATCH", -5, 0)), Ok((3, -5, 0)));
        assert_eq!(told(&scheduler("SCHED_RR", 0, 7)), Ok((2, 0, 7)));
        for (bad, why) in [
            (scheduler("", 0, 0), "policy is required"),
            (scheduler("SCHED_MAGIC", 0, 0), "SCHED_MAGIC"),
            (scheduler("SCHED_OTHER", 20, 0), "nice: 20"),
            (scheduler("SCHED_BATCH", 0, 1), "only be specified"),
            (scheduler("SCHED_FIFO", 0, -1), "priority: -1"),
        ] {
            assert!(told(&bad).unwrap_err().contains(why), "{bad:?}");
        }
    }

    #[test]
    fn nodes_become_bits() {
        let policy = |mode: &str, nodes: &str, flags: &[&str]| MemoryPolicy {
            mode: mode.into(),
            nodes: nodes.into(),
            flags: flags.iter().map(|f| (*f).to_owned()).collect(),
        };
        assert_eq!(
            memory_numbers(&policy("MPOL_BIND", "0-2,65", &["MPOL_F_STATIC_NODES"])),
            Ok((2 | 1 << 15, vec![7, 2]))
        );
        for (bad, what) in [
            (policy("MPOL_HERE", "", &[]), "mode"),
            (policy("MPOL_BIND", "3-1", &[]), "nodes"),
            (policy("MPOL_BIND", "0", &["MPOL_F_X"]), "flag"),
        ] {
            let why = memory_numbers(&bad).unwrap_err();
            assert!(
                why.starts_with(&format!("invalid memory policy {what}")),
                "{why}"
            );
        }
    }
}
