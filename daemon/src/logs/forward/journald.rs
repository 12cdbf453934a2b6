//! journald's own protocol: one datagram an entry, fields as `KEY=value` lines or, where a value has newlines, with its length.

use std::io;
use std::path::{Path, PathBuf};

use tokio::net::UnixDatagram;

use super::Line;
use crate::container::Record;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// Priorities of syslog: what a container says, and what it complains of.
const INFO: &str = "6";
const ERROR: &str = "3";

/// The journal, as one container writes to it.
#[derive(Debug)]
pub(super) struct Journal {
    socket: PathBuf,
    /// The fields that every entry has.
    fixed: Vec<u8>,
    connection: Option<UnixDatagram>,
}

impl Journal {
    pub(super) fn new(record: &Record) -> Self {
        let mut fixed = Vec::new();
        let mut attributes = crate::logs::attributes(record);
        let tag = attributes.remove("tag");
        let tag = tag.unwrap_or_else(|| record.short().to_owned());
        for (key, value) in [
            ("CONTAINER_ID", record.short()),
            ("CONTAINER_ID_FULL", record.id.as_str()),
            ("CONTAINER_NAME", record.name.as_str()),
            ("CONTAINER_TAG", tag.as_str()),
            ("IMAGE_NAME", record.config.image.as_str()),
            ("SYSLOG_IDENTIFIER", tag.as_str()),
        ] {
            field(&mut fixed, key, value);
        }
        for (key, value) in attributes {
            let key = name(&key);
            if !key.is_empty() {
                field(&mut fixed, &key, &value);
            }
        }
        Self {
            socket: Path::new(SOCKET).to_owned(),
            fixed,
            connection: None,
        }
    }

    pub(super) async fn send(&mut self, line: &Line<'_>) -> io::Result<()> {
        let entry = self.entry(line);
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let connection = UnixDatagram::unbound()?;
                connection.connect(&self.socket)?;
                connection
            }
        };
        connection.send(&entry).await?;
        // One that failed belongs to a journald of before.
        self.connection = Some(connection);
        Ok(())
    }

    fn entry(&self, line: &Line<'_>) -> Vec<u8> {
        let mut entry = self.fixed.clone();
        field(
            &mut entry,
            "PRIORITY",
            if line.error { ERROR } else { INFO },
        );
        field(&mut entry, "SYSLOG_TIMESTAMP", line.time);
        if line.partial {
            field(&mut entry, "CONTAINER_PARTIAL_MESSAGE", "true");
        }
        field(&mut entry, "MESSAGE", line.text);
        entry
    }
}

fn field(entry: &mut Vec<u8>, key: &str, value: &str) {
    entry.extend_from_slice(key.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

/// A label's or variable's name as journald takes it: capitals, digits and underscores, none of them at the begin but a capital.
fn name(key: &str) -> String {
    let capitals = key.to_ascii_uppercase();
    let allowed = capitals.chars().map(|c| match c {
        'A'..='Z' | '0'..='9' => c,
        _ => '_',
    });
    let all: String = allowed.collect();
    all.trim_start_matches(|c: char| !c.is_ascii_uppercase())
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        let mut fixed = Vec::new();
        field(&mut fixed, "A", "one\ntwo");
        let journal = Journal {
            socket: PathBuf::new(),
            fixed,
            connection: None,
        };
        let entry = journal.entry(&Line {
            error: true,
            time: "T",
            text: "said",
            partial: true,
        });
        assert_eq!(
            entry,
            b"A\n\x07\0\0\0\0\0\0\0one\ntwo\nPRIORITY=3\nSYSLOG_TIMESTAMP=T\nCONTAINER_PARTIAL_MESSAGE=true\nMESSAGE=said\n"
        );
        assert_eq!(name("com.example-App"), "COM_EXAMPLE_APP");
        assert_eq!(name("_1x"), "X");
    }

    #[tokio::test]
    async fn a_journald_that_comes_back_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let mut journal = Journal {
            socket: socket.clone(),
            fixed: Vec::new(),
            connection: None,
        };
        let line = Line {
            error: false,
            time: "T",
            text: "x",
            partial: false,
        };
        assert!(journal.send(&line).await.is_err());
        let first = UnixDatagram::bind(&socket).unwrap();
        journal.send(&line).await.unwrap();
        drop(first);
        std::fs::remove_file(&socket).unwrap();
        assert!(journal.send(&line).await.is_err());
        let second = UnixDatagram::bind(&socket).unwrap();
        journal.send(&line).await.unwrap();
        let mut got = [0; 200];
        let size = second.recv(&mut got).await.unwrap();
        assert!(got[..size].ends_with(b"MESSAGE=x\n"));
    }
}
