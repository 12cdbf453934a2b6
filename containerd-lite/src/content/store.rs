//! The directory of blobs and ingests.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use sha2::{Digest as _, Sha256};

use super::{ContentError, Digest, Ingest};
use crate::metadata::{Blob, IngestRow, MetadataError, Store};
use crate::time::Nanos;

/// How far an ingest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IngestStatus {
    pub(crate) reference: String,
    pub(crate) offset: i64,
    pub(crate) total: i64,
    pub(crate) expected: String,
    pub(crate) started_at: Nanos,
    pub(crate) updated_at: Nanos,
}

/// All blobs and ingests.
#[derive(Debug)]
pub(crate) struct Blobs {
    pub(super) root: PathBuf,
    pub(super) store: Store,
    /// Refs that have a writer, with their namespaces.
    pub(super) writers: Mutex<HashSet<(String, String)>>,
    /// Shared by whoever makes a file and its row, exclusive for the sweep.
    sweep: RwLock<()>,
}

impl Blobs {
    /// Opens or makes the directory.
    pub(crate) fn open(root: PathBuf, store: Store) -> Result<Arc<Self>, ContentError> {
        for folder in ["blobs/sha256", "ingest"] {
            let path = root.join(folder);
            crate::listen::directory(&path).map_err(io("make directory", &path))?;
        }
        Ok(Arc::new(Self {
            root,
            store,
            writers: Mutex::default(),
            sweep: RwLock::new(()),
        }))
    }

    /// Where the bytes of a blob are, whether or not they are there.
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    pub(super) fn folder(&self, folder: &str) -> PathBuf {
        self.root.join("ingest").join(folder)
    }

    /// Keeps the sweep out while a file and its row are made.
    pub(super) fn making(&self) -> RwLockReadGuard<'_, ()> {
        self.sweep.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a blob that the namespace sees.
    pub(crate) fn read(&self, ns: &str, digest: &Digest) -> Result<(File, Blob), ContentError> {
        let blob = self.store.content().get(ns, digest.as_str())?;
        let path = self.path(digest);
        match File::open(&path) {
            Ok(file) => Ok((file, blob)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(ContentError::Missing {
                    digest: digest.clone(),
                })
            }
            Err(source) => Err(ContentError::Io {
                attempt: "open blob",
                path,
                source,
            }),
        }
    }

    /// Opens the ingest `reference`, new or where it was left. Nobody else can until it is dropped or committed.
    pub(crate) fn write(
        self: &Arc<Self>,
        ns: &str,
        lease: Option<&str>,
        reference: &str,
        total: i64,
        expected: Option<&Digest>,
    ) -> Result<Ingest, ContentError> {
        Ingest::open(self, ns, lease, reference, total, expected)
    }

    /// Lets a lease hold a blob that the namespace sees; false if it sees none.
    pub(crate) fn hold(
        self: &Arc<Self>,
        ns: &str,
        lease: Option<&str>,
        digest: &Digest,
    ) -> Result<bool, ContentError> {
        match super::ingest::refuse_stored(self, ns, lease, digest) {
            Ok(()) => Ok(false),
            Err(ContentError::Metadata(MetadataError::AlreadyExists(_))) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// How far one ingest is.
    pub(crate) fn status(&self, ns: &str, reference: &str) -> Result<IngestStatus, ContentError> {
        let row = self.store.content().ingest(ns, reference)?;
        row.map(|r| self.look(r))
            .ok_or_else(|| ContentError::NoIngest {
                reference: reference.to_owned(),
            })
    }

    /// How far all ingests of a namespace are.
    pub(crate) fn statuses(&self, ns: &str) -> Result<Vec<IngestStatus>, ContentError> {
        let rows = self.store.content().ingests(ns)?;
        Ok(rows.into_iter().map(|r| self.look(r)).collect())
    }

    fn look(&self, row: IngestRow) -> IngestStatus {
        let meta = fs::metadata(self.folder(&row.folder).join("data")).ok();
        let changed = meta
            .as_ref()
            .and_then(|m| m.modified().ok())
            .and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
        IngestStatus {
            reference: row.reference,
            offset: meta.map_or(0, |m| i64::try_from(m.len()).unwrap_or(i64::MAX)),
            total: row.total,
            expected: row.expected,
            started_at: row.started_at,
            updated_at: changed
                .and_then(|t| i64::try_from(t.as_nanos()).ok())
                .unwrap_or(row.updated_at),
        }
    }

    /// Gives an ingest up.
    pub(crate) fn abort(&self, ns: &str, reference: &str) -> Result<(), ContentError> {
        let _making = self.making();
        let key = (ns.to_owned(), reference.to_owned());
        if self
            .writers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&key)
        {
            return Err(ContentError::Locked {
                reference: reference.to_owned(),
            });
        }
        let folder = self.folder(&folder_of(ns, reference));
        if !self.store.content().drop_ingest(ns, reference)? {
            return Err(ContentError::NoIngest {
                reference: reference.to_owned(),
            });
        }
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(ContentError::Io {
                attempt: "remove ingest",
                path: folder,
                source: error,
            }),
            _ => Ok(()),
        }
    }

    /// Refs that have a writer: a collection must leave them alone.
    pub(crate) fn active(&self) -> HashSet<(String, String)> {
        self.writers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Removes files that no row speaks of.
    pub(crate) fn sweep(&self) -> Result<usize, ContentError> {
        let _alone = self.sweep.write().unwrap_or_else(PoisonError::into_inner);
        let (digests, folders) = self.store.content().kept()?;
        let mut removed = 0;
        for entry in entries(&self.root.join("blobs/sha256"))? {
            let name = entry
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if !digests.contains(&format!("sha256:{name}")) {
                fs::remove_file(&entry).map_err(io("remove blob", &entry))?;
                removed += 1;
            }
        }
        for entry in entries(&self.root.join("ingest"))? {
            let name = entry
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if !folders.contains(&name) {
                fs::remove_dir_all(&entry).map_err(io("remove ingest", &entry))?;
            }
        }
        Ok(removed)
    }
}

fn entries(path: &Path) -> Result<Vec<PathBuf>, ContentError> {
    fs::read_dir(path)
        .and_then(|all| all.map(|e| e.map(|e| e.path())).collect())
        .map_err(io("read directory", path))
}

/// The directory name of an ingest: free text made safe.
pub(super) fn folder_of(ns: &str, reference: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(ns.as_bytes());
    hasher.update([0]);
    hasher.update(reference.as_bytes());
    hex::encode(hasher.finalize())
}

/// Names the attempt and the path in an I/O error.
pub(super) fn io(
    attempt: &'static str,
    path: &Path,
) -> impl FnOnce(std::io::Error) -> ContentError {
    let path = path.to_owned();
    move |source| ContentError::Io {
        attempt,
        path,
        source,
    }
}

/// The error of a blob that the namespace has already.
pub(super) fn exists(digest: &Digest) -> ContentError {
    MetadataError::AlreadyExists(format!("content {digest}")).into()
}
