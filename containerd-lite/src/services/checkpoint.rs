//! Checkpoints as content: the folder that the engine wrote becomes a blob, and a blob the folder that it restores from.
//!
//! ```text
//!  Checkpoint   STATE/checkpoints/N ◀─ engine      then ─▶ blob of the folder, blob of the spec
//!  Create       blob ─▶ STATE/checkpoints/N        then ─▶ BUNDLE/checkpoint, read at Start, gone with the bundle
//! ```
//!
//! What a kill leaves in `STATE/checkpoints` is removed at the next start.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prost_types::Any;
use proto::containerd::types::Descriptor;
use proto::error::ErrorKind;
use proto::prost::Message as _;
use tonic::Status;

use super::blocking;
use crate::content::{Blobs, ContentError, Digest};
use crate::diff::MountSpec;
use crate::error::Kind as _;
use crate::metadata::Labels;

/// Media type of a folder with a checkpoint.
const FOLDER: &str = "application/vnd.containerd.container.criu.checkpoint.criu.tar";
/// Media type of the spec of what was checkpointed.
const SPEC: &str = "application/vnd.containerd.container.checkpoint.config.v1+proto";
/// The same bytes as a layer, which is what unpacks them.
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Where folders on their way are.
fn home(state: &Path) -> PathBuf {
    state.join("checkpoints")
}

/// Removes what an earlier life left.
pub(crate) fn clean(state: &Path) {
    match std::fs::remove_dir_all(home(state)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, "remove the remains of checkpoints");
        }
        _ => {}
    }
}

/// A folder that goes with the value, unless it is taken.
#[derive(Debug)]
pub(super) struct Folder(Option<PathBuf>);

impl Folder {
    /// A new one.
    pub(super) fn new(state: &Path) -> Result<Self, Status> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = home(state).join(format!("{}-{number}", std::process::id()));
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|e| {
                let kind = crate::error::io_kind(&e);
                kind.status(format!("make directory {}: {e}", path.display()))
            })?;
        Ok(Self(Some(path)))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.0.as_deref().expect("taken only by value")
    }

    /// Hands it over.
    pub(super) fn take(mut self) -> PathBuf {
        self.0.take().expect("taken only by value")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(path) = self.0.take()
            && let Err(error) = std::fs::remove_dir_all(&path)
        {
            tracing::warn!(path = %path.display(), %error, "remove a checkpoint's folder");
        }
    }
}

/// Whom blobs are written for.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    pub(super) ns: String,
    pub(super) lease: Option<String>,
}

/// Stores a folder and the spec of its task.
pub(super) async fn store(
    blobs: &Arc<Blobs>,
    owner: Owner,
    folder: Folder,
    spec: Option<Any>,
) -> Result<Vec<Descriptor>, Status> {
    let blobs = blobs.clone();
    blocking(move || {
        let name = folder.path().display().to_string();
        let kept = put(&blobs, &owner, FOLDER, &name, |out| {
            let mut tar = tar::Builder::new(out);
            tar.follow_symlinks(false);
            tar.append_dir_all(".", folder.path())?;
            tar.finish()
        })?;
        let bytes = spec.unwrap_or_default().encode_to_vec();
        let spec = put(&blobs, &owner, SPEC, &format!("{name}/spec"), |out| {
            out.write_all(&bytes)
        })?;
        Ok::<_, ContentError>(vec![kept, spec])
    })
    .await
}

fn put(
    blobs: &Arc<Blobs>,
    owner: &Owner,
    media_type: &str,
    reference: &str,
    fill: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>,
) -> Result<Descriptor, ContentError> {
    let lease = owner.lease.as_deref();
    let mut ingest = blobs.write(&owner.ns, lease, reference, 0, None)?;
    let path = PathBuf::from(reference);
    let filled = fill(&mut ingest).map_err(|source| ContentError::Io {
        attempt: "store a checkpoint of",
        path,
        source,
    });
    let (digest, size) = (ingest.digest(), ingest.offset());
    let stored = filled.and_then(|()| match ingest.commit(size, None, &Labels::new()) {
        // The spec of another checkpoint of the same task.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other.map(drop),
    });
    if let Err(error) = stored {
        // Half a checkpoint is of no use to anybody; the first cause is what counts.
        let _ = blobs.abort(&owner.ns, reference);
        return Err(error);
    }
    Ok(Descriptor {
        media_type: media_type.to_owned(),
        digest: digest.to_string(),
        size,
        ..Descriptor::default()
    })
}

/// Unpacks a checkpoint into a new folder.
pub(super) async fn load(
    blobs: &Arc<Blobs>,
    ns: &str,
    state: &Path,
    checkpoint: &Descriptor,
) -> Result<Folder, Status> {
    if checkpoint.media_type != FOLDER {
        let text = format!("unsupported checkpoint type {:?}", checkpoint.media_type);
        return Err(ErrorKind::InvalidArgument.status(text));
    }
    let digest = Digest::parse(&checkpoint.digest)
        .map_err(|e| crate::error::status(ContentError::from(e)))?;
    let folder = Folder::new(state)?;
    let mount = MountSpec {
        kind: "bind".to_owned(),
        source: folder.path().display().to_string(),
        options: vec!["rw".to_owned(), "rbind".to_owned()],
    };
    let (blobs, ns) = (blobs.clone(), ns.to_owned());
    blocking(move || {
        let (blob, _) = blobs.read(&ns, &digest)?;
        crate::diff::apply(blob, &digest, LAYER, &[mount], false)
    })
    .await?;
    Ok(folder)
}
