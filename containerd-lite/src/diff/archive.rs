//! Reads a tar archive entry by entry: ustar, PAX and GNU long names. Only the fields of a header are decoded by a library;
//! the sequence is followed here, so that every read is bounded and PAX values may hold any byte.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::DiffError;

const BLOCK: usize = 512;
/// Longest PAX header or long name in bytes.
const MAX_EXTENSION: u64 = 1 << 20;
/// Longest name of an entry or a link in bytes, as the kernel's.
const MAX_NAME: usize = 4096;

/// What an entry makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
    Symlink(Vec<u8>),
    Hardlink(Vec<u8>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// A point in time: seconds and nanoseconds.
pub(super) type Time = (i64, i64);

/// One entry; its data is read from the archive before the next one.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Time,
    pub(super) atime: Time,
    /// Names and values.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The archive.
#[derive(Debug)]
pub(super) struct Archive<R> {
    reader: R,
    /// Data of the current entry that has not been read, and the padding after it.
    left: u64,
    padding: u64,
}

/// What the headers before an entry say of it.
#[derive(Debug, Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Time>,
    atime: Option<Time>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: bool,
}

impl<R: Read> Archive<R> {
    /// Nothing is read yet.
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            left: 0,
            padding: 0,
        }
    }

    /// The next entry; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, DiffError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip().map_err(DiffError::Read)?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            match header.entry_type() {
                EntryType::GNULongName => {
                    extensions.path = Some(until_nul(self.extension(&header)?))
                }
                EntryType::GNULongLink => {
                    extensions.link = Some(until_nul(self.extension(&header)?))
                }
                EntryType::XHeader => {
                    let bytes = self.extension(&header)?;
                    extensions
                        .read(&bytes)
                        .ok_or_else(|| malformed("malformed pax header"))?;
                }
                // Defaults for all entries; no builder of layers writes any that matter.
                EntryType::XGlobalHeader => drop(self.extension(&header)?),
                _ => {
                    let entry = entry(&header, extensions)?;
                    self.begin(entry.size);
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Reads on to the end of the stream: what follows the last entry belongs to the digest.
    pub(super) fn finish(mut self) -> Result<R, DiffError> {
        io::copy(&mut self.reader, &mut io::sink()).map_err(DiffError::Read)?;
        Ok(self.reader)
    }

    fn begin(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn skip(&mut self) -> io::Result<()> {
        let rest = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        match io::copy(&mut (&mut self.reader).take(rest), &mut io::sink())? {
            skipped if skipped == rest => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The next header; none at the end of the stream or at a block of zeros.
    fn header(&mut self) -> Result<Option<Header>, DiffError> {
        let mut header = Header::new_old();
        let mut filled = 0;
        while filled < BLOCK {
            match self.reader.read(&mut header.as_mut_bytes()[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(DiffError::Read(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(DiffError::Read(error)),
            }
        }
        if header.as_bytes().iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let bytes = header.as_bytes();
        let sum = bytes[..148]
            .iter()
            .chain(&bytes[156..])
            .map(|b| u32::from(*b))
            .sum::<u32>()
            + 8 * 32;
        match header.cksum() {
            Ok(stored) if stored == sum => Ok(Some(header)),
            _ => Err(malformed("header checksum does not match")),
        }
    }

    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, DiffError> {
        let size = header.entry_size().map_err(DiffError::Read)?;
        if size > MAX_EXTENSION {
            return Err(malformed("extended header is longer than 1 MiB"));
        }
        self.begin(size);
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(DiffError::Read)?;
        Ok(bytes)
    }
}

impl<R: Read> Read for Archive<R> {
    /// Data of the current entry; an archive that ends in it is an error.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        match self.reader.read(&mut buffer[..most])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.left -= read as u64;
                Ok(read)
            }
        }
    }
}

impl Extensions {
    /// Reads the records of a PAX header, `LENGTH KEY=VALUE\n`.
    fn read(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            let blank = bytes.iter().position(|b| *b == b' ')?;
            let length: usize = std::str::from_utf8(&bytes[..blank]).ok()?.parse().ok()?;
            let record = bytes.get(blank + 1..length)?.strip_suffix(b"\n")?;
            bytes = &bytes[length..];
            let equals = record.iter().position(|b| *b == b'=')?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            // An empty value takes an earlier record back.
            let some = !value.is_empty();
            match key {
                b"path" => self.path = some.then(|| value.to_vec()),
                b"linkpath" => self.link = some.then(|| value.to_vec()),
                b"size" => self.size = optional(some, number(value))?,
                b"uid" => self.uid = optional(some, number(value))?,
                b"gid" => self.gid = optional(some, number(value))?,
                b"mtime" => self.mtime = optional(some, time(value))?,
                b"atime" => self.atime = optional(some, time(value))?,
                _ if key.starts_with(b"GNU.sparse.") => self.sparse = true,
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        self.xattrs.retain(|(n, _)| n != name);
                        if some {
                            self.xattrs.push((name.to_vec(), value.to_vec()));
                        }
                    }
                }
            }
        }
        Some(())
    }
}

fn optional<T>(some: bool, value: Option<T>) -> Option<Option<T>> {
    if some { value.map(Some) } else { Some(None) }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Decimal seconds, with a fraction perhaps.
fn time(text: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanos: i64 = digits.parse().ok()?;
    Some(match whole.starts_with('-') && nanos > 0 {
        true => (seconds.checked_sub(1)?, 1_000_000_000 - nanos),
        false => (seconds, nanos),
    })
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    bytes
}

fn malformed(what: &'static str) -> DiffError {
    DiffError::Read(io::Error::new(io::ErrorKind::InvalidData, what))
}

/// A number of a header; a field that was left blank is 0.
fn or_blank(number: io::Result<u64>, field: &[u8]) -> io::Result<u64> {
    match field.iter().all(|b| matches!(b, 0 | b' ')) {
        true => Ok(0),
        false => number,
    }
}

fn entry(header: &Header, extensions: Extensions) -> Result<Entry, DiffError> {
    let path = extensions
        .path
        .unwrap_or_else(|| header.path_bytes().into_owned());
    let name = || String::from_utf8_lossy(&path).into_owned();
    let wrong = |what| DiffError::Entry { path: name(), what };
    let link = || {
        let link = extensions
            .link
            .clone()
            .or_else(|| header.link_name_bytes().map(|l| l.into_owned()));
        let link = link
            .filter(|l| !l.is_empty())
            .ok_or_else(|| wrong("link without a target"))?;
        if link.len() > MAX_NAME || link.contains(&0) {
            Err(wrong("link target is no path"))
        } else {
            Ok(link)
        }
    };
    if path.len() > MAX_NAME || path.contains(&0) {
        let start = String::from_utf8_lossy(&path[..path.len().min(64)]).into_owned();
        return Err(DiffError::Entry {
            path: start,
            what: "name is no path",
        });
    }
    let device = || match (header.device_major(), header.device_minor()) {
        (Ok(major), Ok(minor)) => Ok((major.unwrap_or(0), minor.unwrap_or(0))),
        _ => Err(wrong("device number is malformed")),
    };
    let unsupported = |what| Err(DiffError::Unsupported { path: name(), what });
    let kind = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink(link()?),
        EntryType::Link => Kind::Hardlink(link()?),
        EntryType::Char => device().map(|(a, b)| Kind::Char(a, b))?,
        EntryType::Block => device().map(|(a, b)| Kind::Block(a, b))?,
        EntryType::Fifo => Kind::Fifo,
        EntryType::GNUSparse => return unsupported("a sparse file"),
        _ => return unsupported("this type of entry"),
    };
    if extensions.sparse {
        return unsupported("a sparse file");
    }
    let raw = header.as_old();
    let id = |pax: Option<u64>, plain: io::Result<u64>, field: &[u8]| {
        let id = pax
            .map_or_else(|| or_blank(plain, field), Ok)
            .map_err(|_| wrong("owner is malformed"))?;
        u32::try_from(id).map_err(|_| wrong("owner is out of range"))
    };
    let mode = or_blank(header.mode().map(u64::from), &raw.mode)
        .map_err(|_| wrong("mode is malformed"))?;
    let seconds = or_blank(header.mtime(), &raw.mtime).map_err(|_| wrong("time is malformed"))?;
    let mtime = extensions
        .mtime
        .unwrap_or((i64::try_from(seconds).unwrap_or(i64::MAX), 0));
    // Only files have data; other entries may say otherwise, and nothing follows.
    let size = match kind {
        Kind::File => extensions
            .size
            .map_or_else(|| header.entry_size(), Ok)
            .map_err(|_| wrong("size is malformed"))?,
        _ => 0,
    };
    if size > i64::MAX as u64 / 2 {
        return Err(wrong("size is out of range"));
    }
    Ok(Entry {
        kind,
        size,
        mode: u32::try_from(mode & 0o7777).unwrap_or(0),
        uid: id(extensions.uid, header.uid(), &raw.uid)?,
        gid: id(extensions.gid, header.gid(), &raw.gid)?,
        mtime,
        atime: extensions.atime.unwrap_or(mtime),
        xattrs: extensions.xattrs,
        path,
    })
}
