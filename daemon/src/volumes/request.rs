//! What mounts a container shall have: `-v`, `--mount`, `--tmpfs`, `--volumes-from` and the image's volumes as one list.
//!
//! Pure: no path is touched and no volume made. Later sources never replace earlier ones silently: two explicit mounts of
//! one destination are an error; a volume that the image declares gives way to whatever the user put there.

use std::collections::{BTreeMap, BTreeSet};

use proto::engine::{HostConfig, Set};
use serde::{Deserialize, Serialize};

use super::tmpfs::tmpfs;

/// Why a mount request is refused. The wording of the frequent ones is Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MountError {
    /// `-v` text of a wrong form.
    #[error("invalid volume specification: '{0}'")]
    Specification(String),
    /// Unknown or contradictory mode.
    #[error("invalid mode: {0}")]
    Mode(String),
    /// Destination is not an absolute path.
    #[error("invalid mount path: '{0}' mount path must be absolute")]
    Relative(String),
    /// Destination is the root.
    #[error("invalid volume specification: '{0}': invalid mount config: destination can't be '/'")]
    Root(String),
    /// A volume name with characters that are not allowed.
    #[error(
        "\"{0}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )]
    VolumeName(String),
    /// Two mounts of one destination.
    #[error("duplicate mount point: {0}")]
    Duplicate(String),
    /// A `--mount` that contradicts itself.
    #[error("invalid mount config for type \"{kind}\": {why}")]
    Config {
        /// Type of the mount.
        kind: String,
        /// What is wrong.
        why: String,
    },
    /// A `--volumes-from` whose container does not exist or whose mode is unknown.
    #[error("invalid volumes-from \"{0}\": {1}")]
    From(String, String),
}

/// One mount of a container, as its record keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// Absolute, clean path in the container.
    pub(crate) destination: String,
    /// Nothing can be written through it.
    pub(crate) read_only: bool,
    /// The mode as the user wrote it (`ro,z`), shown by inspect.
    #[serde(default)]
    pub(crate) mode: String,
    /// What is mounted.
    pub(crate) source: Source,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum Source {
    /// A path of the host.
    Bind {
        /// Absolute path on the host.
        path: String,
        /// Made as a directory if missing (`-v`), or required to exist (`--mount`).
        create: bool,
        /// With the mounts below it.
        recursive: bool,
        /// Propagation of mounts; empty means rprivate.
        #[serde(default)]
        propagation: String,
    },
    /// A volume. The name is empty until [`super::Volumes::prepare`] has made one up.
    Volume {
        /// Name of the volume.
        name: String,
        /// Driver that makes it if it does not exist; empty means local.
        #[serde(default)]
        driver: String,
        /// Options for that driver.
        #[serde(default)]
        options: BTreeMap<String, String>,
        /// Labels if it is made now.
        #[serde(default)]
        labels: BTreeMap<String, String>,
        /// The image's files are not copied into an empty volume.
        #[serde(default)]
        no_copy: bool,
        /// A directory within the volume instead of its root.
        #[serde(default)]
        subpath: String,
        /// The daemon made up the name; goes with the container on `rm -v`.
        #[serde(default)]
        anonymous: bool,
    },
    /// Memory.
    Tmpfs {
        /// Mount options as for mount(8).
        options: Vec<String>,
        /// Asked for by `--mount`, and therefore listed by inspect.
        listed: bool,
    },
}

/// All mounts of a container to be created. `from` answers the mounts of another container for `--volumes-from`.
pub(crate) fn collect(
    host: &HostConfig,
    config_volumes: Option<&Set>,
    image_volumes: &Set,
    from: impl Fn(&str) -> Result<Vec<Mount>, String>,
) -> Result<Vec<Mount>, MountError> {
    let mut inherited: BTreeMap<String, Mount> = BTreeMap::new();
    for text in host.volumes_from.iter().flatten() {
        for mount in volumes_from(text, &from)? {
            inherited.insert(mount.destination.clone(), mount);
        }
    }
    let mut explicit = Vec::new();
    for text in host.binds.iter().flatten() {
        explicit.push(bind(text, &host.volume_driver)?);
    }
    for request in host.mounts.iter().flatten() {
        explicit.push(super::long::mount(request)?);
    }
    for (destination, options) in &host.tmpfs {
        explicit.push(tmpfs(destination, options)?);
    }
    let mut seen = BTreeSet::new();
    for mount in &explicit {
        if !seen.insert(mount.destination.clone()) {
            return Err(MountError::Duplicate(mount.destination.clone()));
        }
        inherited.remove(&mount.destination);
    }
    explicit.extend(inherited.into_values());
    let mut taken: BTreeSet<String> = explicit.iter().map(|m| m.destination.clone()).collect();
    for destination in config_volumes.into_iter().flatten().chain(image_volumes) {
        let destination = clean_destination(destination.0, destination.0)?;
        if taken.insert(destination.clone()) {
            explicit.push(anonymous(destination, &host.volume_driver));
        }
    }
    // A mount below another one must come after it.
    explicit.sort_by_key(|mount| mount.destination.matches('/').count());
    Ok(explicit)
}

fn anonymous(destination: String, driver: &str) -> Mount {
    Mount {
        destination,
        read_only: false,
        mode: String::new(),
        source: Source::Volume {
            name: String::new(),
            driver: driver.to_owned(),
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            no_copy: false,
            subpath: String::new(),
            anonymous: true,
        },
    }
}

fn volumes_from(
    text: &str,
    from: &impl Fn(&str) -> Result<Vec<Mount>, String>,
) -> Result<Vec<Mount>, MountError> {
    let (name, mode) = text.split_once(':').unwrap_or((text, ""));
    let read_only = match mode {
        "" | "rw" | "z" | "Z" => false,
        "ro" => true,
        other => return Err(MountError::Mode(other.to_owned())),
    };
    let mounts = from(name).map_err(|why| MountError::From(text.to_owned(), why))?;
    Ok(mounts
        .into_iter()
        .filter(|mount| !matches!(mount.source, Source::Tmpfs { .. }))
        .map(|mut mount| {
            mount.read_only |= read_only;
            if !mode.is_empty() {
                mount.mode = mode.to_owned();
            }
            // The volume belongs to the other container: rm -v of this one leaves it, use protects it.
            if let Source::Volume { no_copy, .. } = &mut mount.source {
                *no_copy = true;
            }
            mount
        })
        .collect())
}

/// One `-v` text: `[SOURCE:]DESTINATION[:MODE]`.
fn bind(text: &str, driver: &str) -> Result<Mount, MountError> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, mode) = match parts.as_slice() {
        [destination] => ("", *destination, ""),
        [source, destination] if destination.starts_with('/') => (*source, *destination, ""),
        [source, destination, mode] => (*source, *destination, *mode),
        _ => return Err(MountError::Specification(text.to_owned())),
    };
    if parts.len() > 1 && source.is_empty() {
        return Err(MountError::Specification(text.to_owned()));
    }
    let destination = clean_destination(destination, text)?;
    let flags = mode_flags(mode)?;
    if source.starts_with('/') {
        if flags.no_copy {
            return Err(MountError::Mode(mode.to_owned()));
        }
        return Ok(Mount {
            destination,
            read_only: flags.read_only,
            mode: mode.to_owned(),
            source: Source::Bind {
                path: clean(source),
                create: true,
                recursive: true,
                propagation: flags.propagation,
            },
        });
    }
    if !flags.propagation.is_empty() {
        return Err(MountError::Mode(mode.to_owned()));
    }
    let mut made = anonymous(destination, driver);
    made.read_only = flags.read_only;
    made.mode = mode.to_owned();
    if let Source::Volume {
        name,
        no_copy,
        anonymous,
        ..
    } = &mut made.source
    {
        *no_copy = flags.no_copy;
        if !source.is_empty() {
            check_volume_name(source)?;
            *name = source.to_owned();
            *anonymous = false;
            if made.mode.is_empty() {
                made.mode = "z".to_owned();
            }
        }
    }
    Ok(made)
}

#[derive(Default)]
struct Flags {
    read_only: bool,
    no_copy: bool,
    propagation: String,
}

fn mode_flags(mode: &str) -> Result<Flags, MountError> {
    let wrong = || MountError::Mode(mode.to_owned());
    let mut flags = Flags::default();
    let mut access = 0;
    for word in mode.split(',').filter(|w| !w.is_empty()) {
        match word {
            "rw" => access += 1,
            "ro" => {
                access += 1;
                flags.read_only = true;
            }
            // SELinux labels and macOS consistency mean nothing here; Docker takes them too.
            "z" | "Z" | "consistent" | "cached" | "delegated" | "default" => {}
            "nocopy" => flags.no_copy = true,
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => {
                if !flags.propagation.is_empty() {
                    return Err(wrong());
                }
                flags.propagation = word.to_owned();
            }
            _ => return Err(wrong()),
        }
    }
    if access > 1 {
        return Err(wrong());
    }
    Ok(flags)
}

/// Whether a text can name a volume.
pub(crate) fn check_volume_name(name: &str) -> Result<(), MountError> {
    let mut bytes = name.bytes();
    let fine = name.len() > 1
        && name.len() <= 255
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if fine {
        Ok(())
    } else {
        Err(MountError::VolumeName(name.to_owned()))
    }
}

pub(super) fn clean_destination(destination: &str, whole: &str) -> Result<String, MountError> {
    if !destination.starts_with('/') || destination.contains('\0') {
        return Err(MountError::Relative(destination.to_owned()));
    }
    match clean(destination) {
        root if root == "/" => Err(MountError::Root(whole.to_owned())),
        path => Ok(path),
    }
}

/// An absolute path without `.`, `..`, doubled and trailing slashes; purely by its text.
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn binds(texts: &[&str]) -> Result<Vec<Mount>, MountError> {
        let host = HostConfig {
            binds: Some(texts.iter().map(|t| (*t).to_owned()).collect()),
            ..HostConfig::default()
        };
        collect(&host, None, &Set::new(), |_| Ok(Vec::new()))
    }

    #[test]
    fn a_bind_and_a_volume_differ_by_the_slash() {
        let mounts = binds(&["/a/../b:/x:ro", "data:/y", "/z"]).unwrap();
        assert_eq!(
            mounts[0].source,
            Source::Bind {
                path: "/b".into(),
                create: true,
                recursive: true,
                propagation: String::new()
            }
        );
        assert!(mounts[0].read_only);
        assert!(
            matches!(&mounts[1].source, Source::Volume { name, anonymous: false, .. } if name == "data")
        );
        assert_eq!(mounts[1].mode, "z");
        assert!(matches!(
            &mounts[2].source,
            Source::Volume {
                anonymous: true,
                ..
            }
        ));
    }

    #[test]
    fn wrong_texts_are_refused() {
        for bad in [
            "/a:b",
            "/a:/",
            "a:/b:xx",
            ":/b",
            "./a:/b",
            "/a:/b:ro,rw",
            "a:/b:rshared",
            "/a:/b:nocopy",
            "/a:/b:c:d",
            "",
        ] {
            assert!(binds(&[bad]).is_err(), "{bad}");
        }
        assert_eq!(
            binds(&["/a:/x", "/b:/x/"]),
            Err(MountError::Duplicate("/x".into()))
        );
    }

    #[test]
    fn the_image_gives_way_and_parents_come_first() {
        let host = HostConfig {
            binds: Some(vec!["/h:/data/sub/deep".into(), "/h:/data".into()]),
            tmpfs: [("/run".to_owned(), "size=1m,exec".to_owned())].into(),
            ..HostConfig::default()
        };
        let image: Set = [
            ("/data".to_owned(), Default::default()),
            ("/v".to_owned(), Default::default()),
        ]
        .into();
        let mounts = collect(&host, None, &image, |_| Ok(Vec::new())).unwrap();
        let destinations: Vec<_> = mounts.iter().map(|m| m.destination.as_str()).collect();
        assert_eq!(destinations, ["/data", "/run", "/v", "/data/sub/deep"]);
        assert_eq!(
            mounts[1].source,
            Source::Tmpfs {
                options: ["nosuid", "nodev", "size=1m", "exec"]
                    .map(str::to_owned)
                    .to_vec(),
                listed: false
            }
        );
    }

    #[test]
    fn volumes_from_can_be_narrowed_and_overridden() {
        let other = binds(&["data:/d", "/h:/e"]).unwrap();
        let host = HostConfig {
            volumes_from: Some(vec!["c:ro".into()]),
            binds: Some(vec!["/mine:/e".into()]),
            ..HostConfig::default()
        };
        let mounts = collect(&host, None, &Set::new(), |_| Ok(other.clone())).unwrap();
        assert_eq!(mounts.len(), 2);
        assert!(mounts.iter().any(|m| m.destination == "/d" && m.read_only));
        assert!(mounts.iter().any(|m| m.destination == "/e" && !m.read_only));
    }

    proptest! {
        #[test]
        fn any_accepted_bind_has_a_clean_absolute_destination(text in "[a-z/.:,]{0,24}") {
            if let Ok(mounts) = binds(&[&text]) {
                for mount in mounts {
                    prop_assert!(mount.destination.starts_with('/') && mount.destination.len() > 1);
                    prop_assert!(!mount.destination.split('/').any(|p| p == ".." || p == "."));
                }
            }
        }

        #[test]
        fn cleaning_is_idempotent(path in "[a-z/.]{0,24}") {
            let once = clean(&path);
            prop_assert_eq!(clean(&once), once.clone());
        }
    }
}
