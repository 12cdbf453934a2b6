//! The helper's control socket.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};

use super::packet;
use super::protocol::{AT_ONCE, Answer, Message, Table, VERSION};
use super::serve::State;
use crate::error::{During, Result};

/// Takes connections for ever. Whoever can open the socket is root: it lies in a directory that is closed to others.
pub(super) async fn serve(path: &Path, state: Rc<RefCell<State>>) -> Result<()> {
    let what = || format!("listen on {}", path.display());
    // Of a former one: the lock says that we are the only one.
    let _ = std::fs::remove_file(path);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).during(what)?;
    bind(&socket, &SocketAddrUnix::new(path).during(what)?).during(what)?;
    listen(&socket, 8).during(what)?;
    // Packets come by it as well as bytes would: what is read and written stays ours.
    let listener = UnixListener::from_std(socket.into()).during(what)?;
    loop {
        match listener.accept().await {
            Ok((connection, _)) => {
                tokio::task::spawn_local(converse(connection, state.clone()));
            }
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
}

async fn converse(connection: UnixStream, state: Rc<RefCell<State>>) {
    loop {
        let mut buffer = Vec::new();
        let received = connection.async_io(Interest::READABLE, || {
            Ok(packet::receive(&connection, &mut buffer)?)
        });
        let Ok(sockets) = received.await else {
            return;
        };
        if buffer.is_empty() {
            return;
        }
        let answer = obey(&buffer, sockets, &state);
        // Not there all the time: most of the time nobody says anything.
        drop(buffer);
        // What has gone is free for others once this is answered.
        let ended = state.borrow_mut().ended();
        for task in ended {
            // It was aborted, which is what is wanted.
            let _ = task.await;
        }
        let Ok(bytes) = serde_json::to_vec(&answer) else {
            return;
        };
        let sent = connection.async_io(Interest::WRITABLE, || {
            Ok(packet::send(&connection, &bytes, &[])?)
        });
        if sent.await.is_err() {
            return;
        }
    }
}

fn obey(bytes: &[u8], sockets: Vec<OwnedFd>, state: &RefCell<State>) -> Answer {
    let mut answer = Answer {
        version: VERSION,
        ..Answer::default()
    };
    match serde_json::from_slice::<Message>(bytes) {
        Ok(message) => {
            let asked = message.tell_after.clone();
            let done = state.borrow_mut().apply(message, sockets);
            answer.error = done.err().map(|e| e.to_string());
            if let Some(after) = asked {
                let (held, more) = part(state.borrow().table(), &after);
                answer.held = held;
                answer.more_after = more;
            }
        }
        Err(e) => answer.error = Some(format!("read the message: {e}")),
    }
    answer
}

/// So much of a table as fits a packet, from behind a key on: `1` is for ports, `2` for names, `3` for resolvers.
fn part(table: Table, after: &str) -> (Table, Option<String>) {
    let mut part = Table::default();
    let mut room = AT_ONCE;
    let mut last = None;
    let behind = |key: &String| key.as_str() > after;
    let all = table
        .ports
        .into_iter()
        .map(|(key, port)| (format!("1{key}"), Object::Port(port)));
    let all = all.chain(
        table
            .names
            .into_iter()
            .map(|(key, names)| (format!("2{key}"), Object::Names(names))),
    );
    let all = all.chain(
        table
            .resolvers
            .into_iter()
            .map(|(key, resolver)| (format!("3{key}"), Object::Resolver(resolver))),
    );
    for (key, object) in all.filter(|(key, _)| behind(key)) {
        if room == 0 {
            return (part, last);
        }
        room -= 1;
        let bare = key[1..].to_owned();
        last = Some(key);
        match object {
            Object::Port(port) => drop(part.ports.insert(bare, port)),
            Object::Names(names) => drop(part.names.insert(bare, names)),
            Object::Resolver(resolver) => drop(part.resolvers.insert(bare, resolver)),
        }
    }
    (part, None)
}

enum Object {
    Port(super::protocol::Port),
    Names(super::protocol::Names),
    Resolver(super::protocol::Resolver),
}
