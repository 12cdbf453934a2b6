//! One file of a log: the current one, or an older part, plain or compressed.
//!
//! The shim compresses older parts while they may be read. Which part a file is, is told by the file that its bytes were
//! written to: a compressed one states that in its header, so a reader that follows the log knows where it is.
//!
//! Sync.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use proto::layout;

use super::json_file;

/// Longest line that is read; the shim writes at most 16 KiB of output in one, escaped.
const LONGEST: u64 = 1 << 20;
/// Bytes read at a time.
const BUFFER: usize = 64 * 1024;

/// One file of the log, and how far it has been read.
pub(super) struct Part {
    content: Content,
    /// Which file the shim wrote, as [`layout::log_part`] has it.
    written: (u64, u64, u64),
    at: u64,
}

enum Content {
    Plain(BufReader<File>),
    Packed(Box<BufReader<GzDecoder<File>>>),
}

impl Part {
    /// Opens part `number` of a log, 0 the current one; none if there is none.
    pub(super) fn open(log: &Path, number: u32) -> io::Result<Option<Self>> {
        if let Some(file) = open(&name(log, number, ""))? {
            let written = layout::log_part_of(&file.metadata()?);
            return Ok(Some(Self {
                content: Content::Plain(BufReader::with_capacity(BUFFER, file)),
                written,
                at: 0,
            }));
        }
        if number == 0 {
            return Ok(None);
        }
        let Some(file) = open(&name(log, number, ".gz"))? else {
            return Ok(None);
        };
        let own = layout::log_part_of(&file.metadata()?);
        let mut content = Box::new(BufReader::with_capacity(BUFFER, GzDecoder::new(file)));
        // The header is read with the first bytes. What cannot be read is an empty part, as a torn record is none.
        if let Err(error) = content.fill_buf() {
            tracing::warn!("read log {} part {number}: {error}", log.display());
        }
        let header = content.get_ref().header();
        let stated = header.and_then(|header| layout::read_log_part(header.comment()?));
        Ok(Some(Self {
            content: Content::Packed(content),
            written: stated.unwrap_or(own),
            at: 0,
        }))
    }

    /// Whether both have the same bytes. Without its file's birth a compressed part is told by the file's number, which may be
    /// another's by now.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.written == other.written
    }

    /// Whether [`Self::is`] is sure.
    pub(super) fn is_unique(&self) -> bool {
        matches!(self.content, Content::Plain(_)) || self.written.2 != 0
    }

    /// Goes to the last `lines` lines that there are now; how many those are.
    pub(super) fn tail(&mut self, lines: u64) -> io::Result<u64> {
        match &mut self.content {
            Content::Plain(file) => {
                let end = file.get_ref().metadata()?.len();
                let (from, found) = json_file::tail(file.get_ref(), end, lines)?;
                file.seek(SeekFrom::Start(from))?;
                self.at = from;
                Ok(found)
            }
            Content::Packed(packed) => {
                let mut file = packed.get_ref().get_ref().try_clone()?;
                file.rewind()?;
                let all = count(GzDecoder::new(&file))?;
                file.rewind()?;
                **packed = BufReader::with_capacity(BUFFER, GzDecoder::new(file));
                let found = all.min(lines);
                for _ in found..all {
                    packed.skip_until(b'\n')?;
                }
                Ok(found)
            }
        }
    }

    /// Reads one line with its newline; false at the end, where a line without one is left for later.
    pub(super) fn read_line(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        let read = match &mut self.content {
            Content::Plain(file) => file.take(LONGEST).read_until(b'\n', line)?,
            Content::Packed(packed) => {
                match packed.take(LONGEST).read_until(b'\n', line) {
                    Ok(read) => read,
                    // Cut off by a dying machine: what is there was read.
                    Err(error) => {
                        tracing::warn!("read a compressed part of a log: {error}");
                        return Ok(false);
                    }
                }
            }
        };
        if line.last() == Some(&b'\n') || read as u64 == LONGEST {
            self.at += read as u64;
            return Ok(true);
        }
        if let (Content::Plain(file), true) = (&mut self.content, read > 0) {
            file.seek(SeekFrom::Start(self.at))?;
        }
        Ok(false)
    }
}

/// How many lines a stream has, as far as it can be read.
fn count(stream: impl Read) -> io::Result<u64> {
    let mut stream = BufReader::with_capacity(BUFFER, stream);
    let mut lines = 0;
    while let Ok(chunk) = stream.fill_buf() {
        if chunk.is_empty() {
            break;
        }
        lines += chunk.iter().filter(|byte| **byte == b'\n').count() as u64;
        let length = chunk.len();
        stream.consume(length);
    }
    Ok(lines)
}

/// The name of a part.
pub(super) fn name(log: &Path, number: u32, ending: &str) -> PathBuf {
    if number == 0 {
        return log.to_owned();
    }
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".{number}{ending}"));
    name.into()
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
