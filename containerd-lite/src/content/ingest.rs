//! One unfinished write and its end.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read as _, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::store::{exists, folder_of, io};
use super::{Blobs, ContentError, Digest};
use crate::disk::Meter;
use crate::metadata::{Blob, IngestRow, Labels, MetadataError};
use crate::time::{Nanos, now};

/// An open ingest; the only one of its ref. Dropped without a commit it stays, to be resumed.
#[derive(Debug)]
pub(crate) struct Ingest {
    blobs: Arc<Blobs>,
    ns: String,
    lease: Option<String>,
    reference: String,
    folder: PathBuf,
    bytes: Bytes,
    total: i64,
    started_at: Nanos,
    updated_at: Nanos,
    meter: Meter,
    _lock: WriterGuard,
}

/// Where the bytes are.
#[derive(Debug)]
enum Bytes {
    /// In our file.
    Own {
        file: File,
        hasher: Sha256,
        offset: i64,
    },
    /// Another namespace has the blob: nothing needs to be written.
    Shared { digest: Digest, size: i64 },
}

/// Holds the ref.
#[derive(Debug)]
struct WriterGuard {
    blobs: Arc<Blobs>,
    key: (String, String),
}

impl Drop for WriterGuard {
    fn drop(&mut self) {
        lock(&self.blobs.writers).remove(&self.key);
    }
}

fn lock(
    writers: &Mutex<HashSet<(String, String)>>,
) -> std::sync::MutexGuard<'_, HashSet<(String, String)>> {
    writers.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ingest {
    pub(super) fn open(
        blobs: &Arc<Blobs>,
        ns: &str,
        lease: Option<&str>,
        reference: &str,
        total: i64,
        expected: Option<&Digest>,
    ) -> Result<Self, ContentError> {
        if reference.is_empty() {
            return Err(ContentError::Invalid("ingest ref must not be empty".into()));
        }
        let content = blobs.store.content();
        let key = (ns.to_owned(), reference.to_owned());
        if !lock(&blobs.writers).insert(key.clone()) {
            return Err(ContentError::Locked {
                reference: reference.to_owned(),
            });
        }
        let guard = WriterGuard {
            blobs: blobs.clone(),
            key,
        };
        crate::metadata::leases::required(&blobs.store, ns, lease)?;
        if let Some(digest) = expected {
            refuse_stored(blobs, ns, lease, digest)?;
        }
        let _making = blobs.making();
        let known = content.ingest(ns, reference)?;
        if let Some(row) = &known {
            agree(reference, "total", row.total, total)?;
            agree(
                reference,
                "digest",
                row.expected.as_str(),
                expected.map_or("", Digest::as_str),
            )?;
        }
        let folder_name = folder_of(ns, reference);
        let folder = blobs.folder(&folder_name);
        let bytes = match expected.map(|d| shared(blobs, d)).transpose()?.flatten() {
            Some(shared) if known.is_none() => shared,
            _ => own(&folder, known.is_some())?,
        };
        let now = now();
        let row = IngestRow {
            reference: reference.to_owned(),
            folder: folder_name,
            total: total.max(known.as_ref().map_or(0, |k| k.total)),
            expected: expected.map_or_else(
                || known.as_ref().map_or("", |k| &k.expected).to_owned(),
                Digest::to_string,
            ),
            started_at: known.map_or(now, |k| k.started_at),
            updated_at: now,
        };
        content.open_ingest(ns, lease, row.clone())?;
        Ok(Self {
            blobs: blobs.clone(),
            ns: ns.to_owned(),
            lease: lease.map(str::to_owned),
            reference: reference.to_owned(),
            folder,
            bytes,
            total: row.total,
            started_at: row.started_at,
            updated_at: now,
            meter: Meter::new(),
            _lock: guard,
        })
    }

    /// Lets a lease hold the blob that this becomes. The ingest itself is kept for a day without it.
    pub(crate) fn held_by(mut self, lease: &str) -> Self {
        self.lease = Some(lease.to_owned());
        self
    }

    /// How much has been written.
    pub(crate) fn offset(&self) -> i64 {
        match &self.bytes {
            Bytes::Own { offset, .. } => *offset,
            Bytes::Shared { size, .. } => *size,
        }
    }

    /// The size that was announced, or 0.
    pub(crate) fn total(&self) -> i64 {
        self.total
    }

    /// When it was begun and when it last grew.
    pub(crate) fn times(&self) -> (Nanos, Nanos) {
        (self.started_at, self.updated_at)
    }

    /// Of what has been written.
    pub(crate) fn digest(&self) -> Digest {
        match &self.bytes {
            Bytes::Own { hasher, .. } => Digest::of(hasher),
            Bytes::Shared { digest, .. } => digest.clone(),
        }
    }

    /// Writes at `offset`: the current end, or 0 to begin anew.
    pub(crate) fn write_at(&mut self, offset: i64, data: &[u8]) -> Result<(), ContentError> {
        let current = self.offset();
        if offset != 0 && offset != current {
            return Err(ContentError::Offset { offset, current });
        }
        if offset == 0 && current > 0 {
            let _making = self.blobs.making();
            self.bytes = own(&self.folder, false)?;
        }
        if data.is_empty() {
            return Ok(());
        }
        let path = self.folder.join("data");
        match &mut self.bytes {
            Bytes::Own {
                file,
                hasher,
                offset,
            } => {
                self.meter
                    .take(&*file, data.len() as u64)
                    .map_err(io("write ingest", &path))?;
                file.write_all(data).map_err(io("write ingest", &path))?;
                hasher.update(data);
                *offset += data.len() as i64;
                self.updated_at = now();
                Ok(())
            }
            Bytes::Shared { size, .. } => Err(ContentError::Offset {
                offset: size.saturating_add(1),
                current: *size,
            }),
        }
    }

    /// Makes a blob of it. A mismatch leaves the ingest as it is.
    pub(crate) fn commit(
        self,
        size: i64,
        expected: Option<&Digest>,
        labels: &Labels,
    ) -> Result<Blob, ContentError> {
        let (found, length) = (self.digest(), self.offset());
        let mismatch = |what, found: String, expected: String| {
            Err(ContentError::Mismatch {
                what,
                found,
                expected,
            })
        };
        if size > 0 && size != length {
            return mismatch("size", length.to_string(), size.to_string());
        }
        if let Some(expected) = expected
            && *expected != found
        {
            return mismatch("digest", found.to_string(), expected.to_string());
        }
        let _making = self.blobs.making();
        let target = self.blobs.path(&found);
        match &self.bytes {
            Bytes::Own { file, .. } if !target.exists() => {
                let data = self.folder.join("data");
                file.set_permissions(Permissions::from_mode(0o444))
                    .map_err(io("make read-only", &data))?;
                file.sync_all().map_err(io("fsync", &data))?;
                fs::rename(&data, &target).map_err(io("rename to blob", &target))?;
                let parent = self.blobs.root.join("blobs/sha256");
                File::open(&parent)
                    .and_then(|d| d.sync_all())
                    .map_err(io("fsync", &parent))?;
            }
            // The same bytes are there already.
            Bytes::Own { .. } => {}
            Bytes::Shared { digest, .. } if !target.exists() => {
                return Err(ContentError::Missing {
                    digest: digest.clone(),
                });
            }
            Bytes::Shared { .. } => {}
        }
        let published = self.blobs.store.content().publish(
            &self.ns,
            Some(&self.reference),
            self.lease.as_deref(),
            found.as_str(),
            length,
            labels,
        );
        // The row is gone, so what stays here would be swept anyway.
        let _ = fs::remove_dir_all(&self.folder);
        Ok(published?)
    }
}

impl Write for Ingest {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let offset = self.offset();
        self.write_at(offset, data).map_err(std::io::Error::other)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The error of a blob that the namespace sees; the lease holds it from now on.
pub(super) fn refuse_stored(
    blobs: &Arc<Blobs>,
    ns: &str,
    lease: Option<&str>,
    digest: &Digest,
) -> Result<(), ContentError> {
    match blobs.store.content().get(ns, digest.as_str()) {
        Err(MetadataError::NotFound(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
        Ok(_) => {}
    }
    if lease.is_some() {
        let blob = blobs.store.content().get(ns, digest.as_str())?;
        match blobs.store.content().publish(
            ns,
            None,
            lease,
            digest.as_str(),
            blob.size,
            &Labels::new(),
        ) {
            Ok(_) | Err(MetadataError::AlreadyExists(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(exists(digest))
}

fn shared(blobs: &Blobs, digest: &Digest) -> Result<Option<Bytes>, ContentError> {
    let size = blobs.store.content().size_anywhere(digest.as_str())?;
    Ok(size
        .filter(|_| blobs.path(digest).exists())
        .map(|size| Bytes::Shared {
            digest: digest.clone(),
            size,
        }))
}

/// Opens our file: as it was left, or empty.
fn own(folder: &std::path::Path, resume: bool) -> Result<Bytes, ContentError> {
    crate::listen::directory(folder).map_err(io("make ingest", folder))?;
    let path = folder.join("data");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(!resume)
        .open(&path)
        .map_err(io("open ingest", &path))?;
    let mut hasher = Sha256::new();
    let mut offset = 0i64;
    if resume {
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = file.read(&mut buffer).map_err(io("read ingest", &path))?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            offset += read as i64;
        }
    }
    Ok(Bytes::Own {
        file,
        hasher,
        offset,
    })
}

/// What a resumed ingest was begun with and what is asked now must not contradict each other.
fn agree<T: PartialEq + Default + std::fmt::Display>(
    reference: &str,
    what: &'static str,
    begun: T,
    asked: T,
) -> Result<(), ContentError> {
    if begun == T::default() || asked == T::default() || begun == asked {
        return Ok(());
    }
    Err(ContentError::Mismatch {
        what: if what == "total" {
            "total of resumed ingest"
        } else {
            "digest of resumed ingest"
        },
        found: format!("{asked} for ref {reference}"),
        expected: begun.to_string(),
    })
}
