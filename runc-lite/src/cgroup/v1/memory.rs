//! Memory on v1. The kernel keeps `limit <= memory+swap limit` at every moment,
//! so of the two the one that moves out of the other's way goes first.

use super::super::CgroupError;
use super::super::dir::Dir;
use super::V1;
use crate::spec::resources::LinuxMemory;

const LIMIT: &str = "memory.limit_in_bytes";
const SWAP: &str = "memory.memsw.limit_in_bytes";

/// Sets whatever is given.
pub(super) fn set(v1: &V1, memory: &LinuxMemory) -> Result<(), CgroupError> {
    if *memory == LinuxMemory::default() {
        return Ok(());
    }
    let dir = v1.need("memory", "linux.resources.memory")?;
    let limit = memory.limit.filter(|&n| n != 0);
    if memory.check_before_update == Some(true) {
        check_usage(dir, limit.unwrap_or(0))?;
    }
    // Unlimited memory within limited swap is not a thing.
    let swap = memory
        .swap
        .filter(|&n| n != 0)
        .or((limit == Some(-1)).then_some(-1));
    set_limits(dir, limit, swap)?;
    if let Some(reservation) = memory.reservation.filter(|&n| n != 0) {
        dir.set(
            "linux.resources.memory.reservation",
            "memory.soft_limit_in_bytes",
            &reservation.to_string(),
        )?;
    }
    for (given, field) in [(memory.kernel, "kernel"), (memory.kernel_tcp, "kernelTCP")] {
        if given.is_some_and(|n| n > 0) {
            crate::log::warn(&format!(
                "linux.resources.memory.{field} has no effect: no kernel enforces it any more"
            ));
        }
    }
    if memory.disable_oom_killer == Some(true) {
        dir.set(
            "linux.resources.memory.disableOOMKiller",
            "memory.oom_control",
            "1",
        )?;
    }
    match memory.swappiness {
        None | Some(u64::MAX) => Ok(()),
        Some(n @ 0..=100) => dir.set(
            "linux.resources.memory.swappiness",
            "memory.swappiness",
            &n.to_string(),
        ),
        Some(n) => Err(CgroupError::invalid(
            "linux.resources.memory.swappiness",
            format!("{n} is not between 0 and 100"),
        )),
    }
}

fn set_limits(dir: &Dir, limit: Option<i64>, swap: Option<i64>) -> Result<(), CgroupError> {
    let (Some(limit), Some(swap)) = (limit, swap) else {
        if let Some(limit) = limit {
            set_limit(dir, limit)?;
        }
        return swap.map_or(Ok(()), |swap| set_swap(dir, swap));
    };
    if swap >= 0 && limit > swap {
        return Err(CgroupError::invalid(
            "linux.resources.memory.swap",
            format!("memory+swap limit {swap} is below the memory limit {limit}"),
        ));
    }
    // From here: does the new limit fit under the old memory+swap?
    let old_swap = dir.number(SWAP)?.unwrap_or(u64::MAX);
    let fits = u64::try_from(limit).is_ok_and(|l| l <= old_swap);
    if swap == -1 || !fits {
        set_swap(dir, swap)?;
        set_limit(dir, limit)
    } else {
        set_limit(dir, limit)?;
        set_swap(dir, swap)
    }
}

fn set_limit(dir: &Dir, limit: i64) -> Result<(), CgroupError> {
    match dir.set("linux.resources.memory.limit", LIMIT, &limit.to_string()) {
        // Not even by swapping out could the kernel bring the usage below.
        Err(e) if e.errno() == Some(libc::EBUSY) => {
            let usage = dir.number("memory.usage_in_bytes")?.unwrap_or(0);
            let peak = dir.number("memory.max_usage_in_bytes")?.unwrap_or(0);
            Err(CgroupError::BelowUsage { limit, usage, peak })
        }
        other => other,
    }
}

fn set_swap(dir: &Dir, swap: i64) -> Result<(), CgroupError> {
    // Without swap accounting there is no file, and no limit is no limit.
    match dir.set("linux.resources.memory.swap", SWAP, &swap.to_string()) {
        Err(CgroupError::Unavailable { .. }) if swap == -1 => Ok(()),
        other => other,
    }
}

fn check_usage(dir: &Dir, limit: i64) -> Result<(), CgroupError> {
    let Ok(wanted) = u64::try_from(limit) else {
        return Ok(());
    };
    if wanted == 0 {
        return Ok(());
    }
    let usage = dir.number("memory.usage_in_bytes")?.unwrap_or(0);
    if wanted < usage {
        let peak = dir.number("memory.max_usage_in_bytes")?.unwrap_or(0);
        return Err(CgroupError::BelowUsage { limit, usage, peak });
    }
    Ok(())
}
