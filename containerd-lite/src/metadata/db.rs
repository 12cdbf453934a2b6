//! The file, its writer thread and its readers.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use tokio::sync::{mpsc, oneshot};

use super::{MetadataError, Result, attempt};
use crate::disk::Reserve;

/// Version of the schema below.
const VERSION: i64 = 1;

/// Jobs that may wait for the writer; further callers wait to enqueue.
const QUEUE: usize = 256;

/// Jobs that share one commit at most.
const BATCH: usize = 64;

/// Bytes that the log and the tables have in hand for the time when the disk is full.
const BALLAST: u32 = 512 << 10;

/// Idle reader connections that are kept.
const READERS: usize = 2;

/// The tables of the drawing in the module opening.
pub(super) const SCHEMA: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE namespaces (ns TEXT PRIMARY KEY, labels TEXT NOT NULL DEFAULT '{}') WITHOUT ROWID;
CREATE TABLE containers (
  ns TEXT NOT NULL, id TEXT NOT NULL, image TEXT NOT NULL, runtime TEXT NOT NULL,
  options_url TEXT, options BLOB, spec_url TEXT, spec BLOB,
  snapshotter TEXT NOT NULL, snapshot_key TEXT NOT NULL, sandbox TEXT NOT NULL, labels TEXT NOT NULL,
  created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, PRIMARY KEY (ns, id));
CREATE TABLE extensions (
  ns TEXT NOT NULL, container TEXT NOT NULL, name TEXT NOT NULL, url TEXT NOT NULL, value BLOB NOT NULL,
  PRIMARY KEY (ns, container, name));
CREATE TABLE images (
  ns TEXT NOT NULL, name TEXT NOT NULL, media_type TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
  annotations TEXT NOT NULL, labels TEXT NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
  PRIMARY KEY (ns, name)) WITHOUT ROWID;
CREATE TABLE content (
  ns TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL, labels TEXT NOT NULL,
  created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, PRIMARY KEY (digest, ns)) WITHOUT ROWID;
CREATE TABLE ingests (
  ns TEXT NOT NULL, ref TEXT NOT NULL, folder TEXT NOT NULL UNIQUE, total INTEGER NOT NULL, expected TEXT NOT NULL,
  started_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, expires_at INTEGER, PRIMARY KEY (ns, ref)) WITHOUT ROWID;
CREATE TABLE snapshots (
  snapshotter TEXT NOT NULL, ns TEXT NOT NULL, name TEXT NOT NULL, id INTEGER NOT NULL, parent TEXT NOT NULL,
  kind INTEGER NOT NULL, labels TEXT NOT NULL, size INTEGER NOT NULL DEFAULT 0, inodes INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, PRIMARY KEY (snapshotter, ns, name)) WITHOUT ROWID;
CREATE UNIQUE INDEX snapshots_id ON snapshots (snapshotter, id);
CREATE INDEX snapshots_parent ON snapshots (snapshotter, ns, parent);
CREATE TABLE leases (
  ns TEXT NOT NULL, id TEXT NOT NULL, labels TEXT NOT NULL, created_at INTEGER NOT NULL, PRIMARY KEY (ns, id)) WITHOUT ROWID;
CREATE TABLE lease_resources (
  ns TEXT NOT NULL, lease TEXT NOT NULL, type TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (ns, lease, type, id)) WITHOUT ROWID;
CREATE TABLE exits (
  ns TEXT NOT NULL, container TEXT NOT NULL, exec TEXT NOT NULL, pid INTEGER NOT NULL, status INTEGER NOT NULL,
  exited_at INTEGER NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (ns, container, exec)) WITHOUT ROWID;
";

/// Tables that came after the first version. Older programs leave them alone, so they need no new version.
const ADDED: &str = "
CREATE TABLE IF NOT EXISTS sandboxes (ns TEXT NOT NULL, id TEXT NOT NULL, record BLOB NOT NULL, PRIMARY KEY (ns, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS foreign_snapshots (
  snapshotter TEXT NOT NULL, id INTEGER NOT NULL, name TEXT NOT NULL, PRIMARY KEY (snapshotter, id)) WITHOUT ROWID;
";

/// A job tells its caller what came of it once the commit is known.
type Answer = Box<dyn FnOnce(std::result::Result<(), &rusqlite::Error>) + Send>;
type Job = Box<dyn FnOnce(&Connection) -> Answer + Send>;

/// A handle on the database; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    queue: mpsc::Sender<Job>,
    readers: Arc<Readers>,
}

#[derive(Debug)]
struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Store {
    /// Opens or makes the file. A file that is no database or is damaged is moved aside, and a new one is begun: what
    /// runs is found again through the bundles, blobs by loading them again.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let connection = match prepare(path) {
            Err(MetadataError::Database { source, .. }) if is_corrupt(&source) => {
                move_aside(path)?;
                prepare(path)?
            }
            other => other?,
        };
        let (queue, jobs) = mpsc::channel(QUEUE);
        if let Err(error) = ballast(&connection, path) {
            tracing::warn!("set room aside in {}: {error}", path.display());
        }
        let reserve = Reserve::beside(path);
        std::thread::Builder::new()
            .name("metadata".into())
            .stack_size(512 << 10)
            .spawn(move || write_loop(&connection, jobs, reserve))
            .map_err(|source| MetadataError::File {
                path: path.to_owned(),
                source,
            })?;
        Ok(Self {
            queue,
            readers: Arc::new(Readers {
                path: path.to_owned(),
                idle: Mutex::default(),
            }),
        })
    }

    /// Whether this program can read the file, which another process may have open; one that is missing is fine.
    pub(crate) fn check(path: &Path) -> Result<()> {
        if !path.exists() {
            return Ok(());
        }
        let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        check_version(&connection, path)
    }

    /// Runs a job on the writer and waits until it is durable. The job goes on if the caller gives up.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (job, answer) = boxed(job);
        self.queue
            .send(job)
            .await
            .map_err(|_| MetadataError::Closed)?;
        answer.await.map_err(|_| MetadataError::Closed)?
    }

    /// The same for code that is on a blocking thread already.
    pub(crate) fn write_blocking<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (job, answer) = boxed(job);
        self.queue
            .blocking_send(job)
            .map_err(|_| MetadataError::Closed)?;
        answer.blocking_recv().map_err(|_| MetadataError::Closed)?
    }

    /// Reads on a pooled connection, in this thread.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let idle = self.readers.idle.lock().expect("no holder panics").pop();
        let connection = match idle {
            Some(connection) => connection,
            None => connect(&self.readers.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?,
        };
        let found = look(&connection);
        let mut idle = self.readers.idle.lock().expect("no holder panics");
        if idle.len() < READERS {
            idle.push(connection);
        }
        found
    }

    /// Identity of this installation, made with the database.
    pub(crate) fn uuid(&self) -> Result<String> {
        self.read(|c| {
            c.query_row("SELECT value FROM meta WHERE key = 'uuid'", [], |r| {
                r.get(0)
            })
            .map_err(attempt("read uuid"))
        })
    }
}

fn boxed<T: Send + 'static>(
    job: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
) -> (Job, oneshot::Receiver<Result<T>>) {
    let (sender, receiver) = oneshot::channel();
    let job: Job = Box::new(move |connection| {
        let outcome = in_savepoint(connection, job);
        Box::new(move |committed| {
            let answer = match committed {
                Ok(()) => outcome,
                // The cause cannot be cloned for every job of the batch; its text and code can.
                Err(error) => outcome.and(Err(MetadataError::Database {
                    attempt: "commit",
                    source: copy(error),
                })),
            };
            // The caller may have given up.
            let _ = sender.send(answer);
        })
    });
    (job, receiver)
}

fn copy(error: &rusqlite::Error) -> rusqlite::Error {
    match error {
        rusqlite::Error::SqliteFailure(code, text) => {
            rusqlite::Error::SqliteFailure(*code, text.clone())
        }
        other => rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ERROR),
            Some(other.to_string()),
        ),
    }
}

fn in_savepoint<T>(
    connection: &Connection,
    job: impl FnOnce(&Connection) -> Result<T>,
) -> Result<T> {
    connection
        .execute_batch("SAVEPOINT job")
        .map_err(attempt("begin"))?;
    let outcome = job(connection);
    let end = if outcome.is_ok() {
        "RELEASE job"
    } else {
        "ROLLBACK TO job; RELEASE job"
    };
    match connection.execute_batch(end) {
        Ok(()) => outcome,
        Err(source) => outcome.and(Err(MetadataError::Database {
            attempt: "end",
            source,
        })),
    }
}

fn write_loop(connection: &Connection, mut jobs: mpsc::Receiver<Job>, mut reserve: Reserve) {
    while let Some(first) = jobs.blocking_recv() {
        // A transaction that finds the disk full is undone as a whole, so there must be room before it begins; and a job
        // that brings something in must not take one that frees something down with it.
        let full = reserve.settle();
        if full && let Err(error) = rewind(connection) {
            tracing::warn!("checkpoint of the database: {error}");
        }
        let batch = if full { 1 } else { BATCH };
        let begun = connection.execute_batch("BEGIN IMMEDIATE");
        let mut answers = vec![first(connection)];
        while answers.len() < batch
            && let Ok(next) = jobs.try_recv()
        {
            answers.push(next(connection));
        }
        let committed = begun.and_then(|()| connection.execute_batch("COMMIT"));
        if committed.is_err() && !connection.is_autocommit() {
            // A failed commit (disk full) leaves the transaction open; the next batch needs a clean start.
            let _ = connection.execute_batch("ROLLBACK");
        }
        for answer in answers {
            answer(committed.as_ref().copied());
        }
    }
}

/// Lengthens the log, and gives the tables empty pages, by writing something long and dropping it.
fn ballast(connection: &Connection, path: &Path) -> rusqlite::Result<()> {
    let log = format!("{}-wal", path.display());
    if std::fs::metadata(log).is_ok_and(|meta| meta.len() >= BALLAST.into()) {
        return Ok(());
    }
    connection.execute(
        "INSERT OR REPLACE INTO meta VALUES ('ballast', zeroblob(?1))",
        [BALLAST],
    )?;
    connection.execute("DELETE FROM meta WHERE key = 'ballast'", [])?;
    rewind(connection)
}

/// Moves what the log holds into the tables, so that the next transaction writes over it instead of making it longer.
fn rewind(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(attempt("open"))?;
    connection
        .busy_timeout(Duration::from_secs(5))
        .map_err(attempt("set the busy timeout"))?;
    connection.set_prepared_statement_cache_capacity(24);
    // 256 KiB of pages are plenty: the operating system caches the file.
    connection
        .execute_batch(
            "PRAGMA cache_size = -256; PRAGMA temp_store = MEMORY; PRAGMA foreign_keys = OFF;",
        )
        .map_err(attempt("set up the connection"))?;
    Ok(connection)
}

fn prepare(path: &Path) -> Result<Connection> {
    let connection = connect(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
    )?;
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 4194304;")
        .map_err(attempt("set up the journal"))?;
    let known: Option<i64> = connection
        .query_row("SELECT 1 FROM sqlite_master WHERE name = 'meta'", [], |r| {
            r.get(0)
        })
        .optional()
        .map_err(attempt("read the schema"))?;
    if known.is_none() {
        begin(&connection)?;
    }
    check_version(&connection, path)?;
    connection
        .execute_batch(ADDED)
        .map_err(attempt("add the newer tables"))?;
    Ok(connection)
}

fn check_version(connection: &Connection, path: &Path) -> Result<()> {
    let found: String = connection
        .query_row("SELECT value FROM meta WHERE key = 'version'", [], |r| {
            r.get(0)
        })
        .map_err(attempt("read the version"))?;
    let found = found.parse().unwrap_or(i64::MAX);
    if found > VERSION {
        return Err(MetadataError::Format {
            path: path.to_owned(),
            found,
            known: VERSION,
        });
    }
    Ok(())
}

fn begin(connection: &Connection) -> Result<()> {
    connection
        .execute_batch(&format!(
            "BEGIN IMMEDIATE; {SCHEMA}
             INSERT INTO meta VALUES ('version', '{VERSION}'), ('uuid', lower(
               hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-a' ||
               substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6))));
             COMMIT;"
        ))
        .map_err(attempt("make the tables"))
}

fn is_corrupt(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
    )
}

/// Keeps the damaged file, and what belongs to it, under a name of its own.
fn move_aside(path: &Path) -> Result<()> {
    let stamp = crate::time::now() / 1_000_000_000;
    for suffix in ["", "-wal", "-shm"] {
        let from = PathBuf::from(format!("{}{suffix}", path.display()));
        let to = PathBuf::from(format!("{}.corrupt-{stamp}{suffix}", path.display()));
        match std::fs::rename(&from, &to) {
            Ok(()) => tracing::error!(
                "database {} is damaged: kept as {}",
                from.display(),
                to.display()
            ),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(MetadataError::File { path: from, source }),
        }
    }
    Ok(())
}
