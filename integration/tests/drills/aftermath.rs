//! SIGKILL at random instants under containers with restart policies, health checks, auto-remove, volumes and open streams:
//! the state after is the state before, and no event comes out of its order.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use integration::http::ask;
use integration::stack::{Stack, tail};
use integration::{eventually, images};
use serde_json::Value;

use crate::full;
use crate::listener::Listener;
use crate::random::Random;

/// How long things may take to be as they were; debug builds on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The containers that stay: name, flags, command. Each start of `again` and `thrice` leaves a line on a volume.
const LASTING: &[(&str, &[&str], &str)] = &[
    (
        "steady",
        &["-v", "/anonymous", "-v", "kept:/kept"],
        "echo begun >>/kept/steady; exec sleep 10000",
    ),
    (
        "healthy",
        &[
            "--health-cmd",
            "test -e /ok",
            "--health-interval",
            "300ms",
            "--health-retries",
            "2",
        ],
        "touch /ok; exec sleep 10000",
    ),
    (
        "sick",
        &[
            "--health-cmd",
            "false",
            "--health-interval",
            "300ms",
            "--health-retries",
            "2",
        ],
        "exec sleep 10000",
    ),
    (
        "again",
        &["--restart", "always", "-v", "kept:/kept"],
        "echo >>/kept/again; sleep 0.3; exit 3",
    ),
    (
        "thrice",
        &["--restart", "on-failure:3", "-v", "kept:/kept"],
        "echo >>/kept/thrice; exit 4",
    ),
    (
        "stopped",
        &["--restart", "unless-stopped", "-v", "kept:/kept"],
        "echo >>/kept/stopped; exec sleep 10000",
    ),
    ("talker", &["-i", "-t"], "stty -echo; echo ready; exec cat"),
];

struct Drill {
    stack: Stack,
    socket: PathBuf,
    random: Random,
}

/// What must be the same before and after.
#[derive(Debug, PartialEq)]
struct State {
    containers: Vec<(String, String)>,
    volumes: Vec<String>,
    starts: Vec<(&'static str, usize)>,
}

impl State {
    /// Fails with what is different alone.
    fn same(&self, now: &Self) -> Result<()> {
        let (before, after) = (format!("{self:#?}"), format!("{now:#?}"));
        let only = |one: &str, other: &str| {
            let lines = one
                .lines()
                .filter(|line| !other.lines().any(|l| l == *line));
            lines.map(str::trim).collect::<Vec<_>>().join("\n")
        };
        ensure!(
            self == now,
            "not as before; only before:\n{}\nonly now:\n{}",
            only(&before, &after),
            only(&after, &before)
        );
        Ok(())
    }
}

#[test]
fn all_is_as_it_was_before_the_kill() -> Result<()> {
    let mut drill = Drill::begin()?;
    let mut listener = Listener::start(drill.socket.clone());
    let before = drill.settled(None)?;
    let exec = drill.exec("steady", "sleep 10000")?;
    for round in 0..if full() { 100 } else { 5 } {
        drill.round(round, &before, &exec).with_context(|| {
            format!(
                "round {round}; dockerd-lite's log: {}",
                tail(&drill.stack.path("dockerd.log"))
            )
        })?;
    }
    // Each of its runs is a restart that is told; a restart that a kill has prevented is told as well, as a try.
    drill.lite(&["stop", "-t", "5", "again"])?;
    let told = drill.inspect("again")?["RestartCount"]
        .as_u64()
        .unwrap_or_default();
    let runs = drill.lines("again")? as u64;
    println!("{runs} runs of the container that is always started again, {told} restarts told");
    ensure!(
        runs <= told + 1 && told < runs + 10,
        "{runs} runs, and {told} restarts are told"
    );
    listener.orders()?;
    drill.stack.stop()
}

impl Drill {
    fn begin() -> Result<Self> {
        let random = Random::seeded("aftermath");
        let stack = Stack::start()?;
        images::busybox(&stack)?;
        let drill = Self {
            socket: stack.path("docker.sock"),
            stack,
            random,
        };
        for (name, flags, command) in LASTING {
            let fixed = ["run", "-d", "--network", "none", "--name", name];
            let last = ["busybox", "sh", "-c", command];
            drill.lite(&[&fixed, *flags, &last].concat())?;
        }
        drill.lite(&["stop", "-t", "0", "stopped"])?;
        Ok(drill)
    }

    fn lite(&self, args: &[&str]) -> Result<String> {
        Ok(self.stack.lite(args)?.exits(0)?.stdout)
    }

    fn inspect(&self, name: &str) -> Result<Value> {
        let answer = ask(&self.socket, "GET", &format!("/containers/{name}/json"), "")?;
        ensure!(answer.status == 200, "inspect {name}: {answer:?}");
        Ok(answer.json())
    }

    /// How many lines a container has left on the volume.
    fn lines(&self, name: &str) -> Result<usize> {
        let path = self.stack.path("data/volumes/kept/_data").join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(text.lines().count()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(e) => Err(e).with_context(|| format!("read {}", path.display())),
        }
    }

    /// A detached exec's id.
    fn exec(&self, name: &str, command: &str) -> Result<String> {
        let body = format!(r#"{{"Cmd":["sh","-c","{command}"]}}"#);
        let made = ask(
            &self.socket,
            "POST",
            &format!("/containers/{name}/exec"),
            &body,
        )?;
        let id = made.json()["Id"].as_str().context("an id")?.to_owned();
        let started = ask(
            &self.socket,
            "POST",
            &format!("/exec/{id}/start"),
            r#"{"Detach":true}"#,
        )?;
        ensure!(started.status == 200, "exec: {started:?}");
        Ok(id)
    }

    /// Waits until everything has come to rest, and as `wanted` if that is given.
    fn settled(&self, wanted: Option<&State>) -> Result<State> {
        eventually::within(PATIENCE, "everything is at rest", || {
            let thrice = self.inspect("thrice")?;
            let over = thrice["State"]["Status"] == "exited" && thrice["RestartCount"] == 3;
            ensure!(
                over,
                "thrice: {} {}",
                thrice["State"],
                thrice["RestartCount"]
            );
            for (name, health) in [("healthy", "healthy"), ("sick", "unhealthy")] {
                let now = self.inspect(name)?["State"]["Health"]["Status"].clone();
                ensure!(now == health, "{name} is {now}");
            }
            // Only now: what was read before all had come to rest would be no measure for later.
            let state = self.state()?;
            if let Some(wanted) = wanted {
                wanted.same(&state)?;
            }
            Ok(state)
        })
    }

    fn state(&self) -> Result<State> {
        let list = ask(&self.socket, "GET", "/containers/json?all=1", "")?.json();
        let mut containers = Vec::new();
        for entry in list.as_array().context("a list")? {
            let name = entry["Names"][0]
                .as_str()
                .context("a name")?
                .trim_start_matches('/');
            containers.push((name.to_owned(), self.short(name)?));
        }
        containers.sort();
        let volumes = ask(&self.socket, "GET", "/volumes", "")?.json();
        let names = volumes["Volumes"].as_array().context("volumes")?.iter();
        let mut volumes: Vec<_> = names.map(|v| v["Name"].to_string()).collect();
        volumes.sort();
        let starts = ["steady", "thrice", "stopped"];
        let starts = starts.into_iter().map(|name| Ok((name, self.lines(name)?)));
        Ok(State {
            containers,
            volumes,
            starts: starts.collect::<Result<_>>()?,
        })
    }

    /// What of a container may not change.
    fn short(&self, name: &str) -> Result<String> {
        let all = self.inspect(name)?;
        let state = &all["State"];
        let shown = match name {
            // It comes and goes.
            "again" => format!("{}", all["HostConfig"]["RestartPolicy"]),
            _ => format!(
                "{} pid {} from {} to {} code {} restarts {}",
                state["Status"],
                state["Pid"],
                state["StartedAt"],
                state["FinishedAt"],
                state["ExitCode"],
                all["RestartCount"]
            ),
        };
        Ok(format!("{} {shown} {}", all["Id"], all["Mounts"]))
    }

    /// Kills something at a random instant of a busy moment, and looks at what is there afterwards.
    fn round(&mut self, round: u64, before: &State, exec: &str) -> Result<()> {
        let (brief, code) = (format!("brief{round}"), 5 + round % 3);
        let command = format!("sleep 0.5; exit {code}");
        self.lite(&[
            "run",
            "-d",
            "--rm",
            "--network",
            "none",
            "-v",
            "/gone",
            "--name",
            &brief,
            "busybox",
            "sh",
            "-c",
            &command,
        ])?;
        let ended = self.exec("steady", &format!("sleep 0.6; exit {code}"))?;
        let mut streams = [attached(&self.socket)?, attached(&self.socket)?];
        said(&mut streams[0], &format!("before {round}"))?;
        let instant = Duration::from_millis(self.random.below(900));
        std::thread::sleep(instant);
        let victims = self.random.below(3);
        println!(
            "round {round}: {} after {instant:?}",
            ["dockerd-lite", "containerd-lite", "both"][victims as usize]
        );
        if victims != 1 {
            self.stack.kill_daemon()?;
        }
        if victims != 0 {
            self.stack.kill_containerd()?;
        }
        if victims != 1 {
            std::thread::sleep(Duration::from_millis(self.random.below(1500)));
            self.stack.spawn_daemon()?;
            self.stack.wait_ready(PATIENCE)?;
            for stream in &mut streams {
                ends(stream)?;
            }
        }
        self.settled(Some(before))?;
        let status = |id: &str| {
            Ok::<_, anyhow::Error>(
                ask(&self.socket, "GET", &format!("/exec/{id}/json"), "")?.json(),
            )
        };
        ensure!(
            status(exec)?["Running"] == true,
            "the exec that goes on: {}",
            status(exec)?
        );
        eventually::within(PATIENCE, "the exec that ended is told", || {
            let told = status(&ended)?;
            ensure!(
                told["Running"] == false && told["ExitCode"] == code,
                "{told}"
            );
            Ok(())
        })?;
        // Input went on to be open, though all who had attached are gone.
        said(&mut attached(&self.socket)?, &format!("after {round}"))
    }
}

/// A stream of the container that repeats what it is told.
fn attached(socket: &Path) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let path = "/containers/talker/attach?stream=1&stdin=1&stdout=1";
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
    )?;
    until(&mut stream, "\r\n\r\n")?;
    Ok(stream)
}

/// Says something, and waits for the echo.
fn said(stream: &mut UnixStream, text: &str) -> Result<()> {
    writeln!(stream, "{text}")?;
    until(stream, text)
}

fn until(stream: &mut UnixStream, text: &str) -> Result<()> {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(text.as_bytes()) {
        match stream.read(&mut byte) {
            Ok(1) => seen.push(byte[0]),
            other => bail!(
                "{text:?} did not come: {other:?} after {:?}",
                String::from_utf8_lossy(&seen)
            ),
        }
    }
    Ok(())
}

/// The stream ends, whatever still comes.
fn ends(stream: &mut UnixStream) -> Result<()> {
    match stream.read_to_end(&mut Vec::new()) {
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
            bail!("a stream of a killed daemon goes on")
        }
        _ => Ok(()),
    }
}
