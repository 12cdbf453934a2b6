//! The helper's life: a runtime on one thread, the control socket, and what the daemon hands over.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

use super::protocol::{Message, Port, Resolver, Table};
use super::{control, proxy, resolve};
use crate::error::{During, Error, Result};

/// A port that is served, or only kept.
#[derive(Debug)]
struct Served {
    port: Port,
    target: proxy::Target,
    /// Ends the task that has the socket.
    task: Option<JoinHandle<()>>,
    /// The socket that nobody reads.
    _kept: Option<OwnedFd>,
}

/// A container whose look-ups are answered.
#[derive(Debug)]
struct Resolving {
    resolver: Rc<RefCell<Resolver>>,
    tasks: Vec<JoinHandle<()>>,
}

/// All that is held.
#[derive(Debug, Default)]
pub(super) struct State {
    ports: BTreeMap<String, Served>,
    book: Rc<RefCell<resolve::Book>>,
    resolvers: HashMap<String, Resolving>,
    /// Tasks that have been ended, and may still have their sockets.
    ended: Vec<JoinHandle<()>>,
}

/// Serves until it is killed.
pub(super) fn run(socket: &Path) -> Result<()> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    many_descriptors();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .during(|| "start the runtime")?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, control::serve(socket, Rc::default()))
}

/// As many as may be: each connection takes two.
fn many_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // What we have must do otherwise.
    let _ = setrlimit(Resource::Nofile, limit);
}

impl State {
    /// All that is held, without the sockets.
    pub(super) fn table(&self) -> Table {
        let book = self.book.borrow();
        Table {
            ports: self
                .ports
                .iter()
                .map(|(key, served)| (key.clone(), served.port.clone()))
                .collect(),
            names: book
                .names()
                .map(|(key, names)| (key.clone(), names.clone()))
                .collect(),
            resolvers: self
                .resolvers
                .iter()
                .map(|(key, r)| (key.clone(), r.resolver.borrow().clone()))
                .collect(),
        }
    }

    /// Does what a message says. What can be done is done; the first failure is told.
    pub(super) fn apply(&mut self, message: Message, sockets: Vec<OwnedFd>) -> Result<()> {
        for key in &message.gone.ports {
            if let Some(served) = self.ports.remove(key) {
                self.end(served.task);
            }
        }
        for endpoint in &message.gone.names {
            self.book.borrow_mut().take_out(endpoint);
        }
        for container in &message.gone.resolvers {
            if let Some(resolving) = self.resolvers.remove(container) {
                self.end(resolving.tasks);
            }
        }
        for (endpoint, names) in message.come.names {
            self.book.borrow_mut().put(&endpoint, names);
        }
        let mut sockets = sockets.into_iter();
        let mut of_ports: HashMap<String, OwnedFd> = message
            .port_sockets
            .into_iter()
            .zip(sockets.by_ref())
            .collect();
        let mut of_resolvers = HashMap::new();
        for container in message.resolver_sockets {
            if let (Some(udp), Some(tcp)) = (sockets.next(), sockets.next()) {
                of_resolvers.insert(container, (udp, tcp));
            }
        }
        let mut outcome = Ok(());
        for (key, port) in message.come.ports {
            let socket = of_ports.remove(&key);
            outcome = outcome.and(self.port(key, port, socket));
        }
        for (container, resolver) in message.come.resolvers {
            let pair = of_resolvers.remove(&container);
            outcome = outcome.and(self.resolver(container, resolver, pair));
        }
        outcome
    }

    fn port(&mut self, key: String, port: Port, socket: Option<OwnedFd>) -> Result<()> {
        let what = || format!("serve the published port {}", key.clone());
        let Some(socket) = socket else {
            // Only where it leads has changed.
            return match self.ports.get_mut(&key) {
                Some(served) => {
                    served.target.set(port.target);
                    served.port = port;
                    Ok(())
                }
                // Of SCTP there is no socket.
                None if port.protocol == "sctp" => {
                    let served = Served {
                        port,
                        target: Rc::default(),
                        task: None,
                        _kept: None,
                    };
                    self.put(key, served);
                    Ok(())
                }
                None => Err(Error::invalid("its socket is missing").during(what())),
            };
        };
        let target = Rc::new(Cell::new(port.target));
        let task = match (port.target, port.protocol.as_str()) {
            (None, _) => {
                let served = Served {
                    port,
                    target,
                    task: None,
                    _kept: Some(socket),
                };
                self.put(key, served);
                return Ok(());
            }
            (_, "udp") => {
                let socket = UdpSocket::from_std(socket.into()).during(what)?;
                tokio::task::spawn_local(proxy::datagrams(socket, target.clone()))
            }
            _ => {
                let listener = TcpListener::from_std(socket.into()).during(what)?;
                tokio::task::spawn_local(proxy::streams(listener, target.clone()))
            }
        };
        let served = Served {
            port,
            target,
            task: Some(task),
            _kept: None,
        };
        self.put(key, served);
        Ok(())
    }

    fn put(&mut self, key: String, served: Served) {
        if let Some(former) = self.ports.insert(key, served) {
            self.end(former.task);
        }
    }

    fn resolver(
        &mut self,
        container: String,
        resolver: Resolver,
        pair: Option<(OwnedFd, OwnedFd)>,
    ) -> Result<()> {
        let what = || format!("look names up for container {}", container.clone());
        let Some((udp, tcp)) = pair else {
            return match self.resolvers.get(&container) {
                Some(resolving) => {
                    resolving.resolver.replace(resolver);
                    Ok(())
                }
                None => Err(Error::invalid("its sockets are missing").during(what())),
            };
        };
        let udp = UdpSocket::from_std(udp.into()).during(what)?;
        let tcp = TcpListener::from_std(tcp.into()).during(what)?;
        let resolver = Rc::new(RefCell::new(resolver));
        let shared = (self.book.clone(), resolver.clone());
        let tasks = vec![
            tokio::task::spawn_local(resolve::datagrams(udp, shared.clone())),
            tokio::task::spawn_local(resolve::streams(tcp, shared)),
        ];
        let resolving = Resolving { resolver, tasks };
        if let Some(former) = self.resolvers.insert(container, resolving) {
            self.end(former.tasks);
        }
        Ok(())
    }

    fn end(&mut self, tasks: impl IntoIterator<Item = JoinHandle<()>>) {
        for task in tasks {
            task.abort();
            self.ended.push(task);
        }
    }

    /// What must be waited for until the sockets of all that has gone are closed.
    pub(super) fn ended(&mut self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.ended)
    }
}
