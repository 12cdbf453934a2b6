//! The small init: as `init --` and under the name `docker-init`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::process::{Command, Stdio};

use support::{Bundle, Said, run};

fn init(args: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runc-lite"));
    command.args(["init", "--"]).args(args);
    run(command)
}

#[test]
fn the_programs_end_is_the_inits_end() {
    init(&["sh", "-c", "exit 7"]).code(7);
    init(&["sh", "-c", "kill -9 $$"]).code(137);
    init(&["/no/such"]).code(127).says("no such file");
    init(&["/etc/passwd"]).code(126).says("permission denied");
    init(&[]).code(1).says("no program given");
}

#[test]
fn signals_reach_the_program_in_its_own_group() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_runc-lite"))
        .args(["init", "--", "sh", "-c"])
        .arg("trap 'exit 9' USR1; echo up; while :; do sleep 0.05; done")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

/// As the daemon uses it: bound read-only to /sbin/docker-init, as the first
/// process of the pid namespace, under the container's restrictions.
#[test]
fn as_first_process_it_waits_for_orphans() {
    if !support::possible() {
        return;
    }
    // The shell between ends at once; its child becomes an orphan and ends.
    let mut b = Bundle::new(
        "sh -c 'sleep 0.1 & exit 0'; sleep 0.5; ps -o pid,stat,args; echo > /sbin/docker-init; exit 5",
    );
    let script = b.config["process"]["args"][2].clone();
    b.config["process"]["args"] =
        serde_json::json!(["/sbin/docker-init", "--", "sh", "-c", script]);
    let own = env!("CARGO_BIN_EXE_runc-lite");
    b.mount("/sbin/docker-init", "bind", own, &["bind", "ro"]);
    // A test build is linked dynamically.
    for dir in ["/lib", "/lib64", "/usr/lib"] {
        if std::path::Path::new(dir).exists() {
            b.mount(dir, "bind", dir, &["rbind", "ro"]);
        }
    }
    let said = b.run().code(5).says("Read-only file system");
    assert!(said.out.contains("docker-init -- sh"), "{}", said.out);
    // A heading, init, the program, ps: no zombie.
    assert_eq!(said.out.lines().count(), 4, "{}", said.out);
}
