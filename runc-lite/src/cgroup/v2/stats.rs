//! Usage figures on v2, put into the shape that v1 gave them.

use super::super::CgroupError;
use super::super::dir::Dir;
use super::super::stats::{
    Blkio, BlkioEntry, Hugetlb, Pressure, Stats, Waited, flat_keyed, page_sizes,
};

/// Reads all controllers; one that is missing leaves zeros.
pub(super) fn read(dir: &Dir) -> Result<Stats, CgroupError> {
    let mut stats = Stats::default();
    let keyed = |file: &str| {
        Ok::<_, CgroupError>(
            dir.read_if_there(file)?
                .map(|t| flat_keyed(&t))
                .unwrap_or_default(),
        )
    };
    let cpu = keyed("cpu.stat")?;
    let nanos = |key: &str| cpu.get(key).copied().unwrap_or(0).saturating_mul(1000);
    stats.cpu.usage.total = nanos("usage_usec");
    stats.cpu.usage.user = nanos("user_usec");
    stats.cpu.usage.kernel = nanos("system_usec");
    stats.cpu.throttling.periods = cpu.get("nr_periods").copied().unwrap_or(0);
    stats.cpu.throttling.throttled_periods = cpu.get("nr_throttled").copied().unwrap_or(0);
    stats.cpu.throttling.throttled_time = nanos("throttled_usec");
    memory(dir, &mut stats)?;
    stats.pids.current = dir.number("pids.current")?.unwrap_or(0);
    stats.pids.limit = dir.number("pids.max")?.unwrap_or(0);
    stats.blkio = io(&dir.read_if_there("io.stat")?.unwrap_or_default());
    stats.cpu.psi = pressure(dir, "cpu")?;
    stats.memory.psi = pressure(dir, "memory")?;
    stats.blkio.psi = pressure(dir, "io")?;
    for size in page_sizes() {
        if let Some(usage) = dir.number(&format!("hugetlb.{size}.current"))? {
            let events = keyed(&format!("hugetlb.{size}.events"))?;
            let failcnt = events.get("max").copied().unwrap_or(0);
            stats.hugetlb.insert(
                size,
                Hugetlb {
                    usage,
                    max: 0,
                    failcnt,
                },
            );
        }
    }
    Ok(stats)
}

fn memory(dir: &Dir, stats: &mut Stats) -> Result<(), CgroupError> {
    let memory = &mut stats.memory;
    memory.raw = dir
        .read_if_there("memory.stat")?
        .map(|t| flat_keyed(&t))
        .unwrap_or_default();
    memory.cache = memory.raw.get("file").copied().unwrap_or(0);
    let events = dir
        .read_if_there("memory.events")?
        .map(|t| flat_keyed(&t))
        .unwrap_or_default();
    memory.usage.usage = dir.number("memory.current")?.unwrap_or(0);
    memory.usage.limit = dir.number("memory.max")?.unwrap_or(u64::MAX);
    memory.usage.max = dir.number("memory.peak")?.unwrap_or(0);
    memory.usage.failcnt = events.get("max").copied().unwrap_or(0);
    // Callers know the second figure as memory and swap together.
    memory.swap.usage = dir.number("memory.swap.current")?.unwrap_or(0) + memory.usage.usage;
    let swap_limit = dir.number("memory.swap.max")?.unwrap_or(u64::MAX);
    memory.swap.limit = swap_limit.saturating_add(memory.usage.limit);
    Ok(())
}

/// Nothing where the kernel was started without it: the file is not there, or cannot
/// be read.
fn pressure(dir: &Dir, of: &str) -> Result<Option<Pressure>, CgroupError> {
    match dir.read_if_there(&format!("{of}.pressure")) {
        Err(e) if e.errno() == Some(libc::EOPNOTSUPP) => Ok(None),
        other => Ok(other?.map(|text| waited(&text))),
    }
}

/// Lines of `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`.
fn waited(text: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let into: &mut Waited = match words.next() {
            Some("some") => &mut pressure.some,
            Some("full") => &mut pressure.full,
            _ => continue,
        };
        for (key, value) in words.filter_map(|w| w.split_once('=')) {
            let share = || value.parse().unwrap_or(0.0);
            match key {
                "avg10" => into.avg10 = share(),
                "avg60" => into.avg60 = share(),
                "avg300" => into.avg300 = share(),
                "total" => into.total = value.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
    pressure
}

/// Lines of `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`.
fn io(text: &str) -> Blkio {
    let mut blkio = Blkio::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(|d| d.split_once(':')) else {
            continue;
        };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else {
            continue;
        };
        for (key, value) in words.filter_map(|w| w.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut blkio.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut blkio.io_service_bytes_recursive, "Write"),
                "dbytes" => (&mut blkio.io_service_bytes_recursive, "Discard"),
                "rios" => (&mut blkio.io_serviced_recursive, "Read"),
                "wios" => (&mut blkio.io_serviced_recursive, "Write"),
                "dios" => (&mut blkio.io_serviced_recursive, "Discard"),
                _ => continue,
            };
            let Ok(value) = value.parse() else { continue };
            list.push(BlkioEntry {
                major,
                minor,
                op: op.to_owned(),
                value,
            });
        }
    }
    blkio
}

#[cfg(test)]
mod tests {
    #[test]
    fn pressure_has_two_lines() {
        let text =
            "some avg10=1.50 avg60=0.25 avg300=0.00 total=77\nfull avg10=0.00 total=x\nnew 1\n";
        let told = serde_json::to_value(super::waited(text)).unwrap();
        let none = serde_json::json!({"avg10": 0.0, "avg60": 0.0, "avg300": 0.0, "total": 0});
        let some = serde_json::json!({"avg10": 1.5, "avg60": 0.25, "avg300": 0.0, "total": 77});
        assert_eq!(told, serde_json::json!({"some": some, "full": none}));
    }

    #[test]
    fn device_lines_become_entries() {
        let io = super::io("8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\nbroken\n");
        assert_eq!(io.io_service_bytes_recursive.len(), 3);
        assert_eq!(
            (
                io.io_serviced_recursive[1].minor,
                io.io_serviced_recursive[1].value
            ),
            (16, 4)
        );
    }
}
