//! The parent's answers on `api.sock`, in rootlesskit's form: who and what it is.
//!
//! Ports are published by the daemon itself, without the parent's help; so the list of ports is what `dockerd-lite net` serves, and it is
//! changed by the daemon only.

use std::future::Future;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::UnixListener;

use super::network;
use super::parent::Work;
use crate::error::{During, Result};

/// Version of the questions.
const API: &str = "1.1.1";

/// Opens the socket; what is returned answers for ever.
pub(super) fn serve(work: Work) -> Result<impl Future<Output = ()> + Send> {
    let path = work.place.api();
    let what = || format!("listen on {}", path.display());
    // Of a former one: the lock says that we are the only one.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).during(what)?;
    let router = Router::new()
        .route("/v1/info", get(info))
        .route("/v1/ports", get(ports).post(refused).delete(refused))
        .with_state(work);
    Ok(crate::server::serve_unix(listener, router))
}

async fn info(State(work): State<Work>) -> Response {
    Json(describe(&work)).into_response()
}

fn describe(work: &Work) -> Value {
    let pid = work.place.inhabitant().ok().flatten();
    json!({
        "apiVersion": API,
        "version": env!("CARGO_PKG_VERSION"),
        "stateDir": work.place.dir,
        "childPID": pid.map(|(pid, _)| pid.as_raw_nonzero().get()),
        "networkDriver": {
            "driver": work.settings.network.name(),
            "dns": [network::DNS],
            "childIP": network::CHILD_IP,
        },
        "portDriver": {"driver": super::PORT_DRIVER, "protos": ["tcp", "udp"]},
    })
}

/// What `dockerd-lite net` serves now.
async fn ports(State(work): State<Work>) -> Response {
    let socket = work.place.net_socket();
    let served = crate::volumes::blocking(move || crate::net::served(&socket)).await;
    let served = match served {
        Ok(served) => served,
        Err(e) => return (StatusCode::SERVICE_UNAVAILABLE, e.to_string()).into_response(),
    };
    let list = served.iter().zip(1..).map(|(port, id)| {
        let child = port.target.map(|target| target.ip().to_string());
        json!({
            "id": id,
            "spec": {
                "proto": port.protocol,
                "parentIP": port.listen.ip().to_string(),
                "parentPort": port.listen.port(),
                "childIP": child,
                "childPort": port.target.map(|target| target.port()),
            },
        })
    });
    Json(list.collect::<Vec<Value>>()).into_response()
}

async fn refused() -> Response {
    let text = "ports are published by the daemon: docker run -p";
    (StatusCode::NOT_IMPLEMENTED, text).into_response()
}
