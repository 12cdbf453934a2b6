//! A bundle: the directory with config.json, found and read.

use std::io;
use std::path::{Path, PathBuf};

use crate::files::clean;
use crate::spec::Spec;

/// Why a bundle is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    /// config.json is missing.
    #[error("JSON specification file config.json not found in {}", .0.display())]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// It is not what the specification says.
    #[error("parse {}", path.display())]
    Parse {
        path: PathBuf,
        source: serde_json::Error,
    },
    /// There is no root file system.
    #[error("invalid rootfs {}", path.display())]
    Rootfs { path: PathBuf, source: io::Error },
    /// Its path leads elsewhere than it says.
    #[error("invalid rootfs {}: not an absolute path, or a symlink", .0.display())]
    RootfsLink(PathBuf),
}

/// A configuration and where it came from.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// The directory, absolute.
    pub(crate) path: PathBuf,
    /// config.json as it was read.
    pub(crate) text: Vec<u8>,
    /// What it says.
    pub(crate) spec: Spec,
}

impl Bundle {
    /// Reads the bundle at `path`, or in the current directory.
    pub(crate) fn load(path: Option<&str>) -> Result<Self, BundleError> {
        let given = Path::new(path.filter(|p| !p.is_empty()).unwrap_or("."));
        let read = |source| BundleError::Read {
            path: given.to_owned(),
            source,
        };
        let dir = canonical(given).map_err(read)?;
        let config = dir.join("config.json");
        let text = crate::files::read(&config).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => BundleError::Missing(dir.clone()),
            _ => BundleError::Read {
                path: config.clone(),
                source,
            },
        })?;
        let spec = parse(&text, &config)?;
        Ok(Self {
            path: dir,
            text,
            spec,
        })
    }

    /// The root file system, absolute. A link in its path is refused: whoever made the
    /// bundle's content, as an image's, would choose what becomes the root.
    pub(crate) fn rootfs(&self) -> Result<PathBuf, BundleError> {
        let root = self.spec.root.as_ref().map_or("", |r| r.path.as_str());
        let path = Path::new("/").join(clean(self.path.join(root)));
        match canonical(&path) {
            Ok(found) if found == path => Ok(found),
            Ok(_) => Err(BundleError::RootfsLink(path)),
            Err(source) => Err(BundleError::Rootfs { path, source }),
        }
    }
}

/// The path without links. The kernel knows it of what is open; asking it is one
/// walk instead of one for each component.
fn canonical(path: &Path) -> io::Result<PathBuf> {
    use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat, stat, statat};
    use std::os::fd::AsRawFd as _;
    use std::os::unix::ffi::OsStringExt as _;
    let open = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let number = format!("/proc/self/fd/{}", open.as_raw_fd());
    let Ok(found) = readlinkat(CWD, &number, Vec::new()) else {
        return path.canonicalize();
    };
    let found = PathBuf::from(std::ffi::OsString::from_vec(found.into_bytes()));
    // What lies under another mount, or was removed, has a text that leads elsewhere.
    let same =
        |a: rustix::fs::Stat, b: rustix::fs::Stat| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino);
    match (
        stat(&found),
        statat(&open, "", rustix::fs::AtFlags::EMPTY_PATH),
    ) {
        (Ok(a), Ok(b)) if found.is_absolute() && same(a, b) => Ok(found),
        _ => path.canonicalize(),
    }
}

/// Reads the text of a config.json.
pub(crate) fn parse(text: &[u8], path: &Path) -> Result<Spec, BundleError> {
    serde_json::from_slice(text).map_err(|source| BundleError::Parse {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nulls_count_as_absent() {
        let text = br#"{"ociVersion":"1.0.2","process":{"args":null,"env":null,"user":null,
            "capabilities":{"bounding":null}},"mounts":null,"hooks":null,"annotations":null,
            "linux":{"namespaces":null,"resources":null,"maskedPaths":null,"sysctl":null},
            "solaris":{"x":1}}"#;
        let spec = parse(text, Path::new("x")).unwrap();
        assert_eq!(spec.version, "1.0.2");
        assert!(spec.process.unwrap().args.is_empty());
    }

    proptest! {
        #[test]
        fn any_text_parses_or_fails(text in ".{0,200}") {
            let _ = parse(text.as_bytes(), Path::new("x"));
        }

        #[test]
        fn broken_configurations_fail_softly(cut in 0_usize..400, byte in any::<u8>()) {
            let mut text = br#"{"ociVersion":"1.0.2","process":{"terminal":true,"user":{"uid":0,"gid":0},
                "args":["sh"],"cwd":"/","rlimits":[{"type":"RLIMIT_NOFILE","hard":1,"soft":1}]},
                "root":{"path":"rootfs"},"mounts":[{"destination":"/proc","type":"proc","options":["ro"]}],
                "linux":{"namespaces":[{"type":"pid"}],"uidMappings":[{"containerID":0,"hostID":1,"size":1}]}}"#.to_vec();
            if let Some(b) = text.get_mut(cut) { *b = byte; }
            let _ = parse(&text, Path::new("x"));
        }
    }
}
