//! `docker-lite stack`: the chain by its own account, and the host's doctor.

use anyhow::{Result, ensure};
use integration::images;
use integration::stack::Stack;

#[test]
fn the_chain_tells_of_itself() -> Result<()> {
    let stack = Stack::start()?;
    images::busybox(&stack)?;
    for name in ["one", "two"] {
        stack
            .lite(["run", "-d", "--name", name, "busybox", "sleep", "1000"])?
            .exits(0)?;
    }
    let rows = stack
        .lite([
            "stack",
            "status",
            "--format",
            "{{.Component}} {{.PID}} {{.Version}} {{.State}}",
        ])?
        .exits(0)?
        .stdout;
    for (program, count) in [
        ("dockerd-lite", 1),
        ("containerd-lite", 1),
        ("containerd-shim-lite-v2", 2),
    ] {
        let mut told: Vec<u32> = rows
            .lines()
            .filter_map(|row| {
                row.strip_prefix(&format!("{program} "))?
                    .split(' ')
                    .next()?
                    .parse()
                    .ok()
            })
            .collect();
        told.sort_unstable();
        let mut pids = stack.pids_of(program)?;
        pids.sort_unstable();
        ensure!(
            told == pids && told.len() == count,
            "{program}: told {told:?}, there are {pids:?}: {rows}"
        );
    }
    ensure!(rows.lines().all(|row| row.ends_with(" ready")), "{rows}");
    let doctor = stack.lite(["stack", "doctor"])?;
    ensure!(doctor.stdout.contains("ok    kernel "), "{doctor:?}");
    ensure!(
        !doctor.stdout.contains("which the daemon does not know"),
        "{doctor:?}"
    );
    stack.stop()
}
