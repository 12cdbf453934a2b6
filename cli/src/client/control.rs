//! What the programs of the chain tell of themselves: `lite.control.v1`.
//!
//! dockerd-lite answers by gRPC on the socket that serves REST, containerd-lite on its own, a shim by ttrpc. Each answers for
//! itself only, so the chain is walked from the top. One call of one method needs little of either protocol, and that little
//! is here: a message behind five bytes in HTTP/2, or behind ten on a socket.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use proto::lite::control::v1::StatusResponse;
use proto::prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::transport::{self, Address, Stream};
use super::{Client, ClientError};

/// The longest that a program may take to tell of itself.
const PATIENCE: Duration = Duration::from_secs(5);
const SERVICE: &str = "lite.control.v1.Control";
const METHOD: &str = "Status";
/// gRPC: one byte that says "not packed", four of length.
const PREFIX: usize = 5;
/// ttrpc: length, stream, type and flags.
const HEADER: usize = 10;
const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;
/// The largest answer that ttrpc allows.
const LARGEST: usize = 4 << 20;

/// Why a program did not tell of itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    #[error(transparent)]
    Connect(#[from] ClientError),
    #[error("the daemon at {host} does not serve lite.control.v1: it is not dockerd-lite")]
    Foreign { host: String },
    #[error("ask the program at {address} for its status: {cause}")]
    Silent { address: String, cause: String },
}

/// The request of a ttrpc call.
#[derive(Clone, PartialEq, proto::prost::Message)]
#[prost(prost_path = "proto::prost")]
struct Call {
    #[prost(string, tag = "1")]
    service: String,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(bytes = "vec", tag = "3")]
    payload: Vec<u8>,
    #[prost(int64, tag = "4")]
    timeout_nano: i64,
}

/// Its response.
#[derive(Clone, PartialEq, proto::prost::Message)]
#[prost(prost_path = "proto::prost")]
struct Returned {
    #[prost(message, optional, tag = "1")]
    status: Option<CallStatus>,
    #[prost(bytes = "vec", tag = "2")]
    payload: Vec<u8>,
}

#[derive(Clone, PartialEq, proto::prost::Message)]
#[prost(prost_path = "proto::prost")]
struct CallStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// The status of the daemon that the client is for.
pub(crate) async fn daemon(client: &Client) -> Result<StatusResponse, ControlError> {
    // A daemon that speaks the Engine API and not this one is a foreign one, not a broken one.
    client.version().await?;
    let stream = client.raw().await?;
    grpc(stream, &client.traceparent)
        .await
        .map_err(|_| ControlError::Foreign {
            host: client.host.clone(),
        })
}

/// The status of a program below the daemon, on a unix socket of this machine.
pub(crate) async fn below(client: &Client, address: &str) -> Result<StatusResponse, ControlError> {
    let path = address.strip_prefix("unix://").unwrap_or(address);
    let stream = transport::connect(address, &Address::Unix(path.into())).await?;
    grpc(stream, &client.traceparent)
        .await
        .map_err(|cause| ControlError::Silent {
            address: address.to_string(),
            cause,
        })
}

async fn grpc(stream: Stream, traceparent: &str) -> Result<StatusResponse, String> {
    let ask = async {
        let text = |cause: hyper::Error| cause.to_string();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(text)?;
        // It ends with its sender.
        let serving = tokio::spawn(connection);
        let request = hyper::Request::post(format!("http://docker/{SERVICE}/{METHOD}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header(proto::trace::TRACEPARENT, traceparent)
            .body(Full::new(Bytes::from_static(&[0; PREFIX])))
            .map_err(|cause| cause.to_string())?;
        let response = sender.send_request(request).await.map_err(text)?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(text)?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let status = [&trailers, &head.headers]
            .into_iter()
            .find_map(|headers| headers.get("grpc-status")?.to_str().ok());
        let answer = match (head.status.as_u16(), status) {
            (200, Some("0")) => body.to_bytes(),
            (code, status) => return Err(format!("answer {code}, status {status:?}")),
        };
        serving.abort();
        let message = answer.get(PREFIX..).ok_or("the answer is cut")?;
        StatusResponse::decode(message).map_err(|cause| cause.to_string())
    };
    match tokio::time::timeout(PATIENCE, ask).await {
        Ok(told) => told,
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// The status of a shim.
pub(crate) async fn shim(socket: &Path) -> Result<StatusResponse, ControlError> {
    let told = match tokio::time::timeout(PATIENCE, ttrpc(socket)).await {
        Ok(told) => told,
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    told.map_err(|cause| ControlError::Silent {
        address: format!("unix://{}", socket.display()),
        cause,
    })
}

async fn ttrpc(socket: &Path) -> Result<StatusResponse, String> {
    let text = |cause: std::io::Error| cause.to_string();
    let mut stream = UnixStream::connect(socket).await.map_err(text)?;
    let call = Call {
        service: SERVICE.to_string(),
        method: METHOD.to_string(),
        payload: Vec::new(),
        timeout_nano: i64::try_from(PATIENCE.as_nanos()).unwrap_or(i64::MAX),
    }
    .encode_to_vec();
    let length = u32::try_from(call.len()).map_err(|cause| cause.to_string())?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend(1u32.to_be_bytes());
    frame.extend([REQUEST, 0]);
    frame.extend(call);
    stream.write_all(&frame).await.map_err(text)?;
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).await.map_err(text)?;
    let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
    if header[8] != RESPONSE || length > LARGEST {
        return Err("the answer is no response of ttrpc".to_string());
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.map_err(text)?;
    let returned = Returned::decode(body.as_slice()).map_err(|cause| cause.to_string())?;
    match returned.status.filter(|status| status.code != 0) {
        Some(status) => Err(status.message),
        None => {
            StatusResponse::decode(returned.payload.as_slice()).map_err(|cause| cause.to_string())
        }
    }
}
