//! Looking names up for containers: what the networks know is answered here, all else is asked of the container's servers.
//!
//! A name is looked for on the networks that the asking container is on, and on no others. A known name without an address of
//! the asked family is an empty answer and goes no further; so no search domain and no server is bothered with it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::dns::{self, Outcome, Question, Record, kind};
use super::protocol::{Names, Resolver};

/// How long a server is given.
const PATIENCE: Duration = Duration::from_secs(4);
/// How many questions may be with servers.
const AT_ONCE: usize = 1024;
/// How long a stream may be silent.
const IDLE: Duration = Duration::from_secs(10);

/// All names, found by network and name, and by network and address.
#[derive(Debug, Default)]
pub(super) struct Book {
    names: HashMap<(String, String), Vec<String>>,
    addresses: HashMap<(String, IpAddr), String>,
    endpoints: HashMap<String, Names>,
    turn: Cell<usize>,
    asked: Cell<usize>,
}

impl Book {
    /// Takes an endpoint's names up, in place of those it had.
    pub(super) fn put(&mut self, endpoint: &str, names: Names) {
        self.take_out(endpoint);
        for name in every_name(&names) {
            let list = self.names.entry((names.network.clone(), name)).or_default();
            list.push(endpoint.to_owned());
        }
        for address in &names.addresses {
            let key = (names.network.clone(), *address);
            self.addresses.insert(key, endpoint.to_owned());
        }
        self.endpoints.insert(endpoint.to_owned(), names);
    }

    /// Forgets an endpoint's names.
    pub(super) fn take_out(&mut self, endpoint: &str) {
        let Some(names) = self.endpoints.remove(endpoint) else {
            return;
        };
        for name in every_name(&names) {
            let key = (names.network.clone(), name);
            if let Some(list) = self.names.get_mut(&key) {
                list.retain(|other| other != endpoint);
                if list.is_empty() {
                    self.names.remove(&key);
                }
            }
        }
        for address in &names.addresses {
            let key = (names.network.clone(), *address);
            if self.addresses.get(&key).is_some_and(|e| e == endpoint) {
                self.addresses.remove(&key);
            }
        }
    }

    /// The names that an endpoint has.
    pub(super) fn names(&self) -> impl Iterator<Item = (&String, &Names)> {
        self.endpoints.iter()
    }

    /// The addresses of a name; none if nobody on these networks has it.
    fn addresses(&self, resolver: &Resolver, name: &str) -> Option<Vec<IpAddr>> {
        let name = resolver.links.get(name).map_or(name, String::as_str);
        let name = name.to_lowercase();
        let mut found: Option<Vec<IpAddr>> = None;
        for network in &resolver.networks {
            let key = (network.clone(), name.clone());
            for endpoint in self.names.get(&key).into_iter().flatten() {
                if let Some(names) = self.endpoints.get(endpoint) {
                    found.get_or_insert_default().extend(&names.addresses);
                }
            }
        }
        found
    }

    /// Our own answer to a question, if it is ours.
    pub(super) fn answer(&self, resolver: &Resolver, question: &Question) -> Option<Vec<Record>> {
        match question.kind {
            kind::PTR => {
                let address = dns::reversed(&question.name)?;
                let networks = resolver.networks.iter();
                let mut found = networks.filter_map(|n| self.addresses.get(&(n.clone(), address)));
                let names = self.endpoints.get(found.next()?)?;
                let name = names.names.first()?;
                Some(vec![Record::Name(format!("{name}.{}", names.domain))])
            }
            kind::SRV => {
                let mut parts = question.name.splitn(3, '.');
                let port = parts.next()?.strip_prefix('_')?.parse().ok()?;
                let protocol = parts.next()?;
                let target = parts.next()?;
                if !matches!(protocol, "_tcp" | "_udp") {
                    return None;
                }
                self.addresses(resolver, target)?;
                let target = target.to_owned();
                Some(vec![Record::Service { port, target }])
            }
            asked => {
                let mut all = self.addresses(resolver, &question.name)?;
                all.retain(|address| match asked {
                    kind::A => address.is_ipv4(),
                    kind::AAAA => address.is_ipv6(),
                    _ => false,
                });
                if all.len() > 1 {
                    let turn = self.turn.get().wrapping_add(1);
                    self.turn.set(turn);
                    let length = all.len();
                    all.rotate_left(turn % length);
                }
                Some(all.into_iter().map(Record::Address).collect())
            }
        }
    }
}

/// The names, and each with the network's behind it.
fn every_name(names: &Names) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    for name in &names.names {
        for name in [
            name.to_lowercase(),
            format!("{name}.{}", names.domain).to_lowercase(),
        ] {
            if !list.contains(&name) {
                list.push(name);
            }
        }
    }
    list
}

/// What the tasks of one resolver share.
pub(super) type Shared = (Rc<RefCell<Book>>, Rc<RefCell<Resolver>>);

/// Answers datagrams for as long as it is let.
pub(super) async fn datagrams(socket: UdpSocket, shared: Shared) {
    let socket = Rc::new(socket);
    let mut buffer = vec![0; 4096];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // What an earlier answer met with; the socket itself is well.
            Err(_) => {
                tokio::task::yield_now().await;
                continue;
            }
        };
        let message = &buffer[..length];
        match own(&shared, message, false) {
            Some(answer) => drop(socket.send_to(&answer, from).await),
            None => {
                // A question under way does not keep the container's namespace.
                let (socket, message) = (Rc::downgrade(&socket), message.to_vec());
                let shared = shared.clone();
                tokio::task::spawn_local(async move {
                    let answer = ask(&shared, &message, false).await;
                    if let (Some(answer), Some(socket)) = (answer, socket.upgrade()) {
                        // Who has gone meanwhile needs no answer.
                        drop(socket.send_to(&answer, from).await);
                    }
                });
            }
        }
    }
}

/// Answers streams for as long as it is let.
pub(super) async fn streams(listener: TcpListener, shared: Shared) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = shared.clone();
                tokio::task::spawn_local(async move {
                    // A stream that breaks has nobody at its end.
                    let _ = tokio::time::timeout(IDLE, one_stream(stream, shared)).await;
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn one_stream(mut stream: TcpStream, shared: Shared) -> io::Result<()> {
    loop {
        let message = framed(&mut stream).await?;
        let answer = match own(&shared, &message, true) {
            Some(answer) => Some(answer),
            None => ask(&shared, &message, true).await,
        };
        let Some(answer) = answer else {
            return Ok(());
        };
        stream
            .write_all(&(answer.len() as u16).to_be_bytes())
            .await?;
        stream.write_all(&answer).await?;
    }
}

async fn framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// The answer that we have ourselves.
fn own(shared: &Shared, message: &[u8], stream: bool) -> Option<Vec<u8>> {
    let question = dns::question(message)?;
    let records = shared.0.borrow().answer(&shared.1.borrow(), &question)?;
    Some(dns::answer(message, &question, &records, stream))
}

/// The answer of the first server that has one. The question goes as it came, and so does the answer.
async fn ask(shared: &Shared, message: &[u8], stream: bool) -> Option<Vec<u8>> {
    const REFUSED: u8 = 5;
    if dns::question(message).is_none() {
        return dns::refusal(message, Outcome::BadQuestion);
    }
    let failed = || dns::refusal(message, Outcome::Failed);
    let asked = shared.0.borrow().asked.get();
    if asked >= AT_ONCE {
        return failed();
    }
    shared.0.borrow().asked.set(asked + 1);
    let servers = shared.1.borrow().servers.clone();
    let mut last = None;
    for server in servers {
        let server = SocketAddr::new(server, 53);
        let answer = async {
            match stream {
                true => ask_stream(server, message).await,
                false => ask_datagram(server, message).await,
            }
        };
        let Ok(Ok(answer)) = tokio::time::timeout(PATIENCE, answer).await else {
            continue;
        };
        let unhelpful = matches!(dns::outcome(&answer), 2 | REFUSED);
        last = Some(answer);
        if !unhelpful {
            break;
        }
    }
    let book = shared.0.borrow();
    book.asked.set(book.asked.get().saturating_sub(1));
    drop(book);
    last.or_else(failed)
}

async fn ask_datagram(server: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(message).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // Only what answers this question; others may be late ones, or forged.
        if length >= 12 && buffer[..2] == message[..2] {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn ask_stream(server: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    stream
        .write_all(&(message.len() as u16).to_be_bytes())
        .await?;
    stream.write_all(message).await?;
    framed(&mut stream).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(network: &str, list: &[&str], address: [u8; 4]) -> Names {
        Names {
            network: network.into(),
            names: list.iter().map(|n| (*n).to_owned()).collect(),
            domain: format!("{network}net"),
            addresses: vec![address.into()],
        }
    }

    #[test]
    fn names_are_known_on_the_askers_networks_only() {
        let mut book = Book::default();
        book.put(
            "e1",
            names("a", &["web", "Alias", "0123456789ab"], [10, 0, 0, 2]),
        );
        book.put("e2", names("a", &["web2", "alias"], [10, 0, 0, 3]));
        book.put("e3", names("b", &["db"], [10, 1, 0, 2]));
        let resolver = Resolver {
            servers: Vec::new(),
            networks: vec!["a".into()],
            links: [("other".to_owned(), "web2".to_owned())].into(),
            netns: "/n".into(),
        };
        let look = |book: &Book, name: &str| book.addresses(&resolver, name).map(|l| l.len());
        assert_eq!(look(&book, "WEB"), Some(1));
        assert_eq!(look(&book, "alias"), Some(2));
        assert_eq!(look(&book, "web.anet"), Some(1));
        assert_eq!(look(&book, "other"), Some(1));
        assert_eq!(look(&book, "db"), None);
        book.take_out("e1");
        assert_eq!(look(&book, "web"), None);
        assert_eq!(look(&book, "alias"), Some(1));
        book.put("e2", names("a", &["renamed"], [10, 0, 0, 3]));
        assert_eq!(look(&book, "web2"), None);
        assert_eq!(look(&book, "renamed"), Some(1));
    }
}
