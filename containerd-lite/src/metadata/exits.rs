//! Exit records of tasks whose bundle is gone or whose shim died, kept until the client deletes the task.

use rusqlite::params;

use super::{Result, Store, attempt};
use crate::time::Nanos;

/// How a process ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Exit {
    /// The container.
    pub(crate) container: String,
    /// The exec, or empty for the init process (a key column cannot be null).
    pub(crate) exec: String,
    pub(crate) pid: u32,
    pub(crate) status: u32,
    pub(crate) exited_at: Nanos,
    pub(crate) reason: String,
}

/// The exit records of a store.
#[derive(Debug)]
pub(crate) struct Exits<'a>(&'a Store);

impl Store {
    /// The exit records.
    pub(crate) fn exits(&self) -> Exits<'_> {
        Exits(self)
    }
}

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Exit> {
    Ok(Exit {
        container: row.get("container")?,
        exec: row.get("exec")?,
        pid: row.get("pid")?,
        status: row.get("status")?,
        exited_at: row.get("exited_at")?,
        reason: row.get("reason")?,
    })
}

impl Exits<'_> {
    /// Keeps a record, durable when this returns; a second one of the same process replaces the first.
    pub(crate) async fn put(&self, ns: &str, exit: Exit) -> Result<()> {
        let ns = ns.to_owned();
        self.0
            .write(move |c| {
                c.prepare_cached(
                    "INSERT OR REPLACE INTO exits (ns, container, exec, pid, status, exited_at, reason)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )
                .and_then(|mut s| {
                    s.execute(params![ns, exit.container, exit.exec, exit.pid, exit.status, exit.exited_at, exit.reason])
                })
                .map_err(attempt("write exit record"))?;
                Ok(())
            })
            .await
    }

    /// All records with their namespaces.
    pub(crate) fn all(&self) -> Result<Vec<(String, Exit)>> {
        self.0.read(|c| {
            c.prepare("SELECT * FROM exits ORDER BY ns, container, exec")
                .and_then(|mut s| s.query_map([], |r| Ok((r.get("ns")?, row(r)?)))?.collect())
                .map_err(attempt("list exit records"))
        })
    }

    /// Forgets one process.
    pub(crate) async fn delete(&self, ns: &str, container: &str, exec: &str) -> Result<()> {
        let (ns, container, exec) = (ns.to_owned(), container.to_owned(), exec.to_owned());
        self.0
            .write(move |c| {
                c.execute(
                    "DELETE FROM exits WHERE ns = ?1 AND container = ?2 AND exec = ?3",
                    [&ns, &container, &exec],
                )
                .map_err(attempt("delete exit record"))?;
                Ok(())
            })
            .await
    }

    /// Forgets a container and all its execs.
    pub(crate) async fn delete_all(&self, ns: &str, container: &str) -> Result<()> {
        let (ns, container) = (ns.to_owned(), container.to_owned());
        self.0
            .write(move |c| {
                c.execute(
                    "DELETE FROM exits WHERE ns = ?1 AND container = ?2",
                    [&ns, &container],
                )
                .map_err(attempt("delete exit records"))?;
                Ok(())
            })
            .await
    }
}
