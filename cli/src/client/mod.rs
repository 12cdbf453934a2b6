//! The client's side of the Docker Engine API: HTTP/1.1 over a socket, one connection a request.
//!
//! ```text
//!  Client::get("/containers/json").query(..)   request.rs   path, query, headers, body
//!        |  version agreed on by HEAD /_ping    here, once a run
//!        v
//!  connect()                                   transport.rs unix://, tcp:// (tls.rs) or ssh:// (ssh.rs)
//!        |
//!        v
//!  Answer: json(), text(), stream, hijacked    request.rs
//! ```
//!
//! Paths and answers are Docker's; what lies in the bodies is `proto::engine`.

pub(crate) mod control;
mod patience;
mod request;
mod ssh;
mod tls;
mod transport;

use std::io;

use tokio::sync::OnceCell;

pub(crate) use patience::{DEFAULT as RECONNECT, Patience};
pub(crate) use request::{Answer, Request, Upload, escape_path};
pub(crate) use tls::check as check_tls;
pub(crate) use transport::Hijacked;

use crate::config::Config;

/// Why a request did not bring what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody listens.
    #[error("Cannot connect to the Docker daemon at {host}. Is the docker daemon running?")]
    Unreachable { host: String },
    /// The socket may not be opened.
    #[error(
        "permission denied while trying to connect to the Docker daemon socket at {host}: {source}"
    )]
    Denied { host: String, source: io::Error },
    /// The daemon's address cannot be used.
    #[error("Failed to initialize: unable to resolve docker endpoint: {why}: {host}")]
    Host { host: String, why: String },
    /// The connection broke or spoke no HTTP.
    #[error("error during connect: {attempt}: {cause}")]
    Connection { attempt: String, cause: String },
    /// The daemon went away while we listened, and did not come back.
    #[error("the daemon at {host} went away and was not back within {seconds} s: {cause}")]
    Gone {
        host: String,
        seconds: u64,
        cause: String,
    },
    /// The daemon refused.
    #[error("Error response from daemon: {message}")]
    Refused { status: u16, message: String },
    /// The answer is not what the API says.
    #[error("decode the answer to {attempt}: {source}")]
    Decode {
        attempt: String,
        source: serde_json::Error,
    },
}

impl ClientError {
    /// The daemon does not have what was asked for.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, ClientError::Refused { status: 404, .. })
    }
}

/// A client of one daemon.
#[derive(Debug)]
pub(crate) struct Client {
    host: String,
    address: transport::Address,
    pinned: Option<String>,
    headers: Vec<(String, String)>,
    traceparent: String,
    ping: OnceCell<Ping>,
    /// How long a daemon that went away is waited for.
    reconnect: std::time::Duration,
}

/// What the daemon told of itself when it was first asked.
#[derive(Debug, Clone)]
pub(crate) struct Ping {
    /// The version that all requests use.
    pub(crate) version: String,
}

impl Client {
    /// A client for the daemon that the configuration names. Nothing is sent yet.
    pub(crate) fn new(config: &Config) -> Result<Client, ClientError> {
        Ok(Client {
            host: config.host.clone(),
            address: transport::Address::parse(&config.host, config.tls.as_ref())?,
            pinned: config.api_version.clone(),
            headers: config.file.http_headers.clone().into_iter().collect(),
            traceparent: traceparent(),
            ping: OnceCell::new(),
            reconnect: config.reconnect,
        })
    }

    /// The version of the API: the lower of ours and the daemon's, or the pinned one.
    pub(crate) async fn version(&self) -> Result<&str, ClientError> {
        let ping = self.ping.get_or_try_init(|| self.negotiate()).await?;
        Ok(&ping.version)
    }

    /// Whether the agreed version is at least this one.
    pub(crate) async fn speaks(&self, least: &str) -> Result<bool, ClientError> {
        Ok(number(self.version().await?) >= number(least))
    }

    async fn negotiate(&self) -> Result<Ping, ClientError> {
        let answer = self
            .request(hyper::Method::HEAD, "/_ping")
            .unversioned()
            .send_unchecked()
            .await?;
        let answer = match answer.status() {
            200 => answer,
            // The first daemons, and some proxies before newer ones, know no HEAD.
            _ => self.get("/_ping").unversioned().send_unchecked().await?,
        };
        let own = proto::engine::API_VERSION;
        let version = match (&self.pinned, answer.header("Api-Version")) {
            (Some(pinned), _) => pinned.trim_start_matches('v').to_string(),
            (None, Some(theirs)) if number(&theirs) < number(own) => theirs,
            (None, Some(_)) => own.to_string(),
            // A daemon that does not tell its version is one of the first that had one.
            (None, None) => proto::engine::MIN_API_VERSION.to_string(),
        };
        Ok(Ping { version })
    }

    /// Whether the daemon shares our clock, because it runs on this machine.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.address, transport::Address::Unix(_))
    }

    /// A connection on which nothing has been said.
    pub(crate) async fn raw(&self) -> Result<transport::Stream, ClientError> {
        transport::connect(&self.host, &self.address).await
    }

    pub(crate) fn request(&self, method: hyper::Method, path: &str) -> Request<'_> {
        Request::new(self, method, path)
    }

    pub(crate) fn get(&self, path: &str) -> Request<'_> {
        self.request(hyper::Method::GET, path)
    }

    pub(crate) fn post(&self, path: &str) -> Request<'_> {
        self.request(hyper::Method::POST, path)
    }

    pub(crate) fn delete(&self, path: &str) -> Request<'_> {
        self.request(hyper::Method::DELETE, path)
    }
}

/// A version such as 1.41 as numbers that compare.
fn number(version: &str) -> (u32, u32) {
    let (major, minor) = version
        .trim_start_matches('v')
        .split_once('.')
        .unwrap_or((version, "0"));
    (major.parse().unwrap_or(0), minor.parse().unwrap_or(0))
}

/// A new W3C trace for this command: the daemon and all below it carry it on.
fn traceparent() -> String {
    let mut bytes = [0u8; 24];
    let read = std::fs::File::open("/dev/urandom")
        .and_then(|mut file| io::Read::read_exact(&mut file, &mut bytes));
    if read.is_err() {
        // Without a source of randomness the time must do: a trace id need not be secret.
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |d| d.as_nanos());
        bytes[..16].copy_from_slice(&(now ^ (u128::from(std::process::id()) << 96)).to_be_bytes());
        bytes[23] = 1;
    }
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("00-{}-{}-01", &hex[..32], &hex[32..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(number("1.9") < number("1.41"));
        assert!(number("v1.53") > number("1.50"));
        assert_eq!(number("x"), (0, 0));
    }

    #[test]
    fn a_trace_is_well_formed() {
        let trace = traceparent();
        assert!(proto::trace::trace_id(&trace).is_some(), "{trace}");
        assert_ne!(trace, traceparent());
    }
}
