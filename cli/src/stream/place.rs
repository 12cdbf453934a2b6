//! How far the output of a container has come, in the terms of its log, and what of a log is left after that. Pure.
//!
//! The log has what the streams brought, byte for byte, but that bytes which are no UTF-8 became U+FFFD each. So lines are
//! counted, and bytes of the line that is not complete, as the log has them.

/// How many of the first bytes are kept, to be found again in a log that may begin earlier.
const HEAD: usize = 4096;
/// How much earlier it may begin.
const EARLIER: usize = 256 * 1024;

/// How far both streams have come.
#[derive(Debug, Default, Clone)]
pub(crate) struct Place {
    out: Progress,
    error: Progress,
}

#[derive(Debug, Default, Clone)]
struct Progress {
    head: Vec<u8>,
    lines: u64,
    column: usize,
    /// The beginning of a character.
    pending: Vec<u8>,
}

impl Place {
    /// Counts what was printed.
    pub(crate) fn add(&mut self, stream: u8, bytes: &[u8]) {
        self.of(stream).add(bytes);
    }

    /// Nothing has come.
    pub(crate) fn is_at_start(&self) -> bool {
        let nothing = |progress: &Progress| progress.head.is_empty() && progress.pending.is_empty();
        nothing(&self.out) && nothing(&self.error)
    }

    fn of(&mut self, stream: u8) -> &mut Progress {
        match stream {
            super::demux::STDERR => &mut self.error,
            _ => &mut self.out,
        }
    }
}

impl Progress {
    fn add(&mut self, bytes: &[u8]) {
        let mut all = std::mem::take(&mut self.pending);
        all.extend_from_slice(bytes);
        let is_beginning = |tail: &[u8]| {
            std::str::from_utf8(tail)
                .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
        };
        let whole = (all.len().saturating_sub(3)..all.len())
            .find(|from| is_beginning(&all[*from..]))
            .unwrap_or(all.len());
        self.pending = all.split_off(whole);
        let text = as_logged(&all);
        let room = HEAD - self.head.len();
        self.head.extend_from_slice(&text[..room.min(text.len())]);
        match text.iter().rposition(|byte| *byte == b'\n') {
            Some(last) => {
                self.lines += text.iter().filter(|byte| **byte == b'\n').count() as u64;
                self.column = text.len() - last - 1;
            }
            None => self.column += text.len(),
        }
    }
}

/// Bytes as a log has them.
fn as_logged(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.extend_from_slice(chunk.valid().as_bytes());
        for _ in chunk.invalid() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    out
}

/// Takes out of a log what was printed before.
#[derive(Debug)]
pub(crate) struct Rest {
    out: Left,
    error: Left,
}

#[derive(Debug)]
struct Left {
    /// The first bytes that were printed, until they are found.
    head: Option<Vec<u8>>,
    held: Vec<u8>,
    lines: u64,
    column: usize,
}

impl Rest {
    /// Of a log that begins where the streams began, or somewhat `earlier`.
    pub(crate) fn of(place: &Place, earlier: bool) -> Rest {
        let left = |progress: &Progress| Left {
            head: (earlier && !progress.head.is_empty()).then(|| progress.head.clone()),
            held: Vec::new(),
            lines: progress.lines,
            column: progress.column,
        };
        Rest {
            out: left(&place.out),
            error: left(&place.error),
        }
    }

    /// What of these bytes of the log is new.
    pub(crate) fn feed(&mut self, stream: u8, bytes: &[u8]) -> Vec<u8> {
        let left = match stream {
            super::demux::STDERR => &mut self.error,
            _ => &mut self.out,
        };
        left.feed(bytes)
    }

    /// No more comes for now: where the beginning was not found, the log counts from its own. New output by stream.
    pub(crate) fn give_up_searching(&mut self) -> [(u8, Vec<u8>); 2] {
        [(1, self.out.give_up()), (2, self.error.give_up())]
    }

    /// Whether bytes are held back.
    pub(crate) fn is_searching(&self) -> bool {
        !self.out.held.is_empty() || !self.error.held.is_empty()
    }
}

impl Left {
    fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Some(head) = &self.head else {
            return self.skip(bytes).to_vec();
        };
        self.held.extend_from_slice(bytes);
        let found = self
            .held
            .windows(head.len())
            .position(|part| part == head.as_slice());
        match found {
            Some(at) => {
                self.head = None;
                let held = std::mem::take(&mut self.held);
                self.skip(&held[at..]).to_vec()
            }
            None if self.held.len() > EARLIER => self.give_up(),
            None => Vec::new(),
        }
    }

    fn give_up(&mut self) -> Vec<u8> {
        self.head = None;
        let held = std::mem::take(&mut self.held);
        self.skip(&held).to_vec()
    }

    fn skip<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while self.lines > 0 {
            let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                return &[];
            };
            bytes = &bytes[end + 1..];
            self.lines -= 1;
        }
        let line = bytes
            .iter()
            .position(|byte| *byte == b'\n')
            .unwrap_or(bytes.len());
        let skip = self.column.min(line);
        self.column = if line < bytes.len() {
            0
        } else {
            self.column - skip
        };
        &bytes[skip..]
    }
}

/// How many bytes at the beginning of a stream are the end of its log: it may have begun before the log was read.
pub(crate) fn joint(logged: &[u8], streamed: &[u8]) -> usize {
    (0..=logged.len().min(streamed.len()))
        .rev()
        .find(|length| logged.ends_with(&streamed[..*length]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_rest_begins_where_the_stream_was_cut(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(0xc3u8), Just(0xa9u8), any::<u8>()], 0..60),
            cut in 0usize..60,
            piece in 1usize..9,
        ) {
            let cut = cut.min(bytes.len());
            let log = as_logged(&bytes);
            // A cut within a character is printed again with its beginning, as the log has it whole only.
            let whole = (0..=cut).rev().find(|at| as_logged(&bytes[..*at]).len() + as_logged(&bytes[*at..]).len() == log.len());
            prop_assume!(whole == Some(cut));
            let mut place = Place::default();
            for part in bytes[..cut].chunks(piece) {
                place.add(1, part);
            }
            prop_assume!(place.out.pending.is_empty());
            let mut rest = Rest::of(&place, false);
            let got: Vec<u8> = log.chunks(piece).flat_map(|part| rest.feed(1, part)).collect();
            prop_assert_eq!(&got, &as_logged(&bytes[cut..]));
        }
    }

    #[test]
    fn an_earlier_beginning_is_found() {
        let mut place = Place::default();
        place.add(1, b"two\nthr");
        let mut rest = Rest::of(&place, true);
        assert_eq!(rest.feed(1, b"one\ntw"), b"");
        assert!(rest.is_searching());
        assert_eq!(rest.feed(1, b"o\nthree\nfour\n"), b"ee\nfour\n");
        assert!(!rest.is_searching());
        let mut lost = Rest::of(&place, true);
        assert_eq!(lost.feed(1, b"x\n"), b"");
        assert_eq!(lost.give_up_searching()[0].1, b"");
    }

    #[test]
    fn pieces_are_joined_without_doubles() {
        assert_eq!(joint(b"a\nb\n", b"b\nc\n"), 2);
        assert_eq!(joint(b"a\n", b"b\n"), 0);
        assert_eq!(joint(b"", b"b\n"), 0);
    }
}
