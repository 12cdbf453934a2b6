//! A recorder between a client and a Docker daemon: it passes everything on and notes each request with its status.
//!
//! Each connection carries one request (`Connection: close` is put into its head), so that heads are found without reading
//! bodies; a connection that is upgraded is left as it is.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// `POST /v1.41/containers/create?name=x`.
    pub request: String,
    /// Status of the answer; 0 until it has come.
    pub status: u16,
}

/// The recorder. It ends with the process.
#[derive(Debug)]
pub struct Recorder {
    socket: PathBuf,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Recorder {
    /// Listens on `socket` for what shall go to `daemon`.
    pub fn start(socket: &Path, daemon: &Path) -> Result<Self> {
        let listener =
            UnixListener::bind(socket).with_context(|| format!("bind {}", socket.display()))?;
        let calls = Arc::default();
        let recorder = Self {
            socket: socket.to_owned(),
            calls: Arc::clone(&calls),
        };
        let daemon = daemon.to_owned();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (daemon, calls) = (daemon.clone(), Arc::clone(&calls));
                // a client that breaks off has seen enough
                thread::spawn(move || drop(carry(client, &daemon, &calls)));
            }
        });
        Ok(recorder)
    }

    /// The address for clients.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// What was noted since the last call of this.
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *lock(&self.calls))
    }
}

fn lock(calls: &Mutex<Vec<Call>>) -> std::sync::MutexGuard<'_, Vec<Call>> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A head with its empty line, or as much of it as came.
fn head(from: &mut UnixStream) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && from.read(&mut byte)? == 1 {
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn carry(mut client: UnixStream, daemon: &Path, calls: &Mutex<Vec<Call>>) -> io::Result<()> {
    let asked = head(&mut client)?;
    let Some((first, rest)) = asked.split_once("\r\n") else {
        return Ok(());
    };
    let request = first.rsplit_once(' ').map_or(first, |(request, _)| request);
    let at = {
        let mut calls = lock(calls);
        calls.push(Call {
            request: request.to_owned(),
            status: 0,
        });
        calls.len() - 1
    };
    let mut server = UnixStream::connect(daemon)?;
    let upgrades = rest.to_ascii_lowercase().contains("\r\nupgrade:")
        || rest.to_ascii_lowercase().starts_with("upgrade:");
    let sent = match upgrades {
        true => asked.clone(),
        false => format!("{first}\r\nConnection: close\r\n{rest}"),
    };
    server.write_all(sent.as_bytes())?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        // whoever is gone ends the other direction as well
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    loop {
        let answer = head(&mut server)?;
        client.write_all(answer.as_bytes())?;
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status: u16 = status.unwrap_or(0);
        if let Some(call) = lock(calls).get_mut(at) {
            call.status = status;
        }
        if status == 0 || status == 101 || status >= 200 {
            break;
        }
    }
    let _ = io::copy(&mut server, &mut client);
    client.shutdown(Shutdown::Both)
}
