//! A plain request over a unix socket, for what no CLI sends.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Header lines, as they came.
    pub head: String,
    /// The body; chunks are left as they are.
    pub body: String,
}

/// Sends a request with a JSON body (none if empty) and reads the answer to its end, at most for a minute.
pub fn ask(socket: &Path, method: &str, path: &str, body: &str) -> Result<Answer> {
    let more = match body.is_empty() {
        true => String::new(),
        false => format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        ),
    };
    raw(socket, method, path, &more, body.as_bytes())
}

/// The same with header lines of the caller's choice.
pub fn raw(socket: &Path, method: &str, path: &str, headers: &str, body: &[u8]) -> Result<Answer> {
    let mut stream =
        UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_write_timeout(Some(Duration::from_secs(60)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n{headers}\r\n"
    )?;
    // a server that has read enough answers and closes
    let _ = stream.write_all(body);
    let mut bytes = Vec::new();
    let ended = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text
        .split_once("\r\n\r\n")
        .with_context(|| format!("no answer to {method} {path}: {ended:?} {text:?}"))?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .with_context(|| format!("no status in {head:?}"))?;
    Ok(Answer {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}
