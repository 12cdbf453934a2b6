//! What this daemon knows, for those who look for a fault: `GET /debug/state` on a socket of its own, and SIGUSR1, which puts
//! the same into the log. Nothing listens unless the configuration names an address.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::content::Blobs;
use crate::metrics::Calls;
use crate::runtime::Runtime;
use crate::web::{Answer, Site, text};

/// Where the state is.
const PATH: &str = "/debug/state";

/// Who knows something.
#[derive(Debug)]
pub(crate) struct Debug {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) blobs: Arc<Blobs>,
    pub(crate) calls: Arc<Calls>,
    pub(crate) started_at: crate::time::Nanos,
}

impl Debug {
    /// All of it. Takes no lock for longer than a copy, and asks no shim.
    fn state(&self) -> Value {
        let mut writing: Vec<_> = self.blobs.active().into_iter().collect();
        writing.sort();
        json!({
            "version": crate::version::VERSION,
            "revision": crate::version::REVISION,
            "pid": std::process::id(),
            "started_at": crate::time::to_rfc3339(self.started_at),
            "tasks": self.runtime.dump(),
            "writing": writing,
            "calls_under_way": self.calls.under_way(),
        })
    }

    /// Puts the state into the log at each SIGUSR1, until `stop`.
    pub(crate) fn log_on_signal(self: Arc<Self>, stop: CancellationToken) -> std::io::Result<()> {
        let mut asked = signal(SignalKind::user_defined1())?;
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    got = asked.recv() => if got.is_none() { return },
                }
                tracing::info!("state: {}", self.state());
            }
        });
        Ok(())
    }
}

impl Site for Debug {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        match (request.method(), request.uri().path()) {
            (&Method::GET, PATH) => {
                let state = format!("{:#}\n", self.state());
                text(StatusCode::OK, "application/json", state)
            }
            _ => {
                let words = format!("only GET {PATH} is here\n");
                text(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", words)
            }
        }
    }
}
