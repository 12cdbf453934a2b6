//! Huge pages, RDMA, and files named by the specification itself.

use super::super::CgroupError;
use super::super::dir::Dir;
use super::super::v1::other::{page_size, rdma_line};
use crate::spec::resources::LinuxResources;

/// Sets whatever is given. `unified` comes last: it is the most exact.
pub(super) fn set(dir: &Dir, limits: &LinuxResources) -> Result<(), CgroupError> {
    for limit in &limits.hugepage_limits {
        let size = page_size(limit)?;
        let value = limit.limit.to_string();
        dir.set(
            "linux.resources.hugepageLimits",
            &format!("hugetlb.{size}.max"),
            &value,
        )?;
        // Reserved pages count too, where the kernel can count them.
        dir.write_if_there(&format!("hugetlb.{size}.rsvd.max"), &value)?;
    }
    if let Some(network) = &limits.network
        && (network.class_id.is_some_and(|c| c != 0) || !network.priorities.is_empty())
    {
        return Err(CgroupError::unavailable(
            "linux.resources.network",
            "a network controller on cgroup v2",
        ));
    }
    for (device, limit) in &limits.rdma {
        dir.set(
            "linux.resources.rdma",
            "rdma.max",
            &rdma_line(device, limit),
        )?;
    }
    for (file, value) in &limits.unified {
        set_unified(dir, file, value)?;
    }
    Ok(())
}

fn set_unified(dir: &Dir, file: &str, value: &str) -> Result<(), CgroupError> {
    const FIELD: &str = "linux.resources.unified";
    // The name comes from outside and must stay inside the directory. Files of the
    // core itself move processes and freeze, which is not a limit.
    let is_name = !file.is_empty() && !file.contains(['/', '\0']) && !file.starts_with('.');
    if !is_name || !file.contains('.') {
        return Err(CgroupError::invalid(
            FIELD,
            format!("{file:?} is not the name of a controller's file"),
        ));
    }
    if matches!(file, "cgroup.procs" | "cgroup.threads" | "cgroup.kill") {
        return Err(CgroupError::invalid(
            FIELD,
            format!("{file:?} is not a limit"),
        ));
    }
    // Files with a line per device take one line per write.
    value
        .lines()
        .try_for_each(|line| dir.set(FIELD, file, line))
}
