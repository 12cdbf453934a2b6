//! The container's log in docker's json-file format, written and rotated by the shim.
//!
//! One JSON object per line: `{"log":"text\n","stream":"stdout","attrs":{...},"time":"..."}`. A line longer than 16 KiB
//! becomes several records, all but the last without the newline. Whole records go out in one write per chunk; a record
//! torn by a crash or a full disk is cut off when the file is opened, or rolled back at once.
//!
//! Sync: a regular file does not block in a way that could be waited for. No fsync.

mod parts;

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use parts::Parts;

use super::Stream;
use super::uri::JsonFileConfig;
use crate::clock::Stamper;
use crate::diag;

/// Longest text of one record.
const RECORD: usize = 16 * 1024;
/// Formatted bytes collected before they are written.
const BATCH: usize = 256 * 1024;

/// The unfinished line of one stream.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
}

/// An open log.
#[derive(Debug)]
pub(crate) struct JsonFile {
    path: PathBuf,
    file: File,
    /// Bytes in the current file.
    size: u64,
    max_size: Option<u64>,
    parts: Parts,
    attrs: String,
    stamper: Stamper,
    /// Whole records not written yet.
    out: Vec<u8>,
    tail: String,
    /// Records lost since the last warning.
    lost: u64,
}

impl JsonFile {
    /// Opens or makes the log and cuts off a torn record.
    pub(super) fn open(config: &JsonFileConfig) -> io::Result<Self> {
        let file = open_file(&config.path)?;
        let size = repair(&file)?;
        Ok(Self {
            path: config.path.clone(),
            file,
            size,
            max_size: config.max_size,
            parts: Parts::of(&config.path, config.max_files, config.compress),
            attrs: config
                .attrs
                .as_ref()
                .map_or_else(String::new, |a| format!("\"attrs\":{a},")),
            stamper: Stamper::default(),
            out: Vec::new(),
            tail: String::new(),
            lost: 0,
        })
    }

    /// Logs what a stream said at `now`.
    pub(super) fn append(
        &mut self,
        stream: Stream,
        lines: &mut Lines,
        mut chunk: &[u8],
        now: SystemTime,
    ) {
        self.set_tail(stream, now);
        while let Some(end) = chunk.iter().position(|b| *b == b'\n') {
            let (line, rest) = (&chunk[..end], &chunk[end + 1..]);
            let line = self.long(lines, line);
            self.record(&[&lines.partial, line], true);
            lines.partial.clear();
            chunk = rest;
        }
        let rest = self.long(lines, chunk);
        lines.partial.extend_from_slice(rest);
        if lines.partial.is_empty() && lines.partial.capacity() > 1024 {
            lines.partial = Vec::new();
        }
        self.flush();
    }

    /// Logs what a stream left without a newline at its end.
    pub(super) fn finish(&mut self, stream: Stream, lines: &mut Lines, now: SystemTime) {
        if lines.partial.is_empty() {
            return;
        }
        self.set_tail(stream, now);
        self.record(&[&lines.partial], false);
        lines.partial = Vec::new();
        self.flush();
    }

    /// Logs full records of a line that is too long for one, and returns what is left of `line`.
    fn long<'a>(&mut self, lines: &mut Lines, mut line: &'a [u8]) -> &'a [u8] {
        while lines.partial.len() + line.len() >= RECORD {
            let (part, rest) = line.split_at(RECORD - lines.partial.len());
            self.record(&[&lines.partial, part], false);
            lines.partial.clear();
            line = rest;
        }
        line
    }

    /// The end of every record of one chunk.
    fn set_tail(&mut self, stream: Stream, now: SystemTime) {
        let name = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        self.tail.clear();
        for part in ["\",\"stream\":\"", name, "\",", &self.attrs, "\"time\":\""] {
            self.tail.push_str(part);
        }
        self.stamper.push(&mut self.tail, now);
        self.tail.push_str("\"}\n");
    }

    fn record(&mut self, parts: &[&[u8]], newline: bool) {
        let pending = self.out.len() as u64;
        if self.max_size.is_some_and(|max| self.size + pending >= max) {
            self.flush();
            self.rotate();
        } else if self.out.len() >= BATCH {
            self.flush();
        }
        self.out.extend_from_slice(b"{\"log\":\"");
        for part in parts {
            escape(&mut self.out, part);
        }
        if newline {
            self.out.extend_from_slice(b"\\n");
        }
        self.out.extend_from_slice(self.tail.as_bytes());
    }

    /// Writes the collected records; a write that fails midway is rolled back, so that the file holds whole records only.
    fn flush(&mut self) {
        if self.out.is_empty() {
            return;
        }
        let out = std::mem::take(&mut self.out);
        match self.file.write_all(&out) {
            Ok(()) => {
                self.size += out.len() as u64;
                if self.lost > 0 {
                    diag::warn(format_args!(
                        "log {}: writing again, {} records lost",
                        self.path.display(),
                        self.lost
                    ));
                    self.lost = 0;
                }
            }
            Err(error) => {
                if self.lost == 0 {
                    diag::warn(format_args!("write log {}: {error}", self.path.display()));
                }
                self.lost += out.iter().filter(|b| **b == b'\n').count() as u64;
                if let Err(error) = self.file.set_len(self.size) {
                    diag::warn(format_args!(
                        "roll back log {}: {error}",
                        self.path.display()
                    ));
                }
            }
        }
        if out.capacity() <= RECORD {
            self.out = out;
            self.out.clear();
        }
    }

    /// Begins anew, the older parts one further; if that fails the log goes on in the same file.
    fn rotate(&mut self) {
        let result = (|| match self.parts.shift()? {
            true => open_file(&self.path).map(Some),
            false => self.file.set_len(0).map(|()| None),
        })();
        match result {
            Ok(new) => {
                if let Some(new) = new {
                    self.file = new;
                }
                self.size = 0;
            }
            Err::<Option<File>, io::Error>(error) => {
                diag::warn(format_args!("rotate log {}: {error}", self.path.display()));
            }
        }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    std::fs::OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

/// Cuts the file behind its last newline; returns its length.
fn repair(file: &File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let mut end = length;
    let mut block = [0; 4096];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let part = &mut block[..usize::try_from(end - start).expect("at most a block")];
        file.read_exact_at(part, start)?;
        if let Some(at) = part.iter().rposition(|b| *b == b'\n') {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if end != length {
        file.set_len(end)?;
    }
    Ok(end)
}

/// Appends `text` as the inside of a JSON string, escaped as docker does it.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        escape_valid(out, chunk.valid().as_bytes());
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

fn escape_valid(out: &mut Vec<u8>, text: &[u8]) {
    let mut plain = 0;
    for (at, byte) in text.iter().enumerate() {
        if !SPECIAL[usize::from(*byte)] {
            continue;
        }
        let line_separator = *byte == 0xe2;
        if line_separator && !matches!(&text[at..], [0xe2, 0x80, 0xa8 | 0xa9, ..]) {
            continue;
        }
        out.extend_from_slice(&text[plain..at]);
        plain = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0xe2 => {
                out.extend_from_slice(if text[at + 2] == 0xa8 {
                    b"\\u2028"
                } else {
                    b"\\u2029"
                });
                plain = at + 3;
            }
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
    out.extend_from_slice(&text[plain..]);
}

/// Bytes that may need an escape.
static SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut control = 0;
    while control < 0x20 {
        table[control] = true;
        control += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table[b'<' as usize] = true;
    table[b'>' as usize] = true;
    table[b'&' as usize] = true;
    table[0xe2] = true;
    table
};

#[cfg(test)]
mod tests;
