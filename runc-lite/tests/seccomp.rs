//! The filter on system calls, as a program in the container meets it.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod support;

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};
use support::container::Container;
use support::possible;

fn filter(seccomp: Value) -> impl FnOnce(&mut Value) {
    move |config| config["linux"]["seccomp"] = seccomp
}

fn rule(names: &[&str], action: &str) -> Value {
    json!({"names": names, "action": action})
}

/// A profile that allows all but what is given.
fn refusing(rules: Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})
}

#[test]
fn refused_calls_fail_with_the_errno_asked_for() {
    if !possible() {
        return;
    }
    for (errno, text) in [
        (json!(null), "Operation not permitted"),
        (json!(28), "No space left on device"),
    ] {
        let rule =
            json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno});
        let c = Container::new("mkdir /tmp/x", filter(refusing(json!([rule]))));
        let (out, code) = c.run();
        assert!(out.contains(text) && code == Some(1), "{code:?} {out}");
    }
}

#[test]
fn without_no_new_privileges_it_is_in_force_as_well() {
    if !possible() {
        return;
    }
    let c = Container::new(
        "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status; mkdir /tmp/x",
        |config| {
            config["process"]["noNewPrivileges"] = json!(false);
            filter(refusing(json!([rule(
                &["mkdir", "mkdirat"],
                "SCMP_ACT_ERRNO"
            )])))(config);
        },
    );
    let (out, code) = c.run();
    assert!(
        out.contains("NoNewPrivs:\t0") && out.contains("Seccomp:\t2"),
        "{out}"
    );
    assert_eq!(code, Some(1));
}

#[test]
fn killing_actions_kill() {
    if !possible() {
        return;
    }
    for action in [
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_TRAP",
    ] {
        let c = Container::new(
            "exec mkdir /tmp/x",
            filter(refusing(json!([rule(&["mkdir", "mkdirat"], action)]))),
        );
        let (out, code) = c.run();
        assert_eq!(code, Some(128 + 31), "{action}: {out}");
    }
}

/// As the kernel is called: only strace shows them all.
#[test]
fn flags_are_handed_to_the_kernel() {
    let strace = std::process::Command::new("strace").arg("-V").output();
    if !possible() || (strace.is_err() && support::skip("needs strace")) {
        return;
    }
    for (flags, shown) in [
        (json!(null), "SECCOMP_FILTER_FLAG_SPEC_ALLOW"),
        (json!([]), "0"),
        (
            json!(["SECCOMP_FILTER_FLAG_LOG"]),
            "SECCOMP_FILTER_FLAG_LOG",
        ),
        (
            json!(["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"]),
            "SECCOMP_FILTER_FLAG_TSYNC|SECCOMP_FILTER_FLAG_LOG",
        ),
    ] {
        let c = Container::new("true", |config| {
            let mut profile = refusing(json!([rule(&["mkdir"], "SCMP_ACT_ERRNO")]));
            profile["flags"] = flags.clone();
            filter(profile)(config);
        });
        let log = c.dir.path().join("calls");
        let status = std::process::Command::new("strace")
            .args(["-f", "-e", "trace=seccomp", "-o"])
            .arg(&log)
            .arg(env!("CARGO_BIN_EXE_runc-lite"))
            .arg("--root")
            .arg(c.dir.path().join("state"))
            .args(["run", &c.id])
            .current_dir(c.bundle())
            .stdin(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        let calls = std::fs::read_to_string(&log).unwrap();
        let wanted = format!("SECCOMP_SET_MODE_FILTER, {shown}, ");
        assert!(calls.contains(&wanted), "no {wanted:?} in {calls}");
    }
}

#[test]
fn arguments_decide() {
    if !possible() {
        return;
    }
    let rule = json!({"names": ["kill"], "action": "SCMP_ACT_ERRNO",
        "args": [{"index": 1, "value": 0, "op": "SCMP_CMP_EQ"}]});
    let c = Container::new(
        "kill -0 $$ || echo refused; kill -CONT $$ && echo allowed",
        filter(refusing(json!([rule]))),
    );
    let (out, _) = c.run();
    assert!(out.contains("refused") && out.contains("allowed"), "{out}");
}

/// Everything that busybox's shell and the runtime itself need, and more.
fn usual() -> Vec<&'static str> {
    vec![
        "read",
        "write",
        "open",
        "openat",
        "close",
        "stat",
        "lstat",
        "fstat",
        "newfstatat",
        "statx",
        "poll",
        "lseek",
        "mmap",
        "mprotect",
        "munmap",
        "brk",
        "rt_sigaction",
        "rt_sigprocmask",
        "rt_sigreturn",
        "ioctl",
        "pread64",
        "access",
        "pipe",
        "pipe2",
        "select",
        "dup",
        "dup2",
        "dup3",
        "getpid",
        "gettid",
        "socketpair",
        "sendmsg",
        "recvmsg",
        "sendto",
        "recvfrom",
        "clone",
        "fork",
        "vfork",
        "execve",
        "exit",
        "exit_group",
        "wait4",
        "kill",
        "uname",
        "fcntl",
        "getdents64",
        "getcwd",
        "chdir",
        "mkdir",
        "readlink",
        "readlinkat",
        "umask",
        "getuid",
        "getgid",
        "geteuid",
        "getegid",
        "getppid",
        "setsid",
        "setpgid",
        "getpgrp",
        "prlimit64",
        "arch_prctl",
        "set_tid_address",
        "set_robust_list",
        "rseq",
        "getrandom",
        "prctl",
        "futex",
        "capset",
        "capget",
        "setuid",
        "setgid",
        "setgroups",
        "setresuid",
        "setresgid",
        "close_range",
        "openat2",
        "fchown",
        "fstatfs",
        "writev",
        "faccessat",
        "faccessat2",
        "sched_yield",
        "tgkill",
        "no_such_call_ever",
    ]
}

#[test]
fn a_profile_of_allowances_works_and_newer_calls_do_not_exist() {
    if !possible() {
        return;
    }
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 28,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        "syscalls": [rule(&usual(), "SCMP_ACT_ALLOW")]});
    let c = Container::new(
        "echo alive; mkdir /tmp/x && echo made; mknod /tmp/y p",
        filter(profile),
    );
    let (out, _) = c.run();
    assert!(
        out.contains("alive") && out.contains("made") && out.contains("No space left on device"),
        "{out}"
    );
}

#[test]
fn exec_is_filtered_too() {
    if !possible() {
        return;
    }
    let c = Container::new(
        "sleep 100",
        filter(refusing(json!([rule(
            &["mkdir", "mkdirat"],
            "SCMP_ACT_ERRNO"
        )]))),
    );
    c.start();
    let text = c.fails(&["exec", &c.id, "mkdir", "/tmp/x"]);
    assert!(text.contains("Operation not permitted"), "{text}");
}

#[test]
fn bad_profiles_are_refused_before_anything_is_made() {
    if !possible() {
        return;
    }
    for (profile, word) in [
        (
            json!({"defaultAction": "SCMP_ACT_PERHAPS"}),
            "SCMP_ACT_PERHAPS",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
            "default action",
        ),
        (
            refusing(json!([rule(&["write"], "SCMP_ACT_NOTIFY")])),
            "write",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_VAX"]}),
            "SCMP_ARCH_VAX",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["FLAG"]}),
            "FLAG",
        ),
    ] {
        let c = Container::new("true", filter(profile));
        let text = c.fails(&["run", &c.id]);
        assert!(text.contains(word), "{word}: {text}");
        assert!(c.cgroups_left().is_empty());
    }
}

/// Receives the message and the descriptors of one connection.
fn receive(listener: &UnixListener) -> (Value, Vec<OwnedFd>) {
    let (stream, _) = listener.accept().unwrap();
    let mut text = Vec::new();
    let mut fds = Vec::new();
    loop {
        let mut bytes = [0u8; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(
            &stream,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
        .unwrap();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if got.bytes == 0 {
            return (serde_json::from_slice(&text).unwrap(), fds);
        }
        text.extend_from_slice(&bytes[..got.bytes]);
    }
}

#[test]
fn a_listener_gets_the_descriptor_and_the_state() {
    if !possible() {
        return;
    }
    let sockets = tempfile::tempdir().unwrap();
    let path = sockets.path().join("agent");
    let listener = UnixListener::bind(&path).unwrap();
    let mut profile = refusing(json!([rule(&["mkdir", "mkdirat"], "SCMP_ACT_NOTIFY")]));
    profile["listenerPath"] = json!(path);
    profile["listenerMetadata"] = json!("for the agent");
    let c = Container::new("mkdir /tmp/x", filter(profile));
    let agent = std::thread::spawn(move || {
        let (message, fds) = receive(&listener);
        let kinds: Vec<String> = fds
            .iter()
            .map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd()))
            .map(|link| {
                std::fs::read_link(link)
                    .unwrap()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        // Closed with this; the call is then as if it did not exist.
        (message, kinds)
    });
    let (out, code) = c.run();
    let (message, kinds) = agent.join().unwrap();
    assert_eq!(kinds, ["anon_inode:seccomp notify"]);
    assert_eq!(message["fds"], json!(["seccompFd"]));
    assert_eq!(message["metadata"], json!("for the agent"));
    assert_eq!(message["state"]["id"], json!(c.id));
    assert!(message["pid"].as_u64().is_some_and(|p| p > 0) && message["ociVersion"].is_string());
    assert!(
        out.contains("Function not implemented") && code == Some(1),
        "{code:?} {out}"
    );
}

#[test]
fn without_a_listener_there_is_no_container() {
    if !possible() {
        return;
    }
    let mut profile = refusing(json!([rule(&["mkdir", "mkdirat"], "SCMP_ACT_NOTIFY")]));
    let c = Container::new("true", filter(profile.clone()));
    assert!(c.fails(&["run", &c.id]).contains("listenerPath"));
    profile["listenerPath"] = json!("/nonexistent/agent");
    let c = Container::new("true", filter(profile));
    assert!(c.fails(&["run", &c.id]).contains("/nonexistent/agent"));
    assert!(c.cgroups_left().is_empty());
}
