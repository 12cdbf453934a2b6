//! Limits, from the user's flags down to the kernel: what runc-lite wrote is read back by another program's eyes, the
//! crate cgroups-rs, at the place where the container's init is.

use anyhow::{Context as _, Result, ensure};
use cgroups_rs::fs::cgroup::get_cgroups_relative_paths_by_pid;
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::cpuset::CpuSetController;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;
use cgroups_rs::fs::{Cgroup, MaxValue, hierarchies};
use integration::images;
use integration::stack::Stack;

/// The cgroup of a process, under whichever version the host has.
fn cgroup(pid: u32) -> Result<Cgroup> {
    let places = get_cgroups_relative_paths_by_pid(pid)?;
    if hierarchies::is_cgroup2_unified_mode() {
        let place = places
            .get("")
            .context("no place in the unified hierarchy")?;
        return Ok(Cgroup::load(
            Box::new(hierarchies::V2::new()),
            place.trim_start_matches('/'),
        ));
    }
    for controller in ["memory", "cpu", "cpuset", "pids"] {
        let place = places.get(controller).map_or("/", String::as_str);
        ensure!(
            place != "/",
            "the container has no place of its own under {controller}"
        );
    }
    let hierarchy = Box::new(hierarchies::V1::new());
    Ok(Cgroup::load_with_relative_paths(hierarchy, ".", places))
}

#[test]
fn an_independent_reader_finds_the_limits_that_were_asked_for() -> Result<()> {
    let stack = Stack::start()?;
    images::busybox(&stack)?;
    let flags = [
        "-m",
        "64m",
        "--memory-swap",
        "64m",
        "--pids-limit",
        "33",
        "--cpus",
        "0.5",
        "--cpuset-cpus",
        "0",
    ];
    let run = ["run", "-d"]
        .iter()
        .chain(&flags)
        .chain(&["busybox", "sleep", "1000"]);
    let id = stack.lite(run)?.exits(0)?.stdout;
    let id = id.trim();
    let pid = stack
        .lite(["inspect", "-f", "{{.State.Pid}}", id])?
        .exits(0)?;
    let group = cgroup(pid.stdout.trim().parse()?)?;

    let memory: &MemController = group.controller_of().context("memory")?;
    let read = memory.memory_stat();
    ensure!(
        read.limit_in_bytes == 64 << 20,
        "memory: {}",
        read.limit_in_bytes
    );
    ensure!(read.usage_in_bytes > 0, "nothing alive uses no memory");
    // v1 counts memory and swap together, v2 swap alone.
    let swap = memory.memswap().limit_in_bytes;
    let wanted = if group.v2() { 0 } else { 64 << 20 };
    ensure!(swap == wanted, "swap: {swap}");
    let pids: &PidController = group.controller_of().context("pids")?;
    let limit = pids.get_pid_max()?;
    ensure!(limit == MaxValue::Value(33), "pids: {limit:?}");
    let cpu: &CpuController = group.controller_of().context("cpu")?;
    let (quota, period) = (cpu.cfs_quota()?, cpu.cfs_period()?);
    ensure!(
        quota * 2 == i64::try_from(period)?,
        "cpu: {quota} of {period}"
    );
    let cpuset: &CpuSetController = group.controller_of().context("cpuset")?;
    let cpus = cpuset.cpuset().cpus;
    ensure!(cpus == [(0, 0)], "cpus: {cpus:?}");

    // A change on the running container is seen as well.
    let update = [
        "update",
        "-m",
        "96m",
        "--memory-swap",
        "96m",
        "--pids-limit",
        "44",
        id,
    ];
    stack.lite(update)?.exits(0)?;
    let read = memory.memory_stat().limit_in_bytes;
    ensure!(read == 96 << 20, "memory after the update: {read}");
    let limit = pids.get_pid_max()?;
    ensure!(
        limit == MaxValue::Value(44),
        "pids after the update: {limit:?}"
    );
    stack.lite(["rm", "-f", id])?.exits(0)?;
    ensure!(!memory_exists(&group), "the cgroup is left behind");
    stack.stop()
}

fn memory_exists(group: &Cgroup) -> bool {
    use cgroups_rs::fs::Controller as _;
    let memory: Option<&MemController> = group.controller_of();
    memory.is_some_and(|memory| memory.path().exists())
}
