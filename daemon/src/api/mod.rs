//! The Docker Engine API: version rules, then one table of routes per noun.
//!
//! A request passes [`serve`]: gRPC goes to the control service, all else loses its `/vX.Y` and gets a [`Version`]. Handlers
//! decode, call the noun, encode. Whatever no route knows, by path or by method, is 404 `page not found`, as dockerd has it.

pub(crate) mod absent;
pub(crate) mod archive;
pub(crate) mod build;
pub(crate) mod containers;
pub(crate) mod control;
pub(crate) mod disk;
pub(crate) mod error;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod hijack;
pub(crate) mod images;
pub(crate) mod leftover;
pub(crate) mod networks;
pub(crate) mod registry;
pub(crate) mod request;
pub(crate) mod streams;
pub(crate) mod system;
pub(crate) mod volumes;
mod websocket;

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use proto::engine::{API_VERSION, MIN_API_VERSION};
use serde::Serialize;
use tower::Service;

use crate::App;
use crate::backend::TRACE;

use leftover::Leftover;

pub(crate) use request::{Json, Params, Version};

/// The table of all routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .merge(system::routes())
        .merge(events::routes())
        .merge(containers::routes())
        .merge(exec::routes())
        .merge(images::routes())
        .merge(registry::routes())
        .merge(disk::routes())
        .merge(volumes::routes())
        .merge(networks::routes())
        .merge(archive::routes())
        .merge(build::routes())
        .merge(absent::routes())
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .layer(DefaultBodyLimit::disable())
        .with_state(app)
}

/// Answers one request.
pub(crate) async fn serve(
    router: Router,
    control: control::Service,
    request: Request<hyper::body::Incoming>,
) -> Result<Response, Infallible> {
    if control::is_grpc(&request) {
        return Ok(control::serve(control, request).await);
    }
    let leftover = Leftover::default();
    // who waits for leave to send (100-continue) is not made to
    let lend = !request.headers().contains_key(header::EXPECT);
    let mut request = request.map(|body| match lend {
        true => leftover.lend(Body::new(body)),
        false => Body::new(body),
    });
    let mut response = match route(request.uri()) {
        Ok((version, uri)) => {
            *request.uri_mut() = uri;
            request.extensions_mut().insert(version);
            let trace = trace(request.headers());
            let mut router = router;
            TRACE
                .scope(trace, router.call(request))
                .await
                .unwrap_or_else(|never| match never {})
        }
        Err(answer) => *answer,
    };
    leftover.drain().await;
    common_headers(response.headers_mut());
    Ok(response)
}

/// The trace of the request, or a new one.
fn trace(headers: &HeaderMap) -> String {
    headers
        .get(proto::trace::TRACEPARENT)
        .and_then(|value| value.to_str().ok())
        .filter(|value| proto::trace::trace_id(value).is_some())
        .map_or_else(
            || {
                let id = crate::random::hex(24);
                format!("00-{}-{}-01", &id[..32], &id[32..])
            },
            str::to_owned,
        )
}

/// Splits `/vX.Y` off and checks it.
fn route(uri: &Uri) -> Result<(Version, Uri), Box<Response>> {
    let Some((version, rest)) = versioned(uri.path()) else {
        return Ok((Version::max(), uri.clone()));
    };
    let parse = |text: &str| -> Option<(u32, u32)> {
        let (major, minor) = text.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let asked = parse(version).ok_or_else(|| Box::new(page_not_found()))?;
    let (max, min) = (parse(API_VERSION), parse(MIN_API_VERSION));
    if Some(asked) > max {
        let text = format!(
            "client version {version} is too new. Maximum supported API version is {API_VERSION}"
        );
        return Err(Box::new(error::message(StatusCode::BAD_REQUEST, &text)));
    }
    if Some(asked) < min {
        let text = format!(
            "client version {version} is too old. Minimum supported API version is {MIN_API_VERSION}, please upgrade your client to a newer version"
        );
        return Err(Box::new(
            (StatusCode::BAD_REQUEST, text + "\n").into_response(),
        ));
    }
    let target = match uri.query() {
        Some(query) => format!("{rest}?{query}"),
        None => rest.to_owned(),
    };
    let uri = target.parse().map_err(|_| Box::new(page_not_found()))?;
    Ok((Version(asked.1), uri))
}

/// `/v1.41/rest` as (`1.41`, `/rest`).
fn versioned(path: &str) -> Option<(&str, &str)> {
    let after = path.strip_prefix("/v")?;
    let slash = after.find('/')?;
    let (version, rest) = after.split_at(slash);
    let digits = version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    (digits && version.contains('.')).then_some((version, rest))
}

fn common_headers(headers: &mut HeaderMap) {
    let mut put = |name: &'static str, value: &'static str| {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    };
    put("api-version", API_VERSION);
    put("ostype", "linux");
    put("docker-experimental", "false");
    put(
        "server",
        concat!("Docker/", env!("CARGO_PKG_VERSION"), " (linux)"),
    );
}

async fn unknown(method: Method) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::OK.into_response();
    }
    page_not_found()
}

fn page_not_found() -> Response {
    error::message(StatusCode::NOT_FOUND, "page not found")
}

/// A JSON answer, ended by a newline.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(mut body) => {
            body.push(b'\n');
            let kind = [(header::CONTENT_TYPE, "application/json")];
            (status, kind, body).into_response()
        }
        Err(e) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("{{\"message\":\"encode answer: {e}\"}}\n"),
        )
            .into_response(),
    }
}

/// A JSON answer of status 200.
pub(crate) fn ok(value: &impl Serialize) -> Response {
    json(StatusCode::OK, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(path: &str) -> Result<(u32, String), u16> {
        match route(&path.parse().unwrap()) {
            Ok((version, uri)) => Ok((version.0, uri.to_string())),
            Err(answer) => Err(answer.status().as_u16()),
        }
    }

    #[test]
    fn versions() {
        assert_eq!(status("/_ping"), Ok((53, "/_ping".into())));
        assert_eq!(
            status("/v1.41/containers/json?all=1"),
            Ok((41, "/containers/json?all=1".into()))
        );
        assert_eq!(status("/v1.24/info"), Ok((24, "/info".into())));
        assert_eq!(status("/v1.23/info"), Err(400));
        assert_eq!(status("/v1.54/info"), Err(400));
        assert_eq!(status("/v2.0/info"), Err(400));
        assert_eq!(status("/v1.4x/info"), Ok((53, "/v1.4x/info".into())));
        assert_eq!(status("/v1.41"), Ok((53, "/v1.41".into())));
        assert_eq!(status("/volumes"), Ok((53, "/volumes".into())));
    }
}
