//! A host with many mounts: the container's namespace is no copy of the host's then, and
//! nothing in the container may show it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::json;
use support::{Bundle, on_a_host};

/// 512 mounts: one with all that is below it once more below itself, nine times. They go
/// with the namespace that the script runs in.
const MANY: &str = "mkdir -p $D/many; mount -t tmpfs many $D/many; \
    for i in 1 2 3 4 5 6 7 8 9; do mkdir $D/many/$i; mount --rbind $D/many $D/many/$i; done; ";

/// What the log says where the namespace is no copy.
const APART: &str = "begins as a small one";

/// Whether it can be here: says so where it cannot.
fn possible() -> bool {
    if !support::possible() {
        return false;
    }
    let named = |pid: i32, name: &str| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|n| n.trim_end() == name)
    };
    let thread = named(2, "kthreadd") && (3..4096).any(|pid| named(pid, "kdevtmpfs"));
    let new = kernel() >= (6, 8);
    let can = always() || (thread && new);
    if !can {
        let linux = kernel();
        eprintln!("SKIPPED: kdevtmpfs is in sight: {thread}, Linux is {linux:?}");
    }
    can
}

/// Whether it is made so with few mounts too: the kernel makes namespaces of trees.
fn always() -> bool {
    kernel() >= (7, 0)
}

fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map_while(|n| n.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// A bundle whose mounts are of all the usual kinds.
fn bundle(script: &str) -> Bundle {
    let mut b = Bundle::new(script);
    let source = b.dir.path().join("source");
    std::fs::create_dir_all(source.join("sub")).unwrap();
    std::fs::write(b.dir.path().join("file"), "of the host").unwrap();
    let source = source.to_str().unwrap().to_owned();
    b.mount("/data", "bind", &source, &["rbind", "ro", "rslave"]);
    b.mount("/etc/file", "bind", "file", &["bind", "ro"]);
    b.mount("/cache", "tmpfs", "tmpfs", &["size=1m", "nosuid"]);
    b
}

#[test]
fn many_mounts_on_the_host_make_no_difference_inside() {
    if !possible() {
        return;
    }
    // Numbers of mounts and devices apart, the same lines in any order.
    let b = bundle(
        "cut -d' ' -f4- /proc/self/mountinfo | sort; ls /dev /sys/fs/cgroup; cat /etc/file; hostname",
    );
    let id = &b.id;
    let script = format!(
        "mount -t tmpfs below $D/source/sub; \
         $RUN --debug --log $D/few.log run {id} >$D/few; {MANY} \
         $RUN --debug --log $D/many.log run {id} >$D/many.out"
    );
    on_a_host(&b, "-m", &script).code(0);
    let read = |name: &str| std::fs::read_to_string(b.dir.path().join(name)).unwrap();
    assert!(read("few").contains("/data/sub"), "{}", read("few"));
    assert!(read("few").contains("of the host"), "{}", read("few"));
    assert_eq!(read("few"), read("many.out"));
    assert_eq!(
        read("few.log").contains(APART),
        always(),
        "{}",
        read("few.log")
    );
    assert!(read("many.log").contains(APART), "{}", read("many.log"));
}

#[test]
fn mounts_of_the_host_still_come_in_and_none_go_out() {
    if !possible() {
        return;
    }
    let mut b = bundle("mount -t tmpfs own /data/own && mount -t tmpfs own /tmp; sleep 100");
    let caps = b.config["process"]["capabilities"].as_object_mut().unwrap();
    for set in caps.values_mut() {
        set.as_array_mut().unwrap().push("CAP_SYS_ADMIN".into());
    }
    let id = &b.id;
    std::fs::create_dir(b.dir.path().join("source/own")).unwrap();
    let script = format!(
        "mount -t tmpfs top $D/source; mount --make-shared $D/source; mkdir $D/source/late $D/source/own; {MANY} \
         $RUN --debug --log $D/log run -d {id} </dev/null >/dev/null 2>&1; \
         i=0; until $RUN exec {id} grep -q ' /tmp ' /proc/self/mountinfo; do i=$((i+1)); [ $i -lt 500 ]; sleep 0.02; done; \
         mount -t tmpfs late $D/source/late; touch $D/source/late/seen; \
         $RUN exec {id} ls /data/late; ! grep ' own ' /proc/self/mountinfo; \
         $RUN exec {id} grep -c . /proc/self/mountinfo; $RUN delete -f {id}"
    );
    let said = on_a_host(&b, "-m", &script).code(0);
    let log = std::fs::read_to_string(b.dir.path().join("log")).unwrap();
    assert!(log.contains(APART), "{log}");
    let mut lines = said.out.lines();
    assert_eq!(lines.next(), Some("seen"), "{}", said.out);
    // None of the host's five hundred.
    let count: u32 = lines.next().unwrap().parse().unwrap();
    assert!(count < 100, "{count} mounts in the container");
}

#[test]
fn who_needs_the_hosts_paths_gets_a_copy() {
    if !possible() {
        return;
    }
    let inner = |b: &mut Bundle| {
        // Of what is mounted in the root by then.
        let source = b.rootfs().join("proc");
        b.mount("/proc-too", "bind", source.to_str().unwrap(), &["rbind"]);
    };
    let hook = |b: &mut Bundle| {
        let rootfs = b.rootfs();
        let script = format!("test -e {}/proc/self/mountinfo", rootfs.display());
        b.config["hooks"] = json!({"createContainer":
            [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
    };
    let cases: [&dyn Fn(&mut Bundle); 2] = [&inner, &hook];
    for change in cases {
        let mut b = bundle("cat /proc/self/comm; test ! -e /proc-too || cat /proc-too/self/comm");
        change(&mut b);
        let script = format!("{MANY} $RUN --debug --log $D/log run {}", b.id);
        let said = on_a_host(&b, "-m", &script).code(0);
        assert!(said.out.starts_with("cat\n"), "{}", said.out);
        let log = std::fs::read_to_string(b.dir.path().join("log")).unwrap();
        assert!(!log.contains(APART), "{log}");
    }
}
