//! An export: images from the store into an archive on a client's stream, in OCI's layout and, for what reads only that,
//! with the `manifest.json` of `docker save` beside it.

use std::collections::HashSet;
use std::io::{Read, Write};

use proto::containerd::types::transfer::{ImageExportStream, ImageStore};
use serde_json::{Value, json};

use super::image::{Descriptor, OCI_INDEX};
use super::platform::{Filter, Platform};
use super::store::{NAME, REF};
use super::tree::{Manifest, Tree, Walk};
use super::{Job, Result, TransferError};
use crate::streams::Sending;

/// An image that is exported.
struct Image {
    name: String,
    what: Descriptor,
    tree: Tree,
    /// The manifest that the older document names.
    best: Option<Manifest>,
}

/// Exports images.
pub(super) async fn export(job: &Job, from: ImageStore, to: ImageExportStream) -> Result<()> {
    let stream = job.parts.streams.take(&job.ns, &to.stream)?;
    job.progress.event("Exporting");
    let filter = filter(&to);
    let mut images = Vec::new();
    for (name, what) in job.lookup(&from)? {
        let how = Walk {
            filter: &filter,
            source: None,
            root: &name,
            verb: "exporting",
            label: false,
        };
        let tree = job.walk(&what, how).await?;
        let best = best(job, &tree).await;
        images.push(Image {
            name,
            what,
            tree,
            best,
        });
    }
    let work = job.clone();
    job.blocking(move || {
        let writer = std::io::BufWriter::with_capacity(64 << 10, Sending::new(stream));
        write(&work, &images, &to, writer)
    })
    .await?;
    job.progress.event("Completed export");
    Ok(())
}

fn filter(to: &ImageExportStream) -> Filter {
    let mut platforms: Vec<Platform> = to.platforms.iter().map(Platform::of_wire).collect();
    if platforms.is_empty() && !to.all_platforms {
        platforms.push(Platform::host());
    }
    Filter {
        platforms,
        ..Filter::default()
    }
}

/// This host's manifest, or the first.
async fn best(job: &Job, tree: &Tree) -> Option<Manifest> {
    for manifest in &tree.manifests {
        if job.platform(manifest).await == Some(Platform::host()) {
            return Some(manifest.clone());
        }
    }
    tree.manifests.first().cloned()
}

fn write(job: &Job, images: &[Image], how: &ImageExportStream, writer: impl Write) -> Result<()> {
    let failed = |what: &'static str| {
        move |source| TransferError::Archive {
            what: format!("write {what}"),
            source,
        }
    };
    let mut tar = tar::Builder::new(writer);
    let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
    file(&mut tar, "oci-layout", layout.len() as u64, &layout[..]).map_err(failed("oci-layout"))?;
    for folder in ["blobs/", "blobs/sha256/"] {
        directory(&mut tar, folder).map_err(failed("a directory"))?;
    }
    let mut written = HashSet::new();
    for image in images {
        for blob in blobs(image, how.skip_non_distributable) {
            if !written.insert(blob.digest.clone()) {
                continue;
            }
            let (source, row) = job.parts.blobs.read(&job.ns, &blob.digest)?;
            let name = format!("blobs/sha256/{}", blob.digest.hex());
            let size = u64::try_from(row.size).unwrap_or(0);
            file(&mut tar, &name, size, source).map_err(failed("a blob"))?;
        }
    }
    let index = index(images).to_string();
    file(&mut tar, "index.json", index.len() as u64, index.as_bytes())
        .map_err(failed("index.json"))?;
    if !how.skip_compatibility_manifest {
        let manifest = docker_manifest(images).to_string();
        file(
            &mut tar,
            "manifest.json",
            manifest.len() as u64,
            manifest.as_bytes(),
        )
        .map_err(failed("manifest.json"))?;
    }
    tar.into_inner()
        .and_then(|mut writer| writer.flush())
        .map_err(failed("the end"))
}

/// Everything that an image consists of, what is named before what names it.
fn blobs(image: &Image, skip_foreign: bool) -> Vec<Descriptor> {
    let mut all = image.tree.layers();
    all.retain(|layer| !skip_foreign || !layer.is_foreign());
    for manifest in &image.tree.manifests {
        all.push(manifest.config.clone());
        all.push(manifest.what.clone());
    }
    all.extend(image.tree.indexes.iter().cloned());
    all
}

fn index(images: &[Image]) -> Value {
    let entries = images.iter().map(|image| {
        let mut entry = image.what.json();
        entry["annotations"][NAME] = json!(image.name);
        if let Some((_, tag)) = split_tag(&image.name) {
            entry["annotations"][REF] = json!(tag);
        }
        entry
    });
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": entries.collect::<Vec<_>>(),
    })
}

/// One entry for each image, with all names that it goes by here.
fn docker_manifest(images: &[Image]) -> Value {
    let mut entries: Vec<(&Manifest, Vec<String>)> = Vec::new();
    for image in images {
        let Some(best) = &image.best else { continue };
        let at = entries
            .iter()
            .position(|(known, _)| known.what.digest == best.what.digest);
        let at = at.unwrap_or_else(|| {
            entries.push((best, Vec::new()));
            entries.len() - 1
        });
        if split_tag(&image.name).is_some() {
            entries[at].1.push(familiar(&image.name));
        }
    }
    let path = |what: &Descriptor| format!("blobs/sha256/{}", what.digest.hex());
    let entry = |(manifest, tags): (&Manifest, Vec<String>)| {
        json!({
            "Config": path(&manifest.config),
            "RepoTags": tags,
            "Layers": manifest.layers.iter().map(path).collect::<Vec<_>>(),
        })
    };
    Value::Array(entries.into_iter().map(entry).collect())
}

/// Name and tag.
fn split_tag(name: &str) -> Option<(&str, &str)> {
    let (path, tag) = name.rsplit_once(':')?;
    (!tag.contains('/') && !name.contains('@')).then_some((path, tag))
}

/// A name as Docker shows it.
fn familiar(name: &str) -> String {
    let short = name.strip_prefix("docker.io/").unwrap_or(name);
    short.strip_prefix("library/").unwrap_or(short).to_owned()
}

fn file<W: Write>(
    tar: &mut tar::Builder<W>,
    name: &str,
    size: u64,
    data: impl Read,
) -> std::io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o444);
    header.set_size(size);
    // A blob that lost its end must not shift all that follows.
    let data = data.take(size).chain(std::io::repeat(0)).take(size);
    tar.append_data(&mut header, name, data)
}

fn directory<W: Write>(tar: &mut tar::Builder<W>, name: &str) -> std::io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o755);
    header.set_size(0);
    tar.append_data(&mut header, name, std::io::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_and_shortened() {
        assert_eq!(split_tag("r:5000/a:b"), Some(("r:5000/a", "b")));
        assert_eq!(split_tag("r:5000/a"), None);
        assert_eq!(split_tag("a@sha256:1"), None);
        assert_eq!(familiar("docker.io/library/busybox:1"), "busybox:1");
        assert_eq!(familiar("docker.io/me/app:1"), "me/app:1");
        assert_eq!(familiar("r.io/library/x:1"), "r.io/library/x:1");
    }
}
