//! Blobs in containerd: read whole, read as a stream, written with resume.
//!
//! A write is one bidirectional stream: STAT tells from where to go on, WRITE carries data, COMMIT ends it. Each request has
//! one reply, in order, so a writer sends a piece and waits for its reply; pieces are large enough for that not to matter.
//! A stream that ends without a commit leaves its ingest behind, and the next writer of the same name goes on from there.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use proto::containerd::services::content::v1::{
    AbortRequest, Info, InfoRequest, ReadContentRequest, UpdateRequest, WriteAction,
    WriteContentRequest, WriteContentResponse,
};
use proto::error::ErrorKind;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::backend::{Backend, QUICK, SLOW, within};
use crate::error::{During, Error, Result};

/// Labels by their keys.
pub(crate) type Labels = HashMap<String, String>;

/// Largest manifest, index or config that is read into memory.
pub(crate) const DOCUMENT: u64 = 8 << 20;

/// Longest time for the reply to one piece: the other side may wait for its disk.
const PIECE: Duration = Duration::from_secs(60);

/// Largest piece of data in one message.
const CHUNK: usize = 1 << 20;

/// The digest of bytes in memory.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// What containerd knows of a blob, if it has it.
pub(crate) async fn info(backend: &Backend, digest: &str) -> Result<Option<Info>> {
    let request = InfoRequest {
        digest: digest.to_owned(),
    };
    match within(QUICK, backend.content().info(request)).await {
        Ok(reply) => Ok(reply.info),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e.during(format!("look up blob {digest}"))),
    }
}

/// Reads a document whole. One above the limit is refused, not cut.
pub(crate) async fn read(backend: &Backend, digest: &str) -> Result<Vec<u8>> {
    let mut stream = stream(backend, digest).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await? {
        if (bytes.len() + piece.len()) as u64 > DOCUMENT {
            return Err(Error::invalid(format!(
                "blob {digest} is longer than the {DOCUMENT} bytes that a manifest or config may have"
            )));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// The bytes of a blob, piece by piece.
#[derive(Debug)]
pub(crate) struct Reading {
    digest: String,
    replies: Streaming<proto::containerd::services::content::v1::ReadContentResponse>,
}

impl Reading {
    /// The next piece; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        match tokio::time::timeout(PIECE, self.replies.message()).await {
            Ok(reply) => Ok(reply
                .during(|| format!("read blob {}", self.digest))?
                .map(|piece| piece.data)),
            Err(_) => Err(late(&format!("read blob {}", self.digest))),
        }
    }
}

/// Starts to read a blob.
pub(crate) async fn stream(backend: &Backend, digest: &str) -> Result<Reading> {
    let request = ReadContentRequest {
        digest: digest.to_owned(),
        offset: 0,
        size: 0,
    };
    let replies = within(QUICK, backend.content().read(request))
        .await
        .during(|| format!("read blob {digest}"))?;
    Ok(Reading {
        digest: digest.to_owned(),
        replies,
    })
}

/// Sets labels of a blob and leaves its others.
pub(crate) async fn label(backend: &Backend, digest: &str, labels: Labels) -> Result<()> {
    if labels.is_empty() {
        return Ok(());
    }
    let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
    let request = UpdateRequest {
        info: Some(Info {
            digest: digest.to_owned(),
            labels,
            ..Info::default()
        }),
        update_mask: Some(proto::prost_types::FieldMask { paths }),
    };
    within(QUICK, backend.content().update(request))
        .await
        .during(|| format!("label blob {digest}"))?;
    Ok(())
}

/// Stores a document under its digest, which it returns. One that is there already only gets the labels.
pub(crate) async fn put(backend: &Backend, bytes: &[u8], labels: Labels) -> Result<String> {
    let digest = digest_of(bytes);
    let size = bytes.len() as u64;
    let opened = Writer::open(backend, &format!("blob-{digest}"), &digest, size).await?;
    let done = match opened {
        Opened::Present => false,
        Opened::Writer(mut writer) => {
            let rest = bytes.get(usize::try_from(writer.offset()).unwrap_or(0)..);
            writer
                .write(Bytes::copy_from_slice(rest.unwrap_or_default()))
                .await?;
            writer.commit(size, &digest, labels.clone()).await?
        }
    };
    if !done {
        label(backend, &digest, labels).await?;
    }
    Ok(digest)
}

/// Throws an ingest away. Its writer, if it was ours, is gone but perhaps not yet missed.
pub(crate) async fn abort(backend: &Backend, name: &str) -> Result<()> {
    const TRIES: u32 = 40;
    // Emptied first: on a full disk containerd may not be able to write down that it is gone.
    if let Ok(Opened::Writer(mut writer)) = Writer::open(backend, name, "", 0).await
        && let Err(e) = writer.truncate().await
    {
        tracing::debug!("{e}");
    }
    for attempt in 0.. {
        let request = AbortRequest {
            r#ref: name.to_owned(),
        };
        match within(QUICK, backend.content().abort(request)).await {
            Err(e) if e.kind() == ErrorKind::Unavailable && attempt < TRIES => {
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
            Err(e) if !e.is_not_found() => return Err(e.during(format!("abort ingest {name}"))),
            _ => return Ok(()),
        }
    }
    unreachable!("the last attempt returns")
}

/// What opening a writer came to.
#[derive(Debug)]
pub(crate) enum Opened {
    /// containerd has the blob; there is nothing to write.
    Present,
    /// Write from [`Writer::offset`] on.
    Writer(Box<Writer>),
}

/// An open ingest.
#[derive(Debug)]
pub(crate) struct Writer {
    name: String,
    offset: u64,
    requests: mpsc::Sender<WriteContentRequest>,
    replies: Streaming<WriteContentResponse>,
}

impl Writer {
    /// Opens the ingest `name` for a blob of this digest and size; empty and 0 where they are not known yet. An ingest that
    /// somebody else writes is waited for.
    pub(crate) async fn open(
        backend: &Backend,
        name: &str,
        expected: &str,
        total: u64,
    ) -> Result<Opened> {
        const TRIES: u32 = 240;
        for attempt in 0.. {
            match Self::try_open(backend, name, expected, total).await {
                Ok(writer) => return Ok(Opened::Writer(Box::new(writer))),
                Err(e) if e.is_exists() => return Ok(Opened::Present),
                // The name is locked by another writer, or by our own former stream that is being torn down.
                Err(e) if e.kind() == ErrorKind::Unavailable && attempt < TRIES => {
                    let pause = if attempt < 20 { 25 } else { 500 };
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
                Err(e) => return Err(e.during(format!("open ingest {name}"))),
            }
        }
        unreachable!("the last attempt returns")
    }

    async fn try_open(backend: &Backend, name: &str, expected: &str, total: u64) -> Result<Self> {
        let (requests, outgoing) = mpsc::channel(2);
        requests
            .try_send(WriteContentRequest {
                action: WriteAction::Stat.into(),
                r#ref: name.to_owned(),
                expected: expected.to_owned(),
                total: signed(total),
                ..WriteContentRequest::default()
            })
            .expect("a new channel has room");
        let replies = within(
            QUICK,
            backend.content().write(ReceiverStream::new(outgoing)),
        )
        .await?;
        let mut writer = Self {
            name: name.to_owned(),
            offset: 0,
            requests,
            replies,
        };
        let reply = writer.reply(QUICK).await?;
        writer.offset = u64::try_from(reply.offset).unwrap_or(0);
        Ok(writer)
    }

    /// How much is written.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Throws away what is written.
    pub(crate) async fn truncate(&mut self) -> Result<()> {
        self.offset = 0;
        self.send(WriteContentRequest {
            action: WriteAction::Write.into(),
            ..WriteContentRequest::default()
        })
        .await?;
        self.reply(PIECE)
            .await
            .during(|| format!("truncate ingest {}", self.name))?;
        Ok(())
    }

    /// Appends data.
    pub(crate) async fn write(&mut self, mut data: Bytes) -> Result<()> {
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(CHUNK));
            let length = piece.len() as u64;
            self.send(WriteContentRequest {
                action: WriteAction::Write.into(),
                offset: signed(self.offset),
                data: piece,
                ..WriteContentRequest::default()
            })
            .await?;
            self.reply(PIECE)
                .await
                .during(|| format!("write ingest {}", self.name))?;
            self.offset += length;
        }
        Ok(())
    }

    /// The digest of what is written.
    pub(crate) async fn digest(&mut self) -> Result<String> {
        let name = self.name.clone();
        self.send(WriteContentRequest {
            action: WriteAction::Stat.into(),
            r#ref: name.clone(),
            ..WriteContentRequest::default()
        })
        .await?;
        // Nearly at once: it was hashed as it came.
        let reply = self.reply(PIECE).await;
        Ok(reply.during(|| format!("stat ingest {name}"))?.digest)
    }

    /// Makes the ingest a blob. False if the blob was there already, so that the labels were not set.
    pub(crate) async fn commit(
        mut self,
        total: u64,
        expected: &str,
        labels: Labels,
    ) -> Result<bool> {
        self.send(WriteContentRequest {
            action: WriteAction::Commit.into(),
            total: signed(total),
            offset: signed(self.offset),
            expected: expected.to_owned(),
            labels,
            ..WriteContentRequest::default()
        })
        .await?;
        match self.reply(SLOW).await {
            Ok(_) => Ok(true),
            Err(e) if e.is_exists() => Ok(false),
            Err(e) => Err(e.during(format!("commit ingest {}", self.name))),
        }
    }

    async fn send(&mut self, request: WriteContentRequest) -> Result<()> {
        if self.requests.send(request).await.is_err() {
            // The server has closed the stream; its reason is the next reply.
            let reason = self.reply(QUICK).await;
            return Err(match reason {
                Err(e) => e,
                Ok(_) => Error::unavailable(format!("ingest {}: the stream has ended", self.name)),
            });
        }
        Ok(())
    }

    async fn reply(&mut self, limit: Duration) -> Result<WriteContentResponse> {
        match tokio::time::timeout(limit, self.replies.message()).await {
            Ok(Ok(Some(reply))) => Ok(reply),
            Ok(Ok(None)) => Err(Error::unavailable(format!(
                "ingest {}: the stream has ended",
                self.name
            ))),
            Ok(Err(status)) => Err(status.into()),
            Err(_) => Err(late(&format!("ingest {}", self.name))),
        }
    }
}

fn late(what: &str) -> Error {
    Error::new(
        ErrorKind::DeadlineExceeded,
        format!("{what}: no answer from containerd in time"),
    )
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
