//! Capabilities and resource limits, as a program in the container has them.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod support;

use serde_json::{Value, json};
use support::container::Container;
use support::possible;

/// The value of a line of /proc/self/status, as a number.
fn set(out: &str, name: &str) -> u64 {
    let line = out
        .lines()
        .find(|l| l.starts_with(name))
        .unwrap_or_else(|| panic!("no {name} in {out}"));
    u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
}

fn caps(sets: Value) -> impl FnOnce(&mut Value) {
    move |config| config["process"]["capabilities"] = sets
}

const SHOW: &str = "grep Cap /proc/self/status";
const KILL: u64 = 1 << 5;
const CHOWN: u64 = 1;
const SYS_RESOURCE: u64 = 1 << 24;

#[test]
fn the_five_sets_are_what_was_asked_for() {
    if !possible() {
        return;
    }
    let c = Container::new(
        SHOW,
        caps(
            json!({"bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"],
            "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]}),
        ),
    );
    let (out, code) = c.run();
    assert_eq!(code, Some(0), "{out}");
    for (name, bits) in [("CapBnd", KILL | CHOWN), ("CapInh", KILL), ("CapAmb", KILL)] {
        assert_eq!(set(&out, name), bits, "{name}");
    }
    // Root would gain the other with execve, were it not for no_new_privs.
    assert_eq!(set(&out, "CapEff"), KILL);
}

#[test]
fn a_user_keeps_the_ambient_ones_only() {
    if !possible() {
        return;
    }
    let sets = |ambient: Value| {
        json!({"bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL", "CAP_CHOWN"],
            "effective": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "ambient": ambient})
    };
    for (ambient, bits) in [
        (json!(["CAP_KILL"]), KILL),
        (json!([]), 0),
        (json!(null), 0),
    ] {
        let c = Container::new(SHOW, |config| {
            config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
            caps(sets(ambient))(config);
        });
        let (out, _) = c.run();
        assert_eq!(
            (
                set(&out, "CapEff"),
                set(&out, "CapPrm"),
                set(&out, "CapAmb")
            ),
            (bits, bits, bits),
            "{out}"
        );
    }
}

#[test]
fn no_capabilities_means_none() {
    if !possible() {
        return;
    }
    let c = Container::new(SHOW, caps(json!({})));
    let (out, _) = c.run();
    for name in ["CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(set(&out, name), 0, "{name}");
    }
}

#[test]
fn what_nobody_knows_or_the_caller_lacks_is_left_out_with_a_warning() {
    if !possible() {
        return;
    }
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let lacking = set(&own, "CapBnd") & SYS_RESOURCE == 0;
    let names = json!(["CAP_KILL", "CAP_FROM_THE_FUTURE", "CAP_SYS_RESOURCE"]);
    let c = Container::new(
        SHOW,
        caps(json!({"bounding": names, "permitted": names, "effective": names})),
    );
    let (out, code) = c.run();
    assert_eq!(code, Some(0), "{out}");
    assert!(
        out.contains("ignoring unknown or unavailable capabilities: [CAP_FROM_THE_FUTURE]"),
        "{out}"
    );
    assert_eq!(
        set(&out, "CapEff"),
        if lacking { KILL } else { KILL | SYS_RESOURCE }
    );
    assert_eq!(out.contains("CAP_SYS_RESOURCE"), lacking, "{out}");
}

#[test]
fn an_ambient_capability_that_cannot_be_raised_is_told() {
    if !possible() {
        return;
    }
    let c = Container::new(
        SHOW,
        caps(
            json!({"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"], "ambient": ["CAP_KILL"]}),
        ),
    );
    let (out, code) = c.run();
    assert_eq!(code, Some(0), "{out}");
    assert!(
        out.contains("can't raise ambient capability CAP_KILL: operation not permitted"),
        "{out}"
    );
}

#[test]
fn limits_are_set_or_clamped() {
    if !possible() {
        return;
    }
    let c = Container::new("grep -E 'open files|core' /proc/self/limits", |config| {
        config["process"]["rlimits"] = json!([
            {"type": "RLIMIT_NOFILE", "hard": 1u64 << 40, "soft": 100},
            {"type": "RLIMIT_CORE", "hard": 5, "soft": 4},
        ]);
    });
    let (out, code) = c.run();
    assert_eq!(code, Some(0), "{out}");
    let line = |name: &str| {
        out.lines()
            .find(|l| l.starts_with(name))
            .unwrap()
            .split_whitespace()
            .collect::<Vec<_>>()
    };
    assert_eq!(line("Max core")[4..6], ["4", "5"]);
    assert_eq!(line("Max open files")[3], "100");
    // No kernel allows 2^40 descriptors, whoever asks.
    assert!(out.contains("clamped to 100:"), "{out}");
}

#[test]
fn limits_that_do_not_exist_or_come_twice_are_refused() {
    if !possible() {
        return;
    }
    for (limits, word) in [
        (
            json!([{"type": "RLIMIT_WISHES", "hard": 1, "soft": 1}]),
            "RLIMIT_WISHES",
        ),
        (
            json!([{"type": "RLIMIT_CPU", "hard": 9, "soft": 9}, {"type": "RLIMIT_CPU", "hard": 9, "soft": 9}]),
            "twice",
        ),
    ] {
        let c = Container::new("true", |config| config["process"]["rlimits"] = limits);
        assert!(c.fails(&["run", &c.id]).contains(word));
        assert!(c.cgroups_left().is_empty());
    }
}
