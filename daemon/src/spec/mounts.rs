//! The mounts that every container has, in the order in which they are made. Pure.

use oci_spec::runtime::{Mount, MountBuilder};

use super::Shm;
use crate::error::{Error, Result};

/// A mount for the spec.
pub(crate) fn mount(
    destination: &str,
    kind: &str,
    source: &str,
    options: &[&str],
) -> Result<Mount> {
    let options = options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>();
    MountBuilder::default()
        .destination(destination)
        .typ(kind)
        .source(source)
        .options(options)
        .build()
        .map_err(|e| Error::internal(format!("build the mount of {destination}: {e}")))
}

/// The procfs that we have ourselves.
pub(crate) fn host_proc() -> Result<Mount> {
    mount(
        "/proc",
        "bind",
        "/proc",
        &["rbind", "nosuid", "noexec", "nodev"],
    )
}

/// The kernel's file systems, its procfs first. `writable` gives sysfs and cgroup rw, as privileged containers have them.
pub(crate) fn defaults(writable: bool, shm: &Shm, mqueue: bool) -> Result<Vec<Mount>> {
    let rw = if writable { "rw" } else { "ro" };
    let mut all = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])?,
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        )?,
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        )?,
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", rw])?,
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &[rw, "nosuid", "noexec", "nodev"],
        )?,
    ];
    if mqueue {
        all.push(mount(
            "/dev/mqueue",
            "mqueue",
            "mqueue",
            &["nosuid", "noexec", "nodev"],
        )?);
    } else {
        all.push(mount(
            "/dev/mqueue",
            "bind",
            "/dev/mqueue",
            &["rbind", "rprivate"],
        )?);
    }
    match shm {
        Shm::None => {}
        Shm::Own(size) => all.push(mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &[
                "nosuid",
                "noexec",
                "nodev",
                "mode=1777",
                &format!("size={size}"),
            ],
        )?),
        Shm::Bind(path) => all.push(mount("/dev/shm", "bind", path, &["rbind", "rprivate"])?),
    }
    Ok(all)
}

/// Puts the user's mounts over the defaults: one of the same destination takes the default's place, and so do those below a
/// default that a user replaced. Short paths come before those below them.
pub(crate) fn merged(defaults: Vec<Mount>, own: Vec<Mount>) -> Vec<Mount> {
    let covered = |path: &str| {
        own.iter().any(|m| {
            let destination = m.destination().to_string_lossy();
            path == destination || destination == "/dev" && path.starts_with("/dev/")
        })
    };
    let mut all: Vec<Mount> = defaults
        .into_iter()
        .filter(|m| !covered(&m.destination().to_string_lossy()))
        .collect();
    let mut own = own;
    own.sort_by_key(|m| m.destination().components().count());
    all.extend(own);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_of_the_user_takes_the_place_of_a_default() {
        let own = vec![
            mount("/a/b", "bind", "/x", &[]).unwrap(),
            mount("/dev/shm", "bind", "/y", &[]).unwrap(),
            mount("/a", "bind", "/z", &[]).unwrap(),
        ];
        let all = merged(defaults(false, &Shm::Own(1), true).unwrap(), own);
        let paths: Vec<_> = all
            .iter()
            .map(|m| m.destination().to_string_lossy())
            .collect();
        assert_eq!(
            paths,
            [
                "/proc",
                "/dev",
                "/dev/pts",
                "/sys",
                "/sys/fs/cgroup",
                "/dev/mqueue",
                "/a",
                "/a/b",
                "/dev/shm"
            ]
        );
    }
}
