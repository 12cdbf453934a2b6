//! The layout of `docker save`: its `manifest.json` becomes an index with a manifest for each image.

use std::io::Read as _;

use serde::Deserialize;
use serde_json::json;

use super::archive::{self, Contents};
use super::image::{self, OCI_INDEX, OCI_MANIFEST};
use super::store::{NAME, REF};
use super::{Job, Result, TransferError};
use crate::content::{ContentError, Digest};

/// Media type of a layer as it is in such an archive.
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// One image of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

/// Makes the documents for what an archive holds and returns the index. With `compress` layers are compressed.
pub(super) fn index(
    job: &Job,
    contents: &Contents,
    bytes: &[u8],
    compress: bool,
) -> Result<Vec<u8>> {
    let entries: Vec<Entry> =
        serde_json::from_slice(bytes).map_err(|e| TransferError::Document {
            what: "manifest.json".into(),
            source: e.into(),
        })?;
    let mut manifests = Vec::new();
    for entry in &entries {
        let (digest, size, platform) = manifest(job, contents, entry, compress)?;
        let descriptor = json!({
            "mediaType": OCI_MANIFEST,
            "digest": digest.as_str(),
            "size": size,
            "platform": platform,
        });
        let tags = entry.repo_tags.as_deref().unwrap_or_default();
        if tags.is_empty() {
            manifests.push(descriptor);
            continue;
        }
        for tag in tags {
            let mut named = descriptor.clone();
            let name = full_name(tag);
            let short = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
            named["annotations"] = json!({NAME: name, REF: short});
            manifests.push(named);
        }
    }
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
    Ok(serde_json::to_vec(&index).expect("a value has a JSON form"))
}

/// `busybox:1` is `docker.io/library/busybox:1`.
fn full_name(tag: &str) -> String {
    let first = tag.split('/').next().unwrap_or_default();
    let has_host = tag.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    let name = match (has_host, tag.contains('/')) {
        (true, _) => tag.to_owned(),
        (false, true) => format!("docker.io/{tag}"),
        (false, false) => format!("docker.io/library/{tag}"),
    };
    match name.rsplit('/').next().unwrap_or_default().contains(':') {
        true => name,
        false => format!("{name}:latest"),
    }
}

fn manifest(
    job: &Job,
    contents: &Contents,
    entry: &Entry,
    compress: bool,
) -> Result<(Digest, u64, serde_json::Value)> {
    let find = |name: &str| {
        contents
            .find(name)
            .cloned()
            .ok_or_else(|| TransferError::NotFound(format!("archive: file {name:?}")))
    };
    let (config, config_size) = find(&entry.config)?;
    let mut layers = Vec::new();
    for name in &entry.layers {
        let (digest, size) = find(name)?;
        layers.push(layer(job, digest, size, compress)?);
    }
    let (mut file, _) = job.parts.blobs.read(&job.ns, &config)?;
    let mut bytes = Vec::new();
    file.by_ref()
        .take(8 << 20)
        .read_to_end(&mut bytes)
        .map_err(|source| {
            TransferError::Content(ContentError::Io {
                attempt: "read blob",
                path: job.parts.blobs.path(&config),
                source,
            })
        })?;
    image::config(&config, &bytes)?;
    let parsed: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let platform = json!({"architecture": parsed["architecture"], "os": parsed["os"]});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": image::OCI_CONFIG,
            "digest": config.as_str(),
            "size": config_size,
        },
        "layers": layers,
    });
    let bytes = serde_json::to_vec(&manifest).expect("a value has a JSON form");
    let (digest, size) = archive::store(job, &mut bytes.as_slice(), None, "manifest")?;
    Ok((digest, size, platform))
}

/// The descriptor of a layer; the first bytes say how it is compressed.
fn layer(job: &Job, digest: Digest, size: u64, compress: bool) -> Result<serde_json::Value> {
    let unreadable = |source| {
        TransferError::Content(ContentError::Io {
            attempt: "read blob",
            path: job.parts.blobs.path(&digest),
            source,
        })
    };
    let (mut file, _) = job.parts.blobs.read(&job.ns, &digest)?;
    let mut start = Vec::new();
    file.by_ref()
        .take(4)
        .read_to_end(&mut start)
        .map_err(unreadable)?;
    let suffix = match start.as_slice() {
        [0x1f, 0x8b, ..] => "+gzip",
        [0x28, 0xb5, 0x2f, 0xfd] => "+zstd",
        _ if compress => {
            let rest = std::io::Cursor::new(start).chain(file);
            let mut gzip = flate2::read::GzEncoder::new(rest, flate2::Compression::new(6));
            let (digest, size) = archive::store(job, &mut gzip, None, "layer")?;
            return Ok(json!({
                "mediaType": format!("{LAYER}+gzip"), "digest": digest.as_str(), "size": size,
            }));
        }
        _ => "",
    };
    Ok(json!({
        "mediaType": format!("{LAYER}{suffix}"), "digest": digest.as_str(), "size": size,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_the_hubs() {
        for (short, full) in [
            ("busybox:1", "docker.io/library/busybox:1"),
            ("me/app", "docker.io/me/app:latest"),
            ("r.io:5000/x", "r.io:5000/x:latest"),
            ("localhost/x:2", "localhost/x:2"),
        ] {
            assert_eq!(full_name(short), full);
        }
    }
}
