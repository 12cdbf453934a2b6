//! The documents of an image: index, manifest and config. What Docker's own programs wrote (schema 2) and what the OCI
//! specifies are read alike.
//!
//! ```text
//!  name ── target ──▶ index ──(one per platform)──▶ manifest ──▶ config   its digest is the image id
//!                     (may be missing)                     └───▶ layers   top chain id = the snapshot
//! ```
//!
//! Index and manifest are oci-spec's types. The config is ours: Docker puts more into it than the specification has
//! (health check, shell, parent), and what we do not know must survive a commit.

use std::collections::BTreeMap;

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use proto::engine::ImageConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// Most layers of one image; overlayfs has no room for more.
const MAX_LAYERS: usize = 500;

/// An index or a manifest.
#[derive(Debug, Clone)]
pub(crate) enum Document {
    /// Manifests by platform.
    Index(Box<ImageIndex>),
    /// One image.
    Manifest(Box<ImageManifest>),
}

impl Document {
    /// Reads a document. Its media type decides; where it says nothing, its content does.
    pub(crate) fn parse(media_type: &str, bytes: &[u8]) -> Result<Self> {
        let wrong = |e: serde_json::Error| Error::invalid(format!("invalid manifest: {e}"));
        let value: Value = serde_json::from_slice(bytes).map_err(wrong)?;
        let own = value.get("mediaType").and_then(Value::as_str);
        let is_index = match own.unwrap_or(media_type) {
            DOCKER_LIST | OCI_INDEX => true,
            DOCKER_MANIFEST | OCI_MANIFEST => false,
            "application/vnd.docker.distribution.manifest.v1+prettyjws"
            | "application/vnd.docker.distribution.manifest.v1+json" => {
                return Err(Error::unimplemented(
                    "image manifests of schema version 1 are not supported",
                ));
            }
            _ => value.get("manifests").is_some(),
        };
        if value.get("schemaVersion").and_then(Value::as_u64) != Some(2) {
            return Err(Error::invalid("invalid manifest: schema version is not 2"));
        }
        // A document that is both can be read as either by different programs, which is how signatures are evaded.
        if value.get("manifests").is_some() && value.get("layers").is_some() {
            return Err(Error::invalid(
                "invalid manifest: it is an index and a manifest at once",
            ));
        }
        if is_index {
            let index: ImageIndex = serde_json::from_value(value).map_err(wrong)?;
            return Ok(Self::Index(Box::new(index)));
        }
        let manifest: ImageManifest = serde_json::from_value(value).map_err(wrong)?;
        if manifest.layers().len() > MAX_LAYERS {
            return Err(Error::invalid(format!(
                "invalid manifest: it has more than {MAX_LAYERS} layers"
            )));
        }
        Ok(Self::Manifest(Box::new(manifest)))
    }
}

/// Whether a media type is one of an index or a manifest.
pub(crate) fn is_image(media_type: &str) -> bool {
    matches!(
        media_type,
        DOCKER_MANIFEST | DOCKER_LIST | OCI_MANIFEST | OCI_INDEX
    )
}

/// A platform as `os/architecture/variant`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Platform {
    /// Operating system.
    pub(crate) os: String,
    /// Architecture by its Go name.
    pub(crate) architecture: String,
    /// Variant of the architecture, or empty.
    pub(crate) variant: String,
}

impl Platform {
    /// This host's.
    pub(crate) fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "x86" => ("386", ""),
            "aarch64" => ("arm64", ""),
            "arm" => ("arm", "v7"),
            "powerpc64" => ("ppc64le", ""),
            "riscv64" => ("riscv64", ""),
            other => (other, ""),
        };
        Self {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: variant.into(),
        }
    }

    /// Reads `OS[/ARCHITECTURE[/VARIANT]]`, or an architecture alone.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let host = Self::host();
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|part| {
            part.is_empty()
                || !part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        }) {
            return Err(Error::invalid(format!("invalid platform {text:?}")));
        }
        let (os, architecture, variant) = match parts.as_slice() {
            [os @ ("linux" | "windows" | "darwin" | "freebsd")] => {
                (*os, host.architecture.as_str(), "")
            }
            [architecture] => ("linux", *architecture, ""),
            [os, architecture] => (*os, *architecture, ""),
            [os, architecture, variant] => (*os, *architecture, *variant),
            _ => return Err(Error::invalid(format!("invalid platform {text:?}"))),
        };
        let architecture = match architecture {
            "x86_64" | "x86-64" => "amd64",
            "aarch64" => "arm64",
            "i386" => "386",
            "armhf" => "arm",
            other => other,
        };
        Ok(Self {
            os: os.into(),
            architecture: architecture.into(),
            variant: variant.into(),
        })
    }

    /// How well a host of this platform runs an image of that one: none if not at all, smaller is better.
    fn fits(&self, os: &str, architecture: &str, variant: &str) -> Option<u8> {
        if os != self.os || architecture != self.architecture {
            return None;
        }
        let default = if architecture == "arm64" { "v8" } else { "" };
        let own = if self.variant.is_empty() {
            default
        } else {
            &self.variant
        };
        let theirs = if variant.is_empty() { default } else { variant };
        if own == theirs || variant.is_empty() {
            return Some(0);
        }
        let level = |v: &str| v.strip_prefix('v').and_then(|n| n.parse::<u8>().ok());
        match (level(own), level(theirs)) {
            (Some(own), Some(theirs)) if theirs <= own => Some(own - theirs),
            // amd64/v2 and above need features that a bare amd64 does not promise.
            _ => None,
        }
    }

    /// The entries of an index that this platform can run, the best first.
    pub(crate) fn choose<'a>(&self, index: &'a ImageIndex) -> Vec<&'a Descriptor> {
        let mut fitting: Vec<(u8, &Descriptor)> = index
            .manifests()
            .iter()
            .filter(|entry| is_image(entry.media_type().as_ref()))
            .filter_map(|entry| match entry.platform() {
                Some(p) => self
                    .fits(
                        &p.os().to_string(),
                        &p.architecture().to_string(),
                        p.variant().as_deref().unwrap_or(""),
                    )
                    .map(|rank| (rank, entry)),
                // An entry without a platform may be anything; it is tried last.
                None => Some((u8::MAX, entry)),
            })
            .collect();
        fitting.sort_by_key(|(rank, _)| *rank);
        fitting.into_iter().map(|(_, entry)| entry).collect()
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

/// An image's config document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ImageFile {
    /// RFC 3339 time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) created: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) author: Option<String>,
    /// Architecture by its Go name.
    #[serde(default)]
    pub(crate) architecture: String,
    /// Variant of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<String>,
    /// Operating system.
    #[serde(default)]
    pub(crate) os: String,
    /// How containers of it run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) config: Option<ImageConfig>,
    /// Its layers.
    #[serde(default)]
    pub(crate) rootfs: RootFs,
    /// How each layer came to be; entries without a layer are marked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) history: Option<Vec<History>>,
    /// What we do not know, kept.
    #[serde(flatten)]
    pub(crate) other: BTreeMap<String, Value>,
}

/// The layers by the digests of their uncompressed tars.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    /// Bottom first.
    #[serde(default)]
    pub(crate) diff_ids: Vec<String>,
}

/// One step of an image's making.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct History {
    /// RFC 3339 time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) created: Option<String>,
    /// The command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) created_by: Option<String>,
    /// Who did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) author: Option<String>,
    /// What they said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) comment: Option<String>,
    /// No layer belongs to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) empty_layer: bool,
}

impl ImageFile {
    /// Reads and checks a config document.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let file: Self = serde_json::from_slice(bytes)
            .map_err(|e| Error::invalid(format!("invalid image config: {e}")))?;
        for diff_id in &file.rootfs.diff_ids {
            if !super::reference::is_digest(diff_id) {
                return Err(Error::invalid(format!(
                    "invalid image config: layer {diff_id:?} is no digest"
                )));
            }
        }
        Ok(file)
    }

    /// A config for this host with no layers.
    pub(crate) fn for_host(created: String) -> Self {
        let platform = Platform::host();
        Self {
            created: Some(created),
            architecture: platform.architecture,
            variant: (!platform.variant.is_empty()).then_some(platform.variant),
            os: platform.os,
            rootfs: RootFs {
                kind: "layers".into(),
                diff_ids: Vec::new(),
            },
            ..Self::default()
        }
    }

    /// Chain ids of the layers, bottom first; the last one names the snapshot of the image.
    pub(crate) fn chain_ids(&self) -> Vec<String> {
        let mut chain: Vec<String> = Vec::with_capacity(self.rootfs.diff_ids.len());
        for diff_id in &self.rootfs.diff_ids {
            chain.push(match chain.last() {
                None => diff_id.clone(),
                Some(below) => chain_id(below, diff_id),
            });
        }
        chain
    }
}

/// The chain id of a layer upon others.
pub(crate) fn chain_id(below: &str, diff_id: &str) -> String {
    let sum = Sha256::digest(format!("{below} {diff_id}").as_bytes());
    format!("sha256:{}", hex::encode(sum))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn digest(c: char) -> String {
        format!("sha256:{}", c.to_string().repeat(64))
    }

    #[test]
    fn chain_ids_are_the_specified_ones() {
        let mut file = ImageFile::for_host("2020-01-01T00:00:00Z".into());
        assert!(file.chain_ids().is_empty());
        file.rootfs.diff_ids = vec![digest('a'), digest('b')];
        let chain = file.chain_ids();
        assert_eq!(chain[0], digest('a'));
        let text = format!("{} {}", digest('a'), digest('b'));
        assert_eq!(chain[1], super::super::blob::digest_of(text.as_bytes()));
    }

    #[test]
    fn what_docker_adds_to_a_config_survives() {
        let text = json!({
            "architecture": "amd64", "os": "linux", "container": "c1",
            "config": {"Cmd": ["sh"], "Env": null, "Healthcheck": {"Test": ["NONE"]}, "New": 1},
            "rootfs": {"type": "layers", "diff_ids": [digest('a')]},
            "history": [{"created_by": "x", "empty_layer": true}]
        });
        let file = ImageFile::parse(text.to_string().as_bytes()).unwrap();
        let again = serde_json::to_value(&file).unwrap();
        assert_eq!(again["container"], "c1");
        assert_eq!(again["config"]["New"], 1);
        assert_eq!(again["config"]["Healthcheck"]["Test"][0], "NONE");
        assert!(ImageFile::parse(br#"{"rootfs":{"diff_ids":["../x"]}}"#).is_err());
    }

    #[test]
    fn the_best_platform_is_chosen() {
        let entry = |c: char, os: &str, arch: &str, variant: Option<&str>| {
            json!({"mediaType": OCI_MANIFEST, "digest": digest(c), "size": 1,
                   "platform": {"os": os, "architecture": arch, "variant": variant}})
        };
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
            entry('a', "windows", "amd64", None),
            entry('b', "linux", "arm", Some("v6")),
            entry('c', "linux", "arm", Some("v7")),
            entry('d', "linux", "amd64", None),
            entry('e', "unknown", "unknown", None),
            entry('f', "linux", "amd64", Some("v3")),
        ]});
        let Document::Index(index) = Document::parse("", index.to_string().as_bytes()).unwrap()
        else {
            panic!("not an index")
        };
        let choose = |text: &str| {
            let platform = Platform::parse(text).unwrap();
            platform
                .choose(&index)
                .iter()
                .map(|d| d.digest().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(choose("linux/amd64"), [digest('d')]);
        assert_eq!(choose("linux/arm/v7"), [digest('c'), digest('b')]);
        assert!(choose("linux/s390x").is_empty());
        assert!(Platform::parse("linux//x").is_err());
    }

    #[test]
    fn a_document_that_is_two_things_is_refused() {
        let both = json!({"schemaVersion": 2, "manifests": [], "layers": [], "config": {}});
        assert!(Document::parse(OCI_MANIFEST, both.to_string().as_bytes()).is_err());
        assert!(Document::parse("", b"{").is_err());
        assert!(Document::parse("", b"{\"schemaVersion\":1}").is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Document::parse("", &bytes);
            let _ = ImageFile::parse(&bytes);
        }
    }
}
