//! The keys that leave a container running and go. Pure.

/// The default: ctrl-p, then ctrl-q.
const DEFAULT: [u8; 2] = [0x10, 0x11];

/// Watches what is typed for a sequence of keys.
#[derive(Debug)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

/// Refuses keys that cannot be read.
pub(crate) fn check_keys(text: &str) -> Result<(), String> {
    if text.is_empty() || keys(text).is_some() {
        Ok(())
    } else {
        Err(format!("invalid detach keys ({text}) provided"))
    }
}

fn keys(text: &str) -> Option<Vec<u8>> {
    text.split(',')
        .map(|key| match key.strip_prefix("ctrl-").map(str::as_bytes) {
            Some([letter @ b'a'..=b'z']) => Some(letter - b'a' + 1),
            Some([sign @ b'@']) => Some(sign - b'@'),
            Some([sign @ b'['..=b'_']) => Some(sign - b'[' + 27),
            Some(_) => None,
            None => match key.as_bytes() {
                [byte] => Some(*byte),
                _ => None,
            },
        })
        .collect()
}

impl DetachKeys {
    /// Reads `ctrl-a,b`; the default for nothing.
    pub(crate) fn parse(text: &str) -> DetachKeys {
        DetachKeys {
            keys: keys(text).unwrap_or_else(|| DEFAULT.to_vec()),
            matched: 0,
        }
    }

    /// The keys themselves.
    pub(crate) fn sequence(&self) -> &[u8] {
        &self.keys
    }

    /// What of the typed bytes may pass on, and whether the sequence is complete.
    /// A beginning of the sequence is held back until it is clear what it will be.
    pub(crate) fn feed(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut pass = Vec::with_capacity(typed.len());
        for byte in typed {
            if *byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (pass, true);
                }
                continue;
            }
            pass.extend_from_slice(&self.keys[..self.matched]);
            self.matched = 0;
            if *byte == self.keys[0] {
                self.matched = 1;
            } else {
                pass.push(*byte);
            }
        }
        (pass, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_sequence_passes_in_full() {
        let mut keys = DetachKeys::parse("");
        assert_eq!(keys.feed(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(keys.feed(b"\x10x"), (b"\x10\x10x".to_vec(), false));
        assert_eq!(keys.feed(b"\x10"), (vec![], false));
        assert_eq!(keys.feed(b"\x11"), (vec![], true));
    }

    #[test]
    fn keys_are_read_as_docker_reads_them() {
        assert_eq!(keys("ctrl-a,b,ctrl-]"), Some(vec![1, b'b', 29]));
        assert!(check_keys("ctrl-").is_err());
        assert!(check_keys("").is_ok());
    }
}
