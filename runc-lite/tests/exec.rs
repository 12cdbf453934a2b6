//! exec: identity, environment, files, and what it refuses; terminals.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use serde_json::json;
use support::Bundle;

#[test]
fn options_change_the_containers_process() {
    if !support::possible() {
        return;
    }
    let b = Bundle::new("sleep 100");
    b.start();
    let script = "id -u; id -g; id -G; pwd; echo $A $B $HOME; exit 7";
    let said = b.call(&[
        "exec",
        "-u",
        "1000:1001",
        "-g",
        "5",
        "--cwd",
        "/tmp",
        "-e",
        "A=1",
        "--env",
        "B=2",
        &b.id,
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(said.code(7).out, "1000\n1001\n1001 5\n/tmp\n1 2 /home/u\n");
    let caps = b
        .call(&[
            "exec",
            "--cap",
            "CAP_NET_RAW",
            &b.id,
            "grep",
            "CapEff",
            "/proc/self/status",
        ])
        .code(0)
        .out;
    let bits = u64::from_str_radix(caps.split_whitespace().nth(1).unwrap(), 16).unwrap();
    assert_ne!(bits & (1 << 13), 0, "{caps}");
    b.call(&["exec", &b.id])
        .code(255)
        .says("process args cannot be empty");
    b.call(&["exec", "-u", "x", &b.id, "true"])
        .code(255)
        .says("parsing x as int");
}

#[test]
fn a_process_comes_from_a_file() {
    if !support::possible() {
        return;
    }
    let b = Bundle::new("sleep 100");
    b.start();
    let process = json!({"args": ["sh", "-c", "echo $X; pwd"], "cwd": "/etc", "env": ["X=y", "PATH=/bin"], "user": {"uid": 0, "gid": 0}});
    std::fs::write(b.dir.path().join("p.json"), process.to_string()).unwrap();
    assert_eq!(
        b.call(&["exec", "--process", "p.json", &b.id]).code(0).out,
        "y\n/etc\n"
    );
    std::fs::write(b.dir.path().join("p.json"), "{").unwrap();
    b.call(&["exec", "-p", "p.json", &b.id])
        .code(255)
        .says("parse process file p.json");
}

#[test]
fn detached_with_a_pid_file_that_tells_the_hosts_pid() {
    if !support::possible() {
        return;
    }
    let b = Bundle::new("sleep 100");
    b.start();
    let mut command = b.command(&["exec", "-d", "--pid-file", "pid", &b.id, "sleep", "77"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    assert!(command.status().unwrap().success());
    let pid = std::fs::read_to_string(b.dir.path().join("pid")).unwrap();
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(line, "sleep\u{0}77\u{0}");
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(cgroup.contains(&b.id), "{cgroup}");
}

#[test]
fn streams_pass_through() {
    if !support::possible() {
        return;
    }
    let b = Bundle::new("sleep 100");
    b.start();
    let mut child = b
        .command(&["exec", &b.id, "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"through\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "through\n");
}

#[test]
fn only_preserved_descriptors_reach_the_program() {
    if !support::possible() {
        return;
    }
    let b = Bundle::new("ls /proc/self/fd");
    let listed = |said: support::Said| said.code(0).out.split_whitespace().count();
    // Three streams, and the directory that ls itself opens.
    assert_eq!(listed(b.run()), 4);
    // One more is passed on where it is asked for.
    let root = b.state_root();
    let run = |options: &str| {
        let line = format!(
            "exec 3</dev/null 4</dev/null; exec timeout 20 {} --root {} run {options} {}",
            env!("CARGO_BIN_EXE_runc-lite"),
            root.display(),
            b.id
        );
        let output = std::process::Command::new("/bin/sh")
            .args(["-c", &line])
            .current_dir(b.dir.path())
            .output();
        support::Said::from(output.unwrap())
    };
    assert_eq!(listed(run("")), 4);
    assert_eq!(listed(run("--preserve-fds 2")), 6);
    run("--preserve-fds 3")
        .code(1)
        .says("preserve descriptor 5");
}

#[test]
fn a_leaked_directory_is_no_way_out() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new("sleep 100");
    b.start();
    for fd in 3..12 {
        let cwd = format!("/proc/self/fd/{fd}");
        let said = b.call(&["exec", "--cwd", &cwd, &b.id, "pwd"]);
        assert_ne!(said.code, 0, "{cwd}: {}", said.out);
    }
    b.call(&["delete", "--force", &b.id]).code(0);
    for fd in 3..12 {
        b.config["process"]["cwd"] = format!("/proc/self/fd/{fd}").into();
        b.config["process"]["args"] = json!(["pwd"]);
        let said = b.run();
        // The runtime's own descriptor of the new root is inside.
        assert!(said.code != 0 || said.out == "/\n", "fd {fd}: {}", said.out);
    }
}

/// A console socket; gives the master side once.
struct Console {
    listener: UnixListener,
    path: String,
}

impl Console {
    fn new(b: &Bundle) -> Self {
        let path = b.dir.path().join("console.sock");
        let listener = UnixListener::bind(&path).unwrap();
        Self {
            listener,
            path: path.to_str().unwrap().to_owned(),
        }
    }

    fn master(&self) -> std::fs::File {
        let (stream, _) = self.listener.accept().unwrap();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 64];
        let mut iov = [std::io::IoSliceMut::new(&mut bytes)];
        rustix::net::recvmsg(
            stream.as_fd(),
            &mut iov,
            &mut control,
            rustix::net::RecvFlags::CMSG_CLOEXEC,
        )
        .unwrap();
        let message = control.drain().next().unwrap();
        let rustix::net::RecvAncillaryMessage::ScmRights(mut fds) = message else {
            panic!("no descriptor")
        };
        std::fs::File::from(fds.next().unwrap())
    }
}

/// All that comes until the other side closes.
fn text(mut master: std::fs::File) -> String {
    let mut text = Vec::new();
    // EIO is how a terminal ends.
    let _ = master.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn terminals_through_a_console_socket() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new("tty; stty size; stat -c %t,%T /dev/console; test -t 0 && sleep 2");
    b.config["process"]["terminal"] = true.into();
    b.config["process"]["consoleSize"] = json!({"height": 33, "width": 77});
    b.create()
        .code(1)
        .says("cannot allocate tty if runc-lite will detach without setting console socket");
    let console = Console::new(&b);
    b.create_with(&["--console-socket", &console.path]).code(0);
    let master = console.master();
    b.call(&["start", &b.id]).code(0);
    b.call(&[
        "exec",
        "-d",
        "-t",
        "--console-socket",
        &console.path,
        &b.id,
        "sh",
        "-c",
        "tty; echo second",
    ])
    .code(0);
    assert_eq!(text(console.master()), "/dev/pts/1\r\nsecond\r\n");
    assert_eq!(text(master), "/dev/pts/0\r\n33 77\r\n88,0\r\n");
}

#[test]
fn errors_of_programs_have_the_words_callers_look_for() {
    if !support::possible() {
        return;
    }
    let b = Bundle::new("sleep 100");
    b.start();
    for (program, text) in [
        (
            "nope",
            "exec: \\\"nope\\\": executable file not found in $PATH",
        ),
        ("/nope", "stat /nope: no such file or directory"),
        ("/etc", "exec: \\\"/etc\\\": permission denied"),
        (
            "/etc/passwd",
            "exec: \\\"/etc/passwd\\\": permission denied",
        ),
    ] {
        b.call(&["exec", &b.id, program])
            .code(255)
            .says("unable to start container process")
            .says(text);
    }
}

#[test]
fn the_runtime_cannot_be_reached_through_proc_self_exe() {
    if !support::possible() {
        return;
    }
    let binary = env!("CARGO_BIN_EXE_runc-lite");
    let before = std::fs::read(binary).unwrap();
    // The program is a link to what executes it, or a script for it.
    let mut b = Bundle::new("true");
    std::os::unix::fs::symlink("/proc/self/exe", b.rootfs().join("bin/self")).unwrap();
    let script = b.rootfs().join("bin/script");
    std::fs::write(&script, "#!/proc/self/exe --version\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    for program in ["/proc/self/exe", "/bin/self", "/bin/script"] {
        b.config["process"]["args"] = json!([program, "--version"]);
        b.run().code(1).says("permission denied");
    }
    // Others in the container wait for a process that still is the runtime.
    let grab = "while :; do for p in /proc/[0-9]*; do echo owned > $p/exe; done; done 2>/dev/null";
    let d = Bundle::new(grab);
    d.start();
    for _ in 0..20 {
        d.call(&["exec", &d.id, "sh", "-c", "echo x > /proc/self/exe; true"])
            .code(0);
    }
    assert!(before == std::fs::read(binary).unwrap());
}

#[test]
fn cpus_and_sockets_are_handed_on() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new("sleep 100");
    b.config["process"]["execCPUAffinity"] = json!({"initial": "0", "final": "0"});
    b.start();
    let cpus = b
        .exec("grep Cpus_allowed_list /proc/self/status")
        .code(0)
        .out;
    assert_eq!(cpus.split_whitespace().nth(1), Some("0"), "{cpus}");
    let line = format!(
        "exec 3</dev/null; LISTEN_FDS=1 exec timeout 20 {} --root {} exec {} sh -c 'echo $LISTEN_FDS $LISTEN_PID; ls /proc/self/fd | wc -l'",
        env!("CARGO_BIN_EXE_runc-lite"),
        b.state_root().display(),
        b.id
    );
    let output = std::process::Command::new("/bin/sh")
        .args(["-c", &line])
        .output()
        .unwrap();
    assert_eq!(support::Said::from(output).code(0).out, "1 1\n5\n");
}

#[test]
fn the_hosts_null_device_becomes_the_containers() {
    if !support::possible() {
        return;
    }
    let b = Bundle::new("exec sleep 60");
    b.start();
    let pid = b.state()["pid"].to_string();
    use std::os::unix::fs::MetadataExt as _;
    let host = std::fs::metadata("/dev/null").unwrap().dev();
    for number in 0..3 {
        let stream = std::fs::metadata(format!("/proc/{pid}/fd/{number}")).unwrap();
        assert_ne!(stream.dev(), host, "stream {number}");
    }
    // Of an exec as well; a pipe stays what it is.
    let said = b.exec("stat -L -c %d /proc/self/fd/0 /dev/null; readlink /proc/self/fd/1");
    let out = said.code(0).out;
    let mut lines = out.lines();
    assert_eq!(lines.next(), lines.next(), "{out}");
    assert!(out.contains("pipe:"), "{out}");
}
