//! Bad input, a line a test: each gets a clear error with the right status, and nothing half-made stays behind.
//!
//! What a user types goes through the real docker CLI, what no CLI sends goes over the socket as it is. Every test ends
//! with the census that it began with.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::http::{Answer, ask, raw};
use integration::leaks::Census;
use integration::programs::{Output, command, run};
use integration::stack::{Stack, wait_end};
use integration::{eventually, images, programs};

/// A stack with busybox, what it holds before the bad input, and the check at the end.
struct Case {
    stack: Stack,
    before: Census,
}

impl Case {
    fn start() -> Result<Self> {
        Self::on(Stack::start()?)
    }

    fn on(stack: Stack) -> Result<Self> {
        images::busybox(&stack)?;
        let before = Census::take(stack.scope())?;
        Ok(Self { stack, before })
    }

    /// The docker CLI ends with `code` and says `text` on standard error.
    fn refused(&self, code: i32, text: &str, args: &[&str]) -> Result<Output> {
        let out = self.stack.docker(args)?.exits(code)?;
        ensure!(out.stderr.contains(text), "{args:?}: {:?}", out.stderr);
        Ok(out)
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Result<Answer> {
        ask(&self.stack.path("docker.sock"), method, path, body)
    }

    fn create(&self, body: &str, status: u16, text: &str) -> Result<()> {
        let answer = self.ask("POST", "/containers/create", body)?;
        is(&answer, status, text).with_context(|| body.to_owned())
    }

    /// No container but those that were named, and nothing more on the machine once they are removed.
    fn end(self, containers: &[&str]) -> Result<()> {
        let found = self.stack.docker(["ps", "-a", "--format", "{{.Names}}"])?;
        let mut found: Vec<_> = found.stdout.lines().collect();
        found.sort_unstable();
        ensure!(
            found == containers,
            "containers {found:?}, wanted {containers:?}"
        );
        if !containers.is_empty() {
            let remove = [&["rm", "-fv"], containers].concat();
            self.stack.docker(remove)?.exits(0)?;
        }
        self.before.flat_within(Duration::from_secs(10))?;
        self.stack.stop()
    }
}

/// The answer has the status, and its message says `text`.
fn is(answer: &Answer, status: u16, text: &str) -> Result<()> {
    ensure!(
        answer.status == status && answer.text().contains(text),
        "wanted {status} {text:?}, got {answer:?}"
    );
    ensure!(answer.text().starts_with("{\"message\":\""), "{answer:?}");
    Ok(())
}

#[test]
fn an_unknown_image() -> Result<()> {
    let case = Case::start()?;
    case.create(r#"{"Image":"nonesuch"}"#, 404, "No such image: nonesuch")?;
    case.refused(
        125,
        "No such image",
        &["run", "--pull", "never", "nonesuch", "true"],
    )?;
    case.refused(1, "No such image", &["rmi", "nonesuch"])?;
    case.refused(1, "No such image", &["save", "nonesuch"])?;
    case.create(r#"{"Image":"UPPER CASE"}"#, 400, "invalid reference format")?;
    case.end(&[])
}

#[test]
fn a_name_in_use() -> Result<()> {
    let case = Case::start()?;
    case.stack
        .docker(["create", "--name", "taken", "busybox"])?
        .exits(0)?;
    let again = ["create", "--name", "taken", "busybox"];
    case.refused(1, "already in use by container", &again)?;
    let answer = case.ask(
        "POST",
        "/containers/create?name=taken",
        r#"{"Image":"busybox"}"#,
    )?;
    is(&answer, 409, "already in use")?;
    let answer = case.ask("POST", "/containers/taken/rename?name=a/b", "")?;
    is(&answer, 400, "Invalid container name")?;
    case.end(&["taken"])
}

#[test]
fn a_bad_flag() -> Result<()> {
    let case = Case::start()?;
    case.refused(125, "unknown flag", &["run", "--nonesuch", "busybox"])?;
    for (text, flags) in [
        ("Minimum memory limit", ["-m", "1k"]),
        ("range of CPUs", ["--cpus", "1000"]),
        ("CPU cfs period", ["--cpu-period", "5"]),
        ("invalid capability", ["--cap-add", "NOPE"]),
        ("invalid restart policy", ["--restart", "sometimes"]),
        ("no log driver named", ["--log-driver", "nope"]),
        ("unknown or invalid runtime", ["--runtime", "nope"]),
        ("invalid IPC mode", ["--ipc", "nope"]),
        ("invalid volumes-from", ["--volumes-from", "nope"]),
        ("invalid signal", ["--stop-signal", "NOPE"]),
    ] {
        let args = [&["run"], flags.as_slice(), &["busybox", "true"]].concat();
        case.refused(125, text, &args)?;
    }
    // and by the daemon itself
    let config = programs::path("dockerd-lite")?;
    for (text, args) in [
        ("--nonesuch", vec!["--nonesuch"]),
        ("no log driver", vec!["--validate", "--log-driver", "nope"]),
    ] {
        let out = run(&mut command(&config, args), b"", Duration::from_secs(20))?;
        ensure!(out.code != 0 && out.stderr.contains(text), "{out:?}");
    }
    case.end(&[])
}

#[test]
fn bad_json_and_a_body_too_large() -> Result<()> {
    let case = Case::start()?;
    case.create(r#"{"Image":"busybox""#, 400, "invalid JSON")?;
    case.create(r#"{"Image":"busybox"} x"#, 400, "unexpected content")?;
    case.create(r#"{"Image":5}"#, 400, "invalid JSON")?;
    case.create("[]", 400, "invalid JSON")?;
    let deep = "[".repeat(100_000);
    case.create(&deep, 400, "invalid JSON")?;
    let empty = case.ask("POST", "/containers/create", "")?;
    is(&empty, 400, "Config cannot be empty")?;
    let large = " ".repeat(9 << 20);
    case.create(&large, 400, "longer than")?;
    let socket = case.stack.path("docker.sock");
    let kind = "Content-Type: text/plain\r\nContent-Length: 19\r\n";
    let path = "/containers/create";
    let answer = raw(&socket, "POST", path, kind, br#"{"Image":"busybox"}"#)?;
    is(&answer, 400, "unsupported Content-Type")?;
    let answer = case.ask("GET", "/containers/json?filters=%7B", "")?;
    is(&answer, 400, "invalid filter")?;
    case.end(&[])
}

/// An entry of a bad archive.
enum Entry<'a> {
    File(&'a str),
    Hardlink(&'a str, &'a str),
    Symlink(&'a str, &'a str),
    Device(&'a str),
}

/// Writes an archive with these entries, whatever they are.
fn tar(path: &Path, entries: &[Entry<'_>]) -> Result<()> {
    let mut bytes = Vec::new();
    for entry in entries {
        let (name, kind, link, data): (_, _, _, &[u8]) = match entry {
            Entry::File(name) => (name, b'0', "", b"x"),
            Entry::Hardlink(name, to) => (name, b'1', *to, b""),
            Entry::Symlink(name, to) => (name, b'2', *to, b""),
            Entry::Device(name) => (name, b'3', "", b""),
        };
        let mut block = [0_u8; 512];
        let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
        put(0, name.as_bytes());
        put(100, b"0000644\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, format!("{:011o}\0", data.len()).as_bytes());
        put(136, b"00000000000\0");
        put(148, b"        ");
        put(156, &[kind]);
        put(157, link.as_bytes());
        put(257, b"ustar\x0000");
        // /dev/mem
        put(329, b"0000001\0");
        put(337, b"0000001\0");
        let sum: u32 = block.iter().copied().map(u32::from).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes.extend_from_slice(&block);
        if !data.is_empty() {
            bytes.extend_from_slice(&[data, &vec![0; 512 - data.len()]].concat());
        }
    }
    bytes.extend_from_slice(&[0; 1024]);
    std::fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}

#[test]
fn a_bad_image_tar() -> Result<()> {
    let case = Case::start()?;
    let good = std::fs::read(case.stack.path("rootfs.tar"))?;
    let file = case.stack.path("bad.tar");
    let path = file.to_string_lossy().into_owned();
    let outside = case.stack.path("outside");
    std::fs::write(&outside, "mine")?;
    let out = outside.to_string_lossy();

    std::fs::write(&file, &good[..good.len() / 2])?;
    case.refused(1, "unexpected EOF", &["import", &path])?;
    case.refused(1, "unexpected EOF", &["load", "-i", &path])?;
    std::fs::write(&file, [0x93; 5000])?;
    case.refused(1, "invalid archive", &["import", &path])?;
    case.refused(1, "neither a manifest.json", &["load", "-i", "/dev/null"])?;
    for (text, entries) in [
        ("outside", vec![Entry::File("../../../../../../evil")]),
        ("outside", vec![Entry::File("a/../../evil")]),
        (
            "outside",
            vec![Entry::Hardlink("a", "../../../../../../etc/passwd")],
        ),
        ("not there", vec![Entry::Hardlink("a", &out)]),
        (
            "d",
            vec![
                Entry::Symlink("d", "/"),
                Entry::Hardlink("a", "d/etc/passwd"),
            ],
        ),
    ] {
        tar(&file, &entries)?;
        case.refused(1, text, &["import", &path, "bad"])?;
    }
    // Absolute names are names within the root.
    tar(&file, &[Entry::File(&out)])?;
    case.stack.docker(["import", &path, "absolute"])?.exits(0)?;
    ensure!(std::fs::read_to_string(&outside)? == "mine");
    case.stack.docker(["rmi", "absolute"])?.exits(0)?;
    // A device node is a file of the image; no container may open it.
    let merged = case.stack.path("image/mem");
    tar(&file, &[Entry::Device("mem")])?;
    ensure!(!merged.exists());
    let both = [&good[..good.len() - 1024], &std::fs::read(&file)?].concat();
    std::fs::write(&file, end_of_entries(&good, &both))?;
    case.stack.docker(["import", &path, "device"])?.exits(0)?;
    let read = ["run", "--rm", "device", "dd", "if=/mem", "bs=1", "count=1"];
    case.refused(1, "not permitted", &read)?;
    case.stack.docker(["rmi", "device"])?.exits(0)?;
    // Archives of `save` that name what is not in them.
    for layer in ["../../../../etc/passwd", "/etc/passwd", "lay"] {
        save_like(&case.stack, &file, layer)?;
        case.refused(1, "missing", &["load", "-i", &path])?;
    }
    std::fs::remove_dir_all(case.stack.path("save"))?;
    let images = case.stack.docker(["images", "-q"])?.exits(0)?;
    ensure!(images.stdout.lines().count() == 1, "{images:?}");
    case.end(&[])
}

/// `good` up to its end mark, then the entries of the archive that follows it in `both`.
fn end_of_entries(good: &[u8], both: &[u8]) -> Vec<u8> {
    let used = good
        .chunks(512)
        .rposition(|block| block.iter().any(|byte| *byte != 0))
        .map_or(0, |last| (last + 1) * 512);
    [&good[..used], &both[good.len() - 1024..]].concat()
}

/// An archive like that of `save` whose manifest names `layer`, which is a symlink out of it if it is there at all.
fn save_like(stack: &Stack, file: &Path, layer: &str) -> Result<()> {
    let dir = stack.path("save");
    std::fs::create_dir_all(&dir)?;
    std::fs::write(
        dir.join("manifest.json"),
        format!(r#"[{{"Config":"config.json","RepoTags":["bad:1"],"Layers":["{layer}"]}}]"#),
    )?;
    std::fs::write(
        dir.join("config.json"),
        r#"{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}"#,
    )?;
    let link = dir.join("lay");
    if !link.is_symlink() {
        std::os::unix::fs::symlink("/etc/passwd", &link)?;
    }
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(&dir).arg("-cf").arg(file).arg(".");
    run(&mut tar, b"", Duration::from_secs(20))?
        .exits(0)
        .map(drop)
}

#[test]
fn a_command_that_is_not_there_or_not_executable() -> Result<()> {
    let mut case = Case::start()?;
    // The first exec makes this folder, which stays.
    std::fs::create_dir(case.stack.path("exec/exec"))?;
    case.before = Census::take(case.stack.scope())?;
    let start = |name: &str| case.ask("POST", &format!("/containers/{name}/start"), "");
    case.refused(127, "not found", &["run", "--name=aa", "busybox", "none"])?;
    is(&start("aa")?, 400, "executable file not found")?;
    case.refused(127, "no such file", &["run", "--rm", "busybox", "/none"])?;
    let args = ["run", "--name=bb", "busybox", "/etc/passwd"];
    case.refused(126, "permission denied", &args)?;
    is(&start("bb")?, 400, "permission denied")?;
    case.refused(
        126,
        "permission denied",
        &["run", "--rm", "busybox", "/etc"],
    )?;
    let state = ["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}"];
    let seen = case.stack.docker([&state[..], &["aa", "bb"]].concat())?;
    ensure!(seen.stdout == "created 127\ncreated 126\n", "{seen:?}");
    case.stack
        .docker(["run", "-d", "--name=cc", "busybox", "sleep", "1000"])?
        .exits(0)?;
    case.refused(127, "not found", &["exec", "cc", "none"])?;
    case.refused(126, "permission denied", &["exec", "cc", "/etc/passwd"])?;
    case.end(&["aa", "bb", "cc"])
}

#[test]
fn a_bind_source_that_is_not_there() -> Result<()> {
    let case = Case::start()?;
    let missing = case.stack.path("missing");
    let mount = format!("type=bind,src={},dst=/x", missing.display());
    let args = ["run", "--mount", &mount, "busybox", "true"];
    case.refused(125, "bind source path does not exist", &args)?;
    ensure!(!missing.exists());
    // It may go away between create and start, too.
    std::fs::create_dir(&missing)?;
    let args = [
        "create",
        "--name=late",
        "--mount",
        &mount,
        "busybox",
        "true",
    ];
    case.stack.docker(args)?.exits(0)?;
    std::fs::remove_dir(&missing)?;
    case.refused(1, "does not exist", &["start", "late"])?;
    ensure!(!missing.exists());
    case.end(&["late"])
}

/// Runs a second dockerd-lite in the stack's network namespace until it ends by itself.
fn second_daemon(stack: &Stack, args: &[&str]) -> Result<Output> {
    let mut daemon = stack.in_namespace(&programs::path("dockerd-lite")?);
    run(daemon.args(args), b"", Duration::from_secs(30))
}

#[test]
fn a_socket_or_a_lock_that_another_daemon_holds() -> Result<()> {
    let case = Case::start()?;
    let stack = &case.stack;
    let path = |name: &str| stack.path(name).to_string_lossy().into_owned();
    let (data, exec, pid) = (path("data2"), path("exec2"), path("pid2"));
    let own = ["--data-root", &data, "--exec-root", &exec, "-p", &pid];
    // its socket
    let out = second_daemon(stack, &[&own[..], &["-H", &stack.host()]].concat())?;
    ensure!(
        out.code != 0 && out.stderr.contains("docker.sock"),
        "{out:?}"
    );
    // its data root
    let other = format!("unix://{}", path("other.sock"));
    let data = path("data");
    let roots = ["--data-root", &data, "--exec-root", &exec, "-p", &pid];
    let out = second_daemon(stack, &[&roots[..], &["-H", &other]].concat())?;
    let text = "used by another daemon";
    ensure!(out.code != 0 && out.stderr.contains(text), "{out:?}");
    // its pidfile
    let (data, pid) = (path("data2"), path("pid"));
    let roots = ["--data-root", &data, "--exec-root", &exec, "-p", &pid];
    let out = second_daemon(stack, &[&roots[..], &["-H", &other]].concat())?;
    ensure!(out.code != 0 && out.stderr.contains("alive"), "{out:?}");
    // the first one answers as before
    stack.docker(["run", "--rm", "busybox", "true"])?.exits(0)?;
    for left in ["data2", "exec2"] {
        // the roots of the refused daemon are the caller's wish; they hold nothing that lives
        match std::fs::remove_dir_all(stack.path(left)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
    }
    ensure!(!stack.path("other.sock").exists());
    case.end(&[])
}

#[test]
fn a_bridge_that_another_daemon_has() -> Result<()> {
    let mut stack = Stack::unstarted(&[])?;
    let ip = |args: &str| {
        let mut ip = stack.in_namespace(Path::new("ip"));
        run(ip.args(args.split(' ')), b"", Duration::from_secs(10))?.exits(0)
    };
    ip("link add docker0 type bridge")?;
    ip("addr add 172.17.0.1/16 dev docker0")?;
    ip("link set docker0 up")?;
    let theirs = ip("-o -4 addr show dev docker0")?.stdout;
    stack.start_daemon()?;
    let case = Case::on(stack)?;
    let out = case
        .stack
        .docker(["run", "--rm", "busybox", "ip", "-o", "-4", "addr"])?
        .exits(0)?;
    ensure!(
        out.stdout.contains("eth0") && !out.stdout.contains(" 172.17."),
        "{out:?}"
    );
    let mut ip = case.stack.in_namespace(Path::new("ip"));
    let args = ["-o", "-4", "addr", "show", "dev", "docker0"];
    let now = run(ip.args(args), b"", Duration::from_secs(10))?.stdout;
    ensure!(now == theirs, "docker0 was {theirs:?}, is {now:?}");
    case.end(&[])
}

#[test]
fn a_limit_that_the_kernel_refuses() -> Result<()> {
    let case = Case::start()?;
    let start = |flag: &str, value: &str, text: &str| {
        case.refused(
            125,
            text,
            &["run", "--name", "limited", flag, value, "busybox", "true"],
        )?;
        case.stack.docker(["rm", "limited"])?.exits(0)?;
        case.before.flat_within(Duration::from_secs(10))
    };
    start("--blkio-weight-device", "/dev/null:300", "/dev/null")?;
    start("--sysctl", "net.ipv4.ip_forward=nonsense", "ip_forward")?;
    // more bytes than the kernel counts
    case.stack
        .docker(["run", "-d", "--name=up", "busybox", "sleep", "1000"])?
        .exits(0)?;
    let answer = case.ask(
        "POST",
        "/containers/up/update",
        r#"{"CpuRealtimeRuntime":99999999,"CpuRealtimePeriod":1000000}"#,
    )?;
    ensure!((400..=500).contains(&answer.status), "{answer:?}");
    let state = ["inspect", "-f", "{{.State.Status}}", "up"];
    ensure!(case.stack.docker(state)?.stdout == "running\n");
    case.end(&["up"])
}

#[test]
fn a_full_disk() -> Result<()> {
    let mut stack = Stack::unstarted(&[])?;
    let data = stack.path("data");
    std::fs::create_dir(&data)?;
    let mut mount = command("mount", ["-t", "tmpfs", "-o", "size=64m,mode=700", "disk"]);
    run(mount.arg(&data), b"", Duration::from_secs(10))?.exits(0)?;
    stack.start_daemon()?;
    let case = Case::on(stack)?;
    let docker = |args: &[&str]| case.stack.docker(args);
    for name in ["aa", "bb", "cc"] {
        docker(&["run", "-d", "--name", name, "busybox", "sleep", "1000"])?.exits(0)?;
    }
    docker(&["create", "--name=dd", "busybox", "true"])?.exits(0)?;
    // The reserve is given up, and then the disk is filled again and again, as a container's log would.
    let filler = data.join("filler");
    let fill = || -> Result<()> {
        let mut file = std::fs::File::options()
            .append(true)
            .create(true)
            .open(&filler)?;
        for size in [1 << 20, 4096] {
            while std::io::Write::write_all(&mut file, &vec![1; size]).is_ok() {}
        }
        Ok(())
    };
    fill()?;
    // Reading goes on, and what exists can be stopped, killed and removed.
    let names = docker(&["ps", "-a", "--format", "{{.Names}}"])?.exits(0)?;
    ensure!(names.stdout.lines().count() == 4, "{names:?}");
    docker(&["stop", "-t", "1", "aa"])?.exits(0)?;
    fill()?;
    docker(&["kill", "bb"])?.exits(0)?;
    // Nothing new is half-made.
    for args in [
        &["create", "--name=ee", "busybox", "true"][..],
        &["volume", "create", "ee"],
        &[
            "import",
            &case.stack.path("rootfs.tar").to_string_lossy(),
            "e",
        ],
        &["cp", "/bin/busybox", "cc:/copy"],
    ] {
        fill()?;
        let out = docker(args)?;
        let said = ["o space left", "left on the disk", "full"]
            .iter()
            .any(|s| out.stderr.contains(s));
        ensure!(out.code == 1 && said, "{args:?}: {out:?}");
    }
    let body = r#"{"Image":"busybox","Cmd":["true"]}"#;
    let answer = case.ask("POST", "/containers/create?name=ee", body)?;
    ensure!(answer.status == 500, "{answer:?}");
    let volumes = docker(&["volume", "ls", "-q"])?.exits(0)?;
    ensure!(volumes.stdout.is_empty(), "{volumes:?}");
    fill()?;
    docker(&["rm", "aa", "bb", "dd"])?.exits(0)?;
    fill()?;
    docker(&["rm", "-f", "cc"])?.exits(0)?;
    std::fs::remove_file(&filler)?;
    case.before.flat_within(Duration::from_secs(10))?;
    // With room again all is as before.
    eventually::within(Duration::from_secs(20), "a container runs again", || {
        docker(&["run", "--rm", "busybox", "true"])?
            .exits(0)
            .map(drop)
    })?;
    // The mount goes with the stack: its daemons end first.
    drop(case);
    Ok(())
}

#[test]
fn a_daemon_with_a_bad_configuration_ends_at_once() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("daemon.json");
    let daemon = programs::path("dockerd-lite")?;
    for (text, body) in [
        ("nonesuch", r#"{"nonesuch": 1}"#),
        ("daemon.json", r#"{"debug": "#),
        ("expected a boolean", r#"{"debug": 7}"#),
    ] {
        std::fs::write(&file, body)?;
        let mut child = command(&daemon, ["--config-file"]);
        child.arg(&file).stderr(std::process::Stdio::piped());
        let mut child = child.spawn()?;
        wait_end(&mut child, Duration::from_secs(20))?;
        let out = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        ensure!(!out.status.success() && said.contains(text), "{said:?}");
    }
    Ok(())
}
