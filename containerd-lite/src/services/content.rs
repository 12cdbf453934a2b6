//! Content.

use std::borrow::Cow;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use proto::containerd::events::ContentDelete;
use proto::containerd::services::content::v1 as wire;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Parts, blocking, chunks, filters, labels_in, labels_out, lease, mask, namespace, required,
};
use crate::content::{Blobs, ContentError, Digest, Ingest, IngestStatus};
use crate::error::status;
use crate::filters::{Fields, in_map, text};
use crate::metadata::Blob;

/// Blobs in one message of a list.
const CHUNK: usize = 100;
/// Bytes in one message of a read.
const READ: usize = 1 << 20;

/// The service.
#[derive(Debug)]
pub(crate) struct Service(Parts);

impl Service {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(parts)
    }
}

impl Fields for Blob {
    fn field(&self, path: &[&str]) -> Option<Cow<'_, str>> {
        match path {
            ["digest"] => text(&self.digest),
            ["size"] => Some(self.size.to_string().into()),
            ["labels", key @ ..] => in_map(&self.labels, key),
            _ => None,
        }
    }
}

impl Fields for IngestStatus {
    fn field(&self, path: &[&str]) -> Option<Cow<'_, str>> {
        match path {
            ["ref"] => text(&self.reference),
            _ => None,
        }
    }
}

fn out(blob: Blob) -> wire::Info {
    wire::Info {
        digest: blob.digest,
        size: blob.size,
        created_at: crate::time::wire(blob.created_at),
        updated_at: crate::time::wire(blob.updated_at),
        labels: labels_out(blob.labels),
    }
}

fn status_out(s: IngestStatus) -> wire::Status {
    wire::Status {
        started_at: crate::time::wire(s.started_at),
        updated_at: crate::time::wire(s.updated_at),
        r#ref: s.reference,
        offset: s.offset,
        total: s.total,
        expected: s.expected,
    }
}

fn digest(text: &str) -> Result<Digest, Status> {
    Digest::parse(text).map_err(|e| status(ContentError::from(e)))
}

fn optional_digest(text: &str) -> Result<Option<Digest>, Status> {
    if text.is_empty() {
        Ok(None)
    } else {
        digest(text).map(Some)
    }
}

#[tonic::async_trait]
impl wire::content_server::Content for Service {
    type ListStream = super::Chunks<wire::ListContentResponse>;
    type ReadStream = ReceiverStream<Result<wire::ReadContentResponse, Status>>;
    type WriteStream = ReceiverStream<Result<wire::WriteContentResponse, Status>>;

    async fn info(
        &self,
        request: Request<wire::InfoRequest>,
    ) -> Result<Response<wire::InfoResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let digest = digest(&request.get_ref().digest)?;
        let blob = self
            .0
            .store
            .content()
            .get(&ns, digest.as_str())
            .map_err(status)?;
        Ok(Response::new(wire::InfoResponse {
            info: Some(out(blob)),
        }))
    }

    async fn update(
        &self,
        request: Request<wire::UpdateRequest>,
    ) -> Result<Response<wire::UpdateResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let request = request.into_inner();
        let info = required(request.info, "info")?;
        let new = Blob {
            digest: digest(&info.digest)?.to_string(),
            labels: labels_in(info.labels),
            ..Blob::default()
        };
        let blob = self
            .0
            .store
            .content()
            .update(&ns, new, mask(request.update_mask))
            .await
            .map_err(status)?;
        Ok(Response::new(wire::UpdateResponse {
            info: Some(out(blob)),
        }))
    }

    async fn list(
        &self,
        request: Request<wire::ListContentRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let ns = namespace(request.metadata())?;
        let filters = filters(&request.get_ref().filters)?;
        let store = self.0.store.clone();
        let info = blocking(move || {
            let mut found = Vec::new();
            store.content().for_each(&ns, |blob| {
                if filters.matches(&blob) {
                    found.push(out(blob));
                }
            })?;
            Ok::<_, ContentError>(found)
        })
        .await?;
        Ok(Response::new(chunks(info, CHUNK, |info| {
            wire::ListContentResponse { info }
        })))
    }

    async fn delete(
        &self,
        request: Request<wire::DeleteContentRequest>,
    ) -> Result<Response<()>, Status> {
        let ns = namespace(request.metadata())?;
        let digest = digest(&request.get_ref().digest)?;
        self.0
            .store
            .content()
            .delete(&ns, digest.as_str())
            .await
            .map_err(status)?;
        let event = ContentDelete {
            digest: digest.to_string(),
        };
        self.0
            .events
            .publish(&ns, "/content/delete", proto::any::pack(&event));
        self.0.gc.soon();
        Ok(Response::new(()))
    }

    async fn read(
        &self,
        request: Request<wire::ReadContentRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let ns = namespace(request.metadata())?;
        let request = request.into_inner();
        let digest = digest(&request.digest)?;
        let (file, blob) = self.0.blobs.read(&ns, &digest).map_err(status)?;
        let (offset, end) = range(&digest, &blob, &request).map_err(status)?;
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(send_range(file, digest, offset..end, sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn status(
        &self,
        request: Request<wire::StatusRequest>,
    ) -> Result<Response<wire::StatusResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let found = self
            .0
            .blobs
            .status(&ns, &request.get_ref().r#ref)
            .map_err(status)?;
        Ok(Response::new(wire::StatusResponse {
            status: Some(status_out(found)),
        }))
    }

    async fn list_statuses(
        &self,
        request: Request<wire::ListStatusesRequest>,
    ) -> Result<Response<wire::ListStatusesResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let filters = filters(&request.get_ref().filters)?;
        let blobs = self.0.blobs.clone();
        let all = blocking(move || blobs.statuses(&ns)).await?;
        let statuses = all
            .into_iter()
            .filter(|s| filters.matches(s))
            .map(status_out)
            .collect();
        Ok(Response::new(wire::ListStatusesResponse { statuses }))
    }

    async fn write(
        &self,
        request: Request<Streaming<wire::WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        let session = Session {
            blobs: self.0.blobs.clone(),
            ns: namespace(request.metadata())?,
            lease: lease(request.metadata()),
            total: 0,
            expected: None,
        };
        let (sender, receiver) = mpsc::channel(2);
        tokio::spawn(async move {
            if let Err(error) = session.run(request.into_inner(), &sender).await {
                let _ = sender.send(Err(error)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn abort(&self, request: Request<wire::AbortRequest>) -> Result<Response<()>, Status> {
        let ns = namespace(request.metadata())?;
        let reference = request.into_inner().r#ref;
        let blobs = self.0.blobs.clone();
        blocking(move || blobs.abort(&ns, &reference)).await?;
        Ok(Response::new(()))
    }
}

/// Sends a part of a blob in messages. A thread is only held while bytes are read, not while the client is slow.
async fn send_range(
    file: std::fs::File,
    digest: Digest,
    range: std::ops::Range<u64>,
    sender: mpsc::Sender<Result<wire::ReadContentResponse, Status>>,
) {
    let file = Arc::new(file);
    let mut offset = range.start;
    while offset < range.end {
        let length = usize::try_from(range.end - offset)
            .unwrap_or(READ)
            .min(READ);
        let file = file.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut data = vec![0; length];
            file.read_exact_at(&mut data, offset).map(|()| data)
        });
        let message = match read.await {
            Ok(Ok(data)) => Ok(wire::ReadContentResponse {
                offset: offset as i64,
                data: data.into(),
            }),
            Ok(Err(error)) => Err(Status::data_loss(format!(
                "read content {digest} at {offset}: {error}"
            ))),
            Err(error) => Err(Status::internal(format!("read content {digest}: {error}"))),
        };
        let failed = message.is_err();
        // A client that left is no error.
        if sender.send(message).await.is_err() || failed {
            return;
        }
        offset += length as u64;
    }
}

fn range(
    digest: &Digest,
    blob: &Blob,
    request: &wire::ReadContentRequest,
) -> Result<(u64, u64), ContentError> {
    let past = || ContentError::PastEnd {
        digest: digest.clone(),
        offset: request.offset,
        size: blob.size,
    };
    if request.offset < 0 || request.size < 0 || request.offset > blob.size {
        return Err(past());
    }
    let end = match request.size {
        0 => blob.size,
        size => request.offset.saturating_add(size),
    };
    if end > blob.size {
        return Err(past());
    }
    Ok((request.offset.unsigned_abs(), end.unsigned_abs()))
}

/// One stream of writes: the first message names the ref, each message is answered once, COMMIT ends it.
struct Session {
    blobs: Arc<Blobs>,
    ns: String,
    lease: Option<String>,
    total: i64,
    expected: Option<Digest>,
}

type Answers = mpsc::Sender<Result<wire::WriteContentResponse, Status>>;

impl Session {
    async fn run(
        mut self,
        mut requests: Streaming<wire::WriteContentRequest>,
        answers: &Answers,
    ) -> Result<(), Status> {
        let Some(first) = requests.message().await? else {
            return Ok(());
        };
        if first.r#ref.is_empty() {
            return Err(Status::invalid_argument(
                "first message must have a reference",
            ));
        }
        self.note(&first)?;
        let (blobs, ns, lease) = (self.blobs.clone(), self.ns.clone(), self.lease.clone());
        let (reference, total, expected) = (first.r#ref.clone(), self.total, self.expected.clone());
        let mut ingest = blocking(move || {
            blobs.write(&ns, lease.as_deref(), &reference, total, expected.as_ref())
        })
        .await?;
        let mut next = Some(first);
        while let Some(request) = next {
            self.note(&request)?;
            let action = request.action();
            let mut answer = answer_of(&ingest, request.action);
            if action == wire::WriteAction::Commit {
                let (digest, offset) = self.commit(ingest, request).await?;
                (answer.digest, answer.offset) = (digest, offset);
                let _ = answers.send(Ok(answer)).await;
                return Ok(());
            }
            if action == wire::WriteAction::Write {
                ingest = blocking(move || {
                    ingest
                        .write_at(request.offset, &request.data)
                        .map(|()| ingest)
                })
                .await?;
                answer = answer_of(&ingest, request.action);
            } else {
                answer.digest = ingest.digest().to_string();
            }
            if answers.send(Ok(answer)).await.is_err() {
                return Ok(());
            }
            next = requests.message().await?;
        }
        Ok(())
    }

    /// Takes over what a message says of the whole.
    fn note(&mut self, request: &wire::WriteContentRequest) -> Result<(), Status> {
        if let Some(expected) = optional_digest(&request.expected)? {
            if self.expected.as_ref().is_some_and(|e| *e != expected) {
                return Err(Status::failed_precondition(format!(
                    "expected digest changed to {expected}"
                )));
            }
            self.expected = Some(expected);
        }
        if request.total > 0 {
            self.total = request.total;
        }
        Ok(())
    }

    async fn commit(
        &self,
        mut ingest: Ingest,
        request: wire::WriteContentRequest,
    ) -> Result<(String, i64), Status> {
        let (total, expected) = (self.total, self.expected.clone());
        let blob = blocking(move || {
            ingest.write_at(request.offset, &request.data)?;
            ingest.commit(total, expected.as_ref(), &labels_in(request.labels))
        })
        .await?;
        Ok((blob.digest, blob.size))
    }
}

fn answer_of(ingest: &Ingest, action: i32) -> wire::WriteContentResponse {
    let (started_at, updated_at) = ingest.times();
    wire::WriteContentResponse {
        action,
        started_at: crate::time::wire(started_at),
        updated_at: crate::time::wire(updated_at),
        offset: ingest.offset(),
        total: ingest.total(),
        digest: String::new(),
    }
}
