//! Device nodes and the rules about them: what was asked for by path is read from the host here.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
};
use proto::engine::DeviceMapping;

use crate::error::{During, Error, Result};

/// A device node with the rule that lets the container use it.
pub(crate) type Granted = (LinuxDevice, LinuxDeviceCgroup);

fn wrong(error: oci_spec::OciSpecError) -> Error {
    Error::internal(format!("build a device: {error}"))
}

fn rule(
    allow: bool,
    kind: LinuxDeviceType,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> Result<LinuxDeviceCgroup> {
    let mut built = LinuxDeviceCgroupBuilder::default()
        .allow(allow)
        .typ(kind)
        .access(access);
    if let Some(major) = major {
        built = built.major(major);
    }
    if let Some(minor) = minor {
        built = built.minor(minor);
    }
    built.build().map_err(wrong)
}

/// Nothing but the harmless nodes.
pub(crate) fn default_rules() -> Result<Vec<LinuxDeviceCgroup>> {
    use LinuxDeviceType::{A, C};
    let mut rules = vec![rule(false, A, None, None, "rwm")?];
    for (major, minor) in [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)] {
        rules.push(rule(true, C, Some(major), Some(minor), "rwm")?);
    }
    rules.push(rule(false, C, Some(10), Some(229), "rwm")?);
    Ok(rules)
}

/// Everything.
pub(crate) fn all_allowed() -> Result<LinuxDeviceCgroup> {
    rule(true, LinuxDeviceType::A, None, None, "rwm")
}

/// `c 13:* rwm` as a rule.
pub(crate) fn parse_rule(text: &str) -> Result<LinuxDeviceCgroup> {
    let bad = || Error::invalid(format!("invalid device cgroup rule format: '{text}'"));
    let mut words = text.split_whitespace();
    let (kind, numbers, access) = match (words.next(), words.next(), words.next(), words.next()) {
        (Some(kind), Some(numbers), Some(access), None) => (kind, numbers, access),
        _ => return Err(bad()),
    };
    let kind = match kind {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => return Err(bad()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(bad)?;
    let number = |text: &str| match text {
        "*" => Ok(None),
        digits => digits.parse().map(Some).map_err(|_| bad()),
    };
    if access.is_empty() || access.len() > 3 || !access.bytes().all(|b| b"rwm".contains(&b)) {
        return Err(bad());
    }
    rule(true, kind, number(major)?, number(minor)?, access)
}

/// The nodes of one `--device`; a directory gives all nodes below it.
pub(crate) fn mapped(mapping: &DeviceMapping) -> Result<Vec<Granted>> {
    let host = Path::new(&mapping.path_on_host);
    let inside = match mapping.path_in_container.as_str() {
        "" => host,
        given => Path::new(given),
    };
    let access = match mapping.cgroup_permissions.as_str() {
        "" => "rwm",
        given if given.bytes().all(|b| b"rwm".contains(&b)) => given,
        bad => {
            return Err(Error::invalid(format!(
                "device {}: permissions {bad:?} are not of r, w and m",
                host.display()
            )));
        }
    };
    let what = || {
        format!(
            "error gathering device information while adding custom device \"{}\"",
            host.display()
        )
    };
    // A link such as /dev/cdrom stands for the node that it points at.
    let real = host
        .canonicalize()
        .map_err(|e| Error::invalid(format!("{}: {e}", what())))?;
    let mut granted = Vec::new();
    if real.is_dir() {
        gather(&real, inside, access, &mut granted).during(what)?;
    } else {
        let node = node(&real, inside, access).during(what)?;
        granted.push(node.ok_or_else(|| Error::invalid(format!("{}: not a device node", what())))?);
    }
    Ok(granted)
}

/// Every node of the host, for a privileged container.
pub(crate) fn of_host() -> Result<Vec<LinuxDevice>> {
    let mut granted = Vec::new();
    let dev = Path::new("/dev");
    gather(dev, dev, "rwm", &mut granted).during(|| "read the devices of the host")?;
    Ok(granted.into_iter().map(|(device, _)| device).collect())
}

fn gather(dir: &Path, inside: &Path, access: &str, granted: &mut Vec<Granted>) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let (path, inside) = (entry.path(), inside.join(entry.file_name()));
        let name = entry.file_name();
        let own = [
            "pts",
            "shm",
            "fd",
            "mqueue",
            ".lxc",
            ".lxd-mounts",
            ".udev",
            "console",
        ];
        if own.iter().any(|skipped| name == *skipped) {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_dir() {
            gather(&path, &inside, access, granted)?;
        } else if let Some(found) = node(&path, &inside, access)? {
            granted.push(found);
        }
    }
    Ok(())
}

fn node(path: &Path, inside: &Path, access: &str) -> Result<Option<Granted>> {
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        // Gone since the directory was read.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let kind = match found.file_type() {
        t if t.is_char_device() => LinuxDeviceType::C,
        t if t.is_block_device() => LinuxDeviceType::B,
        _ => return Ok(None),
    };
    let (major, minor) = numbers(found.rdev());
    let device = LinuxDeviceBuilder::default()
        .path(PathBuf::from(inside))
        .typ(kind)
        .major(major)
        .minor(minor)
        .file_mode(found.mode() & 0o7777)
        .uid(found.uid())
        .gid(found.gid())
        .build()
        .map_err(wrong)?;
    Ok(Some((
        device,
        rule(true, kind, Some(major), Some(minor), access)?,
    )))
}

/// The numbers of a block device or of the file system's device below a path, for the disk limits.
pub(crate) fn block_device(path: &str) -> Result<(i64, i64)> {
    let found = std::fs::metadata(path)
        .map_err(|e| Error::invalid(format!("read block device {path}: {e}")))?;
    if !found.file_type().is_block_device() {
        return Err(Error::invalid(format!("{path} is no block device")));
    }
    Ok(numbers(found.rdev()))
}

fn numbers(device: u64) -> (i64, i64) {
    (
        rustix::fs::major(device).into(),
        rustix::fs::minor(device).into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let rule = parse_rule("c 13:* rw").unwrap();
        assert_eq!((rule.major(), rule.minor()), (Some(13), None));
        for bad in [
            "",
            "x 1:2 r",
            "c 1 r",
            "c 1:2 q",
            "c 1:2",
            "c 1:2 r r",
            "c a:2 r",
        ] {
            assert!(parse_rule(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_node_of_the_host() {
        let mapping = DeviceMapping {
            path_on_host: "/dev/null".into(),
            ..DeviceMapping::default()
        };
        let granted = mapped(&mapping).unwrap();
        assert_eq!((granted[0].0.major(), granted[0].0.minor()), (1, 3));
        let missing = DeviceMapping {
            path_on_host: "/dev/no-such-device".into(),
            ..DeviceMapping::default()
        };
        assert!(mapped(&missing).is_err());
    }
}
