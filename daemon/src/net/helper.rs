//! The daemon's half: finds or starts the helper, tells it what differs, and keeps one alive.
//!
//! ```text
//!  change ─▶ connected? ─no─▶ find by its lock, or start ─▶ ask what it holds ─▶ tell the difference to everything
//!              └─yes─▶ tell the difference of this change only
//! ```
//!
//! The first connection, and every one after a failure, compares all; so a helper that survived a daemon goes on with not one
//! socket touched, and one that is new gets everything.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt,
};

use super::packet;
use super::protocol::{Answer, Message, Table, VERSION, difference};
use crate::error::{During, Error, Result};
use crate::network::Plane;
use crate::network::Sockets;
use crate::supervise;

/// How long the helper may take to start, and to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Handle of the helper.
#[derive(Debug)]
pub(crate) struct Helper {
    dir: PathBuf,
    link: tokio::sync::Mutex<Option<Arc<OwnedFd>>>,
    plane: OnceLock<Weak<dyn Plane>>,
    followed: AtomicBool,
}

impl Helper {
    /// A helper with its files below exec-root; nothing is started yet.
    pub(crate) fn new(exec_root: &Path) -> Self {
        Self {
            dir: exec_root.join("net"),
            link: tokio::sync::Mutex::default(),
            plane: OnceLock::new(),
            followed: AtomicBool::new(false),
        }
    }

    fn lock_file(&self) -> PathBuf {
        self.dir.join("lock")
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("net.sock")
    }

    /// Says who knows everything that the helper shall hold.
    pub(crate) fn know(&self, plane: Weak<dyn Plane>) {
        // Said once, by the one owner.
        let _ = self.plane.set(plane);
    }

    /// Tells the change from one table to another. What the helper does not hold need not be taken from it.
    pub(crate) async fn change(&self, from: &Table, to: &Table, sockets: Sockets) -> Result<()> {
        let messages = difference(from, to);
        if messages.is_empty() {
            return Ok(());
        }
        let mut link = self.link.lock().await;
        if let Some(socket) = link.clone() {
            match tell(socket, messages, sockets).await {
                Err(e) if e.kind() == proto::error::ErrorKind::Unavailable => {
                    tracing::warn!("{e}; it is told everything again");
                    *link = None;
                    return self.compare(&mut link, Sockets::default()).await;
                }
                other => return other,
            }
        }
        if *to == Table::default() && supervise::find(&self.lock_file())?.is_none() {
            return Ok(());
        }
        self.compare(&mut link, sockets).await
    }

    /// Connects, and makes what is held what it shall be.
    async fn compare(&self, link: &mut Option<Arc<OwnedFd>>, mut sockets: Sockets) -> Result<()> {
        let plane = self.plane.get().and_then(Weak::upgrade);
        let plane = plane.ok_or_else(|| Error::internal("the networks have gone"))?;
        let socket = self.connected().await?;
        let asked = socket.clone();
        let held = crate::volumes::blocking(move || held(&asked)).await?;
        let wanted = plane.table();
        for (key, port) in &wanted.ports {
            if !held.ports.contains_key(key) && !sockets.ports.contains_key(key) {
                match plane.socket(port) {
                    Ok(Some(socket)) => drop(sockets.ports.insert(key.clone(), socket)),
                    Ok(None) => {}
                    // The kernel leads what comes from outside all the same.
                    Err(e) => tracing::warn!("published port {key}: {e}"),
                }
            }
        }
        for (container, resolver) in &wanted.resolvers {
            if !held.resolvers.contains_key(container) && !sockets.resolvers.contains_key(container)
            {
                match plane.resolver(&resolver.netns).await {
                    Ok(pair) => drop(sockets.resolvers.insert(container.clone(), pair)),
                    Err(e) => tracing::warn!("resolver of container {container}: {e}"),
                }
            }
        }
        let told = tell(socket.clone(), difference(&held, &wanted), sockets).await;
        match &told {
            Err(e) if e.kind() == proto::error::ErrorKind::Unavailable => {}
            _ => *link = Some(socket),
        }
        told
    }

    /// A connection to the helper, which is started if there is none.
    async fn connected(&self) -> Result<Arc<OwnedFd>> {
        let start = Instant::now();
        // One that is on its way to the lock is waited for, however slow the machine is: a second one could only find it taken.
        let mut coming: Option<OwnedFd> = None;
        loop {
            let on_its_way = coming
                .as_ref()
                .is_some_and(|process| !supervise::has_ended(process));
            if !on_its_way && supervise::find(&self.lock_file())?.is_none() {
                coming = Some(self.start()?);
            }
            match open(&self.socket()) {
                Ok(socket) => return Ok(Arc::new(socket)),
                Err(e) if start.elapsed() > PATIENCE => {
                    let what = format!("connect to dockerd-lite net at {}", self.dir.display());
                    return Err(Error::from(e).during(what));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    }

    /// Starts one; it takes the lock, or ends if another one has it.
    fn start(&self) -> Result<OwnedFd> {
        crate::make_private(&self.dir)?;
        let program = supervise::own_program()?;
        let arguments = [super::WORD.into(), self.socket().into_os_string()];
        let log = self.dir.join("net.log");
        let child = supervise::spawn_detached(&self.lock_file(), &program, &arguments, &log)?;
        tracing::info!(pid = child.id(), "started dockerd-lite net");
        let process = supervise::watched(&child, "dockerd-lite net")?;
        supervise::reap(child, "net-end")?;
        Ok(process)
    }

    /// Keeps one alive from now on, if there is anything for it to do: a dead one is replaced at once.
    pub(crate) fn follow(&self) {
        let Some(plane) = self.plane.get().cloned() else {
            return;
        };
        if self.followed.swap(true, Ordering::AcqRel) {
            return;
        }
        let lock = self.lock_file();
        tokio::spawn(async move {
            loop {
                let Some(strong) = plane.upgrade() else {
                    return;
                };
                if strong.table() == Table::default() {
                    // The next change looks again.
                    strong.helper().followed.store(false, Ordering::Release);
                    return;
                }
                let helper = strong.helper();
                let outcome = {
                    let mut link = helper.link.lock().await;
                    match link.is_some() {
                        true => Ok(()),
                        false => helper.compare(&mut link, Sockets::default()).await,
                    }
                };
                if let Err(e) = outcome {
                    tracing::error!("dockerd-lite net: {e}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                drop(strong);
                let process = supervise::find(&lock).ok().flatten();
                if let Some(process) = process
                    && supervise::ended(process).await.is_err()
                {
                    return;
                }
                if let Some(strong) = plane.upgrade() {
                    tracing::warn!("dockerd-lite net has ended");
                    *strong.helper().link.lock().await = None;
                }
            }
        });
    }

    /// Ends the helper, if one runs.
    pub(crate) async fn end(&self) -> Result<()> {
        let mut link = self.link.lock().await;
        *link = None;
        self.followed.store(true, Ordering::Release);
        let Some(process) = supervise::find(&self.lock_file())? else {
            return Ok(());
        };
        rustix::process::pidfd_send_signal(&process, rustix::process::Signal::TERM)
            .during(|| "end dockerd-lite net")?;
        supervise::ended(process).await
    }
}

fn open(path: &Path) -> rustix::io::Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    for end in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
        sockopt::set_socket_timeout(&socket, end, Some(PATIENCE))?;
    }
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

fn ask(socket: &OwnedFd, message: &Message, sockets: &[OwnedFd]) -> Result<Answer> {
    let unavailable = |e: rustix::io::Errno| {
        Error::unavailable(format!("dockerd-lite net: {}", std::io::Error::from(e)))
    };
    let bytes = serde_json::to_vec(message)
        .map_err(|e| Error::internal(format!("encode a message: {e}")))?;
    let borrowed: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    packet::send(socket, &bytes, &borrowed).map_err(unavailable)?;
    let mut buffer = Vec::new();
    packet::receive(socket, &mut buffer).map_err(unavailable)?;
    if buffer.is_empty() {
        return Err(Error::unavailable("dockerd-lite net has hung up"));
    }
    let answer: Answer = serde_json::from_slice(&buffer)
        .map_err(|e| Error::unavailable(format!("dockerd-lite net: read its answer: {e}")))?;
    if answer.version != VERSION {
        return Err(Error::internal(format!(
            "dockerd-lite net speaks version {} of the protocol, and not {VERSION}",
            answer.version
        )));
    }
    match answer.error {
        Some(text) => Err(Error::internal(format!("dockerd-lite net: {text}"))),
        None => Ok(answer),
    }
}

/// The published ports that the helper at this socket serves; none if there is no helper.
pub(crate) fn served(path: &Path) -> Result<Vec<super::protocol::Port>> {
    match open(path) {
        Ok(socket) => Ok(held(&socket)?.ports.into_values().collect()),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::CONNREFUSED) => Ok(Vec::new()),
        Err(e) => Err(Error::from(e).during(format!("connect to {}", path.display()))),
    }
}

/// All that it holds.
fn held(socket: &OwnedFd) -> Result<Table> {
    let mut held = Table::default();
    let mut after = Some(String::new());
    while after.is_some() {
        let message = Message {
            tell_after: after.take(),
            ..Message::default()
        };
        let answer = ask(socket, &message, &[])?;
        held.ports.extend(answer.held.ports);
        held.names.extend(answer.held.names);
        held.resolvers.extend(answer.held.resolvers);
        after = answer.more_after;
    }
    Ok(held)
}

/// Sends messages with the sockets that belong to them.
async fn tell(socket: Arc<OwnedFd>, messages: Vec<Message>, mut sockets: Sockets) -> Result<()> {
    crate::volumes::blocking(move || {
        let mut outcome = Ok(());
        for mut message in messages {
            let mut list = Vec::new();
            for key in message.come.ports.keys() {
                if let Some(socket) = sockets.ports.remove(key) {
                    message.port_sockets.push(key.clone());
                    list.push(socket);
                }
            }
            for container in message.come.resolvers.keys() {
                if let Some(pair) = sockets.resolvers.remove(container) {
                    message.resolver_sockets.push(container.clone());
                    list.extend([pair.udp, pair.tcp]);
                }
            }
            match ask(&socket, &message, &list) {
                Err(e) if e.kind() == proto::error::ErrorKind::Unavailable => return Err(e),
                other => outcome = outcome.and(other.map(drop)),
            }
        }
        outcome
    })
    .await
}
