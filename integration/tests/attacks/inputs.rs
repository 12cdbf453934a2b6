//! Bundles, configurations and command lines that were made to break what reads them.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher as _, Hasher as _};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::harness::{Victim, fifo, time};

/// Puts something where config.json should be.
type Make = Box<dyn Fn(&Path) -> Result<()>>;

#[test]
fn a_bundle_that_is_no_bundle_is_refused() -> Result<()> {
    let victim = Victim::new("true")?;
    victim.write_config()?;
    let config = victim.bundle().join("config.json");
    let good = fs::read(&config)?;
    let deep = |open: &str, many: usize| open.repeat(many).into_bytes();
    let mut makers: Vec<(&str, Make)> = vec![
        ("fifo", Box::new(fifo)),
        ("zero", Box::new(|at| Ok(symlink("/dev/zero", at)?))),
        ("terminal", Box::new(|at| Ok(symlink("/dev/tty", at)?))),
        ("directory", Box::new(|at| Ok(fs::create_dir(at)?))),
        ("loop", Box::new(|at| Ok(symlink("config.json", at)?))),
        (
            "huge",
            Box::new(|at| Ok(fs::File::create(at)?.set_len(1 << 42)?)),
        ),
        ("memory", Box::new(|at| Ok(symlink("/proc/self/mem", at)?))),
    ];
    let texts = [
        deep("[", 100_000),
        deep("{\"linux\":", 100_000),
        b"\xff\xfe{}".to_vec(),
        b"{\"ociVersion\":\"1.2.0\"".to_vec(),
        good[..good.len() / 2].to_vec(),
        b"null".to_vec(),
        vec![0; 4096],
        [b"{}".as_slice(), &good].concat(),
    ];
    for text in texts {
        makers.push(("text", Box::new(move |at| Ok(fs::write(at, &text)?))));
    }
    for (name, make) in makers {
        fs::remove_file(&config).or_else(|_| fs::remove_dir(&config))?;
        make(&config)?;
        for command in ["create", "run"] {
            let out = victim.call(&[command, &victim.id])?;
            ensure!(
                out.code == 1,
                "{command} of {name}: {} {}",
                out.code,
                out.stderr
            );
        }
    }
    victim.unharmed()
}

#[test]
fn a_root_that_leads_elsewhere_is_refused() -> Result<()> {
    let mut victim = Victim::new("true")?;
    let bundle = victim.bundle();
    symlink("/", bundle.join("slash"))?;
    symlink(victim.outside(), bundle.join("out"))?;
    symlink("../outside", bundle.join("relative"))?;
    symlink("rootfs", bundle.join("near"))?;
    symlink("/proc/self/cwd", bundle.join("magic"))?;
    fs::write(bundle.join("file"), "")?;
    fifo(&bundle.join("fifo"))?;
    for path in [
        "slash",
        "out",
        "relative",
        "near",
        "near/",
        "magic",
        "magic/rootfs",
        "file",
        "fifo",
        "/proc/self/cwd",
        "/proc/self/root",
        "/proc/self/fd/0",
        "nothing",
        "",
        "rootfs\u{0}",
        "out/data",
    ] {
        victim.config["root"]["path"] = path.into();
        let out = victim.run()?;
        ensure!(out.code == 1, "root {path:?}: {} {}", out.code, out.stdout);
        victim.unharmed()?;
    }
    victim.config["root"]["path"] = "out/../rootfs/.".into();
    victim.run()?.exits(0)?;
    victim.unharmed()
}

#[test]
fn links_of_an_image_in_dev_make_nothing_on_the_host() -> Result<()> {
    // runc's CVE-2026-41579: all of /dev; crun's CVE-2026-88264 and 88265: single names.
    for name in [
        "dev",
        "dev/console",
        "dev/null",
        "dev/ptmx",
        "dev/pts",
        "dev/fd",
        "dev/core",
        "dev/tty",
        "dev/fuse",
    ] {
        for terminal in [false, true] {
            let mut victim = Victim::new("true")?;
            victim.unmount("/dev");
            let at = victim.root().join(name);
            if name == "dev" {
                fs::remove_dir(&at)?;
                symlink(victim.outside().join("dev"), &at)?;
            } else {
                let to = match name {
                    "dev/pts" => victim.outside().join("pts"),
                    _ => victim.outside().join(name.trim_start_matches("dev/")),
                };
                symlink(to, &at)?;
            }
            victim.config["process"]["terminal"] = terminal.into();
            victim.config["linux"]["devices"] = json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o777, "uid": 9, "gid": 9}]);
            victim.config["linux"]["maskedPaths"] = json!(["/proc/kcore", "/data"]);
            victim.run()?;
            victim.unharmed()?;
        }
    }
    Ok(())
}

#[test]
fn no_path_of_a_cgroup_leads_out_of_the_hierarchies() -> Result<()> {
    let mut victim = Victim::new("true")?;
    let id = victim.id.clone();
    let long = "x".repeat(5000);
    for path in [
        "/",
        "/..",
        "..",
        "/../../..",
        ".",
        "a\u{0}b",
        "\n",
        &long,
        &format!("/{id}/\u{0}"),
        &format!("/{id}/{}", "y/".repeat(3000)),
    ] {
        victim.config["linux"]["cgroupsPath"] = path.into();
        let out = victim.run()?;
        ensure!(out.code == 1 || path == "\n", "{path:?} ran");
    }
    let outside = victim.outside();
    for path in [
        format!("/../../../{id}"),
        format!("../../../../{id}"),
        format!("/{id}/../{id}"),
        format!("{}/{id}", outside.display()),
    ] {
        victim.config["linux"]["cgroupsPath"] = path.as_str().into();
        victim.run()?.exits(0)?;
        victim.unharmed()?;
    }
    victim.config["linux"]["cgroupsPath"] = format!("/{id}").into();
    victim.config["process"]["args"] = json!(["sleep", "1000"]);
    victim.start()?;
    for below in [
        "..",
        "../../../../tmp",
        "/../..",
        "pids:../..",
        "no-such:x",
        "\n",
    ] {
        let out = victim.call(&["exec", "--cgroup", below, &id, "cat", "/proc/self/cgroup"])?;
        ensure!(
            !out.stdout.contains(":/\n") || out.code != 0,
            "{below:?}: {}",
            out.stdout
        );
    }
    // What a group of an attacker's making leaves would keep the next test's.
    for top in fs::read_dir("/sys/fs/cgroup")?.flatten() {
        for name in ["../../tmp", "tmp", "x", "\n"] {
            let _ = fs::remove_dir(top.path().join(&id).join(name));
        }
        let parts = outside.strip_prefix("/").unwrap().join(&id);
        for dir in parts.ancestors().take_while(|d| !d.as_os_str().is_empty()) {
            let _ = fs::remove_dir(top.path().join(dir));
        }
    }
    victim.unharmed()
}

#[test]
fn hostile_processes_for_exec_are_refused_or_run_inside() -> Result<()> {
    let victim = Victim::new("sleep 1000")?;
    victim.start()?;
    let at = |name: &str| victim.bundle().join(name);
    fifo(&at("fifo"))?;
    symlink("/dev/zero", at("zero"))?;
    fs::File::create(at("huge"))?.set_len(1 << 42)?;
    fs::write(at("deep"), "[".repeat(100_000))?;
    for name in [
        "fifo",
        "zero",
        "huge",
        "deep",
        ".",
        "/dev/tty",
        "/proc/self/mem",
    ] {
        victim
            .call(&["exec", "--process", name, &victim.id])?
            .exits(255)?;
        victim.call(&["update", "-r", name, &victim.id])?.exits(1)?;
    }
    let base =
        json!({"args": ["true"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
    for (field, value) in [
        ("args", json!([])),
        ("args", json!([""])),
        ("args", json!(["/"])),
        ("args", json!(["a\u{0}b"])),
        ("cwd", json!("")),
        ("cwd", json!("x")),
        ("cwd", json!("/proc/self/fd/5")),
        ("cwd", json!("/proc/self/root/../..\u{0}")),
        ("user", json!({"uid": 4294967295_u64, "gid": 0})),
        ("user", json!({"uid": -1, "gid": 0})),
        ("user", json!({"uid": 4294967296_u64, "gid": 0})),
        (
            "rlimits",
            json!([{"type": "RLIMIT_X", "hard": 1, "soft": 1}]),
        ),
        (
            "rlimits",
            json!([{"type": "RLIMIT_NOFILE", "hard": 1, "soft": 2}]),
        ),
        ("selinuxLabel", json!("x")),
        ("apparmorProfile", json!("../../../x")),
        ("capabilities", json!(7)),
        ("env", json!([1])),
    ] {
        let mut process = base.clone();
        process[field] = value.clone();
        fs::write(at("p.json"), process.to_string())?;
        let out = victim.call(&["exec", "--process", "p.json", &victim.id])?;
        ensure!(out.code != 0, "{field} {value} ran");
    }
    fs::write(at("p.json"), base.to_string())?;
    victim
        .call(&["exec", "--process", "p.json", &victim.id])?
        .exits(0)?;
    victim.unharmed()
}

/// Texts that lead astray, put into every place of a configuration that takes a path or a name.
#[test]
fn configurations_of_crooked_texts_stay_inside() -> Result<()> {
    let seed = match std::env::var("LITE_SEED").ok().and_then(|s| s.parse().ok()) {
        Some(seed) => seed,
        None => RandomState::new().build_hasher().finish() | 1,
    };
    println!("LITE_SEED={seed}");
    let mut state: u64 = seed;
    let mut below = move |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % n
    };
    let start = Instant::now();
    let (mut rounds, mut ran) = (0, 0);
    while start.elapsed() < time(Duration::from_secs(3)) {
        let mut victim = Victim::new(super::harness::LOOK)?;
        let outside = victim.outside().display().to_string();
        for (name, target) in [
            ("l1", outside.as_str()),
            ("l2", "/proc/self/root"),
            ("l3", ".."),
            ("l4", "l4"),
            ("data/l5", "/proc/self/fd"),
        ] {
            symlink(target, victim.root().join(name))?;
        }
        let texts = [
            "",
            "/",
            ".",
            "..",
            "/..",
            "/../..",
            "/l1",
            "/l1/data",
            "/l2",
            "/l2/etc",
            "/l3/l1/empty",
            "/l4",
            "/l4/x",
            "/data/l5/3",
            "/data/l5/5",
            "/data/../l1/x",
            "//data//",
            "/data/./new",
            "/proc/self/fd/4",
            "/proc/self/root",
            "/proc/self/exe",
            "/proc/self/cwd/x",
            "/sys",
            "/dev",
            "/dev/null",
            "/dev/pts/ptmx",
            "/etc/passwd",
            "/etc/passwd/x",
            "relative",
            "\u{0}",
            "/\n",
            "/é",
            &outside,
        ];
        let text = |below: &mut dyn FnMut(usize) -> usize| texts[below(texts.len())].to_owned();
        for _ in 0..=below(3) {
            let word = text(&mut below);
            match below(9) {
                0 => victim.mount(&word, "bind", "rootfs/data", &["bind"]),
                1 => victim.mount(&word, "bind", "rootfs/etc/file", &["rbind", "ro"]),
                2 => victim.mount(&word, "tmpfs", "tmpfs", &["tmpcopyup"]),
                3 => victim.config["process"]["cwd"] = word.into(),
                4 => victim.config["linux"]["maskedPaths"] = json!([word]),
                5 => victim.config["linux"]["readonlyPaths"] = json!([word]),
                6 => {
                    victim.config["linux"]["devices"] = json!([{"path": word, "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 3}])
                }
                7 => victim.mount(&word, "proc", "proc", &[]),
                _ => victim.config["process"]["args"] = json!([word]),
            }
        }
        let shown = victim.config.to_string();
        let check = || -> Result<bool> {
            let out = victim.run()?;
            ensure!(
                !out.stdout.contains("host-secret"),
                "the host is inside: {}",
                out.stdout
            );
            victim.unharmed()?;
            Ok(out.code == 0)
        };
        ran += usize::from(
            check().with_context(|| format!("LITE_SEED={seed}, round {rounds}: {shown}"))?,
        );
        rounds += 1;
    }
    println!("{rounds} configurations, {ran} of them ran");
    Ok(())
}
