//! The difference between two sets of mounts as a layer blob.

use std::io::{BufWriter, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use super::changes::{between, of_overlay, single_layer};
use super::compress::{Compression, PLAIN, Writer};
use super::layer::Layer;
use super::root::open_plain;
use super::target::Layers;
use super::{DiffError, MountSpec, io};
use crate::content::{Blobs, ContentError, Digest, Hashed, Ingest};
use crate::error::Kind as _;
use crate::metadata::Labels;

/// Label of a layer blob with the digest of the layer before compression.
const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// What to compare and where to put the layer.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) ns: String,
    pub(crate) lease: Option<String>,
    pub(crate) before: Vec<MountSpec>,
    pub(crate) after: Vec<MountSpec>,
    /// Empty means gzip.
    pub(crate) media_type: String,
    /// Name of the ingest; empty means one of our own.
    pub(crate) reference: String,
    pub(crate) labels: Labels,
    /// No file of the layer is later than this, in seconds.
    pub(crate) epoch: Option<i64>,
}

/// The layer that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Created {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: i64,
}

/// Makes the layer and stores it.
pub(crate) fn create(blobs: &Arc<Blobs>, request: Request) -> Result<Created, DiffError> {
    let media_type = match request.media_type.as_str() {
        "" => format!("{PLAIN}+gzip"),
        given => given.to_owned(),
    };
    let compression = Compression::of_media_type(&media_type)?;
    let (before, after) = (
        Layers::parse(&request.before)?,
        Layers::parse(&request.after)?,
    );
    let reference = match request.reference.as_str() {
        "" => own_reference(),
        given => given.to_owned(),
    };
    let mut ingest = blobs.write(&request.ns, request.lease.as_deref(), &reference, 0, None)?;
    ingest.write_at(0, &[])?;
    let outcome = write(&before, &after, compression, ingest, request.epoch).and_then(
        |(ingest, uncompressed)| {
            let (digest, size) = (ingest.digest(), ingest.offset());
            let mut labels = request.labels;
            labels.insert(UNCOMPRESSED.to_owned(), uncompressed.to_string());
            match ingest.commit(size, None, &labels) {
                Ok(_) => {}
                Err(error) if error.kind() == proto::error::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
            Ok(Created {
                media_type,
                digest,
                size,
            })
        },
    );
    if outcome.is_err() {
        // Half a layer under a name of ours is of no use to anybody; the first cause is what counts.
        let _ = blobs.abort(&request.ns, &reference);
    }
    outcome
}

fn own_reference() -> String {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!(
        "diff-{}-{}-{number}",
        std::process::id(),
        crate::time::now()
    )
}

fn write(
    before: &Layers,
    after: &Layers,
    compression: Compression,
    ingest: Ingest,
    epoch: Option<i64>,
) -> Result<(Ingest, Digest), DiffError> {
    let failed = |error: std::io::Error| match error.downcast::<ContentError>() {
        Ok(content) => DiffError::Content(content),
        Err(error) => io::<std::io::Error>("make layer of", Path::new("/"))(error),
    };
    let compressed =
        Writer::new(compression, BufWriter::with_capacity(128 << 10, ingest)).map_err(failed)?;
    let mut layer = Layer::new(
        BufWriter::with_capacity(64 << 10, Hashed::new(compressed)),
        epoch,
    );
    let (old, new) = (before.all(), after.all());
    match single_layer(&old, &new) {
        // The directory of an overlay is the difference already. A single bind mount on nothing is one, too.
        Some(only) => of_overlay(open(only)?, &mut layer).map_err(failed)?,
        None if old == new => {}
        None => {
            let readable = |layers: &Layers| -> Result<OwnedFd, DiffError> {
                let target = layers.clone().read_only().open()?;
                open_plain(&target.root, std::ffi::OsStr::new("."))
                    .map_err(io("open", Path::new("/")))
            };
            match old.is_empty() {
                true => of_overlay(readable(after)?, &mut layer).map_err(failed)?,
                false => {
                    between(readable(before)?, readable(after)?, &mut layer).map_err(failed)?
                }
            }
        }
    }
    let mut buffer = layer.finish().map_err(failed)?;
    buffer.flush().map_err(failed)?;
    let hashed = buffer.into_inner().map_err(|e| failed(e.into_error()))?;
    let uncompressed = hashed.digest();
    let ingest = hashed
        .inner
        .finish()
        .and_then(|b| b.into_inner().map_err(|e| e.into_error()))
        .map_err(failed)?;
    Ok((ingest, uncompressed))
}

fn open(path: &Path) -> Result<OwnedFd, DiffError> {
    std::fs::File::open(path)
        .map(OwnedFd::from)
        .map_err(io("open", path))
}
