//! Platforms: which of several an image is for, and which are wanted.

use proto::containerd::types::Platform as Wire;

/// An operating system and an architecture, in one spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Platform {
    os: String,
    architecture: String,
    variant: String,
}

impl Platform {
    /// In the spelling that is compared.
    pub(super) fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let os = os.to_ascii_lowercase();
        let os = if os == "macos" { "darwin".into() } else { os };
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("i386" | "386", _) => ("386", ""),
            ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
            ("aarch64", variant) => ("arm64", variant),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            other => other,
        };
        Self {
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
            os,
        }
    }

    /// This host's.
    pub(super) fn host() -> Self {
        Self::new("linux", std::env::consts::ARCH, "")
    }

    /// A client's; what it leaves open is this host's.
    pub(super) fn of_wire(wire: &Wire) -> Self {
        let host = Self::host();
        let or = |given: &str, own: &str| match given {
            "" => own.to_owned(),
            given => given.to_owned(),
        };
        let os = or(&wire.os, &host.os);
        let architecture = or(&wire.architecture, &host.architecture);
        Self::new(&os, &architecture, &wire.variant)
    }

    /// Of an entry of an index, or of an image's configuration.
    pub(super) fn of_spec(platform: &oci_spec::image::Platform) -> Self {
        Self::new(
            &platform.os().to_string(),
            &platform.architecture().to_string(),
            platform.variant().as_deref().unwrap_or_default(),
        )
    }
}

/// Which children of an index are wanted.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    /// None means all.
    pub(super) platforms: Vec<Platform>,
    /// The best so many; 0 means all.
    pub(super) limit: usize,
    /// Manifests and configurations of all platforms, layers of the wanted ones.
    pub(super) all_metadata: bool,
}

impl Filter {
    /// Everything.
    pub(super) fn all() -> Self {
        Self::default()
    }

    /// Place of a platform among the wanted ones; none if it is not wanted.
    pub(super) fn rank(&self, platform: Option<&Platform>) -> Option<usize> {
        match platform {
            _ if self.platforms.is_empty() => Some(0),
            // Whoever says nothing of its platform is for all.
            None => Some(self.platforms.len()),
            Some(platform) => self.platforms.iter().position(|wanted| wanted == platform),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_platform_are_equal() {
        let same = [
            (("linux", "x86_64", ""), ("Linux", "amd64", "v1")),
            (("linux", "aarch64", "v8"), ("linux", "arm64", "")),
            (("linux", "arm", ""), ("linux", "armhf", "")),
        ];
        for ((a, b, c), (d, e, f)) in same {
            assert_eq!(Platform::new(a, b, c), Platform::new(d, e, f));
        }
        assert_ne!(
            Platform::new("linux", "arm", "v6"),
            Platform::new("linux", "arm", "v7")
        );
    }

    #[test]
    fn the_order_of_the_wish_is_the_rank() {
        let (a, b) = (
            Platform::new("linux", "arm64", ""),
            Platform::new("linux", "amd64", ""),
        );
        let filter = Filter {
            platforms: vec![a.clone(), b.clone()],
            ..Filter::default()
        };
        assert_eq!(filter.rank(Some(&b)), Some(1));
        assert_eq!(filter.rank(Some(&a)), Some(0));
        assert_eq!(
            filter.rank(Some(&Platform::new("linux", "s390x", ""))),
            None
        );
        assert_eq!(filter.rank(None), Some(2));
        assert_eq!(Filter::all().rank(Some(&a)), Some(0));
    }
}
