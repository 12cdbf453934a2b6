//! Where a container's cgroup goes.
//!
//! /proc/self/cgroup names every hierarchy that exists and where the caller
//! stands in it. Hierarchies are looked for where everybody mounts them, each
//! checked by its file system type; only if one is missing there is the list of
//! mounts read, since that costs in proportion to the host's mounts.

use std::path::{Component, Path, PathBuf};

use super::dir::{self, Dir};
use super::{CgroupError, Placement};
pub(super) use crate::files::clean;

const ROOT: &str = "/sys/fs/cgroup";
const CGROUP_MAGIC: i64 = 0x0027_e0eb;
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// The hierarchies a container joins on v1. Others that a machine may have
/// (named ones of other programs) are not ours to touch.
const JOINED: [&str; 15] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "pids",
    "blkio",
    "hugetlb",
    "net_cls",
    "net_prio",
    "perf_event",
    "rdma",
    "misc",
    "name=systemd",
];

/// One v1 hierarchy and the container's directory in it.
#[derive(Clone, Debug)]
pub(super) struct Hierarchy {
    /// Controllers; `name=systemd` for the named one, empty text for unified.
    pub(super) controllers: Vec<String>,
    pub(super) dir: Dir,
}

/// What kind of machine this is, and the container's directories.
#[derive(Debug)]
pub(super) enum Found {
    V1(Vec<Hierarchy>),
    V2(Dir),
}

/// Finds the directories of a container.
pub(super) fn find(placement: &Placement<'_>) -> Result<Found, CgroupError> {
    let name = match placement.cgroups_path {
        None | Some("") => placement.id,
        Some(path) => path,
    };
    let absolute = name.starts_with('/');
    let inner = clean(name);
    if inner.as_os_str().is_empty() {
        return Err(CgroupError::invalid(
            "cgroupsPath",
            format!("{name:?} names the root of the hierarchies"),
        ));
    }
    let own = dir::read_all(Path::new("/proc/self/cgroup")).map_err(|source| CgroupError::Io {
        op: "read",
        path: PathBuf::from("/proc/self/cgroup"),
        source,
    })?;
    let own = parse_own(&own);
    match fs_type(Path::new(ROOT)) {
        None => Err(CgroupError::unavailable(
            "cgroup",
            format!("a cgroup file system at {ROOT}"),
        )),
        Some(CGROUP2_MAGIC) => {
            let base = if absolute {
                PathBuf::new()
            } else {
                above_own(&own)
            };
            Ok(Found::V2(Dir::new(Path::new(ROOT).join(base).join(inner))))
        }
        Some(_) => Ok(Found::V1(find_v1(&own, absolute, &inner)?)),
    }
}

/// One line of /proc/self/cgroup.
#[derive(Debug, PartialEq)]
struct Own<'a> {
    controllers: Vec<&'a str>,
    path: &'a str,
}

/// Parses /proc/self/cgroup. A path may hold colons.
fn parse_own(text: &str) -> Vec<Own<'_>> {
    text.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            Some(Own {
                controllers: controllers.split(',').collect(),
                path,
            })
        })
        .collect()
}

/// On v2 a relative path starts beside the caller's group, not in it: a group
/// with processes of its own cannot hand controllers to groups below.
fn above_own(own: &[Own<'_>]) -> PathBuf {
    let path = own
        .iter()
        .find(|o| o.controllers == [""])
        .map_or("/", |o| o.path);
    clean(path).parent().map(Path::to_owned).unwrap_or_default()
}

fn find_v1(own: &[Own<'_>], absolute: bool, inner: &Path) -> Result<Vec<Hierarchy>, CgroupError> {
    let mut mounts: Option<Vec<Mount>> = None;
    let mut found = Vec::with_capacity(own.len());
    for line in own {
        if line.controllers == [""] {
            // The unified hierarchy of a hybrid machine is a guest here: joined if mounted.
            let mount = Path::new(ROOT).join("unified");
            if fs_type(&mount) == Some(CGROUP2_MAGIC) {
                let base = if absolute {
                    PathBuf::new()
                } else {
                    clean(line.path)
                };
                let dir = Dir::new(mount.join(base).join(inner));
                found.push(Hierarchy {
                    controllers: vec![String::new()],
                    dir,
                });
            }
            continue;
        }
        if !line.controllers.iter().any(|c| JOINED.contains(c)) {
            continue;
        }
        let (mount, root) = match usual_mount(&line.controllers) {
            Some(mount)
                if absolute || line.path == "/" || mount.join(clean(line.path)).exists() =>
            {
                (mount, PathBuf::new())
            }
            // Either mounted elsewhere, or we are in a container that sees only a part
            // of the hierarchy under our own, full path.
            _ => {
                let mounts = mounts.get_or_insert_with(read_mounts);
                match mounts.iter().find(|m| {
                    line.controllers
                        .iter()
                        .all(|c| m.options.iter().any(|o| o == c))
                }) {
                    Some(m) => (m.point.clone(), clean(&m.root)),
                    None => continue,
                }
            }
        };
        let own = clean(line.path);
        let base = if absolute {
            PathBuf::new()
        } else {
            own.strip_prefix(&root).map(Path::to_owned).unwrap_or(own)
        };
        found.push(Hierarchy {
            controllers: line.controllers.iter().map(|c| (*c).to_owned()).collect(),
            dir: Dir::new(mount.join(base).join(inner)),
        });
    }
    if found.is_empty() {
        return Err(CgroupError::unavailable(
            "cgroup",
            format!("any controller under {ROOT}"),
        ));
    }
    Ok(found)
}

/// The place where everybody mounts a hierarchy, if it is mounted there.
fn usual_mount(controllers: &[&str]) -> Option<PathBuf> {
    let joined = controllers.join(",");
    let joined = joined.strip_prefix("name=").unwrap_or(&joined);
    let names = std::iter::once(joined).chain(
        controllers
            .iter()
            .copied()
            .filter(|_| controllers.len() > 1),
    );
    names
        .map(|name| Path::new(ROOT).join(name))
        .find(|path| fs_type(path) == Some(CGROUP_MAGIC))
}

/// The magic number of the file system at a path.
fn fs_type(path: &Path) -> Option<i64> {
    // The field's width differs between architectures.
    #[allow(
        clippy::unnecessary_cast,
        clippy::useless_conversion,
        reason = "i64 on some targets only"
    )]
    rustix::fs::statfs(path).ok().map(|s| s.f_type as i64)
}

/// Refuses a recorded directory that can be no container's cgroup: one elsewhere
/// than below the root of a cgroup file system. What is gone already is fine.
pub(super) fn check_recorded(path: &Path) -> Result<(), CgroupError> {
    let refused = |why: &str| {
        let why = format!("{} in state.json {why}", path.display());
        Err(CgroupError::invalid("cgroup path", why))
    };
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    let parent = match path.parent() {
        Some(parent) if path.is_absolute() && path.components().all(plain) => parent,
        _ => return refused("is not an absolute path without `..`"),
    };
    // No link can be in a cgroup file system, so what is in the parent is in it
    // as well; and the root, which holds all processes, is in none.
    match rustix::fs::statfs(parent) {
        #[allow(clippy::unnecessary_cast, reason = "i64 on some targets only")]
        Ok(found) if [CGROUP_MAGIC, CGROUP2_MAGIC].contains(&(found.f_type as i64)) => Ok(()),
        Ok(_) => refused("is not below the root of a cgroup file system"),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(()),
        Err(e) => Err(CgroupError::Io {
            op: "look at",
            path: parent.to_owned(),
            source: e.into(),
        }),
    }
}

/// A mounted v1 hierarchy.
#[derive(Debug, PartialEq)]
struct Mount {
    root: String,
    point: PathBuf,
    options: Vec<String>,
}

fn read_mounts() -> Vec<Mount> {
    dir::read_all(Path::new("/proc/self/mountinfo"))
        .map(|t| parse_mounts(&t))
        .unwrap_or_default()
}

/// The v1 hierarchies in a mountinfo text.
fn parse_mounts(text: &str) -> Vec<Mount> {
    text.lines()
        .filter_map(|line| {
            let (front, back) = line.split_once(" - ")?;
            let mut front = front.split(' ').skip(3);
            let (root, point) = (front.next()?, front.next()?);
            let mut back = back.split(' ');
            if back.next()? != "cgroup" {
                return None;
            }
            let options = back.nth(1)?.split(',').map(str::to_owned).collect();
            Some(Mount {
                root: unescape(root),
                point: PathBuf::from(unescape(point)),
                options,
            })
        })
        .collect()
}

/// Undoes the octal escapes of mountinfo.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|d| first == b'\\' && d.iter().all(|c| (b'0'..b'8').contains(c)));
        match octal {
            Some(digits) => {
                let value = digits.iter().fold(0u32, |n, d| n * 8 + u32::from(d - b'0'));
                out.push(u8::try_from(value & 0xff).unwrap_or_default());
                rest = &tail[3..];
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The parsers of this file on one text; gives how much they found.
#[cfg(test)]
pub(super) fn fuzzed(text: &str) -> usize {
    let own = parse_own(text);
    let _ = above_own(&own);
    own.len() + parse_mounts(text).len() + usize::from(unescape(text) != text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_position_keeps_colons_and_named_hierarchies() {
        let own = parse_own("9:name=systemd:/a:b\n1:cpu,cpuacct:/\n0::/user.slice\n");
        assert_eq!(
            own[0],
            Own {
                controllers: vec!["name=systemd"],
                path: "/a:b"
            }
        );
        assert_eq!(own[1].controllers, ["cpu", "cpuacct"]);
        assert_eq!(above_own(&own), Path::new(""));
        assert_eq!(
            above_own(&parse_own("0::/user.slice/s.scope")),
            Path::new("user.slice")
        );
    }

    #[test]
    fn a_path_never_leads_upwards() {
        assert_eq!(clean("/docker/x"), Path::new("docker/x"));
        assert_eq!(clean("../../x/./y/../z"), Path::new("x/z"));
        assert_eq!(clean("/.."), Path::new(""));
    }

    #[test]
    fn only_what_is_below_a_hierarchy_can_be_recorded() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["", "x", "/", "/proc/x/../../y", "/sys/fs/cgroup", "/tmp"] {
            assert!(check_recorded(Path::new(bad)).is_err(), "{bad}");
        }
        assert!(check_recorded(&dir.path().join("x")).is_err());
        let gone = dir.path().join("gone/x");
        check_recorded(&gone).unwrap();
    }

    #[test]
    fn mountinfo_gives_roots_and_unescapes() {
        let text = "32 31 0:29 /docker/a\\040b /mnt/cg\\040x rw shared:1 - cgroup cgroup rw,cpu,cpuacct\n\
                    41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\nbroken\n";
        let mounts = parse_mounts(text);
        assert_eq!(mounts.len(), 1);
        assert_eq!(
            (mounts[0].root.as_str(), mounts[0].point.as_path()),
            ("/docker/a b", Path::new("/mnt/cg x"))
        );
        assert_eq!(mounts[0].options, ["rw", "cpu", "cpuacct"]);
    }
}
