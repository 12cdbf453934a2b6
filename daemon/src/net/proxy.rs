//! Leading what comes to a published port of this host on to the container.
//!
//! Each listening socket has a task; each connection of TCP has one, and each sender of UDP, until it has been silent for a
//! while. Where they lead may change while they run: what is connected stays.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// Where a port leads now.
pub(super) type Target = Rc<Cell<Option<SocketAddr>>>;

/// Buffer for one direction of one connection.
const BUFFER: usize = 16 << 10;
/// How long a sender of datagrams is remembered.
const SILENCE: Duration = Duration::from_secs(90);
/// How many senders of datagrams one port remembers.
const SENDERS: usize = 4096;

/// Leads connections on for as long as it is let.
pub(super) async fn streams(listener: TcpListener, target: Target) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                if let Some(target) = target.get() {
                    tokio::task::spawn_local(lead(client, target));
                }
            }
            // Out of descriptors, mostly: whoever waits is served when others have gone.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn lead(mut client: TcpStream, target: SocketAddr) {
    let Ok(mut server) = TcpStream::connect(target).await else {
        return;
    };
    for stream in [&client, &server] {
        // A matter of speed only.
        let _ = stream.set_nodelay(true);
    }
    // A connection that breaks is told to both ends by closing it.
    let _ = copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await;
}

/// Leads datagrams on, and answers back, for as long as it is let.
pub(super) async fn datagrams(socket: UdpSocket, target: Target) {
    let socket = Rc::new(socket);
    let senders: Rc<RefCell<HashMap<SocketAddr, Rc<UdpSocket>>>> = Rc::default();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            // An earlier answer met nobody; the socket itself is well.
            tokio::task::yield_now().await;
            continue;
        };
        let Some(to) = target.get() else {
            continue;
        };
        let known = senders.borrow().get(&from).cloned();
        let session = match known {
            Some(session) => session,
            None if senders.borrow().len() >= SENDERS => continue,
            None => {
                let Ok(session) = connect(to).await else {
                    continue;
                };
                let session = Rc::new(session);
                senders.borrow_mut().insert(from, session.clone());
                // The port is free as soon as this task has ended, whoever still listens for answers.
                let (socket, senders) = (Rc::downgrade(&socket), senders.clone());
                let answers = session.clone();
                tokio::task::spawn_local(async move {
                    answer(&answers, &socket, from).await;
                    senders.borrow_mut().remove(&from);
                });
                session
            }
        };
        // Datagrams may be lost.
        let _ = session.send(&buffer[..length]).await;
    }
}

async fn connect(to: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    Ok(socket)
}

/// Brings answers back until nothing has come for a while. The buffer is there only while something is read.
async fn answer(session: &UdpSocket, socket: &Weak<UdpSocket>, to: SocketAddr) {
    loop {
        match tokio::time::timeout(SILENCE, session.readable()).await {
            Ok(Ok(())) => {}
            _ => return,
        }
        let Some(socket) = socket.upgrade() else {
            return;
        };
        let mut buffer = vec![0; 64 << 10];
        loop {
            match session.try_recv(&mut buffer) {
                Ok(length) => drop(socket.send_to(&buffer[..length], to).await),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
                // Nobody listens in the container: the sender tries again, or not.
                Err(_) => return,
            }
        }
    }
}
