//! One container through all five programs, and each program seen while it runs.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration::leaks::Census;
use integration::stack::Stack;
use integration::{eventually, images};

#[test]
fn a_container_runs_through_all_five_programs() -> Result<()> {
    let stack = Stack::start()?;
    images::busybox(&stack)?;
    let before = Census::take(stack.scope())?;

    let out = stack
        .lite(["run", "--rm", "busybox", "echo", "hi"])?
        .exits(0)?;
    assert_eq!(out.stdout, "hi\n");

    let id = stack
        .lite(["run", "-d", "busybox", "sleep", "1000"])?
        .exits(0)?
        .stdout;
    let pid = stack
        .lite(["inspect", "-f", "{{.State.Pid}}", id.trim()])?
        .exits(0)?
        .stdout;
    let pid: u32 = pid.trim().parse()?;
    let shims = stack.pids_of("containerd-shim-lite-v2")?;
    assert_eq!(shims.len(), 1, "one shim a container");
    assert_eq!(parent(pid)?, shims[0], "the container is the shim's child");
    assert_eq!(stack.pids_of("containerd-lite")?.len(), 1);
    assert_eq!(
        std::fs::read_to_string(format!("/proc/{pid}/comm"))?.trim(),
        "sleep"
    );

    stack.lite(["rm", "-f", id.trim()])?.exits(0)?;
    before.flat_within(Duration::from_secs(5))?;
    stack.stop()
}

#[test]
fn the_stack_survives_thirty_short_containers_without_a_leak() -> Result<()> {
    let stack = Stack::start()?;
    images::busybox(&stack)?;
    let before = Census::take(stack.scope())?;
    for i in 0..30 {
        let code = i % 7;
        stack
            .lite([
                "run",
                "--rm",
                "busybox",
                "sh",
                "-c",
                &format!("exit {code}"),
            ])?
            .exits(code)?;
    }
    before.flat_within(Duration::from_secs(5))?;
    eventually::within(Duration::from_secs(5), "no shim is left", || {
        let shims = stack.pids_of("containerd-shim-lite-v2")?;
        ensure!(shims.is_empty(), "{shims:?}");
        Ok(())
    })?;
    stack.stop()
}

fn parent(pid: u32) -> Result<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = stat.rsplit_once(") ").map_or("", |(_, r)| r);
    Ok(rest.split(' ').nth(1).unwrap_or_default().parse()?)
}
