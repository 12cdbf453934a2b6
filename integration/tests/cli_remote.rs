//! Daemons that are elsewhere: by ssh through a real sshd, and by TLS with a real dockerd, for docker-lite and docker's CLI; and
//! what both say when the way is wrong.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::programs::{self, Output, command, run};
use integration::stack::{Stack, send};
use integration::{eventually, images, peers, require};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(60);

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn tool(program: &str, args: &[&str]) -> Result<Output> {
    run(&mut command(program, args), b"", LIMIT)?.exits(0)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// An sshd on loopback with keys of its own, and an `ssh` in PATH that knows it as `box`.
struct Sshd {
    dir: tempfile::TempDir,
    child: Child,
    port: u16,
}

impl Sshd {
    /// `socket` is the daemon that is meant at the other end when nobody says otherwise.
    fn start(socket: &str, clis: &[PathBuf]) -> Result<Sshd> {
        let dir = tempfile::Builder::new().prefix("ssh.").tempdir()?;
        let path = |name: &str| dir.path().join(name);
        let port = free_port()?;
        for key in ["host", "other", "client"] {
            tool(
                "ssh-keygen",
                &["-q", "-t", "ed25519", "-N", "", "-f", &text(&path(key))],
            )?;
        }
        std::fs::create_dir_all(path("bin"))?;
        for cli in clis {
            let name = cli.file_name().context("name of a CLI")?;
            std::os::unix::fs::symlink(cli, path("bin").join(name))?;
        }
        std::fs::copy(path("client.pub"), path("authorized"))?;
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {host}\nAuthorizedKeysFile {authorized}\nPidFile none\n\
             UsePAM no\nStrictModes no\nPermitRootLogin yes\nLogLevel VERBOSE\nMaxSessions 100\n\
             SetEnv DOCKER_HOST={socket} PATH={bin}:/usr/local/bin:/usr/bin:/bin\n",
            host = text(&path("host")),
            authorized = text(&path("authorized")),
            bin = text(&path("bin")),
        );
        std::fs::write(path("sshd_config"), config)?;
        std::fs::write(
            path("ssh_config"),
            format!(
                "Host box\n HostName 127.0.0.1\n Port {port}\nHost *\n User root\n IdentityFile {key}\n IdentitiesOnly yes\n\
                 UserKnownHostsFile {known}\n GlobalKnownHostsFile /dev/null\n StrictHostKeyChecking yes\n BatchMode yes\n",
                key = text(&path("client")),
                known = text(&path("known")),
            ),
        )?;
        let ssh = require::peer("ssh")?;
        let wrapper = path("path");
        std::fs::create_dir_all(&wrapper)?;
        let wrapper = wrapper.join("ssh");
        std::fs::write(
            &wrapper,
            format!(
                "#!/bin/sh\nexec {} -F {} \"$@\"\n",
                ssh.display(),
                text(&path("ssh_config"))
            ),
        )?;
        std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755))?;
        std::fs::create_dir_all(path("run"))?;
        // where sshd wants to find an empty folder
        std::fs::create_dir_all("/run/sshd")?;
        let child = Command::new(require::peer("sshd")?)
            .args([
                "-D",
                "-f",
                &text(&path("sshd_config")),
                "-E",
                &text(&path("log")),
            ])
            .stdin(Stdio::null())
            .spawn()
            .context("start sshd")?;
        let sshd = Sshd { dir, child, port };
        sshd.knows("host")?;
        eventually::within(Duration::from_secs(10), "sshd listens", || {
            std::net::TcpStream::connect(("127.0.0.1", sshd.port))
                .map(drop)
                .context("connect")
        })?;
        Ok(sshd)
    }

    /// The client trusts this key for the machine.
    fn knows(&self, key: &str) -> Result<()> {
        let public = std::fs::read_to_string(self.dir.path().join(format!("{key}.pub")))?;
        let line = format!("[127.0.0.1]:{} {public}", self.port);
        std::fs::write(self.dir.path().join("known"), line)?;
        Ok(())
    }

    /// A CLI whose ssh is ours.
    fn client(&self, cli: &Path, args: &[&str]) -> Command {
        let mut command = command(cli, args);
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env(
                "PATH",
                format!("{}:{path}", text(&self.dir.path().join("path"))),
            )
            .env("XDG_RUNTIME_DIR", self.dir.path().join("run"))
            .env("DOCKER_CONFIG", self.dir.path().join("config"))
            .env_remove("DOCKER_HOST")
            .env_remove("DOCKER_CONTEXT");
        command
    }

    fn runs(&self, cli: &Path, args: &[&str]) -> Result<Output> {
        run(&mut self.client(cli, args), b"", LIMIT)
    }

    /// How many connections were let in so far.
    fn accepted(&self) -> Result<usize> {
        let log = std::fs::read_to_string(self.dir.path().join("log"))?;
        Ok(log
            .lines()
            .filter(|line| line.contains("Accepted publickey"))
            .count())
    }

    /// Ends the connections that wait for more commands.
    fn close(&self) {
        let sockets = std::fs::read_dir(self.dir.path().join("run/docker-lite"));
        for socket in sockets.into_iter().flatten().flatten() {
            // it may have ended
            let _ = tool("ssh", &["-O", "exit", "-S", &text(&socket.path()), "box"]);
        }
    }

    /// The processes of sshd that serve a connection.
    fn sessions(&self) -> Result<Vec<u32>> {
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        Ok(std::fs::read_to_string(children)?
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.close();
        let sessions = self.sessions().unwrap_or_default();
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in sessions {
            let _ = send(pid, Signal::SIGTERM);
        }
    }
}

/// docker-lite, and docker's CLI if it is new enough to speak to all daemons.
fn clis() -> Result<Vec<PathBuf>> {
    Ok(vec![
        programs::path("docker-lite")?,
        require::peer("docker")?,
    ])
}

/// The form in which both tell that ssh did not work.
fn is_told(out: &Output, why: &str) -> Result<()> {
    ensure!(out.code == 1, "{out:?}");
    for part in [
        "rror during connect: ",
        "] has exited with exit status 255, ",
        "make sure the URL is valid, and Docker 18.09 or later is installed on the remote host: stderr=",
        why,
    ] {
        ensure!(out.stderr.contains(part), "no {part:?} in {:?}", out.stderr);
    }
    Ok(())
}

#[test]
fn by_ssh() -> Result<()> {
    let stack = Stack::start()?;
    images::busybox(&stack)?;
    let clis = clis()?;
    let sshd = Sshd::start(&stack.host(), &clis)?;
    let real = peers::Dockerd::start(&[])?;
    let real = format!("ssh://box{}", real.host().trim_start_matches("unix://"));
    for cli in &clis {
        let what = || cli.display().to_string();
        let out = sshd.runs(
            cli,
            &[
                "-H",
                "ssh://box",
                "run",
                "--rm",
                "busybox",
                "sh",
                "-c",
                "echo hi; exit 4",
            ],
        )?;
        ensure!(
            (out.code, out.stdout.as_str()) == (4, "hi\n"),
            "{}: {out:?}",
            what()
        );
        let piped = run(
            &mut sshd.client(
                cli,
                &[
                    "-H",
                    "ssh://box",
                    "run",
                    "--rm",
                    "-i",
                    "busybox",
                    "wc",
                    "-c",
                ],
            ),
            b"12345",
            LIMIT,
        )?;
        ensure!(piped.stdout.trim() == "5", "{}: {piped:?}", what());
        // a real dockerd, by the path of its socket
        let version = ["-H", &real, "version", "-f", "{{.Server.Version}}"];
        let version = sshd.runs(cli, &version)?.exits(0)?;
        ensure!(
            version.stdout.starts_with(|c: char| c.is_ascii_digit()),
            "{}: {version:?}",
            what()
        );
        is_told(
            &sshd.runs(cli, &["-H", "ssh://127.0.0.1:1", "ps"])?,
            "Connection refused",
        )?;
        sshd.close();
        sshd.knows("other")?;
        is_told(
            &sshd.runs(cli, &["-H", "ssh://box", "ps"])?,
            "Host key verification failed",
        )?;
        sshd.knows("host")?;
    }
    let lite = &clis[0];
    sshd.close();
    let before = sshd.accepted()?;
    for _ in 0..50 {
        sshd.runs(lite, &["-H", "ssh://box", "ps", "-q"])?
            .exits(0)?;
    }
    let connections = sshd.accepted()? - before;
    ensure!(
        connections == 1,
        "50 commands took {connections} connections"
    );
    killed_ssh(&stack, &sshd, lite)?;
    drop(sshd);
    stack.stop()
}

/// A stream outlives its ssh; a command that cannot go on says what broke.
fn killed_ssh(stack: &Stack, sshd: &Sshd, lite: &Path) -> Result<()> {
    let script = "i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo $i; sleep 0.03; done";
    stack
        .lite([
            "run", "-d", "--name", "counts", "busybox", "sh", "-c", script,
        ])?
        .exits(0)?;
    let out = stack.path("ssh.out");
    let mut logs = sshd
        .client(lite, &["-H", "ssh://box", "logs", "-f", "counts"])
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&out)?)
        .stderr(std::fs::File::create(stack.path("ssh.err"))?)
        .spawn()?;
    eventually::within(LIMIT, "lines come", || {
        ensure!(std::fs::read_to_string(&out)?.contains("5\n"), "none yet");
        Ok(())
    })?;
    for pid in sshd.sessions()? {
        send(pid, Signal::SIGKILL)?;
    }
    let status = eventually::within(LIMIT, "logs ends", || logs.try_wait()?.context("it runs"));
    if status.is_err() {
        logs.kill()?;
    }
    ensure!(status?.code() == Some(0), "logs -f over a killed ssh");
    let all: String = (1..=100).map(|i| format!("{i}\n")).collect();
    let got = std::fs::read_to_string(&out)?;
    ensure!(got == all, "lines lost or doubled: {got:?}");

    let mut exec = sshd
        .client(lite, &["-H", "ssh://box", "events"])
        .env("DOCKER_LITE_RECONNECT", "0")
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(stack.path("exec.out"))?)
        .stderr(std::fs::File::create(stack.path("exec.err"))?)
        .spawn()?;
    eventually::within(LIMIT, "events are listened to", || {
        stack.lite(["volume", "create"])?.exits(0)?;
        let told = std::fs::read_to_string(stack.path("exec.out"))?;
        ensure!(told.contains("volume create"), "{told:?}");
        Ok(())
    })?;
    for pid in sshd.sessions()? {
        send(pid, Signal::SIGKILL)?;
    }
    let status = eventually::within(LIMIT, "events ends", || exec.try_wait()?.context("it runs"));
    if status.is_err() {
        exec.kill()?;
    }
    ensure!(status?.code() == Some(125), "events after a killed ssh");
    let err = std::fs::read_to_string(stack.path("exec.err"))?;
    ensure!(err.contains("the daemon at ssh://box went away"), "{err:?}");
    Ok(())
}

/// A CA with a server's and a client's certificate, made by openssl.
fn certificates(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let path = |name: &str| text(&dir.join(name));
    tool(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=ca",
            "-keyout",
            &path("ca-key.pem"),
            "-out",
            &path("ca.pem"),
        ],
    )?;
    for (name, more) in [
        (
            "server",
            "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n",
        ),
        ("client", "extendedKeyUsage=clientAuth\n"),
    ] {
        std::fs::write(dir.join("more"), more)?;
        tool(
            "openssl",
            &[
                "req",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-subj",
                &format!("/CN={name}"),
                "-keyout",
                &path(&format!("{name}-key.pem")),
                "-out",
                &path("request"),
            ],
        )?;
        tool(
            "openssl",
            &[
                "x509",
                "-req",
                "-days",
                "2",
                "-in",
                &path("request"),
                "-CA",
                &path("ca.pem"),
                "-CAkey",
                &path("ca-key.pem"),
                "-CAcreateserial",
                "-extfile",
                &path("more"),
                "-out",
                &path(&format!("{name}.pem")),
            ],
        )?;
    }
    Ok(())
}

#[test]
fn by_tls() -> Result<()> {
    let dir = tempfile::Builder::new().prefix("tls.").tempdir()?;
    let (good, other) = (dir.path().join("good"), dir.path().join("other"));
    certificates(&good)?;
    certificates(&other)?;
    let at = |set: &Path, name: &str| text(&set.join(name));
    let (ca, cert, key) = (
        at(&good, "ca.pem"),
        at(&good, "server.pem"),
        at(&good, "server-key.pem"),
    );
    let port = 2376;
    let host = format!("tcp://127.0.0.1:{port}");
    let real = peers::Dockerd::start(&[
        "-H",
        &host,
        "--tlsverify",
        "--tlscacert",
        &ca,
        "--tlscert",
        &cert,
        "--tlskey",
        &key,
    ])?;
    let asks = |cli: &Path, host: &str, ca: &Path, client: &Path| -> Result<Output> {
        let mut ask = Command::new("nsenter");
        ask.arg(format!("--net=/proc/{}/ns/net", real.pid()))
            .arg("--")
            .arg(cli)
            .args(["-H", host, "--tlsverify", "--tlscacert", &at(ca, "ca.pem")])
            .args([
                "--tlscert",
                &at(client, "client.pem"),
                "--tlskey",
                &at(client, "client-key.pem"),
            ])
            .args(["version", "-f", "{{.Server.Version}}"])
            .env("DOCKER_CONFIG", dir.path().join("config"))
            .env_remove("DOCKER_HOST");
        run(&mut ask, b"", LIMIT)
    };
    for cli in &clis()? {
        let what = || cli.display().to_string();
        let out = asks(cli, &host, &good, &good)?;
        ensure!(
            out.code == 0 && !out.stdout.trim().is_empty(),
            "{}: {out:?}",
            what()
        );
        for (ca, client, why) in [
            (
                &other,
                &good,
                "x509: certificate signed by unknown authority",
            ),
            (&good, &other, "remote error: tls: "),
        ] {
            let out = asks(cli, &host, ca, client)?;
            ensure!(
                out.code == 1 && out.stderr.contains(why),
                "{}: no {why:?} in {out:?}",
                what()
            );
        }
        let name = format!("tcp://localhost:{port}");
        let out = asks(cli, &name, &good, &good)?;
        let why = "x509: certificate is ";
        ensure!(
            out.code == 1 && out.stderr.contains(why),
            "{}: no {why:?} in {out:?}",
            what()
        );
        let out = asks(cli, "tcp://127.0.0.1:1", &good, &good)?;
        let why = "Cannot connect to the Docker daemon at tcp://127.0.0.1:1. Is the docker daemon running?";
        ensure!(
            out.code == 1 && out.stderr.contains(why),
            "{}: {out:?}",
            what()
        );
        let mut plain = Command::new("nsenter");
        plain
            .arg(format!("--net=/proc/{}/ns/net", real.pid()))
            .arg("--")
            .arg(cli)
            .args(["-H", &host, "ps"])
            .env("DOCKER_CONFIG", dir.path().join("config"));
        let out = run(&mut plain, b"", LIMIT)?;
        let why = "Client sent an HTTP request to an HTTPS server.";
        ensure!(
            out.code == 1 && out.stderr.contains(why),
            "{}: {out:?}",
            what()
        );
    }
    Ok(())
}
