//! docker-lite listens on while dockerd-lite is killed and started again: `wait`, `logs -f`, `events`, `attach` and `run` lose
//! nothing, tell nothing twice and end with the true exit code. A daemon that stays away is told after the stated time.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use integration::stack::{Stack, tail};
use integration::{eventually, images, programs};

/// How long a client may take to notice what happened on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A docker-lite that runs beside the test; what it prints goes to files.
struct Listener {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Listener {
    fn start(stack: &Stack, name: &str, stdin: Stdio, args: &[&str]) -> Result<Listener> {
        let (out, err) = (
            stack.path(&format!("{name}.out")),
            stack.path(&format!("{name}.err")),
        );
        let mut command = stack.client_command(&programs::path("docker-lite")?, args);
        Listener::spawn(&mut command, stdin, out, err).with_context(|| name.to_owned())
    }

    fn spawn(command: &mut Command, stdin: Stdio, out: PathBuf, err: PathBuf) -> Result<Listener> {
        let child = command
            .stdin(stdin)
            .stdout(File::create(&out)?)
            .stderr(File::create(&err)?)
            .spawn()?;
        Ok(Listener { child, out, err })
    }

    fn printed(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap_or_default()
    }

    fn has_printed(&self, what: &str) -> Result<()> {
        eventually::within(PATIENCE, &format!("{what:?} is printed"), || {
            ensure!(self.printed().contains(what), "{:?}", tail(&self.out));
            Ok(())
        })
    }

    fn ends_with(mut self, code: i32) -> Result<String> {
        let status = eventually::within(PATIENCE, "the client ends", || {
            match self.child.try_wait()? {
                Some(status) => Ok(status),
                None => bail!("it runs; stderr {:?}", tail(&self.err)),
            }
        });
        let status = match status {
            Ok(status) => status,
            Err(error) => {
                self.child.kill()?;
                self.child.wait()?;
                return Err(error);
            }
        };
        let err = std::fs::read_to_string(&self.err)?;
        ensure!(
            status.code() == Some(code),
            "{status}, wanted {code}: {:?} {err:?}",
            tail(&self.out)
        );
        Ok(self.printed())
    }
}

/// Counts on both streams: `COUNT TO PAUSE CODE`.
fn counter(to: u32, pause: &str, code: u32) -> String {
    format!(
        "i=0; while [ $i -lt {to} ]; do i=$((i+1)); echo $i; echo e$i >&2; sleep {pause}; done; exit {code}"
    )
}

/// The lines are whole numbers that follow each other; returns the first and the last.
fn counted(text: &str, prefix: &str) -> Result<(u32, u32)> {
    let mut numbers = text.lines().map(|line| {
        let number = line.strip_prefix(prefix).unwrap_or("");
        number
            .parse::<u32>()
            .with_context(|| format!("line {line:?}"))
    });
    let first = numbers.next().context("nothing was printed")??;
    let mut last = first;
    for number in numbers {
        let number = number?;
        ensure!(number == last + 1, "{number} follows {last}");
        last = number;
    }
    Ok((first, last))
}

fn detached(stack: &Stack, name: &str, script: &str) -> Result<()> {
    let run = ["run", "-d", "--name", name, "busybox", "sh", "-c", script];
    stack.lite(run)?.exits(0).map(drop)
}

#[test]
fn listeners_outlive_the_daemon() -> Result<()> {
    let mut stack = Stack::start()?;
    images::busybox(&stack)?;
    detached(&stack, "logger", &counter(100_000, "0.02", 0))?;
    detached(
        &stack,
        "ending",
        "while [ ! -e /end ]; do sleep 0.1; done; exit 7",
    )?;
    detached(
        &stack,
        "lasting",
        "while [ ! -e /end ]; do sleep 0.1; done; exit 8",
    )?;
    let start = |name: &str, args: &[&str]| Listener::start(&stack, name, Stdio::null(), args);
    let mut events = start(
        "events",
        &[
            "events",
            "--filter",
            "type=container",
            "--format",
            "{{.Actor.Attributes.name}} {{.Action}}",
        ],
    )?;
    let logs = start("logs", &["logs", "-f", "logger"])?;
    let last = start("last", &["logs", "-f", "-t", "-n", "1", "logger"])?;
    let attach = start("attach", &["attach", "--no-stdin", "logger"])?;
    let ending = start("ending", &["wait", "ending"])?;
    let lasting = start("lasting", &["wait", "lasting"])?;
    let run = |name: &str, flags: &[&str], script: &str| {
        let flags = [
            &["run", "--name", name],
            flags,
            &["busybox", "sh", "-c", script],
        ]
        .concat();
        Listener::start(&stack, name, Stdio::null(), &flags)
    };
    let over = run("over", &[], &counter(300, "0.02", 9))?;
    let within = run("within", &[], &counter(100, "0.02", 4))?;
    let removed = run("removed", &["--rm"], "echo begun; sleep 2; exit 5")?;
    let mut typed = Listener::start(
        &stack,
        "typed",
        Stdio::piped(),
        &[
            "run",
            "-i",
            "--name",
            "typed",
            "busybox",
            "sh",
            "-c",
            "while read l; do echo got $l; done; exit 3",
        ],
    )?;
    let mut keys = typed.child.stdin.take().context("stdin is piped")?;
    std::io::Write::write_all(&mut keys, b"one\n")?;
    typed.has_printed("got one")?;
    for listener in [&logs, &last, &attach, &over, &within] {
        listener.has_printed("5\n")?;
    }
    removed.has_printed("begun")?;
    let pid = stack
        .lite(["inspect", "-f", "{{.State.Pid}}", "ending"])?
        .exits(0)?;
    let root = PathBuf::from(format!("/proc/{}/root/end", pid.stdout.trim()));

    stack.kill_daemon()?;
    File::create(root)?;
    // what ends within this time ends without a daemon
    std::thread::sleep(Duration::from_millis(2500));
    stack.spawn_daemon()?;
    stack.wait_ready(Duration::from_secs(10))?;

    ensure!(
        ending.ends_with(0)? == "7\n",
        "wait for what ended meanwhile"
    );
    within
        .ends_with(4)
        .and_then(|out| whole(&out, 100))
        .context("run to its end meanwhile")?;
    ensure!(removed.ends_with(5)? == "begun\n");
    over.ends_with(9)
        .and_then(|out| whole(&out, 300))
        .context("run over the outage")?;
    let err = std::fs::read_to_string(stack.path("over.err"))?;
    let err: String = err
        .lines()
        .filter(|l| !l.starts_with("docker-lite: "))
        .map(|l| format!("{l}\n"))
        .collect();
    ensure!(
        counted(&err, "e").context("stderr of run")? == (1, 300),
        "stderr of over"
    );
    std::io::Write::write_all(&mut keys, b"two\n")?;
    typed.has_printed("got two")?;
    drop(keys);
    ensure!(
        typed.ends_with(3)? == "got one\ngot two\n",
        "what was typed"
    );
    stack.lite(["exec", "lasting", "touch", "/end"])?.exits(0)?;
    ensure!(lasting.ends_with(0)? == "8\n", "wait for what went on");
    events.has_printed("lasting die")?;

    stack.lite(["kill", "logger"])?.exits(0)?;
    let full = counted(&logs.ends_with(0)?, "").context("logs -f")?;
    ensure!(full.0 == 1, "logs -f begins with {}", full.0);
    let stamped = last.ends_with(0)?;
    let plain: String = stamped
        .lines()
        .map(|line| format!("{}\n", line.split_once(' ').map_or("", |(_, text)| text)))
        .filter(|line| !line.starts_with('e'))
        .collect();
    ensure!(
        counted(&plain, "").with_context(|| stamped.clone())?.1 == full.1,
        "logs -f -t -n 1"
    );
    ensure!(
        counted(&attach.ends_with(137)?, "").context("attach")?.1 == full.1,
        "attach to the end"
    );

    events.has_printed("logger die")?;
    let told = events.printed();
    for (event, times) in [
        ("ending die", 1),
        ("removed create", 1),
        ("removed die", 1),
        ("removed destroy", 1),
        ("within die", 1),
        ("over start", 1),
        ("over die", 1),
        ("lasting die", 1),
        ("logger die", 1),
    ] {
        let seen = told.lines().filter(|line| *line == event).count();
        ensure!(seen == times, "{event}: {seen} times of {times}: {told}");
    }
    events.child.kill()?;
    events.child.wait()?;
    stack.stop()
}

fn whole(out: &str, to: u32) -> Result<()> {
    let got = counted(out, "")?;
    ensure!(got == (1, to), "{got:?} of 1 to {to}");
    Ok(())
}

#[test]
fn a_daemon_that_stays_away_is_told() -> Result<()> {
    let mut stack = Stack::start()?;
    images::busybox(&stack)?;
    detached(&stack, "up", "echo begun; exec sleep 1000")?;
    let lite = programs::path("docker-lite")?;
    let mut listeners = Vec::new();
    for (name, args) in [
        ("wait", vec!["wait", "up"]),
        ("logs", vec!["logs", "-f", "up"]),
        ("events", vec!["events"]),
        ("attach", vec!["attach", "--no-stdin", "up"]),
        (
            "run",
            vec![
                "run",
                "--name",
                "fg",
                "busybox",
                "sh",
                "-c",
                "echo begun; sleep 1000",
            ],
        ),
    ] {
        let mut command = stack.client_command(&lite, &args);
        command.env("DOCKER_LITE_RECONNECT", "2");
        let (out, err) = (
            stack.path(&format!("{name}.out")),
            stack.path(&format!("{name}.err")),
        );
        listeners.push((
            name,
            Listener::spawn(&mut command, Stdio::null(), out, err)?,
        ));
    }
    listeners[1].1.has_printed("begun")?;
    listeners[4].1.has_printed("begun")?;
    // each of the others has asked when it sleeps in its loop
    for (name, listener) in &listeners {
        eventually::within(PATIENCE, &format!("{name} is connected"), || {
            let fds = std::fs::read_dir(format!("/proc/{}/fd", listener.child.id()))?;
            let sockets = fds
                .flatten()
                .filter_map(|fd| std::fs::read_link(fd.path()).ok());
            let sockets = sockets
                .filter(|to| to.to_string_lossy().starts_with("socket:"))
                .count();
            // one pair is the event loop's own, for signals
            ensure!(sockets >= 2, "{sockets} sockets");
            Ok(())
        })?;
    }
    std::thread::sleep(Duration::from_millis(500));
    stack.kill_daemon()?;
    let killed = Instant::now();
    for (name, listener) in listeners {
        listener.ends_with(125).with_context(|| name.to_owned())?;
        let err = std::fs::read_to_string(stack.path(&format!("{name}.err")))?;
        let told = format!(
            "docker-lite: the daemon at {} went away and was not back within 2 s: ",
            stack.host()
        );
        ensure!(err.contains(&told), "{name}: {err:?}");
    }
    ensure!(
        killed.elapsed() >= Duration::from_secs(2),
        "sooner than stated"
    );
    stack.start_daemon()?;
    stack.stop()
}
