//! Compressions of layers: which one a blob has, and readers and writers for each.

use std::io::{self, BufRead, BufReader, Read, Write};

use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::DiffError;

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// Window of a zstd frame, as a power of two: more is refused, since it costs that much memory.
const ZSTD_WINDOW: u32 = 27;

/// Media type of a layer without compression.
pub(super) const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";

/// Whether the media type is one of a layer that can be unpacked.
pub(super) fn is_layer(media_type: &str) -> bool {
    let known = [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ];
    known.iter().any(|k| {
        media_type
            .strip_prefix(k)
            .is_some_and(|s| matches!(s, "" | "+gzip" | ".gzip" | "+zstd" | ".zstd"))
    })
}

impl Compression {
    /// Of the media type of a layer that is to be made.
    pub(super) fn of_media_type(media_type: &str) -> Result<Self, DiffError> {
        match media_type {
            _ if !is_layer(media_type) => Err(DiffError::MediaType(media_type.to_owned())),
            _ if media_type.ends_with("gzip") => Ok(Self::Gzip),
            _ if media_type.ends_with("zstd") => Ok(Self::Zstd),
            _ => Ok(Self::None),
        }
    }
}

/// A blob's content.
pub(super) enum Content<'a, R> {
    /// The blob is its own content.
    Plain(BufReader<R>),
    /// The blob is compressed.
    Decoded(Box<dyn Read + 'a>),
}

/// Reads a blob decompressed. The first bytes tell how, since media types are often wrong.
pub(super) fn content<'a, R: Read + 'a>(blob: R) -> io::Result<Content<'a, R>> {
    let mut blob = BufReader::with_capacity(128 << 10, blob);
    let start = blob.fill_buf()?;
    if start.starts_with(&[0x1f, 0x8b]) {
        return Ok(Content::Decoded(Box::new(MultiGzDecoder::new(blob))));
    }
    if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(blob)?;
        decoder.window_log_max(ZSTD_WINDOW)?;
        return Ok(Content::Decoded(Box::new(decoder)));
    }
    Ok(Content::Plain(blob))
}

/// The same, where it does not matter whether it was compressed.
pub(crate) fn decompressed<'a>(blob: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match content(blob)? {
        Content::Plain(plain) => Box::new(plain),
        Content::Decoded(decoded) => decoded,
    })
}

/// Writes compressed.
pub(super) enum Writer<W: Write> {
    None(W),
    Gzip(GzEncoder<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Writer<W> {
    /// To `inner`.
    pub(super) fn new(compression: Compression, inner: W) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Self::None(inner),
            Compression::Gzip => Self::Gzip(GzEncoder::new(inner, flate2::Compression::new(6))),
            Compression::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(inner, 3)?),
        })
    }

    /// Writes what is pending and gives the inner writer back.
    pub(super) fn finish(self) -> io::Result<W> {
        match self {
            Self::None(inner) => Ok(inner),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::None(inner) => inner.write(data),
            Self::Gzip(encoder) => encoder.write(data),
            Self::Zstd(encoder) => encoder.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::None(inner) => inner.flush(),
            Self::Gzip(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}
