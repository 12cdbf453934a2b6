//! Mounts in the host's tree as the container gets them: recursive attributes,
//! propagation, mapped ids. The host's mounts are made in a mount namespace of their
//! own, which the runtime is called in.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::json;
use support::{Bundle, Said};

/// Runs a script in a private mount namespace whose mounts are shared among
/// themselves, as on most hosts. `$RUN` is the runtime, `$D` the bundle's directory.
fn on_a_host(b: &Bundle, script: &str) -> Said {
    support::on_a_host(b, "-m", &format!("mount --make-rshared /; {script}"))
}

/// A directory `$D/outer` with a tmpfs mounted in it at `inner`.
const TREE: &str = "mkdir -p $D/outer/inner; mount -t tmpfs inner $D/outer/inner; \
     cp /bin/busybox $D/outer/inner/; ln -s busybox $D/outer/inner/link;";

#[test]
fn recursive_flags_reach_mounts_below_and_plain_ones_do_not() {
    if !support::possible() {
        return;
    }
    let shown = "grep ' /m/inner ' /proc/self/mountinfo | cut -d' ' -f6";
    for (option, there) in [
        ("rro", "ro"),
        ("rnosuid", "nosuid"),
        ("rnodev", "nodev"),
        ("rnoexec", "noexec"),
        ("rnoatime", "noatime"),
        ("rnodiratime", "nodiratime"),
        ("rnosymfollow", "nosymfollow"),
    ] {
        for (option, expected) in [(option, true), (&option[1..], false)] {
            let mut b = Bundle::new(shown);
            b.mount("/m", "bind", "outer", &["rbind", option]);
            let said = on_a_host(&b, &format!("{TREE} $RUN run {}", b.id)).code(0);
            let found = said.out.trim().split(',').any(|w| w == there);
            assert_eq!(found, expected, "{option}: {}", said.out);
        }
    }
    // And away again, below a mount that has them.
    let mut b = Bundle::new(shown);
    b.mount("/m", "bind", "outer", &["rbind", "rsuid", "rstrictatime"]);
    let script = format!(
        "{TREE} mount -o remount,bind,nosuid $D/outer/inner; $RUN run {}",
        b.id
    );
    let out = on_a_host(&b, &script).code(0).out;
    assert!(
        !out.contains("nosuid") && !out.contains("relatime"),
        "{out}"
    );
    // What the attributes do: no write, no execution, no link followed.
    let mut b = Bundle::new(
        "touch /m/inner/x || echo ro; /m/inner/busybox true || echo noexec; cat /m/inner/link >/dev/null || echo nolink",
    );
    b.mount(
        "/m",
        "bind",
        "outer",
        &["rbind", "rro", "rnoexec", "rnosymfollow"],
    );
    let said = on_a_host(&b, &format!("{TREE} $RUN run {}", b.id)).code(0);
    assert_eq!(said.out, "ro\nnoexec\nnolink\n");
}

#[test]
fn the_roots_propagation_is_what_was_asked_for() {
    if !support::possible() {
        return;
    }
    for (propagation, tag) in [
        ("", "none"),
        ("private", "none"),
        ("rprivate", "none"),
        ("shared", "shared:"),
        ("rshared", "shared:"),
        ("unbindable", "unbindable"),
        ("runbindable", "unbindable"),
    ] {
        let mut b = Bundle::new(
            "while read -r a b c d e f g h; do [ $e = / ] && echo $g; done < /proc/self/mountinfo; true",
        );
        b.config["linux"]["rootfsPropagation"] = propagation.into();
        let out = on_a_host(&b, &format!("$RUN run {}", b.id)).code(0).out;
        let seen = out.trim().replace('-', "none");
        assert!(seen.starts_with(tag), "{propagation}: {out}");
    }
}

#[test]
fn mounts_of_the_host_come_in_where_the_container_is_a_slave_and_go_out_where_it_shares() {
    if !support::possible() {
        return;
    }
    // As docker writes it for a volume with `rshared` or `rslave`, and other pairs.
    for (propagation, option, comes, goes) in [
        ("rslave", "rslave", true, false),
        ("shared", "rshared", true, true),
        ("rshared", "shared", true, true),
        ("shared", "rslave", true, false),
        ("shared", "rprivate", false, false),
        ("shared", "ro", true, false),
        ("rslave", "rshared", true, false),
        ("rprivate", "rprivate", false, false),
        ("", "rprivate", false, false),
        ("", "rslave", true, false),
    ] {
        let mut b = Bundle::new("exec sleep 60");
        b.config["linux"]["rootfsPropagation"] = propagation.into();
        b.config["process"]["capabilities"]["bounding"] = json!(["CAP_SYS_ADMIN"]);
        b.config["process"]["capabilities"]["effective"] = json!(["CAP_SYS_ADMIN"]);
        b.config["process"]["capabilities"]["permitted"] = json!(["CAP_SYS_ADMIN"]);
        b.mount("/m", "bind", "outer", &["rbind", option]);
        let id = &b.id;
        let script = format!(
            "mkdir $D/outer; mount -t tmpfs outer $D/outer; {TREE} mkdir $D/outer/late $D/outer/out; $RUN run -d {id} </dev/null >/dev/null 2>&1; \
             mount -t tmpfs late $D/outer/late; touch $D/outer/late/came; \
             $RUN exec {id} ls /m/late; \
             $RUN exec {id} mount -t tmpfs out /m/out; grep -c \" $D/outer/out \" /proc/self/mountinfo || true; \
             $RUN delete -f {id}; grep -c \" $D/rootfs/\" /proc/self/mountinfo || true; \
             test -e $D/outer/late/came && echo stays"
        );
        let out = on_a_host(&b, &script).code(0).out;
        let came = if comes { "came\n" } else { "" };
        let expected = format!("{came}{}\n0\nstays\n", u32::from(goes));
        assert_eq!(out, expected, "root {propagation}, mount {option}");
    }
}

/// Whether the temporary directory's file system takes mapped mounts.
fn unmappable(said: &Said) -> bool {
    let refused = said.code != 0 && said.err.contains("map ids") && said.err.contains("invalid");
    if refused {
        eprintln!("SKIPPED: no id-mapped mounts here: {}", said.err);
    }
    refused
}

fn maps(first: u32, size: u32) -> serde_json::Value {
    json!([{"containerID": 0, "hostID": first, "size": size}])
}

#[test]
fn ids_of_a_mount_are_mapped() {
    if !support::possible() {
        return;
    }
    for options in [&["bind", "idmap"][..], &["bind"]] {
        let mut b = Bundle::new("stat -c %u,%g /data/f");
        std::fs::create_dir(b.dir.path().join("data")).unwrap();
        std::fs::write(b.dir.path().join("data/f"), "").unwrap();
        b.mount("/data", "bind", "data", options);
        let last = b.config["mounts"].as_array_mut().unwrap().last_mut();
        let last = last.unwrap();
        last["uidMappings"] = maps(5000, 10);
        last["gidMappings"] = maps(6000, 10);
        let said = b.run();
        if unmappable(&said) {
            return;
        }
        assert_eq!(said.code(0).out, "5000,6000\n");
    }
}

#[test]
fn ids_are_mapped_as_the_containers_in_a_user_namespace() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new("stat -c %u,%g /data/f /plain/f; touch /data/new");
    std::fs::create_dir(b.dir.path().join("data")).unwrap();
    std::fs::write(b.dir.path().join("data/f"), "").unwrap();
    b.with_user_namespace();
    // Root of the container may not make directories there.
    std::fs::create_dir(b.rootfs().join("data")).unwrap();
    std::fs::create_dir(b.rootfs().join("plain")).unwrap();
    b.mount("/data", "bind", "data", &["bind", "idmap"]);
    b.mount("/plain", "bind", "data", &["bind"]);
    let said = b.run();
    if unmappable(&said) {
        return;
    }
    assert_eq!(said.code(0).out, "0,0\n65534,65534\n");
    // What root of the container makes is root's on the disk.
    use std::os::unix::fs::MetadataExt as _;
    let made = std::fs::metadata(b.dir.path().join("data/new")).unwrap();
    assert_eq!((made.uid(), made.gid()), (0, 0));
}

#[test]
fn a_recursive_map_reaches_mounts_below() {
    if !support::possible() {
        return;
    }
    for (option, below) in [("ridmap", "0,0"), ("idmap", "65534,65534")] {
        let mut b = Bundle::new("stat -c %u,%g /m /m/inner");
        b.with_user_namespace();
        std::fs::create_dir(b.rootfs().join("m")).unwrap();
        b.mount("/m", "bind", "outer", &["rbind", option]);
        let said = on_a_host(&b, &format!("{TREE} $RUN run {}", b.id));
        if unmappable(&said) {
            return;
        }
        assert_eq!(said.code(0).out, format!("0,0\n{below}\n"), "{option}");
    }
}

#[test]
fn a_map_needs_a_bind_and_numbers() {
    if !support::possible() {
        return;
    }
    let mut b = Bundle::new("true");
    b.mount("/data", "bind", "rootfs", &["bind", "idmap"]);
    b.create().code(1).says("neither mount nor container has");
    let mut b = Bundle::new("true");
    b.mount("/data", "tmpfs", "tmpfs", &["idmap"]);
    b.create().code(1).says("only bind mounts");
    b.assert_gone();
}
