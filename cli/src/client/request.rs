//! One request and its answer.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::transport::{self, Hijacked};
use super::{Client, ClientError};

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The receiving end of a body that is made while it is sent.
pub(crate) type Upload = mpsc::Receiver<io::Result<Bytes>>;

/// A request being put together.
pub(crate) struct Request<'a> {
    client: &'a Client,
    method: Method,
    path: String,
    query: BTreeMap<&'static str, Vec<String>>,
    headers: Vec<(&'static str, String)>,
    body: Body,
    unversioned: bool,
}

impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

impl<'a> Request<'a> {
    pub(super) fn new(client: &'a Client, method: Method, path: &str) -> Request<'a> {
        Request {
            client,
            method,
            path: path.to_string(),
            query: BTreeMap::new(),
            headers: Vec::new(),
            body: full(Bytes::new()),
            unversioned: false,
        }
    }

    /// Adds a query parameter; keys come out sorted.
    pub(crate) fn query(mut self, key: &'static str, value: impl ToString) -> Self {
        self.query.entry(key).or_default().push(value.to_string());
        self
    }

    /// Adds a query parameter if there is something to say.
    pub(crate) fn query_some(self, key: &'static str, value: &str) -> Self {
        if value.is_empty() {
            self
        } else {
            self.query(key, value)
        }
    }

    /// Adds `key=1` if it is so.
    pub(crate) fn query_if(self, key: &'static str, yes: bool) -> Self {
        if yes { self.query(key, "1") } else { self }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sends a value as JSON.
    pub(crate) fn json_body(mut self, value: &impl Serialize) -> Self {
        let text = serde_json::to_vec(value).expect("wire types have string keys and plain values");
        self.body = full(text.into());
        self.header("Content-Type", "application/json")
    }

    /// Sends a body that arrives in pieces.
    pub(crate) fn upload(mut self, kind: &str, pieces: Upload) -> Self {
        let pieces = futures_util::stream::unfold(pieces, |mut pieces| async {
            pieces.recv().await.map(|piece| (piece, pieces))
        });
        self.body = BodyExt::boxed_unsync(StreamBody::new(pieces.map_ok(Frame::data)));
        self.header("Content-Type", kind)
    }

    pub(crate) fn unversioned(mut self) -> Self {
        self.unversioned = true;
        self
    }

    /// Sends it and gives the answer whatever its status.
    pub(crate) async fn send_unchecked(self) -> Result<Answer, ClientError> {
        let client = self.client;
        let mut target = if self.unversioned {
            self.path.clone()
        } else {
            // A boxed future, because asking for the version is a request too.
            format!("/v{}{}", Box::pin(client.version()).await?, self.path)
        };
        let mut joint = '?';
        for (key, values) in &self.query {
            for value in values {
                let _ = write!(target, "{joint}{key}={}", escape(value));
                joint = '&';
            }
        }
        let attempt = format!("{} {}{target}", self.method, client.host);
        let broken = |cause: &(dyn std::error::Error + 'static)| ClientError::Connection {
            attempt: attempt.clone(),
            cause: innermost(cause),
        };
        let mut request = hyper::Request::builder()
            .method(self.method)
            .uri(target)
            .header("Host", "docker")
            .header(
                "User-Agent",
                concat!("Docker-Lite/", env!("CARGO_PKG_VERSION"), " (linux)"),
            )
            .header(proto::trace::TRACEPARENT, &client.traceparent);
        for (name, value) in &client.headers {
            request = request.header(name, value);
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let request = request.body(self.body).map_err(|cause| broken(&cause))?;
        let stream = transport::connect(&client.host, &client.address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|cause| broken(&cause))?;
        // The task ends with its connection, and the connection with the answer.
        tokio::spawn(connection.with_upgrades());
        let response = sender
            .send_request(request)
            .await
            .map_err(|cause| broken(&cause))?;
        Ok(Answer { response, attempt })
    }

    /// Sends it and turns a status of failure into an error with the daemon's words.
    pub(crate) async fn send(self) -> Result<Answer, ClientError> {
        let answer = self.send_unchecked().await?;
        let status = answer.status();
        if status < 400 {
            Ok(answer)
        } else {
            Err(answer.refusal().await)
        }
    }

    /// Sends it and reads the answer as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(self) -> Result<T, ClientError> {
        let answer = self.send().await?;
        let attempt = answer.attempt.clone();
        let bytes = answer.bytes().await?;
        serde_json::from_slice(&bytes).map_err(|source| ClientError::Decode { attempt, source })
    }

    /// Sends it and reads the answer as it is.
    pub(crate) async fn bytes(self) -> Result<Bytes, ClientError> {
        self.send().await?.bytes().await
    }

    /// Sends it; the answer has nothing to tell but success.
    pub(crate) async fn done(self) -> Result<(), ClientError> {
        self.bytes().await.map(drop)
    }

    /// Sends it and takes the connection over once the daemon agrees.
    pub(crate) async fn hijack(self) -> Result<Hijacked, ClientError> {
        let answer = self
            .header("Connection", "Upgrade")
            .header("Upgrade", "tcp")
            .send()
            .await?;
        let attempt = answer.attempt.clone();
        if answer.status() != 101 {
            let cause = format!(
                "the daemon answered {} and did not hand over the connection",
                answer.status()
            );
            return Err(ClientError::Connection { attempt, cause });
        }
        match hyper::upgrade::on(answer.response).await {
            Ok(upgraded) => Ok(Hijacked {
                io: TokioIo::new(upgraded),
            }),
            Err(cause) => Err(ClientError::Connection {
                attempt,
                cause: innermost(&cause),
            }),
        }
    }
}

/// An answer whose body has not been read yet.
#[derive(Debug)]
pub(crate) struct Answer {
    response: Response<Incoming>,
    attempt: String,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_string)
    }

    /// The next piece of the body, or none at its end.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match self.response.body_mut().frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => return Ok(Some(data)),
                    Err(_trailers) => continue,
                },
                Some(Err(cause)) => {
                    return Err(ClientError::Connection {
                        attempt: self.attempt.clone(),
                        cause: innermost(&cause),
                    });
                }
            }
        }
    }

    pub(crate) async fn bytes(mut self) -> Result<Bytes, ClientError> {
        let mut all = Vec::new();
        while let Some(piece) = self.piece().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all.into())
    }

    /// The error for an answer that ended where it should not.
    pub(crate) fn broken(&self, cause: &str) -> ClientError {
        ClientError::Connection {
            attempt: self.attempt.clone(),
            cause: cause.to_string(),
        }
    }

    async fn refusal(self) -> ClientError {
        let (status, reason) = (
            self.status(),
            self.response
                .status()
                .canonical_reason()
                .unwrap_or("unknown status"),
        );
        let text = match self.bytes().await {
            Ok(text) => text,
            Err(error) => return error,
        };
        let message = match serde_json::from_slice::<proto::engine::ErrorBody>(&text) {
            Ok(body) => body.message,
            Err(_) => String::from_utf8_lossy(&text).trim().to_string(),
        };
        let message = if message.is_empty() {
            format!("{status} {reason}")
        } else {
            message.trim().to_string()
        };
        ClientError::Refused { status, message }
    }
}

fn full(bytes: Bytes) -> Body {
    BodyExt::boxed_unsync(Full::new(bytes).map_err(|never| match never {}))
}

/// The cause at the root of an error: what happened, without who passed it on.
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    loop {
        if let Some(text) = error.downcast_ref().and_then(super::tls::told) {
            return text;
        }
        // An io::Error passes over the error that it carries, and tells of that one's cause.
        let carried = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        error = match (carried, error.source()) {
            (Some(carried), _) => carried,
            (None, Some(source)) => source,
            (None, None) => return error.to_string(),
        };
    }
}

/// Escapes a value for a query.
fn escape(value: &str) -> String {
    escape_but(value, b"-_.~")
}

/// Escapes a name for a path; the slashes and colons of image names stay.
pub(crate) fn escape_path(value: &str) -> String {
    escape_but(value, b"-_.~/:@")
}

fn escape_but(value: &str, plain: &[u8]) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_and_paths_are_escaped() {
        assert_eq!(escape(r#"{"a b":true}"#), "%7B%22a%20b%22%3Atrue%7D");
        assert_eq!(
            escape_path("reg:5000/a b@sha256:0"),
            "reg:5000/a%20b@sha256:0"
        );
    }
}
