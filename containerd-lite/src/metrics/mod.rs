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

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use tokio::sync::Mutex;

use crate::runtime::Runtime;
use crate::web::{Answer, Site, text};
pub(crate) use calls::{Calls, Count};
use page::{Kind, Page};

/// Where the page is.
const PATH: &str = "/v1/metrics";

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
}

impl Site for Metrics {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let plain = |status, words| text(status, "text/plain; version=0.0.4; charset=utf-8", words);
        match (request.method(), request.uri().path()) {
            (&Method::GET, PATH) => plain(StatusCode::OK, self.text().await),
            (_, PATH) => plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
            _ => plain(StatusCode::NOT_FOUND, format!("only {PATH} is here\n")),
        }
    }
}
