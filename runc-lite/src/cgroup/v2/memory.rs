//! Memory on v2, where swap is counted by itself: the specification's limit of
//! memory and swap together is translated.

use super::super::CgroupError;
use super::super::dir::Dir;
use crate::spec::resources::LinuxMemory;

/// Sets whatever is given. Swappiness, kernel memory and the OOM killer switch
/// have no counterpart; runtimes have always passed over them here, and so
/// does this one.
pub(super) fn set(dir: &Dir, memory: &LinuxMemory) -> Result<(), CgroupError> {
    check(dir, memory)?;
    let limit = memory.limit.filter(|&n| n != 0);
    if let Some(value) = swap(dir, memory)? {
        match dir.set(
            "linux.resources.memory.swap",
            "memory.swap.max",
            &line(value),
        ) {
            // Without swap there is no file, and no limit or no swap is what there is.
            Err(CgroupError::Unavailable { .. }) if value <= 0 => {}
            other => other?,
        }
    }
    if let Some(limit) = limit {
        dir.set("linux.resources.memory.limit", "memory.max", &line(limit))?;
    }
    if let Some(reservation) = memory.reservation.filter(|&n| n != 0) {
        dir.set(
            "linux.resources.memory.reservation",
            "memory.low",
            &line(reservation),
        )?;
    }
    Ok(())
}

/// What `memory.swap.max` is to be, -1 for no limit; nothing if it stays.
///
/// The specification's limit is one of memory and swap together, and it holds
/// until another is given: where memory alone changes, swap gives way.
pub(in super::super) fn swap(dir: &Dir, memory: &LinuxMemory) -> Result<Option<i64>, CgroupError> {
    const FIELD: &str = "linux.resources.memory.swap";
    let in_force = |file| {
        let number = dir.number(file)?;
        Ok::<_, CgroupError>(number.and_then(|n| i64::try_from(n).ok()))
    };
    let limit = memory.limit.filter(|&n| n != 0);
    let (swap, limit) = match (memory.swap.filter(|&n| n != 0), limit) {
        (Some(..0), _) | (None, Some(..0)) => return Ok(Some(-1)),
        (None, None) => return Ok(None),
        (Some(swap), Some(limit)) => (swap, limit),
        // Swap alone is meant against the limit in force.
        (Some(swap), None) => (swap, in_force("memory.max")?.unwrap_or(-1)),
        (None, Some(limit)) => match (in_force("memory.max")?, in_force("memory.swap.max")?) {
            (Some(old), Some(swap)) => (old.saturating_add(swap), limit),
            _ => return Ok(None),
        },
    };
    if limit < 0 {
        return Err(CgroupError::invalid(
            FIELD,
            "unable to set swap limit without memory limit",
        ));
    }
    if swap < limit {
        return Err(CgroupError::invalid(
            FIELD,
            format!("memory+swap limit {swap} is below the memory limit {limit}"),
        ));
    }
    Ok(Some(swap - limit))
}

fn line(n: i64) -> String {
    if n < 0 {
        "max".to_owned()
    } else {
        n.to_string()
    }
}

/// Refuses a limit below what is in use, where that is asked for.
pub(in super::super) fn check(dir: &Dir, memory: &LinuxMemory) -> Result<(), CgroupError> {
    let limit = memory.limit.unwrap_or(0);
    let Ok(wanted @ 1..) = u64::try_from(limit) else {
        return Ok(());
    };
    if memory.check_before_update != Some(true) {
        return Ok(());
    }
    let usage = dir.number("memory.current")?.unwrap_or(0);
    if wanted < usage {
        let peak = dir.number("memory.peak")?.unwrap_or(usage);
        return Err(CgroupError::BelowUsage { limit, usage, peak });
    }
    Ok(())
}
