//! Questions to a parent on its socket: one request, one answer.

use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::error::{During, Error, Result};

/// More than this is no answer of a parent.
const LONGEST: usize = 1 << 20;

/// Asks; an answer without a body is null.
pub(super) async fn call(
    socket: &Path,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<Value> {
    let what = || format!("{method} {path} at {}", socket.display());
    let wrong = |e: &dyn std::fmt::Display| Error::unavailable(e.to_string()).during(what());
    let stream = tokio::net::UnixStream::connect(socket).await.during(what)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| wrong(&e))?;
    let connection = tokio::spawn(connection);
    let text = body.map(Value::to_string).unwrap_or_default();
    let request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "rootless")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(text)))
        .map_err(|e| wrong(&e))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|e| wrong(&e))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        let body = body.map_err(|e| wrong(&e))?.to_bytes();
        if !status.is_success() {
            let text = String::from_utf8_lossy(&body).into_owned();
            return Err(Error::internal(text.trim()).during(what()));
        }
        match body.is_empty() {
            true => Ok(Value::Null),
            false => serde_json::from_slice(&body).map_err(|e| wrong(&e)),
        }
    }
    .await;
    connection.abort();
    answer
}
