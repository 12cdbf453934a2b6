//! Docker's 8-byte frames taken apart: the payload of both streams in the order in which it came.

/// Where in a framed stream we are.
#[derive(Debug, Default)]
pub(crate) struct Unframer {
    header: [u8; 8],
    /// Bytes of the header that have come.
    have: usize,
    /// Bytes of the payload that have not.
    left: usize,
}

impl Unframer {
    /// Passes the payload in the next bytes of the stream to `take`, in one or more parts.
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut take: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            if self.left == 0 {
                let n = (self.header.len() - self.have).min(bytes.len());
                self.header[self.have..self.have + n].copy_from_slice(&bytes[..n]);
                self.have += n;
                bytes = &bytes[n..];
                if self.have == self.header.len() {
                    let [.., a, b, c, d] = self.header;
                    self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                    self.have = 0;
                }
                continue;
            }
            let (payload, rest) = bytes.split_at(self.left.min(bytes.len()));
            take(payload);
            self.left -= payload.len();
            bytes = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_apart_wherever_they_are_cut() {
        let mut wire = Vec::new();
        for (stream, text) in [(1u8, "out\n"), (2, "err\n"), (1, ""), (1, "x")] {
            wire.extend_from_slice(&[stream, 0, 0, 0, 0, 0, 0]);
            wire.push(u8::try_from(text.len()).unwrap());
            wire.extend_from_slice(text.as_bytes());
        }
        for size in 1..=wire.len() {
            let (mut frames, mut out) = (Unframer::default(), Vec::new());
            for part in wire.chunks(size) {
                frames.push(part, |payload| out.extend_from_slice(payload));
            }
            assert_eq!(out, b"out\nerr\nx", "parts of {size}");
        }
    }
}
