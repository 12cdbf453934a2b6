//! Tar streams that come in a request: a blocking reader over the body, and what they are compressed with.

use std::io::{self, BufRead, Read};

use axum::body::Body;
use bytes::{Buf, Bytes};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;

use crate::error::{Error, Result};

/// Pieces of the body that wait for the reader.
const QUEUE: usize = 8;

/// How much of a body is still taken in after its reader has given up. A client that is cut off while it sends reports that,
/// and not the error that we answer.
const MOST_UNREAD: usize = 256 << 20;

/// A request body, read by a blocking thread. A client that goes away in the middle is an error, never an early end.
#[derive(Debug)]
pub(crate) struct BodyReader {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl BodyReader {
    /// Starts to read; must be called within the runtime.
    pub(crate) fn new(body: Body) -> Self {
        let (sender, pieces) = mpsc::channel(QUEUE);
        // Ends with the body, or when the reader is gone.
        tokio::spawn(async move {
            let mut stream = body.into_data_stream();
            let mut unread = 0;
            while let Some(piece) = stream.next().await {
                let piece = piece.map_err(io::Error::other);
                let (length, failed) = (piece.as_ref().map_or(0, Bytes::len), piece.is_err());
                if failed || unread > MOST_UNREAD {
                    // Whether anybody hears it: the reader may have given up long ago.
                    let _ = sender.send(piece).await;
                    return;
                }
                if sender.send(piece).await.is_err() {
                    unread += length;
                }
            }
        });
        Self {
            pieces,
            current: Bytes::new(),
        }
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.current = piece?,
                None => return Ok(0),
            }
        }
        let n = buffer.len().min(self.current.len());
        buffer[..n].copy_from_slice(&self.current[..n]);
        self.current.advance(n);
        Ok(n)
    }
}

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// What the first bytes say. Formats that we cannot read are an error that names them.
    pub(crate) fn sniff(start: &[u8]) -> Result<Self> {
        let unsupported = |name: &str| {
            Err(Error::invalid(format!(
                "archives compressed with {name} are not supported; use gzip, zstd or none"
            )))
        };
        match start {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Self::Zstd),
            [b'B', b'Z', b'h', ..] => unsupported("bzip2"),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => unsupported("xz"),
            _ => Ok(Self::None),
        }
    }

    /// The media type of a layer so compressed.
    pub(crate) fn layer(self) -> &'static str {
        match self {
            Self::None => super::manifest::OCI_LAYER,
            Self::Gzip => super::manifest::OCI_LAYER_GZIP,
            Self::Zstd => super::manifest::OCI_LAYER_ZSTD,
        }
    }

    /// The uncompressed stream.
    pub(crate) fn decoder<'a>(self, source: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::None => Box::new(source),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(source)?),
        })
    }
}

/// Whether a path in an archive stays within the directory it is unpacked into.
pub(crate) fn stays_inside(path: &[u8]) -> bool {
    let mut depth = 0i32;
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return false;
        }
    }
    !path.contains(&0)
}

/// An error of reading an archive, as the client's fault that it is.
pub(crate) fn broken(what: &str) -> impl Fn(io::Error) -> Error + '_ {
    move |error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::invalid(format!("{what}: unexpected EOF")),
        _ => Error::invalid(format!("{what}: {}", printable(&error.to_string()))),
    }
}

/// What a library says of bytes that are no archive, without the bytes: it quotes them as they are.
pub(crate) fn printable(text: &str) -> String {
    let mut out: String = text
        .chars()
        .map(|c| {
            if c.is_control() || c == '\u{fffd}' {
                '?'
            } else {
                c
            }
        })
        .take(200)
        .collect();
    while out.contains("??") {
        out = out.replace("??", "?");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn compressions_are_told_apart() {
        assert_eq!(Compression::sniff(b"").unwrap(), Compression::None);
        assert_eq!(
            Compression::sniff(b"\x1f\x8b\x08").unwrap(),
            Compression::Gzip
        );
        assert_eq!(
            Compression::sniff(b"\x28\xb5\x2f\xfd").unwrap(),
            Compression::Zstd
        );
        assert!(Compression::sniff(b"BZh9").is_err());
        assert!(Compression::sniff(b"\xfd7zXZ\0").is_err());
    }

    #[test]
    fn escapes_are_seen() {
        for good in ["a", "/a/b", "./a", "a/../b", "..a", ""] {
            assert!(stays_inside(good.as_bytes()), "{good}");
        }
        for bad in ["..", "../a", "a/../../b", "/..", "a\0"] {
            assert!(!stays_inside(bad.as_bytes()), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_path_inside_never_climbs_out(path in "[a./]{0,20}") {
            if stays_inside(path.as_bytes()) {
                let mut depth = 0;
                for part in std::path::Path::new(&path).components() {
                    match part {
                        std::path::Component::ParentDir => depth -= 1,
                        std::path::Component::Normal(_) => depth += 1,
                        _ => {}
                    }
                    prop_assert!(depth >= 0);
                }
            }
        }
    }

    #[tokio::test]
    async fn a_body_is_read_by_a_thread() {
        let mut reader = BodyReader::new(Body::from("hello"));
        let text = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        assert_eq!(text.await.unwrap().unwrap(), "hello");
    }
}
