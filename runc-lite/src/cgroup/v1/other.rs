//! Controllers of one or two files each: huge pages, network class and
//! priorities, RDMA.

use super::super::CgroupError;
use super::V1;
use crate::spec::resources::{LinuxHugepageLimit, LinuxRdma, LinuxResources};

/// Sets whatever is given.
pub(super) fn set(v1: &V1, limits: &LinuxResources) -> Result<(), CgroupError> {
    for limit in &limits.hugepage_limits {
        const FIELD: &str = "linux.resources.hugepageLimits";
        let dir = v1.need("hugetlb", FIELD)?;
        let size = page_size(limit)?;
        dir.set(
            FIELD,
            &format!("hugetlb.{size}.limit_in_bytes"),
            &limit.limit.to_string(),
        )?;
        // Reserved pages count too, where the kernel can count them.
        dir.write_if_there(
            &format!("hugetlb.{size}.rsvd.limit_in_bytes"),
            &limit.limit.to_string(),
        )?;
    }
    if let Some(network) = &limits.network {
        if let Some(class) = network.class_id.filter(|&c| c != 0) {
            const FIELD: &str = "linux.resources.network.classID";
            v1.need("net_cls", FIELD)?
                .set(FIELD, "net_cls.classid", &class.to_string())?;
        }
        for p in &network.priorities {
            const FIELD: &str = "linux.resources.network.priorities";
            v1.need("net_prio", FIELD)?.set(
                FIELD,
                "net_prio.ifpriomap",
                &format!("{} {}", p.name, p.priority),
            )?;
        }
    }
    for (device, limit) in &limits.rdma {
        const FIELD: &str = "linux.resources.rdma";
        v1.need("rdma", FIELD)?
            .set(FIELD, "rdma.max", &rdma_line(device, limit))?;
    }
    Ok(())
}

/// A page size that can be part of a file name.
pub(in super::super) fn page_size(limit: &LinuxHugepageLimit) -> Result<&str, CgroupError> {
    let size = limit.page_size.as_str();
    let digits = size.len() - size.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    if digits > 0 && matches!(&size[digits..], "KB" | "MB" | "GB") {
        return Ok(size);
    }
    Err(CgroupError::invalid(
        "linux.resources.hugepageLimits",
        format!("page size {size:?} is not like 2MB"),
    ))
}

/// A line of rdma.max.
pub(in super::super) fn rdma_line(device: &str, limit: &LinuxRdma) -> String {
    let mut line = device.to_owned();
    for (name, value) in [
        ("hca_handle", limit.hca_handles),
        ("hca_object", limit.hca_objects),
    ] {
        if let Some(value) = value {
            line.push_str(&format!(" {name}={value}"));
        }
    }
    line
}
