//! Memory on v2, where swap is counted by itself: the specification's limit of
//! memory and swap together is translated.

use super::super::CgroupError;
use super::super::dir::Dir;
use crate::spec::resources::LinuxMemory;

/// Sets whatever is given. Swappiness, kernel memory and the OOM killer switch
/// have no counterpart; runtimes have always passed over them here, and so
/// does this one.
pub(super) fn set(dir: &Dir, memory: &LinuxMemory) -> Result<(), CgroupError> {
    let limit = memory.limit.filter(|&n| n != 0);
    if memory.check_before_update == Some(true) {
        check_usage(dir, limit.unwrap_or(0))?;
    }
    let swap = memory
        .swap
        .filter(|&n| n != 0)
        .or((limit == Some(-1)).then_some(-1));
    if let Some(swap) = swap {
        let value = swap_alone(dir, swap, limit)?;
        match dir.set(
            "linux.resources.memory.swap",
            "memory.swap.max",
            &line(value),
        ) {
            // Without swap accounting there is no file, and no limit is no limit.
            Err(CgroupError::Unavailable { .. }) if value == -1 => {}
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

/// The swap part of a limit of memory and swap together.
fn swap_alone(dir: &Dir, swap: i64, limit: Option<i64>) -> Result<i64, CgroupError> {
    const FIELD: &str = "linux.resources.memory.swap";
    if swap < 0 {
        return Ok(-1);
    }
    let limit = match limit {
        Some(limit) => limit,
        // An update of swap alone is meant against the limit in force.
        None => dir
            .number("memory.max")?
            .and_then(|n| i64::try_from(n).ok())
            .unwrap_or(-1),
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
    Ok(swap - limit)
}

fn line(n: i64) -> String {
    if n < 0 {
        "max".to_owned()
    } else {
        n.to_string()
    }
}

fn check_usage(dir: &Dir, limit: i64) -> Result<(), CgroupError> {
    let Ok(wanted @ 1..) = u64::try_from(limit) else {
        return Ok(());
    };
    let usage = dir.number("memory.current")?.unwrap_or(0);
    if wanted < usage {
        let peak = dir.number("memory.peak")?.unwrap_or(usage);
        return Err(CgroupError::BelowUsage { limit, usage, peak });
    }
    Ok(())
}
