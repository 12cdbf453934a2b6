//! Calls of the gRPC services: how many began, how each ended, and how long it took.
//!
//! A layer around all services counts. A call has ended when its last bytes, the trailers with the status, are on their way,
//! or when the client has left before that, which counts as cancelled.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Instant;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tonic::Code;

use super::page::{Kind, Page};

/// Upper ends of the buckets in seconds; the last has none.
const BUCKETS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Methods that are counted at most: paths come from clients.
const METHODS: usize = 512;
/// Names of the status codes by number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
/// Methods that are more than one question and one answer.
const STREAMS: [(&str, &str); 8] = [
    (
        "containerd.services.content.v1.Content/List",
        "server_stream",
    ),
    (
        "containerd.services.content.v1.Content/Read",
        "server_stream",
    ),
    (
        "containerd.services.content.v1.Content/Write",
        "bidi_stream",
    ),
    (
        "containerd.services.containers.v1.Containers/ListStream",
        "server_stream",
    ),
    (
        "containerd.services.events.v1.Events/Subscribe",
        "server_stream",
    ),
    (
        "containerd.services.snapshots.v1.Snapshots/List",
        "server_stream",
    ),
    (
        "containerd.services.streaming.v1.Streaming/Stream",
        "bidi_stream",
    ),
    ("grpc.health.v1.Health/Watch", "server_stream"),
];

/// What is counted of one method.
#[derive(Debug, Clone, Default)]
struct Tally {
    started: u64,
    ended: [u64; CODES.len()],
    buckets: [u64; BUCKETS.len()],
    seconds: f64,
}

/// The counters of all methods.
#[derive(Debug)]
pub(crate) struct Calls {
    histogram: bool,
    methods: Mutex<BTreeMap<String, Tally>>,
}

impl Calls {
    /// Counters at zero; `histogram` shows how long calls took as well.
    pub(crate) fn new(histogram: bool) -> Arc<Self> {
        Arc::new(Self {
            histogram,
            methods: Mutex::default(),
        })
    }

    fn note(&self, method: &str, change: impl FnOnce(&mut Tally)) {
        let mut methods = self.methods.lock().expect("no panic under this lock");
        if let Some(tally) = methods.get_mut(method) {
            change(tally);
        } else if methods.len() < METHODS {
            change(methods.entry(method.to_owned()).or_default());
        }
    }

    /// How many calls of each method have not ended yet.
    pub(crate) fn under_way(&self) -> BTreeMap<String, u64> {
        let methods = self.methods.lock().expect("no panic under this lock");
        methods
            .iter()
            .map(|(method, tally)| {
                let ended: u64 = tally.ended.iter().sum();
                (method.clone(), tally.started.saturating_sub(ended))
            })
            .filter(|(_, open)| *open > 0)
            .collect()
    }

    /// Puts the counters on a page.
    pub(super) fn show(&self, page: &mut Page) {
        let methods = self
            .methods
            .lock()
            .expect("no panic under this lock")
            .clone();
        for (path, tally) in methods {
            let Some((service, method)) = path.split_once('/') else {
                continue;
            };
            let stream = STREAMS.iter().find(|(name, _)| *name == path);
            let labels = [
                ("grpc_method", method),
                ("grpc_service", service),
                ("grpc_type", stream.map_or("unary", |(_, kind)| kind)),
            ];
            page.put(
                "grpc_server_started_total",
                Kind::Counter,
                "Total number of RPCs started on the server.",
                &labels,
                tally.started,
            );
            for (code, ended) in CODES.iter().zip(tally.ended).filter(|(_, n)| *n > 0) {
                let [method, service, kind] = labels;
                page.put(
                    "grpc_server_handled_total",
                    Kind::Counter,
                    "Total number of RPCs completed on the server, regardless of success or failure.",
                    &[("grpc_code", code), method, service, kind],
                    ended,
                );
            }
            if self.histogram {
                show_times(page, &labels, &tally);
            }
        }
    }
}

fn show_times(page: &mut Page, labels: &[(&str, &str); 3], tally: &Tally) {
    let mut put = |part: &str, labels: &[(&str, &str)], value: f64| {
        page.put_part(
            "grpc_server_handling_seconds",
            part,
            Kind::Histogram,
            "Histogram of response latency (seconds) of gRPC that had been application-level handled by the server.",
            labels,
            value,
        );
    };
    let [method, service, kind] = *labels;
    let mut below = 0;
    for (end, count) in BUCKETS.iter().zip(tally.buckets) {
        below += count;
        put(
            "_bucket",
            &[method, service, kind, ("le", &end.to_string())],
            below as f64,
        );
    }
    let all: u64 = tally.ended.iter().sum();
    put(
        "_bucket",
        &[method, service, kind, ("le", "+Inf")],
        all as f64,
    );
    put("_sum", labels, tally.seconds);
    put("_count", labels, all as f64);
}

/// One call under way. Dropping it without a status means that the client has left.
#[derive(Debug)]
struct Call {
    calls: Arc<Calls>,
    method: String,
    begun: Instant,
    code: Option<Code>,
}

impl Call {
    fn begin(calls: &Arc<Calls>, path: &str) -> Self {
        let method = path.trim_start_matches('/').to_owned();
        calls.note(&method, |tally| tally.started += 1);
        Self {
            calls: calls.clone(),
            method,
            begun: Instant::now(),
            code: None,
        }
    }

    /// Reads the status where it may stand.
    fn look(&mut self, headers: &http::HeaderMap) {
        if let Some(status) = headers.get("grpc-status") {
            self.code = Some(Code::from_bytes(status.as_bytes()));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let code = self.code.unwrap_or(Code::Cancelled) as usize;
        let seconds = self.begun.elapsed().as_secs_f64();
        self.calls.note(&self.method, |tally| {
            tally.ended[code.min(CODES.len() - 1)] += 1;
            tally.seconds += seconds;
            if let Some(bucket) = BUCKETS.iter().position(|end| seconds <= *end) {
                tally.buckets[bucket] += 1;
            }
        });
    }
}

/// The layer.
#[derive(Debug, Clone)]
pub(crate) struct Count(pub(crate) Arc<Calls>);

impl<S> tower::Layer<S> for Count {
    type Service = Counting<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Counting {
            inner,
            calls: self.0.clone(),
        }
    }
}

/// The services with the layer around them.
#[derive(Debug, Clone)]
pub(crate) struct Counting<S> {
    inner: S,
    calls: Arc<Calls>,
}

impl<S, Q, A> tower::Service<http::Request<Q>> for Counting<S>
where
    S: tower::Service<http::Request<Q>, Response = http::Response<A>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Counted<A>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Q>) -> Self::Future {
        let mut call = Call::begin(&self.calls, request.uri().path());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            call.look(answer.headers());
            Ok(answer.map(|body| Counted { body, call }))
        })
    }
}

/// The body of an answer, watched for its trailers.
#[derive(Debug)]
pub(crate) struct Counted<B> {
    body: B,
    call: Call,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Counted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
        {
            self.call.look(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_ends_with_its_status_or_as_cancelled() {
        let calls = Calls::new(true);
        for status in [Some("0"), Some("5"), None] {
            let mut call = Call::begin(&calls, "/a.v1.S/Get");
            let mut headers = http::HeaderMap::new();
            if let Some(status) = status {
                headers.insert("grpc-status", status.parse().unwrap());
            }
            call.look(&headers);
        }
        let running = Call::begin(&calls, "/containerd.services.events.v1.Events/Subscribe");
        let mut page = Page::default();
        calls.show(&mut page);
        drop(running);
        let text = page.into_text();
        let unary = r#"grpc_method="Get",grpc_service="a.v1.S",grpc_type="unary""#;
        for wanted in [
            format!("grpc_server_started_total{{{unary}}} 3"),
            format!(r#"grpc_server_handled_total{{grpc_code="OK",{unary}}} 1"#),
            format!(r#"grpc_server_handled_total{{grpc_code="NotFound",{unary}}} 1"#),
            format!(r#"grpc_server_handled_total{{grpc_code="Canceled",{unary}}} 1"#),
            format!(r#"grpc_server_handling_seconds_bucket{{{unary},le="0.005"}} 3"#),
            format!(r#"grpc_server_handling_seconds_bucket{{{unary},le="+Inf"}} 3"#),
            format!("grpc_server_handling_seconds_count{{{unary}}} 3"),
            r#"grpc_type="server_stream"} 1"#.to_owned(),
        ] {
            assert!(text.contains(&wanted), "{wanted} in {text}");
        }
    }

    #[test]
    fn clients_cannot_make_it_grow_without_end() {
        let calls = Calls::new(false);
        for i in 0..2 * METHODS {
            drop(Call::begin(&calls, &format!("/s/{i}")));
        }
        assert_eq!(calls.methods.lock().unwrap().len(), METHODS);
    }
}
