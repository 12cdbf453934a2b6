//! The daemon about itself: ping, version, info.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use proto::engine::{API_VERSION, ComponentVersion, MIN_API_VERSION, PlatformInfo, SystemVersion};

use crate::App;
use crate::backend::within;

/// The routes of this noun.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/_ping", get(ping))
        .route("/version", get(version))
}

async fn ping() -> Response {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("builder-version", "1"),
        ("swarm", "inactive"),
        ("cache-control", "no-cache, no-store, must-revalidate"),
        ("pragma", "no-cache"),
        ("content-type", "text/plain; charset=utf-8"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    (headers, "OK").into_response()
}

async fn version(State(app): State<Arc<App>>) -> Response {
    let kernel = rustix::system::uname();
    let text = |s: &std::ffi::CStr| s.to_string_lossy().into_owned();
    let commit = env!("GIT_COMMIT");
    let details = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().filter(|(_, value)| !value.is_empty());
        Some(BTreeMap::from_iter(
            pairs.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
        ))
    };
    let mut components = vec![ComponentVersion {
        name: "Engine".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        details: details(&[
            ("ApiVersion", API_VERSION),
            ("MinAPIVersion", MIN_API_VERSION),
            ("Arch", arch()),
            ("Os", "linux"),
            ("KernelVersion", &text(kernel.release())),
            ("GitCommit", commit),
            ("Experimental", "false"),
        ]),
    }];
    // Whoever asks for the version wants it now; a containerd that does not answer at once is left out.
    let limit = std::time::Duration::from_millis(300);
    if let Ok(below) = within(limit, app.backend.version().version(())).await {
        components.push(ComponentVersion {
            name: "containerd".into(),
            version: below.version,
            details: details(&[("GitCommit", &below.revision)]),
        });
    }
    super::ok(&SystemVersion {
        platform: Some(PlatformInfo {
            name: "docker-lite".into(),
        }),
        version: env!("CARGO_PKG_VERSION").into(),
        api_version: API_VERSION.into(),
        min_api_version: MIN_API_VERSION.into(),
        os: "linux".into(),
        arch: arch().into(),
        components,
        git_commit: commit.into(),
        kernel_version: text(kernel.release()),
        ..SystemVersion::default()
    })
}

/// The machine as Go names it.
pub(crate) fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}
