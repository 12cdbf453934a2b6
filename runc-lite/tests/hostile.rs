//! Images, bundles and records made to hurt: each was a hole once, here or elsewhere.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::json;
use support::Bundle;

fn fifo(at: &Path) {
    mknodat(CWD, at, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
}

/// Runs something that used to wait for ever.
#[track_caller]
fn soon<T>(run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    assert!(start.elapsed() < Duration::from_secs(15), "it waited");
    result
}

/// A bundle without a file system on /dev, so that the image's is used.
fn with_dev_of_image(script: &str) -> Bundle {
    let mut b = Bundle::new(script);
    b.config["root"]["readonly"] = false.into();
    b.config["linux"]["maskedPaths"] = json!([]);
    let mounts = b.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
    b
}

#[test]
fn a_password_file_that_is_none_gives_no_home_and_no_wait() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new("echo $HOME");
    let passwd = b.rootfs().join("etc/passwd");
    b.config["process"]["env"] = json!(["PATH=/bin"]);
    let makers: [fn(&Path); 4] = [
        fifo,
        |at| symlink("/dev/zero", at).unwrap(),
        |at| fs::create_dir(at).unwrap(),
        // Sparse, and far more than memory.
        |at| fs::File::create(at).unwrap().set_len(1 << 42).unwrap(),
    ];
    for make in makers {
        fs::remove_file(&passwd)
            .or_else(|_| fs::remove_dir(&passwd))
            .unwrap();
        make(&passwd);
        assert_eq!(soon(|| b.run()).code(0).out, "/\n");
    }
    b.config["process"]["args"] = json!(["sleep", "100"]);
    b.start();
    assert_eq!(soon(|| b.exec("echo $HOME")).code(0).out, "/\n");
}

#[test]
fn inputs_that_are_no_files_are_refused_at_once() {
    if !support::possible() {
        return;
    }
    let b = Bundle::new("sleep 100");
    b.start();
    let at = |name: &str| b.dir.path().join(name);
    fifo(&at("fifo"));
    for name in ["fifo", "/dev/zero", "."] {
        soon(|| b.call(&["exec", "--process", name, &b.id]))
            .code(255)
            .says("not a regular file");
        soon(|| b.call(&["update", "-r", name, &b.id]))
            .code(1)
            .says("not a regular file");
    }
    fs::File::create(at("huge"))
        .unwrap()
        .set_len(1 << 42)
        .unwrap();
    soon(|| b.call(&["update", "-r", "huge", &b.id]))
        .code(1)
        .says("larger than 16 MiB");
    // A namespace, of any kind.
    for kind in ["ipc", "pid", "mount", "user"] {
        let mut d = Bundle::new("true");
        fifo(&d.dir.path().join("fifo"));
        d.without_namespace(kind);
        let list = d.config["linux"]["namespaces"].as_array_mut().unwrap();
        list.push(json!({"type": kind, "path": d.dir.path().join("fifo")}));
        soon(|| d.run()).code(1).says("invalid argument");
    }
    // The configuration and the record.
    let c = Bundle::new("true");
    let config = c.dir.path().join("config.json");
    let _ = fs::remove_file(&config);
    fifo(&config);
    soon(|| c.call(&["create", &c.id]))
        .code(1)
        .says("not a regular file");
    fs::remove_file(&config).unwrap();
    symlink("/dev/zero", &config).unwrap();
    soon(|| c.call(&["create", &c.id]))
        .code(1)
        .says("not a regular file");
    let state = c.state_root().join(&c.id);
    fs::create_dir_all(&state).unwrap();
    for (make, why) in [
        (fifo as fn(&Path), "not a regular file"),
        (|at: &Path| symlink("/dev/zero", at).unwrap(), "too many"),
    ] {
        make(&state.join("state.json"));
        for command in ["state", "kill", "start", "delete"] {
            soon(|| c.call(&[command, &c.id])).code(1).says(why);
        }
        soon(|| c.call(&["list"])).code(0);
        fs::remove_file(state.join("state.json")).unwrap();
    }
}

#[test]
fn a_console_that_is_a_link_is_refused() {
    if !support::possible() {
        return;
    }
    let mut b = with_dev_of_image("true");
    b.config["process"]["terminal"] = true.into();
    let pts = json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
        "options": ["newinstance", "ptmxmode=0666"]});
    b.config["mounts"].as_array_mut().unwrap().push(pts);
    symlink("/etc/made", b.rootfs().join("dev/console")).unwrap();
    b.run()
        .code(1)
        .says("bind the terminal to /dev/console: too many levels of symbolic links");
    assert!(!b.rootfs().join("etc/made").exists());
}

#[test]
fn a_terminal_comes_from_a_devpts_only() {
    if !support::possible() {
        return;
    }
    let mut b = with_dev_of_image("true");
    b.config["process"]["terminal"] = true.into();
    // A node of the right number, with the host's own beside it.
    let pts = b.rootfs().join("dev/pts");
    fs::create_dir(&pts).unwrap();
    let mode = Mode::from_raw_mode(0o666);
    let node = pts.join("ptmx");
    mknodat(CWD, &node, FileType::CharacterDevice, mode, makedev(5, 2)).unwrap();
    b.mount("/dev/pts/pts", "bind", "/dev/pts", &["bind"]);
    b.run()
        .code(1)
        .says("/dev/pts of the container is no devpts");
}

#[test]
fn devices_of_the_image_stay_as_they_are_and_links_are_refused() {
    if !support::possible() {
        return;
    }
    let mut b = with_dev_of_image("stat -c %a,%u /dev/full");
    let dev = b.rootfs().join("dev");
    let outside = b.dir.path().join("outside");
    fs::write(&outside, "kept").unwrap();
    let before = fs::metadata(&outside).unwrap();
    let unchanged = || {
        let now = fs::metadata(&outside).unwrap();
        assert_eq!((now.mode(), now.uid()), (before.mode(), before.uid()));
    };
    // /dev/null as crun once took it, and a device whose owner and mode are set.
    for (name, device) in [
        ("null", json!([])),
        (
            "fuse",
            json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o777, "uid": 5, "gid": 5}]),
        ),
    ] {
        symlink(&outside, dev.join(name)).unwrap();
        b.config["linux"]["devices"] = device;
        b.run().code(1).says("file exists");
        unchanged();
        fs::remove_file(dev.join(name)).unwrap();
    }
    b.config["linux"]["devices"] = json!([{"path": "/dev/full", "type": "c", "major": 1, "minor": 7, "fileMode": 0o777, "uid": 5, "gid": 5}]);
    let mode = Mode::from_raw_mode(0o600);
    let full = dev.join("full");
    let _ = fs::remove_file(&full);
    mknodat(CWD, &full, FileType::CharacterDevice, mode, makedev(1, 7)).unwrap();
    fs::set_permissions(&full, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(b.run().code(0).out, "600,0\n");
}

#[test]
fn a_dev_that_leads_into_a_bind_mount_is_not_filled() {
    if !support::possible() {
        return;
    }
    let mut b = with_dev_of_image("true");
    let host = b.dir.path().join("host-dev");
    fs::create_dir_all(host.join("pts")).unwrap();
    fs::write(host.join("ptmx"), "kept").unwrap();
    fs::write(host.join("pts/ptmx"), "kept").unwrap();
    fs::remove_dir_all(b.rootfs().join("dev")).unwrap();
    symlink("/bound", b.rootfs().join("dev")).unwrap();
    b.mount("/bound", "bind", host.to_str().unwrap(), &["rbind"]);
    b.run()
        .code(1)
        .says("it leads into what is bound from the host");
    // Under a destination that only looks different it is the caller's own wish.
    fs::remove_file(b.rootfs().join("dev")).unwrap();
    b.config["mounts"].as_array_mut().unwrap().pop();
    b.mount("/x/../dev/.", "bind", host.to_str().unwrap(), &["rbind"]);
    b.config["process"]["args"] = json!(["/bin/true"]);
    b.run().code(0);
    let mut names: Vec<_> = fs::read_dir(&host)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["ptmx", "pts"]);
    assert_eq!(fs::read_to_string(host.join("ptmx")).unwrap(), "kept");
}

#[test]
fn a_record_that_names_other_directories_removes_none_and_kills_nobody() {
    if !support::possible() {
        return;
    }
    let b = Bundle::new("true");
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::create_dir(&victim).unwrap();
    let mut bystander = std::process::Command::new("sleep")
        .arg("100")
        .spawn()
        .unwrap();
    let dir = b.state_root().join(&b.id);
    fs::create_dir_all(&dir).unwrap();
    // An empty directory, one that names a process, the root of a hierarchy.
    let named = outside.path().join("named");
    fs::create_dir(&named).unwrap();
    fs::write(named.join("cgroup.procs"), bystander.id().to_string()).unwrap();
    fs::write(named.join("memory.limit_in_bytes"), "kept").unwrap();
    for (hierarchy, path) in [
        (1, victim.to_str().unwrap()),
        (2, victim.to_str().unwrap()),
        (1, named.to_str().unwrap()),
        (2, named.to_str().unwrap()),
        (1, "/sys/fs/cgroup"),
        (1, "relative"),
        (1, "/sys/fs/cgroup/../../../etc/x"),
    ] {
        let state = json!({"version": 1, "ociVersion": "1.2.0", "id": b.id, "pid": 0,
            "init_process_start": 1, "bundle": "/", "rootfs": "/", "created": "", "namespaces": 0,
            "cgroup": {"hierarchy": hierarchy, "owned": true, "paths": {"memory": path}}});
        fs::write(dir.join("state.json"), state.to_string()).unwrap();
        let said = b.call(&["delete", "--force", &b.id]).code(1);
        said.says("cgroup path");
        for command in [
            &["kill", "--all"][..],
            &["update", "--memory", "9m"],
            &["pause"],
            &["ps"],
        ] {
            let mut args = command.to_vec();
            args.push(&b.id);
            assert_ne!(b.call(&args).code, 0, "{command:?} on {path}");
        }
    }
    assert!(victim.exists());
    assert_eq!(
        fs::read_to_string(named.join("memory.limit_in_bytes")).unwrap(),
        "kept"
    );
    assert!(bystander.try_wait().unwrap().is_none());
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_state_directory_of_others_is_refused() {
    if !support::possible() {
        return;
    }
    let b = Bundle::new("sleep 100");
    b.start();
    let dir = b.state_root().join(&b.id);
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o770)).unwrap();
    b.call(&["kill", &b.id])
        .code(1)
        .says("others can write to it");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(&dir, Some(4711), None).unwrap();
    b.call(&["kill", &b.id])
        .code(1)
        .says("it belongs to user 4711");
    b.call(&["delete", "--force", &b.id])
        .code(1)
        .says("it belongs to user 4711");
    std::os::unix::fs::chown(&dir, Some(0), None).unwrap();
    // Nor is one reached by a link.
    let link = b.state_root().join("other");
    symlink(&dir, &link).unwrap();
    b.call(&["state", "other"]).code(1).says("not a directory");
    b.call(&["delete", "--force", "other"]).code(1);
    fs::remove_file(&link).unwrap();
    assert_eq!(b.state()["status"], "running");
}

#[test]
fn a_root_that_is_a_link_is_refused() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new("true");
    symlink("/", b.dir.path().join("link")).unwrap();
    symlink(b.dir.path(), b.dir.path().join("loop")).unwrap();
    for path in ["link", "loop/rootfs", "link/tmp"] {
        b.config["root"]["path"] = path.into();
        b.run().code(1).says("not an absolute path, or a symlink");
    }
    b.config["root"]["path"] = "./x/../rootfs/".into();
    b.run().code(0);
}

#[test]
fn mounts_inside_proc_are_refused() {
    if !support::possible() {
        return;
    }
    symlink_free_refusals();
    // By another name of the image's own.
    let mut b = Bundle::new("true");
    symlink("proc/sys", b.rootfs().join("alias")).unwrap();
    symlink("proc", b.rootfs().join("whole")).unwrap();
    b.mount("/alias", "tmpfs", "tmpfs", &[]);
    b.run().code(1).says("it is inside /proc");
    b.config["mounts"].as_array_mut().unwrap().pop();
    b.mount("/whole", "tmpfs", "tmpfs", &[]);
    b.run().code(1).says("it is not of type proc");
    // What lxcfs does, and a procfs of the host.
    let mut b = Bundle::new("cat /proc/uptime");
    fs::write(b.dir.path().join("uptime"), "1.00 1.00\n").unwrap();
    b.mount("/proc/uptime", "bind", "uptime", &["bind"]);
    assert_eq!(b.run().code(0).out, "1.00 1.00\n");
    let mut b = Bundle::new("true");
    b.mount("/proc", "bind", "/proc", &["rbind"]);
    b.mount("/elsewhere", "bind", "/proc", &["rbind"]);
    b.run().code(0);
}

fn symlink_free_refusals() {
    for (destination, kind, source, why) in [
        ("/proc", "tmpfs", "tmpfs", "it is not of type proc"),
        ("/proc", "bind", "/tmp", "it is not of type proc"),
        ("/proc/self/attr", "bind", "/tmp", "it is inside /proc"),
        ("/proc/sys", "cgroup", "cgroup", "it is inside /proc"),
    ] {
        let mut b = Bundle::new("true");
        let options: &[&str] = if kind == "bind" { &["bind"] } else { &[] };
        b.mount(destination, kind, source, options);
        b.run().code(1).says(why);
        b.assert_gone();
    }
}

#[test]
fn device_nodes_of_a_user_namespace_do_not_wait_for_a_fifo() {
    if !support::possible() {
        return;
    }
    let mut b = with_dev_of_image("stat -c %F /dev/null /dev/pipe; test -w /dev/null");
    b.with_user_namespace();
    let dev = b.rootfs().join("dev");
    fs::set_permissions(&dev, fs::Permissions::from_mode(0o777)).unwrap();
    fifo(&dev.join("null"));
    b.config["linux"]["devices"] = json!([{"path": "/dev/pipe", "type": "p"}]);
    assert_eq!(
        soon(|| b.run()).code(0).out,
        "character special file\nfifo\n"
    );
    assert!(
        fs::metadata(dev.join("null"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    // A link to the host's file is no place for a node.
    fs::remove_file(dev.join("null")).unwrap();
    symlink("/etc/made", dev.join("null")).unwrap();
    soon(|| b.run()).code(1).says("bind device node /dev/null");
    assert!(!b.rootfs().join("etc/made").exists());
}

#[test]
fn copying_up_takes_a_fifo_as_it_is() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new("stat -c %F /data/fifo; cat /data/f");
    fs::create_dir(b.rootfs().join("data")).unwrap();
    fifo(&b.rootfs().join("data/fifo"));
    fs::write(b.rootfs().join("data/f"), "text\n").unwrap();
    b.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup"]);
    assert_eq!(soon(|| b.run()).code(0).out, "fifo\ntext\n");
}

#[test]
fn a_pid_file_does_not_follow_a_link() {
    if !support::possible() {
        return;
    }
    let b = Bundle::new("sleep 100");
    let at = |name: &str| b.dir.path().join(name);
    fs::write(at("other"), "kept").unwrap();
    symlink("other", at("pid")).unwrap();
    b.create_with(&["--pid-file", "pid"]).code(0);
    assert_eq!(fs::read_to_string(at("other")).unwrap(), "kept");
    let pid = b.state()["pid"].to_string();
    assert_eq!(fs::read_to_string(at("pid")).unwrap(), pid);
}

#[test]
fn added_capabilities_are_not_inheritable() {
    if !support::possible() {
        return;
    }
    for (user, ambient, wanted) in [
        (0, false, [false, true, true, true, false]),
        // Nothing of it outlives execve, but for what a file grants.
        (1000, false, [false, false, false, true, false]),
        // Ambient needs inheritable, and only the configuration gives that.
        (1000, true, [true, true, true, true, true]),
    ] {
        let mut b = Bundle::new("sleep 100");
        // As `spec` has made it.
        let given = &b.config["process"]["capabilities"]["inheritable"];
        assert!(given.as_array().is_none_or(Vec::is_empty), "{given}");
        b.config["process"]["user"] = json!({"uid": user, "gid": user});
        if ambient {
            for set in ["bounding", "permitted", "inheritable"] {
                b.config["process"]["capabilities"][set] = json!(["CAP_NET_RAW"]);
            }
        }
        b.start();
        let args = [
            "exec",
            "--cap",
            "CAP_NET_RAW",
            &b.id,
            "grep",
            "^Cap",
            "/proc/self/status",
        ];
        let out = b.call(&args).code(0).out;
        let has = |name: &str| {
            let line = out.lines().find(|l| l.starts_with(name)).unwrap();
            let set = u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
            set & (1 << 13) != 0
        };
        let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(has);
        assert_eq!(sets, wanted, "user {user}, {out}");
    }
}

#[test]
fn a_user_of_one_digit_is_not_root() {
    if !support::possible() {
        return;
    }
    let b = Bundle::new("sleep 100");
    b.start();
    for user in ["1", "7"] {
        let said = b.call(&["exec", "--user", user, &b.id, "sh", "-c", "id -u; id -g"]);
        assert_eq!(said.code(0).out, format!("{user}\n0\n"));
    }
}

#[test]
fn a_null_device_that_became_a_link_is_not_taken_for_one() {
    if !support::possible() {
        return;
    }
    let script = "rm /dev/null; ln -s /data/f /dev/null; echo > /data/ready; sleep 100";
    let mut b = Bundle::new(script);
    let data = b.dir.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("f"), "kept").unwrap();
    b.mount("/data", "bind", "data", &["bind", "rw"]);
    b.start();
    support::eventually(|| match data.join("ready").exists() {
        true => Ok(()),
        false => Err("not ready".into()),
    });
    let look = "stat -L -c %t,%T /proc/self/fd/0";
    let said = b.call(&["exec", "--user", "1000:1000", &b.id, "sh", "-c", look]);
    assert_eq!(said.code(0).out, "1,3\n");
    assert_eq!(fs::read_to_string(data.join("f")).unwrap(), "kept");
    assert_eq!(fs::metadata(data.join("f")).unwrap().uid(), 0);
}

#[test]
fn a_mount_of_cgroups_shows_the_containers_own() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new("");
    b.without_namespace("cgroup");
    let mounts = b.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|m| m["type"] != "cgroup");
    b.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["rw"]);
    // At the root of a hierarchy the container's group would be seen from above.
    let script = format!(
        "cat /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/pids/cgroup.procs 2>/dev/null | grep -c 1; \
         ls -d /sys/fs/cgroup/{0} /sys/fs/cgroup/*/{0} 2>/dev/null | wc -l",
        b.id
    );
    b.config["process"]["args"] = json!(["sh", "-c", script]);
    let out = b.run().code(0).out;
    let mut lines = out.lines();
    assert_ne!(lines.next(), Some("0"), "{out}");
    assert_eq!(lines.next(), Some("0"), "{out}");
}

/// The container's directory in the hierarchy of a controller, or in the only one.
fn group(b: &Bundle, controller: &str) -> std::path::PathBuf {
    let dirs = b.cgroups();
    let v1 = dirs
        .iter()
        .find(|d| d.parent().unwrap().ends_with(controller));
    v1.or(dirs.first()).unwrap().clone()
}

#[test]
fn processes_that_stand_in_groups_below_do_not_outlive_the_container() {
    if !support::possible() {
        return;
    }
    // Its first process, all of them, and only another one.
    for (members, command) in [
        ("init", &["delete", "--force"][..]),
        ("all", &["delete", "--force"]),
        ("other", &["delete", "--force"]),
        ("other", &["kill", "--all"]),
        ("init", &["kill"]),
        ("other", &["kill"]),
    ] {
        let b = Bundle::new("sleep 1000 & exec sleep 1000");
        b.start();
        let freezer = group(&b, "freezer");
        let below = freezer.join("a/b");
        fs::create_dir_all(&below).unwrap();
        let init = b.state()["pid"].to_string();
        let procs = fs::read_to_string(freezer.join("cgroup.procs")).unwrap();
        for pid in procs.lines() {
            if members == "all" || (members == "init") == (pid == init) {
                fs::write(below.join("cgroup.procs"), pid).unwrap();
            }
        }
        let (file, value) = match freezer.join("freezer.state").exists() {
            true => ("freezer.state", "FROZEN"),
            false => ("cgroup.freeze", "1"),
        };
        fs::write(below.join(file), value).unwrap();
        let mut args = command.to_vec();
        args.push(&b.id);
        if command[0] == "kill" {
            args.push("KILL");
        }
        let said = soon(|| b.call(&args));
        if said.code != 0 {
            // Nothing is to be left standing.
            let _ = fs::write(below.join(file), "THAWED");
        }
        assert_eq!(said.code, 0, "{command:?} with {members}: {}", said.err);
        if command[0] == "kill" {
            b.wait_for("stopped");
        }
    }
}

#[test]
fn more_levels_of_groups_than_a_path_can_have_are_removed() {
    if !support::possible() {
        return;
    }
    use rustix::fs::{AtFlags, OFlags, mkdirat, open, openat, unlinkat};
    let b = Bundle::new("sleep 1000");
    b.start();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let name = "d".repeat(120);
    let mut at = open(group(&b, "pids"), flags, Mode::empty()).unwrap();
    for _ in 0..40 {
        mkdirat(&at, &name, Mode::RWXU).unwrap();
        at = openat(&at, &name, flags, Mode::empty()).unwrap();
    }
    for command in [&["ps"][..], &["kill"], &["delete", "--force"]] {
        let mut args = command.to_vec();
        args.push(&b.id);
        let said = b.call(&args);
        if said.code != 0 {
            // Should it fail, nothing is to be left.
            while let Ok(above) = openat(&at, "..", flags, Mode::empty()) {
                at = above;
                if unlinkat(&at, &name, AtFlags::REMOVEDIR).is_err() {
                    break;
                }
            }
        }
        assert_eq!(said.code, 0, "{command:?}: {}", said.err);
    }
    b.assert_gone();
}

/// Whether a process of the host's root, but without the capability to trace, may
/// look into a container's init while it is being made.
#[test]
fn the_init_is_not_to_be_looked_into() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new("true");
    b.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "user"}));
    // Root stays root, so that no change of user hides the init.
    for field in ["uidMappings", "gidMappings"] {
        b.config["linux"][field] = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
    }
    let script = "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); \
        exec setpriv --bounding-set -sys_ptrace --inh-caps -sys_ptrace \
        sh -c \"test -e /proc/$pid && ! readlink /proc/$pid/cwd\"";
    b.config["hooks"]["createRuntime"] =
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}]);
    b.run().code(0);
}
