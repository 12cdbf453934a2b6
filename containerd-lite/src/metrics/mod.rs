//! What this daemon and its containers use, in Prometheus' text form over HTTP.
//!
//! ```text
//!  GET /v1/metrics ─▶ page ◀─ calls     counted by a layer around the gRPC services, always
//!                      ▲
//!                      └───── cgroups   read when asked: one pass over the tasks that run
//! ```
//!
//! Nothing listens unless the configuration names an address. Names, units and labels are the real daemon's, so its
//! dashboards work. One page is made at a time: who asks more often than that waits, so that asking cannot starve calls.

mod calls;
mod cgroups;
mod page;

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::runtime::Runtime;
pub(crate) use calls::{Calls, Count};
use page::{Kind, Page};

/// Where the page is.
const PATH: &str = "/v1/metrics";
/// Connections at one time; a collector has one.
const CONNECTIONS: usize = 16;
/// How long a client may take to say what it wants.
const HEADERS: std::time::Duration = std::time::Duration::from_secs(10);
/// Pause after a failed accept, which is most often a lack of descriptors.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// What the page is made of.
#[derive(Debug)]
pub(crate) struct Metrics {
    calls: Arc<Calls>,
    runtime: Arc<Runtime>,
    one: Mutex<()>,
}

impl Metrics {
    /// Of these calls and these tasks.
    pub(crate) fn new(calls: Arc<Calls>, runtime: Arc<Runtime>) -> Arc<Self> {
        Arc::new(Self {
            calls,
            runtime,
            one: Mutex::default(),
        })
    }

    async fn text(&self) -> String {
        let _one = self.one.lock().await;
        let mut page = Page::default();
        let version = [
            ("revision", crate::version::REVISION),
            ("version", crate::version::VERSION),
        ];
        page.put(
            "containerd_build_info_total",
            Kind::Counter,
            "containerd build information",
            &version,
            1,
        );
        self.calls.show(&mut page);
        let running = self.runtime.running();
        let filled = tokio::task::spawn_blocking(move || {
            cgroups::show(&mut page, &running);
            page.into_text()
        });
        filled.await.expect("reading cgroups does not panic")
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let plain = |status, text: String| {
            let mut answer = Response::new(Full::new(Bytes::from(text)));
            *answer.status_mut() = status;
            let kind = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            answer
                .headers_mut()
                .insert(http::header::CONTENT_TYPE, kind);
            answer
        };
        match (request.method(), request.uri().path()) {
            (&Method::GET, PATH) => plain(StatusCode::OK, self.text().await),
            (_, PATH) => plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
            _ => plain(StatusCode::NOT_FOUND, format!("only {PATH} is here\n")),
        }
    }
}

/// Serves the page until `stop`.
pub(crate) async fn serve(listener: TcpListener, metrics: Arc<Metrics>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = places.clone().acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept a connection for metrics");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let metrics = metrics.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request| {
                let metrics = metrics.clone();
                async move { Ok::<_, Infallible>(metrics.answer(request).await) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS)
                .serve_connection(TokioIo::new(stream), answer)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection for metrics broke off");
            }
            drop(place);
        });
    }
}
