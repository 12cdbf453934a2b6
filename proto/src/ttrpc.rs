//! Typed glue over the `ttrpc` crate: prost messages in raw payloads.
//!
//! The generated `*_ttrpc` modules use it; so do servers for their errors. The crate's own message backends are of no use
//! here, as they would bring a second set of messages. Async; needs a running tokio runtime of any flavour.

use std::collections::HashMap;
use std::future::Future;
use std::marker::PhantomData;
use std::time::Duration;

pub use ::ttrpc::Code;
use ::ttrpc::r#async::MethodHandler;
pub use ::ttrpc::r#async::{Client, Service, TtrpcContext};
use ::ttrpc::proto::KeyValue;
use ::ttrpc::{Error, Request, Response};
pub use async_trait::async_trait;
use prost::Message;

use crate::error::ErrorKind;

/// Metadata key of the containerd namespace over ttrpc (it differs from gRPC's).
pub const NAMESPACE_KEY: &str = "containerd-namespace-ttrpc";

/// The error of a ttrpc call: a gRPC status code and a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What kind of error.
    pub kind: ErrorKind,
    /// The text for the client.
    pub message: String,
}

impl Status {
    /// An error of `kind` with `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::RpcStatus(status) => Self {
                kind: ErrorKind::from_code(status.code.value()),
                message: status.message,
            },
            // The crate has no variant of its own for a deadline that it enforced first.
            Error::Others(text) if text == "Request deadline elapsed" => {
                Self::new(ErrorKind::DeadlineExceeded, "no answer within the deadline")
            }
            other => Self::new(ErrorKind::Unavailable, other.to_string()),
        }
    }
}

/// What travels beside a request.
#[derive(Debug, Clone, Default)]
pub struct Call {
    /// The containerd namespace, where the service wants one.
    pub namespace: Option<String>,
    /// The W3C trace of the request that caused this one.
    pub traceparent: Option<String>,
}

impl Call {
    /// A call in a containerd namespace.
    pub fn in_namespace(namespace: impl Into<String>) -> Self {
        Self {
            namespace: Some(namespace.into()),
            traceparent: None,
        }
    }

    /// What a server reads back from a request's metadata.
    pub fn from_context(ctx: &TtrpcContext) -> Self {
        let first = |key: &str| ctx.metadata.get(key).and_then(|v| v.first()).cloned();
        Self {
            namespace: first(NAMESPACE_KEY),
            traceparent: first(crate::trace::TRACEPARENT),
        }
    }

    fn metadata(&self) -> Vec<KeyValue> {
        let mut out = Vec::new();
        let mut push = |key: &str, value: &Option<String>| {
            if let Some(value) = value {
                let mut pair = KeyValue::new();
                pair.key = key.to_owned();
                pair.value.clone_from(value);
                out.push(pair);
            }
        };
        push(NAMESPACE_KEY, &self.namespace);
        push(crate::trace::TRACEPARENT, &self.traceparent);
        out
    }
}

/// Calls `service/method` and decodes the answer. `timeout` is enforced here and told to the server.
pub async fn call<Q: Message, A: Message + Default>(
    client: &Client,
    service: &str,
    method: &str,
    call: &Call,
    timeout: Option<Duration>,
    request: &Q,
) -> Result<A, Status> {
    let mut wire = Request::new();
    wire.service = service.to_owned();
    wire.method = method.to_owned();
    wire.payload = request.encode_to_vec();
    wire.timeout_nano = timeout.map_or(0, |t| i64::try_from(t.as_nanos()).unwrap_or(i64::MAX));
    wire.metadata = call.metadata();
    let answer = match timeout {
        None => client.request(wire).await,
        Some(limit) => tokio_timeout(limit, client.request(wire))
            .await
            .ok_or_else(|| {
                Status::new(
                    ErrorKind::DeadlineExceeded,
                    format!("{service}/{method}: no answer within {limit:?}"),
                )
            })?,
    }?;
    A::decode(answer.payload.as_slice()).map_err(|e| {
        Status::new(
            ErrorKind::Internal,
            format!("{service}/{method}: decode answer: {e}"),
        )
    })
}

async fn tokio_timeout<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    tokio::time::timeout(limit, future).await.ok()
}

/// The answer of a method that a server leaves out.
pub fn unimplemented(service: &str, method: &str) -> Status {
    Status::new(
        ErrorKind::Unimplemented,
        format!("method {method} of {service} is not implemented"),
    )
}

/// Methods of one service by name.
#[derive(Default)]
pub struct Methods(HashMap<String, Box<dyn MethodHandler + Send + Sync>>);

impl std::fmt::Debug for Methods {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl Methods {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one method.
    pub fn add(&mut self, name: &str, method: impl MethodHandler + Send + Sync + 'static) {
        self.0.insert(name.to_owned(), Box::new(method));
    }
}

/// The dispatch table of one service.
pub fn table(service: &str, methods: Methods) -> HashMap<String, Service> {
    let service_entry = Service {
        methods: methods.0,
        streams: HashMap::new(),
    };
    HashMap::from([(service.to_owned(), service_entry)])
}

/// One unary method as a function from message to message.
pub struct Method<Q, F> {
    function: F,
    request: PhantomData<fn(Q)>,
}

impl<Q, F> std::fmt::Debug for Method<Q, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Method")
    }
}

impl<Q, F> Method<Q, F> {
    /// Wraps `function`.
    pub fn new(function: F) -> Self {
        Self {
            function,
            request: PhantomData,
        }
    }
}

#[async_trait]
impl<Q, A, F, R> MethodHandler for Method<Q, F>
where
    Q: Message + Default + 'static,
    A: Message + 'static,
    F: Fn(TtrpcContext, Q) -> R + Send + Sync + 'static,
    R: Future<Output = Result<A, Status>> + Send + 'static,
{
    async fn handler(&self, ctx: TtrpcContext, wire: Request) -> ::ttrpc::Result<Response> {
        let result = match Q::decode(wire.payload.as_slice()) {
            Ok(request) => (self.function)(ctx, request).await,
            Err(e) => Err(Status::new(
                ErrorKind::InvalidArgument,
                format!("{}/{}: decode request: {e}", wire.service, wire.method),
            )),
        };
        // An `Err` from here would reach the client as code Unknown with a debug print; a status in the answer goes as it is.
        let mut response = Response::new();
        match result {
            Ok(answer) => {
                response.set_status(::ttrpc::get_status(Code::OK, ""));
                response.payload = answer.encode_to_vec();
            }
            Err(status) => {
                let code = wire_code(status.kind);
                response.set_status(::ttrpc::get_status(code, &status.message));
            }
        }
        Ok(response)
    }
}

fn wire_code(kind: ErrorKind) -> Code {
    match kind.code() {
        1 => Code::CANCELLED,
        3 => Code::INVALID_ARGUMENT,
        4 => Code::DEADLINE_EXCEEDED,
        5 => Code::NOT_FOUND,
        6 => Code::ALREADY_EXISTS,
        7 => Code::PERMISSION_DENIED,
        8 => Code::RESOURCE_EXHAUSTED,
        9 => Code::FAILED_PRECONDITION,
        10 => Code::ABORTED,
        11 => Code::OUT_OF_RANGE,
        12 => Code::UNIMPLEMENTED,
        13 => Code::INTERNAL,
        14 => Code::UNAVAILABLE,
        16 => Code::UNAUTHENTICATED,
        _ => Code::UNKNOWN,
    }
}
