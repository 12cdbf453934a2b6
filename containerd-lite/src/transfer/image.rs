//! The documents of images: what a descriptor points at, and what that points at in turn.

use std::collections::BTreeMap;

use oci_spec::image as spec;

use super::platform::Platform;
use super::{Result, TransferError};
use crate::content::{ContentError, Digest};
use crate::metadata::{Labels, Target};

/// Media type of an index of ours.
pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of a manifest of ours.
pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of a configuration of ours.
pub(super) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Label that says which layer a blob is when it is not compressed.
pub(super) const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// A blob as a document names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) annotations: Labels,
    pub(super) platform: Option<Platform>,
}

/// What a blob is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Index,
    Manifest,
    Config,
    Layer,
    Other,
}

impl Role {
    /// Of a media type.
    pub(super) fn of(media_type: &str) -> Self {
        match media_type {
            OCI_INDEX | "application/vnd.docker.distribution.manifest.list.v2+json" => Self::Index,
            OCI_MANIFEST | "application/vnd.docker.distribution.manifest.v2+json" => Self::Manifest,
            OCI_CONFIG
            | "application/vnd.docker.container.image.v1+json"
            | "application/vnd.docker.plugin.v1+json" => Self::Config,
            other if other.contains("layer") || other.contains("rootfs") => Self::Layer,
            _ => Self::Other,
        }
    }
}

impl Descriptor {
    /// Name of the ingest, and of the line in a client's progress.
    pub(super) fn key(&self) -> String {
        let kind = match Role::of(&self.media_type) {
            Role::Index => "index",
            Role::Manifest => "manifest",
            Role::Config => "config",
            Role::Layer => "layer",
            Role::Other => "unknown",
        };
        format!("{kind}-{}", self.digest)
    }

    /// Whether a registry must not be given it.
    pub(super) fn is_foreign(&self) -> bool {
        self.media_type.contains("nondistributable") || self.media_type.contains(".foreign.")
    }

    /// As an image points at it.
    pub(super) fn target(&self) -> Target {
        Target {
            media_type: self.media_type.clone(),
            digest: self.digest.to_string(),
            size: i64::try_from(self.size).unwrap_or(i64::MAX),
            annotations: self.annotations.clone(),
        }
    }

    /// What an image points at.
    pub(super) fn of_target(target: &Target) -> Result<Self> {
        Ok(Self {
            media_type: target.media_type.clone(),
            digest: Digest::parse(&target.digest).map_err(ContentError::from)?,
            size: u64::try_from(target.size).unwrap_or(0),
            annotations: target.annotations.clone(),
            platform: None,
        })
    }

    /// As documents have it.
    pub(super) fn json(&self) -> serde_json::Value {
        let mut value = serde_json::json!({
            "mediaType": self.media_type,
            "digest": self.digest.as_str(),
            "size": self.size,
        });
        if !self.annotations.is_empty() {
            value["annotations"] = serde_json::json!(self.annotations);
        }
        value
    }

    fn of_spec(found: &spec::Descriptor) -> Result<Self> {
        let digest = found.digest().to_string();
        let annotations = found.annotations().clone().unwrap_or_default();
        Ok(Self {
            media_type: found.media_type().to_string(),
            digest: Digest::parse(&digest).map_err(ContentError::from)?,
            size: found.size(),
            annotations: annotations.into_iter().collect::<BTreeMap<_, _>>(),
            platform: found.platform().as_ref().map(Platform::of_spec),
        })
    }
}

/// Reads the entries of an index.
pub(super) fn index(what: &Descriptor, bytes: &[u8]) -> Result<Vec<Descriptor>> {
    let index = spec::ImageIndex::from_reader(bytes).map_err(document("index", &what.digest))?;
    index.manifests().iter().map(Descriptor::of_spec).collect()
}

/// Reads configuration and layers of a manifest.
pub(super) fn manifest(what: &Descriptor, bytes: &[u8]) -> Result<(Descriptor, Vec<Descriptor>)> {
    let manifest =
        spec::ImageManifest::from_reader(bytes).map_err(document("manifest", &what.digest))?;
    let layers = manifest.layers().iter().map(Descriptor::of_spec);
    Ok((
        Descriptor::of_spec(manifest.config())?,
        layers.collect::<Result<_>>()?,
    ))
}

/// What an image's configuration says of the file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) platform: Platform,
    pub(super) diff_ids: Vec<Digest>,
}

/// Reads an image's configuration.
pub(super) fn config(digest: &Digest, bytes: &[u8]) -> Result<Config> {
    let file =
        spec::ImageConfiguration::from_reader(bytes).map_err(document("configuration", digest))?;
    let ids = file.rootfs().diff_ids().iter();
    Ok(Config {
        platform: Platform::new(
            &file.os().to_string(),
            &file.architecture().to_string(),
            file.variant().as_deref().unwrap_or_default(),
        ),
        diff_ids: ids
            .map(|id| Digest::parse(id).map_err(|e| ContentError::from(e).into()))
            .collect::<Result<_>>()?,
    })
}

/// Names of the committed snapshots of an image, one per layer: each says what all layers up to it are.
pub(super) fn chain(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut names: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for id in diff_ids {
        names.push(match names.last() {
            None => id.clone(),
            Some(parent) => Digest::of_bytes(format!("{parent} {id}").as_bytes()),
        });
    }
    names
}

fn document<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    what: &str,
    digest: &Digest,
) -> impl FnOnce(E) -> TransferError {
    let what = format!("{what} {digest}");
    move |source| TransferError::Document {
        what,
        source: source.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_name_all_layers_below() {
        let (a, b) = (Digest::of_bytes(b"a"), Digest::of_bytes(b"b"));
        let names = chain(&[a.clone(), b.clone()]);
        assert_eq!(names[0], a);
        assert_eq!(names[1], Digest::of_bytes(format!("{a} {b}").as_bytes()));
        assert!(chain(&[]).is_empty());
    }

    #[test]
    fn malformed_documents_are_errors() {
        let what = Descriptor {
            media_type: OCI_INDEX.into(),
            digest: Digest::of_bytes(b"x"),
            size: 1,
            annotations: Labels::new(),
            platform: None,
        };
        assert!(index(&what, b"{").is_err());
        assert!(manifest(&what, b"{}").is_err());
        assert!(config(&what.digest, b"[]").is_err());
    }
}
