//! What can be put together: clients, daemons in the middle, shims and runtimes of the field beside ours, and where they are.
//!
//! Real programs come in three releases: the installed one, and two that `integration/scripts/peers` unpacked into the folders
//! that `LITE_PEERS_MIDDLE_DIR` and `LITE_PEERS_DIR` name. The labels say which versions Debian has there; what really ran is
//! printed by [`versions`].

use std::path::PathBuf;

use crate::programs;

/// Where a real program comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// What the machine has: containerd 1.6, docker 20.10 on Debian 12.
    Installed,
    /// `LITE_PEERS_MIDDLE_DIR`: containerd 1.7, docker 26.1 of Debian 13.
    Middle,
    /// `LITE_PEERS_DIR`: containerd 2.1, docker 28.5 of Debian's unstable.
    Newest,
}

impl Release {
    /// All of them, oldest first.
    pub const ALL: [Self; 3] = [Self::Installed, Self::Middle, Self::Newest];

    /// The path of one of its programs.
    pub fn program(self, name: &str) -> Option<PathBuf> {
        let folders = match self {
            Self::Installed => return programs::installed(name),
            Self::Middle => unpacked("LITE_PEERS_MIDDLE_DIR"),
            Self::Newest => unpacked("LITE_PEERS_DIR"),
        };
        let mut found = folders.into_iter().map(|dir| dir.join(name));
        found.find(|path| path.is_file())
    }

    fn containerd(self) -> &'static str {
        match self {
            Self::Installed => "1.6",
            Self::Middle => "1.7",
            Self::Newest => "2.1",
        }
    }

    fn docker(self) -> &'static str {
        match self {
            Self::Installed => "20.10",
            Self::Middle => "26.1",
            Self::Newest => "28.5",
        }
    }
}

fn unpacked(variable: &str) -> Vec<PathBuf> {
    let dir = std::env::var_os(variable).map(PathBuf::from);
    let folder = |name: &'static str| dir.as_ref().map(|d| d.join(name));
    ["bin", "usr/bin", "usr/sbin"]
        .into_iter()
        .filter_map(folder)
        .collect()
}

/// A part of the chain that has alternatives.
pub trait Part: Copy + PartialEq + std::fmt::Debug + 'static {
    /// Every alternative.
    const ALL: &'static [Self];
    /// How tables name it.
    fn label(self) -> String;
    /// The program; none if this machine lacks it.
    fn program(self) -> Option<PathBuf>;
}

/// Who drives the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// containerd's own client.
    Ctr(Release),
    /// A real dockerd; images in its graph driver.
    Dockerd(Release),
    /// The newest dockerd with its images in containerd.
    DockerdStore,
    /// Ours.
    DockerdLite,
}

impl Part for Client {
    const ALL: &'static [Self] = &[
        Self::Ctr(Release::Installed),
        Self::Ctr(Release::Middle),
        Self::Ctr(Release::Newest),
        Self::Dockerd(Release::Installed),
        Self::Dockerd(Release::Middle),
        Self::Dockerd(Release::Newest),
        Self::DockerdStore,
        Self::DockerdLite,
    ];

    fn label(self) -> String {
        match self {
            Self::Ctr(release) => format!("ctr {}", release.containerd()),
            Self::Dockerd(release) => format!("dockerd {}", release.docker()),
            Self::DockerdStore => "dockerd 28.5, containerd store".to_owned(),
            Self::DockerdLite => "dockerd-lite".to_owned(),
        }
    }

    fn program(self) -> Option<PathBuf> {
        match self {
            Self::Ctr(release) => release.program("ctr"),
            Self::Dockerd(release) => release.program("dockerd"),
            Self::DockerdStore => Release::Newest.program("dockerd"),
            Self::DockerdLite => programs::path("dockerd-lite").ok(),
        }
    }
}

/// The daemon in the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Middle {
    /// A real containerd.
    Containerd(Release),
    /// Ours.
    Lite,
}

impl Part for Middle {
    const ALL: &'static [Self] = &[
        Self::Containerd(Release::Installed),
        Self::Containerd(Release::Middle),
        Self::Containerd(Release::Newest),
        Self::Lite,
    ];

    fn label(self) -> String {
        match self {
            Self::Containerd(release) => format!("containerd {}", release.containerd()),
            Self::Lite => "containerd-lite".to_owned(),
        }
    }

    fn program(self) -> Option<PathBuf> {
        match self {
            Self::Containerd(release) => release.program("containerd"),
            Self::Lite => programs::path("containerd-lite").ok(),
        }
    }
}

/// The parent of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shim {
    /// containerd's.
    Go(Release),
    /// Ours.
    Lite,
}

impl Part for Shim {
    const ALL: &'static [Self] = &[
        Self::Go(Release::Installed),
        Self::Go(Release::Middle),
        Self::Go(Release::Newest),
        Self::Lite,
    ];

    fn label(self) -> String {
        match self {
            Self::Go(release) => format!("Go shim {}", release.containerd()),
            Self::Lite => "our shim".to_owned(),
        }
    }

    fn program(self) -> Option<PathBuf> {
        match self {
            Self::Go(release) => release.program("containerd-shim-runc-v2"),
            Self::Lite => programs::path("containerd-shim-lite-v2").ok(),
        }
    }
}

/// The OCI runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// The installed runc.
    Runc,
    /// The newest crun that is here; where control groups are hybrid it runs without the unified hierarchy, which some
    /// versions refuse.
    Crun,
    /// Ours.
    Lite,
}

impl Part for Runtime {
    const ALL: &'static [Self] = &[Self::Runc, Self::Crun, Self::Lite];

    fn label(self) -> String {
        match self {
            Self::Runc => "runc",
            Self::Crun => "crun",
            Self::Lite => "runc-lite",
        }
        .to_owned()
    }

    fn program(self) -> Option<PathBuf> {
        match self {
            Self::Runc => Release::Installed.program("runc"),
            // The installed 1.8 refuses specs of OCI 1.1 and later, which containerd 1.7 and later write.
            Self::Crun => Release::Newest
                .program("crun")
                .or_else(|| Release::Installed.program("crun")),
            Self::Lite => programs::path("runc-lite").ok(),
        }
    }
}

/// What the real programs on this machine say of themselves, a line each.
pub fn versions() -> Vec<String> {
    let mut lines = Vec::new();
    for release in Release::ALL {
        for name in ["dockerd", "containerd", "runc", "crun"] {
            let Some(path) = release.program(name) else {
                continue;
            };
            let said = std::process::Command::new(&path).arg("--version").output();
            let said = said.map_or_else(
                |e| e.to_string(),
                |o| String::from_utf8_lossy(&o.stdout).into_owned(),
            );
            lines.push(format!(
                "{release:?} {name}: {}",
                said.lines().next().unwrap_or("says nothing")
            ));
        }
    }
    lines
}
