//! Reading a log for a client: from its oldest part or from a tail, filtered, framed, and followed to its end.
//!
//! A thread of its own reads, since files block; it fills chunks and sends them through a bounded channel, so that a slow
//! client slows the reader and nobody else. To follow it waits for inotify, and for a pipe that closes when the container
//! has ended or the client has gone; there is no polling. Across a rotation the old file is read to its end by the open
//! descriptor, then the next newer one is found by inode.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use time::OffsetDateTime;
use tokio::sync::mpsc;

use super::json_file::{self, Entry};
use super::part::Part;
use crate::clock;

/// Size at which a chunk is sent.
const CHUNK: usize = 32 * 1024;

/// What a client wants.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) follow: bool,
    /// The last so many lines; none means all.
    pub(crate) tail: Option<u64>,
    pub(crate) since: Option<OffsetDateTime>,
    pub(crate) until: Option<OffsetDateTime>,
    pub(crate) timestamps: bool,
    pub(crate) details: bool,
    /// Docker's frames, or raw for a tty.
    pub(crate) framed: bool,
}

/// Starts reading. `ended` closes when no more is to come.
pub(crate) fn spawn(
    path: PathBuf,
    wanted: Wanted,
    ended: io::PipeReader,
) -> io::Result<mpsc::Receiver<Bytes>> {
    let (sink, chunks) = mpsc::channel(4);
    std::thread::Builder::new()
        .name("logs".into())
        .stack_size(256 * 1024)
        .spawn(move || {
            let mut reader = Reader {
                path,
                wanted,
                sink,
                chunk: Vec::new(),
                line: Vec::new(),
            };
            if let Err(Stop::Failed(e)) = reader.run(&ended) {
                tracing::warn!("read log {}: {e}", reader.path.display());
            }
        })?;
    Ok(chunks)
}

/// Why reading ends before the log does.
enum Stop {
    /// The client has gone.
    Gone,
    /// Past `until`.
    Late,
    Failed(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<nix::errno::Errno> for Stop {
    fn from(errno: nix::errno::Errno) -> Self {
        Self::Failed(errno.into())
    }
}

struct Reader {
    path: PathBuf,
    wanted: Wanted,
    sink: mpsc::Sender<Bytes>,
    chunk: Vec<u8>,
    line: Vec<u8>,
}

impl Reader {
    fn run(&mut self, ended: &io::PipeReader) -> Result<(), Stop> {
        let watch = match self.wanted.follow {
            true => Some(self.watch()?),
            false => None,
        };
        let outcome = self.read_all(ended, watch.as_ref());
        match outcome {
            Ok(()) | Err(Stop::Late) => self.flush(),
            other => other,
        }
    }

    fn watch(&self) -> Result<Inotify, Stop> {
        let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        let flags =
            AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        watch.add_watch(dir, flags)?;
        Ok(watch)
    }

    fn read_all(&mut self, ended: &io::PipeReader, watch: Option<&Inotify>) -> Result<(), Stop> {
        let mut current = None;
        for mut part in self.parts()? {
            self.drain(&mut part)?;
            current = Some(part);
        }
        let Some(watch) = watch else {
            return Ok(());
        };
        loop {
            // Looked at before the last read, so that what was written before the end is read.
            let over = is_over(ended)?;
            if current.is_none() {
                current = Part::open(&self.path, 0)?;
            }
            if let Some(part) = &mut current {
                self.drain(part)?;
                while let Some(mut next) = self.next_part(part)? {
                    // It may have grown between the last read and its renaming.
                    self.drain(part)?;
                    self.drain(&mut next)?;
                    *part = next;
                }
            }
            self.flush()?;
            if over {
                return Ok(());
            }
            wait(&[watch.as_fd(), ended.as_fd()])?;
            while watch.read_events().is_ok_and(|events| !events.is_empty()) {}
        }
    }

    /// The parts of the log, oldest first, each where reading begins.
    fn parts(&self) -> Result<Vec<Part>, Stop> {
        let mut newest_first: Vec<Part> = Vec::new();
        let mut missing = self.wanted.tail;
        for number in 0.. {
            let Some(mut part) = Part::open(&self.path, number)? else {
                break;
            };
            // The log was rotated since the last one was opened.
            if part.is_unique() && newest_first.iter().any(|newer| newer.is(&part)) {
                continue;
            }
            if let Some(lines) = missing {
                missing = Some(lines - part.tail(lines)?);
            }
            newest_first.push(part);
            if missing == Some(0) {
                break;
            }
        }
        newest_first.reverse();
        Ok(newest_first)
    }

    /// The file that follows the part after a rotation; none if it is still the newest.
    fn next_part(&self, part: &Part) -> Result<Option<Part>, Stop> {
        let mut newer = None;
        for number in 0.. {
            let Some(found) = Part::open(&self.path, number)? else {
                // Rotated out of sight: the oldest that is left is the next.
                break;
            };
            if found.is(part) {
                break;
            }
            newer = Some(found);
        }
        Ok(newer)
    }

    /// Reads whole lines up to the end of what is written.
    fn drain(&mut self, part: &mut Part) -> Result<(), Stop> {
        loop {
            let mut line = std::mem::take(&mut self.line);
            line.clear();
            let got = part.read_line(&mut line);
            let outcome = match got {
                Ok(true) => self.take(&line),
                Ok(false) => {
                    self.line = line;
                    return Ok(());
                }
                Err(e) => Err(e.into()),
            };
            self.line = line;
            outcome?;
        }
    }

    fn take(&mut self, line: &[u8]) -> Result<(), Stop> {
        let Some(entry) = json_file::parse(line) else {
            return Ok(());
        };
        if self.wanted.since.is_some() || self.wanted.until.is_some() {
            let moment = clock::parse(&entry.time);
            if let (Some(moment), Some(since)) = (moment, self.wanted.since)
                && moment < since
            {
                return Ok(());
            }
            if let (Some(moment), Some(until)) = (moment, self.wanted.until)
                && moment > until
            {
                return Err(Stop::Late);
            }
        }
        let error = entry.stream == "stderr";
        if error && self.wanted.stderr || !error && self.wanted.stdout {
            write(&mut self.chunk, &self.wanted, &entry, error);
        }
        if self.chunk.len() >= CHUNK {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Stop> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = Bytes::from(std::mem::take(&mut self.chunk));
        self.sink.blocking_send(chunk).map_err(|_| Stop::Gone)
    }
}

/// Appends one record as the client wants it.
fn write(chunk: &mut Vec<u8>, wanted: &Wanted, entry: &Entry<'_>, error: bool) {
    let header = chunk.len();
    if wanted.framed {
        chunk.extend_from_slice(&[if error { 2 } else { 1 }, 0, 0, 0, 0, 0, 0, 0]);
    }
    let start = chunk.len();
    if wanted.timestamps {
        chunk.extend_from_slice(fixed(&entry.time).as_bytes());
        chunk.push(b' ');
    }
    if wanted.details {
        let pairs = entry.attrs.iter().flatten();
        let pairs: Vec<String> = pairs.map(|(key, value)| format!("{key}={value}")).collect();
        chunk.extend_from_slice(pairs.join(",").as_bytes());
        chunk.push(b' ');
    }
    chunk.extend_from_slice(entry.log.as_bytes());
    if wanted.framed {
        let length = u32::try_from(chunk.len() - start).unwrap_or(u32::MAX);
        chunk[header + 4..header + 8].copy_from_slice(&length.to_be_bytes());
    }
}

/// A time with nine digits of fraction, as Docker prints it.
fn fixed(text: &str) -> String {
    let bare = text.strip_suffix('Z').unwrap_or(text);
    match bare.split_once('.') {
        Some((seconds, fraction)) => format!("{seconds}.{fraction:0<9}Z"),
        None => format!("{bare}.000000000Z"),
    }
}

fn is_over(ended: &io::PipeReader) -> Result<bool, Stop> {
    let mut fds = [PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut fds, PollTimeout::ZERO)? > 0)
}

fn wait(fds: &[BorrowedFd<'_>]) -> Result<(), Stop> {
    let mut polled: Vec<PollFd<'_>> = fds
        .iter()
        .map(|fd| PollFd::new(*fd, PollFlags::POLLIN))
        .collect();
    match poll(&mut polled, PollTimeout::NONE) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::part::name;
    use std::fs::File;
    use std::io::Write;

    fn wanted() -> Wanted {
        Wanted {
            stdout: true,
            stderr: true,
            ..Wanted::default()
        }
    }

    fn record(text: &str, second: u32) -> String {
        format!(
            "{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"2020-01-01T00:00:{second:02}Z\"}}\n"
        )
    }

    fn collect(mut chunks: mpsc::Receiver<Bytes>) -> String {
        let mut all = Vec::new();
        while let Some(chunk) = chunks.blocking_recv() {
            all.extend_from_slice(&chunk);
        }
        String::from_utf8(all).unwrap()
    }

    fn read(path: &Path, wanted: Wanted) -> String {
        let (ended, _held) = io::pipe().unwrap();
        collect(spawn(path.to_owned(), wanted, ended).unwrap())
    }

    #[test]
    fn rotated_parts_come_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(name(&path, 2, ""), record("a", 1) + &record("b", 2)).unwrap();
        std::fs::write(name(&path, 1, ""), record("c", 3)).unwrap();
        std::fs::write(
            &path,
            "garbage\n".to_owned() + &record("d", 4) + "{\"log\":\"torn",
        )
        .unwrap();
        assert_eq!(read(&path, wanted()), "a\nb\nc\nd\n");
        let tail = |lines| Wanted {
            tail: Some(lines),
            ..wanted()
        };
        // The torn end has no newline and the garbage is a line, too.
        assert_eq!(read(&path, tail(4)), "c\nd\n");
        let since = clock::parse("2020-01-01T00:00:02Z");
        let until = clock::parse("2020-01-01T00:00:03Z");
        assert_eq!(
            read(
                &path,
                Wanted {
                    since,
                    until,
                    ..wanted()
                }
            ),
            "b\nc\n"
        );
        assert_eq!(read(&dir.path().join("none"), wanted()), "");
    }

    /// Compresses a part as the shim does.
    fn pack(plain: &Path, packed: &Path) {
        let found = proto::layout::log_part_of(&plain.metadata().unwrap());
        let target = File::create(packed.with_extension("new")).unwrap();
        let mut encoder = flate2::GzBuilder::new()
            .comment(proto::layout::log_part(found))
            .write(target, flate2::Compression::fast());
        encoder.write_all(&std::fs::read(plain).unwrap()).unwrap();
        encoder.finish().unwrap();
        std::fs::rename(packed.with_extension("new"), packed).unwrap();
        std::fs::remove_file(plain).unwrap();
    }

    #[test]
    fn compressed_parts_read_as_plain_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        // Held, so that no file gets the number of another: births are told by the clock's tick only.
        let mut held = Vec::new();
        for (number, texts) in [(3, ["a", "b"]), (2, ["c", "d"]), (1, ["e", "f"])] {
            std::fs::write(
                name(&path, number, ""),
                texts.map(|t| record(t, 1)).concat(),
            )
            .unwrap();
            held.push(File::open(name(&path, number, "")).unwrap());
            if number > 1 {
                pack(&name(&path, number, ""), &name(&path, number, ".gz"));
            }
        }
        std::fs::write(&path, record("g", 1)).unwrap();
        // What is found twice is read once, and what is torn is not read.
        std::fs::write(name(&path, 1, ".gz"), "torn").unwrap();
        std::fs::write(name(&path, 4, ".gz"), "torn").unwrap();
        assert_eq!(read(&path, wanted()), "a\nb\nc\nd\ne\nf\ng\n");
        for (lines, text) in [
            (4, "d\ne\nf\ng\n"),
            (5, "c\nd\ne\nf\ng\n"),
            (99, "a\nb\nc\nd\ne\nf\ng\n"),
        ] {
            let tail = Wanted {
                tail: Some(lines),
                ..wanted()
            };
            assert_eq!(read(&path, tail), text);
        }
    }

    #[test]
    fn frames_and_timestamps() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, record("a", 1)).unwrap();
        let got = read(
            &path,
            Wanted {
                framed: true,
                timestamps: true,
                ..wanted()
            },
        );
        let payload = "2020-01-01T00:00:01.000000000Z a\n";
        assert_eq!(
            got,
            format!("\u{1}\0\0\0\0\0\0{}{payload}", payload.len() as u8 as char)
        );
    }

    #[test]
    fn following_goes_through_rotations_to_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (ended, tell) = io::pipe().unwrap();
        let follow = Wanted {
            follow: true,
            ..wanted()
        };
        let chunks = spawn(path.clone(), follow, ended).unwrap();
        let writer = std::thread::spawn({
            let path = path.clone();
            move || {
                let mut expected = String::new();
                for round in 0..20 {
                    if round % 5 == 4 {
                        for old in (0..4).rev() {
                            for ending in ["", ".gz"] {
                                let (from, to) =
                                    (name(&path, old, ending), name(&path, old + 1, ending));
                                let _ = (old > 0 || ending.is_empty())
                                    .then(|| std::fs::rename(from, to));
                            }
                        }
                        pack(&name(&path, 1, ""), &name(&path, 1, ".gz"));
                    }
                    let mut file = File::options()
                        .create(true)
                        .append(true)
                        .open(&path)
                        .unwrap();
                    for line in 0..10 {
                        let text = format!("{round}-{line}");
                        file.write_all(record(&text, 1).as_bytes()).unwrap();
                        expected.push_str(&format!("{text}\n"));
                    }
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
                drop(tell);
                expected
            }
        });
        let got = collect(chunks);
        assert_eq!(got, writer.join().unwrap());
    }
}
