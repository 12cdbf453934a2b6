//! Limits and devices. Pure.

use std::collections::BTreeSet;

use proto::engine::{
    DeviceMapping, DeviceRequest, Resources, RestartPolicy, ThrottleDevice, Ulimit, WeightDevice,
};

use super::flags::ContainerFlags;
use super::values::{byte_size, comma_fields};

/// All limits that the flags set.
pub(crate) fn resources(flags: &ContainerFlags) -> Result<Resources, String> {
    if flags.memory_swappiness != -1 && !(0..=100).contains(&flags.memory_swappiness) {
        return Err(format!(
            "invalid value: {}. Valid memory swappiness range is 0-100",
            flags.memory_swappiness
        ));
    }
    let (cdi, paths): (Vec<&String>, Vec<&String>) =
        flags.device.iter().partition(|device| is_cdi_name(device));
    let mut requests = flags.gpus.clone();
    if !cdi.is_empty() {
        requests.push(DeviceRequest {
            driver: "cdi".to_string(),
            device_ids: Some(cdi.into_iter().cloned().collect()),
            ..DeviceRequest::default()
        });
    }
    Ok(Resources {
        cgroup_parent: flags.cgroup_parent.clone(),
        memory: flags.memory,
        memory_reservation: flags.memory_reservation,
        memory_swap: flags.memory_swap,
        memory_swappiness: Some(flags.memory_swappiness),
        oom_kill_disable: Some(flags.oom_kill_disable),
        nano_cpus: flags.cpus,
        cpu_count: flags.cpu_count,
        cpu_percent: flags.cpu_percent,
        cpu_shares: flags.cpu_shares,
        cpu_period: flags.cpu_period,
        cpu_quota: flags.cpu_quota,
        cpu_realtime_period: flags.cpu_rt_period,
        cpu_realtime_runtime: flags.cpu_rt_runtime,
        cpuset_cpus: flags.cpuset_cpus.clone(),
        cpuset_mems: flags.cpuset_mems.clone(),
        pids_limit: Some(flags.pids_limit),
        blkio_weight: flags.blkio_weight,
        blkio_weight_device: Some(flags.blkio_weight_device.clone()),
        blkio_device_read_bps: Some(flags.device_read_bps.clone()),
        blkio_device_write_bps: Some(flags.device_write_bps.clone()),
        blkio_device_read_iops: Some(flags.device_read_iops.clone()),
        blkio_device_write_iops: Some(flags.device_write_iops.clone()),
        io_maximum_iops: flags.io_maxiops,
        io_maximum_bandwidth: u64::try_from(flags.io_maxbandwidth).unwrap_or(0),
        ulimits: Some(flags.ulimit.clone()),
        device_cgroup_rules: (!flags.device_cgroup_rule.is_empty())
            .then(|| flags.device_cgroup_rule.clone()),
        devices: Some(
            paths
                .into_iter()
                .map(|device| device_mapping(device))
                .collect::<Result<_, _>>()?,
        ),
        device_requests: (!requests.is_empty()).then_some(requests),
    })
}

/// The capabilities to add and to drop, in full and sorted; one that is in both is added.
pub(crate) fn capabilities(add: &[String], drop: &[String]) -> (Vec<String>, Vec<String>) {
    let full = |given: &[String]| -> BTreeSet<String> {
        let names = given
            .iter()
            .map(|name| name.trim().to_uppercase())
            .filter(|name| !name.is_empty());
        let prefixed = |name: String| match name.as_str() {
            "ALL" => name,
            short if !short.starts_with("CAP_") => format!("CAP_{short}"),
            _ => name,
        };
        let all: BTreeSet<String> = names.map(prefixed).collect();
        if all.contains("ALL") {
            BTreeSet::from(["ALL".to_string()])
        } else {
            all
        }
    };
    let (add, mut drop) = (full(add), full(drop));
    drop.retain(|name| !add.contains(name));
    (add.into_iter().collect(), drop.into_iter().collect())
}

/// `no`, `always`, `unless-stopped` or `on-failure[:count]`.
pub(crate) fn restart_policy(text: &str) -> Result<RestartPolicy, String> {
    let (name, count) = text.split_once(':').unwrap_or((text, ""));
    if text.contains(':') && count.is_empty() {
        return Err(
            "invalid restart policy format: maximum retry count must be an integer".to_string(),
        );
    }
    if name.is_empty() && !text.is_empty() {
        return Err("invalid restart policy format: no policy provided before colon".to_string());
    }
    let maximum_retry_count = if count.is_empty() {
        0
    } else {
        count.parse().map_err(|_| {
            "invalid restart policy format: maximum retry count must be an integer".to_string()
        })?
    };
    Ok(RestartPolicy {
        name: name.to_string(),
        maximum_retry_count,
    })
}

/// `name=soft[:hard]`.
pub(crate) fn ulimit(text: &str) -> Result<Ulimit, String> {
    let wrong = || format!("invalid ulimit argument: {text}");
    let (name, limits) = text.split_once('=').ok_or_else(wrong)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| {
        if text == "unlimited" {
            Ok(-1)
        } else {
            text.parse::<i64>().map_err(|_| wrong())
        }
    };
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        ));
    }
    Ok(Ulimit {
        name: name.to_string(),
        hard,
        soft,
    })
}

fn device_path(text: &str) -> Result<(&str, &str), String> {
    let (path, value) = text
        .rsplit_once(':')
        .ok_or_else(|| format!("bad format: {text}"))?;
    if !path.starts_with("/dev/") {
        return Err(format!("bad format for device path: {text}"));
    }
    Ok((path, value))
}

pub(crate) fn weight_device(text: &str) -> Result<WeightDevice, String> {
    let (path, value) = device_path(text)?;
    let weight: u16 = value
        .parse()
        .map_err(|_| format!("invalid weight for device: {text}"))?;
    if weight != 0 && !(10..=1000).contains(&weight) {
        return Err(format!("invalid weight for device: {text}"));
    }
    Ok(WeightDevice {
        path: path.to_string(),
        weight,
    })
}

pub(crate) fn bps_device(text: &str) -> Result<ThrottleDevice, String> {
    let (path, value) = device_path(text)?;
    let wrong = |_| {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        )
    };
    let rate = byte_size(value).map_err(wrong)?;
    Ok(ThrottleDevice {
        path: path.to_string(),
        rate: u64::try_from(rate).unwrap_or(0),
    })
}

pub(crate) fn iops_device(text: &str) -> Result<ThrottleDevice, String> {
    let (path, value) = device_path(text)?;
    let rate = value.parse().map_err(|_| {
        format!("invalid rate for device: {text}. The correct format is <device-path>:<number>. Number must be a positive integer")
    })?;
    Ok(ThrottleDevice {
        path: path.to_string(),
        rate,
    })
}

/// `/dev/host[:/dev/container][:rwm]`.
fn device_mapping(text: &str) -> Result<DeviceMapping, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let is_mode = |text: &str| !text.is_empty() && text.chars().all(|c| "rwm".contains(c));
    let (host, container, mode) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, second] if is_mode(second) => (*host, *host, *second),
        [host, second] => (*host, *second, "rwm"),
        [host, second, mode] if is_mode(mode) => (*host, *second, *mode),
        _ => return Err(format!("invalid device specification: {text}")),
    };
    if !container.starts_with('/') {
        return Err(format!("{container} is not an absolute path"));
    }
    Ok(DeviceMapping {
        path_on_host: host.to_string(),
        path_in_container: container.to_string(),
        cgroup_permissions: mode.to_string(),
    })
}

/// `vendor/class=name`.
fn is_cdi_name(device: &str) -> bool {
    let Some((kind, name)) = device.split_once('=') else {
        return false;
    };
    matches!(kind.split_once('/'), Some((vendor, class)) if !vendor.is_empty() && !class.is_empty() && !name.is_empty())
}

/// `all`, a count, or `device=...,driver=...,capabilities=...`.
pub(crate) fn gpus(text: &str) -> Result<DeviceRequest, String> {
    let mut request = DeviceRequest {
        capabilities: Some(vec![vec!["gpu".to_string()]]),
        options: Some(Default::default()),
        ..DeviceRequest::default()
    };
    let words = |value: &str| value.split(',').map(str::to_string).collect::<Vec<_>>();
    let count = |value: &str| {
        match value {
        "all" => Ok(-1),
        number => number.parse::<i64>().map_err(|_| {
            format!("invalid count ({value}): value must be either \"all\" or an integer: invalid syntax")
        }),
    }
    };
    for field in comma_fields(text)? {
        match field.split_once('=') {
            None => request.count = count(&field)?,
            Some(("driver", value)) => request.driver = value.to_string(),
            Some(("count", value)) => request.count = count(value)?,
            Some(("device", value)) => request.device_ids = Some(words(value)),
            Some(("capabilities", value)) => {
                let mut all = words(value);
                all.push("gpu".to_string());
                request.capabilities = Some(vec![all]);
            }
            Some(("options", value)) => request.options = Some(super::env::pairs(&words(value))),
            Some((key, _)) => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if request.count == 0 && request.device_ids.is_none() {
        request.count = 1;
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_spelled_in_full() {
        let words = |list: &[&str]| list.iter().map(|word| word.to_string()).collect::<Vec<_>>();
        let (add, drop) = capabilities(
            &words(&["net_admin", "CAP_KILL"]),
            &words(&["all", "chown"]),
        );
        assert_eq!(
            (add, drop),
            (words(&["CAP_KILL", "CAP_NET_ADMIN"]), words(&["ALL"]))
        );
        assert_eq!(
            capabilities(&words(&["KILL"]), &words(&["kill"])).1,
            words(&[])
        );
    }

    #[test]
    fn restart_policies() {
        assert_eq!(
            restart_policy("on-failure:3").unwrap().maximum_retry_count,
            3
        );
        assert_eq!(restart_policy("always").unwrap().name, "always");
        assert!(restart_policy("on-failure:x").is_err());
        assert!(restart_policy(":3").is_err());
    }

    #[test]
    fn limits_of_the_process() {
        assert_eq!(
            ulimit("nofile=10:20").unwrap(),
            Ulimit {
                name: "nofile".into(),
                hard: 20,
                soft: 10
            }
        );
        assert_eq!(ulimit("core=-1").unwrap().hard, -1);
        assert!(ulimit("nofile=20:10").is_err());
        assert!(ulimit("nofile").is_err());
    }

    #[test]
    fn devices() {
        let mapping = device_mapping("/dev/a:/dev/b:r").unwrap();
        assert_eq!(
            (
                mapping.path_in_container.as_str(),
                mapping.cgroup_permissions.as_str()
            ),
            ("/dev/b", "r")
        );
        assert_eq!(
            device_mapping("/dev/a:rw").unwrap().path_in_container,
            "/dev/a"
        );
        assert!(device_mapping("/dev/a:b").is_err());
        assert!(is_cdi_name("vendor.example/gpu=0"));
        assert_eq!(bps_device("/dev/sda:1mb").unwrap().rate, 1 << 20);
        assert!(weight_device("/dev/sda:5").is_err());
        assert_eq!(gpus("all").unwrap().count, -1);
    }
}
