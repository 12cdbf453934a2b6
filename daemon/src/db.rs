//! The records that outlive a reboot: one SQLite database in data-root.
//!
//! ```text
//!  meta     key -> value                 format = 1, instance id
//!  records  (kind, id) -> JSON body      "container", "volume", "network", ...
//! ```
//!
//! Bodies carry their own `version`; a reader keeps the fields that it does not know (serde `flatten`), so that an older
//! program that rewrites a record loses nothing. WAL with synchronous=FULL: a put that returned survives power loss.
//!
//! One thread owns the connection. It takes all that waits in its queue into one transaction, so a burst of writers pays for
//! one fdatasync. The callers are async; at start-up, before there is concurrency, [`Db::all`] reads everything of a kind.
//!
//! On a full disk nothing new is taken ([`Db::add`]), while what is there can still be changed and dropped: the log is as
//! long as a transaction needs it from the start and is written over, the tables have empty pages, and `disk` keeps some
//! room for a daemon that starts.

use std::path::Path;
use std::sync::mpsc;

use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::disk::Reserve;
use crate::error::{During, Error, Result};

/// Version of the tables; a higher one was written by a newer program.
const FORMAT: i64 = 1;

/// Bytes that the log and the tables have in hand.
const BALLAST: u32 = 512 << 10;

/// How many changes may wait for the writer.
const QUEUE: usize = 1024;

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => no_space(),
            _ => Error::internal(error.to_string()),
        }
    }
}

fn no_space() -> Error {
    Error::new(
        proto::error::ErrorKind::ResourceExhausted,
        "no space left on device",
    )
}

/// A change of one record.
#[derive(Debug)]
pub(crate) enum Change {
    /// Set the body.
    Put(&'static str, String, String),
    /// Set the body of a record to be; refused when the disk is full.
    Add(&'static str, String, String),
    /// Drop the record.
    Delete(&'static str, String),
}

impl Change {
    /// Sets the record's body to `value`.
    pub(crate) fn put(kind: &'static str, id: &str, value: &impl Serialize) -> Result<Self> {
        let body = serde_json::to_string(value)
            .map_err(|e| Error::internal(format!("encode record {kind} {id}: {e}")))?;
        Ok(Self::Put(kind, id.to_owned(), body))
    }
    /// A record to be.
    pub(crate) fn add(kind: &'static str, id: &str, value: &impl Serialize) -> Result<Self> {
        match Self::put(kind, id, value)? {
            Self::Put(kind, id, body) => Ok(Self::Add(kind, id, body)),
            other => Ok(other),
        }
    }
    /// Drops the record.
    pub(crate) fn delete(kind: &'static str, id: &str) -> Self {
        Self::Delete(kind, id.to_owned())
    }
}

enum Job {
    Write(Vec<Change>, oneshot::Sender<Result<()>>),
    All(&'static str, oneshot::Sender<Result<Vec<(String, String)>>>),
}

/// Handle of the database; clones share the writer.
#[derive(Clone)]
pub(crate) struct Db {
    jobs: mpsc::SyncSender<Job>,
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Db")
    }
}

impl Db {
    /// Opens or makes the database and starts its thread.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let what = || format!("open the record database {}", path.display());
        let mut reserve = Reserve::beside(path);
        let connection = match open(path) {
            Err(e) if e.kind() == proto::error::ErrorKind::ResourceExhausted => {
                reserve.release();
                open(path).during(what)?
            }
            other => other.during(what)?,
        };
        if let Err(e) = ballast(&connection, path) {
            tracing::warn!("set room aside in the record database: {e}");
        }
        let (jobs, queue) = mpsc::sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("records".into())
            .stack_size(256 * 1024)
            .spawn(move || serve(connection, &queue, reserve))
            .during(|| "start the record writer")?;
        Ok(Self { jobs })
    }

    /// Makes all the changes durable in one transaction, or none of them.
    pub(crate) async fn write(&self, changes: Vec<Change>) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Write(changes, reply))?;
        answer.await.map_err(|_| gone())?
    }

    /// Sets one record.
    pub(crate) async fn put(
        &self,
        kind: &'static str,
        id: &str,
        value: &impl Serialize,
    ) -> Result<()> {
        self.write(vec![Change::put(kind, id, value)?]).await
    }

    /// Makes one record, if there is room for it and for its end.
    pub(crate) async fn add(
        &self,
        kind: &'static str,
        id: &str,
        value: &impl Serialize,
    ) -> Result<()> {
        self.write(vec![Change::add(kind, id, value)?]).await
    }

    /// Drops one record; an absent one is no error.
    pub(crate) async fn delete(&self, kind: &'static str, id: &str) -> Result<()> {
        self.write(vec![Change::delete(kind, id)]).await
    }

    /// Every record of a kind, in the order of their ids. A body that cannot be read is an error that names it.
    pub(crate) async fn all<T: DeserializeOwned>(
        &self,
        kind: &'static str,
    ) -> Result<Vec<(String, T)>> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::All(kind, reply))?;
        let rows = answer.await.map_err(|_| gone())??;
        rows.into_iter()
            .map(|(id, body)| {
                let value = serde_json::from_str(&body)
                    .map_err(|e| Error::internal(format!("decode record {kind} {id}: {e}")))?;
                Ok((id, value))
            })
            .collect()
    }

    fn send(&self, job: Job) -> Result<()> {
        match self.jobs.try_send(job) {
            Ok(()) => Ok(()),
            Err(mpsc::TrySendError::Full(_)) => Err(Error::unavailable(
                "too many changes wait for the record database",
            )),
            Err(mpsc::TrySendError::Disconnected(_)) => Err(gone()),
        }
    }
}

fn gone() -> Error {
    Error::internal("the record database has stopped")
}

fn open(path: &Path) -> Result<Connection> {
    let db = Connection::open(path)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "cache_size", -256)?;
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    db.execute_batch(
        "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS records (
             kind TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL,
             PRIMARY KEY (kind, id)) WITHOUT ROWID;",
    )?;
    let found: Option<String> = db
        .query_row("SELECT value FROM meta WHERE key = 'format'", [], |row| {
            row.get(0)
        })
        .optional()?;
    match found {
        None => {
            db.execute(
                "INSERT INTO meta (key, value) VALUES ('format', ?1)",
                params![FORMAT.to_string()],
            )?;
        }
        Some(text) if text.parse::<i64>().is_ok_and(|n| n <= FORMAT) => {}
        Some(text) => {
            return Err(Error::conflict(format!(
                "its format is {text}, this program knows up to {FORMAT}"
            )));
        }
    }
    Ok(db)
}

/// Lengthens the log, and gives the tables empty pages, by writing something long and dropping it.
fn ballast(db: &Connection, path: &Path) -> Result<()> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    if std::fs::metadata(log).is_ok_and(|meta| meta.len() >= BALLAST.into()) {
        return Ok(());
    }
    let long = "INSERT INTO meta (key, value) VALUES ('ballast', zeroblob(?1))";
    db.execute(long, params![BALLAST])?;
    db.execute("DELETE FROM meta WHERE key = 'ballast'", [])?;
    rewind(db)
}

/// Moves what the log holds into the tables, so that the next transaction writes over it.
fn rewind(db: &Connection) -> Result<()> {
    Ok(db.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))?)
}

fn serve(mut db: Connection, queue: &mpsc::Receiver<Job>, mut reserve: Reserve) {
    while let Ok(first) = queue.recv() {
        let mut writes = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                Job::Write(changes, reply) => writes.push((changes, reply)),
                Job::All(kind, reply) => {
                    flush(&mut db, std::mem::take(&mut writes), &mut reserve);
                    // A caller that has gone away needs no answer.
                    let _ = reply.send(all(&db, kind));
                }
            }
            next = queue.try_recv().ok();
        }
        flush(&mut db, writes, &mut reserve);
    }
}

type Write = (Vec<Change>, oneshot::Sender<Result<()>>);

fn flush(db: &mut Connection, mut writes: Vec<Write>, reserve: &mut Reserve) {
    reserve.settle();
    if reserve.scarce() {
        writes = refuse_new(writes);
    }
    if writes.is_empty() {
        return;
    }
    let mut outcome = write(db, &writes);
    if is_full(&outcome) {
        reserve.release();
        if let Err(e) = rewind(db) {
            tracing::warn!("checkpoint of the record database: {e}");
        }
        outcome = write(db, &writes);
    }
    if is_full(&outcome) && writes.len() > 1 {
        // A large one must not keep a small one from getting through.
        for one in writes {
            let outcome = write(db, std::slice::from_ref(&one));
            let _ = one.1.send(outcome);
        }
        return;
    }
    for (_, reply) in writes {
        let _ = reply.send(outcome.clone());
    }
}

/// Answers the writes that would make something; the others stay.
fn refuse_new(writes: Vec<Write>) -> Vec<Write> {
    let makes = |(changes, _): &Write| {
        changes
            .iter()
            .any(|change| matches!(change, Change::Add(..)))
    };
    let (new, old): (Vec<_>, Vec<_>) = writes.into_iter().partition(makes);
    for (_, reply) in new {
        let _ = reply.send(Err(no_space().during("write to the record database")));
    }
    old
}

fn write(db: &mut Connection, writes: &[Write]) -> Result<()> {
    commit(db, writes.iter().flat_map(|(changes, _)| changes))
        .during(|| "write to the record database")
}

fn is_full(outcome: &Result<()>) -> bool {
    let kind = outcome.as_ref().err().map(Error::kind);
    kind == Some(proto::error::ErrorKind::ResourceExhausted)
}

fn commit<'a>(db: &mut Connection, changes: impl Iterator<Item = &'a Change>) -> Result<()> {
    let transaction = db.transaction()?;
    for change in changes {
        match change {
            Change::Put(kind, id, body) | Change::Add(kind, id, body) => transaction
                .prepare(
                    "INSERT INTO records (kind, id, body) VALUES (?1, ?2, ?3)
                     ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body",
                )?
                .execute(params![kind, id, body])?,
            Change::Delete(kind, id) => transaction
                .prepare("DELETE FROM records WHERE kind = ?1 AND id = ?2")?
                .execute(params![kind, id])?,
        };
    }
    transaction.commit()?;
    Ok(())
}

fn all(db: &Connection, kind: &str) -> Result<Vec<(String, String)>> {
    let mut statement = db.prepare("SELECT id, body FROM records WHERE kind = ?1 ORDER BY id")?;
    let rows = statement.query_map(params![kind], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<std::result::Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[tokio::test]
    async fn a_record_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records.db");
        let db = Db::open(&path).unwrap();
        db.put("volume", "a", &json!({"version": 1, "new": "field"}))
            .await
            .unwrap();
        db.put("volume", "b", &json!({})).await.unwrap();
        db.delete("volume", "b").await.unwrap();
        let again = Db::open(&path).unwrap();
        let rows: Vec<(String, Value)> = again.all("volume").await.unwrap();
        assert_eq!(
            rows,
            vec![("a".into(), json!({"version": 1, "new": "field"}))]
        );
    }

    #[tokio::test]
    async fn a_newer_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records.db");
        drop(Db::open(&path).unwrap());
        let raw = Connection::open(&path).unwrap();
        raw.execute("UPDATE meta SET value = '99' WHERE key = 'format'", [])
            .unwrap();
        let error = Db::open(&path).unwrap_err();
        assert!(error.message().contains("format is 99"), "{error}");
    }
}
