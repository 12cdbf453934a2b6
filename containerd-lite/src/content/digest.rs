//! Digests: `sha256:` and 64 hexadecimal digits.

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};

/// Prefix of the one algorithm that blobs are stored under.
const ALGORITHM: &str = "sha256:";

/// A parsed digest. One is safe as a path component.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Digest(String);

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DigestError {
    #[error("digest {0:?} is malformed")]
    Malformed(String),
    #[error("digest {0:?} has an algorithm that is not supported, only sha256 is")]
    Algorithm(String),
}

impl Digest {
    /// Parses a digest.
    pub(crate) fn parse(text: &str) -> Result<Self, DigestError> {
        let Some(hex) = text.strip_prefix(ALGORITHM) else {
            let named = text
                .split_once(':')
                .is_some_and(|(a, h)| !a.is_empty() && !h.is_empty());
            return Err(match named {
                true => DigestError::Algorithm(text.to_owned()),
                false => DigestError::Malformed(text.to_owned()),
            });
        };
        if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(DigestError::Malformed(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }

    /// Of what has been hashed so far.
    pub(crate) fn of(hasher: &Sha256) -> Self {
        Self(format!(
            "{ALGORITHM}{}",
            hex::encode(hasher.clone().finalize())
        ))
    }

    /// Of all of some bytes.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        Self(format!("{ALGORITHM}{}", hex::encode(Sha256::digest(bytes))))
    }

    /// The digits.
    pub(crate) fn hex(&self) -> &str {
        &self.0[ALGORITHM.len()..]
    }

    /// With the algorithm.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Hashes and counts what passes to or from the inner one.
#[derive(Debug)]
pub(crate) struct Hashed<W> {
    pub(crate) inner: W,
    hasher: Sha256,
    pub(crate) size: u64,
}

impl<W> Hashed<W> {
    /// Nothing has passed yet.
    pub(crate) fn new(inner: W) -> Self {
        Self {
            inner,
            hasher: Sha256::new(),
            size: 0,
        }
    }

    /// Of what has passed.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.hasher)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(data)?;
        self.hasher.update(&data[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: io::Read> io::Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.size += read as u64;
        Ok(read)
    }
}
