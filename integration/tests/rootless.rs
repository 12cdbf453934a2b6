//! The whole chain as an ordinary user: a fresh one for each test, in a network namespace of its own, seen from outside.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use integration::programs::{self, Output, run};
use integration::stack::{hold_namespace, tail};
use integration::{eventually, http, images};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(60);
const QUICK: Duration = Duration::from_secs(20);

/// Programs without which nothing of this can be tried.
const NEEDED: [&str; 4] = ["newuidmap", "slirp4netns", "useradd", "setpriv"];

/// A user who has not been there before, and is not there afterwards.
struct User {
    name: String,
    uid: u32,
    subordinate: std::ops::Range<u32>,
    dir: tempfile::TempDir,
    network: Child,
    parent: Option<Child>,
    tun: Option<nix::libc::mode_t>,
}

impl User {
    /// Makes one; none where a program is missing.
    fn new(test: &str) -> Result<Option<Self>> {
        if let Some(missing) = NEEDED.iter().find(|p| programs::installed(p).is_none()) {
            println!("SKIPPED {test}: {missing} is not installed");
            return Ok(None);
        }
        let dir = tempfile::Builder::new().prefix("rl.").tempdir()?;
        // Not longer than names of users may be.
        let name = format!("lite{}{}", std::process::id(), test.len());
        let home = dir.path().join("home");
        sh(&format!(
            "chmod 755 {0}; useradd -m -d {1} -s /bin/sh {name}",
            dir.path().display(),
            home.display()
        ))?;
        let mut user = Self {
            uid: sh(&format!("id -u {name}"))?.stdout.trim().parse()?,
            subordinate: 0..0,
            name,
            dir,
            network: hold_namespace()?,
            parent: None,
            tun: None,
        };
        user.prepare()?;
        Ok(Some(user))
    }

    fn prepare(&mut self) -> Result<()> {
        let name = &self.name;
        if !std::fs::read_to_string("/etc/subuid")?.contains(&format!("{name}:")) {
            sh(&format!(
                "usermod --add-subuids 900000000-900065535 --add-subgids 900000000-900065535 {name}"
            ))?;
        }
        let text = std::fs::read_to_string("/etc/subuid")?;
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix(&format!("{name}:")));
        let (start, count) = line.and_then(|l| l.split_once(':')).context("no range")?;
        let start: u32 = start.parse()?;
        self.subordinate = start..start + count.parse::<u32>()?;
        use std::os::unix::fs::PermissionsExt;
        let device = Path::new("/dev/net/tun");
        let mode = std::fs::metadata(device)?.permissions().mode();
        if mode & 0o006 != 0o006 {
            self.tun = Some(mode);
            std::fs::set_permissions(device, std::fs::Permissions::from_mode(0o666))?;
        }
        let runtime = self.path("run");
        sh(&format!(
            "install -d -m 700 -o {name} -g {name} {0}; install -d -m 755 {1}",
            runtime.display(),
            self.path("bin").display()
        ))?;
        for program in [
            "docker-lite",
            "dockerd-lite",
            "containerd-lite",
            "containerd-shim-lite-v2",
            "runc-lite",
        ] {
            let from = programs::path(program)?;
            let to = self.path("bin").join(program);
            if std::fs::hard_link(&from, &to).is_err() {
                std::fs::copy(&from, &to)?;
            }
        }
        images::rootfs_tar(self.dir.path())?;
        sh(&format!("chmod 644 {}", self.path("rootfs.tar").display()))?;
        let mut up = self.command("ip", false);
        up.args(["link", "set", "lo", "up"]);
        run(&mut up, b"", QUICK)?.exits(0)?;
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("run/docker.sock")
    }

    /// A command in the user's network namespace, as the user or as root.
    fn command(&self, program: &str, as_user: bool) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.network.id()));
        if as_user {
            command
                .args(["--", "setpriv", "--init-groups", "--reset-env"])
                .arg(format!("--reuid={}", self.name))
                .arg(format!("--regid={}", self.name))
                .arg("env")
                .arg(format!("PATH={}:/usr/bin:/bin", self.path("bin").display()))
                .arg(format!("XDG_RUNTIME_DIR={}", self.path("run").display()))
                .arg(format!("HOME={}", self.path("home").display()));
        }
        command.arg(program).current_dir("/");
        command
    }

    fn run(&self, program: &str, args: &[&str]) -> Result<Output> {
        let mut command = self.command(program, true);
        run(command.args(args), b"", LIMIT)
    }

    fn lite(&self, args: &[&str]) -> Result<Output> {
        let host = format!("unix://{}", self.socket().display());
        self.run("docker-lite", &[&["-H", &host], args].concat())
    }

    fn ok(&self, args: &[&str]) -> Result<String> {
        let out = self.lite(args)?.exits(0);
        Ok(out
            .with_context(|| format!("the log: {}", tail(&self.path("log"))))?
            .stdout)
    }

    /// Starts the parent and waits until the daemon answers.
    fn start(&mut self, args: &[&str]) -> Result<()> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))?;
        let mut command = self.command("dockerd-lite", true);
        command
            .arg("rootless")
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.parent = Some(command.spawn()?);
        self.answers(LIMIT)
    }

    fn answers(&self, limit: Duration) -> Result<()> {
        let answered =
            eventually::within(limit, "the daemon answers", || http::ping(&self.socket()));
        answered.with_context(|| format!("the log: {}", tail(&self.path("log"))))
    }

    fn image(&self) -> Result<()> {
        let tar = self.path("rootfs.tar").display().to_string();
        // The daemon answers before what is below it does.
        eventually::within(QUICK, "an image is imported", || {
            self.ok(&["import", "-c", "CMD [\"sh\"]", &tar, "busybox"])
        })?;
        Ok(())
    }

    /// Processes that belong to the stack: of the user or of the user's subordinate ids.
    fn processes(&self) -> Result<Vec<Process>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let Some(pid) = entry?
                .file_name()
                .to_str()
                .and_then(|n| n.parse::<i32>().ok())
            else {
                continue;
            };
            let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}"));
            let (Ok(status), Ok(words)) = (read("status"), read("cmdline")) else {
                continue;
            };
            let status = String::from_utf8_lossy(&status).into_owned();
            let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name));
            let ids: BTreeSet<u32> = field("Uid:")
                .unwrap_or_default()
                .split_whitespace()
                .filter_map(|id| id.parse().ok())
                .collect();
            let line = String::from_utf8_lossy(&words).replace('\0', " ");
            let theirs = ids
                .iter()
                .any(|id| *id == self.uid || self.subordinate.contains(id));
            let named = line.contains(&*self.dir.path().to_string_lossy());
            if (theirs || named) && !field("State:").unwrap_or_default().contains('Z') {
                found.push(Process { pid, ids, line });
            }
        }
        Ok(found)
    }

    /// The one process whose command line has these words.
    fn pid_of(&self, words: &str) -> Result<i32> {
        let all = self.processes()?;
        let fits = |p: &&Process| {
            p.line.contains(words) && !p.line.starts_with("nsenter") && !p.line.contains("setpriv")
        };
        let found: Vec<_> = all.iter().filter(fits).collect();
        match found.as_slice() {
            [one] => Ok(one.pid),
            _ => bail!("{} processes are {words:?}: {all:#?}", found.len()),
        }
    }

    fn kill_one(&self, words: &str) -> Result<i32> {
        let pid = self.pid_of(words)?;
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        Ok(pid)
    }

    /// Ends the parent by a signal. What started it has become it.
    fn end_parent(&mut self, signal: Signal) -> Result<()> {
        let mut parent = self.parent.take().context("no parent runs")?;
        kill(Pid::from_raw(parent.id().try_into()?), signal)?;
        integration::stack::wait_end(&mut parent, QUICK)
    }

    /// Another process than `former` has these words.
    fn replaced(&self, words: &str, former: i32) -> Result<()> {
        eventually::within(QUICK, &format!("{words} is replaced"), || {
            let pid = self.pid_of(words)?;
            ensure!(pid != former, "the old one is still there");
            Ok(())
        })
        .with_context(|| format!("the log: {}", tail(&self.path("log"))))
    }

    /// What a published port answers, asked in the user's network namespace.
    fn fetch(&self, port: &str) -> Result<String> {
        let script = format!(
            "exec 3<>/dev/tcp/127.0.0.1/{port}; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; timeout 5 cat <&3"
        );
        let mut command = self.command("bash", true);
        let out = run(command.args(["-c", &script]), b"", QUICK)?.exits(0)?;
        let body = out.stdout.split_once("\r\n\r\n");
        Ok(body.context("no answer of HTTP")?.1.to_owned())
    }

    /// Stops everything; nothing may be left but files.
    fn stop_all(&mut self) -> Result<()> {
        self.run("dockerd-lite", &["rootless", "--stop-all"])?
            .exits(0)
            .with_context(|| format!("the log: {}", tail(&self.path("log"))))?;
        if let Some(mut parent) = self.parent.take() {
            integration::stack::wait_end(&mut parent, QUICK)?;
        }
        eventually::within(QUICK, "nothing is left", || {
            let left = self.processes()?;
            ensure!(left.is_empty(), "{left:#?}");
            let run: Vec<_> = std::fs::read_dir(self.path("run"))?
                .filter_map(|entry| Some(entry.ok()?.file_name()))
                .filter(|name| name != "docker-lite")
                .collect();
            ensure!(run.is_empty(), "{run:?}");
            Ok(())
        })
    }
}

#[derive(Debug)]
struct Process {
    pid: i32,
    ids: BTreeSet<u32>,
    line: String,
}

impl Drop for User {
    fn drop(&mut self) {
        for _ in 0..50 {
            let left = self.processes().unwrap_or_default();
            if left.is_empty() {
                break;
            }
            for process in left {
                // It may have ended.
                let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        if let Some(mut parent) = self.parent.take() {
            let _ = parent.wait();
        }
        if let Some(mode) = self.tun {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::Permissions::from_mode(mode);
            let _ = std::fs::set_permissions("/dev/net/tun", mode);
        }
        let _ = sh(&format!("userdel -f {} 2>/dev/null", self.name));
        let _ = self.network.kill();
        let _ = self.network.wait();
    }
}

fn sh(script: &str) -> Result<Output> {
    let mut command = Command::new("/bin/sh");
    command.args(["-ec", script]);
    run(&mut command, b"", LIMIT)?.exits(0)
}

/// An HTTP server of busybox in a container, which answers with one word.
const WEB: &str = "mkdir -p /www && echo hello >/www/index.html && exec httpd -f -p 80 -h /www";

#[test]
fn a_fresh_user_runs_the_whole_chain() -> Result<()> {
    let Some(mut user) = User::new("a_fresh_user_runs_the_whole_chain")? else {
        return Ok(());
    };
    let check = user.run("dockerd-lite", &["rootless", "setup", "check"])?;
    ensure!(
        check.code == 0 && !check.stdout.contains("MISSING"),
        "{check:?}"
    );
    user.start(&[])?;
    user.image()?;
    let info = user.ok(&["info"])?;
    ensure!(
        info.contains("rootless") && info.contains("Cgroup Driver: none"),
        "{info}"
    );
    let version = user.ok(&["version"])?;
    ensure!(version.contains("slirp4netns"), "{version}");

    // Identity: root inside is the user outside; others are subordinate.
    let web = user.ok(&[
        "run", "-d", "--name", "web", "-p", "18080:80", "busybox", "sh", "-c", WEB,
    ])?;
    ensure!(web.trim().len() == 64, "{web}");
    user.ok(&[
        "run", "-d", "--name", "other", "-u", "7", "busybox", "sleep", "1000",
    ])?;
    let pid = |name: &str| -> Result<u32> {
        let text = user.ok(&["inspect", "-f", "{{.State.Pid}}", name])?;
        Ok(text.trim().parse()?)
    };
    let of = |pid: u32| -> Result<u32> {
        use std::os::unix::fs::MetadataExt;
        Ok(std::fs::metadata(format!("/proc/{pid}"))?.uid())
    };
    ensure!(of(pid("web")?)? == user.uid);
    ensure!(of(pid("other")?)? == user.subordinate.start + 6);

    // Nothing of it is root, whatever it does.
    let all = user.processes()?;
    ensure!(all.len() > 8, "{all:#?}");
    for process in &all {
        let wrapper = process.line.starts_with("nsenter");
        ensure!(wrapper || !process.ids.contains(&0), "{process:?} is root");
    }

    // A published port, from outside and by name from inside.
    eventually::within(QUICK, "the published port answers", || {
        ensure!(user.fetch("18080")? == "hello\n");
        Ok(())
    })?;
    user.ok(&["network", "create", "back"])?;
    user.ok(&["network", "connect", "back", "web"])?;
    let named = user.ok(&[
        "run",
        "--rm",
        "--network",
        "back",
        "busybox",
        "wget",
        "-q",
        "-O",
        "-",
        "http://web/",
    ])?;
    ensure!(named == "hello\n", "{named}");
    let low = user.lite(&["run", "--rm", "-p", "80:80", "busybox", "true"])?;
    ensure!(
        low.code != 0 && low.stderr.contains("ip_unprivileged_port_start"),
        "{low:?}"
    );
    let resolv = user.ok(&["run", "--rm", "busybox", "cat", "/etc/resolv.conf"])?;
    ensure!(resolv.contains("10.0.2.3"), "{resolv}");

    // Exec, cp, volumes, commit, build, diff.
    let exec = user.ok(&["exec", "web", "sh", "-c", "id -u; cat /proc/self/uid_map"])?;
    ensure!(exec.starts_with("0\n"), "{exec}");
    let file = user.path("run/copied").display().to_string();
    user.ok(&["cp", "web:/www/index.html", &file])?;
    ensure!(std::fs::read_to_string(&file)? == "hello\n");
    std::fs::remove_file(&file)?;
    let volume = ["run", "--rm", "-v", "data:/data", "busybox", "sh", "-c"];
    let in_volume = |script| user.ok(&[&volume[..], &[script]].concat());
    in_volume("echo kept >/data/x; chown 5:5 /data/x")?;
    let kept = in_volume("cat /data/x; stat -c %u /data/x")?;
    ensure!(kept == "kept\n5\n", "{kept}");
    let context = user.path("home/context");
    sh(&format!(
        "mkdir {0}; printf 'FROM busybox\\nRUN rm /bin/vi; rm -r /root; mkdir /root; echo x >/root/y\\nCMD [\"cat\",\"/root/y\"]\\n' >{0}/Dockerfile; chown -R {1} {0}",
        context.display(),
        user.name
    ))?;
    user.ok(&["build", "-q", "-t", "built", &context.display().to_string()])?;
    ensure!(user.ok(&["run", "--rm", "built"])? == "x\n");
    let diff = user.ok(&["diff", "web"])?;
    ensure!(diff.contains("A /www/index.html"), "{diff}");
    let gone = user.lite(&["run", "--rm", "built", "ls", "/bin/vi"])?;
    ensure!(gone.code != 0, "{gone:?}");

    // What cannot be enforced is told.
    let limited = user.lite(&["run", "--rm", "-m", "64m", "busybox", "true"])?;
    ensure!(
        limited.code == 0 && limited.stderr.contains("memory limit"),
        "{limited:?}"
    );

    // A plain stop of the daemon leaves containers, and the next one finds them.
    user.end_parent(Signal::SIGTERM)?;
    ensure!(user.fetch("18080")? == "hello\n");
    user.start(&[])?;
    ensure!(user.ok(&["exec", "web", "cat", "/www/index.html"])? == "hello\n");
    user.stop_all()
}

#[test]
fn every_process_may_be_killed() -> Result<()> {
    let Some(mut user) = User::new("every_process_may_be_killed")? else {
        return Ok(());
    };
    user.start(&[])?;
    user.image()?;
    user.ok(&[
        "run", "-d", "--name", "web", "-p", "18081:80", "busybox", "sh", "-c", WEB,
    ])?;
    let started = user.ok(&[
        "inspect",
        "-f",
        "{{.State.StartedAt}} {{.State.Pid}}",
        "web",
    ])?;
    let answers = |user: &User| {
        eventually::within(QUICK, "the published port answers", || {
            ensure!(user.fetch("18081")? == "hello\n");
            Ok(())
        })
    };
    answers(&user)?;
    for words in [
        "rootless hold",
        "slirp4netns --",
        "dockerd-lite net ",
        "containerd-lite --root",
    ] {
        let former = user.kill_one(words)?;
        answers(&user)?;
        user.replaced(words, former)?;
    }
    let daemon = user.path("run/docker-lite/docker.pid");
    let pid: i32 = std::fs::read_to_string(daemon)?.trim().parse()?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    answers(&user)?;
    eventually::within(QUICK, "another daemon answers", || {
        http::ping(&user.socket())?;
        let now = std::fs::read_to_string(user.path("run/docker-lite/docker.pid"))?;
        ensure!(now.trim().parse::<i32>()? != pid);
        Ok(())
    })?;
    // The parent: nobody watches it here, so whoever starts it again finds everything.
    user.end_parent(Signal::SIGKILL)?;
    answers(&user)?;
    user.start(&[])?;
    let hold = user.kill_one("rootless hold")?;
    user.replaced("rootless hold", hold)?;
    answers(&user)?;
    let after = user.ok(&[
        "inspect",
        "-f",
        "{{.State.StartedAt}} {{.State.Pid}}",
        "web",
    ])?;
    ensure!(after == started, "{after} after {started}");
    user.stop_all()
}
