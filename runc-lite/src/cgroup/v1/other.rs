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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::spec::resources::LinuxNetwork;

    /// Hierarchies that few machines have, as plain directories.
    fn fake(root: &Path, files: &[(&str, &str)]) -> V1 {
        for (controller, file) in files {
            let dir = root.join(controller);
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join(file), "").unwrap();
        }
        let paths = files.iter().map(|(c, _)| ((*c).to_owned(), root.join(c)));
        V1::load(&paths.collect())
    }

    #[test]
    fn huge_pages_network_and_rdma_land_in_their_files() {
        let root = tempfile::tempdir().unwrap();
        let files = [
            ("hugetlb", "hugetlb.2MB.limit_in_bytes"),
            ("net_cls", "net_cls.classid"),
            ("net_prio", "net_prio.ifpriomap"),
            ("rdma", "rdma.max"),
        ];
        let v1 = fake(root.path(), &files);
        let json = serde_json::json!({
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4096}],
            "network": {"classID": 7, "priorities": [{"name": "eth0", "priority": 5}]},
            "rdma": {"mlx": {"hcaHandles": 2, "hcaObjects": 3}},
        });
        let limits: LinuxResources = serde_json::from_value(json).unwrap();
        set(&v1, &limits).unwrap();
        let all = files.map(|(controller, file)| {
            std::fs::read_to_string(root.path().join(controller).join(file)).unwrap()
        });
        let wanted = ["4096", "7", "eth0 5", "mlx hca_handle=2 hca_object=3"];
        assert_eq!(all, wanted);
    }

    #[test]
    fn what_is_absent_is_named() {
        let root = tempfile::tempdir().unwrap();
        let v1 = fake(root.path(), &[]);
        let limits = LinuxResources {
            network: Some(LinuxNetwork {
                class_id: Some(1),
                priorities: Vec::new(),
            }),
            ..LinuxResources::default()
        };
        let told = set(&v1, &limits).unwrap_err().to_string();
        assert!(told.contains("linux.resources.network.classID"), "{told}");
    }
}
