//! The messages of a log that was asked for with time stamps.
//!
//! With frames, a frame is a message. A terminal's log has none: there a message begins where a line or a piece of the answer
//! begins with a stamp, since a daemon sends no part of a message with the end of another.

use std::io;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const HEADER: usize = 8;
const SYSTEM_ERROR: u8 = 3;
/// The form of a stamp: `d` is a digit. `Z` may also be an offset such as `+01:00`.
const FORM: &[u8] = b"dddd-dd-ddTdd:dd:dd.dddddddddZ ";
const FORM_WITH_OFFSET: &[u8] = b"dddd-dd-ddTdd:dd:dd.ddddddddd+dd:dd ";

/// A message, or a piece of one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message {
    pub(crate) stream: u8,
    /// When it was written; none if it goes on with the one before, or the daemon told no time.
    pub(crate) at: Option<OffsetDateTime>,
    /// The stamp as it came, with the space behind it.
    pub(crate) stamp_text: Vec<u8>,
    pub(crate) text: Vec<u8>,
}

/// Takes an answer apart, however its bytes arrive.
#[derive(Debug)]
pub(crate) struct Messages {
    framed: bool,
    /// What is not complete yet.
    held: Vec<u8>,
    /// The next byte begins a line.
    at_start: bool,
}

impl Messages {
    pub(crate) fn new(tty: bool) -> Messages {
        Messages {
            framed: !tty,
            held: Vec::new(),
            at_start: true,
        }
    }

    /// The messages that are complete with this piece of the answer.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> io::Result<Vec<Message>> {
        let mut bytes = std::mem::take(&mut self.held);
        let fresh = bytes.is_empty();
        bytes.extend_from_slice(piece);
        if self.framed {
            self.frames(&bytes)
        } else {
            Ok(self.lines(&bytes, fresh))
        }
    }

    /// Whether the stream has ended in the middle of something.
    pub(crate) fn is_cut(&self) -> bool {
        !self.held.is_empty()
    }

    fn frames(&mut self, mut bytes: &[u8]) -> io::Result<Vec<Message>> {
        let mut out = Vec::new();
        while let Some((header, rest)) = bytes.split_at_checked(HEADER) {
            let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            let Some((payload, rest)) = rest.split_at_checked(length as usize) else {
                break;
            };
            let wrong = match header[0] {
                SYSTEM_ERROR => format!(
                    "error from daemon in stream: {}",
                    String::from_utf8_lossy(payload)
                ),
                stream if stream > SYSTEM_ERROR => format!("unrecognized stream: {stream}"),
                stream => {
                    out.push(message(stream, payload));
                    bytes = rest;
                    continue;
                }
            };
            return Err(io::Error::other(wrong));
        }
        self.held = bytes.to_vec();
        Ok(out)
    }

    fn lines(&mut self, mut bytes: &[u8], mut piece_begins: bool) -> Vec<Message> {
        let mut out = Vec::new();
        while !bytes.is_empty() {
            if self.at_start && is_beginning_of_stamp(bytes) {
                self.held = bytes.to_vec();
                break;
            }
            let begins = self.at_start || piece_begins;
            piece_begins = false;
            let end = match bytes.iter().position(|byte| *byte == b'\n') {
                Some(at) => at + 1,
                None => bytes.len(),
            };
            let line = &bytes[..end];
            out.push(match begins {
                true => message(1, line),
                false => unstamped(1, line),
            });
            self.at_start = line.ends_with(b"\n");
            bytes = &bytes[end..];
        }
        out
    }
}

/// A message with its stamp, if it has one.
fn message(stream: u8, bytes: &[u8]) -> Message {
    let stamped = [FORM, FORM_WITH_OFFSET].into_iter().find_map(|form| {
        let (stamp, text) = bytes.split_at_checked(form.len())?;
        if !fits(stamp, form) {
            return None;
        }
        let at = std::str::from_utf8(&stamp[..stamp.len() - 1]).ok()?;
        let at = OffsetDateTime::parse(at, &Rfc3339).ok()?;
        Some(Message {
            stream,
            at: Some(at),
            stamp_text: stamp.to_vec(),
            text: text.to_vec(),
        })
    });
    stamped.unwrap_or_else(|| unstamped(stream, bytes))
}

fn unstamped(stream: u8, bytes: &[u8]) -> Message {
    Message {
        stream,
        at: None,
        stamp_text: Vec::new(),
        text: bytes.to_vec(),
    }
}

/// Whether these bytes may become a stamp when more come.
fn is_beginning_of_stamp(bytes: &[u8]) -> bool {
    [FORM, FORM_WITH_OFFSET]
        .into_iter()
        .any(|form| bytes.len() < form.len() && fits(bytes, &form[..bytes.len()]))
}

fn fits(bytes: &[u8], form: &[u8]) -> bool {
    bytes.iter().zip(form).all(|(byte, form)| match form {
        b'd' => byte.is_ascii_digit(),
        b'+' => matches!(byte, b'+' | b'-'),
        form => byte == form,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STAMP: &str = "2026-11-24T11:10:37.123456789Z ";

    fn frame(stream: u8, text: &str) -> Vec<u8> {
        let mut out = vec![stream, 0, 0, 0];
        out.extend((text.len() as u32).to_be_bytes());
        out.extend(text.as_bytes());
        out
    }

    /// All that came, stamps as `@`, pieces of one message together.
    fn told(messages: &[Message]) -> String {
        let mut out = String::new();
        for message in messages {
            if message.at.is_some() {
                out.push('@');
            }
            out += &String::from_utf8_lossy(&message.text);
        }
        out
    }

    proptest! {
        #[test]
        fn frames_come_whole_wherever_they_are_cut(cut in 1usize..60) {
            let mut wire = frame(1, &format!("{STAMP}out\n"));
            wire.extend(frame(2, "2026-11-24T11:10:37.123456789+01:00 err"));
            wire.extend(frame(1, "none\n"));
            let mut messages = Messages::new(false);
            let mut all = Vec::new();
            for piece in wire.chunks(cut) {
                all.extend(messages.feed(piece).unwrap());
            }
            prop_assert!(!messages.is_cut());
            prop_assert_eq!(all.len(), 3);
            prop_assert_eq!(all[1].stream, 2);
            prop_assert_eq!(told(&all), "@out\n@errnone\n");
        }

        #[test]
        fn lines_come_whole_wherever_they_are_cut(cut in 1usize..60) {
            let wire = format!("{STAMP}2026 one\r\n{STAMP}two\r\n{STAMP}$ ");
            let mut messages = Messages::new(true);
            let mut all = Vec::new();
            for piece in wire.as_bytes().chunks(cut) {
                all.extend(messages.feed(piece).unwrap());
            }
            prop_assert_eq!(told(&all), "@2026 one\r\n@two\r\n@$ ");
        }

        #[test]
        fn no_bytes_are_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..64), tty: bool) {
            let _ = Messages::new(tty).feed(&bytes);
        }
    }

    #[test]
    fn a_piece_may_begin_a_message_within_a_line() {
        let mut messages = Messages::new(true);
        let mut all = messages.feed(format!("{STAMP}long").as_bytes()).unwrap();
        all.extend(messages.feed(format!("{STAMP}er\n").as_bytes()).unwrap());
        assert_eq!(told(&all), "@long@er\n");
    }
}
