//! Makes one blob present: it is there, or somebody else is fetching it, or we do.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::image::{Descriptor, Role};
use super::progress::BlobProgress;
use super::{Job, Result, TransferError};
use crate::content::{ContentError, Digest, Ingest};
use crate::error::Kind as _;
use crate::metadata::Labels;
use crate::registry::Session;

/// How often to look whether the other one who fetches the same blob has it.
const LOOK: Duration = Duration::from_millis(100);
/// Chunks that wait to be written.
const AHEAD: usize = 16;
/// Label with the repositories that have a blob: after this prefix the host.
const SOURCE: &str = "containerd.io/distribution.source.";

impl Job {
    /// Makes a blob present and held by our lease; its bytes come from `source` if there is one.
    pub(super) async fn ensure(
        &self,
        what: &Descriptor,
        source: Option<&Session>,
        progress: &BlobProgress,
    ) -> Result<()> {
        loop {
            if self.hold(&what.digest).await? {
                if let Some(source) = source {
                    self.note_source(&what.digest, source).await?;
                }
                progress.exists();
                return Ok(());
            }
            let Some(source) = source else {
                return Err(TransferError::NotFound(format!(
                    "content digest {}",
                    what.digest
                )));
            };
            match self.fetch(what, source, progress).await {
                Ok(()) => {
                    progress.complete();
                    return Ok(());
                }
                Err(TransferError::Content(ContentError::Locked { .. })) => {
                    tokio::time::sleep(LOOK).await;
                }
                Err(TransferError::Content(error))
                    if error.kind() == proto::error::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Lets our lease hold a blob; false if it is not there.
    pub(super) async fn hold(&self, digest: &Digest) -> Result<bool> {
        let (job, digest) = (self.clone(), digest.clone());
        self.blocking(move || {
            Ok(job
                .parts
                .blobs
                .hold(&job.ns, Some(job.lease.as_str()), &digest)?)
        })
        .await
    }

    async fn fetch(
        &self,
        what: &Descriptor,
        source: &Session,
        progress: &BlobProgress,
    ) -> Result<()> {
        let ingest = self.begin(what).await?;
        let offset = u64::try_from(ingest.offset()).unwrap_or(0);
        progress.at(offset);
        let (chunks, queue) = mpsc::channel(AHEAD);
        // Set when all has been sent: a queue that ends without it is a fetch that failed.
        let whole = Arc::new(OnceLock::new());
        let writer = self.write(ingest, what, queue, whole.clone(), progress.clone());
        let send = async {
            let sent = if offset < what.size || what.size == 0 {
                let is_manifest =
                    matches!(Role::of(&what.media_type), Role::Index | Role::Manifest);
                source
                    .fetch(is_manifest, &what.digest, what.size, offset, &chunks)
                    .await
            } else {
                Ok(())
            };
            if sent.is_ok() {
                let _ = whole.set(Labels::from([label_of(source)]));
            }
            drop(chunks);
            sent
        };
        let (sent, written) = tokio::join!(send, writer);
        // Why nothing was written any more says more than that sending ended.
        match (written, sent) {
            (Err(error), _) => Err(error),
            (Ok(()), Err(error)) => Err(error.into()),
            (Ok(()), Ok(())) => Ok(()),
        }
    }

    /// Opens the ingest where it was left. One that cannot become the blob is begun anew.
    async fn begin(&self, what: &Descriptor) -> Result<Ingest> {
        let (job, what) = (self.clone(), what.clone());
        self.blocking(move || {
            let total = i64::try_from(what.size).unwrap_or(i64::MAX);
            let open = || {
                job.parts
                    .blobs
                    .write(&job.ns, None, &what.key(), total, Some(&what.digest))
            };
            let mut ingest = match open() {
                Err(ContentError::Mismatch { .. }) => {
                    job.parts.blobs.abort(&job.ns, &what.key())?;
                    open()?
                }
                other => other?,
            };
            if ingest.offset() > total {
                ingest.write_at(0, &[])?;
            }
            Ok(ingest.held_by(&job.lease))
        })
        .await
    }

    /// Writes on a thread of its own what comes through the queue.
    async fn write(
        &self,
        mut ingest: Ingest,
        what: &Descriptor,
        mut queue: mpsc::Receiver<Bytes>,
        whole: Arc<OnceLock<Labels>>,
        progress: BlobProgress,
    ) -> Result<()> {
        let (job, what) = (self.clone(), what.clone());
        self.blocking(move || {
            while let Some(data) = queue.blocking_recv() {
                ingest.write_at(ingest.offset(), &data)?;
                progress.at(u64::try_from(ingest.offset()).unwrap_or(0));
            }
            let Some(labels) = whole.get() else {
                return Ok(());
            };
            let total = i64::try_from(what.size).unwrap_or(i64::MAX);
            match ingest.commit(total, Some(&what.digest), labels) {
                Ok(_) => Ok(()),
                Err(error @ ContentError::Mismatch { .. }) => {
                    // Wrong bytes are of no use to the next try.
                    job.parts.blobs.abort(&job.ns, &what.key())?;
                    Err(error.into())
                }
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    /// Adds the repository to those that are known to have the blob.
    async fn note_source(&self, digest: &Digest, source: &Session) -> Result<()> {
        let (key, path) = label_of(source);
        let content = self.parts.store.content();
        let mut blob = content.get(&self.ns, digest.as_str())?;
        let known = blob.labels.get(&key).cloned().unwrap_or_default();
        if known.split(',').any(|known| known == path) {
            return Ok(());
        }
        let all = match known.as_str() {
            "" => path,
            known => format!("{known},{path}"),
        };
        blob.labels.insert(key.clone(), all);
        content
            .update(&self.ns, blob, vec![format!("labels.{key}")])
            .await?;
        Ok(())
    }

    /// Repositories of a host that are known to have a blob.
    pub(super) fn sources(&self, digest: &Digest, host: &str) -> Vec<String> {
        let blob = self.parts.store.content().get(&self.ns, digest.as_str());
        let label = blob.map(|b| b.labels.get(&format!("{SOURCE}{host}")).cloned());
        let label = label.ok().flatten().unwrap_or_default();
        let known = label.split(',').filter(|path| !path.is_empty());
        known.map(str::to_owned).collect()
    }
}

fn label_of(source: &Session) -> (String, String) {
    let reference = source.reference();
    (
        format!("{SOURCE}{}", reference.host),
        reference.path.clone(),
    )
}
