//! The listeners: unix and tcp sockets, those handed over by a service manager, and the loop that serves connections.
//!
//! A socket on which somebody answers is never taken over. One that nobody answers on was left by a killed daemon and is
//! replaced.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::error::{During, Error, Result};
use crate::{api, rootless};

/// One open listener.
#[derive(Debug)]
pub(crate) enum Listener {
    Unix(UnixListener, Option<PathBuf>),
    Tcp(TcpListener, Option<Arc<ServerConfig>>),
}

/// Opens every address of `-H`.
pub(crate) async fn listen(
    hosts: &[String],
    group: Option<&str>,
    tls: Option<Arc<ServerConfig>>,
) -> Result<Vec<Listener>> {
    let mut open = Vec::new();
    for host in hosts {
        let (scheme, rest) = host.split_once("://").ok_or_else(|| {
            Error::invalid(format!(
                "host {host:?} must be unix://PATH, tcp://ADDRESS:PORT or fd://"
            ))
        })?;
        match scheme {
            "unix" => open.push(unix(Path::new(rest), group)?),
            "tcp" => {
                let listener = tcp(rest).await.during(|| format!("listen on {host}"))?;
                if tls.is_none() {
                    tracing::warn!("{host} is open to everybody who can reach it, without TLS");
                }
                open.push(Listener::Tcp(listener, tls.clone()));
            }
            "fd" => open.extend(handed_over(tls.as_ref())?),
            _ => {
                return Err(Error::invalid(format!(
                    "host {host:?} has an unknown scheme"
                )));
            }
        }
    }
    Ok(open)
}

fn unix(path: &Path, group: Option<&str>) -> Result<Listener> {
    let what = || format!("listen on unix://{}", path.display());
    if !path.is_absolute() {
        return Err(Error::invalid("the path is not absolute").during(what()));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => {
            return Err(Error::conflict("another daemon answers on this socket").during(what()));
        }
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).during(what)?;
        }
        // Absent is the usual case; anything else shows itself when binding.
        Err(_) => {}
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).during(what)?;
    }
    let listener = UnixListener::bind(path).during(what)?;
    let gid = gid(group).during(what)?;
    std::os::unix::fs::chown(path, None, gid).during(what)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).during(what)?;
    Ok(Listener::Unix(listener, Some(path.to_owned())))
}

/// The group that may use the socket: the one asked for, else `docker` where it exists.
fn gid(group: Option<&str>) -> Result<Option<u32>> {
    use nix::unistd::Group;
    let name = group.unwrap_or("docker");
    if name.is_empty() {
        return Ok(None);
    }
    if let Ok(number) = name.parse::<u32>() {
        return Ok(Some(number));
    }
    match Group::from_name(name) {
        Ok(Some(found)) => Ok(Some(found.gid.as_raw())),
        Ok(None) if group.is_none() => Ok(None),
        Ok(None) => Err(Error::invalid(format!("group {name} does not exist"))),
        Err(e) => Err(Error::from(e).during(format!("look up group {name}"))),
    }
}

/// The listeners of LISTEN_FDS.
fn handed_over(tls: Option<&Arc<ServerConfig>>) -> Result<Vec<Listener>> {
    let mut fds = listenfd::ListenFd::from_env();
    let mut open = Vec::new();
    for at in 0..fds.len() {
        if let Ok(Some(listener)) = fds.take_unix_listener(at) {
            rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::CLOEXEC)?;
            listener.set_nonblocking(true)?;
            open.push(Listener::Unix(UnixListener::from_std(listener)?, None));
        } else if let Ok(Some(listener)) = fds.take_tcp_listener(at) {
            rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::CLOEXEC)?;
            listener.set_nonblocking(true)?;
            open.push(Listener::Tcp(
                TcpListener::from_std(listener)?,
                tls.cloned(),
            ));
        } else {
            return Err(Error::invalid(format!(
                "descriptor {} of LISTEN_FDS is no listening unix or tcp socket",
                at + 3
            )));
        }
    }
    if open.is_empty() {
        return Err(Error::invalid("fd:// given, but no socket was handed over"));
    }
    Ok(open)
}

/// Serves until `stop`; removes the sockets that it made.
pub(crate) async fn serve(
    listeners: Vec<Listener>,
    router: Router,
    control: api::control::Service,
    stop: CancellationToken,
) {
    let tasks = listeners.into_iter().map(|listener| {
        let (router, control, stop) = (router.clone(), control.clone(), stop.clone());
        tokio::spawn(async move {
            match listener {
                Listener::Unix(listener, path) => {
                    loop {
                        tokio::select! {
                            () = stop.cancelled() => break,
                            got = listener.accept() => match got {
                                Ok((stream, _)) => connection(stream, &router, &control),
                                Err(e) => pause(&e).await,
                            }
                        }
                    }
                    if let Some(path) = path {
                        // Nothing is lost if somebody removed it before us.
                        let _ = std::fs::remove_file(path);
                    }
                }
                Listener::Tcp(listener, tls) => loop {
                    tokio::select! {
                        () = stop.cancelled() => break,
                        got = listener.accept() => match (got, &tls) {
                            (Ok((stream, _)), None) => connection(stream, &router, &control),
                            (Ok((stream, _)), Some(tls)) => {
                                let tls = TlsAcceptor::from(tls.clone());
                                let (router, control) = (router.clone(), control.clone());
                                tokio::spawn(async move {
                                    if let Some(stream) = crate::tls::accept(&tls, stream).await {
                                        connection(stream, &router, &control);
                                    }
                                });
                            }
                            (Err(e), _) => pause(&e).await,
                        }
                    }
                },
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        if let Err(e) = task.await {
            tracing::error!("listener: {e}");
        }
    }
}

/// Opens the socket of the metrics.
pub(crate) async fn metrics(address: &str) -> Result<TcpListener> {
    let listener = tcp(address).await;
    listener.during(|| format!("listen on metrics-addr {address}"))
}

/// A listening socket in the host's network; from here on it is this runtime's.
async fn tcp(address: &str) -> Result<TcpListener> {
    let address = address.to_owned();
    let bound = async move { Ok(TcpListener::bind(address).await?.into_std()?) };
    Ok(TcpListener::from_std(rootless::outside::run(bound).await?)?)
}

/// Serves a router of its own on a socket, until `stop`.
pub(crate) async fn serve_plain(listener: TcpListener, router: Router, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            got = listener.accept() => match got {
                Ok((stream, _)) => plain(stream, &router),
                Err(e) => pause(&e).await,
            }
        }
    }
}

/// Serves a router of its own on a unix socket, for as long as it is let.
pub(crate) async fn serve_unix(listener: UnixListener, router: Router) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => plain(stream, &router),
            Err(e) => pause(&e).await,
        }
    }
}

fn plain<S>(stream: S, router: &Router)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper_util::service::TowerToHyperService::new(router.clone());
    tokio::spawn(async move {
        let served = auto::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(e) = served {
            tracing::debug!("connection: {e}");
        }
    });
}

/// Out of descriptors or memory: wait for some to come free.
async fn pause(error: &std::io::Error) {
    tracing::warn!("accept a connection: {error}");
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
}

/// Serves one connection in a task of its own; it ends with the connection.
fn connection<S>(stream: S, router: &Router, control: &api::control::Service)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (router, control) = (router.clone(), control.clone());
    tokio::spawn(async move {
        let service =
            service_fn(move |request| api::serve(router.clone(), control.clone(), request));
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().max_buf_size(64 * 1024);
        if let Err(e) = builder
            .serve_connection_with_upgrades(TokioIo::new(stream), service)
            .await
        {
            tracing::debug!("connection: {e}");
        }
    });
}

/// What the control service tells of the listeners.
pub(crate) fn addresses(listeners: &[Listener]) -> Arc<Vec<String>> {
    let name = |listener: &Listener| match listener {
        Listener::Unix(_, Some(path)) => format!("unix://{}", path.display()),
        Listener::Unix(listener, None) => match listener.local_addr() {
            Ok(address) => address.as_pathname().map_or_else(
                || "fd://".to_owned(),
                |path| format!("unix://{}", path.display()),
            ),
            Err(_) => "fd://".into(),
        },
        Listener::Tcp(listener, _) => match listener.local_addr() {
            Ok(address) => format!("tcp://{address}"),
            Err(_) => "tcp://".into(),
        },
    };
    Arc::new(listeners.iter().map(name).collect())
}
