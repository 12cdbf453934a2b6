//! Limits as properties of a unit, so that systemd knows of them and does not
//! undo them when it writes a unit's files again.
//!
//! What systemd has no property for (huge pages, RDMA, most of `unified`) and
//! what it rounds (quotas, to a hundredth of a processor) is written to the files
//! afterwards; the files have the last word.

use super::super::CgroupError;
use super::super::devices::{Device, DeviceSet, Kind};
use super::super::dir::Dir;
use super::super::stats::number_list;
use super::super::v2::{cpu, io, memory};
use super::wire::{Property, Value};
use crate::spec::resources::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

/// systemd's word for no limit.
const INFINITY: u64 = u64::MAX;
const SECOND: u64 = 1_000_000;
/// systemd keeps whole hundredths of a processor.
const HUNDREDTH: u64 = SECOND / 100;

/// The properties that stand for limits. `dir` is the group they will land in,
/// for what can only be told from what is in force; `unified` says which
/// kernel interface systemd uses.
pub(super) fn of_limits(
    limits: &LinuxResources,
    dir: &Dir,
    unified: bool,
) -> Result<Vec<Property>, CgroupError> {
    let mut out = Properties::default();
    if let Some(m) = &limits.memory {
        if unified {
            out.memory(m, dir)?;
        } else if let Some(n) = m.limit.filter(|n| *n != 0) {
            out.number("MemoryLimit", limit(n));
        }
    }
    if let Some(c) = &limits.cpu {
        out.cpu(c, dir, unified)?;
    }
    if let Some(n) = limits.pids.as_ref().and_then(|p| p.limit) {
        // As the file gets it: nothing at all cannot be had, a negative number is no limit.
        out.number("TasksMax", if n == 0 { 1 } else { limit(n) });
    }
    if let Some(b) = &limits.block_io {
        out.block_io(b, unified);
    }
    if unified {
        for (file, value) in &limits.unified {
            out.unified(file, value.trim());
        }
    }
    Ok(out.0)
}

/// The properties for the device rules. systemd would put its own program back
/// on a reload, so it must say the same as ours.
pub(super) fn of_devices(limits: &LinuxResources) -> Result<Vec<Property>, CgroupError> {
    let set = DeviceSet::of_container(&limits.devices)?;
    // A list of refusals cannot be told to systemd; our own program has them.
    let (policy, list) = if set.allow_by_default {
        ("auto", Vec::new())
    } else {
        let list = set.exceptions.iter();
        let list = list.filter_map(|(d, a)| Some((device(d)?, a.to_string())));
        ("strict", list.collect())
    };
    Ok(vec![
        ("DevicePolicy".to_owned(), Value::Text(policy.to_owned())),
        ("DeviceAllow".to_owned(), Value::Pairs(list)),
    ])
}

/// A device as `DeviceAllow` names it; nothing for a minor number of every major.
fn device(device: &Device) -> Option<String> {
    let kind = match device.kind {
        Kind::Block => "block",
        Kind::Char => "char",
    };
    match (device.major, device.minor) {
        (Some(major), Some(minor)) => Some(format!("/dev/{kind}/{major}:{minor}")),
        (Some(major), None) => Some(format!("{kind}-{major}")),
        (None, None) => Some(format!("{kind}-*")),
        (None, Some(_)) => None,
    }
}

fn limit(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(INFINITY)
}

#[derive(Default)]
struct Properties(Vec<Property>);

impl Properties {
    fn push(&mut self, name: &str, value: Value) {
        // A name given twice is taken once, the later value.
        self.0.retain(|(n, _)| n != name);
        self.0.push((name.to_owned(), value));
    }

    fn number(&mut self, name: &str, n: u64) {
        self.push(name, Value::U64(n));
    }

    fn memory(&mut self, m: &LinuxMemory, dir: &Dir) -> Result<(), CgroupError> {
        if let Some(n) = m.limit.filter(|n| *n != 0) {
            self.number("MemoryMax", limit(n));
        }
        if let Some(n) = memory::swap(dir, m)? {
            self.number("MemorySwapMax", limit(n));
        }
        if let Some(n) = m.reservation.filter(|n| *n != 0) {
            self.number("MemoryLow", limit(n));
        }
        Ok(())
    }

    fn cpu(&mut self, c: &LinuxCpu, dir: &Dir, unified: bool) -> Result<(), CgroupError> {
        match (c.idle, c.shares.filter(|n| *n != 0)) {
            // A weight of nothing is how systemd spells idle.
            (Some(1), _) if unified => self.number("CPUWeight", 0),
            (_, Some(n)) if unified => self.number("CPUWeight", cpu::weight(n)),
            (_, Some(n)) => self.number("CPUShares", n),
            _ => {}
        }
        if let Some((quota, period)) = cpu::bandwidth(dir, c)? {
            self.quota(quota, period);
        }
        for (list, name) in [(&c.cpus, "AllowedCPUs"), (&c.mems, "AllowedMemoryNodes")] {
            // On v1 systemd leaves cpusets alone.
            if let Some(list) = list.as_ref().filter(|l| unified && !l.is_empty()) {
                self.push(name, Value::Bytes(bits(list)));
            }
        }
        Ok(())
    }

    fn quota(&mut self, quota: Option<u64>, period: u64) {
        let per_second = match (quota, period) {
            (Some(quota), 1..) => {
                let exact = u128::from(quota) * u128::from(SECOND) / u128::from(period);
                let exact = u64::try_from(exact).unwrap_or(INFINITY - HUNDREDTH);
                // Upwards: groups below may be promised the whole of it.
                exact.div_ceil(HUNDREDTH).saturating_mul(HUNDREDTH)
            }
            _ => INFINITY,
        };
        self.number("CPUQuotaPerSecUSec", per_second);
        self.number("CPUQuotaPeriodUSec", period);
    }

    fn block_io(&mut self, b: &LinuxBlockIo, unified: bool) {
        let path = |major, minor| format!("/dev/block/{major}:{minor}");
        let (weight, device_weight, read, write) = if unified {
            (
                "IOWeight",
                "IODeviceWeight",
                "IOReadBandwidthMax",
                "IOWriteBandwidthMax",
            )
        } else {
            (
                "BlockIOWeight",
                "BlockIODeviceWeight",
                "BlockIOReadBandwidth",
                "BlockIOWriteBandwidth",
            )
        };
        let scale = |w: u16| {
            if unified {
                io::general_weight(w)
            } else {
                u64::from(w)
            }
        };
        if let Some(w) = b.weight.filter(|w| *w != 0) {
            self.number(weight, scale(w));
        }
        let weights = b.weight_device.iter();
        let weights = weights.filter_map(|d| Some((path(d.major, d.minor), scale(d.weight?))));
        self.rates(device_weight, weights.collect());
        for (name, list) in [
            (read, &b.throttle_read_bps_device),
            (write, &b.throttle_write_bps_device),
            ("IOReadIOPSMax", &b.throttle_read_iops_device),
            ("IOWriteIOPSMax", &b.throttle_write_iops_device),
        ] {
            if unified || name.starts_with("Block") {
                let rate = |n| if n == 0 { INFINITY } else { n };
                let rates = list.iter().map(|d| (path(d.major, d.minor), rate(d.rate)));
                self.rates(name, rates.collect());
            }
        }
    }

    fn rates(&mut self, name: &str, rates: Vec<(String, u64)>) {
        if !rates.is_empty() {
            self.push(name, Value::Rates(rates));
        }
    }

    /// Files of `unified` that have a property. A value that is no number is left
    /// to the kernel to refuse.
    fn unified(&mut self, file: &str, value: &str) {
        let number = match value {
            "max" => Some(INFINITY),
            n => n.parse().ok(),
        };
        let name = match file {
            "cpu.weight" => "CPUWeight",
            "memory.high" => "MemoryHigh",
            "memory.low" => "MemoryLow",
            "memory.max" => "MemoryMax",
            "memory.min" => "MemoryMin",
            "memory.swap.max" => "MemorySwapMax",
            "pids.max" => "TasksMax",
            "cpu.idle" if value == "1" => return self.number("CPUWeight", 0),
            "cpuset.cpus" => return self.push("AllowedCPUs", Value::Bytes(bits(value))),
            "cpuset.mems" => return self.push("AllowedMemoryNodes", Value::Bytes(bits(value))),
            "cpu.max" => {
                let mut words = value.split_whitespace();
                let quota = words.next().and_then(|q| q.parse().ok());
                let period = words
                    .next()
                    .map_or(Some(cpu::DEFAULT_PERIOD), |p| p.parse().ok());
                if let Some(period) = period {
                    self.quota(quota, period);
                }
                return;
            }
            "memory.oom.group" => {
                let policy = if value == "1" { "kill" } else { "continue" };
                return self.push("OOMPolicy", Value::Text(policy.to_owned()));
            }
            _ => return,
        };
        if let Some(n) = number {
            self.number(name, n);
        }
    }
}

/// A list of numbers and ranges as a bit for each.
fn bits(list: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for n in number_list(list) {
        let byte = usize::from(n / 8);
        if out.len() <= byte {
            out.resize(byte + 1, 0);
        }
        out[byte] |= 1 << (n % 8);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::resources::{LinuxDeviceCgroup, LinuxPids, LinuxThrottleDevice};

    fn properties(limits: &LinuxResources, unified: bool) -> Vec<(String, Value)> {
        of_limits(limits, &Dir::new("/nonexistent"), unified).unwrap()
    }

    #[test]
    fn limits_become_properties() {
        let limits = LinuxResources {
            memory: Some(LinuxMemory {
                limit: Some(100),
                swap: Some(150),
                reservation: Some(-1),
                ..LinuxMemory::default()
            }),
            cpu: Some(LinuxCpu {
                shares: Some(1024),
                // 0.3333 of a processor, told as 0.34.
                quota: Some(33_333),
                cpus: Some("0-1,9".into()),
                ..LinuxCpu::default()
            }),
            pids: Some(LinuxPids { limit: Some(0) }),
            block_io: Some(LinuxBlockIo {
                weight: Some(1000),
                throttle_write_bps_device: vec![LinuxThrottleDevice {
                    major: 8,
                    minor: 0,
                    rate: 7,
                }],
                ..LinuxBlockIo::default()
            }),
            unified: [("memory.high".to_owned(), "max".to_owned())].into(),
            ..LinuxResources::default()
        };
        let number = |name: &str, n| (name.to_owned(), Value::U64(n));
        let rate = vec![("/dev/block/8:0".to_owned(), 7)];
        assert_eq!(
            properties(&limits, true),
            [
                number("MemoryMax", 100),
                number("MemorySwapMax", 50),
                number("MemoryLow", INFINITY),
                number("CPUWeight", 100),
                number("CPUQuotaPerSecUSec", 340_000),
                number("CPUQuotaPeriodUSec", 100_000),
                ("AllowedCPUs".to_owned(), Value::Bytes(vec![3, 2])),
                number("TasksMax", 1),
                number("IOWeight", 10_000),
                ("IOWriteBandwidthMax".to_owned(), Value::Rates(rate.clone())),
                number("MemoryHigh", INFINITY),
            ]
        );
        let old = properties(&limits, false);
        assert!(
            old.contains(&number("MemoryLimit", 100)) && old.contains(&number("CPUShares", 1024))
        );
        assert!(old.contains(&("BlockIOWriteBandwidth".to_owned(), Value::Rates(rate))));
    }

    #[test]
    fn an_idle_group_has_no_weight() {
        let limits = LinuxResources {
            cpu: Some(LinuxCpu {
                idle: Some(1),
                shares: Some(2048),
                ..LinuxCpu::default()
            }),
            ..LinuxResources::default()
        };
        assert_eq!(
            properties(&limits, true),
            [("CPUWeight".to_owned(), Value::U64(0))]
        );
    }

    #[test]
    fn devices_are_named_as_systemd_names_them() {
        let limits = LinuxResources {
            devices: vec![LinuxDeviceCgroup {
                allow: true,
                kind: Some("b".into()),
                major: Some(8),
                minor: Some(-1),
                access: Some("r".into()),
            }],
            ..LinuxResources::default()
        };
        let properties = of_devices(&limits).unwrap();
        assert_eq!(properties[0].1, Value::Text("strict".into()));
        let Value::Pairs(list) = &properties[1].1 else {
            panic!("{properties:?}")
        };
        for wanted in [
            ("block-8", "r"),
            ("char-136", "rwm"),
            ("/dev/char/1:3", "rwm"),
            ("block-*", "m"),
        ] {
            assert!(
                list.contains(&(wanted.0.into(), wanted.1.into())),
                "{wanted:?}"
            );
        }
    }
}
