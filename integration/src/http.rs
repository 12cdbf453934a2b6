//! Plain requests over a unix socket: one connection each, an answer read to its end.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// How long an answer may take where nothing else is said.
const LIMIT: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Header lines, as they came.
    pub head: String,
    /// The body, its chunks put together.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?}", self.head, self.text())
    }
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Sends a request with a JSON body (none if empty) and reads the answer to its end, at most for a minute.
pub fn ask(socket: &Path, method: &str, path: &str, body: &str) -> Result<Answer> {
    ask_within(LIMIT, socket, method, path, body)
}

/// The same with a limit for each wait. An error means that nobody knows what came of it.
pub fn ask_within(
    limit: Duration,
    socket: &Path,
    method: &str,
    path: &str,
    body: &str,
) -> Result<Answer> {
    let more = match body.is_empty() {
        true => String::new(),
        false => format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        ),
    };
    send(limit, socket, method, path, &more, body.as_bytes())
}

/// The same with header lines of the caller's choice.
pub fn raw(socket: &Path, method: &str, path: &str, headers: &str, body: &[u8]) -> Result<Answer> {
    send(LIMIT, socket, method, path, headers, body)
}

/// Asks a Docker API socket for a ping.
pub fn ping(socket: &Path) -> Result<()> {
    let answer = ask_within(Duration::from_secs(2), socket, "GET", "/_ping", "")?;
    ensure!(answer.status == 200, "answer {answer:?}");
    Ok(())
}

fn send(
    limit: Duration,
    socket: &Path,
    method: &str,
    path: &str,
    headers: &str,
    body: &[u8],
) -> Result<Answer> {
    let mut stream =
        UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n{headers}\r\n"
    )?;
    // a server that has read enough answers and closes
    let _ = stream.write_all(body);
    let mut bytes = Vec::new();
    let ended = stream.read_to_end(&mut bytes);
    parse(&bytes).with_context(|| {
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(1000)]);
        format!("no whole answer to {method} {path}: {ended:?} {text:?}")
    })
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let rest = &bytes[end + 4..];
    let names = head.to_ascii_lowercase();
    let length = names
        .lines()
        .find_map(|l| l.strip_prefix("content-length: "))
        .and_then(|n| n.trim().parse::<usize>().ok());
    let body = match length {
        _ if names.contains("transfer-encoding: chunked") => unchunk(rest)?,
        Some(length) => rest.get(..length)?.to_vec(),
        None => rest.to_vec(),
    };
    Some(Answer { status, head, body })
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|w| w == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..line]).ok()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        rest = &rest[line + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_or_none() {
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
        let answer = parse(chunked).unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "abcd"));
        assert!(parse(&chunked[..chunked.len() - 6]).is_none());
        let plain = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(parse(plain).unwrap().json(), serde_json::json!({}));
        assert!(parse(&plain[..plain.len() - 1]).is_none());
    }
}
