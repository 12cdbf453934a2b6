//! From the name of a daemon to bytes both ways.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::ClientError;

/// A daemon's address, taken apart.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Address {
    Unix(PathBuf),
    Tcp(String),
}

impl Address {
    pub(crate) fn parse(host: &str, tls: bool) -> Result<Address, ClientError> {
        let wrong = |why: &str| ClientError::Host {
            host: host.to_string(),
            why: why.to_string(),
        };
        match host.split_once("://") {
            Some(("unix", path)) => Ok(Address::Unix(PathBuf::from(path))),
            Some(("tcp" | "http", _)) if tls => Err(wrong("TLS is not supported yet")),
            Some(("tcp" | "http", rest)) => {
                let authority = rest.split('/').next().unwrap_or_default();
                if authority.is_empty() {
                    return Err(wrong("no host name"));
                }
                let has_port = authority
                    .rsplit_once(':')
                    .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
                Ok(Address::Tcp(if has_port {
                    authority.to_string()
                } else {
                    format!("{authority}:2375")
                }))
            }
            Some(("ssh", _)) => Err(wrong("ssh is not supported yet")),
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
}

/// Opens a connection to the daemon.
pub(crate) async fn connect(host: &str, address: &Address) -> Result<Stream, ClientError> {
    let opened = match address {
        Address::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
        Address::Tcp(authority) => TcpStream::connect(authority).await.map(Stream::Tcp),
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
            cause: cause.to_string(),
        },
    })
}

/// Calls the same method on whichever stream it is.
macro_rules! either {
    ($self:ident, $method:ident ( $($arg:expr),* )) => {
        match $self.get_mut() {
            Stream::Unix(stream) => Pin::new(stream).$method($($arg),*),
            Stream::Tcp(stream) => Pin::new(stream).$method($($arg),*),
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
        assert_eq!(
            Address::parse("unix:///run/x", false).unwrap(),
            Address::Unix("/run/x".into())
        );
        assert_eq!(
            Address::parse("tcp://box", false).unwrap(),
            Address::Tcp("box:2375".into())
        );
        assert_eq!(
            Address::parse("tcp://[::1]:99/", false).unwrap(),
            Address::Tcp("[::1]:99".into())
        );
        for bad in ["ssh://box", "npipe://x", "tcp://", "plain"] {
            assert!(Address::parse(bad, false).is_err(), "{bad}");
        }
        assert!(Address::parse("tcp://box", true).is_err());
    }
}
