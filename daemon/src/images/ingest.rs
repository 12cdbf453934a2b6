//! From a blocking thread into a blob: what a reader yields is stored as it is read. containerd hashes it.

use std::io::{self, Read};

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;

use super::blob::{self, Labels, Opened, Writer};
use crate::backend::{Backend, Lease};
use crate::error::{Error, Result};

/// How much is collected for one message.
const PIECE: usize = 512 << 10;

/// A blob in the making, fed by a blocking thread.
#[derive(Debug)]
pub(crate) struct Ingest {
    backend: Backend,
    name: String,
    runtime: Handle,
    writer: Option<Box<Writer>>,
    pending: BytesMut,
    size: u64,
}

impl Ingest {
    /// Opens an ingest of a name that nobody else has; must be called within the runtime.
    pub(crate) async fn open(leased: &Backend, what: &str) -> Result<Self> {
        let name = format!("{what}-{}", crate::random::hex(12));
        match Writer::open(leased, &name, "", 0).await? {
            Opened::Writer(writer) => Ok(Self {
                backend: leased.clone(),
                name,
                runtime: Handle::current(),
                writer: Some(writer),
                pending: BytesMut::with_capacity(PIECE),
                size: 0,
            }),
            Opened::Present => Err(Error::internal(format!(
                "ingest {name}: containerd says that it has a blob that was not named"
            ))),
        }
    }

    /// Adds data.
    pub(crate) fn write(&mut self, data: &[u8]) -> Result<()> {
        self.size += data.len() as u64;
        self.pending.extend_from_slice(data);
        if self.pending.len() >= PIECE {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let piece: Bytes = self.pending.split().freeze();
        match (&mut self.writer, piece.is_empty()) {
            (Some(writer), false) => self.runtime.block_on(writer.write(piece)),
            _ => Ok(()),
        }
    }

    /// Makes it a blob; answers its digest and size.
    pub(crate) fn commit(mut self) -> Result<(String, u64)> {
        self.flush()?;
        let mut writer = self.writer.take().expect("only a commit takes it");
        let size = self.size;
        let digest = self.runtime.block_on(async move {
            let digest = writer.digest().await?;
            writer.commit(size, &digest, Labels::new()).await?;
            Ok::<_, Error>(digest)
        })?;
        Ok((digest, size))
    }
}

impl Drop for Ingest {
    /// An ingest that was not committed goes at once: it may be what fills the disk, and then ending the lease fails too.
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            drop(writer);
            let (backend, name) = (self.backend.clone(), std::mem::take(&mut self.name));
            self.runtime.spawn(async move {
                if let Err(e) = blob::abort(&backend, &name).await {
                    tracing::debug!("{e}");
                }
            });
        }
    }
}

/// A reader whose bytes also go into an ingest. The ingest's error is kept apart, for the reader can only say "failed".
#[derive(Debug)]
pub(crate) struct Tee<'a, R> {
    source: R,
    ingest: &'a mut Ingest,
    failure: &'a mut Option<Error>,
}

impl<'a, R: Read> Tee<'a, R> {
    /// Reads `source`, storing what is read.
    pub(crate) fn new(source: R, ingest: &'a mut Ingest, failure: &'a mut Option<Error>) -> Self {
        Self {
            source,
            ingest,
            failure,
        }
    }
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(buffer)?;
        if let Err(error) = self.ingest.write(&buffer[..n]) {
            let text = error.to_string();
            *self.failure = Some(error);
            return Err(io::Error::other(text));
        }
        Ok(n)
    }
}

/// A reader that hashes what it yields, if that is wanted.
#[derive(Debug)]
pub(crate) struct Hashing<R> {
    source: R,
    sum: Option<Sha256>,
}

impl<R: Read> Hashing<R> {
    /// Hashes what is read from `source`, if `wanted`.
    pub(crate) fn new(source: R, wanted: bool) -> Self {
        Self {
            source,
            sum: wanted.then(Sha256::new),
        }
    }

    /// The digest of all that was read, if it was wanted.
    pub(crate) fn digest(self) -> Option<String> {
        let sum = self.sum?.finalize();
        Some(format!("sha256:{}", hex::encode(sum)))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(buffer)?;
        if let Some(sum) = &mut self.sum {
            sum.update(&buffer[..n]);
        }
        Ok(n)
    }
}

/// How the ids of leases begin that mean nothing to the next daemon.
pub(super) const TRANSIENT: &str = "dockerd-lite-";

/// A lease that ends when its work does, however that ends; what the work did not name is then collected.
#[derive(Debug)]
pub(crate) struct LeaseGuard {
    lease: Option<Lease>,
}

impl LeaseGuard {
    /// A new lease, of which nothing is taken up again after a crash.
    pub(crate) async fn new(backend: &Backend, what: &str) -> Result<Self> {
        Self::named(
            backend,
            &format!("{TRANSIENT}{what}-{}", crate::random::hex(12)),
        )
        .await
    }

    /// The lease of this id: a new one, or that of a daemon that was killed while it did the same.
    pub(crate) async fn named(backend: &Backend, id: &str) -> Result<Self> {
        Ok(Self {
            lease: Some(backend.lease(id).await?),
        })
    }

    /// The handle whose creations the lease holds.
    pub(crate) fn backend(&self) -> &Backend {
        self.lease
            .as_ref()
            .expect("the lease is there until the guard goes")
            .backend()
    }

    /// Ends the lease after work with that outcome. After a failure what is left over is collected before this returns.
    pub(crate) async fn end<T>(mut self, outcome: Result<T>) -> Result<T> {
        if let Some(lease) = self.lease.take()
            && let Err(e) = lease.end(outcome.is_err()).await
        {
            // It expires by itself.
            tracing::warn!("{e}");
        }
        outcome
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        // The work was cancelled. Without a runtime the process is ending, and the lease expires by itself.
        if let (Some(lease), Ok(runtime)) = (self.lease.take(), Handle::try_current()) {
            runtime.spawn(async move {
                if let Err(e) = lease.end(true).await {
                    tracing::warn!("{e}");
                }
            });
        }
    }
}
