//! A start whose answer was lost: the container is not made to run a second time, and its end is known.
//!
//! The runtime is wrapped so that its `start` does not return while a file is there: the program runs by then, and nobody
//! above the shim knows.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use integration::http::ask;
use integration::stack::Stack;
use integration::{eventually, images, programs};

const SOON: Duration = Duration::from_secs(30);

/// A stack whose starts can be held up.
struct Held {
    stack: Stack,
    gate: PathBuf,
    asked: PathBuf,
}

impl Held {
    fn start() -> Result<Self> {
        let mut stack = Stack::unstarted(&[])?;
        let (gate, asked) = (stack.path("gate"), stack.path("asked"));
        let wrapper = stack.path("slow-start");
        let script = format!(
            "#!/bin/sh\n{runtime} \"$@\"; code=$?\ncase \" $* \" in *' start '*)\n[ ! -e {gate} ] || touch {asked}\nwhile [ -e {gate} ]; do sleep 0.02; done;;\nesac\nexit $code\n",
            runtime = programs::path("runc-lite")?.display(),
            gate = gate.display(),
            asked = asked.display(),
        );
        std::fs::write(&wrapper, script)?;
        std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755))?;
        let runtime = format!("slow={}", wrapper.display());
        stack.add_arguments(&["--add-runtime", &runtime, "--default-runtime", "slow"]);
        stack.start_daemon()?;
        images::busybox(&stack)?;
        let held = Self { stack, gate, asked };
        let body = r#"{"Image":"busybox","Cmd":["sh","-c","echo once; sleep 0.3; exit 5"],"HostConfig":{"NetworkMode":"none"}}"#;
        let made = ask(&held.socket(), "POST", "/containers/create?name=once", body)?;
        ensure!(made.status == 201, "create: {made:?}");
        std::fs::write(&held.gate, "")?;
        Ok(held)
    }

    fn socket(&self) -> PathBuf {
        self.stack.path("docker.sock")
    }

    /// Asks for the start from beside, and returns once the program runs.
    fn begin(&self) -> Result<std::thread::JoinHandle<Result<u16>>> {
        let socket = self.socket();
        let start = std::thread::spawn(move || {
            Ok(ask(&socket, "POST", "/containers/once/start", "")?.status)
        });
        eventually::within(SOON, "the runtime has started it", || {
            ensure!(self.asked.exists(), "not yet");
            Ok(())
        })?;
        Ok(start)
    }

    fn open_gate(&self) -> Result<()> {
        Ok(std::fs::remove_file(&self.gate)?)
    }

    /// It has run once and ended with its code.
    fn ran_once(self) -> Result<()> {
        eventually::within(SOON, "its end is told", || {
            let told = ask(&self.socket(), "GET", "/containers/once/json", "")?.json();
            let state = &told["State"];
            ensure!(
                state["Status"] == "exited" && state["ExitCode"] == 5,
                "it is {state}"
            );
            Ok(())
        })?;
        let log = self.stack.lite(["logs", "once"])?.exits(0)?.stdout;
        ensure!(log == "once\n", "it said {log:?}");
        self.stack.stop()
    }
}

#[test]
fn containerd_lite_killed_in_a_start() -> Result<()> {
    let held = Held::start()?;
    let start = held.begin()?;
    held.stack.kill_containerd()?;
    held.open_gate()?;
    let status = start.join().expect("asking does not panic")?;
    ensure!(status == 204, "the start was answered with {status}");
    held.ran_once()
}

#[test]
fn dockerd_lite_killed_in_a_start() -> Result<()> {
    let mut held = Held::start()?;
    let start = held.begin()?;
    held.stack.kill_daemon()?;
    held.open_gate()?;
    // Nobody answered.
    let answer = start.join().expect("asking does not panic");
    ensure!(answer.is_err(), "answered with {answer:?}");
    // It may have ended before the daemon is back.
    std::thread::sleep(Duration::from_millis(600));
    held.stack.start_daemon()?;
    held.ran_once()
}
