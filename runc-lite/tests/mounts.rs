//! The root file system: mounts, devices, masks.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::os::unix::fs::{PermissionsExt as _, symlink};

use support::Bundle;

#[test]
fn default_mounts_and_devices() {
    if !support::possible() {
        return;
    }
    let b = Bundle::new(
        "cut -d' ' -f2,3 /proc/self/mounts | sort -u | grep -v -e /proc/ -e /sys/f; cd /dev; stat -c %A,%t,%T,%n null tty ptmx fd; touch /x",
    );
    let said = b.run().code(1).says("Read-only file system");
    for line in [
        "/dev tmpfs",
        "/dev/pts devpts",
        "/dev/shm tmpfs",
        "/dev/mqueue mqueue",
        "/sys sysfs",
        "/proc proc",
        "crw-rw-rw-,1,3,null",
        "crw-rw-rw-,5,0,tty",
        "lrwxrwxrwx,0,0,ptmx",
        "lrwxrwxrwx,0,0,fd",
    ] {
        assert!(said.out.contains(line), "{line} not in {}", said.out);
    }
}

#[test]
fn binds_of_files_and_directories_with_flags() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new(
        "cat /f; touch /d/x || touch /rw/y; grep -e ' /d ' -e ' /f ' /proc/self/mounts | cut -d' ' -f2,4",
    );
    let dir = b.dir.path().join("data");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("f"), "text\n").unwrap();
    b.mount(
        "/f",
        "bind",
        dir.join("f").to_str().unwrap(),
        &["bind", "ro", "noexec"],
    );
    b.mount(
        "/d",
        "bind",
        dir.to_str().unwrap(),
        &["rbind", "rprivate", "ro", "nosuid"],
    );
    b.mount("/rw", "none", "data", &["bind"]);
    let said = b.run().code(0);
    assert!(
        said.out.contains("text\n/f ro,noexec") && said.out.contains("/d ro,nosuid"),
        "{}",
        said.out
    );
    assert!(dir.join("y").exists() && !dir.join("x").exists());
}

#[test]
fn a_tmpfs_takes_mode_size_and_content() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new(
        "stat -c %a /t; df -k /t | grep -c ' 1024 '; cat /etc/passwd | head -n 1; echo > /etc/new; ls /etc",
    );
    b.mount("/t", "tmpfs", "tmpfs", &["size=1m", "mode=1700"]);
    b.mount("/etc", "tmpfs", "tmpfs", &["tmpcopyup"]);
    assert_eq!(
        b.run().code(0).out,
        "1700\n1\nroot:x:0:0:root:/root:/bin/sh\nnew\npasswd\n"
    );
    assert!(!b.rootfs().join("etc/new").exists());
}

#[test]
fn links_in_the_root_do_not_lead_out() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new("cat /inside/f");
    let out = tempfile::tempdir().unwrap();
    symlink(out.path(), b.rootfs().join("link")).unwrap();
    symlink("/link", b.rootfs().join("inside")).unwrap();
    let file = b.dir.path().join("f");
    std::fs::write(&file, "ok\n").unwrap();
    b.mount("/inside/f", "bind", file.to_str().unwrap(), &["bind"]);
    assert_eq!(b.run().code(0).out, "ok\n");
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
}

#[test]
fn proc_and_sys_must_be_what_they_seem() {
    if !support::possible() {
        return;
    }
    for (name, kind) in [("proc", "proc"), ("sys", "sysfs")] {
        let b = Bundle::new("true");
        std::fs::remove_dir(b.rootfs().join(name)).unwrap();
        symlink("/tmp", b.rootfs().join(name)).unwrap();
        b.run().code(1).says(&format!(
            "filesystem \\\"{kind}\\\" must be mounted on ordinary directory"
        ));
    }
}

#[test]
fn masked_and_readonly_paths() {
    if !support::possible() {
        return;
    }
    let mut b =
        Bundle::new("ls /secret | wc -l; cat /file | wc -c; touch /kept/x || echo kept; ls /kept");
    for dir in ["secret", "kept"] {
        std::fs::create_dir(b.rootfs().join(dir)).unwrap();
        std::fs::write(b.rootfs().join(dir).join("f"), "text").unwrap();
    }
    std::fs::write(b.rootfs().join("file"), "text").unwrap();
    b.config["root"]["readonly"] = false.into();
    b.config["linux"]["maskedPaths"] =
        serde_json::json!(["/secret", "/file", "/absent", "/proc/kcore"]);
    b.config["linux"]["readonlyPaths"] = serde_json::json!(["/kept", "/absent"]);
    assert_eq!(b.run().code(0).out, "0\n0\nkept\nf\n");
}

#[test]
fn a_false_null_device_masks_nothing() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new("true");
    // With the host's /dev bound, no node is made, and this one is a file.
    let dev = b.dir.path().join("dev");
    std::fs::create_dir(&dev).unwrap();
    std::fs::write(dev.join("null"), "").unwrap();
    std::fs::write(b.rootfs().join("file"), "text").unwrap();
    b.config["mounts"] =
        serde_json::json!([{"destination": "/proc", "type": "proc", "source": "proc"}]);
    b.mount("/dev", "bind", dev.to_str().unwrap(), &["bind"]);
    b.config["linux"]["maskedPaths"] = serde_json::json!(["/file"]);
    b.run().code(1).says("it is not the null device");
}

#[test]
fn devices_of_the_configuration() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new("cd /dev; stat -c %A,%t,%T,%n,%u,%g fuse sub/loop pipe");
    b.config["linux"]["devices"] = serde_json::json!([
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 5, "gid": 7},
        {"path": "/dev/sub/loop", "type": "b", "major": 7, "minor": 3},
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o600},
    ]);
    assert_eq!(
        b.run().code(0).out,
        "crw-r-----,a,e5,fuse,5,7\nbrw-rw-rw-,7,3,sub/loop,0,0\nprw-------,0,0,pipe,0,0\n"
    );
}

#[test]
fn a_set_id_bit_survives_where_it_was_asked_for() {
    if !support::possible() {
        return;
    }
    let b = Bundle::new("stat -c %a /bin/su2");
    std::fs::write(b.rootfs().join("bin/su2"), "").unwrap();
    std::fs::set_permissions(
        b.rootfs().join("bin/su2"),
        std::fs::Permissions::from_mode(0o4755),
    )
    .unwrap();
    assert_eq!(b.run().code(0).out, "4755\n");
}

#[test]
fn without_pivot_root() {
    if !support::possible() {
        return;
    }
    let b = Bundle::new("ls / | grep -c -e bin -e proc; pwd");
    b.run().code(0);
    assert_eq!(b.call(&["run", "--no-pivot", &b.id]).code(0).out, "2\n/\n");
}
