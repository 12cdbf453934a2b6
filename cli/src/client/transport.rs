//! From the name of a daemon to bytes both ways.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{ClientError, ssh};
use crate::config::Tls;

/// A daemon's address, taken apart.
#[derive(Debug, Clone)]
pub(crate) enum Address {
    Unix(PathBuf),
    Tcp(String),
    /// Host and port, the host alone, and how to speak TLS with it.
    Tls(String, ServerName<'static>, Arc<ClientConfig>),
    Ssh(Box<ssh::Target>),
}

impl Address {
    pub(crate) fn parse(host: &str, tls: Option<&Tls>) -> Result<Address, ClientError> {
        let wrong = |why: &str| ClientError::Host {
            host: host.to_string(),
            why: why.to_string(),
        };
        match host.split_once("://") {
            Some(("unix", path)) => Ok(Address::Unix(PathBuf::from(path))),
            Some(("tcp" | "http" | "https", rest)) => {
                let authority = rest.split('/').next().unwrap_or_default();
                if authority.is_empty() {
                    return Err(wrong("no host name"));
                }
                let usual = if tls.is_some() { 2376 } else { 2375 };
                let (name, authority) = match authority.rsplit_once(':') {
                    Some((name, port)) if port.parse::<u16>().is_ok() => {
                        (name, authority.to_string())
                    }
                    _ => (authority, format!("{authority}:{usual}")),
                };
                let Some(tls) = tls else {
                    return Ok(Address::Tcp(authority));
                };
                let name = name.trim_start_matches('[').trim_end_matches(']');
                let name = ServerName::try_from(name.to_string())
                    .map_err(|cause| wrong(&cause.to_string()))?;
                let config = super::tls::config(tls).map_err(|why| wrong(&why))?;
                Ok(Address::Tls(authority, name, Arc::new(config)))
            }
            Some(("ssh", rest)) => ssh::Target::parse(rest)
                .map(|target| Address::Ssh(Box::new(target)))
                .map_err(|why| wrong(&format!("ssh host connection is not valid: {why}"))),
            Some(("npipe", _)) => Err(wrong("named pipes are for Windows")),
            Some(_) => Err(wrong("invalid bind address format")),
            None => Err(wrong("no scheme")),
        }
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Ssh(ssh::Tunnel),
}

/// Opens a connection to the daemon.
pub(crate) async fn connect(host: &str, address: &Address) -> Result<Stream, ClientError> {
    let opened = match address {
        Address::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
        Address::Tcp(authority) => TcpStream::connect(authority).await.map(Stream::Tcp),
        Address::Tls(authority, name, config) => match TcpStream::connect(authority).await {
            Ok(stream) => {
                let connector = TlsConnector::from(config.clone());
                let opened = connector.connect(name.clone(), stream).await;
                opened.map(|stream| Stream::Tls(Box::new(stream)))
            }
            Err(cause) => Err(cause),
        },
        Address::Ssh(target) => ssh::open(target).map(Stream::Ssh),
    };
    opened.map_err(|cause| match cause.kind() {
        io::ErrorKind::PermissionDenied => ClientError::Denied {
            host: host.to_string(),
            source: cause,
        },
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::Unreachable {
            host: host.to_string(),
        },
        _ => ClientError::Connection {
            attempt: format!("connect to {host}"),
            cause: super::request::innermost(&cause),
        },
    })
}

/// Calls the same method on whichever stream it is.
macro_rules! either {
    ($self:ident, $method:ident ( $($arg:expr),* )) => {
        match $self.get_mut() {
            Stream::Unix(stream) => Pin::new(stream).$method($($arg),*),
            Stream::Tcp(stream) => Pin::new(stream).$method($($arg),*),
            Stream::Tls(stream) => Pin::new(stream).$method($($arg),*),
            Stream::Ssh(stream) => Pin::new(stream).$method($($arg),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, poll_write(cx, buf))
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_flush(cx))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_shutdown(cx))
    }
}

/// A connection that has left HTTP behind: raw bytes both ways, each with its own end.
#[derive(Debug)]
pub(crate) struct Hijacked {
    pub(crate) io: TokioIo<hyper::upgrade::Upgraded>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let parse = |host: &str| Address::parse(host, None);
        let tcp = |host: &str| match parse(host) {
            Ok(Address::Tcp(authority)) => authority,
            other => panic!("{host}: {other:?}"),
        };
        assert!(matches!(parse("unix:///run/x"), Ok(Address::Unix(path)) if path == *"/run/x"));
        assert_eq!(tcp("tcp://box"), "box:2375");
        assert_eq!(tcp("tcp://[::1]:99/"), "[::1]:99");
        assert!(matches!(parse("ssh://me@box"), Ok(Address::Ssh(_))));
        for bad in ["ssh://a:b@box", "npipe://x", "tcp://", "plain"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let unchecked = Tls::default();
        match Address::parse("tcp://box", Some(&unchecked)) {
            Ok(Address::Tls(authority, ..)) => assert_eq!(authority, "box:2376"),
            other => panic!("{other:?}"),
        }
    }
}
