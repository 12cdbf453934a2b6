//! A neighbour that shares the root swaps what the runtime is about to mount on with links out of it.
//!
//! The links lead to the host by an absolute path, by more `..` than there are directories, and through /proc. The
//! runtime may succeed or refuse, as it happens to look.

use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use super::harness::{LOOK, Swapper, Victim, time};

/// One place to fight for.
struct Race {
    name: &'static str,
    /// What is swapped, in the root, and where a link leads, in the piece of the host.
    place: &'static str,
    leads: &'static str,
    prepare: fn(&mut Victim),
}

const fn race(
    name: &'static str,
    place: &'static str,
    leads: &'static str,
    prepare: fn(&mut Victim),
) -> Race {
    Race {
        name,
        place,
        leads,
        prepare,
    }
}

const RACES: &[Race] = &[
    race("bind of a directory", "data", "data", |v| {
        v.mount("/data", "bind", "extra", &["bind"])
    }),
    race("bind below", "up", "", |v| {
        v.mount("/up/data", "bind", "extra", &["rbind", "ro"])
    }),
    race("bind of a file", "etc/file", "file", |v| {
        v.mount("/etc/file", "bind", "extra-file", &["bind"])
    }),
    race("bind on what is missing", "up", "empty", |v| {
        v.mount("/up/new/deep", "bind", "extra", &["bind"])
    }),
    race("bind of a file on what is missing", "up", "empty", |v| {
        v.mount("/up/new/f", "bind", "extra-file", &["bind"])
    }),
    race("tmpfs", "data", "data", |v| {
        v.mount("/data", "tmpfs", "tmpfs", &["size=1m"])
    }),
    race("tmpfs with a copy", "data", "data", |v| {
        v.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup"])
    }),
    race("proc", "proc", "self", |_| {}),
    race("sysfs", "sys", "sys", |_| {}),
    race("mqueue", "up", "", |v| {
        v.mount("/up/mqueue", "mqueue", "mqueue", &[])
    }),
    race("cgroup", "up", "", |v| {
        v.mount("/up/cgroup", "cgroup", "cgroup", &["ro"])
    }),
    race("devpts", "up", "", |v| {
        v.mount("/up/pts", "devpts", "devpts", &["newinstance"])
    }),
    race("tmpfs on /dev", "dev", "dev", |_| {}),
    race("/dev of the image", "dev", "dev", |v| {
        v.unmount("/dev/pts");
        v.unmount("/dev");
    }),
    race("a device elsewhere", "up", "", |v| {
        v.config["linux"]["devices"] = json!([{"path": "/up/dev/x", "type": "c", "major": 1, "minor": 3,
            "fileMode": 0o777, "uid": 7, "gid": 7}]);
    }),
    race("console", "dev/console", "console", |v| {
        v.unmount("/dev");
        v.config["process"]["terminal"] = true.into();
    }),
    race("masked file", "up", "", |v| {
        v.config["linux"]["maskedPaths"] = json!(["/up/data", "/up/file"])
    }),
    race("read-only path", "up", "", |v| {
        v.config["linux"]["readonlyPaths"] = json!(["/up/data", "/up/file"])
    }),
    race("working directory", "up", "empty", |v| {
        v.config["process"]["cwd"] = "/up/work".into()
    }),
    race("remount", "data", "data", |v| {
        v.mount("/data", "bind", "extra", &["bind"]);
        v.mount("/data", "bind", "", &["remount", "bind", "ro"]);
    }),
];

/// One victim with the links in place.
fn prepare(race: &Race) -> Result<(Victim, Vec<String>)> {
    let mut victim = Victim::new(LOOK)?;
    let bundle = victim.bundle();
    std::fs::create_dir(bundle.join("extra"))?;
    std::fs::write(bundle.join("extra-file"), "extra\n")?;
    (race.prepare)(&mut victim);
    let root = victim.root();
    if race.place == "dev/console" {
        std::fs::create_dir_all(root.join("dev/pts"))?;
        std::fs::write(root.join("dev/console"), "")?;
    }
    let outside = victim.outside();
    let to = outside.join(race.leads);
    let relative = to.strip_prefix("/")?;
    let up = std::path::Path::new("../../../../../../../../../..");
    let mut others = Vec::new();
    for (number, target) in [
        to.clone(),
        up.join(relative),
        std::path::Path::new("/proc/1/root").join(relative),
    ]
    .iter()
    .enumerate()
    {
        let name = format!("{}.{number}", race.place);
        symlink(target, root.join(&name))?;
        others.push(name);
    }
    Ok((victim, others))
}

fn fight(race: &Race, length: Duration) -> Result<()> {
    let (victim, others) = prepare(race)?;
    let swapper = Swapper::start(&victim.root(), race.place, &others);
    let (start, mut rounds, mut ran) = (Instant::now(), 0, 0);
    while start.elapsed() < length || rounds < 3 {
        let out = victim.run()?;
        anyhow::ensure!(
            !out.stdout.contains("host-secret"),
            "{}: the host is inside: {}",
            race.name,
            out.stdout
        );
        rounds += 1;
        ran += usize::from(out.code == 0);
    }
    let swaps = swapper.stop();
    victim.unharmed()?;
    println!(
        "{}: {rounds} rounds, {ran} of them ran, {swaps} swaps",
        race.name
    );
    Ok(())
}

/// All of them, each for a moment.
#[test]
fn links_swapped_in_reach_nothing() -> Result<()> {
    for race in RACES {
        fight(race, time(Duration::from_millis(400)))?;
    }
    Ok(())
}

/// A volume that two containers share: one swaps, the other mounts below it.
#[test]
fn a_shared_volume_is_no_way_to_the_host() -> Result<()> {
    let mut victim = Victim::new(LOOK)?;
    let volume = victim.bundle().join("volume");
    std::fs::create_dir_all(volume.join("sub"))?;
    std::fs::create_dir(victim.bundle().join("extra"))?;
    symlink("/", volume.join("link"))?;
    symlink(victim.outside(), volume.join("out"))?;
    victim.mount("/data", "bind", "volume", &["rbind"]);
    for n in 0..4 {
        victim.mount(&format!("/data/sub/{n}"), "bind", "extra", &["rbind"]);
    }
    let others = ["link".to_owned(), "out".to_owned()];
    let swapper = Swapper::start(&volume, "sub", &others);
    let start = Instant::now();
    while start.elapsed() < time(Duration::from_secs(1)) {
        let out = victim.run()?;
        anyhow::ensure!(
            !out.stdout.contains("host-secret"),
            "the host is inside: {}",
            out.stdout
        );
    }
    swapper.stop();
    victim.unharmed()
}

/// The same against exec, whose root is hostile from the start.
#[test]
fn an_exec_into_a_root_that_changes_stays_inside() -> Result<()> {
    let victim = Victim::new("sleep 1000")?;
    victim.start()?;
    let root = victim.root();
    let mut others = Vec::new();
    for (number, target) in [
        victim.outside(),
        "/proc/self/fd".into(),
        "/proc/1/root".into(),
    ]
    .iter()
    .enumerate()
    {
        let name = format!("up.{number}");
        symlink(target, root.join(&name))?;
        others.push(name);
    }
    let swapper = Swapper::start(&root, "up", &others);
    let start = Instant::now();
    while start.elapsed() < time(Duration::from_secs(1)) {
        for cwd in ["/up/work", "/up/3", "/up/5"] {
            let out = victim.call(&[
                "exec",
                "--cwd",
                cwd,
                &victim.id,
                "sh",
                "-c",
                "ls host-secret; ls ../host-secret",
            ])?;
            anyhow::ensure!(out.stdout.is_empty(), "{cwd}: {}", out.stdout);
        }
    }
    swapper.stop();
    victim.unharmed()
}
