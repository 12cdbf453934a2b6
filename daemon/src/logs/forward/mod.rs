//! Logs that go on to somebody else: journald or syslog.
//!
//! ```text
//!  container ─▶ shim ─▶ json-file (bounded) ─▶ forwarder, one a running container ─▶ journald | syslog
//!                              │                        └─ forwarded.json: how far it has come
//!                              └─▶ `docker logs`, attach
//! ```
//!
//! The shim writes the same file as for json-file, so that `docker logs` works with every driver, no receiver can hold a
//! container up, and nothing depends on the daemon being there: one that comes back goes on where the last one was. A receiver
//! that is away is tried again; what the file has dropped by then is lost to it. After a kill the last chunk may come twice.

mod journald;
mod syslog;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::read;
use crate::App;
use crate::clock;
use crate::container::state::State;
use crate::container::{Handle, Record, View};
use crate::error::{During, Error, Result};

pub(crate) use syslog::check as check_syslog;

/// The drivers.
pub(crate) const JOURNALD: &str = "journald";
pub(crate) const SYSLOG: &str = "syslog";

/// The pause before a receiver that failed is tried again, and how often that is done once the container has ended.
const AGAIN: Duration = Duration::from_secs(1);
const LAST_TRIES: u32 = 10;

/// Whether a driver's logs go on.
pub(crate) fn is_forwarded(driver: &str) -> bool {
    matches!(driver, JOURNALD | SYSLOG)
}

/// One line for a receiver.
#[derive(Debug, PartialEq)]
struct Line<'a> {
    /// It was written to the standard error.
    error: bool,
    /// When, as RFC 3339 with nine digits of fraction.
    time: &'a str,
    /// Without the newline.
    text: &'a str,
    /// The line goes on with the next one.
    partial: bool,
}

/// One forwarder at a time for each container.
#[derive(Debug, Default)]
pub(crate) struct Forwarders(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Forwarders {
    fn turn(&self, id: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, turn| Arc::strong_count(turn) > 1);
        all.entry(id.to_owned()).or_default().clone()
    }
}

/// Forwards what a container says in the run that has just begun, or that is going on.
pub(crate) fn begin(app: &Arc<App>, id: &str) {
    let Ok(handle) = app.containers.find(id) else {
        return;
    };
    let record = handle.record();
    if !is_forwarded(&record.host.log_config.kind) {
        return;
    }
    let app = app.clone();
    tokio::spawn(async move {
        let turn = app.forwarders.turn(&record.id);
        let _turn = turn.lock().await;
        if let Err(e) = forward(&app, handle).await {
            tracing::warn!("forward the log of container {}: {e}", record.id);
        }
    });
}

/// Goes on with all that run.
pub(crate) fn begin_all(app: &Arc<App>) {
    for handle in app.containers.all() {
        let record = handle.record();
        if matches!(record.state, State::Running(_)) {
            begin(app, &record.id);
        }
    }
}

/// How far a log has been forwarded: the moment of the last line, and how many lines of that moment.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Position {
    version: u32,
    time: String,
    lines: u64,
}

impl Position {
    fn load(path: &Path) -> Self {
        let text = std::fs::read(path).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Nothing is lost with it but time: it need not survive the host.
    fn store(&self, path: &Path) -> Result<()> {
        let what = || format!("write {}", path.display());
        let text =
            serde_json::to_vec(self).map_err(|e| Error::internal(format!("{}: {e}", what())))?;
        crate::replace(path, text).during(what)
    }

    fn advance(&mut self, time: &str) {
        if self.time == time {
            self.lines += 1;
        } else {
            *self = Self {
                version: 1,
                time: time.to_owned(),
                lines: 1,
            };
        }
    }
}

/// Where the lines go.
enum Receiver {
    Journald(journald::Journal),
    Syslog(syslog::Syslog),
}

impl Receiver {
    fn of(record: &Record) -> Result<Self> {
        match record.host.log_config.kind.as_str() {
            SYSLOG => syslog::Syslog::new(record).map(Self::Syslog),
            _ => Ok(Self::Journald(journald::Journal::new(record))),
        }
    }

    async fn send(&mut self, line: &Line<'_>) -> io::Result<()> {
        match self {
            Self::Journald(journal) => journal.send(line).await,
            Self::Syslog(syslog) => syslog.send(line).await,
        }
    }
}

async fn forward(app: &App, handle: Handle) -> Result<()> {
    let record = handle.record();
    let mut receiver = Receiver::of(&record)?;
    let place = position_file(app, &record.id);
    let mut position = Position::load(&place);
    // Lines of that very moment which were forwarded already.
    let mut skip = (position.time.clone(), position.lines);
    let wanted = read::Wanted {
        stdout: true,
        stderr: true,
        follow: true,
        since: clock::parse(&position.time),
        timestamps: true,
        framed: true,
        ..read::Wanted::default()
    };
    let (ended, tell) = io::pipe().during(|| "make a pipe")?;
    let path = super::path(&app.config, &record.id);
    let mut chunks = read::spawn(path, wanted, ended).during(|| "read the log")?;
    let mut tell = Some(tell);
    let mut watch = handle.watch();
    let over = async move {
        let runs = |view: &View| matches!(view.record.state, State::Running(_)) || !view.settled;
        // An owner that has ended has removed its container.
        let _ = watch.wait_for(|view| view.gone || !runs(view)).await;
    };
    tokio::pin!(over);
    loop {
        let chunk = tokio::select! {
            () = &mut over, if tell.is_some() => {
                tell = None;
                continue;
            }
            chunk = chunks.recv() => chunk,
        };
        let Some(chunk) = chunk else { return Ok(()) };
        for line in lines(&chunk) {
            if skip.1 > 0 && line.time == skip.0 {
                skip.1 -= 1;
                continue;
            }
            skip.1 = 0;
            deliver(&mut receiver, &line, &handle).await?;
            position.advance(line.time);
        }
        if let Err(e) = position.store(&place) {
            // It went with the container.
            tracing::debug!("{e}");
        }
    }
}

/// Sends a line until it is sent; an ended container's receiver is not waited for without end.
async fn deliver(receiver: &mut Receiver, line: &Line<'_>, handle: &Handle) -> Result<()> {
    let mut tries = 0;
    loop {
        let Err(e) = receiver.send(line).await else {
            return Ok(());
        };
        let running = matches!(handle.record().state, State::Running(_));
        tries = if running { 0 } else { tries + 1 };
        if tries > LAST_TRIES || handle.watch().borrow().gone {
            return Err(e).during(|| "send a line");
        }
        tracing::debug!("send a line of container {}: {e}", handle.record().id);
        tokio::time::sleep(AGAIN).await;
    }
}

fn position_file(app: &App, id: &str) -> PathBuf {
    app.config.container_dir(id).join("forwarded.json")
}

/// Takes a chunk of whole frames apart: each holds the moment, a space and the text.
fn lines(chunk: &Bytes) -> impl Iterator<Item = Line<'_>> {
    let mut rest: &[u8] = chunk;
    std::iter::from_fn(move || {
        loop {
            let (header, after) = rest.split_first_chunk::<8>()?;
            let [stream, _, _, _, a, b, c, d] = *header;
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            let (payload, next) = after.split_at_checked(length)?;
            rest = next;
            let text = std::str::from_utf8(payload).unwrap_or_default();
            let Some((time, text)) = text.split_once(' ') else {
                continue;
            };
            let whole = text.strip_suffix('\n');
            return Some(Line {
                error: stream == 2,
                time,
                text: whole.unwrap_or(text),
                partial: whole.is_none(),
            });
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u8, text: &str) -> Vec<u8> {
        let mut frame = vec![stream, 0, 0, 0];
        frame.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(text.as_bytes());
        frame
    }

    #[test]
    fn chunks_are_taken_apart() {
        let mut chunk = frame(1, "T1 out\n");
        chunk.extend(frame(2, "T2 half"));
        chunk.extend(frame(1, "bad"));
        chunk.extend(frame(1, "T3  \n"));
        chunk.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 9, b'x']);
        let chunk = Bytes::from(chunk);
        let got: Vec<_> = lines(&chunk)
            .map(|l| (l.error, l.time, l.text, l.partial))
            .collect();
        assert_eq!(
            got,
            [
                (false, "T1", "out", false),
                (true, "T2", "half", true),
                (false, "T3", " ", false)
            ]
        );
    }

    #[test]
    fn a_position_counts_lines_of_one_moment() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.json");
        assert_eq!(Position::load(&path), Position::default());
        let mut position = Position::default();
        for time in ["a", "b", "b"] {
            position.advance(time);
        }
        position.store(&path).unwrap();
        assert_eq!(Position::load(&path), position);
        assert_eq!((position.time.as_str(), position.lines), ("b", 2));
    }
}
