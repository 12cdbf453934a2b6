//! `update`: other limits for a container that runs.

use super::{CommandError, Container, Context, refuse};
use crate::args::Parsed;
use crate::error::Doing as _;
use crate::spec::LinuxResources;
use crate::spec::resources::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids};
use crate::state::Status;

pub(super) fn run(context: &Context, parsed: &Parsed) -> Result<(), CommandError> {
    let container = context.container(parsed)?;
    let limits = match parsed.value("resources") {
        Some(file) => from_file(file)?,
        None => from_options(parsed)?,
    };
    if container.status() == Status::Stopped {
        return refuse("container not running");
    }
    container.cgroup()?.update(&limits)?;
    update_schemata(&container, parsed)
}

/// Cache and memory bandwidth, for a container that was made with a group.
fn update_schemata(container: &Container, parsed: &Parsed) -> Result<(), CommandError> {
    let lines: Vec<String> = ["l3-cache-schema", "mem-bw-schema"]
        .iter()
        .filter_map(|name| text(parsed, name))
        .collect();
    if lines.is_empty() {
        return Ok(());
    }
    match &container.state.resctrl {
        Some(group) => Ok(group.trusted()?.set(&lines)?),
        None => refuse("Intel RDT: the container has no resource control group (intelRdt)"),
    }
}

fn from_file(file: &str) -> Result<LinuxResources, CommandError> {
    let text = crate::files::read_named(file).doing(|| format!("read resources from {file}"))?;
    let mut limits: LinuxResources = serde_json::from_slice(&text)
        .map_err(std::io::Error::from)
        .doing(|| format!("parse resources from {file}"))?;
    // Device rules are set once.
    limits.devices.clear();
    Ok(limits)
}

pub(crate) fn from_options(parsed: &Parsed) -> Result<LinuxResources, CommandError> {
    let mut cpu = LinuxCpu {
        shares: parsed.number("cpu-share")?,
        quota: parsed.number("cpu-quota")?,
        burst: parsed.number("cpu-burst")?,
        period: parsed.number("cpu-period")?,
        realtime_runtime: parsed.number("cpu-rt-runtime")?,
        realtime_period: parsed.number("cpu-rt-period")?,
        cpus: text(parsed, "cpuset-cpus"),
        mems: text(parsed, "cpuset-mems"),
        idle: parsed.number("cpu-idle")?,
    };
    // Zero is how callers say "as it is".
    cpu.shares = cpu.shares.filter(|n| *n != 0);
    cpu.period = cpu.period.filter(|n| *n != 0);
    cpu.quota = cpu.quota.filter(|n| *n != 0);
    cpu.realtime_period = cpu.realtime_period.filter(|n| *n != 0);
    cpu.realtime_runtime = cpu.realtime_runtime.filter(|n| *n != 0);
    let memory = LinuxMemory {
        limit: bytes(parsed, "memory")?,
        reservation: bytes(parsed, "memory-reservation")?,
        swap: bytes(parsed, "memory-swap")?,
        ..LinuxMemory::default()
    };
    let weight = parsed.number::<u16>("blkio-weight")?.filter(|n| *n != 0);
    let pids = parsed.number::<i64>("pids-limit")?.filter(|n| *n != 0);
    Ok(LinuxResources {
        cpu: (cpu != LinuxCpu::default()).then_some(cpu),
        memory: (memory != LinuxMemory::default()).then_some(memory),
        block_io: weight.map(|weight| LinuxBlockIo {
            weight: Some(weight),
            ..LinuxBlockIo::default()
        }),
        pids: pids.map(|limit| LinuxPids { limit: Some(limit) }),
        ..LinuxResources::default()
    })
}

fn text(parsed: &Parsed, name: &str) -> Option<String> {
    parsed
        .value(name)
        .filter(|v| !v.is_empty())
        .map(str::to_owned)
}

/// A size as `100m`, `2GiB` or a number; -1 for no limit.
fn bytes(parsed: &Parsed, name: &str) -> Result<Option<i64>, CommandError> {
    let Some(value) = parsed.value(name).filter(|v| !v.is_empty()) else {
        return Ok(None);
    };
    match size(value) {
        Some(size) => Ok(Some(size).filter(|n| *n != 0)),
        None => refuse(format!("invalid value for {name}: invalid size: '{value}'")),
    }
}

fn size(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let unit = text[end..].trim().to_ascii_lowercase();
    let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    let size = number * f64::from(2_u32).powi(shift);
    (size < 9e18).then_some(size as i64)
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("100", 100),
            ("1k", 1024),
            ("1.5M", 1_572_864),
            ("2GiB", 2 << 30),
            ("-1", -1),
            ("64mb", 64 << 20),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for bad in ["", "x", "-2", "1z", "9999999p"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }
}
