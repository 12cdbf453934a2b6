//! Frames of Docker's streams: 8 bytes of header (stream, three zeros, length), then the bytes.

use std::io;

/// The stream number of standard error.
pub(crate) const STDERR: u8 = 2;
/// The stream number of an error of the daemon itself.
const SYSTEM_ERROR: u8 = 3;
const HEADER: usize = 8;

/// Takes frames apart, however the bytes arrive.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    header: Vec<u8>,
    left: usize,
    stream: u8,
    error: Vec<u8>,
}

impl Frames {
    /// The pieces of payload in these bytes, each with its stream.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> io::Result<Vec<(u8, Vec<u8>)>> {
        let mut out: Vec<(u8, Vec<u8>)> = Vec::new();
        while !bytes.is_empty() {
            if self.left == 0 {
                let take = (HEADER - self.header.len()).min(bytes.len());
                self.header.extend_from_slice(&bytes[..take]);
                bytes = &bytes[take..];
                if self.header.len() == HEADER {
                    self.begin()?;
                }
                continue;
            }
            let take = self.left.min(bytes.len());
            match self.stream {
                SYSTEM_ERROR => self.error.extend_from_slice(&bytes[..take]),
                stream => match out.last_mut() {
                    Some((last, piece)) if *last == stream => {
                        piece.extend_from_slice(&bytes[..take])
                    }
                    _ => out.push((stream, bytes[..take].to_vec())),
                },
            }
            self.left -= take;
            bytes = &bytes[take..];
            if self.left == 0 && self.stream == SYSTEM_ERROR {
                let text = String::from_utf8_lossy(&self.error);
                return Err(io::Error::other(format!(
                    "error from daemon in stream: {text}"
                )));
            }
        }
        Ok(out)
    }

    fn begin(&mut self) -> io::Result<()> {
        self.stream = self.header[0];
        if self.stream > SYSTEM_ERROR {
            return Err(io::Error::other(format!(
                "unrecognized stream: {}",
                self.stream
            )));
        }
        let length = [
            self.header[4],
            self.header[5],
            self.header[6],
            self.header[7],
        ];
        self.left = u32::from_be_bytes(length) as usize;
        self.header.clear();
        Ok(())
    }

    /// The stream has ended; in the middle of a frame that is an error.
    pub(crate) fn finish(&self) -> io::Result<()> {
        if self.left == 0 && self.header.is_empty() {
            Ok(())
        } else {
            Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the stream ended in the middle of a frame",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(stream: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![stream, 0, 0, 0];
        out.extend((payload.len() as u32).to_be_bytes());
        out.extend(payload);
        out
    }

    proptest! {
        #[test]
        fn frames_come_apart_wherever_they_are_cut(
            payloads in proptest::collection::vec((1u8..3, proptest::collection::vec(any::<u8>(), 0..20)), 0..8),
            cut in 1usize..16,
        ) {
            let wire: Vec<u8> = payloads.iter().flat_map(|(stream, bytes)| frame(*stream, bytes)).collect();
            let mut frames = Frames::default();
            let (mut out, mut err) = (Vec::new(), Vec::new());
            for piece in wire.chunks(cut) {
                for (stream, bytes) in frames.feed(piece).unwrap() {
                    if stream == STDERR { err.extend(bytes) } else { out.extend(bytes) }
                }
            }
            frames.finish().unwrap();
            let want = |stream: u8| payloads.iter().filter(|(s, _)| *s == stream).flat_map(|(_, b)| b.clone()).collect::<Vec<_>>();
            prop_assert_eq!(out, want(1));
            prop_assert_eq!(err, want(2));
        }

        #[test]
        fn no_bytes_are_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Frames::default().feed(&bytes);
        }
    }

    #[test]
    fn a_cut_frame_is_an_error() {
        let mut frames = Frames::default();
        frames.feed(&frame(1, b"abc")[..9]).unwrap();
        assert!(frames.finish().is_err());
    }
}
